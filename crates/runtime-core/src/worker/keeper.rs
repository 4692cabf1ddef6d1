//! Keeps a lease: sends heartbeats, obeys their answers, and reports the outcome.

use std::time::Duration;

use quintet_proto::v1::{
    Directive, FinishJobRequest, HeartbeatRequest, Outputs, Stopped, finish_job_request::Outcome,
    worker_service_client::WorkerServiceClient,
};
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{
    context::{Context, Done, Outbox, WorkResult},
    inputs::Inputs,
};
use crate::{
    client::{Backoff, Connection},
    status::chain,
};

/// Progress and log travel at least this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Keeper {
    client: WorkerServiceClient<Connection>,
    context: Context,
    term: Duration,
    /// Held while a report travels: what it carries is lost when the outcome overtakes it.
    reporting: Mutex<()>,
}

impl Keeper {
    pub(super) fn new(client: WorkerServiceClient<Connection>, context: Context, term: Duration) -> Self {
        Self { client, context, term, reporting: Mutex::new(()) }
    }

    /// Sends heartbeats until `done`, or until the lease is lost.
    pub(super) async fn keep(&self, done: CancellationToken) {
        let interval = REPORT_INTERVAL.min(self.term / 3);
        let mut lease_until = Instant::now() + self.term;
        let mut backoff = Backoff::default();
        loop {
            tokio::select! {
                () = done.cancelled() => return,
                () = self.context.0.wake.notified() => {}
                () = tokio::time::sleep(interval) => {}
            }
            let reporting = tokio::select! {
                () = done.cancelled() => return,
                reporting = self.reporting.lock() => reporting,
            };
            let outbox = self.context.take_outbox();
            let answer = self.beat(&outbox).await;
            if answer.as_ref().is_err_and(|status| !is_lost(status)) {
                self.context.put_back(outbox);
            }
            drop(reporting);
            match answer {
                Ok(directive) => {
                    backoff.reset();
                    lease_until = Instant::now() + self.term;
                    self.context.set_directive(directive);
                }
                Err(status) if is_lost(&status) => {
                    tracing::warn!(%status, "the lease was lost");
                    self.context.set_directive(Directive::Abandon);
                    return;
                }
                Err(status) => {
                    tracing::warn!(%status, "a heartbeat was not answered");
                    // The store gives a silent attempt two terms; a worker that cannot report stops well before another runs.
                    if Instant::now() >= lease_until + self.term / 2 {
                        self.context.set_directive(Directive::Abandon);
                        return;
                    }
                    tokio::select! {
                        () = done.cancelled() => return,
                        () = backoff.pause() => {}
                    }
                }
            }
        }
    }

    async fn beat(&self, outbox: &Outbox) -> Result<Directive, Status> {
        let job = self.context.job();
        let request = HeartbeatRequest {
            job: job.name.clone(),
            attempt: job.attempt,
            progress: outbox.progress.clone(),
            metrics: outbox.metrics.clone(),
            log: outbox.log.clone(),
            log_offset: outbox.log_offset,
            finalizing: outbox.finalizing,
        };
        let mut client = self.client.clone();
        let answer = tokio::time::timeout(self.term / 3, client.heartbeat(request)).await;
        let answer = answer.map_err(|_| Status::unavailable("no answer in time"))??;
        Ok(answer.get_ref().directive())
    }

    /// Publishes the outputs and ends the attempt; repeats until the server answers or the lease is lost.
    pub(super) async fn finish(&self, result: WorkResult) {
        let job = self.context.job();
        if self.context.directive() == Directive::Abandon {
            return;
        }
        let mut left = None;
        let outcome = match result {
            Ok(done) => match self.publish(&done).await {
                Ok(outputs) if done.stopped => Outcome::Stopped(Stopped { outputs: Some(outputs) }),
                Ok(outputs) => Outcome::Succeeded(outputs),
                Err(failure) => {
                    self.context.log(format!("publishing failed: {failure}"));
                    Outcome::Failed(failure.into_error(job.attempt, self.context.log_tail()))
                }
            },
            Err(mut failure) => {
                self.context.log(format!("failed: {failure}"));
                if let Some(done) = failure.left.take() {
                    // The failure is what counts: without this it is told all the same.
                    let published = self.publish(&done).await;
                    left = published.map_err(|error| self.context.log(format!("publishing failed: {error}"))).ok();
                }
                Outcome::Failed(failure.into_error(job.attempt, self.context.log_tail()))
            }
        };
        let _reporting = self.reporting.lock().await;
        let outbox = self.context.take_outbox();
        let request = FinishJobRequest {
            job: job.name.clone(),
            attempt: job.attempt,
            outcome: Some(outcome),
            log: outbox.log,
            log_offset: outbox.log_offset,
            metrics: outbox.metrics,
            left,
        };
        let mut backoff = Backoff::default();
        let give_up = Instant::now() + self.term * 2;
        loop {
            match self.client.clone().finish_job(request.clone()).await {
                Ok(_) => return,
                Err(status) if is_lost(&status) || Instant::now() >= give_up => {
                    tracing::error!(%status, job = job.name, "the outcome could not be reported");
                    return;
                }
                Err(status) if matches!(status.code(), Code::InvalidArgument | Code::OutOfRange) => {
                    tracing::error!(%status, job = job.name, "the server refused the outcome");
                    return;
                }
                Err(_) => backoff.pause().await,
            }
        }
    }

    async fn publish(&self, done: &Done) -> Result<Outputs, super::Failure> {
        self.context.finalizing();
        let job = self.context.job();
        // A stopped attempt leaves its metrics and report, no artifacts.
        let root = self.context.outputs_root();
        let artifacts = if done.stopped { Default::default() } else { Inputs::publish(&self.context, &root).await? };
        let report = crate::worker::inputs::to_struct(&self.context.with_inputs(done.report.clone()));
        tracing::info!(job = job.name, artifacts = artifacts.len(), "published");
        Ok(Outputs { artifacts, metrics: done.metrics.clone(), report })
    }
}

/// The attempt is no longer this worker's.
fn is_lost(status: &Status) -> bool {
    matches!(status.code(), Code::Aborted | Code::NotFound | Code::FailedPrecondition | Code::Unauthenticated)
}

/// Text of an error with its causes.
pub(super) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error)
}

#[cfg(test)]
mod tests;
