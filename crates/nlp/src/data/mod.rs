//! Labelled data: files of many formats read, checked and split.
//!
//! * [`Sources`] say where the splits of a data set come from; [`prepare`](mod@crate::prepare) reads them.
//! * [`Sentence`] is an example of token classification, [`TextExample`] one of the sequence tasks.
//! * [`record`]: tables and JSON, whatever the format.
//! * [`mod@files`]: data files split and combined.
mod arrow;
mod classes;
mod conll;
pub(crate) mod delimited;
pub mod files;
pub(crate) mod folder;
mod guess;
pub(crate) mod json;
mod label_cells;
mod label_studio;
mod labels;
pub(crate) mod reader;
pub mod record;
pub(crate) mod sources;
mod spans;
mod split;
pub(crate) mod split_checks;
mod survey;
mod tags;
mod text;
pub(crate) mod words;

use std::ops::Range;

pub use classes::{ClassSet, read_label_names};
pub use labels::LabelSet;
pub use record::Format;
pub use sources::{Form, Sources};
pub use split::{Fold, HoldOut, kind_numbers, partition};
pub use tags::{Tag, parse_tag};
pub use text::{Answer, LABEL_COLUMNS, PAIRS, TEXT_COLUMNS, TextExample, TextOptions, TextReader};

/// A sentence, or another piece of text that is tagged as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// The words.
    pub words: Vec<String>,
    /// One IOB2 tag a word: `O`, `B-TYPE`, `I-TYPE`.
    pub tags: Vec<String>,
    /// Line of its first word in the file, counted from 1.
    pub line: usize,
    /// The text that the words are of, where the data has it: they are all that stands between its white space. None for words that were
    /// given apart.
    pub text: Option<String>,
}

impl Sentence {
    /// The text and where the words stand in it, by characters; none for words that were given apart.
    pub(crate) fn places(&self) -> Option<(&str, Vec<Range<usize>>)> {
        let text = self.text.as_deref()?;
        Some((text, words::places(text, &self.words)))
    }
}

/// How to read data for token classification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Absent: told by the content.
    pub format: Option<Format>,
    /// CoNLL: column of the word, counted from 0.
    pub word_column: usize,
    /// CoNLL: column of the tag, counted from 0; absent means the last.
    pub tag_column: Option<usize>,
    /// Cut documents that are too long into windows with so many sub-tokens in common; absent: cut them off.
    pub stride: Option<usize>,
}

/// A value in an error message, cut when it is long.
fn shown(value: &serde_json::Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Names in an error message, the first ones of many.
fn listed(names: &[String]) -> String {
    match names.len() {
        0..=20 => names.join(", "),
        count => format!("{}, ... ({count} in all)", names[..20].join(", ")),
    }
}
