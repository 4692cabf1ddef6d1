//! `config.json` of an encoder: typed where the arithmetic needs it, everything else kept for writing back.
use std::{collections::BTreeMap, ops, path::Path};

use serde_json::{Map, Value, json};

use super::{
    Family,
    fields::{Reader, Visit as _, Writer},
    ops::Activation,
};
use crate::{Error, files, task::Task};

/// The key that says whether the head has a CRF.
const CRF: &str = "crf";

/// What all families have, under the names that most of them use.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// Rows of the word table.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Activation of the feed-forward layer.
    pub hidden_act: Activation,
    /// Rows of the position table, or the longest input that the encoder was made for.
    pub max_position_embeddings: usize,
    /// Dropout of embeddings and of sublayer outputs.
    pub hidden_dropout_prob: f64,
    /// Dropout of attention probabilities.
    pub attention_probs_dropout_prob: f64,
    /// Added to the variance in LayerNorm.
    pub layer_norm_eps: f64,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// Token that fills up rows, whose row of the word table gets no gradient; none where no token is kept for it.
    pub pad_token_id: Option<usize>,
}

impl Base {
    /// Size of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// What fills up rows; attention leaves it out, so it may be any token.
    pub fn filler(&self) -> usize {
        self.pad_token_id.unwrap_or(0)
    }
}

/// Configuration of an encoder with its head. The fields of [`Base`] read as its own.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// What all families have.
    pub base: Base,
    /// The family, with what it alone has.
    pub family: Family,
    /// What the head is for; none for a bare encoder, or one with a head that is not ours.
    pub task: Option<Task>,
    /// Labels by id; empty for an encoder without a head.
    pub labels: Vec<String>,
    /// Whether a head that tags words has a CRF over them: our own key `crf`, which `transformers` passes over.
    pub crf: bool,
    raw: Map<String, Value>,
}

impl ops::Deref for EncoderConfig {
    type Target = Base;

    fn deref(&self) -> &Base {
        &self.base
    }
}

impl ops::DerefMut for EncoderConfig {
    fn deref_mut(&mut self) -> &mut Base {
        &mut self.base
    }
}

impl EncoderConfig {
    /// Reads and checks a `config.json`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let content = files::read(path)?;
        let value: Value = serde_json::from_slice(&content).map_err(|e| Error::format(path, e.to_string()))?;
        let Value::Object(raw) = value else { return Err(Error::format(path, "not a JSON object")) };
        Self::from_map(raw, path)
    }

    /// Checks a configuration; `path` is named in errors.
    pub fn from_map(raw: Map<String, Value>, path: &Path) -> Result<Self, Error> {
        let mut reader = Reader { raw: &raw, path };
        let (mut family, mut base) = family(&reader)?;
        family.visit(&mut base, &mut reader)?;
        if let Some((field, problem)) = base_problem(&base).or_else(|| family.problem(&base)) {
            return Err(reader.error(family.key(field), problem));
        }
        for field in ["is_decoder", "add_cross_attention"] {
            if reader.get(field) == Some(&json!(true)) {
                return Err(reader.error(field, "found true, supported are encoders: false"));
            }
        }
        if let Some(heads) =
            reader.get("pruned_heads").filter(|heads| heads.as_object().is_none_or(|map| !map.is_empty()))
        {
            return Err(
                reader.error("pruned_heads", format!("found {heads}, supported are encoders with all heads: {{}}"))
            );
        }
        let mut crf = false;
        reader.flag(CRF, &mut crf)?;
        let mut labels = labels(&reader)?;
        // A configuration with the names and the number that transformers gives without being told leaves them out.
        let mut count = if labels.is_empty() { 2 } else { labels.len() };
        if labels.is_empty() {
            reader.count("num_labels", &mut count)?;
        }
        let task = task(&reader, count);
        if task.is_some() && labels.is_empty() {
            labels = (0..count).map(|id| format!("LABEL_{id}")).collect();
        }
        let config = Self { base, family, task, labels, crf, raw };
        match config.sequence_problem().filter(|_| task.is_some_and(Task::is_sequence)) {
            Some((field, problem)) => Err(Error::Config { path: path.to_owned(), field: field.to_owned(), problem }),
            None => Ok(config),
        }
    }

    /// The first field that keeps the encoder from having a head for texts, and what is wrong with it.
    pub fn sequence_problem(&self) -> Option<(&'static str, String)> {
        self.family.sequence_problem(&self.base)
    }

    /// Whether the configuration says what kind of problem its head is for, instead of leaving that to the number of labels.
    pub fn names_problem_type(&self) -> bool {
        self.raw.get("problem_type").is_some_and(|kind| !kind.is_null())
    }

    /// Whether the head scores labels by their neighbours.
    pub fn has_crf(&self) -> bool {
        self.crf && self.task == Some(Task::TokenClassification)
    }

    /// The longest input in sub-tokens.
    pub fn max_length(&self) -> usize {
        self.family.max_length(&self.base)
    }

    /// Sets the dropout of embeddings, sublayer outputs and the head; that of attention probabilities stays.
    pub fn set_dropout(&mut self, probability: f64) {
        self.base.hidden_dropout_prob = probability;
        self.family.set_dropout(probability);
    }

    /// The class of `transformers` for the task, such as `BertForTokenClassification`.
    pub fn architecture(&self) -> String {
        let class = self.family.class();
        match self.task {
            None => format!("{class}Model"),
            Some(Task::TokenClassification) => format!("{class}ForTokenClassification"),
            Some(_) => format!("{class}ForSequenceClassification"),
        }
    }

    /// The configuration as `transformers` reads it: all keys of the source, those of the head replaced.
    pub fn to_json(&self) -> Value {
        let mut map = self.raw.clone();
        // Derived by transformers from id2label, or about another head.
        for stale in ["num_labels", "problem_type", "finetuning_task", "id2label", "label2id", CRF, "_name_or_path"] {
            map.shift_remove(stale);
        }
        map.insert("architectures".to_owned(), json!([self.architecture()]));
        map.insert("model_type".to_owned(), json!(self.family.model_type()));
        let (mut family, mut base) = (self.family.clone(), self.base.clone());
        // Writing into a map cannot fail.
        let _ = family.visit(&mut base, &mut Writer { map: &mut map });
        let mut set = |key: &str, value: Value| map.insert(key.to_owned(), value);
        set("torch_dtype", json!("float32"));
        if self.raw.contains_key("dtype") {
            set("dtype", json!("float32"));
        }
        if let Some(problem_type) = self.task.and_then(Task::problem_type) {
            set("problem_type", json!(problem_type));
        }
        if self.has_crf() {
            set(CRF, json!(true));
        }
        if !self.labels.is_empty() {
            let names = self.labels.iter().enumerate().map(|(id, name)| (id.to_string(), json!(name)));
            set("id2label", Value::Object(names.collect()));
            let ids = self.labels.iter().enumerate().map(|(id, name)| (name.clone(), json!(id)));
            set("label2id", Value::Object(ids.collect()));
        }
        Value::Object(map)
    }
}

fn family(reader: &Reader<'_>) -> Result<(Family, Base), Error> {
    let supported = Family::model_types().join(", ");
    match reader.get("model_type").and_then(Value::as_str) {
        Some(name) => Family::named(name)
            .ok_or_else(|| reader.error("model_type", format!("found `{name}`, supported are {supported}"))),
        None => Err(reader.error("model_type", format!("missing or no string, supported are {supported}"))),
    }
}

fn base_problem(base: &Base) -> Option<(&'static str, String)> {
    if !base.hidden_size.is_multiple_of(base.num_attention_heads) {
        let problem = format!("{} does not divide the hidden size {}", base.num_attention_heads, base.hidden_size);
        return Some(("num_attention_heads", problem));
    }
    let token = base.pad_token_id.filter(|token| *token >= base.vocab_size)?;
    Some(("pad_token_id", format!("{token} is not below vocab_size {}", base.vocab_size)))
}

fn labels(reader: &Reader<'_>) -> Result<Vec<String>, Error> {
    let Some(value) = reader.get("id2label") else { return Ok(Vec::new()) };
    let wrong = || reader.error("id2label", format!("found {value}, expected an object of \"0\", \"1\", ... to names"));
    let mut labels = BTreeMap::new();
    for (key, name) in value.as_object().ok_or_else(wrong)? {
        let id: usize = key.parse().map_err(|_| wrong())?;
        let name = match name {
            Value::String(name) => name.clone(),
            Value::Number(_) | Value::Bool(_) => name.to_string(),
            _ => return Err(wrong()),
        };
        labels.insert(id, name);
    }
    if labels.keys().copied().ne(0..labels.len()) {
        return Err(wrong());
    }
    Ok(labels.into_values().collect())
}

/// The task that `architectures` and `problem_type` name; of a sequence classifier without the latter by the number of labels, as
/// `transformers` chooses its loss.
fn task(reader: &Reader<'_>, labels: usize) -> Option<Task> {
    let names = reader.get("architectures").and_then(Value::as_array)?;
    let ends = |suffix: &str| names.iter().filter_map(Value::as_str).any(|name| name.ends_with(suffix));
    if ends("ForTokenClassification") {
        return Some(Task::TokenClassification);
    }
    if !ends("ForSequenceClassification") {
        return None;
    }
    let tasks = [Task::SequenceClassification, Task::MultiLabelClassification, Task::Regression];
    let named = reader.get("problem_type").and_then(Value::as_str);
    let task = tasks.into_iter().find(|task| task.problem_type() == named && named.is_some());
    task.or(Some(if labels == 1 { Task::Regression } else { Task::SequenceClassification }))
}
