//! Labelled data: files of many formats read, checked and split.
//!
//! * [`Sources`] say where the splits of a data set come from, and [`DataSet`] holds them in memory.
//! * [`Sentence`] is an example of token classification, [`TextExample`] one of the sequence tasks.
//! * [`record`]: tables and JSON, whatever the format.
mod arrow;
mod classes;
mod conll;
mod delimited;
mod folder;
mod json;
mod jsonl;
mod labels;
pub mod record;
mod set;
mod split;
mod tags;
mod text;

use std::path::Path;

pub use classes::{ClassSet, read_label_names};
pub use labels::LabelSet;
pub use record::Format;
pub use set::{DataSet, Form, Sources, Splits};
pub use split::{Fold, HoldOut, kind_numbers, partition};
pub use tags::{Tag, parse_tag};
pub use text::{Answer, LABEL_COLUMNS, PAIRS, TEXT_COLUMNS, TextExample, TextOptions, TextReader};

use crate::{Error, files};

/// A sentence, or another piece of text that is tagged as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// The words.
    pub words: Vec<String>,
    /// One IOB2 tag a word: `O`, `B-TYPE`, `I-TYPE`.
    pub tags: Vec<String>,
    /// Line of its first word in the file, counted from 1.
    pub line: usize,
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

/// What was read from one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileContent {
    /// The sentences in the order of the file.
    pub sentences: Vec<Sentence>,
    /// Tags `I-TYPE` that opened an entity (IOB1, or stray) and were made `B-TYPE`.
    pub retagged: usize,
    /// JSONL: words that were cut in two because a span begins or ends inside.
    pub cut_words: usize,
}

/// Reads one file.
pub fn read(path: &Path, options: &ReadOptions) -> Result<FileContent, Error> {
    let format = match options.format {
        Some(format) => format,
        None => record::detect(path, Format::Conll)?,
    };
    let bytes = files::read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        let line = bytes[..e.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::data(path, line, "not UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::Jsonl => jsonl::parse(text, path),
        _ => conll::parse(text, path, options),
    }
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
