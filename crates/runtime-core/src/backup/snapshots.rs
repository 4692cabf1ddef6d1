//! Snapshots of a database after each change: a burst of changes makes one copy, and the last change is never left out.
use std::{future::Future, time::Duration};

use tokio::sync::watch;

use super::{BackupPolicy, Error, Outcome};
use crate::{
    db::{Db, Dialect},
    server::Drain,
    status,
};

/// Changes that come within this time after the first share a copy.
const BURST: Duration = Duration::from_millis(200);
/// Pause after a copy that failed; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// How long the task waits: for the rest of a burst, and before it tries again.
#[derive(Debug, Clone, Copy)]
struct Pauses {
    burst: Duration,
    first_retry: Duration,
}

/// What the task has done so far.
#[derive(Debug, Clone, Default)]
struct Done {
    /// Changes that are in a copy.
    changes: u64,
    /// Copies that were tried, so that a waiter sees a failure that came after it began to wait.
    tries: u64,
    error: Option<String>,
}

/// Asks for copies of one database. Cheap to clone; the copies are made by the task that comes with it.
#[derive(Debug, Clone)]
pub struct Snapshots {
    changes: watch::Sender<u64>,
    done: watch::Receiver<Done>,
}

impl Snapshots {
    /// A handle, and the task that makes the copies until the drain begins and nothing is left to copy:
    /// `server.task("study backup", async { task.await; Ok(()) })`. When backup is off, and on PostgreSQL, which has its own tools, nothing is copied.
    pub fn new(
        policy: BackupPolicy,
        name: impl Into<String>,
        db: Db,
        drain: Drain,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let name = name.into();
        // Said once, not after every trial.
        let policy = match db.dialect() {
            Dialect::Postgres if policy.is_enabled() => {
                tracing::warn!(
                    name,
                    "PostgreSQL is backed up by its own tools, such as pg_dump; no snapshots are made"
                );
                BackupPolicy::disabled()
            }
            _ => policy,
        };
        let make = move || {
            let (policy, name, db) = (policy.clone(), name.clone(), db.clone());
            async move { policy.backup_database(&name, &db).await }
        };
        Self::with(make, drain, Pauses { burst: BURST, first_retry: FIRST_RETRY })
    }

    fn with<F, M>(make: M, drain: Drain, pauses: Pauses) -> (Self, impl Future<Output = ()> + Send + 'static)
    where
        M: Fn() -> F + Send + 'static,
        F: Future<Output = Result<Outcome, Error>> + Send + 'static,
    {
        let (changes, wanted) = watch::channel(0);
        let (report, done) = watch::channel(Done::default());
        (Self { changes, done }, run(make, wanted, report, drain, pauses))
    }

    /// Says that the database changed. Returns at once.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Waits until every change so far is in a copy.
    ///
    /// # Errors
    /// [`Error::Last`] when a copy failed meanwhile (the task tries again all the same), [`Error::Ended`] when the task has ended.
    pub async fn flush(&self) -> Result<(), Error> {
        let wanted = *self.changes.borrow();
        let mut done = self.done.clone();
        let tries = done.borrow().tries;
        let state = done.wait_for(|done| done.changes >= wanted || (done.tries > tries && done.error.is_some())).await;
        let state = state.map_err(|_| Error::Ended)?;
        match (&state.error, state.changes >= wanted) {
            (_, true) => Ok(()),
            (error, false) => Err(Error::Last(error.clone().unwrap_or_default())),
        }
    }
}

async fn run<F, M>(make: M, mut wanted: watch::Receiver<u64>, report: watch::Sender<Done>, drain: Drain, pauses: Pauses)
where
    M: Fn() -> F,
    F: Future<Output = Result<Outcome, Error>>,
{
    let mut pause = pauses.first_retry;
    loop {
        let done = report.borrow().changes;
        tokio::select! {
            // At the drain the last changes are still copied: this branch is asked first.
            biased;
            changed = wanted.wait_for(|wanted| *wanted > done) => if changed.is_err() { return },
            () = drain.begun() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(pauses.burst) => {}
            () = drain.begun() => {}
        }
        // Read before the copy: a change during the copy may not be in it, and asks for another one.
        let target = *wanted.borrow();
        let outcome = make().await;
        match &outcome {
            Ok(outcome) => {
                tracing::debug!(%outcome, "database backup");
                pause = pauses.first_retry;
            }
            Err(error) => tracing::warn!(error = %status::chain(error), "database backup failed"),
        }
        let failed = outcome.is_err();
        report.send_modify(|done| {
            done.tries += 1;
            done.error = outcome.as_ref().err().map(|error| status::chain(error));
            if !failed {
                done.changes = target;
            }
        });
        if failed {
            if drain.is_draining() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = drain.begun() => {}
            }
            pause = (pause * 2).min(LAST_RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use tokio::sync::Semaphore;

    use super::*;

    /// Copies that count the changes they saw, as a database would hold them; each waits for a permit of the gate.
    struct Fake {
        changes: AtomicU64,
        copies: AtomicU64,
        newest: AtomicU64,
        failures: AtomicU64,
        begun: Semaphore,
        gate: Semaphore,
    }

    fn fake(failures: u64, drain: &Drain) -> (Arc<Fake>, Snapshots, impl Future<Output = ()> + Send + 'static) {
        let (begun, gate) = (Semaphore::new(0), Semaphore::new(0));
        let (changes, copies, newest) = (0.into(), 0.into(), 0.into());
        let fake = Arc::new(Fake { changes, copies, newest, failures: failures.into(), begun, gate });
        let state = fake.clone();
        let make = move || {
            let state = state.clone();
            async move {
                let seen = state.changes.load(Ordering::SeqCst);
                state.begun.add_permits(1);
                state.gate.acquire().await.unwrap().forget();
                if state.failures.load(Ordering::SeqCst) > 0 {
                    state.failures.fetch_sub(1, Ordering::SeqCst);
                    return Err(Error::Time("on purpose".into()));
                }
                state.copies.fetch_add(1, Ordering::SeqCst);
                state.newest.store(seen, Ordering::SeqCst);
                Ok(Outcome::Missing)
            }
        };
        let pauses = Pauses { burst: Duration::from_millis(5), first_retry: Duration::from_millis(1) };
        let (snapshots, task) = Snapshots::with(make, drain.clone(), pauses);
        (fake, snapshots, task)
    }

    impl Fake {
        fn change(&self, snapshots: &Snapshots) {
            self.changes.fetch_add(1, Ordering::SeqCst);
            snapshots.changed();
        }

        /// Resolves once a copy has begun that was not waited for yet.
        async fn begun(&self) {
            self.begun.acquire().await.unwrap().forget();
        }

        fn counts(&self) -> (u64, u64) {
            (self.copies.load(Ordering::SeqCst), self.newest.load(Ordering::SeqCst))
        }
    }

    #[tokio::test]
    async fn a_burst_makes_one_copy_and_the_last_change_is_in_one() {
        let drain = Drain::new();
        let (fake, snapshots, task) = fake(0, &drain);
        let task = tokio::spawn(task);
        // All of these come before the task runs for the first time.
        for _ in 0..100 {
            fake.change(&snapshots);
        }
        fake.gate.add_permits(1);
        snapshots.flush().await.unwrap();
        assert_eq!(fake.counts(), (1, 100));
        fake.begun().await;
        // One that starts a copy, then one that comes while the copy is made.
        fake.change(&snapshots);
        fake.begun().await;
        fake.change(&snapshots);
        fake.gate.add_permits(2);
        snapshots.flush().await.unwrap();
        assert_eq!(fake.counts(), (3, 102));
        // And one right before the end.
        fake.change(&snapshots);
        drain.begin();
        fake.gate.add_permits(1);
        task.await.unwrap();
        assert_eq!(fake.counts(), (4, 103));
        snapshots.changed();
        assert!(matches!(snapshots.flush().await, Err(Error::Ended)));
    }

    #[tokio::test]
    async fn a_copy_that_fails_is_told_and_made_again() {
        let drain = Drain::new();
        let (fake, snapshots, task) = fake(3, &drain);
        let task = tokio::spawn(task);
        fake.change(&snapshots);
        let first = tokio::spawn({
            let snapshots = snapshots.clone();
            async move { snapshots.flush().await }
        });
        fake.begun().await;
        fake.gate.add_permits(1);
        assert!(matches!(first.await.unwrap(), Err(Error::Last(text)) if text.contains("on purpose")));
        fake.gate.add_permits(3);
        // Two more that fail, then the one that does not.
        for _ in 0..3 {
            fake.begun().await;
        }
        while snapshots.flush().await.is_err() {}
        assert_eq!(fake.counts(), (1, 1));
        drain.begin();
        task.await.unwrap();
    }
}
