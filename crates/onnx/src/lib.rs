//! ONNX Runtime for the workers that convert and measure models: finds the library, opens models, runs classifiers.
//!
//! Nothing here links ONNX Runtime; the library is loaded on first use, so a program that never opens a model runs without it.

mod classifier;
mod library;

pub use classifier::{Batch, Classifier, Logits, Options};
pub use library::{environment, locate, version};

use std::path::PathBuf;

/// What can go wrong between a path and its logits.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no library at the place that was asked for, or nowhere.
    #[error(
        "ONNX Runtime is not set up: {looked}; run `cargo xtask setup`, or set ORT_DYLIB_PATH to a libonnxruntime.so of \
         version 1.{} or later (the Python wheel `onnxruntime` holds one)",
        ort::MINOR_VERSION
    )]
    LibraryMissing {
        /// Where it was looked for.
        looked: String,
    },
    /// The file is there and cannot be used.
    #[error("ONNX Runtime cannot be loaded from {path}: {reason}")]
    LibraryUnusable {
        /// The library file.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// The model file cannot be opened.
    #[error("{path}: not a usable ONNX model: {reason}")]
    Model {
        /// The model file.
        path: PathBuf,
        /// ONNX Runtime's words.
        reason: String,
    },
    /// The model takes other inputs than those of an encoder.
    #[error(
        "{path}: input `{name}` ({found}) is not known; a classifier takes int64 tensors [batch, sequence] named \
         `input_ids`, `attention_mask` and, when it has token types, `token_type_ids`"
    )]
    Input {
        /// The model file.
        path: PathBuf,
        /// Name of the input.
        name: String,
        /// Its type.
        found: String,
    },
    /// The model does not give what a classifier gives.
    #[error("{path}: output is {found}, expected `logits`, a float tensor")]
    Output {
        /// The model file.
        path: PathBuf,
        /// What was there instead.
        found: String,
    },
    /// The batch's parts do not have the same size.
    #[error("batch of {rows} x {length}: `{name}` has {found} values")]
    Batch {
        /// Rows of the batch.
        rows: usize,
        /// Sub-tokens of each row.
        length: usize,
        /// The input that is too short or too long.
        name: &'static str,
        /// Its number of values.
        found: usize,
    },
    /// Running the model failed.
    #[error("running {path} on {rows} x {length}: {reason}")]
    Run {
        /// The model file.
        path: PathBuf,
        /// Rows of the batch.
        rows: usize,
        /// Sub-tokens of each row.
        length: usize,
        /// ONNX Runtime's words.
        reason: String,
    },
}

/// Keys of the free metadata that a converted model carries.
pub mod keys {
    /// `token-classification` or `text-classification`, the names of the pipelines of `transformers`.
    pub const TASK: &str = "quintet.task";
    /// `problem_type` of `config.json`: one label a text, any number of labels, or a number; of texts only.
    pub const PROBLEM_TYPE: &str = "quintet.problem_type";
    /// Family of the encoder, as in `config.json`.
    pub const MODEL_TYPE: &str = "quintet.model_type";
    /// JSON object of ids (as text) to labels.
    pub const ID2LABEL: &str = "quintet.id2label";
    /// Scores of labels by their neighbours, of a head with a CRF only: a JSON object of `transitions` (a list for each label, of the scores of
    /// the labels after it), `start_transitions` and `end_transitions`. The output `logits` are the emissions; words are labelled by the
    /// best sequence over their first sub-tokens.
    pub const CRF: &str = "quintet.crf";
    /// SHA-256 of the checkpoint that was converted.
    pub const CHECKPOINT_DIGEST: &str = "quintet.checkpoint_digest";
    /// SHA-256 of its `tokenizer.json`.
    pub const TOKENIZER_DIGEST: &str = "quintet.tokenizer_digest";
    /// Longest sequence, in sub-tokens with the special ones.
    pub const MAX_LENGTH: &str = "quintet.max_length";
    /// Token ids are below this number.
    pub const VOCAB_SIZE: &str = "quintet.vocab_size";
    /// How weights and activations are quantized; `none` for 32 bits.
    pub const QUANTIZATION: &str = "quintet.quantization";
    /// Version of the operators.
    pub const OPSET: &str = "quintet.opset";
    /// Prefix of what the caller adds, such as `quintet.job`.
    pub const PREFIX: &str = "quintet.";
}
