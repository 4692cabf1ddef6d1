//! The document of `quintet run --json`. These types are its definition; `docs/result.schema.json` is generated from them.

use std::{collections::BTreeMap, io::Write as _, path::Path};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Form of the document; changes when a field changes its meaning or goes.
pub(crate) const SCHEMA: &str = "quintet.result/1";

/// The result of one `quintet run`. Times are seconds or RFC 3339, sizes bytes, scores and shares 0 to 1, latencies milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    /// `quintet.result/1`.
    pub(crate) schema: String,
    /// Version of the program.
    pub(crate) version: String,
    /// Name of the pipeline.
    pub(crate) pipeline: String,
    /// The pipeline file, as it was named.
    pub(crate) file: String,
    /// Values of `params:` after `--set`, as text.
    pub(crate) params: BTreeMap<String, String>,
    /// Tracking experiment of the stages' runs.
    pub(crate) experiment: String,
    /// Address of the server: gRPC and the MLflow REST API.
    pub(crate) server: String,
    /// `SUCCEEDED`, `FAILED`, `CANCELLED` or `INTERRUPTED`.
    pub(crate) state: String,
    /// When the run began.
    pub(crate) start_time: String,
    /// From then until the document was written.
    pub(crate) seconds: f64,
    /// One for each stage that was submitted, in the order of running.
    pub(crate) stages: Vec<Stage>,
}

/// One stage and its job. Exactly the part of its kind is there once it has succeeded; command stages have none of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stage {
    /// Name in the pipeline file.
    pub(crate) name: String,
    /// `sweep`, `train`, `convert`, `benchmark` or `command`.
    pub(crate) kind: String,
    /// `jobs/{uid}`; the uid is also the tracking run's id.
    pub(crate) job: String,
    /// State of the job.
    pub(crate) state: String,
    /// From the start of the work to its end; for a reused job that of the job which did the work.
    pub(crate) seconds: f64,
    /// Whether an earlier job of equal content answered.
    pub(crate) reused: bool,
    /// That job.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) reused_from: Option<String>,
    /// SHA-256 of the specification and the digests of its inputs.
    pub(crate) content_hash: String,
    /// Published files and folders by name.
    pub(crate) outputs: BTreeMap<String, Artifact>,
    /// Metrics by name, as the job reported them at its end.
    pub(crate) metrics: BTreeMap<String, f64>,
    /// Why it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) error: Option<Error>,
    /// Of a sweep.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) sweep: Option<Sweep>,
    /// Of a training.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) train: Option<Train>,
    /// Of a conversion.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) convert: Option<Convert>,
    /// Of a benchmark.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) benchmark: Option<Benchmark>,
}

/// A published file or folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Artifact {
    /// URL in the artifact store.
    pub(crate) uri: String,
    /// Folder that holds its files, when the artifact store is a folder of this machine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) path: Option<String>,
    /// SHA-256 of its manifest.
    pub(crate) digest: String,
    /// All files together.
    pub(crate) size_bytes: i64,
    /// Files in it.
    pub(crate) file_count: i32,
}

/// Why a job did not succeed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Error {
    /// One of the reasons of the wire contract, such as `BAD_INPUT`.
    pub(crate) reason: String,
    /// What happened.
    pub(crate) message: String,
    /// Last lines of the job's log.
    pub(crate) log_tail: String,
}

/// All trials of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sweep {
    /// Name for `optuna.load_study`.
    pub(crate) study: String,
    /// Storage for `optuna.load_study`; empty when the sweep did not tell.
    pub(crate) storage: String,
    /// `MAXIMIZE` or `MINIMIZE`; of the first objective.
    pub(crate) direction: String,
    /// Name of the first objective.
    pub(crate) metric: String,
    /// What was optimized.
    pub(crate) objectives: Vec<Objective>,
    /// By number.
    pub(crate) trials: Vec<Trial>,
    /// None when no trial completed, and with several objectives.
    pub(crate) best: Option<Best>,
    /// With several objectives: numbers of the trials that no other one beats in all of them.
    pub(crate) pareto_front: Vec<i64>,
    /// The job at the end with the best parameters, when the sweep was asked for it.
    pub(crate) refit: Option<Refit>,
}

/// A metric that was optimized.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Objective {
    /// Its name.
    pub(crate) metric: String,
    /// `MAXIMIZE` or `MINIMIZE`.
    pub(crate) direction: String,
}

/// One fold of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fold {
    /// `jobs/{uid}`.
    pub(crate) job: String,
    /// What it reported.
    pub(crate) metrics: BTreeMap<String, f64>,
}

/// The job that was run once more with the best parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refit {
    /// Number of the trial whose parameters it has.
    pub(crate) trial: i64,
    /// `jobs/{uid}`.
    pub(crate) job: String,
    /// What it reported.
    pub(crate) metrics: BTreeMap<String, f64>,
    /// URLs of what it published, by name.
    pub(crate) outputs: BTreeMap<String, String>,
}

/// One trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trial {
    /// From 0.
    pub(crate) number: i64,
    /// `COMPLETE`, `PRUNED`, `FAIL`, `RUNNING` or `WAITING`.
    pub(crate) state: String,
    /// Name to value.
    pub(crate) parameters: serde_json::Map<String, Value>,
    /// The first objective; none for a trial that did not complete.
    pub(crate) value: Option<f64>,
    /// One an objective; null for what is not finite.
    pub(crate) values: Vec<Option<f64>>,
    /// With cross-validation: its folds that have ended, in order.
    pub(crate) folds: Vec<Fold>,
    /// Step to value.
    pub(crate) intermediate_values: BTreeMap<String, f64>,
    /// Duration.
    pub(crate) seconds: Option<f64>,
    /// `jobs/{uid}`.
    pub(crate) job: String,
    /// Why it failed; empty otherwise.
    pub(crate) error: String,
}

/// The best trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Best {
    /// Its number.
    pub(crate) number: i64,
    /// Its parameters.
    pub(crate) parameters: serde_json::Map<String, Value>,
    /// Its objective.
    pub(crate) value: f64,
    /// `jobs/{uid}`.
    pub(crate) job: String,
}

/// Quality of the trained model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Train {
    /// Split of the metrics: `test`, or `validation` when there is no test split.
    pub(crate) split: String,
    /// `token_classification`, `sequence_classification`, `multi_label_classification` or `regression`.
    pub(crate) task: String,
    /// Such as `precision`, `recall`, `f1`, `accuracy`, `loss` on that split; names of `strict` are seqeval's strict mode.
    pub(crate) metrics: BTreeMap<String, f64>,
    /// By entity; of texts by label.
    pub(crate) entities: Vec<Entity>,
}

/// Quality for one type of entity, or one label of texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entity {
    /// Its name, without `B-` and `I-`.
    pub(crate) entity: String,
    /// Share of predicted entities that are right.
    pub(crate) precision: f64,
    /// Share of true entities that were found.
    pub(crate) recall: f64,
    /// Harmonic mean of the two.
    pub(crate) f1: f64,
    /// True entities.
    pub(crate) support: u64,
}

/// The converted models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Convert {
    /// Version of the ONNX operators.
    pub(crate) opset: i64,
    /// Largest over the fp32 models, against the trainer's logits; over all models when there is no fp32 one.
    pub(crate) max_abs_logit_difference: f64,
    /// One for each precision.
    pub(crate) models: Vec<Model>,
    /// Every file of the `model` output.
    pub(crate) files: Vec<File>,
}

/// A converted model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Model {
    /// Name of the file in the `model` output.
    pub(crate) file: String,
    /// `fp32` or `int8`.
    pub(crate) precision: String,
    /// Its size.
    pub(crate) size_bytes: u64,
    /// Against the trainer's logits on real rows.
    pub(crate) max_abs_logit_difference: f64,
    /// F1 on the rows that it was verified on, counted as in training; absent for a regression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) f1: Option<f64>,
    /// Coefficient of determination on these rows; of a regression only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) r2: Option<f64>,
    /// Share of words with the trainer's tag; of tagged words only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tag_agreement: Option<f64>,
    /// Share of texts with the fp32 model's label or labels; of texts with labels only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label_agreement: Option<f64>,
}

/// A file of the converted model's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// Name in the folder.
    pub(crate) name: String,
    /// Its size.
    pub(crate) size_bytes: u64,
    /// Its digest in hexadecimal.
    pub(crate) sha256: String,
}

/// Speed of the models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Benchmark {
    /// Name of the processor.
    pub(crate) cpu: String,
    /// Of ONNX Runtime inside one operator.
    pub(crate) threads: u64,
    /// One for each model and shape.
    pub(crate) rows: Vec<Row>,
}

/// One model at one shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// Shortest name that tells the models apart.
    pub(crate) model: String,
    /// Rows of each run.
    pub(crate) batch: u64,
    /// Sub-tokens of each row.
    pub(crate) sequence: u64,
    /// Measured runs.
    pub(crate) runs: u64,
    /// Median latency of a run, in milliseconds.
    pub(crate) p50: f64,
    /// 95th percentile, in milliseconds.
    pub(crate) p95: f64,
    /// 99th percentile, in milliseconds.
    pub(crate) p99: f64,
    /// Rows a second, one run after the other.
    pub(crate) throughput: f64,
    /// Peak resident memory of the measuring process.
    pub(crate) peak_memory_bytes: Option<u64>,
    /// Whether the measurement was undisturbed.
    pub(crate) valid: bool,
}

impl Document {
    /// Writes the document whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        // A temporary file is for its owner alone; a result is as readable as others.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The committed schema is the one of the types. `UPDATE_DOCS=1` writes it anew.
    #[test]
    fn the_documented_schema_is_that_of_the_types() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/result.schema.json");
        let schema = serde_json::to_string_pretty(&schemars::schema_for!(Document)).unwrap() + "\n";
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &schema).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), schema, "run the test with UPDATE_DOCS=1");
    }

    #[test]
    fn a_document_that_cannot_be_written_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/result.json");
        let document = Document {
            schema: SCHEMA.into(),
            version: "1".into(),
            pipeline: "p".into(),
            file: "p.yaml".into(),
            params: BTreeMap::new(),
            experiment: "p".into(),
            server: "http://x".into(),
            state: "SUCCEEDED".into(),
            start_time: "2026-01-01T00:00:00Z".into(),
            seconds: 1.5,
            stages: Vec::new(),
        };
        document.write(&path).unwrap();
        let read: Document = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read, document);
        // A folder in the way: the write fails and no temporary file stays behind.
        let blocked = folder.path().join("blocked");
        std::fs::create_dir_all(blocked.join("result.json")).unwrap();
        assert!(document.write(&blocked.join("result.json")).is_err());
        assert_eq!(std::fs::read_dir(&blocked).unwrap().count(), 1);
    }
}
