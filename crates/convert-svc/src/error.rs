//! Errors of converting; each says what was wrong, where, and what is allowed.

use std::path::PathBuf;

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value of the specification is out of range.
    #[error("{field}: {problem}")]
    Argument {
        /// The field of `ConvertSpec`.
        field: &'static str,
        /// The value and what is allowed.
        problem: String,
    },
    /// The checkpoint or the evaluation rows cannot be read, or the output cannot be written.
    #[error(transparent)]
    Files(#[from] quintet_nlp::Error),
    /// The checkpoint is of a kind that cannot be converted.
    #[error("{path}: {problem}")]
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// What it says, and what is supported.
        problem: String,
    },
    /// A weight is not a number.
    #[error("tensor `{tensor}` holds {value} at index {index}; all weights must be finite numbers")]
    NotFinite {
        /// Name without the family's prefix.
        tensor: String,
        /// In row-major order.
        index: usize,
        /// Infinite or not a number.
        value: f32,
    },
    /// The evaluation rows do not fit the checkpoint.
    #[error("evaluation: {0}")]
    Evaluation(String),
    /// The model would be larger than the format allows in one file.
    #[error("the model takes {bytes} bytes; an ONNX file holds at most {} (2 GiB)", i32::MAX)]
    TooLarge {
        /// Encoded size.
        bytes: usize,
    },
    /// ONNX Runtime is missing or refuses the model.
    #[error(transparent)]
    Runtime(#[from] quintet_onnx::Error),
    /// The model does not do what the trainer's model does.
    #[error("verification failed, nothing was published: {}", problems.join("; "))]
    Verification {
        /// One line for each failed check, with the figures.
        problems: Vec<String>,
    },
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Whether the input is at fault, so that trying again is pointless.
    pub fn is_input_fault(&self) -> bool {
        match self {
            Self::Files(error) => error.is_input_fault(),
            Self::Cancelled => false,
            _ => true,
        }
    }
}
