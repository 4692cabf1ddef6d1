//! What a model is trained to say of a text.
use serde::{Deserialize, Serialize};

use crate::align::IGNORED;

/// A task; sequence tasks take one text or a pair of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One label for each word.
    #[default]
    TokenClassification,
    /// One label for the text.
    SequenceClassification,
    /// Any number of labels for the text.
    MultiLabelClassification,
    /// A number for the text.
    Regression,
}

/// What is right for a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Label id on the first sub-token of each word; [`IGNORED`] on the others and on special tokens.
    Tokens(Vec<i64>),
    /// Label id of the text.
    Class(i64),
    /// 1 for each label that the text has, 0 for the others; by label id.
    Classes(Vec<f32>),
    /// The number.
    Value(f32),
}

/// What is right for the rows of a batch, padded and row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// [rows, length], [`IGNORED`] for padding.
    Tokens(Vec<i64>),
    /// [rows].
    Class(Vec<i64>),
    /// [rows, labels].
    Classes(Vec<f32>),
    /// [rows].
    Value(Vec<f32>),
}

impl Targets {
    /// How many terms the loss sums up.
    pub fn count(&self) -> usize {
        match self {
            Self::Tokens(labels) | Self::Class(labels) => labels.iter().filter(|label| **label != IGNORED).count(),
            Self::Classes(values) | Self::Value(values) => values.len(),
        }
    }
}

impl Task {
    /// Whether the whole text gets the answer.
    pub fn is_sequence(self) -> bool {
        self != Self::TokenClassification
    }

    /// Its name, as it is serialized.
    pub fn name(self) -> &'static str {
        match self {
            Self::TokenClassification => "token_classification",
            Self::SequenceClassification => "sequence_classification",
            Self::MultiLabelClassification => "multi_label_classification",
            Self::Regression => "regression",
        }
    }

    /// `problem_type` in `config.json`; none for token classification.
    pub fn problem_type(self) -> Option<&'static str> {
        match self {
            Self::TokenClassification => None,
            Self::SequenceClassification => Some("single_label_classification"),
            Self::MultiLabelClassification => Some("multi_label_classification"),
            Self::Regression => Some("regression"),
        }
    }
}
