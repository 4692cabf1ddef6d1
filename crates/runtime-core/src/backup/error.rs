//! Why a copy could not be made or restored.
use std::{io, path::PathBuf};

use crate::{
    artifacts, db,
    status::{self, ErrorReason},
};

/// What can go wrong with backups.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody said where to.
    #[error("no backup location is configured; set backup.location")]
    NoLocation,
    /// There is no copy of that name.
    #[error("there is no backup of `{name}`; `quintet backup list` shows what there is")]
    NotFound {
        /// As it was asked for.
        name: String,
    },
    /// A copy of the folder would contain the copies.
    #[error("{}: holds the backup location {} itself", .path.display(), .location.display())]
    Inside {
        /// The folder.
        path: PathBuf,
        /// Where copies go.
        location: PathBuf,
    },
    /// Something is there, and nobody said that it may be replaced.
    #[error("{}: already exists; force replaces it", .path.display())]
    Exists {
        /// Where to restore to, or the file beside it that is in the way.
        path: PathBuf,
    },
    /// A snapshot is no sound database.
    #[error("snapshot of `{name}` is damaged: {problem}")]
    Damaged {
        /// The name of the copy.
        name: String,
        /// The database's answer.
        problem: String,
    },
    /// A database is damaged, and there is nothing sound to put in its place.
    #[error(
        "{}: the database is damaged ({problem}), and {why}; nothing was changed. Move the file away (with -wal and -shm beside it, if \
         there) to begin with an empty database, or put a sound copy in its place (`quintet backup restore`)",
        .path.display()
    )]
    Beyond {
        /// The database.
        path: PathBuf,
        /// What SQLite finds.
        problem: String,
        /// Why it was not restored.
        why: String,
    },
    /// The clock gives no usable time.
    #[error("time of the backup: {0}")]
    Time(String),
    /// No temporary folder.
    #[error("temporary folder: {0}")]
    Temporary(io::Error),
    /// A local file operation failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The local path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The snapshot failed.
    #[error("snapshot: {0}")]
    Database(#[from] db::Error),
    /// Reading, storing or verifying the copy failed.
    #[error("backup: {0}")]
    Artifact(#[from] artifacts::Error),
    /// The task that makes snapshots has ended.
    #[error("backups of this database have ended")]
    Ended,
    /// The last snapshot failed; the text is its error.
    #[error("{0}")]
    Last(String),
}

impl Error {
    /// The reason on the wire.
    pub fn reason(&self) -> ErrorReason {
        match self {
            Self::NoLocation => ErrorReason::IllegalState,
            Self::NotFound { .. } => ErrorReason::ResourceNotFound,
            Self::Inside { .. } => ErrorReason::InvalidField,
            Self::Exists { .. } => ErrorReason::AlreadyExists,
            Self::Damaged { .. } | Self::Beyond { .. } | Self::Database(db::Error::Corrupt(_)) => {
                ErrorReason::DataCorrupt
            }
            Self::Artifact(error) => error.reason(),
            Self::Database(db::Error::Full(_)) => ErrorReason::StorageFull,
            Self::Database(db::Error::Unsupported(_)) => ErrorReason::Unsupported,
            Self::Time(_) | Self::Temporary(_) | Self::Io { .. } | Self::Database(_) | Self::Ended | Self::Last(_) => {
                ErrorReason::Unavailable
            }
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        status::Error::new(error.reason(), status::chain(&error)).into_status()
    }
}
