//! From a job and the report in its outputs to a stage of the document.

use std::collections::{BTreeMap, BTreeSet};

use quintet_nlp::task::Task;
use quintet_proto::v1::{Job, JobState, Outputs};
use runtime_core::jobs::model::{job_kind, millis};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::document::{Artifact, Benchmark, Convert, Entity, Error, File, Model, Row, Stage, Train};

/// The report of a job is not what its kind promises.
#[derive(Debug, thiserror::Error)]
#[error("the report of {job} ({kind}) cannot be read: {source}")]
pub(crate) struct Unreadable {
    job: String,
    kind: &'static str,
    source: serde_json::Error,
}

/// The stage of the document for a job. `worked` is the job that did the work, when an earlier one was reused.
///
/// # Errors
/// When a job that succeeded has no report of its kind's form.
pub(crate) fn stage(name: &str, job: &Job, worked: &Job) -> Result<Stage, Unreadable> {
    let kind = job_kind(job);
    let outputs = job.outputs.clone().unwrap_or_default();
    let mut stage = Stage {
        name: name.to_owned(),
        kind: kind.to_owned(),
        job: job.name.clone(),
        state: job.state().as_str_name().to_owned(),
        seconds: seconds(worked),
        reused: !job.reused_from.is_empty(),
        reused_from: Some(job.reused_from.clone()).filter(|name| !name.is_empty()),
        content_hash: job.content_hash.clone(),
        outputs: outputs.artifacts.iter().map(|(name, artifact)| (name.clone(), self::artifact(artifact))).collect(),
        metrics: finite(outputs.metrics.clone()),
        error: None,
        sweep: None,
        train: None,
        convert: None,
        benchmark: None,
    };
    if job.state() != JobState::Succeeded {
        stage.error = job.error.as_ref().map(|error| Error {
            reason: error.reason.clone(),
            message: error.message.clone(),
            log_tail: error.log_tail.clone(),
        });
        return Ok(stage);
    }
    let unreadable = |source| Unreadable { job: job.name.clone(), kind, source };
    match kind {
        "sweep" => stage.sweep = Some(super::sweep::sweep(&outputs).map_err(unreadable)?),
        "train" => stage.train = train(&outputs).map_err(unreadable)?,
        "convert" => stage.convert = Some(convert(&outputs).map_err(unreadable)?),
        "benchmark" => stage.benchmark = Some(benchmark(&outputs).map_err(unreadable)?),
        _ => {}
    }
    Ok(stage)
}

/// From the start of the work to its end.
fn seconds(job: &Job) -> f64 {
    let start = job.start_time.as_ref().or(job.create_time.as_ref()).map(millis);
    let end = job.end_time.as_ref().map(millis);
    match (start, end) {
        (Some(start), Some(end)) => (end - start).max(0) as f64 / 1000.0,
        _ => 0.0,
    }
}

fn artifact(artifact: &quintet_proto::v1::Artifact) -> Artifact {
    Artifact {
        uri: artifact.uri.clone(),
        path: files(artifact),
        digest: artifact.digest.clone(),
        size_bytes: artifact.size_bytes,
        file_count: artifact.file_count,
    }
}

/// The folder of an artifact's files, `@` and the beginning of its digest, where it can be seen from here.
pub(crate) fn files(artifact: &quintet_proto::v1::Artifact) -> Option<String> {
    let folder = artifact.uri.strip_prefix("file://")?;
    let files = format!("{folder}/@{}", artifact.digest.get(..16)?);
    std::path::Path::new(&files).is_dir().then_some(files)
}

fn finite(metrics: BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    metrics.into_iter().filter(|(_, value)| value.is_finite()).collect()
}

pub(super) fn report<T: DeserializeOwned>(outputs: &Outputs) -> Result<T, serde_json::Error> {
    serde_json::from_value(serde_json::to_value(outputs.report.clone().unwrap_or_default())?)
}

/// Numbers of a `google.protobuf.Struct` are doubles, and its keys have no order: whole ones are written as such, keys sorted.
pub(crate) fn whole(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < 9e15 => Value::from(float as i64),
            _ => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(whole).collect(),
        Value::Object(map) => Value::Object(wholes(map)),
        other => other,
    }
}

pub(super) fn wholes(map: Map<String, Value>) -> Map<String, Value> {
    let sorted: BTreeMap<String, Value> = map.into_iter().map(|(key, value)| (key, whole(value))).collect();
    sorted.into_iter().collect()
}

/// What the trainer writes: `crates/train-worker/src/report.rs`.
#[derive(Deserialize)]
struct TrainReport {
    evaluation: Option<SplitReport>,
}

#[derive(Deserialize)]
struct SplitReport {
    split: String,
    loss: Option<f64>,
    #[serde(flatten)]
    scores: SplitScores,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SplitScores {
    /// Tagged words.
    Entities { default: Scored, strict: Scored },
    /// Texts.
    Texts { metrics: BTreeMap<String, Value>, scores: TextScores },
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum TextScores {
    Class { classes: Classes },
    MultiLabel { labels: Classes },
    Regression {},
}

#[derive(Deserialize)]
struct Classes {
    classes: Vec<EntityScores>,
}

#[derive(Deserialize)]
struct Scored {
    entities: Vec<EntityScores>,
    micro: Scores,
    macro_average: Scores,
    weighted_average: Scores,
    accuracy: f64,
}

#[derive(Deserialize)]
struct EntityScores {
    label: String,
    #[serde(flatten)]
    scores: Scores,
}

#[derive(Deserialize)]
struct Scores {
    precision: f64,
    recall: f64,
    f1: f64,
    support: f64,
}

fn train(outputs: &Outputs) -> Result<Option<Train>, serde_json::Error> {
    let report: TrainReport = report(outputs)?;
    let Some(evaluation) = report.evaluation else { return Ok(None) };
    let (task, mut metrics, rows) = match evaluation.scores {
        SplitScores::Entities { default, strict } => {
            let metrics = [
                ("precision", default.micro.precision),
                ("recall", default.micro.recall),
                ("f1", default.micro.f1),
                ("f1_macro", default.macro_average.f1),
                ("f1_weighted", default.weighted_average.f1),
                ("accuracy", default.accuracy),
                ("precision_strict", strict.micro.precision),
                ("recall_strict", strict.micro.recall),
                ("f1_strict", strict.micro.f1),
            ];
            let metrics = BTreeMap::from(metrics.map(|(name, value)| (name.to_owned(), value)));
            (Task::TokenClassification, metrics, default.entities)
        }
        SplitScores::Texts { metrics, scores } => {
            let (task, rows) = match scores {
                TextScores::Class { classes } => (Task::SequenceClassification, classes.classes),
                TextScores::MultiLabel { labels } => (Task::MultiLabelClassification, labels.classes),
                TextScores::Regression {} => (Task::Regression, Vec::new()),
            };
            // Those of single labels stand in the rows.
            let single: BTreeSet<String> = rows
                .iter()
                .flat_map(|row| ["precision", "recall", "f1"].map(|name| format!("{}_{name}", row.label)))
                .collect();
            let metrics = metrics.into_iter().filter(|(name, _)| !single.contains(name));
            (task, metrics.filter_map(|(name, value)| Some((name, value.as_f64()?))).collect(), rows)
        }
    };
    metrics.extend(evaluation.loss.map(|loss| ("loss".to_owned(), loss)));
    let entities = rows.into_iter().map(|EntityScores { label, scores }| Entity {
        entity: label,
        precision: scores.precision,
        recall: scores.recall,
        f1: scores.f1,
        support: scores.support as u64,
    });
    let entities = entities.collect();
    Ok(Some(Train { split: evaluation.split, task: task.name().to_owned(), metrics, entities }))
}

/// What convert-svc writes: `crates/convert-svc/src/report.rs`.
#[derive(Deserialize)]
struct ConvertReport {
    opset: f64,
    models: Vec<ModelReport>,
    files: Vec<FileReport>,
}

#[derive(Deserialize)]
struct ModelReport {
    file: String,
    precision: String,
    size_bytes: f64,
    max_abs_logit_difference: f64,
    f1: Option<f64>,
    r2: Option<f64>,
    tag_agreement: Option<f64>,
    label_agreement: Option<f64>,
}

#[derive(Deserialize)]
struct FileReport {
    name: String,
    size_bytes: f64,
    sha256: String,
}

fn convert(outputs: &Outputs) -> Result<Convert, serde_json::Error> {
    let report: ConvertReport = report(outputs)?;
    let exact = report.models.iter().any(|model| model.precision == "fp32");
    let compared = report.models.iter().filter(|model| !exact || model.precision == "fp32");
    Ok(Convert {
        opset: report.opset as i64,
        max_abs_logit_difference: compared.map(|model| model.max_abs_logit_difference).fold(0.0, f64::max),
        models: {
            let models = report.models.into_iter().map(|model| Model {
                file: model.file,
                precision: model.precision,
                size_bytes: model.size_bytes as u64,
                max_abs_logit_difference: model.max_abs_logit_difference,
                f1: model.f1,
                r2: model.r2,
                tag_agreement: model.tag_agreement,
                label_agreement: model.label_agreement,
            });
            models.collect()
        },
        files: {
            let files = report.files.into_iter();
            files
                .map(|file| File { name: file.name, size_bytes: file.size_bytes as u64, sha256: file.sha256 })
                .collect()
        },
    })
}

/// What bench-svc writes: `crates/bench-svc/src/report.rs`.
#[derive(Deserialize)]
struct BenchmarkReport {
    settings: SettingsReport,
    environment: EnvironmentReport,
    rows: Vec<RowReport>,
}

#[derive(Deserialize)]
struct SettingsReport {
    threads: f64,
}

#[derive(Deserialize)]
struct EnvironmentReport {
    cpu: String,
}

#[derive(Deserialize)]
struct RowReport {
    model: String,
    batch: f64,
    sequence: f64,
    runs: f64,
    latency_ms: LatencyReport,
    throughput: f64,
    peak_memory_bytes: Option<f64>,
    valid: bool,
}

#[derive(Deserialize)]
struct LatencyReport {
    p50: f64,
    p95: f64,
    p99: f64,
}

fn benchmark(outputs: &Outputs) -> Result<Benchmark, serde_json::Error> {
    let report: BenchmarkReport = report(outputs)?;
    let rows = report.rows.into_iter().map(|row| Row {
        model: row.model,
        batch: row.batch as u64,
        sequence: row.sequence as u64,
        runs: row.runs as u64,
        p50: row.latency_ms.p50,
        p95: row.latency_ms.p95,
        p99: row.latency_ms.p99,
        throughput: row.throughput,
        peak_memory_bytes: row.peak_memory_bytes.map(|bytes| bytes as u64),
        valid: row.valid,
    });
    Ok(Benchmark { cpu: report.environment.cpu, threads: report.settings.threads as u64, rows: rows.collect() })
}

#[cfg(test)]
pub(crate) mod tests {
    use quintet_proto::v1::{JobError, JobSpec, SweepSpec, job_spec::Kind};
    use runtime_core::jobs::model::timestamp;
    use serde_json::json;

    use super::*;

    pub(crate) fn job(kind: Kind, report: Value) -> Job {
        Job {
            name: "jobs/0123456789abcdef0123456789abcdef".into(),
            state: JobState::Succeeded.into(),
            spec: Some(JobSpec { kind: Some(kind) }),
            start_time: Some(timestamp(1_000)),
            end_time: Some(timestamp(3_500)),
            outputs: Some(Outputs {
                report: Some(serde_json::from_value(report).unwrap()),
                metrics: BTreeMap::from([("f1".into(), 0.5), ("odd".into(), f64::NAN)]),
                ..Outputs::default()
            }),
            ..Job::default()
        }
    }

    pub(crate) fn sweep_job() -> Job {
        let report = json!({
            "study": "s", "storage": "sqlite:////d/s.db", "direction": "MAXIMIZE", "metric": "f1", "seconds": 3.5,
            "counts": {"COMPLETE": 1},
            "trials": [
                {"number": 0, "state": "COMPLETE", "parameters": {"batch_size": 16, "learning_rate": 5e-5}, "value": 0.75,
                 "intermediate_values": {"1": 0.25, "2": "NaN"}, "seconds": 1.25, "job": "jobs/1", "error": null},
                {"number": 1, "state": "FAIL", "parameters": {"batch_size": 8}, "value": null,
                 "intermediate_values": {}, "seconds": null, "job": "jobs/2", "error": "boom"}],
            "best": {"number": 0, "parameters": {"batch_size": 16, "learning_rate": 5e-5}, "value": 0.75, "job": "jobs/1"},
        });
        job(Kind::Sweep(SweepSpec::default()), report)
    }

    pub(crate) fn train_job() -> Job {
        let scores = json!({"precision": 0.5, "recall": 0.25, "f1": 1.0 / 3.0, "support": 4});
        let row = json!({"label": "PER", "precision": 0.5, "recall": 0.25, "f1": 1.0 / 3.0, "support": 4});
        let scored = json!({"mode": "default", "entities": [row], "micro": scores, "macro_average": scores,
            "weighted_average": scores, "accuracy": 0.9});
        let report = json!({"outcome": "completed", "evaluation":
            {"split": "test", "loss": 0.125, "default": scored, "strict": scored}});
        job(Kind::Train(Default::default()), report)
    }

    pub(crate) fn convert_job() -> Job {
        let model = |file: &str, precision: &str, difference: f64| {
            json!({"file": file, "precision": precision,
            "size_bytes": 90_000_000_u64, "nodes": 3, "max_abs_logit_difference": difference, "tag_agreement": 1.0, "f1": 0.5,
            "build_seconds": 1.0, "verify_seconds": 1.0})
        };
        let report = json!({"schema": "quintet.conversion/1", "opset": 20,
            "models": [model("model.onnx", "fp32", 1.5e-6), model("model_int8.onnx", "int8", 0.3)],
            "files": [{"name": "model.onnx", "size_bytes": 90_000_000_u64, "sha256": "ab"}], "seconds": 2.0});
        job(Kind::Convert(Default::default()), report)
    }

    pub(crate) fn benchmark_job() -> Job {
        let report = json!({"schema": "quintet.benchmark/1", "settings": {"threads": 1}, "environment": {"cpu": "a cpu"},
            "rows": [{"model": "model.onnx", "batch": 8, "sequence": 128, "runs": 50, "latency_ms": {"p50": 1.5, "p95": 2.0,
                "p99": 2.5}, "throughput": 5333.0, "peak_memory_bytes": 1_000_000, "valid": true}]});
        job(Kind::Benchmark(Default::default()), report)
    }

    #[test]
    fn reports_become_stages_whatever_the_kind() {
        let job = sweep_job();
        let stage = super::stage("sweep", &job, &job).unwrap();
        assert_eq!((stage.seconds, stage.reused, stage.metrics.len()), (2.5, false, 1));
        let sweep = stage.sweep.unwrap();
        assert_eq!(sweep.trials[0].intermediate_values, BTreeMap::from([("1".into(), 0.25)]));
        assert_eq!((sweep.trials[1].error.as_str(), sweep.trials[1].value), ("boom", None));
        assert_eq!(
            serde_json::to_string(&sweep.best.unwrap().parameters).unwrap(),
            r#"{"batch_size":16,"learning_rate":0.00005}"#
        );

        let job = train_job();
        let train = super::stage("train", &job, &job).unwrap().train.unwrap();
        assert_eq!((train.split.as_str(), train.metrics["f1"], train.metrics["loss"]), ("test", 1.0 / 3.0, 0.125));
        assert_eq!((train.entities[0].entity.as_str(), train.entities[0].support), ("PER", 4));

        let job = convert_job();
        let convert = super::stage("convert", &job, &job).unwrap().convert.unwrap();
        assert_eq!(
            (convert.opset, convert.max_abs_logit_difference, convert.files[0].size_bytes),
            (20, 1.5e-6, 90_000_000)
        );

        let job = benchmark_job();
        let benchmark = super::stage("bench", &job, &job).unwrap().benchmark.unwrap();
        assert_eq!((benchmark.rows[0].batch, benchmark.rows[0].p99, benchmark.threads), (8, 2.5, 1));
    }

    pub(crate) fn texts_job(scores: serde_json::Value, metrics: serde_json::Value) -> Job {
        let evaluation = json!({"split": "test", "loss": 0.25, "metrics": metrics, "scores": scores});
        job(Kind::Train(Default::default()), json!({"outcome": "completed", "evaluation": evaluation}))
    }

    pub(crate) fn classes_job() -> Job {
        let row = json!({"label": "refund", "precision": 0.5, "recall": 0.25, "f1": 1.0 / 3.0, "support": 4});
        let classes = json!({"class": {"accuracy": 0.5, "classes": {"classes": [row]}}});
        texts_job(classes, json!({"f1": 0.75, "accuracy": 0.5, "refund_f1": 1.0 / 3.0}))
    }

    #[test]
    fn texts_have_their_own_metrics_and_a_row_a_label() {
        let job = classes_job();
        let train = super::stage("train", &job, &job).unwrap().train.unwrap();
        assert_eq!(train.task, "sequence_classification");
        assert_eq!(train.metrics.keys().collect::<Vec<_>>(), ["accuracy", "f1", "loss"]);
        assert_eq!((train.entities[0].entity.as_str(), train.entities[0].support), ("refund", 4));
        let job = texts_job(json!({"regression": {"mse": 0.5}}), json!({"mse": 0.5, "pearson": "NaN"}));
        let train = super::stage("train", &job, &job).unwrap().train.unwrap();
        assert_eq!((train.task.as_str(), train.entities.len()), ("regression", 0));
        assert_eq!(train.metrics, BTreeMap::from([("loss".into(), 0.25), ("mse".into(), 0.5)]));
    }

    #[test]
    fn a_failed_job_tells_its_error_and_a_wrong_report_is_refused() {
        let mut job = sweep_job();
        job.state = JobState::Failed.into();
        job.error = Some(JobError {
            reason: "BAD_INPUT".into(),
            message: "m".into(),
            log_tail: "l".into(),
            ..JobError::default()
        });
        let stage = super::stage("sweep", &job, &job).unwrap();
        assert_eq!(stage.error.unwrap().reason, "BAD_INPUT");
        assert!(stage.sweep.is_none());
        let job = super::tests::job(Kind::Sweep(SweepSpec::default()), json!({"study": 3}));
        let error = super::stage("sweep", &job, &job).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "the report of jobs/0123456789abcdef0123456789abcdef (sweep) cannot be read: invalid type"
            ),
            "{error}"
        );
    }
}
