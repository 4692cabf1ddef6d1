//! Attempts: claims, heartbeats, outcomes and what becomes of a failed one.

use quintet_proto::v1::{Directive, ErrorClass, Job, JobError, JobEvent, JobState, Metrics, Outputs, job_event::Event};
use rand::RngExt as _;

use super::{ClaimFilter, Engine, LogAppend, Outcome, Rejection, Report, StoredEvent};
use crate::{
    jobs::model::{
        LAUNCH_TIMEOUT_MS, MAX_LOG_BYTES, Millis, heartbeat_ms, is_leased, job_error, job_kind, retry_limits, timestamp,
    },
    jobs::watch::log_news,
    status::ErrorReason,
};

impl Engine {
    /// Claims queued jobs, oldest first; waits as `Err(waiter)` when there is none.
    ///
    /// # Errors
    /// The number under which [`Effects::woken`] will answer.
    pub fn claim(&mut self, filter: ClaimFilter, now: Millis) -> Result<Vec<Job>, u64> {
        let jobs = self.take_queued(&filter, now);
        if !jobs.is_empty() {
            return Ok(jobs);
        }
        let waiter = self.next_waiter;
        self.next_waiter += 1;
        self.waiters.push((waiter, filter));
        Err(waiter)
    }

    /// Ends the wait of a claim.
    pub fn stop_waiting(&mut self, waiter: u64) {
        self.waiters.retain(|(id, _)| *id != waiter);
    }

    /// Claims the one attempt that a worker was launched for.
    ///
    /// # Errors
    /// [`Rejection::NotLive`] or [`Rejection::StaleAttempt`].
    pub fn claim_launched(&mut self, uid: &str, attempt: i32, worker: &str, now: Millis) -> Result<Job, Rejection> {
        let key = self.held_key(uid, attempt)?;
        match self.entries.get(&key).map(|e| (e.job.state(), e.job.worker == worker)) {
            Some((JobState::Launching, _)) => {}
            // The answer to the first call was lost.
            Some((JobState::Running, true)) => return Ok(self.entries[&key].job.clone()),
            _ => return Err(self.stale(key, attempt)),
        }
        let worker = worker.to_owned();
        self.renew(key, now);
        Ok(self.transition(key, JobState::Running, now, |job| job.worker = worker))
    }

    fn take_queued(&mut self, filter: &ClaimFilter, now: Millis) -> Vec<Job> {
        let mut slots = filter.slots;
        let mut found = Vec::new();
        for key in &self.queued {
            if found.len() >= filter.max.max(1) {
                break;
            }
            let Some(entry) = self.entries.get(key) else { continue };
            if !filter.kinds.is_empty() && !filter.kinds.iter().any(|kind| kind == job_kind(&entry.job)) {
                continue;
            }
            if let Some(slots) = &mut slots {
                let (cpus, gpus) = slots.need(&entry.job);
                if cpus > slots.cpus || gpus > slots.gpus {
                    continue;
                }
                slots.cpus -= cpus;
                slots.gpus -= gpus;
            }
            found.push(*key);
        }
        let state = if filter.launch { JobState::Launching } else { JobState::Running };
        found
            .into_iter()
            .map(|key| {
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.log_len = 0;
                    let term = if filter.launch { LAUNCH_TIMEOUT_MS } else { heartbeat_ms(&entry.job) };
                    entry.lease_expires = now + term;
                }
                let worker = filter.worker.clone();
                self.transition(key, state, now, |job| {
                    job.attempt += 1;
                    job.worker = worker;
                    job.error = None;
                    job.progress = None;
                    job.directive = Directive::Continue.into();
                    job.retry_time = None;
                    job.start_time.get_or_insert(timestamp(now));
                })
            })
            .collect()
    }

    pub(super) fn serve_waiters(&mut self, now: Millis) {
        let mut index = 0;
        while index < self.waiters.len() && !self.queued.is_empty() {
            let filter = self.waiters[index].1.clone();
            let jobs = self.take_queued(&filter, now);
            if jobs.is_empty() {
                index += 1;
            } else {
                let (waiter, _) = self.waiters.remove(index);
                self.effects.woken.push((waiter, jobs));
            }
        }
    }

    /// Renews a lease, keeps what came with it, and says what the attempt is asked to do.
    ///
    /// # Errors
    /// [`Rejection::NotLive`] or [`Rejection::StaleAttempt`]: the attempt has to stop and write nothing more.
    pub fn heartbeat(&mut self, report: Report, now: Millis) -> Result<(Directive, Millis), Rejection> {
        let key = self.held_key(&report.uid, report.attempt)?;
        self.keep(key, &report, now);
        let Some(entry) = self.entries.get_mut(&key) else { return Err(Rejection::NotLive(report.uid)) };
        let state = entry.job.state();
        if let Some(progress) = report.progress {
            entry.job.progress = Some(progress.clone());
            self.effects.live.push(JobEvent {
                revision: entry.job.revision,
                time: Some(timestamp(now)),
                job: entry.job.name.clone(),
                event: Some(Event::Progress(progress)),
            });
        }
        if state == JobState::Cancelling {
            return Ok((Directive::Cancel, entry.lease_expires));
        }
        entry.job.unreachable_since = None;
        let directive = entry.job.directive();
        let expires = self.renew(key, now);
        if report.finalizing && state == JobState::Running {
            self.transition(key, JobState::Finalizing, now, |_| {});
        }
        Ok((directive, expires))
    }

    /// Ends an attempt, and the job unless it is to be tried again.
    ///
    /// # Errors
    /// [`Rejection::NotLive`] or [`Rejection::StaleAttempt`].
    pub fn finish(&mut self, report: Report, outcome: Outcome, now: Millis) -> Result<Job, Rejection> {
        let key = self.held_key(&report.uid, report.attempt)?;
        self.keep(key, &report, now);
        Ok(match outcome {
            // Also while CANCELLING: a success that races a cancellation stays a success.
            Outcome::Succeeded(outputs) => self.transition(key, JobState::Succeeded, now, |job| {
                job.outputs = Some(outputs);
                job.error = None;
            }),
            Outcome::Stopped(outputs) => self.stopped(key, outputs, now),
            Outcome::Failed(error) => self.failed(key, error, report.left, now),
        })
    }

    fn stopped(&mut self, key: i64, outputs: Outputs, now: Millis) -> Job {
        let job = self.entries.get(&key).map(|e| e.job.clone()).unwrap_or_default();
        match job.error.clone().filter(|_| job.directive() != Directive::Continue) {
            Some(error) => {
                let state = self.stopped_state(&error);
                let error = JobError { attempt: job.attempt, time: Some(timestamp(now)), ..error };
                self.transition(key, state, now, |job| {
                    job.outputs = Some(outputs);
                    job.error = Some(error);
                })
            }
            // Nobody asked it to: the platform took the attempt away.
            None => {
                let error = job_error(
                    ErrorReason::WorkerCrashed,
                    "the worker was stopped from outside",
                    ErrorClass::Preemption,
                );
                self.attempt_failed(key, error, now)
            }
        }
    }

    pub(super) fn attempt_failed(&mut self, key: i64, error: JobError, now: Millis) -> Job {
        self.failed(key, error, None, now)
    }

    /// Fails an attempt that leaves something; it becomes the outputs of the job when there is no further attempt.
    fn failed(&mut self, key: i64, error: JobError, left: Option<Outputs>, now: Millis) -> Job {
        let Some(entry) = self.entries.get(&key) else { return Job::default() };
        let job = &entry.job;
        let error = JobError { attempt: job.attempt, time: Some(timestamp(now)), ..error };
        if let Some(intent) = job.error.clone().filter(|_| job.directive() != Directive::Continue) {
            let state = self.stopped_state(&intent);
            return self.transition(key, state, now, |job| {
                job.error =
                    Some(JobError { attempt: error.attempt, time: error.time, log_tail: error.log_tail, ..intent });
            });
        }
        let (attempts, initial, longest) = retry_limits(job.retry.as_ref());
        let counted = job.attempt_errors.iter().filter(|e| e.class() != ErrorClass::Preemption).count();
        let counted = i32::try_from(counted).unwrap_or(i32::MAX);
        match error.class() {
            ErrorClass::Preemption => {
                let job = self.transition(key, JobState::Queued, now, |job| job.attempt_errors.push(error));
                self.serve_waiters(now);
                job
            }
            class if class == ErrorClass::User || counted + 1 >= attempts => {
                self.transition(key, JobState::Failed, now, |job| {
                    job.outputs = left;
                    job.error = Some(error);
                })
            }
            _ => {
                let ceiling = initial.saturating_mul(1 << counted.min(20)).min(longest);
                let pause = self.random.random_range(0..=ceiling);
                self.transition(key, JobState::RetryWait, now, |job| {
                    job.attempt_errors.push(error);
                    job.retry_time = Some(timestamp(now + pause));
                })
            }
        }
    }

    /// Gives up every attempt that a predicate says is gone, as after a restart of the server that ran its worker.
    pub fn give_up(&mut self, gone: impl Fn(&Job) -> bool, error: &JobError, now: Millis) {
        let keys: Vec<i64> =
            self.entries.values().filter(|e| is_leased(e.job.state()) && gone(&e.job)).map(|e| e.key).collect();
        for key in keys {
            self.attempt_failed(key, error.clone(), now);
        }
    }

    fn keep(&mut self, key: i64, report: &Report, now: Millis) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let skip = usize::try_from(entry.log_len - report.log_offset).unwrap_or(usize::MAX);
        let gap = report.log_offset > entry.log_len;
        let fresh = if gap { &report.log[..] } else { report.log.get(skip..).unwrap_or_default() };
        if !fresh.is_empty() && entry.log_len < MAX_LOG_BYTES {
            let offset = if gap { report.log_offset } else { entry.log_len };
            entry.log_len = offset + fresh.len() as i64;
            self.effects.logs.push(LogAppend { key, attempt: report.attempt, offset, data: fresh.to_vec() });
            self.effects.live.push(log_news(&entry.job.name, now));
        }
        if !report.metrics.is_empty() {
            let revision = self.next_revision;
            self.next_revision += 1;
            let metrics = Metrics { attempt: report.attempt, metrics: report.metrics.clone() };
            let event = JobEvent {
                revision,
                time: Some(timestamp(now)),
                job: entry.job.name.clone(),
                event: Some(Event::Metrics(metrics)),
            };
            self.effects.events.push(StoredEvent { key, time: now, event });
        }
    }

    fn renew(&mut self, key: i64, now: Millis) -> Millis {
        let Some(entry) = self.entries.get_mut(&key) else { return now };
        entry.lease_expires = now + heartbeat_ms(&entry.job);
        let expires = entry.lease_expires;
        self.schedule(key);
        expires
    }

    /// The key of a job whose current attempt is this one and holds the lease.
    fn held_key(&self, uid: &str, attempt: i32) -> Result<i64, Rejection> {
        let key = self.live_key(uid)?;
        match self.entries.get(&key) {
            Some(entry) if entry.job.attempt == attempt && is_leased(entry.job.state()) => Ok(key),
            _ => Err(self.stale(key, attempt)),
        }
    }

    fn stale(&self, key: i64, attempt: i32) -> Rejection {
        match self.entries.get(&key) {
            Some(entry) => Rejection::StaleAttempt {
                job: entry.job.uid.clone(),
                attempt,
                current: entry.job.attempt,
                state: entry.job.state(),
            },
            None => Rejection::NotLive(key.to_string()),
        }
    }
}
