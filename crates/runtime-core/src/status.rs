//! Errors on the wire: one list of reasons, and the one place that turns a reason into a `tonic::Status` with `google.rpc` details.
//!
//! Every status that leaves a server has exactly one `ErrorInfo` (domain [`DOMAIN`], a reason of [`ErrorReason`], every dynamic
//! part of the message as metadata), after AIP-193. A service has its own error enum and one conversion to a status through these functions.

use std::{collections::HashMap, fmt, io, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, PreconditionViolation, QuotaViolation, StatusExt as _};

pub use tonic_types::FieldViolation;

mod size;

/// The `domain` of every `ErrorInfo` of this system.
pub const DOMAIN: &str = "quintet";

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $code:ident;)+) => {
        /// Why a call or a job failed: `ErrorInfo.reason` and `JobError.reason`. The list is part of the wire contract: reasons are added, never renamed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl ErrorReason {
            /// Every reason, in the order of the list.
            pub const ALL: &[ErrorReason] = &[$(ErrorReason::$variant,)+];

            /// The reason on the wire, UPPER_SNAKE_CASE.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The gRPC code that goes with the reason.
            pub fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)+ }
            }

            /// What it means and what to do, for a person.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// A field of the request or of a file has a value that is not allowed; the field violations name it. Correct it and send it again.
    InvalidField = "INVALID_FIELD", InvalidArgument;
    /// A key that nobody reads; usually a spelling mistake. Remove or correct it.
    UnknownKey = "UNKNOWN_KEY", InvalidArgument;
    /// Data, a checkpoint or a model cannot be read or breaks a rule; the message names file and line or tensor. Correct the input.
    BadInput = "BAD_INPUT", InvalidArgument;
    /// A placeholder of a command refers to an input, output or parameter that was not declared. Declare it or correct the name.
    UndeclaredReference = "UNDECLARED_REFERENCE", InvalidArgument;
    /// There is nothing of that name. List what there is.
    ResourceNotFound = "RESOURCE_NOT_FOUND", NotFound;
    /// There is another one of that name already. Choose another name or delete the old one.
    AlreadyExists = "ALREADY_EXISTS", AlreadyExists;
    /// The `request_id` was used before for another request. Use a fresh one for a new request.
    RequestIdReused = "REQUEST_ID_REUSED", AlreadyExists;
    /// The same artifact key holds other content already. Publish under a new key.
    ArtifactConflict = "ARTIFACT_CONFLICT", AlreadyExists;
    /// The state of the resource does not allow this. Read its state and decide again.
    IllegalState = "ILLEGAL_STATE", FailedPrecondition;
    /// The job has not ended yet. Wait for it or cancel it first.
    JobNotTerminal = "JOB_NOT_TERMINAL", FailedPrecondition;
    /// The job ended without success; its own error says why.
    JobFailed = "JOB_FAILED", FailedPrecondition;
    /// An output that is needed is missing. Run the job that makes it.
    OutputMissing = "OUTPUT_MISSING", FailedPrecondition;
    /// A program or library that the work needs is not installed. Run the set-up.
    EngineMissing = "ENGINE_MISSING", FailedPrecondition;
    /// The report carries the token of an attempt that no longer holds the lease. Stop the attempt; its work is given to another one.
    LeaseLost = "LEASE_LOST", Aborted;
    /// Somebody else changed the resource at the same time. Read it again and repeat.
    Conflict = "CONFLICT", Aborted;
    /// The revision or offset is outside what is kept. Take the current state and go on from there.
    OutOfRange = "OUT_OF_RANGE", OutOfRange;
    /// The request or upload is larger than the configured limit. Send less, or raise the limit.
    TooLarge = "TOO_LARGE", ResourceExhausted;
    /// The reader was too slow and events were dropped. Watch again from the last revision that arrived.
    SlowConsumer = "SLOW_CONSUMER", ResourceExhausted;
    /// The disk or the store's quota is full. Make room and repeat.
    StorageFull = "STORAGE_FULL", ResourceExhausted;
    /// No machine has what the job asks for. Ask for less, or add workers.
    Unschedulable = "UNSCHEDULABLE", ResourceExhausted;
    /// The token is missing or wrong. Send `Authorization: Bearer <token>`.
    Unauthenticated = "UNAUTHENTICATED", Unauthenticated;
    /// The caller may not do this.
    PermissionDenied = "PERMISSION_DENIED", PermissionDenied;
    /// The server shuts down. Connect again and go on.
    ShuttingDown = "SHUTTING_DOWN", Unavailable;
    /// A store or another service cannot be reached for now. Repeat with a pause.
    Unavailable = "UNAVAILABLE", Unavailable;
    /// The time limit passed. Repeat, or allow more time.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded;
    /// The job waited longer than it may for a worker.
    QueueTimeout = "QUEUE_TIMEOUT", DeadlineExceeded;
    /// The attempt ran longer than it may.
    RunTimeout = "RUN_TIMEOUT", DeadlineExceeded;
    /// The attempt stopped sending heartbeats: its process or machine is gone or hangs.
    HeartbeatTimeout = "HEARTBEAT_TIMEOUT", Unavailable;
    /// The worker process ended unexpectedly (exit status or signal in the message).
    WorkerCrashed = "WORKER_CRASHED", Unavailable;
    /// The worker process was killed for its memory use. Use smaller batches, or give the job more memory.
    OutOfMemory = "OUT_OF_MEMORY", ResourceExhausted;
    /// The user's command ended with a non-zero status; the last lines of its log are in the error.
    CommandFailed = "COMMAND_FAILED", FailedPrecondition;
    /// The metric that a sweep optimizes was not reported. Log it under the name of the objective.
    MetricMissing = "METRIC_MISSING", FailedPrecondition;
    /// The computation gave a value that is not finite. Lower the learning rate or look at the data.
    NotFinite = "NOT_FINITE", FailedPrecondition;
    /// A converted model does not give the trainer's results.
    ParityFailed = "PARITY_FAILED", FailedPrecondition;
    /// Somebody cancelled the job.
    Cancelled = "CANCELLED", Cancelled;
    /// The job was cancelled because the one that it belongs to was, or has failed.
    ParentCancelled = "PARENT_CANCELLED", Cancelled;
    /// The trial was stopped early because it was hopeless.
    Pruned = "PRUNED", Cancelled;
    /// Stored bytes do not have the digest that was recorded for them, or a database is damaged. Restore it from a backup or make it again.
    DataCorrupt = "DATA_CORRUPT", DataLoss;
    /// This server does not do that.
    Unsupported = "UNSUPPORTED", Unimplemented;
    /// A defect of this system. Report it with the server's log.
    Internal = "INTERNAL", Internal;
}

impl ErrorReason {
    /// Why a file cannot be read or written: no space, over quota or above the largest allowed file size, or a store that is away.
    pub fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::StorageFull
            }
            _ => Self::Unavailable,
        }
    }

    /// The reason of that text, if it is one of the list.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
    }
}

impl fmt::Display for ErrorReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A status under construction: reason, message, metadata and details.
#[derive(Debug, Clone)]
pub struct Error {
    reason: ErrorReason,
    message: String,
    metadata: HashMap<String, String>,
    details: ErrorDetails,
}

impl Error {
    /// Starts a status of the reason's own code.
    pub fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), metadata: HashMap::new(), details: ErrorDetails::new() }
    }

    /// Adds one dynamic part of the message, so that a program need not parse the text.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl fmt::Display) -> Self {
        self.metadata.insert(key.into(), value.to_string());
        self
    }

    /// Adds several dynamic parts.
    #[must_use]
    pub fn with_all<K: Into<String>, V: Into<String>>(mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        self.metadata.extend(pairs.into_iter().map(|(key, value)| (key.into(), value.into())));
        self
    }

    /// Tells the client after what pause a repetition makes sense.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.details.set_retry_info(Some(pause));
        self
    }

    /// The finished status, cut to what every client takes.
    pub fn into_status(self) -> Status {
        let Self { reason, message, metadata, mut details } = self;
        size::details(&mut details);
        details.set_error_info(reason.as_str(), DOMAIN, size::metadata(metadata));
        Status::with_error_details(reason.code(), size::message(&message), details)
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.into_status()
    }
}

/// A violation of one field: its path (`spec.train.batch_size`) and what is wrong, with the value and what is allowed.
pub fn violation(field: impl Into<String>, description: impl Into<String>) -> FieldViolation {
    FieldViolation::new(field, description)
}

/// `INVALID_ARGUMENT` with one `BadRequest` violation a field; the message repeats them, for clients that read no details.
pub fn invalid_argument(violations: impl IntoIterator<Item = FieldViolation>) -> Status {
    let violations: Vec<FieldViolation> = violations.into_iter().collect();
    let message = violations.iter().map(|v| format!("{}: {}", v.field, v.description)).collect::<Vec<_>>().join("; ");
    let mut error = Error::new(ErrorReason::InvalidField, message)
        .with("fields", violations.iter().map(|v| v.field.as_str()).collect::<Vec<_>>().join(","));
    error.details.set_bad_request(violations);
    error.into_status()
}

/// [`invalid_argument`] for a single field.
pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Status {
    invalid_argument([violation(field, description)])
}

/// `NOT_FOUND`: there is no resource of this type (`job`, `run`, `study`) and name.
pub fn not_found(resource_type: &str, name: &str) -> Status {
    let mut error = Error::new(ErrorReason::ResourceNotFound, format!("{resource_type} `{name}` does not exist"))
        .with("resource_type", resource_type)
        .with("resource_name", name);
    error.details.set_resource_info(resource_type, name, "", "does not exist");
    error.into_status()
}

/// `ALREADY_EXISTS`: a resource of this type and name is there; `description` says how it differs.
pub fn already_exists(resource_type: &str, name: &str, description: &str) -> Status {
    let mut error =
        Error::new(ErrorReason::AlreadyExists, format!("{resource_type} `{name}` already exists: {description}"))
            .with("resource_type", resource_type)
            .with("resource_name", name);
    error.details.set_resource_info(resource_type, name, "", description);
    error.into_status()
}

/// A status whose reason depends on the state of `subject` (a resource name), with a `PreconditionFailure` that says what would have to hold.
pub fn failed_precondition<K: Into<String>, V: Into<String>>(
    reason: ErrorReason,
    subject: &str,
    message: impl Into<String>,
    metadata: impl IntoIterator<Item = (K, V)>,
) -> Status {
    let message = message.into();
    let mut error = Error::new(reason, message.clone()).with("subject", subject).with_all(metadata);
    error.details.set_precondition_failure(vec![PreconditionViolation::new(reason.as_str(), subject, message)]);
    error.into_status()
}

/// `ABORTED`: somebody else changed `subject` at the same time.
pub fn aborted(reason: ErrorReason, subject: &str, message: impl Into<String>) -> Status {
    Error::new(reason, message).with("subject", subject).into_status()
}

/// `RESOURCE_EXHAUSTED` with a `QuotaFailure` on `subject` (a disk, a limit of the configuration).
pub fn resource_exhausted(reason: ErrorReason, subject: &str, message: impl Into<String>) -> Status {
    let message = message.into();
    let mut error = Error::new(reason, message.clone()).with("subject", subject);
    error.details.set_quota_failure(vec![QuotaViolation::new(subject, message)]);
    error.into_status()
}

/// `UNAVAILABLE` with the pause after which a repetition makes sense.
pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Status {
    Error::new(ErrorReason::Unavailable, message).retry_after(retry_after).into_status()
}

/// `UNAVAILABLE` because the server shuts down: the client connects again and goes on.
pub fn shutting_down() -> Status {
    Error::new(ErrorReason::ShuttingDown, "the server is shutting down")
        .retry_after(Duration::from_secs(1))
        .into_status()
}

/// `INTERNAL`: logs the error with its causes and tells the caller what failed.
pub fn internal(context: &str, error: &(dyn std::error::Error + 'static)) -> Status {
    let causes = chain(error);
    tracing::error!(context, error = %causes, "internal error");
    Error::new(ErrorReason::Internal, format!("{context}: {causes}")).into_status()
}

/// An error and its causes on one line, each told once.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many libraries repeat the cause's text in their own.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The reason that a status carries, if it came from this system and the reason is known.
pub fn reason_of(status: &Status) -> Option<ErrorReason> {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
    ErrorReason::parse(&info.reason)
}

/// The metadata of the status' `ErrorInfo`; empty when it has none.
pub fn metadata_of(status: &Status) -> HashMap<String, String> {
    status.get_error_details().error_info().map(|info| info.metadata.clone()).unwrap_or_default()
}

/// A refusal of the job service in the fields of a call whose `spec` is the job's specification of one kind: `job.spec.KIND.x` is
/// `spec.x` there. A status without field violations stays.
pub fn in_fields_of_kind(refused: Status, kind: &str) -> Status {
    let violations = violations_of(&refused);
    if violations.is_empty() {
        return refused;
    }
    let inside = format!("spec.{kind}.");
    let own = |(field, description): (String, String)| {
        let field = field.strip_prefix("job.").unwrap_or(&field);
        let field = field.strip_prefix(&inside).map_or_else(|| field.to_owned(), |below| format!("spec.{below}"));
        violation(field, description)
    };
    invalid_argument(violations.into_iter().map(own))
}

/// The field violations of a status, as (field, description).
pub fn violations_of(status: &Status) -> Vec<(String, String)> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
    violations.iter().map(|v| (v.field.clone(), v.description.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_unique_upper_snake_and_parse_back() {
        for (index, reason) in ErrorReason::ALL.iter().enumerate() {
            let text = reason.as_str();
            assert!(text.len() <= 63 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{text}");
            assert_eq!(ErrorReason::parse(text), Some(*reason));
            assert!(ErrorReason::ALL[..index].iter().all(|other| other.as_str() != text), "{text} twice");
            assert!(reason.remedy().len() > 10, "{text} has no remedy");
            assert_ne!(reason.code(), Code::Ok);
        }
        assert_eq!(ErrorReason::parse("NO_SUCH_REASON"), None);
    }

    #[test]
    fn violations_travel_in_message_and_details() {
        let status = invalid_argument([violation("spec.lr", "-1 is not above 0"), violation("name", "is empty")]);
        // Through the wire form and back, as a client gets it.
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        let received = Status::from_header_map(&headers).unwrap();
        assert_eq!(received.code(), Code::InvalidArgument);
        assert_eq!(received.message(), "spec.lr: -1 is not above 0; name: is empty");
        assert_eq!(
            violations_of(&received),
            [("spec.lr".into(), "-1 is not above 0".into()), ("name".into(), "is empty".into())]
        );
        assert_eq!(reason_of(&received), Some(ErrorReason::InvalidField));
        assert_eq!(metadata_of(&received)["fields"], "spec.lr,name");
    }

    #[test]
    fn refusals_of_a_job_are_told_in_the_fields_of_the_call() {
        let refused = invalid_argument([violation("job.spec.train.data", "a"), violation("job.labels", "b")]);
        let told = violations_of(&in_fields_of_kind(refused, "train"));
        assert_eq!(told, [("spec.data".into(), "a".into()), ("labels".into(), "b".into())]);
        let other = in_fields_of_kind(Status::unavailable("down"), "train");
        assert_eq!(other.code(), tonic::Code::Unavailable);
    }

    #[test]
    fn each_helper_has_its_code_and_details() {
        let status = not_found("job", "jobs/1");
        assert_eq!((status.code(), status.message()), (Code::NotFound, "job `jobs/1` does not exist"));
        assert_eq!(status.get_error_details().resource_info().unwrap().resource_name, "jobs/1");
        let status = failed_precondition(
            ErrorReason::JobNotTerminal,
            "jobs/1",
            "jobs/1 is RUNNING",
            [("state", "RUNNING"), ("attempt", "2")],
        );
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(metadata_of(&status)["state"], "RUNNING");
        assert_eq!(status.get_error_details().precondition_failure().unwrap().violations[0].subject, "jobs/1");
        let status = unavailable("no route", Duration::from_secs(3));
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.get_error_details().retry_info().unwrap().retry_delay, Some(Duration::from_secs(3)));
        assert_eq!(reason_of(&shutting_down()), Some(ErrorReason::ShuttingDown));
        assert_eq!(reason_of(&Status::unavailable("a proxy's own")), None);
    }

    #[test]
    fn chain_tells_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(chain(&Outer(std::io::Error::other("inner"))), "outer: inner");
    }
}
