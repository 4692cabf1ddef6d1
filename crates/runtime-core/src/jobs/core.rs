//! The engine on the store's writing thread: requests that have queued up run on it, are committed together and answered.
//!
//! One hop to that thread and one back is all that a call costs besides its commit. What the engine decides is seen by nobody
//! before it is stored; when it cannot be stored the engine is thrown away and loaded again.

use std::{
    collections::{HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use quintet_proto::v1::{ErrorClass, Job, JobError, JobEvent, JobState};
use tokio::{
    runtime::Handle,
    sync::{broadcast, oneshot, watch},
};
use tokio_util::sync::CancellationToken;

use super::{
    engine::{Effects, Engine},
    model::{Millis, job_error},
    runtime::Clock,
    store,
};
use crate::{
    db::{self, Db, Error, Tx},
    status::ErrorReason,
};

/// Told how the commit went.
pub(super) type Answer = Box<dyn FnOnce(Result<(), Error>) + Send>;
/// Runs on the engine, or hears why there is none.
pub(super) type Request = Box<dyn FnOnce(Result<(&mut Engine, Millis), Error>) -> Answer + Send>;

/// After a failure the timers are looked at again this much later.
const PAUSE: Duration = Duration::from_secs(1);

/// What every handle on the jobs shares.
pub(super) struct Core {
    pub(super) db: Db,
    pub(super) events: broadcast::Sender<Arc<JobEvent>>,
    /// Claims that wait, by their number.
    pub(super) waiting: Mutex<HashMap<u64, oneshot::Sender<Vec<Job>>>>,
    /// [`store::content_key`] of each job that has succeeded.
    pub(super) succeeded: Mutex<HashSet<u64>>,
    pub(super) runtime: Handle,
    clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    /// The writing thread's alone; none until it is loaded.
    engine: Mutex<Option<Engine>>,
    next_timer: watch::Sender<Option<Millis>>,
}

#[derive(Default)]
struct Queue {
    requests: Vec<Request>,
    /// A flush is on its way that will take what is queued until it begins.
    scheduled: bool,
}

impl Core {
    /// Without an engine: the first request loads it. Timers end with `drain`. Must be called inside a runtime.
    pub(super) fn start(
        db: Db,
        events: broadcast::Sender<Arc<JobEvent>>,
        clock: Arc<dyn Clock>,
        drain: CancellationToken,
    ) -> Arc<Self> {
        let (next_timer, timers) = watch::channel(None);
        let core = Arc::new(Self {
            db,
            events,
            waiting: Mutex::default(),
            succeeded: Mutex::default(),
            runtime: Handle::current(),
            clock,
            queue: Mutex::default(),
            engine: Mutex::default(),
            next_timer,
        });
        tokio::spawn(keep_time(Arc::downgrade(&core), core.clock.clone(), timers, drain));
        core
    }

    /// Queues a request; it is answered after its commit.
    pub(super) fn submit(self: &Arc<Self>, request: Request) {
        lock(&self.queue).requests.push(request);
        self.schedule();
    }

    fn schedule(self: &Arc<Self>) {
        if std::mem::replace(&mut lock(&self.queue).scheduled, true) {
            return;
        }
        let core = self.clone();
        self.runtime.spawn(async move {
            // Calls that have arrived but were not read yet join this commit rather than wait for it.
            tokio::task::yield_now().await;
            let db = core.db.clone();
            let flush = Flush { core, took: false, answers: Vec::new(), effects: Effects::default(), failed: None };
            db.enqueue(Box::new(flush)).await;
        });
    }

    fn load(&self, tx: &mut dyn Tx, now: Millis) -> Result<Engine, Error> {
        let loaded = store::load(tx, now)?;
        *lock(&self.succeeded) = loaded.succeeded;
        // Claims that wait were those of the lost engine: they ask again.
        lock(&self.waiting).clear();
        Ok(Engine::new(loaded.live, loaded.ended, loaded.next_key, loaded.next_revision, now.unsigned_abs()))
    }

    fn take_queue(&self) -> Vec<Request> {
        let mut queue = lock(&self.queue);
        queue.scheduled = false;
        std::mem::take(&mut queue.requests)
    }

    /// Tells what was committed, and answers.
    fn committed(self: &Arc<Self>, mut effects: Effects, answers: Vec<Answer>) {
        // Before anybody hears of a success, so that whoever has heard of it can have its outputs again.
        for row in effects.jobs.values().filter(|row| row.state == JobState::Succeeded) {
            lock(&self.succeeded).insert(store::content_key(&row.content_hash));
        }
        let live = std::mem::take(&mut effects.live);
        for event in effects.events.into_iter().map(|stored| stored.event).chain(live) {
            // Nobody may be watching.
            let _ = self.events.send(Arc::new(event));
        }
        answers.into_iter().for_each(|answer| answer(Ok(())));
        let mut lost = Vec::new();
        for (waiter, jobs) in effects.woken {
            let sender = lock(&self.waiting).remove(&waiter);
            if let Err(jobs) = sender.map_or_else(|| Err(jobs.clone()), |sender| sender.send(jobs.clone())) {
                lost.extend(jobs);
            }
        }
        if !lost.is_empty() {
            // Nobody waits for them any more: they are queued again.
            self.submit(Box::new(move |engine| {
                if let Ok((engine, now)) = engine {
                    engine.give_up(|job| is_one_of(job, &lost), &claimant_gone(), now);
                }
                Box::new(drop)
            }));
        }
    }
}

/// A turn of the engine on the writing thread.
struct Flush {
    core: Arc<Core>,
    /// It took what was queued.
    took: bool,
    answers: Vec<Answer>,
    effects: Effects,
    failed: Option<Error>,
}

impl Flush {
    fn turn(&mut self, tx: &mut dyn Tx) -> Result<(), Error> {
        let now = self.core.clock.now();
        let mut held = lock(&self.core.engine);
        if held.is_none() {
            *held = Some(self.core.load(tx, now)?);
        }
        let Some(engine) = held.as_mut() else { return Ok(()) };
        engine.fire_timers(now);
        self.took = true;
        for request in self.core.take_queue() {
            self.answers.push(request(Ok((&mut *engine, now))));
        }
        self.effects = engine.take_effects();
        if self.effects.events.is_empty() && self.effects.logs.is_empty() {
            return Ok(());
        }
        store::save(tx, &self.effects)
    }
}

impl db::Request for Flush {
    fn run(&mut self, tx: &mut dyn Tx) -> bool {
        let turned = catch_unwind(AssertUnwindSafe(|| self.turn(tx)));
        self.failed = turned.unwrap_or_else(|_| Err(Error::Statement("the engine of the jobs panicked".into()))).err();
        self.failed.is_none()
    }

    fn answer(mut self: Box<Self>, commit: Result<(), Error>) {
        let result = self.failed.take().map_or(commit, Err);
        if let Err(error) = result {
            tracing::error!(%error, "job transitions could not be stored and are undone");
            *lock(&self.core.engine) = None;
            for answer in self.answers {
                answer(Err(error.clone()));
            }
            if !self.took {
                // The database cannot be reached, or the engine cannot be loaded.
                for request in self.core.take_queue() {
                    drop(request(Err(error.clone())));
                }
            }
            let later = self.core.clock.now() + i64::try_from(PAUSE.as_millis()).unwrap_or(0);
            self.core.next_timer.send_replace(Some(later));
            return;
        }
        let next = lock(&self.core.engine).as_ref().and_then(Engine::next_timer);
        self.core.next_timer.send_if_modified(|timer| std::mem::replace(timer, next) != next);
        self.core.committed(self.effects, self.answers);
    }
}

/// Gives the engine a turn when a timer is due.
async fn keep_time(
    core: Weak<Core>,
    clock: Arc<dyn Clock>,
    mut next: watch::Receiver<Option<Millis>>,
    drain: CancellationToken,
) {
    loop {
        let at = *next.borrow_and_update();
        let pause = at.map_or(3_600_000, |at| u64::try_from(at - clock.now()).unwrap_or(0));
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            changed = next.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = drain.cancelled() => return,
        }
        let (turned, turn) = oneshot::channel();
        match core.upgrade() {
            Some(core) => core.submit(Box::new(move |engine| {
                let failed = engine.is_err();
                Box::new(move |commit: Result<(), Error>| {
                    // The timers may have ended.
                    let _ = turned.send(!failed && commit.is_ok());
                })
            })),
            None => return,
        }
        if !turn.await.unwrap_or(false) {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn is_one_of(job: &Job, given: &[Job]) -> bool {
    given.iter().any(|given| given.uid == job.uid && given.attempt == job.attempt)
}

pub(super) fn claimant_gone() -> JobError {
    job_error(ErrorReason::WorkerCrashed, "the worker went away while it claimed", ErrorClass::Preemption)
}
