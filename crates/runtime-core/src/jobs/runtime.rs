//! The handle on the durable jobs: requests to the engine, claims that wait, events.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use quintet_proto::v1::{ErrorClass, Job, JobEvent};
use tokio::sync::{broadcast, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    core::{Core, claimant_gone, is_one_of, lock},
    engine::{ClaimFilter, Engine},
    model::{Millis, job_error},
    store,
};
use crate::{
    db::{Db, Error},
    status::ErrorReason,
};

/// Events that a watcher may lag behind before it reads them from the store.
const EVENT_BUFFER: usize = 16_384;

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970.
    fn now(&self) -> Millis;
}

/// The clock of the machine.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// A handle on the durable jobs of one database; clones share it.
#[derive(Clone)]
pub struct Jobs(Arc<Core>);

/// Names of workers that live and die with the server's process begin with this.
pub const LOCAL_WORKER: &str = "local/";

impl Jobs {
    /// Opens the store at `url` for this process alone and starts the engine; it ends with `drain`.
    ///
    /// Attempts of local workers of an earlier process are given back to the queue at once.
    ///
    /// # Errors
    /// The database's.
    pub async fn open(url: &str, clock: Arc<dyn Clock>, drain: CancellationToken) -> Result<Self, Error> {
        let url = url.to_owned();
        let db = tokio::task::spawn_blocking(move || Db::open_exclusive(&url, store::MIGRATIONS))
            .await
            .unwrap_or_else(|_| Err(Error::Statement("opening the job store panicked".into())))?;
        let (events, _) = broadcast::channel(EVENT_BUFFER);
        let jobs = Self(Core::start(db, events, clock, drain));
        let restarted = job_error(ErrorReason::WorkerCrashed, "the server was restarted", ErrorClass::Preemption);
        jobs.run(move |engine, now| {
            engine.give_up(|job| job.worker.starts_with(LOCAL_WORKER), &restarted, now);
        })
        .await?;
        Ok(jobs)
    }

    /// The store behind, for reading.
    pub fn db(&self) -> &Db {
        &self.0.db
    }

    /// Runs `f` on the engine and returns its answer once its effects are stored.
    ///
    /// # Errors
    /// The commit failed: then nothing of `f` happened.
    pub async fn run<T, F>(&self, f: F) -> Result<T, Error>
    where
        F: FnOnce(&mut Engine, Millis) -> T + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.0.submit(Box::new(move |engine| match engine {
            Ok((engine, now)) => {
                let value = f(engine, now);
                Box::new(move |commit| {
                    // The caller may have gone; what it asked for is done all the same.
                    let _ = reply.send(commit.map(|()| value));
                })
            }
            Err(error) => {
                let _ = reply.send(Err(error));
                Box::new(drop)
            }
        }));
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Claims jobs, waiting up to `wait` for one.
    ///
    /// # Errors
    /// The commit failed.
    pub async fn claim(&self, filter: ClaimFilter, wait: Duration) -> Result<Vec<Job>, Error> {
        self.claim_until(filter, tokio::time::sleep(wait)).await
    }

    /// Claims jobs, waiting for one until `stop` resolves. Unlike a dropped [`Jobs::claim`], which gives back what it was just
    /// given, this returns it: no attempt is used up.
    ///
    /// # Errors
    /// The commit failed.
    pub async fn claim_until(&self, filter: ClaimFilter, stop: impl Future<Output = ()>) -> Result<Vec<Job>, Error> {
        let (sender, receiver) = oneshot::channel();
        let (reply, answer) = oneshot::channel();
        let jobs = self.clone();
        self.0.submit(Box::new(move |engine| {
            let claimed = engine.map(|(engine, now)| engine.claim(filter, now));
            Box::new(move |commit| {
                let claimed = commit.and(claimed);
                // Registered before the answers to waiting claims go out, which may be one of this very commit.
                if let Ok(Err(waiter)) = &claimed {
                    lock(&jobs.0.waiting).insert(*waiter, sender);
                }
                if let Err(Ok(unheard)) = reply.send(claimed) {
                    jobs.take_back(unheard);
                }
            })
        }));
        let mut unheard = Unheard { jobs: self, answer };
        let waiter = match (&mut unheard.answer).await.map_err(|_| Error::Closed)?? {
            Ok(jobs) => return Ok(jobs),
            Err(waiter) => waiter,
        };
        let mut guard = WaitGuard { jobs: self.clone(), waiter, receiver };
        tokio::select! {
            // An answer that is there goes first.
            biased;
            jobs = &mut guard.receiver => {
                guard.waiter = 0;
                return Ok(jobs.unwrap_or_default());
            }
            () = stop => {}
        }
        self.run(move |engine, _| engine.stop_waiting(waiter)).await?;
        guard.waiter = 0;
        lock(&self.0.waiting).remove(&waiter);
        // An answer may have come while the wait was being ended.
        Ok(guard.receiver.try_recv().unwrap_or_default())
    }

    /// The job of this uid, live or ended, and the hash of the request that made it when it has ended.
    ///
    /// # Errors
    /// The database's.
    pub async fn get(&self, uid: &str) -> Result<Option<Job>, Error> {
        let live = {
            let uid = uid.to_owned();
            self.run(move |engine, _| engine.get(&uid).cloned()).await?
        };
        match live {
            Some(job) => Ok(Some(job)),
            None => Ok(store::get(&self.0.db, uid).await?.map(|(job, _)| job)),
        }
    }

    /// Undoes a claim that nobody heard the answer of: a wait ends, jobs go back to the queue.
    fn take_back(&self, claimed: Claimed) {
        if claimed.as_ref().is_ok_and(Vec::is_empty) {
            return;
        }
        let jobs = self.clone();
        // From the writing thread too, which is outside of the runtime.
        self.0.runtime.spawn(async move {
            if let Err(waiter) = &claimed {
                lock(&jobs.0.waiting).remove(waiter);
            }
            let undone = jobs.run(move |engine, now| match claimed {
                Ok(given) => engine.give_up(|job| is_one_of(job, &given), &claimant_gone(), now),
                Err(waiter) => engine.stop_waiting(waiter),
            });
            if let Err(error) = undone.await {
                tracing::warn!(%error, "a claim whose caller has gone could not be undone");
            }
        });
    }

    /// Whether a job of this content may have succeeded: when not, the store need not be asked.
    pub fn may_have_succeeded(&self, content_hash: &str) -> bool {
        lock(&self.0.succeeded).contains(&store::content_key(content_hash))
    }

    /// Every event from now on; a receiver that lags has to read the store.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<JobEvent>> {
        self.0.events.subscribe()
    }
}

/// The answer to a claim: jobs, or the number under which it waits.
type Claimed = Result<Vec<Job>, u64>;

/// Gives back what a claim was given whose caller went away during the commit.
struct Unheard<'a> {
    jobs: &'a Jobs,
    answer: oneshot::Receiver<Result<Claimed, Error>>,
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        // Closed first: an answer that comes later finds nobody, and its sender takes it back.
        self.answer.close();
        if let Ok(Ok(claimed)) = self.answer.try_recv() {
            self.jobs.take_back(claimed);
        }
    }
}

/// Ends a wait whose caller went away, and gives back what it was given in the meantime.
struct WaitGuard {
    jobs: Jobs,
    /// 0 once the wait has ended in order.
    waiter: u64,
    receiver: oneshot::Receiver<Vec<Job>>,
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        // Closed first: an answer that comes later finds nobody, and its jobs are queued again.
        self.receiver.close();
        let given = self.receiver.try_recv().unwrap_or_default();
        if self.waiter != 0 {
            self.jobs.take_back(Err(self.waiter));
            self.jobs.take_back(Ok(given));
        }
    }
}
