//! The rows of a split, ready for the encoder, wherever they lie.
use crate::{
    Error,
    align::Encoded,
    data::{Sentence, TextExample},
};

/// What a row was made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    /// A document of token classification.
    Sentence(Sentence),
    /// A text or a pair of texts.
    Text(TextExample),
}

/// Encoded rows, which may be more than fit in memory. A document that is cut into windows has several rows, one after the other; else it has
/// one.
pub trait Rows: Send + Sync {
    /// Rows.
    fn len(&self) -> usize;

    /// Sub-tokens of a row; 0 for a row that is not there.
    fn length(&self, row: usize) -> usize;

    /// A row.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    fn get(&self, row: usize) -> Result<Encoded, Error>;

    /// The document that a row belongs to; documents are counted from 0 in the order of rows.
    fn document(&self, row: usize) -> usize;

    /// Documents.
    fn documents(&self) -> usize;

    /// The document itself, for reports.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    fn example(&self, document: usize) -> Result<Example, Error>;

    /// Whether there is no row.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The length of each row, in its order.
    fn lengths(&self) -> Vec<u32> {
        (0..self.len()).map(|row| u32::try_from(self.length(row)).unwrap_or(u32::MAX)).collect()
    }
}

impl Example {
    /// Line of the file where it begins, or number of its row, counted from 1.
    pub fn line(&self) -> usize {
        match self {
            Self::Sentence(sentence) => sentence.line,
            Self::Text(text) => text.line,
        }
    }

    /// The tags of its words; none for a text.
    pub fn tags(&self) -> &[String] {
        match self {
            Self::Sentence(sentence) => &sentence.tags,
            Self::Text(_) => &[],
        }
    }
}

pub(crate) fn no_row(row: usize, rows: usize) -> Error {
    Error::argument("row", format!("found {row}, but there are {rows}"))
}
