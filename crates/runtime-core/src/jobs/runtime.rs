//! Runs the engine: takes requests that have queued up, commits their effects together, then answers.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use quintet_proto::v1::{ErrorClass, Job, JobError, JobEvent, JobState};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    engine::{ClaimFilter, Engine},
    model::{Millis, job_error},
    store,
};
use crate::{
    db::{Db, Error},
    status::ErrorReason,
};

/// Requests of one commit at most.
const MAX_BATCH: usize = 512;
/// Requests that may wait before their callers do.
const QUEUE: usize = 8192;
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

type Answer = Box<dyn FnOnce(Result<(), Error>) + Send>;
type Request = Box<dyn FnOnce(&mut Engine, Millis) -> Answer + Send>;

/// A handle on the durable jobs of one database; clones share it.
#[derive(Clone)]
pub struct Jobs {
    requests: mpsc::Sender<Request>,
    db: Db,
    events: broadcast::Sender<Arc<JobEvent>>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Vec<Job>>>>>,
    succeeded: Arc<Mutex<HashSet<u64>>>,
}

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
        let (requests, receiver) = mpsc::channel(QUEUE);
        let (events, _) = broadcast::channel(EVENT_BUFFER);
        let (waiting, succeeded) = (Arc::default(), Arc::default());
        let jobs = Self { requests, db: db.clone(), events: events.clone(), waiting, succeeded };
        let (waiting, succeeded) = (jobs.waiting.clone(), jobs.succeeded.clone());
        let mut actor = Actor { db, clock, events, waiting, succeeded, engine: None };
        actor.load().await?;
        tokio::spawn(actor.run(receiver, drain));
        let restarted = job_error(ErrorReason::WorkerCrashed, "the server was restarted", ErrorClass::Preemption);
        jobs.run(move |engine, now| {
            engine.give_up(|job| job.worker.starts_with(LOCAL_WORKER), &restarted, now);
        })
        .await?;
        Ok(jobs)
    }

    /// The store behind, for reading.
    pub fn db(&self) -> &Db {
        &self.db
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
        let request: Request = Box::new(move |engine, now| {
            let value = f(engine, now);
            Box::new(move |commit| {
                // The caller may have gone; what it asked for is done all the same.
                let _ = reply.send(commit.map(|()| value));
            })
        });
        self.requests.send(request).await.map_err(|_| Error::Closed)?;
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
        let request: Request = Box::new(move |engine, now| {
            let claimed = engine.claim(filter, now);
            Box::new(move |commit| {
                let claimed = commit.map(|()| claimed);
                // Registered before the answers to waiting claims go out, which may be one of this very commit.
                if let Ok(Err(waiter)) = &claimed {
                    lock(&jobs.waiting).insert(*waiter, sender);
                }
                if let Err(Ok(unheard)) = reply.send(claimed) {
                    jobs.take_back(unheard);
                }
            })
        });
        self.requests.send(request).await.map_err(|_| Error::Closed)?;
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
        lock(&self.waiting).remove(&waiter);
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
            None => Ok(store::get(&self.db, uid).await?.map(|(job, _)| job)),
        }
    }

    /// Undoes a claim that nobody heard the answer of: a wait ends, jobs go back to the queue.
    fn take_back(&self, claimed: Claimed) {
        if claimed.as_ref().is_ok_and(Vec::is_empty) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let jobs = self.clone();
        runtime.spawn(async move {
            if let Err(waiter) = &claimed {
                lock(&jobs.waiting).remove(waiter);
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
        lock(&self.succeeded).contains(&store::content_key(content_hash))
    }

    /// Every event from now on; a receiver that lags has to read the store.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<JobEvent>> {
        self.events.subscribe()
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
        // Closed first: an answer that comes later finds nobody, and the actor queues its jobs again itself.
        self.receiver.close();
        let given = self.receiver.try_recv().unwrap_or_default();
        if self.waiter != 0 {
            self.jobs.take_back(Err(self.waiter));
            self.jobs.take_back(Ok(given));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_one_of(job: &Job, given: &[Job]) -> bool {
    given.iter().any(|given| given.uid == job.uid && given.attempt == job.attempt)
}

fn claimant_gone() -> JobError {
    job_error(ErrorReason::WorkerCrashed, "the worker went away while it claimed", ErrorClass::Preemption)
}

struct Actor {
    db: Db,
    clock: Arc<dyn Clock>,
    events: broadcast::Sender<Arc<JobEvent>>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Vec<Job>>>>>,
    succeeded: Arc<Mutex<HashSet<u64>>>,
    engine: Option<Engine>,
}

impl Actor {
    async fn load(&mut self) -> Result<(), Error> {
        let now = self.clock.now();
        let loaded = store::load(&self.db, now).await?;
        let seed = now.unsigned_abs();
        *lock(&self.succeeded) = loaded.succeeded;
        self.engine = Some(Engine::new(loaded.live, loaded.ended, loaded.next_key, loaded.next_revision, seed));
        // Claims that wait were those of the lost engine: they ask again.
        lock(&self.waiting).clear();
        Ok(())
    }

    async fn run(mut self, mut requests: mpsc::Receiver<Request>, drain: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let next_timer = self.engine.as_ref().and_then(Engine::next_timer);
            let pause = next_timer.map(|at| Duration::from_millis(u64::try_from(at - self.clock.now()).unwrap_or(0)));
            let timer = tokio::time::sleep(pause.unwrap_or(Duration::from_secs(3600)));
            tokio::select! {
                received = requests.recv_many(&mut batch, MAX_BATCH) => if received == 0 { return },
                () = timer => {}
                // What is queued by then is still done: handles exist as long as someone waits for an answer.
                () = drain.cancelled(), if requests.is_empty() => return,
            }
            // Calls that have arrived but were not read yet join this commit rather than wait for it.
            tokio::task::yield_now().await;
            while batch.len() < MAX_BATCH
                && let Ok(request) = requests.try_recv()
            {
                batch.push(request);
            }
            while self.commit(&mut batch).await {}
        }
    }

    /// Commits a batch; true when answering it made something new to store.
    async fn commit(&mut self, batch: &mut Vec<Request>) -> bool {
        if self.engine.is_none()
            && let Err(error) = self.load().await
        {
            tracing::error!(%error, "the job store cannot be read");
            batch.clear();
            return false;
        }
        let Some(engine) = &mut self.engine else { return false };
        let now = self.clock.now();
        engine.fire_timers(now);
        let answers: Vec<Answer> = batch.drain(..).map(|request| request(engine, now)).collect();
        let mut effects = engine.take_effects();
        let live = std::mem::take(&mut effects.live);
        let woken = std::mem::take(&mut effects.woken);
        let commit = if effects.events.is_empty() && effects.logs.is_empty() {
            Ok(effects)
        } else {
            self.db
                .write(move |tx| {
                    store::save(tx, &effects)?;
                    Ok::<_, Error>(effects)
                })
                .await
        };
        match commit {
            Ok(effects) => {
                // Before anybody hears of a success, so that whoever has heard of it can have its outputs again.
                for row in effects.jobs.values().filter(|row| row.state == JobState::Succeeded) {
                    lock(&self.succeeded).insert(store::content_key(&row.content_hash));
                }
                for event in effects.events.into_iter().map(|stored| stored.event).chain(live) {
                    // Nobody may be watching.
                    let _ = self.events.send(Arc::new(event));
                }
                answers.into_iter().for_each(|answer| answer(Ok(())));
                self.wake(woken)
            }
            Err(error) => {
                tracing::error!(%error, "job transitions could not be stored and are undone");
                self.engine = None;
                answers.into_iter().for_each(|answer| answer(Err(error.clone())));
                if let Err(error) = self.load().await {
                    tracing::error!(%error, "the job store cannot be read");
                }
                false
            }
        }
    }

    fn wake(&mut self, woken: Vec<(u64, Vec<Job>)>) -> bool {
        let mut lost = Vec::new();
        for (waiter, jobs) in woken {
            let sender = lock(&self.waiting).remove(&waiter);
            if let Err(jobs) = sender.map_or_else(|| Err(jobs.clone()), |sender| sender.send(jobs.clone())) {
                lost.extend(jobs);
            }
        }
        if let (Some(engine), false) = (&mut self.engine, lost.is_empty()) {
            // Nobody waits for them any more: they are queued again.
            let now = self.clock.now();
            engine.give_up(|job| is_one_of(job, &lost), &claimant_gone(), now);
            return true;
        }
        false
    }
}
