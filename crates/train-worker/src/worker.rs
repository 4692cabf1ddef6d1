//! The engine as a worker of the job service: inputs fetched, progress and metrics reported, outputs handed over.
use std::path::Path;

use quintet_proto::v1::{Directive as Asked, Progress, TrainSpec, job_spec::Kind};
use runtime_core::{
    status::ErrorReason,
    worker::{Context, Done, Failure, WorkResult},
};

use serde_json::json;
use train_svc::request::LAST_GOOD;

use crate::{Directive, Error, Observer, Outcome, TrainRequest, predict_job, train};

/// Runs one attempt of a `train` or `predict` job.
pub fn run(context: &Context) -> WorkResult {
    if let Some(Kind::Predict(spec)) = context.spec().kind {
        return predict_job::run(context, spec);
    }
    let Some(Kind::Train(spec)) = context.spec().kind else {
        return Err(Failure::user(ErrorReason::InvalidField, "spec: expected a `train` or `predict` job"));
    };
    let spec = fetch_inputs(context, spec)?;
    let resume = Some(context.resume_dir()?);
    let mut request = TrainRequest::from_spec(&spec, Path::new(""), resume, context.cpus()).map_err(Error::from)?;
    request.checkpoint_out = context.output_dir("checkpoint")?;
    request.evaluation_out = context.output_dir("evaluation")?;
    request.last_good_out = context.output_dir(LAST_GOOD)?;
    request.work_dir = Some(context.work_dir().to_owned());
    let report = train(&request, &mut Reporter { context, best: None })?;
    let metrics = report.metrics.clone();
    let stopped = report.outcome != Outcome::Completed;
    let report = serde_json::to_value(report)
        .map_err(|error| Failure::infrastructure(ErrorReason::Internal, format!("the report: {error}")))?;
    Ok(Done { metrics, report, stopped })
}

/// Replaces the addresses of inputs by local paths.
fn fetch_inputs(context: &Context, mut spec: TrainSpec) -> Result<TrainSpec, Failure> {
    let fetch = |field: &str, uri: &mut String| -> Result<(), Failure> {
        if !uri.is_empty() {
            *uri = context.fetch(field, uri)?.display().to_string();
        }
        Ok(())
    };
    fetch("checkpoint", &mut spec.checkpoint)?;
    if let Some(data) = &mut spec.data {
        fetch("data.train", &mut data.train)?;
        fetch("data.validation", &mut data.validation)?;
        fetch("data.test", &mut data.test)?;
    }
    if let Some(data) = &mut spec.text_classification {
        fetch("text_classification.train", &mut data.train)?;
        fetch("text_classification.validation", &mut data.validation)?;
        fetch("text_classification.test", &mut data.test)?;
        fetch("text_classification.labels", &mut data.labels)?;
    }
    Ok(spec)
}

struct Reporter<'a> {
    context: &'a Context,
    /// Best validation F1 so far.
    best: Option<f64>,
}

impl Observer for Reporter<'_> {
    fn progress(&mut self, done: u64, total: u64, unit: &str, message: &str) {
        self.context.progress(Progress {
            done: done as f64,
            total: total as f64,
            unit: unit.to_owned(),
            message: message.to_owned(),
            best: self.best,
            phase: "train".to_owned(),
        });
    }

    fn metric(&mut self, key: &str, value: f64, step: i64) {
        if key == "f1" {
            self.best = Some(self.best.map_or(value, |best| best.max(value)));
        }
        self.context.metric(key, value, step);
    }

    fn directive(&mut self) -> Directive {
        match self.context.directive() {
            Asked::Continue => Directive::Continue,
            Asked::Prune => Directive::Prune,
            Asked::Cancel | Asked::Abandon => Directive::Cancel,
        }
    }

    fn log(&mut self, line: &str) {
        self.context.log(line);
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::Fields(_) => Self::user(ErrorReason::InvalidField, error),
            Error::Diverged { kept: Some(epoch), .. } => {
                let metrics = epoch.metrics().collect();
                let report = json!({"kept_epoch": epoch.epoch});
                Self::user(ErrorReason::NotFinite, &error).leaving(Done { metrics, report, stopped: false })
            }
            Error::Diverged { .. } => Self::user(ErrorReason::NotFinite, error),
            Error::OutOfMemory { .. } => Self::user(ErrorReason::OutOfMemory, error),
            Error::Input(_) if error.is_input_fault() => Self::user(ErrorReason::BadInput, error),
            Error::Input(quintet_nlp::Error::Io { source, .. }) => {
                Self::infrastructure(ErrorReason::of_io(source), error)
            }
            Error::Input(_) => Self::infrastructure(ErrorReason::Unavailable, error),
            Error::Engine(_) | Error::Internal(_) => Self::infrastructure(ErrorReason::Internal, error),
        }
    }
}
