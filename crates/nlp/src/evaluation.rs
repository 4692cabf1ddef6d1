//! The rows and logits that training leaves behind, so that conversion verifies a model against the trainer itself.
//!
//! A folder of two files, written in one step:
//!
//! * `rows.safetensors`: `input_ids`, `attention_mask`, `token_type_ids` (all 0), `labels` (-100 where the loss looks away) and
//!   `word_index` (-1 for special tokens and padding), each I64 of [rows, length], padded at the end with the padding token;
//!   `logits`, F32 of [min(rows, 64), length, labels]: the trainer's output for the first rows, computed with every row padded to
//!   `length`, padding positions included (they mean nothing, but any engine gives the same numbers there).
//! * `rows.json`: [`Description`].
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    align::{Encoded, IGNORED},
    batch,
    checkpoint::{Elements, Weights, write_safetensors},
    data::Sentence,
    files,
    task::{Target, Targets},
};

/// Rows that get the trainer's logits.
pub const LOGIT_ROWS: usize = 64;

/// `rows.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Version of the format: 1.
    pub format: u32,
    /// `test` or `validation`.
    pub split: String,
    /// Longest row allowed in training, in sub-tokens with the special ones.
    pub max_length: usize,
    /// Fills up rows.
    pub pad_token_id: usize,
    /// Labels by id.
    pub labels: Vec<String>,
    /// Rows.
    pub rows: usize,
    /// Sub-tokens a row, padding included.
    pub length: usize,
    /// Rows with logits.
    pub logit_rows: usize,
    /// Gold tags of each row's words, those beyond `max_length` included.
    pub gold_tags: Vec<Vec<String>>,
    /// The trainer's tags for the same words, `O` for words it did not see.
    pub predicted_tags: Vec<Vec<String>>,
}

/// Rows of a split with the trainer's logits for the first ones. Arrays are row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationSet {
    /// Shapes, labels, gold tags.
    pub description: Description,
    /// [rows, length].
    pub input_ids: Vec<i64>,
    /// [rows, length].
    pub attention_mask: Vec<i64>,
    /// [rows, length], all 0.
    pub token_type_ids: Vec<i64>,
    /// [rows, length].
    pub labels: Vec<i64>,
    /// [rows, length].
    pub word_index: Vec<i64>,
    /// [logit_rows, length, labels].
    pub logits: Vec<f32>,
}

impl EvaluationSet {
    /// Rows of a split, without predictions and logits yet.
    pub fn new(
        split: &str,
        sentences: &[Sentence],
        encoded: &[Encoded],
        labels: &[String],
        max_length: usize,
        pad_token_id: usize,
    ) -> Self {
        let padded = batch::pad(encoded, 0, pad_token_id);
        let length = padded.length;
        let mut word_index = vec![-1; padded.rows * length];
        for (index, row) in encoded.iter().enumerate() {
            for (cell, word) in word_index[index * length..].iter_mut().zip(&row.words) {
                *cell = word.map_or(-1, |word| word as i64);
            }
        }
        let description = Description {
            format: 1,
            split: split.to_owned(),
            max_length,
            pad_token_id,
            labels: labels.to_vec(),
            rows: padded.rows,
            length,
            logit_rows: 0,
            gold_tags: sentences.iter().map(|sentence| sentence.tags.clone()).collect(),
            predicted_tags: Vec::new(),
        };
        Self {
            description,
            token_type_ids: vec![0; padded.input_ids.len()],
            input_ids: padded.input_ids,
            attention_mask: padded.attention_mask,
            labels: match padded.targets {
                Targets::Tokens(labels) => labels,
                _ => Vec::new(),
            },
            word_index,
            logits: Vec::new(),
        }
    }

    /// The sub-tokens of one row without its padding, as for [`Encoded::word_labels`].
    pub fn row(&self, index: usize) -> Option<Encoded> {
        let length = self.description.length;
        let start = index.checked_mul(length)?;
        let mask = self.attention_mask.get(start..start + length)?;
        let used = start..start + mask.iter().take_while(|mask| **mask == 1).count();
        Some(Encoded {
            input_ids: self.input_ids.get(used.clone())?.to_vec(),
            type_ids: self.token_type_ids.get(used.clone())?.to_vec(),
            target: Target::Tokens(self.labels.get(used.clone())?.to_vec()),
            words: self.word_index.get(used)?.iter().map(|word| usize::try_from(*word).ok()).collect(),
            word_count: self.description.gold_tags.get(index)?.len(),
        })
    }

    /// Predicted tags of one row's words from its logits [length (or more), labels]: the largest logit of each word's first
    /// sub-token, `O` for words the model did not see.
    pub fn predicted_tags(&self, index: usize, logits: &[f32]) -> Option<Vec<String>> {
        let labels = &self.description.labels;
        let row = self.row(index)?;
        let chosen: Vec<usize> = logits.chunks_exact(labels.len().max(1)).take(row.length()).map(argmax).collect();
        let outside = labels.iter().position(|label| label == "O").unwrap_or(0);
        row.word_labels(&chosen, outside).into_iter().map(|label| labels.get(label).cloned()).collect()
    }

    /// Writes the folder in one step; it must not exist or be empty.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        let Description { rows, length, logit_rows, labels, .. } = &self.description;
        files::write_folder(dir, |folder| {
            let json = serde_json::to_vec(&self.description)
                .map_err(|e| Error::format(&folder.join("rows.json"), e.to_string()))?;
            files::write_file(&folder.join("rows.json"), &json)?;
            let shape = vec![*rows, *length];
            let mut tensors: Vec<(String, Vec<usize>, Elements<'_>)> = self
                .integers()
                .into_iter()
                .map(|(name, values)| (name.to_owned(), shape.clone(), Elements::I64(values)))
                .collect();
            let logits = vec![*logit_rows, *length, labels.len()];
            tensors.push(("logits".to_owned(), logits, Elements::F32(&self.logits)));
            write_safetensors(&folder.join("rows.safetensors"), &tensors)
        })
    }

    /// Reads a folder and checks that its arrays have the shapes described and that all ids are in range.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("rows.json");
        let description: Description =
            serde_json::from_slice(&files::read(&path)?).map_err(|e| Error::format(&path, e.to_string()))?;
        let lengths = |tags: &[Vec<String>]| tags.iter().map(Vec::len).collect::<Vec<_>>();
        let gold = lengths(&description.gold_tags);
        if description.format != 1 || gold.len() != description.rows || gold != lengths(&description.predicted_tags) {
            return Err(Error::format(
                &path,
                "not of format 1, or `rows`, `gold_tags` and `predicted_tags` differ in length",
            ));
        }
        let path = dir.join("rows.safetensors");
        let tensors = Weights::open_file(&path)?;
        let integers = |name: &str| -> Result<Vec<i64>, Error> {
            let (found, values) = tensors.i64(name)?;
            let expected = vec![description.rows, description.length];
            if found == expected {
                Ok(values)
            } else {
                Err(Error::TensorShape { path: path.clone(), tensor: name.to_owned(), found, expected })
            }
        };
        let set = Self {
            input_ids: integers("input_ids")?,
            attention_mask: integers("attention_mask")?,
            token_type_ids: integers("token_type_ids")?,
            labels: integers("labels")?,
            word_index: integers("word_index")?,
            logits: tensors.f32("logits", &[description.logit_rows, description.length, description.labels.len()])?,
            description,
        };
        let known = |label: &i64| *label == IGNORED || (0..set.description.labels.len() as i64).contains(label);
        if !set.labels.iter().all(known) {
            return Err(Error::format(&path, "`labels` holds an id that is not in rows.json"));
        }
        Ok(set)
    }

    fn integers(&self) -> [(&'static str, &[i64]); 5] {
        [
            ("input_ids", &self.input_ids),
            ("attention_mask", &self.attention_mask),
            ("token_type_ids", &self.token_type_ids),
            ("labels", &self.labels),
            ("word_index", &self.word_index),
        ]
    }
}

/// Index of the largest value, the first one of equals; 0 of none.
pub fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> EvaluationSet {
        let words = |n: usize| (0..n).map(|i| i.to_string()).collect();
        let tags = |list: &[&str]| list.iter().map(|tag| (*tag).to_owned()).collect();
        let sentences = [
            Sentence { words: words(2), tags: tags(&["O", "B-x"]), line: 1 },
            Sentence { words: words(3), tags: tags(&["B-x", "I-x", "O"]), line: 4 },
        ];
        let encoded = [
            Encoded {
                input_ids: vec![2, 5, 6, 3],
                type_ids: vec![0; 4],
                target: Target::Tokens(vec![IGNORED, 0, 1, IGNORED]),
                words: vec![None, Some(0), Some(1), None],
                word_count: 2,
            },
            Encoded {
                input_ids: vec![2, 5, 5, 6, 3],
                type_ids: vec![0; 5],
                target: Target::Tokens(vec![IGNORED, 1, IGNORED, 2, IGNORED]),
                words: vec![None, Some(0), Some(0), Some(1), None],
                word_count: 3,
            },
        ];
        let labels: Vec<String> = ["O", "B-x", "I-x"].map(str::to_owned).to_vec();
        let mut set = EvaluationSet::new("test", &sentences, &encoded, &labels, 5, 0);
        set.description.logit_rows = 1;
        set.description.predicted_tags = set.description.gold_tags.clone();
        set.logits = vec![0.5; 15];
        set
    }

    #[test]
    fn a_set_survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evaluation");
        set().save(&path).unwrap();
        assert_eq!(EvaluationSet::load(&path).unwrap(), set());
    }

    #[test]
    fn tags_come_from_first_sub_tokens() {
        let set = set();
        assert_eq!(set.row(0).unwrap().input_ids, [2, 5, 6, 3]);
        assert!(set.row(2).is_none());
        let mut logits = vec![0.0; 15];
        logits[3 + 1] = 1.0; // first sub-token of word 0: B-x
        logits[6 + 2] = 1.0; // second sub-token: not asked
        logits[9 + 2] = 1.0; // word 1: I-x
        assert_eq!(set.predicted_tags(1, &logits).unwrap(), ["B-x", "I-x", "O"]);
    }

    #[test]
    fn damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evaluation");
        set().save(&path).unwrap();
        let tensors = path.join("rows.safetensors");
        let bytes = std::fs::read(&tensors).unwrap();
        std::fs::write(&tensors, &bytes[..bytes.len() - 4]).unwrap();
        assert!(matches!(EvaluationSet::load(&path), Err(Error::Format { .. })));
        std::fs::write(&tensors, &bytes).unwrap();
        let json = std::fs::read_to_string(path.join("rows.json")).unwrap();
        std::fs::write(path.join("rows.json"), json.replace("\"length\":5", "\"length\":6")).unwrap();
        assert!(matches!(EvaluationSet::load(&path), Err(Error::TensorShape { .. })));
    }
}
