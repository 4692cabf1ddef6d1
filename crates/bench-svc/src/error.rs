//! Errors of measuring; each says what was wrong, where, and what is allowed.

use std::path::PathBuf;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value of the specification is out of range.
    #[error("{field}: {problem}")]
    Argument {
        /// The field of `BenchmarkSpec`.
        field: &'static str,
        /// The value and what is allowed.
        problem: String,
    },
    /// A model cannot be measured.
    #[error("{problem}")]
    Model {
        /// Names the file.
        problem: String,
    },
    /// ONNX Runtime is missing or cannot be loaded.
    #[error("{0}")]
    Runtime(String),
    /// The process that measured a model ended.
    #[error("the process that measured {model} ended early: {how}")]
    Process {
        /// The model file.
        model: PathBuf,
        /// Exit status or signal, or what could not be read.
        how: String,
    },
    /// A file or process could not be made.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Writing the report failed.
    #[error(transparent)]
    Output(#[from] quintet_nlp::Error),
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Whether the input is at fault, so that trying again is pointless.
    pub fn is_input_fault(&self) -> bool {
        match self {
            Self::Argument { .. } | Self::Model { .. } | Self::Runtime(_) => true,
            Self::Output(error) => error.is_input_fault(),
            Self::Process { .. } | Self::Io { .. } | Self::Cancelled => false,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
