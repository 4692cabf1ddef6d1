//! What can be wrong with checkpoints, tokenizers and data; each variant names the place.
use std::{
    io,
    path::{Path, PathBuf},
};

/// An error of this crate. All but [`Error::Io`] are faults of the input.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file is not what its name promises.
    #[error("`{}`: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A key of `config.json` is missing, mistyped or unsupported.
    #[error("`{}`: field `{field}`: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Its key.
        field: String,
        /// The value found and what is allowed.
        problem: String,
    },
    /// A tensor that the architecture needs is not there.
    #[error("`{}`: tensor `{tensor}` is missing", path.display())]
    MissingTensor {
        /// The weights file.
        path: PathBuf,
        /// Name without the family's prefix.
        tensor: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("`{}`: tensor `{tensor}` has shape {found:?}, but config.json asks for {expected:?}", path.display())]
    TensorShape {
        /// The weights file.
        path: PathBuf,
        /// Name as in the file.
        tensor: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that follows from the configuration.
        expected: Vec<usize>,
    },
    /// A tensor has an element type that is not a float of 16 or 32 bits.
    #[error("`{}`: tensor `{tensor}` has type {found}, allowed are F32, F16 and BF16", path.display())]
    TensorType {
        /// The weights file.
        path: PathBuf,
        /// Name as in the file.
        tensor: String,
        /// Type in the file.
        found: String,
    },
    /// A line of a data file is malformed.
    #[error("`{}`:{line}: {problem}", path.display())]
    Data {
        /// The data file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// A split as a whole cannot be used.
    #[error("{split} split: {problem}")]
    Split {
        /// `train`, `validation` or `test`.
        split: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Whoever watched the work asked it to stop.
    #[error("stopped")]
    Stopped,
    /// An argument is out of its range.
    #[error("`{field}`: {problem}")]
    Argument {
        /// Name of the argument.
        field: &'static str,
        /// The value found and what is allowed.
        problem: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn format(path: &Path, problem: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), problem: problem.into() }
    }

    pub(crate) fn data(path: &Path, line: usize, problem: impl Into<String>) -> Self {
        Self::Data { path: path.to_owned(), line, problem: problem.into() }
    }

    pub(crate) fn argument(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Argument { field, problem: problem.into() }
    }

    /// Whether the input is at fault, so that trying again is pointless.
    pub fn is_input_fault(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory
                )
            }
            Self::Stopped => false,
            _ => true,
        }
    }
}
