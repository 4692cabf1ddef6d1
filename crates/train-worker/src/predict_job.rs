//! Prediction as a worker of the job service: inputs fetched, progress reported, results handed over.
use quintet_proto::v1::{Directive as Asked, PredictSpec, Progress};
use runtime_core::{
    status::ErrorReason,
    worker::{Context, Done, Failure, WorkResult},
};

use crate::{Directive, Error, Observer, PredictRequest, predict};

/// Runs one attempt of a `predict` job.
pub(crate) fn run(context: &Context, mut spec: PredictSpec) -> WorkResult {
    for (field, uri) in [("checkpoint", &mut spec.checkpoint), ("input", &mut spec.input)] {
        if !uri.is_empty() {
            *uri = context.fetch(field, uri)?.display().to_string();
        }
    }
    let (out, resume) = (context.output_dir("predictions")?, context.resume_dir()?);
    let request = PredictRequest::from_spec(&spec, &out, &resume, context.cpus()).map_err(Error::from)?;
    let summary = predict(&request, &mut Reporter(context))?;
    let report = serde_json::to_value(summary)
        .map_err(|error| Failure::infrastructure(ErrorReason::Internal, format!("the report: {error}")))?;
    let metrics = [("texts".to_owned(), summary.texts as f64)].into();
    Ok(Done { metrics, report, stopped: summary.stopped })
}

struct Reporter<'a>(&'a Context);

impl Observer for Reporter<'_> {
    fn progress(&mut self, done: u64, total: u64, unit: &str, message: &str) {
        self.0.progress(Progress {
            done: done as f64,
            total: total as f64,
            unit: unit.to_owned(),
            message: message.to_owned(),
            best: None,
            phase: "predict".to_owned(),
        });
    }

    fn metric(&mut self, key: &str, value: f64, step: i64) {
        self.0.metric(key, value, step);
    }

    fn directive(&mut self) -> Directive {
        match self.0.directive() {
            Asked::Continue => Directive::Continue,
            Asked::Prune => Directive::Prune,
            Asked::Cancel | Asked::Abandon => Directive::Cancel,
        }
    }

    fn log(&mut self, line: &str) {
        self.0.log(line);
    }
}
