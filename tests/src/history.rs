//! Checks the history of a job store: what the events say happened must be possible, whatever was killed meanwhile.
//!
//! Every revision is there once; a job's attempts only grow; each change of state is one that the state machine has; nothing
//! follows a terminal state; no attempt but the current one reports or ends a job; the row of a job agrees with its last event.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, ensure};
use quintet_proto::v1::{Job, JobEvent, JobState, job_event::Event};
use runtime_core::{
    db::{self, Db, Row},
    jobs::{
        model::{is_terminal, uid_of},
        store,
    },
};

/// Events read at once.
const PAGE: usize = 4096;

/// All that a store says about its jobs.
#[derive(Debug, Default)]
pub struct History {
    /// The last state of each job, by name.
    pub jobs: BTreeMap<String, Job>,
    /// Each job's states in order, by name.
    pub states: HashMap<String, Vec<JobState>>,
    /// Events in all.
    pub events: usize,
}

impl History {
    /// Reads and checks the store at a URL; it may be in use.
    ///
    /// # Errors
    /// The first thing that cannot have happened, with job and revision.
    pub async fn check(url: &str) -> anyhow::Result<Self> {
        let url = url.to_owned();
        let db = tokio::task::spawn_blocking(move || Db::open(&url, store::MIGRATIONS)).await??;
        let mut history = Self::default();
        let mut revision = 0;
        loop {
            let page = store::events(&db, None, revision, PAGE).await?;
            let last = page.len() < PAGE;
            for event in page {
                ensure!(event.revision == revision + 1, "revision {} follows {revision}", event.revision);
                revision = event.revision;
                let (name, at) = (event.job.clone(), event.revision);
                history.add(event).with_context(|| format!("{name}, revision {at}"))?;
            }
            if last {
                break;
            }
        }
        history.check_rows(&db).await?;
        Ok(history)
    }

    fn add(&mut self, event: JobEvent) -> anyhow::Result<()> {
        self.events += 1;
        let before = self.jobs.get(&event.job);
        if let Some(before) = before {
            ensure!(!is_terminal(before.state()), "an event after {}", before.state().as_str_name());
        }
        match event.event {
            Some(Event::Transition(job)) => {
                ensure!(job.revision == event.revision, "the job says revision {}", job.revision);
                ensure!(job.name == event.job, "the job is {}", job.name);
                follows(before, &job)?;
                self.states.entry(event.job.clone()).or_default().push(job.state());
                self.jobs.insert(event.job, job);
            }
            Some(Event::Metrics(metrics)) => {
                let attempt = before.context("metrics of a job that does not exist")?.attempt;
                ensure!(metrics.attempt == attempt, "attempt {} reported during attempt {attempt}", metrics.attempt);
            }
            other => anyhow::bail!("{other:?} must not be stored"),
        }
        Ok(())
    }

    async fn check_rows(&self, db: &Db) -> anyhow::Result<()> {
        let rows = db
            .read(|tx| -> Result<_, db::Error> {
                let rows = tx.query("SELECT uid, state, revision FROM jobs", &[])?;
                let row = |row: &Row| Ok((row.text(0)?.to_owned(), (row.int(1)?, row.int(2)?)));
                rows.iter().map(row).collect::<Result<HashMap<_, _>, _>>()
            })
            .await?;
        // A store that is in use may have gone on since its events were read.
        for job in self.jobs.values() {
            let row = uid_of(&job.name).and_then(|uid| rows.get(uid));
            let (state, revision) = row.with_context(|| format!("{} has no row", job.name))?;
            ensure!(
                *revision >= job.revision,
                "{}: the row's revision {revision} is before {}",
                job.name,
                job.revision
            );
            ensure!(
                *revision > job.revision || *state == i64::from(job.state),
                "{}: the row says state {state}, the event {}",
                job.name,
                job.state
            );
        }
        Ok(())
    }

    /// Every job has ended.
    ///
    /// # Errors
    /// Names one that has not.
    pub fn all_ended(&self) -> anyhow::Result<()> {
        match self.jobs.values().find(|job| !is_terminal(job.state())) {
            Some(job) => anyhow::bail!("{} is still {}", job.name, job.state().as_str_name()),
            None => Ok(()),
        }
    }

    /// Jobs of a parent.
    pub fn children<'a>(&'a self, parent: &'a str) -> impl Iterator<Item = &'a Job> {
        self.jobs.values().filter(move |job| job.parent == parent)
    }
}

/// Whether the state machine can go from one to the other.
fn follows(before: Option<&Job>, after: &Job) -> anyhow::Result<()> {
    use JobState::{
        Cancelled, Cancelling, Failed, Finalizing, Launching, Queued, RetryWait, Running, Succeeded, Unspecified,
    };
    let from = before.map_or(Unspecified, Job::state);
    let allowed: &[JobState] = match from {
        // SUCCEEDED at once when the outputs of an earlier job are the answer.
        Unspecified => &[Queued, Succeeded],
        Queued => &[Launching, Running, Cancelled, Failed],
        Launching => &[Launching, Running, Queued, RetryWait, Cancelling, Cancelled, Failed, Succeeded],
        Running => &[Running, Finalizing, Queued, RetryWait, Cancelling, Cancelled, Failed, Succeeded],
        Finalizing => &[Finalizing, Queued, RetryWait, Cancelling, Cancelled, Failed, Succeeded],
        Cancelling => &[Cancelled, Failed, Succeeded],
        RetryWait => &[Queued, Cancelled, Failed],
        Succeeded | Failed | Cancelled => &[],
    };
    let to = after.state();
    ensure!(allowed.contains(&to), "{} after {}", to.as_str_name(), from.as_str_name());
    let attempt = before.map_or(0, |job| job.attempt);
    let claimed = from == Queued && matches!(to, Launching | Running);
    let expected = attempt + i32::from(claimed);
    ensure!(after.attempt == expected, "attempt {} where {expected} was due", after.attempt);
    Ok(())
}
