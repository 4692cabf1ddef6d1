//! What can go wrong in the tracking service, and its two faces: MLflow's REST error codes and gRPC statuses.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;
use runtime_core::{
    artifacts, db,
    status::{self, ErrorReason},
};
use tonic::Status;

/// An error of the tracking service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field has a value that is not allowed.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field's name in the request.
        field: Cow<'static, str>,
        /// What is wrong, with the value and what is allowed.
        reason: String,
    },
    /// Nothing has that name.
    #[error("{kind} `{name}` does not exist")]
    NotFound {
        /// `experiment`, `run`, `tag`, `logged model` or `artifact`.
        kind: &'static str,
        /// The name or id asked for.
        name: String,
    },
    /// The name is taken.
    #[error("{kind} `{name}` already exists: {detail}")]
    AlreadyExists {
        /// `experiment` or `run`.
        kind: &'static str,
        /// The name or id asked for.
        name: String,
        /// How the existing one differs.
        detail: &'static str,
    },
    /// The state of the resource does not allow the call.
    #[error("{subject}: {reason}")]
    IllegalState {
        /// The resource.
        subject: String,
        /// What would have to hold.
        reason: &'static str,
    },
    /// The artifact belongs to a published output, which never changes.
    #[error("artifact `{0}` belongs to a published output of a job and cannot be changed")]
    Published(String),
    /// The request is larger than the limit.
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The request body or the artifact.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// This server does not do that.
    #[error("{0}")]
    Unsupported(String),
    /// There is no such REST endpoint.
    #[error("no endpoint {method} {path}: this server does not offer it")]
    NoEndpoint {
        /// The HTTP method.
        method: String,
        /// The path asked for.
        path: String,
    },
    /// The caller's connection ended before the whole body had arrived.
    #[error("the request body ended early: {0}")]
    Body(String),
    /// The database failed.
    #[error("the tracking store failed")]
    Database(#[from] db::Error),
    /// The artifact store failed, or cannot be opened.
    #[error("the artifact store failed")]
    Artifacts(#[from] artifacts::Error),
}

impl Error {
    /// An [`Error::Invalid`].
    pub(crate) fn invalid(field: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }

    /// An [`Error::NotFound`].
    pub(crate) fn not_found(kind: &'static str, name: impl Into<String>) -> Self {
        Self::NotFound { kind, name: name.into() }
    }

    /// MLflow's error code and the HTTP status. A fault of the caller is never a 5xx, which clients would repeat for minutes.
    pub(crate) fn rest(&self) -> (&'static str, StatusCode) {
        match self {
            Self::Invalid { .. } | Self::IllegalState { .. } => ("INVALID_PARAMETER_VALUE", StatusCode::BAD_REQUEST),
            Self::Body(_) => ("BAD_REQUEST", StatusCode::BAD_REQUEST),
            Self::NotFound { .. } => ("RESOURCE_DOES_NOT_EXIST", StatusCode::NOT_FOUND),
            Self::AlreadyExists { .. } => ("RESOURCE_ALREADY_EXISTS", StatusCode::BAD_REQUEST),
            Self::Published(_) => ("RESOURCE_CONFLICT", StatusCode::CONFLICT),
            Self::TooLarge { .. } => ("INVALID_PARAMETER_VALUE", StatusCode::PAYLOAD_TOO_LARGE),
            Self::Unsupported(_) => ("NOT_IMPLEMENTED", StatusCode::NOT_IMPLEMENTED),
            Self::NoEndpoint { .. } => ("ENDPOINT_NOT_FOUND", StatusCode::NOT_FOUND),
            Self::Database(db::Error::Closed | db::Error::Open { .. } | db::Error::Unavailable(_)) => {
                ("TEMPORARILY_UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::Artifacts(artifacts::Error::Key { .. }) => ("INVALID_PARAMETER_VALUE", StatusCode::BAD_REQUEST),
            // A status that clients do not repeat: a full disk does not empty itself.
            Self::Database(db::Error::Full(_)) | Self::Artifacts(artifacts::Error::StorageFull { .. }) => {
                ("INTERNAL_ERROR", StatusCode::INSUFFICIENT_STORAGE)
            }
            Self::Database(_) | Self::Artifacts(_) => ("INTERNAL_ERROR", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// The gRPC status with its `google.rpc` details.
    pub(crate) fn into_status(self) -> Status {
        match &self {
            Self::Invalid { field, reason } => status::invalid_field(field.clone(), reason),
            Self::NotFound { kind, name } => status::not_found(kind, name),
            Self::AlreadyExists { kind, name, detail } => status::already_exists(kind, name, detail),
            Self::IllegalState { subject, reason } => status::failed_precondition(
                ErrorReason::IllegalState,
                subject,
                format!("{subject}: {reason}"),
                [("subject", subject.as_str())],
            ),
            Self::Published(path) => {
                status::Error::new(ErrorReason::ArtifactConflict, self.to_string()).with("path", path).into_status()
            }
            Self::TooLarge { what, .. } => status::resource_exhausted(ErrorReason::TooLarge, what, self.to_string()),
            Self::Unsupported(_) | Self::NoEndpoint { .. } => {
                status::Error::new(ErrorReason::Unsupported, self.to_string()).into_status()
            }
            Self::Body(_) => status::Error::new(ErrorReason::BadInput, self.to_string()).into_status(),
            Self::Database(db::Error::Closed | db::Error::Open { .. } | db::Error::Unavailable(_)) => {
                status::unavailable(status::chain(&self), Duration::from_secs(1))
            }
            Self::Database(db::Error::Full(_)) => {
                status::resource_exhausted(ErrorReason::StorageFull, "tracking store", status::chain(&self))
            }
            Self::Artifacts(error) => status::Error::new(error.reason(), status::chain(&self)).into_status(),
            Self::Database(_) => status::internal("tracking", &self),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.into_status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_fault_is_never_a_server_error() {
        let faults = [
            Error::invalid("run_id", "is empty"),
            Error::not_found("run", "x"),
            Error::AlreadyExists { kind: "experiment", name: "x".into(), detail: "" },
            Error::IllegalState { subject: "run x".into(), reason: "is deleted" },
            Error::Published("jobs/x".into()),
            Error::TooLarge { what: "artifact".into(), limit: 1 },
            Error::NoEndpoint { method: "GET".into(), path: "/x".into() },
            Error::Body("closed".into()),
        ];
        for fault in faults {
            assert!(fault.rest().1.is_client_error(), "{fault}");
            let status = fault.into_status();
            assert!(status::reason_of(&status).is_some(), "{status}");
        }
    }
}
