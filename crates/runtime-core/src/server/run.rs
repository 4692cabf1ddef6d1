//! The life of a running server: background tasks, and the steps of the shutdown in their order.
use std::time::Duration;

use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout_at},
};
use tonic_health::ServingStatus;

use super::{Drain, Error, Health, ServerOptions, Task, TaskResult, connection::Acceptor, ready};
use crate::status;

/// Share of the shutdown deadline that background tasks may use; the rest belongs to the connections.
const TASK_SHARE: f64 = 0.75;

pub(super) struct Running {
    options: ServerOptions,
    drain: Drain,
    health: Health,
    acceptor: Acceptor,
}

impl Running {
    pub(super) fn new(options: ServerOptions, drain: Drain, health: Health, acceptor: Acceptor) -> Self {
        Self { options, drain, health, acceptor }
    }

    /// Runs until drained; gives the first failure of a background task.
    pub(super) async fn run(self, tasks: Vec<(String, Task)>, accepting: JoinHandle<()>) -> Result<(), Error> {
        let mut set: JoinSet<(String, TaskResult)> = JoinSet::new();
        for (name, task) in tasks {
            set.spawn(async move { (name, task.await) });
        }
        let mut failure = None;
        loop {
            tokio::select! {
                () = self.drain.begun() => break,
                Some(ended) = set.join_next() => {
                    if let Some(error) = failed(ended) {
                        tracing::error!(%error, "a background task failed; shutting down");
                        failure = Some(error);
                        self.drain.begin();
                    }
                }
            }
        }
        self.shut_down(&mut set, &mut failure, accepting).await;
        failure.map_or(Ok(()), Err)
    }

    async fn shut_down(
        &self,
        tasks: &mut JoinSet<(String, TaskResult)>,
        failure: &mut Option<Error>,
        accepting: JoinHandle<()>,
    ) {
        let begin = Instant::now();
        let deadline = begin + self.options.shutdown_deadline;
        self.health.set(ServingStatus::NotServing).await;
        if let Some(path) = &self.options.ready_file
            && let Err(error) = ready::remove(path)
        {
            tracing::warn!(%error, "cannot remove the ready file");
        }
        // Calls are still answered here: tasks may need them (a worker reports what it had), and load balancers look away first.
        let (delay, share) = (self.options.drain_delay, self.options.shutdown_deadline.mul_f64(TASK_SHARE));
        tokio::join!(sleep(delay.min(share)), finish(tasks, failure, begin + share));
        let stages = &self.acceptor.stages;
        stages.stop.cancel();
        if accepting.await.is_err() {
            tracing::error!("the accept loop panicked");
        }
        let tracker = &self.acceptor.tracker;
        tracker.close();
        let open = tracker.len();
        if timeout_at(deadline.min(Instant::now() + self.options.stream_grace), tracker.wait()).await.is_err() {
            stages.cut.cancel();
            if timeout_at(deadline, tracker.wait()).await.is_err() {
                tracing::warn!(connections = tracker.len(), "cut off at the shutdown deadline");
                stages.kill.cancel();
                // Dropping a connection takes no time of its own; this only waits for the tasks to notice.
                let _ = timeout_at(Instant::now() + Duration::from_secs(1), tracker.wait()).await;
            }
        }
        tracing::info!(connections = open, seconds = begin.elapsed().as_secs_f64(), "shut down");
    }
}

/// Waits for the tasks, and gives up those that are left at the limit.
async fn finish(tasks: &mut JoinSet<(String, TaskResult)>, failure: &mut Option<Error>, limit: Instant) {
    loop {
        match timeout_at(limit, tasks.join_next()).await {
            Ok(None) => return,
            Ok(Some(ended)) => {
                if let Some(error) = failed(ended) {
                    tracing::error!(%error, "a background task failed while shutting down");
                    failure.get_or_insert(error);
                }
            }
            Err(_) => {
                tracing::warn!(tasks = tasks.len(), "background tasks did not finish in time");
                tasks.abort_all();
                return;
            }
        }
    }
}

fn failed(ended: Result<(String, TaskResult), tokio::task::JoinError>) -> Option<Error> {
    match ended {
        Ok((_, Ok(()))) => None,
        Ok((task, Err(error))) => Some(Error::Task { task, reason: status::chain(&*error) }),
        Err(error) => Some(Error::Task { task: "a background task".into(), reason: error.to_string() }),
    }
}
