//! Why an artifact could not be published, fetched or verified.
use std::{
    error::Error as StdError,
    io,
    path::{Path, PathBuf},
};

use crate::status::{self, ErrorReason};

/// What can go wrong with artifacts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The location of a store or artifact is no URL that is understood.
    #[error("artifact location `{url}`: {reason}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// A key or a path inside an artifact is not safe.
    #[error("artifact path `{path}`: {reason}")]
    Key {
        /// As it was given.
        path: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// There is no complete artifact at that place.
    #[error("artifact {uri} does not exist (no manifest was committed)")]
    NotFound {
        /// Where it was looked for.
        uri: String,
    },
    /// The artifact has no file of that path.
    #[error("artifact {uri} has no file `{path}`")]
    NoSuchFile {
        /// The artifact.
        uri: String,
        /// The path inside it.
        path: String,
    },
    /// A manifest of other content is there already.
    #[error("artifact {uri} exists with other content: digest {stored} is stored, {offered} was offered")]
    Conflict {
        /// The artifact.
        uri: String,
        /// Digest of what is stored.
        stored: String,
        /// Digest of what was to be published.
        offered: String,
    },
    /// Stored bytes are not those that were published.
    #[error("artifact {uri}, file `{path}`: {problem}")]
    Corrupt {
        /// The artifact.
        uri: String,
        /// The file inside it; `manifest.json` for the manifest itself.
        path: String,
        /// How it differs from the manifest.
        problem: String,
    },
    /// A local file cannot be part of an artifact.
    #[error("{}: {reason}", .path.display())]
    Unsuitable {
        /// The local path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The place to write to is taken.
    #[error("{}: already exists", .path.display())]
    Exists {
        /// The local path.
        path: PathBuf,
    },
    /// The disk, or the store's quota, is full.
    #[error("no space left while {action}: {detail}")]
    StorageFull {
        /// What was being done.
        action: String,
        /// The system's answer.
        detail: String,
    },
    /// A local file operation failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The local path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The store failed.
    #[error("{action}: {source}")]
    Store {
        /// What was being done.
        action: String,
        /// The store's answer.
        source: object_store::Error,
    },
}

impl Error {
    /// A local failure; a full disk gets its own error.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        match is_full(&source) {
            true => Self::StorageFull { action: format!("writing {}", path.display()), detail: source.to_string() },
            false => Self::Io { path: path.to_owned(), source },
        }
    }

    /// A failure of the store; a full disk below it gets its own error.
    pub(crate) fn store(action: impl Into<String>, source: object_store::Error) -> Self {
        let action = action.into();
        let mut cause: Option<&(dyn StdError + 'static)> = Some(&source);
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(is_full) {
                return Self::StorageFull { action, detail: status::chain(&source) };
            }
            cause = error.source();
        }
        Self::Store { action, source }
    }

    /// The reason on the wire.
    pub fn reason(&self) -> ErrorReason {
        match self {
            Self::Url { .. } | Self::Key { .. } => ErrorReason::InvalidField,
            Self::NotFound { .. } | Self::NoSuchFile { .. } => ErrorReason::ResourceNotFound,
            Self::Conflict { .. } => ErrorReason::ArtifactConflict,
            Self::Corrupt { .. } => ErrorReason::DataCorrupt,
            Self::Unsuitable { .. } => ErrorReason::BadInput,
            Self::Exists { .. } => ErrorReason::AlreadyExists,
            Self::StorageFull { .. } => ErrorReason::StorageFull,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorReason::BadInput,
            Self::Io { .. } | Self::Store { .. } => ErrorReason::Unavailable,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    ErrorReason::of_io(error) == ErrorReason::StorageFull
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        status::Error::new(error.reason(), status::chain(&error)).into_status()
    }
}
