//! The pipeline file: stages with their jobs, read and checked as a whole before any work starts. See `docs/pipeline.md`.

mod de;
mod order;
mod parse;
mod paths;
mod reference;
mod space;
mod tree;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use quintet_proto::v1::{
    Direction, FinalTrainingMode, GetBestConfigRequest, Job, JobSpec, Resources, RetryPolicy, Scoring, Timeouts,
    job_spec::Kind,
};
use runtime_core::jobs::model::kind_of;

pub(crate) use tree::{Place, Problem};

/// A checked pipeline.
#[derive(Debug, Clone)]
pub(crate) struct Pipeline {
    /// As the user named it: for messages.
    pub(crate) file: String,
    pub(crate) name: String,
    /// Tracking experiment of every stage.
    pub(crate) experiment: String,
    /// Values of `params:` after `--set`, as text.
    pub(crate) params: BTreeMap<String, String>,
    /// In the order in which they run: each after those that it refers to, otherwise as in the file.
    pub(crate) stages: Vec<Stage>,
    /// How something was understood that can be read in two ways; nothing is wrong with it.
    pub(crate) notes: Vec<Problem>,
}

/// One stage: a job to be.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) name: String,
    /// Where the stage is written.
    pub(crate) place: Place,
    /// With references to other stages' outputs still in it.
    pub(crate) spec: JobSpec,
    /// Sweep whose best configuration is merged in, and what decides which is the best.
    pub(crate) config_from: Option<ConfigFrom>,
    /// What is done about earlier trainings of the same content; none leaves it to the reuse of equal jobs.
    pub(crate) final_training: Option<FinalTraining>,
    /// References to other stages.
    pub(crate) references: Vec<StageReference>,
    pub(crate) resources: Option<Resources>,
    pub(crate) timeouts: Option<Timeouts>,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) labels: BTreeMap<String, String>,
    /// The written form, to find the place of a field.
    node: tree::Node,
}

/// `config_from`: the name of a sweep stage alone, or with what decides, in the words of `GetBestConfigRequest`.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFrom {
    pub(crate) sweep: String,
    #[serde(default)]
    metric: String,
    #[serde(default)]
    direction: Direction,
    #[serde(default)]
    objective_weights: BTreeMap<String, f64>,
    #[serde(default)]
    latency_metric: String,
    #[serde(default)]
    scoring: Option<Scoring>,
    #[serde(default)]
    accuracy_threshold: Option<f64>,
    #[serde(default)]
    use_relative_threshold: Option<bool>,
    #[serde(default)]
    min_accuracy_gain: Option<f64>,
}

/// `final_training` of a train stage, in the words of `CreateFinalTrainingRequest`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FinalTraining {
    #[serde(default)]
    pub(crate) mode: FinalTrainingMode,
    /// 0 lets the mode choose.
    #[serde(default)]
    pub(crate) variant: i32,
}

impl ConfigFrom {
    /// The request for the best configuration of a study.
    pub(crate) fn request(&self, study: &str) -> GetBestConfigRequest {
        GetBestConfigRequest {
            study: format!("studies/{study}"),
            metric: self.metric.clone(),
            direction: self.direction.into(),
            objective_weights: self.objective_weights.clone(),
            latency_metric: self.latency_metric.clone(),
            scoring: self.scoring,
            accuracy_threshold: self.accuracy_threshold,
            use_relative_threshold: self.use_relative_threshold,
            min_accuracy_gain: self.min_accuracy_gain,
            ..GetBestConfigRequest::default()
        }
    }
}

/// A value of this stage that names an output of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StageReference {
    pub(crate) stage: String,
    pub(crate) output: String,
    /// Path of the value in this stage, such as `convert.checkpoint`.
    pub(crate) field: String,
    pub(crate) place: Place,
}

/// Reads and checks a pipeline file; `sets` are `--set key=value`.
///
/// # Errors
/// The text for a person: `file:line:column: path: what is wrong; what is allowed`.
pub(crate) fn load(path: &Path, sets: &[(String, String)]) -> Result<Pipeline, String> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{shown}: there is no such file"),
        std::io::ErrorKind::InvalidData => format!("{shown}: the file is not UTF-8 text"),
        _ => format!("{shown}: {error}"),
    })?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let folder = folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))?;
    parse::parse(&shown, &text, &folder, sets).map_err(|problem| problem.text(&shown))
}

impl Pipeline {
    /// The stage of that name.
    pub(crate) fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name)
    }
}

impl Stage {
    /// `sweep`, `train`, `convert`, `benchmark` or `command`.
    pub(crate) fn kind(&self) -> &'static str {
        kind_of(&self.spec)
    }

    /// Names of the stages whose jobs must have succeeded before this one is submitted.
    pub(crate) fn needs(&self) -> impl Iterator<Item = &str> {
        let from = self.config_from.as_ref().map(|from| from.sweep.as_str());
        self.references.iter().map(|reference| reference.stage.as_str()).chain(from)
    }

    /// The job of the stage with references filled in from the names of the other stages' jobs.
    ///
    /// # Errors
    /// A message that cannot be written as JSON (a number that is not finite).
    pub(crate) fn job(&self, pipeline: &Pipeline, jobs: &BTreeMap<String, String>) -> Result<Job, serde_json::Error> {
        let mut spec = serde_json::to_value(&self.spec)?;
        fill(&mut spec, jobs);
        let mut labels = self.labels.clone();
        labels.insert("quintet.pipeline".into(), pipeline.name.clone());
        labels.insert("quintet.stage".into(), self.name.clone());
        Ok(Job {
            display_name: format!("{}/{}", pipeline.name, self.name),
            spec: Some(serde_json::from_value(spec)?),
            labels,
            retry: self.retry,
            timeouts: self.timeouts,
            resources: self.resources,
            experiment: pipeline.experiment.clone(),
            ..Job::default()
        })
    }

    /// Place and path in the file of a field as the server names it (`job.spec.train.data.train`).
    pub(crate) fn locate(&self, field: &str) -> (Place, String) {
        let field = field.strip_prefix("job.").unwrap_or(field);
        let field = field.strip_prefix("spec.").unwrap_or(field);
        (self.node.place_of(field), format!("stages.{}.{field}", self.name))
    }

    /// Whether a value at or below this field of the server's refers to another stage, so that it is unknown until that one has run.
    pub(crate) fn is_open(&self, field: &str) -> bool {
        let field = field.strip_prefix("job.").unwrap_or(field);
        let field = field.strip_prefix("spec.").unwrap_or(field);
        let merged = self.config_from.is_some() && (field.contains("hyperparameters") || field.ends_with("checkpoint"));
        // A bare `spec.convert` names everything in it.
        merged || self.references.iter().any(|open| open.field.starts_with(field) || field.starts_with(&open.field))
    }

    /// Names of the parameters that a sweep tunes.
    pub(crate) fn tuned(&self) -> Vec<String> {
        match &self.spec.kind {
            Some(Kind::Sweep(spec)) => spec.search_space.iter().map(|parameter| parameter.name.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// Names of the outputs that the stage's job publishes.
    pub(crate) fn outputs(&self) -> Vec<&str> {
        match &self.spec.kind {
            Some(Kind::Train(spec)) if spec.metrics_only => vec!["evaluation"],
            Some(Kind::Train(_)) => vec!["checkpoint", "evaluation"],
            Some(Kind::Convert(_)) => vec!["model"],
            Some(Kind::Benchmark(_)) => vec!["report"],
            Some(Kind::Predict(_)) => vec!["predictions"],
            Some(Kind::Command(spec)) => spec.outputs.iter().map(String::as_str).collect(),
            Some(Kind::Sweep(_)) | None => Vec::new(),
        }
    }
}

fn fill(value: &mut serde_json::Value, jobs: &BTreeMap<String, String>) {
    use serde_json::Value;
    match value {
        Value::String(text) => {
            // What cannot be read here was refused when the file was read.
            let Ok(found) = reference::find(text) else { return };
            if !found.is_empty() {
                *text = reference::replace(text, &found, |reference| match reference {
                    reference::Reference::Output { stage, output } => {
                        jobs.get(stage).map(|job| format!("{job}/outputs/{output}"))
                    }
                    _ => None,
                });
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, jobs)),
        Value::Object(map) => map.values_mut().for_each(|item| fill(item, jobs)),
        _ => {}
    }
}
