//! Why a server did not start or did not end well, each with its exit status.
use std::{io, path::PathBuf};

/// What keeps a server from serving.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another program listens there.
    #[error("cannot listen on {address}: the address is in use; choose another one, or port 0 for a free port")]
    AddressInUse {
        /// As it was configured, `HOST:PORT`.
        address: String,
    },
    /// The address cannot be used for another reason.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// As it was configured, `HOST:PORT`.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The address is no `HOST:PORT`, or the host has no address.
    #[error("cannot listen on `{address}`: {reason} (expected HOST:PORT, such as 127.0.0.1:7700)")]
    Address {
        /// As it was configured.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate, key or authority cannot be used.
    #[error("tls: {file}: {reason}")]
    Tls {
        /// The file that was read.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file that tells others the address cannot be written.
    #[error("ready file {path}: {source}")]
    ReadyFile {
        /// The configured path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The server does not answer its own request.
    #[error("the server on {address} does not answer: {reason}")]
    NotAnswering {
        /// Where it listens.
        address: String,
        /// What happened instead.
        reason: String,
    },
    /// The descriptors for reflection are broken.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// Signal handlers cannot be installed.
    #[error("signal handlers: {0}")]
    Signals(io::Error),
    /// A background task of a service failed, and with it the server.
    #[error("{task}: {reason}")]
    Task {
        /// The task's name.
        task: String,
        /// The error with its causes.
        reason: String,
    },
}

impl Error {
    /// The exit status after `sysexits.h`: 69 address in use, 71 other trouble with the address, 74 a file, 78 configuration, 70 the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::AddressInUse { .. } => 69,
            Self::Bind { .. } | Self::Signals(_) => 71,
            Self::ReadyFile { .. } => 74,
            Self::Address { .. } | Self::Tls { .. } => 78,
            Self::NotAnswering { .. } | Self::Reflection(_) | Self::Task { .. } => 70,
        }
    }
}
