//! The report: what `benchmark.json` holds. Times are milliseconds, sizes bytes, shares 0 to 1, unless a name says otherwise.

use serde::{Deserialize, Serialize};

use crate::Settings;

/// Form of `benchmark.json`; changes when a field changes its meaning or goes.
pub const SCHEMA: &str = "quintet.benchmark/1";

/// A whole benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Start of the measurement, RFC 3339.
    pub time: String,
    /// Seconds that everything took.
    pub seconds: f64,
    /// How it was measured.
    pub settings: Settings,
    /// What the rows were.
    pub inputs: String,
    /// Where it was measured.
    pub environment: Environment,
    /// What was measured.
    pub models: Vec<Model>,
    /// One for each model and shape; by shape, then in the order of models.
    pub rows: Vec<Row>,
}

/// The machine and its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Name of the processor.
    pub cpu: String,
    /// Processors of the machine.
    pub processors: usize,
    /// Processors that the measuring processes were bound to.
    pub pinned: Vec<usize>,
    /// Frequency governor of the first of them, when readable.
    pub governor: Option<String>,
    /// Memory of the machine.
    pub memory_bytes: u64,
    /// Operating system and its kernel.
    pub system: String,
    /// Architecture, such as `x86_64`.
    pub architecture: String,
    /// Of 1, 5 and 15 minutes, before measuring.
    pub load_average: [f64; 3],
    /// Version of ONNX Runtime.
    pub onnxruntime: String,
    /// Version of this program.
    pub version: String,
}

/// A measured file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Shortest name that tells the models apart.
    pub name: String,
    /// Path as given.
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// From start to a session ready to run, in a fresh process, ONNX Runtime already loaded.
    pub load_ms: f64,
    /// Peak resident memory once loaded, before the first run.
    pub loaded_memory_bytes: Option<u64>,
    /// Peak resident memory of the process in all.
    pub peak_memory_bytes: Option<u64>,
    /// Quantization that the model's metadata state.
    pub quantization: Option<String>,
    /// Longest sequence that the model's metadata allow.
    pub max_length: Option<usize>,
    /// Digest of the checkpoint that the model was converted from, by its metadata.
    pub checkpoint_digest: Option<String>,
    /// Whether a run includes the search for the best sequence of labels, by the CRF in the model's metadata.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub crf: bool,
}

/// One model at one shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// [`Model::name`].
    pub model: String,
    /// Rows of each run.
    pub batch: usize,
    /// Sub-tokens of each row.
    pub sequence: usize,
    /// Measured runs.
    pub runs: u64,
    /// Seconds in these runs.
    pub seconds: f64,
    /// Wall-clock time of a run.
    pub latency_ms: Latency,
    /// Rows a second, one run after the other.
    pub throughput: f64,
    /// Processor time of a run, all threads.
    pub cpu_ms: f64,
    /// Peak resident memory of the process up to here; shapes are measured in ascending size.
    pub peak_memory_bytes: Option<u64>,
    /// Share of the measuring processors that others used meanwhile, when the system tells.
    pub others_share: Option<f64>,
    /// Share of the whole machine that others used meanwhile, when the system tells.
    pub machine_others_share: Option<f64>,
    /// Warm-up.
    pub warmup: Warmup,
    /// Throughput of the fastest round over that of the slowest.
    pub rounds_ratio: f64,
    /// Median latency of the first model at this shape over this one's: above 1 is faster.
    pub speedup: f64,
    /// Whether no rule was broken.
    pub valid: bool,
    /// Broken rules, in words: each makes the row invalid.
    pub problems: Vec<String>,
    /// What to keep in mind with a valid row: percentiles with too few runs behind them.
    pub notes: Vec<String>,
}

/// Wall-clock times in milliseconds; percentiles from a histogram with an error of at most 0.1 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the sample.
    pub stdev: f64,
    /// Fastest run.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Slowest run.
    pub max: f64,
}

/// How the warm-up went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Warmup {
    /// Runs.
    pub runs: u64,
    /// Windows of runs.
    pub windows: usize,
    /// Whether the last three windows agreed.
    pub stable: bool,
}
