//! Names, kinds, states and defaults of jobs, shared by the engine, the store and the services.

use quintet_proto::{
    types::{Duration, Timestamp},
    v1::{Job, JobError, JobSpec, JobState, RetryPolicy, job_spec::Kind},
};
use sha2::{Digest as _, Sha256};

use crate::status::ErrorReason;

/// Milliseconds since 1970, from an injected clock.
pub type Millis = i64;

/// Lease term of an attempt when the job names none.
pub const DEFAULT_HEARTBEAT_MS: i64 = 30_000;
/// Time from LAUNCHING to the worker's claim.
pub const LAUNCH_TIMEOUT_MS: i64 = 120_000;
/// Time that a running attempt has to obey CANCEL before it is given up.
pub const CANCEL_GRACE_MS: i64 = 30_000;
/// Bytes of log kept of one attempt.
pub const MAX_LOG_BYTES: i64 = 32 << 20;

/// Label with the job, `jobs/{uid}`, whose saved state a job goes on with when it was run on the same machine.
pub const RESUME_FROM: &str = "quintet.resume_from";

/// What the children and the log call a job's kind.
pub fn kind_of(spec: &JobSpec) -> &'static str {
    match &spec.kind {
        Some(Kind::Sweep(_)) => "sweep",
        Some(Kind::Train(_)) => "train",
        Some(Kind::Convert(_)) => "convert",
        Some(Kind::Benchmark(_)) => "benchmark",
        Some(Kind::Command(_)) => "command",
        Some(Kind::Predict(_)) => "predict",
        None => "",
    }
}

/// The kind of a job; empty when it has no specification.
pub fn job_kind(job: &Job) -> &'static str {
    job.spec.as_ref().map_or("", kind_of)
}

/// Every kind of job.
pub const KINDS: [&str; 6] = ["sweep", "train", "convert", "benchmark", "command", "predict"];

/// Whether a job in this state has ended for good.
pub fn is_terminal(state: JobState) -> bool {
    matches!(state, JobState::Succeeded | JobState::Failed | JobState::Cancelled)
}

/// Whether an attempt holds, or is about to hold, a lease in this state.
pub fn is_leased(state: JobState) -> bool {
    matches!(state, JobState::Launching | JobState::Running | JobState::Finalizing | JobState::Cancelling)
}

/// The uid in `jobs/{uid}`, when the name has that form.
pub fn uid_of(name: &str) -> Option<&str> {
    name.strip_prefix("jobs/").filter(|uid| is_uid(uid))
}

/// Whether this is the uid of a job: 32 lower-case hexadecimal digits.
pub fn is_uid(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The resource name of a job.
pub fn job_name(uid: &str) -> String {
    format!("jobs/{uid}")
}

/// The uid that a request id stands for: the same id gives the same job.
pub fn uid_for_request(request_id: &str) -> String {
    hex::encode(&Sha256::digest(request_id.as_bytes())[..16])
}

/// A point in time as the messages carry it.
pub fn timestamp(at: Millis) -> Timestamp {
    Timestamp { seconds: at.div_euclid(1000), nanos: i32::try_from(at.rem_euclid(1000)).unwrap_or(0) * 1_000_000 }
}

/// Milliseconds since 1970.
pub fn millis(at: &Timestamp) -> Millis {
    at.seconds.saturating_mul(1000).saturating_add(i64::from(at.nanos) / 1_000_000)
}

/// Milliseconds of a duration.
pub fn duration_ms(duration: &Duration) -> i64 {
    duration.seconds.saturating_mul(1000).saturating_add(i64::from(duration.nanos) / 1_000_000)
}

/// A duration as the messages carry it.
pub fn proto_duration(ms: i64) -> Duration {
    Duration { seconds: ms.div_euclid(1000), nanos: i32::try_from(ms.rem_euclid(1000)).unwrap_or(0) * 1_000_000 }
}

/// The lease term of a job's attempts.
pub fn heartbeat_ms(job: &Job) -> i64 {
    let asked = job.timeouts.as_ref().and_then(|t| t.heartbeat.as_ref()).map(duration_ms);
    asked.filter(|ms| *ms > 0).unwrap_or(DEFAULT_HEARTBEAT_MS)
}

/// Attempts in all, first pause and longest pause.
pub fn retry_limits(policy: Option<&RetryPolicy>) -> (i32, i64, i64) {
    let policy = policy.cloned().unwrap_or_default();
    let attempts = if policy.max_attempts > 0 { policy.max_attempts } else { 3 };
    let initial = policy.initial_backoff.as_ref().map_or(1_000, duration_ms).max(1);
    let longest = policy.max_backoff.as_ref().map_or(60_000, duration_ms).max(initial);
    (attempts, initial, longest)
}

/// An error of an attempt.
pub fn job_error(reason: ErrorReason, message: impl Into<String>, class: quintet_proto::v1::ErrorClass) -> JobError {
    JobError { reason: reason.as_str().into(), message: message.into(), class: class.into(), ..JobError::default() }
}
