//! What goes into the engine and what comes out of it.

use std::collections::BTreeMap;

use quintet_proto::v1::{Job, JobError, JobEvent, JobState, Metric, Outputs, Progress};

use crate::jobs::model::{Millis, heartbeat_ms};

/// Why a request was refused; nothing has changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// The job has ended or never was.
    #[error("job {0} is not live")]
    NotLive(String),
    /// The report is of an attempt that does not hold the lease.
    #[error("attempt {attempt} of job {job} does not hold the lease; the current attempt is {current}, {state:?}")]
    StaleAttempt {
        /// Uid of the job.
        job: String,
        /// Attempt of the report.
        attempt: i32,
        /// Attempt that the job is at.
        current: i32,
        /// State that the job is in.
        state: JobState,
    },
    /// The request id was used for another job.
    #[error("request id of job {0} was used before for another job")]
    RequestReused(String),
    /// The parent has ended or is being cancelled.
    #[error("parent job {0} has ended or is being cancelled")]
    ParentEnded(String),
    /// The job was created before and has ended: its stored form is the answer.
    #[error("job {0} exists and has ended")]
    Ended(String),
}

/// What the store has to hold for the answers given so far to be true.
#[derive(Debug, Default)]
pub struct Effects {
    /// Jobs whose row changed, by key; the row's content is that of the last event.
    pub jobs: BTreeMap<i64, JobRow>,
    /// Events in order of revision.
    pub events: Vec<StoredEvent>,
    /// Log bytes to append.
    pub logs: Vec<LogAppend>,
    /// Live news for watchers that is never stored.
    pub live: Vec<JobEvent>,
    /// Claims that waited and now have an answer.
    pub woken: Vec<(u64, Vec<Job>)>,
}

/// The indexed part of a job.
#[derive(Clone, Debug)]
pub struct JobRow {
    /// Identity in the store.
    pub key: i64,
    /// Identity to the world.
    pub uid: String,
    /// See [`super::model::KINDS`].
    pub kind: &'static str,
    /// State after the last transition.
    pub state: JobState,
    /// Uid of the parent, or empty.
    pub parent: String,
    /// Content hash, or empty.
    pub content_hash: String,
    /// SHA-256 of the creating request.
    pub request_hash: String,
    /// Revision of the event that holds the job.
    pub revision: i64,
}

/// An event with the key of its job.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Key of the job.
    pub key: i64,
    /// Time of the event.
    pub time: Millis,
    /// The event itself.
    pub event: JobEvent,
}

/// Bytes of an attempt's log.
#[derive(Clone, Debug)]
pub struct LogAppend {
    /// Key of the job.
    pub key: i64,
    /// Attempt that wrote them.
    pub attempt: i32,
    /// Where they begin.
    pub offset: i64,
    /// The bytes.
    pub data: Vec<u8>,
}

/// A live job.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Identity in the store.
    pub key: i64,
    /// SHA-256 of the creating request.
    pub request_hash: String,
    /// The job itself.
    pub job: Job,
    /// When the lease, or the time to obey a cancellation, runs out.
    pub lease_expires: Millis,
    /// Bytes of log of the current attempt.
    pub log_len: i64,
    /// When its timer is due.
    pub(super) wake: Option<Millis>,
}

impl Entry {
    /// A job as the store holds it, with a fresh lease: the server was away, not the worker.
    pub fn loaded(key: i64, request_hash: String, job: Job, log_len: i64, now: Millis) -> Self {
        let lease_expires = now + heartbeat_ms(&job);
        Self { key, request_hash, job, lease_expires, log_len, wake: None }
    }
}

/// What a claim asks for.
#[derive(Clone, Debug, Default)]
pub struct ClaimFilter {
    /// Name of the worker.
    pub worker: String,
    /// Kinds; empty means any.
    pub kinds: Vec<String>,
    /// Jobs at most.
    pub max: usize,
    /// Launch rather than run: the job goes to LAUNCHING, for a process that will claim it by name.
    pub launch: bool,
    /// What the machine has; `None` takes any job.
    pub slots: Option<Slots>,
}

/// CPUs and GPUs of a machine. A job that needs more CPUs than there are in all gets all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// CPUs that are free.
    pub cpus: i32,
    /// GPUs that are free.
    pub gpus: i32,
    /// CPUs in all.
    pub total_cpus: i32,
}

impl Slots {
    /// What a job takes of these: CPUs and GPUs.
    pub fn need(&self, job: &Job) -> (i32, i32) {
        let need = job.resources.unwrap_or_default();
        (need.cpus.max(1).min(self.total_cpus.max(1)), need.gpus)
    }
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// With its outputs.
    Succeeded(Outputs),
    /// For this reason.
    Failed(JobError),
    /// As it was asked to; with what it had.
    Stopped(Outputs),
}

/// What an attempt reports.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Uid of the job.
    pub uid: String,
    /// Attempt that reports.
    pub attempt: i32,
    /// How far it is.
    pub progress: Option<Progress>,
    /// New values of metrics.
    pub metrics: Vec<Metric>,
    /// What can be used of it though it failed.
    pub left: Option<Outputs>,
    /// New bytes of its log.
    pub log: Vec<u8>,
    /// Where they begin.
    pub log_offset: i64,
    /// It publishes its outputs.
    pub finalizing: bool,
}
