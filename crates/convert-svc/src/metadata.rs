//! Provenance for a model's free metadata.

use std::path::Path;

use quintet_nlp::{checkpoint::Checkpoint, crf::Crf, files};
use quintet_onnx::keys;
use serde_json::{Map, Value, json};

use crate::{Error, Request, graph::Scheme};

/// Digests that lead back to the checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Digests {
    pub(crate) checkpoint: String,
    pub(crate) tokenizer: String,
}

impl Digests {
    pub(crate) fn of(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let tokenizer: &Path = &checkpoint.dir.join("tokenizer.json");
        Ok(Self { checkpoint: checkpoint.digest()?, tokenizer: files::digest(tokenizer)? })
    }
}

/// Keys and values, sorted by key; the same inputs give the same.
pub(crate) fn properties(
    checkpoint: &Checkpoint,
    digests: &Digests,
    crf: Option<&Crf>,
    scheme: Scheme,
    request: &Request,
) -> Vec<(String, String)> {
    let config = &checkpoint.config;
    let task = config.task.unwrap_or_default();
    let labels: Map<String, Value> =
        config.labels.iter().enumerate().map(|(id, label)| (id.to_string(), Value::String(label.clone()))).collect();
    let crf = crf.map(|crf| json!(crf).to_string());
    let mut properties: Vec<(String, String)> = [
        (keys::TASK, if task.is_sequence() { "text-classification" } else { "token-classification" }.to_owned()),
        (keys::MODEL_TYPE, config.family.model_type().to_owned()),
        (keys::ID2LABEL, Value::Object(labels).to_string()),
        (keys::CHECKPOINT_DIGEST, digests.checkpoint.clone()),
        (keys::TOKENIZER_DIGEST, digests.tokenizer.clone()),
        (keys::MAX_LENGTH, config.max_length().to_string()),
        (keys::VOCAB_SIZE, config.vocab_size.to_string()),
        (keys::QUANTIZATION, scheme.name().to_owned()),
        (keys::OPSET, request.opset.to_string()),
    ]
    .into_iter()
    .chain(crf.map(|crf| (keys::CRF, crf)))
    .chain(task.problem_type().map(|problem_type| (keys::PROBLEM_TYPE, problem_type.to_owned())))
    .map(|(key, value)| (key.to_owned(), value))
    .chain(request.provenance.iter().map(|(key, value)| (format!("{}{key}", keys::PREFIX), value.clone())))
    .collect();
    properties.sort();
    properties
}
