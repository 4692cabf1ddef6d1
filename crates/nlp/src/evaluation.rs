//! The rows and logits that training leaves behind, so that conversion verifies a model against the trainer itself.
//!
//! A folder of two files, written in one step:
//!
//! * `rows.safetensors`: `input_ids`, `attention_mask`, `token_type_ids`, `labels` (-100 where the loss looks away) and
//!   `word_index` (-1 for special tokens and padding), each I64 of [rows, length], padded at the end with the padding token;
//!   `logits`, F32 of [min(rows, 64), length, labels]: the trainer's output for the first rows, computed with every row padded to
//!   `length`, padding positions included (they mean nothing, but any engine gives the same numbers there).
//! * `rows.json`: [`Description`].
//!
//! That is format 1, of token classification. Format 2, of the sequence tasks, has no `word_index`; its `labels` are I64 of [rows] with one
//! label a text, and instead of them `values` are F32 of [rows, labels] with several labels a text and of [rows] for a regression; `logits` are F32 of
//! [logit_rows, labels].
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    align::{Encoded, IGNORED},
    batch,
    checkpoint::{Elements, Weights, write_safetensors},
    data::Sentence,
    decoder::Decoder,
    files,
    task::{Target, Targets, Task},
    windows::word_labels,
};

/// Rows that get the trainer's logits.
pub const LOGIT_ROWS: usize = 64;

/// `rows.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Version of the format: 1 for token classification, 2 for the sequence tasks.
    pub format: u32,
    /// What the model says; format 1 does not tell it.
    #[serde(default, skip_serializing_if = "is_tokens")]
    pub task: Task,
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
    /// Gold tags of each row's words, those beyond `max_length` included; absent in format 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gold_tags: Vec<Vec<String>>,
    /// The trainer's tags for the same words, `O` for words it did not see; absent in format 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub predicted_tags: Vec<Vec<String>>,
    /// Of each row: its words without a sub-token of their own, and the earlier word that each goes on with ([`Encoded::covered`]). Absent when no
    /// row has any: only words of a text can be such.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub covered: Vec<Vec<(usize, usize)>>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_tokens(task: &Task) -> bool {
    *task == Task::TokenClassification
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
    /// [rows, length].
    pub token_type_ids: Vec<i64>,
    /// [rows, length], or [rows] with one label a text; else empty.
    pub labels: Vec<i64>,
    /// [rows, labels] with several labels a text, [rows] for a regression; else empty.
    pub values: Vec<f32>,
    /// [rows, length]; empty for the sequence tasks.
    pub word_index: Vec<i64>,
    /// [logit_rows, length, labels], or [logit_rows, labels] for the sequence tasks.
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
        let covered: Vec<Vec<(usize, usize)>> = encoded.iter().map(|row| row.covered.clone()).collect();
        let description = Description {
            format: 1,
            task: Task::TokenClassification,
            split: split.to_owned(),
            max_length,
            pad_token_id,
            labels: labels.to_vec(),
            rows: padded.rows,
            length,
            logit_rows: 0,
            gold_tags: sentences.iter().map(|sentence| sentence.tags.clone()).collect(),
            predicted_tags: Vec::new(),
            covered: if covered.iter().all(Vec::is_empty) { Vec::new() } else { covered },
        };
        Self {
            description,
            token_type_ids: padded.type_ids,
            input_ids: padded.input_ids,
            attention_mask: padded.attention_mask,
            labels: match padded.targets {
                Targets::Tokens(labels) => labels,
                _ => Vec::new(),
            },
            values: Vec::new(),
            word_index,
            logits: Vec::new(),
        }
    }

    /// Rows of a split of texts, without logits yet. Rows of another kind of target than the task's are not meant for it: their answers are left
    /// out.
    pub fn of_texts(
        split: &str,
        task: Task,
        encoded: &[Encoded],
        labels: &[String],
        max_length: usize,
        pad_token_id: usize,
    ) -> Self {
        let padded = batch::pad(encoded, 0, pad_token_id);
        let description = Description {
            format: 2,
            task,
            split: split.to_owned(),
            max_length,
            pad_token_id,
            labels: labels.to_vec(),
            rows: padded.rows,
            length: padded.length,
            logit_rows: 0,
            gold_tags: Vec::new(),
            predicted_tags: Vec::new(),
            covered: Vec::new(),
        };
        let (classes, values) = match padded.targets {
            Targets::Class(classes) => (classes, Vec::new()),
            Targets::Classes(values) | Targets::Value(values) => (Vec::new(), values),
            Targets::Tokens(_) => (Vec::new(), Vec::new()),
        };
        Self {
            description,
            token_type_ids: padded.type_ids,
            input_ids: padded.input_ids,
            attention_mask: padded.attention_mask,
            labels: classes,
            values,
            word_index: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// What is right for a text.
    fn text_target(&self, index: usize) -> Option<Target> {
        let labels = self.description.labels.len();
        Some(match self.description.task {
            Task::TokenClassification => return None,
            Task::SequenceClassification => Target::Class(*self.labels.get(index)?),
            Task::MultiLabelClassification => {
                Target::Classes(self.values.get(index * labels..(index + 1) * labels)?.to_vec())
            }
            Task::Regression => Target::Value(*self.values.get(index)?),
        })
    }

    /// The sub-tokens of one row without its padding.
    pub fn row(&self, index: usize) -> Option<Encoded> {
        let length = self.description.length;
        let start = index.checked_mul(length)?;
        let mask = self.attention_mask.get(start..start + length)?;
        let used = start..start + mask.iter().take_while(|mask| **mask == 1).count();
        let (input_ids, type_ids) =
            (self.input_ids.get(used.clone())?.to_vec(), self.token_type_ids.get(used.clone())?.to_vec());
        if self.description.task.is_sequence() {
            let words = vec![None; input_ids.len()];
            let target = self.text_target(index)?;
            return Some(Encoded { input_ids, type_ids, target, words, word_count: 0, covered: Vec::new() });
        }
        Some(Encoded {
            input_ids,
            type_ids,
            target: Target::Tokens(self.labels.get(used.clone())?.to_vec()),
            words: self.word_index.get(used)?.iter().map(|word| usize::try_from(*word).ok()).collect(),
            word_count: self.description.gold_tags.get(index)?.len(),
            covered: self.description.covered.get(index).cloned().unwrap_or_default(),
        })
    }

    /// Predicted tags of one row's words from its logits [length (or more), labels], as `decoder` reads them of each word's first
    /// sub-token; `O` for words the model did not see. A row that is one window of a document tells the words that count in it.
    pub fn predicted_tags(&self, index: usize, logits: &[f32], decoder: &Decoder) -> Option<Vec<String>> {
        let labels = &self.description.labels;
        let row = self.row(index)?;
        let chosen = decoder.decode(&row, logits);
        let tags = word_labels([(&row, chosen.as_slice())], labels);
        tags.into_iter().map(|label| labels.get(label).cloned()).collect()
    }

    /// Writes the folder in one step; it must not exist or be empty.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        let Description { rows, length, logit_rows, labels, task, .. } = &self.description;
        files::write_folder(dir, |folder| {
            let json = serde_json::to_vec(&self.description)
                .map_err(|e| Error::format(&folder.join("rows.json"), e.to_string()))?;
            files::write_file(&folder.join("rows.json"), &json)?;
            let cells = || vec![*rows, *length];
            let mut tensors = vec![
                ("input_ids", cells(), Elements::I64(&self.input_ids)),
                ("attention_mask", cells(), Elements::I64(&self.attention_mask)),
                ("token_type_ids", cells(), Elements::I64(&self.token_type_ids)),
            ];
            tensors.push(match task {
                Task::TokenClassification => ("labels", cells(), Elements::I64(&self.labels)),
                Task::SequenceClassification => ("labels", vec![*rows], Elements::I64(&self.labels)),
                Task::MultiLabelClassification => ("values", vec![*rows, labels.len()], Elements::F32(&self.values)),
                Task::Regression => ("values", vec![*rows], Elements::F32(&self.values)),
            });
            if !task.is_sequence() {
                tensors.push(("word_index", cells(), Elements::I64(&self.word_index)));
            }
            let logits = self.description.logits(*logit_rows);
            tensors.push(("logits", logits, Elements::F32(&self.logits)));
            let tensors: Vec<_> =
                tensors.into_iter().map(|(name, shape, values)| (name.to_owned(), shape, values)).collect();
            write_safetensors(&folder.join("rows.safetensors"), &tensors)
        })
    }

    /// Reads a folder and checks that its arrays have the shapes described and that all ids are in range.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("rows.json");
        let description: Description =
            serde_json::from_slice(&files::read(&path)?).map_err(|e| Error::format(&path, e.to_string()))?;
        description.check().map_err(|problem| Error::format(&path, problem))?;
        let path = dir.join("rows.safetensors");
        let tensors = Weights::open_file(&path)?;
        let integers = |name: &str, expected: Vec<usize>| -> Result<Vec<i64>, Error> {
            let (found, values) = tensors.i64(name)?;
            if found == expected {
                Ok(values)
            } else {
                Err(Error::TensorShape { path: path.clone(), tensor: name.to_owned(), found, expected })
            }
        };
        let (rows, labels) = (description.rows, description.labels.len());
        let cells = || vec![rows, description.length];
        let (classes, values, word_index) = match description.task {
            Task::TokenClassification => (integers("labels", cells())?, Vec::new(), integers("word_index", cells())?),
            Task::SequenceClassification => (integers("labels", vec![rows])?, Vec::new(), Vec::new()),
            Task::MultiLabelClassification => (Vec::new(), tensors.f32("values", &[rows, labels])?, Vec::new()),
            Task::Regression => (Vec::new(), tensors.f32("values", &[rows])?, Vec::new()),
        };
        let set = Self {
            input_ids: integers("input_ids", cells())?,
            attention_mask: integers("attention_mask", cells())?,
            token_type_ids: integers("token_type_ids", cells())?,
            labels: classes,
            values,
            word_index,
            logits: tensors.f32("logits", &description.logits(description.logit_rows))?,
            description,
        };
        let known = |label: &i64| *label == IGNORED || (0..set.description.labels.len() as i64).contains(label);
        if !set.labels.iter().all(known) {
            return Err(Error::format(&path, "`labels` holds an id that is not in rows.json"));
        }
        Ok(set)
    }
}

impl Description {
    /// Shape of the logits.
    fn logits(&self, rows: usize) -> Vec<usize> {
        match self.task.is_sequence() {
            true => vec![rows, self.labels.len()],
            false => vec![rows, self.length, self.labels.len()],
        }
    }

    fn check(&self) -> Result<(), String> {
        let expected = if self.task.is_sequence() { 2 } else { 1 };
        if self.format != expected {
            return Err(format!("found format {}, expected {expected} for {:?}", self.format, self.task));
        }
        let lengths = |tags: &[Vec<String>]| tags.iter().map(Vec::len).collect::<Vec<_>>();
        let (gold, rows) = (lengths(&self.gold_tags), if self.task.is_sequence() { 0 } else { self.rows });
        if gold.len() != rows || gold != lengths(&self.predicted_tags) {
            return Err("`rows`, `gold_tags` and `predicted_tags` differ in length".to_owned());
        }
        if !self.covered.is_empty() && self.covered.len() != rows {
            return Err("`rows` and `covered` differ in length".to_owned());
        }
        Ok(())
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
            Sentence { words: words(2), tags: tags(&["O", "B-x"]), line: 1, text: None },
            Sentence { words: words(3), tags: tags(&["B-x", "I-x", "O"]), line: 4, text: None },
        ];
        let encoded = [
            Encoded {
                input_ids: vec![2, 5, 6, 3],
                type_ids: vec![0; 4],
                target: Target::Tokens(vec![IGNORED, 0, 1, IGNORED]),
                words: vec![None, Some(0), Some(1), None],
                word_count: 2,
                covered: Vec::new(),
            },
            Encoded {
                input_ids: vec![2, 5, 5, 6, 3],
                type_ids: vec![0; 5],
                target: Target::Tokens(vec![IGNORED, 1, IGNORED, 2, IGNORED]),
                words: vec![None, Some(0), Some(0), Some(1), None],
                word_count: 3,
                covered: Vec::new(),
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
    fn sets_of_texts_survive_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let labels: Vec<String> = ["x", "y"].map(str::to_owned).to_vec();
        for (task, targets, labels) in [
            (Task::SequenceClassification, [Target::Class(1), Target::Class(0)], &labels[..]),
            (
                Task::MultiLabelClassification,
                [Target::Classes(vec![1.0, 0.0]), Target::Classes(vec![1.0, 1.0])],
                &labels[..],
            ),
            (Task::Regression, [Target::Value(0.5), Target::Value(-2.0)], &labels[..1]),
        ] {
            let encoded: Vec<Encoded> = (2..)
                .zip(targets)
                .map(|(length, target)| Encoded {
                    input_ids: vec![7; length],
                    type_ids: vec![1; length],
                    target,
                    words: vec![None; length],
                    word_count: 0,
                    covered: Vec::new(),
                })
                .collect();
            let mut set = EvaluationSet::of_texts("test", task, &encoded, labels, 5, 0);
            set.description.logit_rows = 2;
            set.logits = vec![0.25; 2 * labels.len()];
            let path = dir.path().join(format!("{task:?}"));
            set.save(&path).unwrap();
            let found = EvaluationSet::load(&path).unwrap();
            assert_eq!(found, set);
            assert_eq!([found.row(0).unwrap(), found.row(1).unwrap()].as_slice(), encoded);
            let json = std::fs::read_to_string(path.join("rows.json")).unwrap();
            assert!(json.contains("\"format\":2") && !json.contains("gold_tags"), "{json}");
            // Whoever knows format 1 alone refuses it.
            std::fs::write(path.join("rows.json"), json.replace("\"format\":2", "\"format\":1")).unwrap();
            assert!(matches!(EvaluationSet::load(&path), Err(Error::Format { .. })));
        }
    }

    #[test]
    fn the_format_of_words_is_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evaluation");
        set().save(&path).unwrap();
        let json = std::fs::read_to_string(path.join("rows.json")).unwrap();
        assert!(json.starts_with("{\"format\":1,\"split\":\"test\",\"max_length\":5,"), "{json}");
        let tensors = Weights::open_file(&path.join("rows.safetensors")).unwrap();
        let names: Vec<&str> = tensors.names().collect();
        assert_eq!(names.len(), 6, "{names:?}");
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
        let decoder = Decoder::new(None, 3);
        assert_eq!(set.predicted_tags(1, &logits, &decoder).unwrap(), ["B-x", "I-x", "O"]);
        // The third word has no sub-token of its own.
        let mut set = set;
        set.description.covered = vec![Vec::new(), vec![(2, 1)]];
        let dir = tempfile::tempdir().unwrap();
        set.save(&dir.path().join("set")).unwrap();
        let set = EvaluationSet::load(&dir.path().join("set")).unwrap();
        assert_eq!(set.predicted_tags(1, &logits, &decoder).unwrap(), ["B-x", "I-x", "I-x"]);
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
