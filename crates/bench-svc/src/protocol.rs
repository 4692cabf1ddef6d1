//! What the benchmark and its measuring processes say to each other: one JSON document a line.

use serde::{Deserialize, Serialize};

use crate::report::{Latency, Warmup};

/// To the measuring process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Command {
    /// Go to a shape and warm up.
    WarmUp { batch: usize, sequence: usize, runs: usize, window_seconds: f64, limit_seconds: f64, stability: f64 },
    /// Measure at least so many runs and seconds.
    Measure { runs: usize, seconds: f64 },
    /// Tell the figures of the shape.
    Figures,
}

/// From the measuring process: first `Loaded` or `Failed`, then one answer to each command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "snake_case")]
pub(crate) enum Answer {
    Loaded(Loaded),
    Warm(Warmup),
    Measured { runs: u64, seconds: f64 },
    Figures(Figures),
    Failed(Failure),
}

/// The model as the measuring process found it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Loaded {
    pub(crate) load_ms: f64,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) onnxruntime: String,
    pub(crate) quantization: Option<String>,
    pub(crate) max_length: Option<usize>,
    pub(crate) checkpoint_digest: Option<String>,
    pub(crate) crf: bool,
}

/// One shape's figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) runs: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) latency: Latency,
    pub(crate) peak_memory_bytes: Option<u64>,
    pub(crate) others_share: Option<f64>,
    pub(crate) machine_others_share: Option<f64>,
}

/// Why it cannot go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) problem: String,
}

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailureKind {
    Model,
    Runtime,
}
