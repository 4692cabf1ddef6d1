//! Timers: leases that run out, deadlines, retries that are due.

use quintet_proto::v1::{ErrorClass, Job, JobState};

use super::Engine;
use crate::{
    jobs::model::{Millis, duration_ms, heartbeat_ms, is_leased, job_error, millis, timestamp},
    status::ErrorReason,
};

impl Engine {
    /// Does what is due at `now`: expired leases, deadlines, retries.
    pub fn fire_timers(&mut self, now: Millis) {
        while let Some(&(at, key)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, key));
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.wake = None;
                self.fire(key, now);
                self.schedule(key);
            }
        }
    }

    fn fire(&mut self, key: i64, now: Millis) {
        let Some(entry) = self.entries.get(&key) else { return };
        let job = &entry.job;
        let deadlines = Deadlines::of(job);
        let state = job.state();
        let due = |at: Option<Millis>| at.is_some_and(|at| at <= now);
        if state != JobState::Cancelling {
            let late = if due(deadlines.total) {
                Some(job_error(ErrorReason::DeadlineExceeded, "the job ran out of its total time", ErrorClass::User))
            } else if state == JobState::Queued && due(deadlines.queued) {
                Some(job_error(ErrorReason::QueueTimeout, "the job waited too long for a worker", ErrorClass::User))
            } else if is_leased(state) && due(deadlines.run) {
                Some(job_error(ErrorReason::RunTimeout, "the job ran longer than it may", ErrorClass::User))
            } else {
                None
            };
            if let Some(error) = late {
                self.cancel_key(key, &error, now);
                return;
            }
        }
        if state == JobState::RetryWait && due(job.retry_time.as_ref().map(millis)) {
            self.transition(key, JobState::Queued, now, |job| job.retry_time = None);
            self.serve_waiters(now);
        } else if is_leased(state) && entry.lease_expires <= now {
            self.lease_expired(key, now);
        }
    }

    /// Unreachable first; given up when it stays so for another term. A cancellation that is not obeyed is forced at once.
    fn lease_expired(&mut self, key: i64, now: Millis) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let term = heartbeat_ms(&entry.job);
        if entry.job.unreachable_since.is_none() && entry.job.state() != JobState::Cancelling {
            entry.lease_expires = now + term;
            let state = entry.job.state();
            self.transition(key, state, now, |job| job.unreachable_since = Some(timestamp(now)));
            return;
        }
        let error =
            job_error(ErrorReason::HeartbeatTimeout, "no heartbeat of the attempt arrived", ErrorClass::Infrastructure);
        self.attempt_failed(key, error, now);
    }

    pub(super) fn schedule(&mut self, key: i64) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let deadlines = Deadlines::of(&entry.job);
        let state = entry.job.state();
        let wake = match state {
            JobState::Queued => [deadlines.queued, deadlines.total, None],
            JobState::RetryWait => [entry.job.retry_time.as_ref().map(millis), deadlines.total, None],
            JobState::Cancelling => [Some(entry.lease_expires), None, None],
            _ => [Some(entry.lease_expires), deadlines.run, deadlines.total],
        };
        let wake = wake.into_iter().flatten().min();
        if entry.wake == wake {
            return;
        }
        if let Some(old) = entry.wake {
            self.timers.remove(&(old, key));
        }
        entry.wake = wake;
        if let Some(at) = wake {
            self.timers.insert((at, key));
        }
    }
}

struct Deadlines {
    queued: Option<Millis>,
    run: Option<Millis>,
    total: Option<Millis>,
}

impl Deadlines {
    fn of(job: &Job) -> Self {
        let timeouts = job.timeouts.unwrap_or_default();
        let after = |start: &Option<quintet_proto::types::Timestamp>,
                     limit: &Option<quintet_proto::types::Duration>| {
            Some(millis(start.as_ref()?) + duration_ms(limit.as_ref()?))
        };
        Self {
            queued: after(&job.create_time, &timeouts.queued_to_start),
            run: after(&job.start_time, &timeouts.start_to_finish),
            total: after(&job.create_time, &timeouts.total),
        }
    }
}
