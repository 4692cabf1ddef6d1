//! Why training cannot start or go on.
use train_svc::request::{FieldError, FieldErrors};

use crate::EpochReport;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The checkpoint or the data is at fault, or a file cannot be read or written.
    #[error(transparent)]
    Input(#[from] quintet_nlp::Error),
    /// Fields of the specification are out of their range.
    #[error(transparent)]
    Fields(#[from] FieldErrors),
    /// The loss, the gradient or the scores are no numbers any more.
    #[error(
        "training diverged at step {step}: {what} is not finite; rows of the batch: {rows}{}; try a lower learning_rate",
        .kept.as_ref().map(|epoch| epoch.kept()).unwrap_or_default()
    )]
    Diverged {
        /// Step of the run, counted from 1.
        step: usize,
        /// `loss`, `gradient norm` or, in an evaluation, `score`.
        what: &'static str,
        /// Lines of the batch's rows in the file of their split.
        rows: String,
        /// The best epoch before, when its checkpoint was written.
        kept: Option<Box<EpochReport>>,
    },
    /// Memory ran out, and a smaller batch is not possible or not allowed.
    #[error(
        "memory ran out at {rows} rows of up to {length} sub-tokens: {detail}; lower batch_size, max_length or tokens_per_batch"
    )]
    OutOfMemory {
        /// Rows computed at a time.
        rows: usize,
        /// Their longest.
        length: usize,
        /// How much was asked for, as libtorch says it.
        detail: String,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Engine(#[from] tch::TchError),
    /// A thread of the engine died.
    #[error("{0}")]
    Internal(&'static str),
}

impl From<FieldError> for Error {
    fn from(error: FieldError) -> Self {
        Self::Fields(error.into())
    }
}

impl Error {
    pub(crate) fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        FieldError { field: field.into(), problem: problem.into() }.into()
    }

    /// Whether the input is at fault, so that trying again is pointless.
    pub fn is_input_fault(&self) -> bool {
        match self {
            Self::Input(error) => error.is_input_fault(),
            Self::Fields(_) | Self::Diverged { .. } | Self::OutOfMemory { .. } => true,
            Self::Engine(_) | Self::Internal(_) => false,
        }
    }
}
