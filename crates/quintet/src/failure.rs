//! How a command ends without success: one text for the user and one exit code.

use std::{fmt, process::ExitCode};

use runtime_core::status::{ErrorReason, reason_of};
use tonic::Code;

/// A job failed, or something else that was tried.
pub(crate) const FAILED: u8 = 1;
/// The command line or the pipeline file is wrong; nothing was started. (A wrong configuration has a code of its own, 78.)
pub(crate) const USAGE: u8 = 2;
/// The server cannot be reached.
pub(crate) const UNREACHABLE: u8 = 3;
/// Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;
/// SIGTERM.
pub(crate) const TERMINATED: u8 = 143;

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    /// Empty when everything was said already.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into() }
    }

    /// What was to be done, in front of the message.
    pub(crate) fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Prints the message and gives the exit code.
    pub(crate) fn tell(self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("error: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let code = match status.code() {
            Code::Unavailable => UNREACHABLE,
            Code::InvalidArgument | Code::NotFound => USAGE,
            _ => FAILED,
        };
        let mut message = status.message().to_owned();
        if message.is_empty() {
            message = status.code().description().to_owned();
        }
        if let Some(reason) = reason_of(&status) {
            message = format!("{message}\n{}", remedy(reason.as_str()));
        }
        Self { code, message }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error.to_string())
    }
}

/// `reason: what it means and what to do`.
pub(crate) fn remedy(reason: &str) -> String {
    match ErrorReason::parse(reason) {
        Some(known) => format!("{reason}: {}", known.remedy()),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use runtime_core::status;

    use super::*;

    #[test]
    fn each_status_has_its_exit_code_and_remedy() {
        let failure = Failure::from(status::not_found("job", "jobs/1"));
        assert_eq!(failure.code, USAGE);
        assert!(
            failure.message.starts_with("job `jobs/1` does not exist\nRESOURCE_NOT_FOUND: There is nothing"),
            "{failure:?}"
        );
        assert_eq!(Failure::from(tonic::Status::unavailable("x")).code, UNREACHABLE);
        assert_eq!(Failure::from(tonic::Status::internal("")).code, FAILED);
        assert_eq!(remedy("OWN_REASON"), "OWN_REASON");
    }
}
