//! The report of a conversion: what `conversion.json` holds.

use serde::{Deserialize, Serialize};

/// Form of `conversion.json`; changes when a field changes its meaning or goes.
pub const SCHEMA: &str = "quintet.conversion/1";

/// A whole conversion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Whether words are labelled by the CRF in the models' metadata, of which `logits` are the emissions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub crf: bool,
    /// Version of the operators.
    pub opset: i32,
    /// `quintet` and its version.
    pub producer: String,
    /// ONNX Runtime that verified.
    pub onnxruntime: String,
    /// SHA-256 of the checkpoint.
    pub checkpoint_digest: String,
    /// What was verified against.
    pub evaluation: Evaluation,
    /// Largest absolute difference of an fp32 logit that was allowed.
    pub tolerance: f64,
    /// Most F1 that int8 was allowed to lose.
    pub max_f1_loss: f64,
    /// The models written.
    pub models: Vec<Model>,
    /// Every file of the folder but this report.
    pub files: Vec<File>,
    /// Seconds that everything took.
    pub seconds: f64,
}

fn tokens() -> String {
    "token_classification".to_owned()
}

/// The rows that models were verified on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// `token_classification`, `sequence_classification`, `multi_label_classification` or `regression`.
    #[serde(default = "tokens")]
    pub task: String,
    /// `test` or `validation`.
    pub split: String,
    /// Rows for F1 and agreement.
    pub rows: usize,
    /// Words in them; 0 of texts.
    pub words: usize,
    /// Rows with the trainer's logits.
    pub logit_rows: usize,
    /// How F1 is counted.
    pub f1_mode: String,
    /// F1 (0 to 1) of the trainer's own predictions; absent for texts, whose fp32 model stands for the trainer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainer_f1: Option<f64>,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Name of the file.
    pub file: String,
    /// `fp32` or `int8`.
    pub precision: String,
    /// What is quantized, and how; `none` for fp32.
    pub quantization: String,
    /// Size of the file.
    pub size_bytes: u64,
    /// Nodes of the graph as written.
    pub nodes: usize,
    /// Largest absolute difference of a logit of a token, or of a text, from the trainer's.
    pub max_abs_logit_difference: f64,
    /// Share (0 to 1) of words with the trainer's tag; of words only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag_agreement: Option<f64>,
    /// Share (0 to 1) of texts with the label, or the set of labels, of the fp32 model; of texts with labels only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_agreement: Option<f64>,
    /// F1 (0 to 1) against what is right, see [`Evaluation::f1_mode`]; absent for a regression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub f1: Option<f64>,
    /// Coefficient of determination (1 at most) against what is right; of a regression only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r2: Option<f64>,
    /// Seconds to build and write the file.
    pub build_seconds: f64,
    /// Seconds to verify it.
    pub verify_seconds: f64,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// Name in the folder.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}
