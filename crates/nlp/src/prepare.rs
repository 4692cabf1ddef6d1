//! From the sources of a data set to rows that a model trains on: one call for every task.
use std::{path::PathBuf, sync::Arc};

use crate::{
    Error,
    align::{Alignment, Encoded, encode, encode_texts},
    data::{DataSet, Sources},
    rows::{Example, MemoryRows, Rows},
    task::Task,
    tokenizer::WordTokenizer,
};

/// How to prepare.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Longest row in sub-tokens, the special ones included.
    pub max_length: usize,
    /// Folder for rows that do not fit in memory; absent: everything is held in memory.
    pub work_dir: Option<PathBuf>,
}

/// A split, ready for the encoder.
#[derive(Clone)]
pub struct Part {
    /// `train`, `validation` or `test`.
    pub name: &'static str,
    /// Its rows. Those of `train` all have something that the loss looks at.
    pub rows: Arc<dyn Rows>,
    /// What encoding did to it.
    pub alignment: Alignment,
}

/// A data set, ready for the encoder.
pub struct Prepared {
    /// What the model is trained to say.
    pub task: Task,
    /// Labels in the order of their ids; a regression has one.
    pub labels: Vec<String>,
    /// To train on.
    pub train: Part,
    /// To select by.
    pub validation: Part,
    /// To report on.
    pub test: Option<Part>,
    /// What was changed or decided while reading, one line each.
    pub notes: Vec<String>,
}

/// Reads, checks, splits and encodes a data set.
///
/// # Errors
/// Those of [`DataSet::load`]; no row of the training split has anything that the tokenizer keeps.
pub fn prepare(sources: &Sources, tokenizer: &WordTokenizer, options: &Options) -> Result<Prepared, Error> {
    let set = DataSet::load(sources)?;
    let (task, names) = (set.task(), set.label_names().to_vec());
    let (train, validation, test, notes) = match set {
        DataSet::Tokens { labels, splits, notes } => {
            let part = |name, rows: Vec<_>| {
                let (encoded, alignment) = encode(&rows, tokenizer, &labels, options.max_length)?;
                Ok::<Part, Error>(part(name, rows.into_iter().map(Example::Sentence), encoded, alignment))
            };
            let test = splits.test.map(|rows| part("test", rows)).transpose()?;
            (part("train", splits.train)?, part("validation", splits.validation)?, test, notes)
        }
        DataSet::Text { labels, splits, notes, .. } => {
            let part = |name, rows: Vec<_>| {
                let (encoded, alignment) = encode_texts(&rows, tokenizer, &labels, options.max_length)?;
                Ok::<Part, Error>(part(name, rows.into_iter().map(Example::Text), encoded, alignment))
            };
            let test = splits.test.map(|rows| part("test", rows)).transpose()?;
            (part("train", splits.train)?, part("validation", splits.validation)?, test, notes)
        }
    };
    if train.rows.is_empty() {
        let problem = "no row has a word that the tokenizer keeps".to_owned();
        return Err(Error::Split { split: "train", problem });
    }
    Ok(Prepared { task, labels: names, train, validation, test, notes })
}

fn part(
    name: &'static str,
    examples: impl Iterator<Item = Example>,
    encoded: Vec<Encoded>,
    alignment: Alignment,
) -> Part {
    let mut rows = MemoryRows::default();
    for (example, row) in examples.zip(encoded) {
        // A training row without a label would make a batch's mean loss 0/0.
        if name != "train" || row.counts() {
            rows.push(example, [row]);
        }
    }
    Part { name, rows: Arc::new(rows), alignment }
}
