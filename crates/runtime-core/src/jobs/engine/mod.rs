//! The state machine of jobs: pure, in memory, and the only place where a state changes.
//!
//! The engine holds every job that has not ended. Each method is one request; it answers at once and records in [`Effects`]
//! what has to be stored for the answer to be true. The runtime stores the effects of many requests in one commit and only
//! then lets the answers out; when the commit fails it throws the engine away and loads another from the store.
//!
//! `QUEUED -> LAUNCHING -> RUNNING -> FINALIZING -> SUCCEEDED | FAILED | CANCELLED`, with `RETRY_WAIT` and `CANCELLING`. The
//! attempt is the fencing token: a report of another attempt than the current one changes nothing.

mod attempts;
#[cfg(test)]
mod tests;
mod timers;
mod types;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use quintet_proto::v1::{Directive, ErrorClass, Job, JobError, JobEvent, JobState, job_event::Event};
use rand::SeedableRng as _;

pub use types::{ClaimFilter, Effects, Entry, JobRow, LogAppend, Outcome, Rejection, Report, Slots, StoredEvent};

use super::model::{CANCEL_GRACE_MS, Millis, is_leased, is_terminal, job_error, job_kind, job_name, timestamp};
use crate::status::ErrorReason;

/// The live jobs and their order.
pub struct Engine {
    entries: HashMap<i64, Entry>,
    by_uid: HashMap<String, i64>,
    ended: HashSet<String>,
    children: HashMap<String, BTreeSet<i64>>,
    /// Jobs without parent by content hash: a submission looks for an equal one, however long the queue is.
    by_content: HashMap<String, BTreeSet<i64>>,
    queued: BTreeSet<i64>,
    waiters: Vec<(u64, ClaimFilter)>,
    timers: BTreeSet<(Millis, i64)>,
    next_key: i64,
    next_revision: i64,
    next_waiter: u64,
    random: rand_chacha::ChaCha8Rng,
    effects: Effects,
}

impl Engine {
    /// An engine over the jobs that have not ended and the uids of those that have.
    pub fn new(live: Vec<Entry>, ended: HashSet<String>, next_key: i64, next_revision: i64, seed: u64) -> Self {
        let mut engine = Self {
            entries: HashMap::new(),
            by_uid: HashMap::new(),
            ended,
            children: HashMap::new(),
            by_content: HashMap::new(),
            queued: BTreeSet::new(),
            waiters: Vec::new(),
            timers: BTreeSet::new(),
            next_key,
            next_revision,
            next_waiter: 1,
            random: rand_chacha::ChaCha8Rng::seed_from_u64(seed),
            effects: Effects::default(),
        };
        for entry in live {
            engine.insert(entry);
        }
        engine
    }

    /// Takes what has to be stored; empty when nothing changed.
    pub fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// When the next timer is due.
    pub fn next_timer(&self) -> Option<Millis> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The live job of this uid.
    pub fn get(&self, uid: &str) -> Option<&Job> {
        self.entries.get(self.by_uid.get(uid)?).map(|entry| &entry.job)
    }

    /// Every live job, oldest first.
    pub fn live(&self) -> impl Iterator<Item = &Job> {
        let keys: BTreeSet<i64> = self.entries.keys().copied().collect();
        keys.into_iter().filter_map(|key| self.entries.get(&key).map(|entry| &entry.job))
    }

    /// Number of live jobs by state name.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for entry in self.entries.values() {
            *counts.entry(entry.job.state().as_str_name()).or_default() += 1;
        }
        counts
    }

    /// Forgets a job that has ended and was deleted from the store.
    pub fn forget(&mut self, uid: &str) {
        self.ended.remove(uid);
    }

    /// Creates a job, already SUCCEEDED when it comes with outputs of another job.
    ///
    /// With `attach`, a live job of the same content and without parent is the answer instead.
    ///
    /// # Errors
    /// [`Rejection::RequestReused`], [`Rejection::ParentEnded`], or [`Rejection::Ended`] for the same request again.
    pub fn create(&mut self, mut job: Job, request_hash: String, attach: bool, now: Millis) -> Result<Job, Rejection> {
        if let Some(entry) = self.by_uid.get(&job.uid).and_then(|key| self.entries.get(key)) {
            return match entry.request_hash == request_hash {
                true => Ok(entry.job.clone()),
                false => Err(Rejection::RequestReused(job.uid)),
            };
        }
        if self.ended.contains(&job.uid) {
            return Err(Rejection::Ended(job.uid));
        }
        if attach && job.parent.is_empty() {
            let mut equal =
                self.by_content.get(&job.content_hash).into_iter().flatten().filter_map(|key| self.entries.get(key));
            if let Some(entry) = equal.find(|entry| entry.job.state() != JobState::Cancelling) {
                return Ok(entry.job.clone());
            }
        }
        if let Some(parent) = job.parent.strip_prefix("jobs/") {
            let live = self.get(parent).is_some_and(|p| p.state() != JobState::Cancelling);
            if !live {
                return Err(Rejection::ParentEnded(job.parent));
            }
        }
        job.name = job_name(&job.uid);
        job.create_time = Some(timestamp(now));
        let state = if job.outputs.is_some() { JobState::Succeeded } else { JobState::Queued };
        let key = self.next_key;
        self.next_key += 1;
        let uid = job.uid.clone();
        self.insert(Entry { key, request_hash, job, lease_expires: now, log_len: 0, wake: None });
        let created = self.transition(key, state, now, |_| {});
        if state == JobState::Queued {
            self.serve_waiters(now);
        }
        Ok(self.get(&uid).cloned().unwrap_or(created))
    }

    /// Records the intent to cancel a job and its children, or to prune it.
    ///
    /// # Errors
    /// [`Rejection::NotLive`] when it has ended.
    pub fn cancel(&mut self, uid: &str, prune: bool, why: &str, now: Millis) -> Result<Job, Rejection> {
        let key = self.live_key(uid)?;
        let reason = if prune { ErrorReason::Pruned } else { ErrorReason::Cancelled };
        Ok(self.cancel_key(key, &job_error(reason, why, ErrorClass::User), now))
    }

    fn cancel_key(&mut self, key: i64, error: &JobError, now: Millis) -> Job {
        let Some(entry) = self.entries.get(&key) else { return Job::default() };
        let (state, directive, uid) = (entry.job.state(), entry.job.directive(), entry.job.uid.clone());
        let prune = error.reason == ErrorReason::Pruned.as_str();
        let job = match state {
            // The first intent stays; but a job that is only to be pruned can still be cancelled.
            JobState::Cancelling => return entry.job.clone(),
            JobState::Queued | JobState::RetryWait => {
                let error = JobError { time: Some(timestamp(now)), ..error.clone() };
                let state = self.stopped_state(&error);
                self.transition(key, state, now, |job| job.error = Some(error))
            }
            _ if prune && directive == Directive::Prune => return entry.job.clone(),
            _ if prune => {
                let error = error.clone();
                self.transition(key, state, now, |job| {
                    job.directive = Directive::Prune.into();
                    job.error = Some(error);
                })
            }
            _ => {
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.lease_expires = now + CANCEL_GRACE_MS;
                }
                let error = error.clone();
                self.transition(key, JobState::Cancelling, now, |job| {
                    job.directive = Directive::Cancel.into();
                    job.error = Some(error);
                })
            }
        };
        if !prune {
            self.cancel_children(&uid, now);
        }
        job
    }

    /// Nobody waits for what the children of a job do once it was stopped or has ended.
    fn cancel_children(&mut self, uid: &str, now: Millis) {
        let children: Vec<i64> = self.children.get(uid).into_iter().flatten().copied().collect();
        let error = job_error(ErrorReason::ParentCancelled, format!("job {uid} was stopped"), ErrorClass::User);
        for child in children {
            self.cancel_key(child, &error, now);
        }
    }

    /// A deadline makes a job fail, everything else that stops it makes it cancelled.
    fn stopped_state(&self, error: &JobError) -> JobState {
        let deadlines = [ErrorReason::DeadlineExceeded, ErrorReason::QueueTimeout, ErrorReason::RunTimeout];
        if deadlines.iter().any(|reason| reason.as_str() == error.reason) {
            JobState::Failed
        } else {
            JobState::Cancelled
        }
    }

    fn insert(&mut self, entry: Entry) {
        let key = entry.key;
        self.by_uid.insert(entry.job.uid.clone(), key);
        if let Some(parent) = entry.job.parent.strip_prefix("jobs/") {
            self.children.entry(parent.to_owned()).or_default().insert(key);
        } else if !entry.job.content_hash.is_empty() {
            self.by_content.entry(entry.job.content_hash.clone()).or_default().insert(key);
        }
        if entry.job.state() == JobState::Queued {
            self.queued.insert(key);
        }
        self.entries.insert(key, entry);
        self.schedule(key);
    }

    /// The one place where a state changes: indexes, revision, event and row follow.
    fn transition(&mut self, key: i64, state: JobState, now: Millis, change: impl FnOnce(&mut Job)) -> Job {
        let Some(entry) = self.entries.get_mut(&key) else { return Job::default() };
        debug_assert!(!is_terminal(entry.job.state()), "a terminal state never changes");
        entry.job.state = state.into();
        change(&mut entry.job);
        let revision = self.next_revision;
        self.next_revision += 1;
        entry.job.revision = revision;
        if !is_leased(state) {
            entry.job.unreachable_since = None;
        }
        if is_terminal(state) {
            entry.job.end_time = Some(timestamp(now));
            entry.job.directive = Directive::Continue.into();
        }
        let job = entry.job.clone();
        let row = JobRow {
            key,
            uid: job.uid.clone(),
            kind: job_kind(&job),
            state,
            parent: job.parent.strip_prefix("jobs/").unwrap_or_default().to_owned(),
            content_hash: job.content_hash.clone(),
            request_hash: entry.request_hash.clone(),
            revision,
        };
        self.effects.jobs.insert(key, row);
        let event = JobEvent {
            revision,
            time: Some(timestamp(now)),
            job: job.name.clone(),
            event: Some(Event::Transition(job.clone())),
        };
        self.effects.events.push(StoredEvent { key, time: now, event });
        if state == JobState::Queued {
            self.queued.insert(key);
        } else {
            self.queued.remove(&key);
        }
        if is_terminal(state) {
            self.remove(key);
            self.cancel_children(&job.uid, now);
        } else {
            self.schedule(key);
        }
        job
    }

    fn remove(&mut self, key: i64) {
        let Some(entry) = self.entries.remove(&key) else { return };
        if let Some(wake) = entry.wake {
            self.timers.remove(&(wake, key));
        }
        self.by_uid.remove(&entry.job.uid);
        match entry.job.parent.strip_prefix("jobs/") {
            Some(parent) => forget_key(&mut self.children, parent, key),
            None => forget_key(&mut self.by_content, &entry.job.content_hash, key),
        }
        self.ended.insert(entry.job.uid);
    }

    fn live_key(&self, uid: &str) -> Result<i64, Rejection> {
        self.by_uid.get(uid).copied().ok_or_else(|| Rejection::NotLive(uid.to_owned()))
    }
}

fn forget_key(index: &mut HashMap<String, BTreeSet<i64>>, name: &str, key: i64) {
    if let Some(keys) = index.get_mut(name) {
        keys.remove(&key);
        if keys.is_empty() {
            index.remove(name);
        }
    }
}
