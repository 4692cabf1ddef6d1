//! The conversion as a job: inputs fetched, progress and outcome told, the model published.

use std::collections::BTreeMap;

use quintet_proto::v1::{Directive, ErrorClass, Progress, job_spec::Kind};
use runtime_core::{
    status::ErrorReason,
    worker::{Context, Done, Failure, WorkResult},
};

use crate::{Error, Observer, Request, convert, report::Report};

/// Name of the output.
pub const OUTPUT: &str = "model";

/// Runs one attempt of a `convert` job.
///
/// # Errors
/// What the job ends with.
pub fn run(context: &Context) -> WorkResult {
    let Some(Kind::Convert(spec)) = context.spec().kind else {
        return Err(Failure::user(ErrorReason::InvalidField, "spec: is no conversion"));
    };
    let checkpoint = context.fetch("checkpoint", &spec.checkpoint)?;
    let evaluation = context.fetch("evaluation", &spec.evaluation)?;
    let mut request = Request::from_spec(&spec, checkpoint, evaluation, context.output_dir(OUTPUT)?)?;
    request.threads = context.cpus();
    let job = context.job();
    request.provenance = [("job", &job.name), ("run_id", &job.uid), ("source", &spec.checkpoint)]
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .to_vec();
    match convert(&request, &mut Told(context)) {
        Ok(report) => {
            let metrics = metrics(&report);
            let report =
                serde_json::to_value(report).map_err(|error| Failure::infrastructure(ErrorReason::Internal, error))?;
            Ok(Done { metrics, report, stopped: false })
        }
        Err(Error::Cancelled) => Ok(Done { stopped: true, ..Done::default() }),
        Err(error) => Err(error.into()),
    }
}

fn metrics(report: &Report) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    metrics.extend(report.evaluation.trainer_f1.map(|f1| ("trainer_f1".to_owned(), f1)));
    for model in &report.models {
        let values = [
            ("f1", model.f1),
            ("r2", model.r2),
            ("tag_agreement", model.tag_agreement),
            ("label_agreement", model.label_agreement),
            ("max_abs_logit_difference", Some(model.max_abs_logit_difference)),
            ("size_bytes", Some(model.size_bytes as f64)),
        ];
        for (name, value) in values {
            metrics.extend(value.map(|value| (format!("{}_{name}", model.precision), value)));
        }
    }
    metrics
}

struct Told<'a>(&'a Context);

impl Observer for Told<'_> {
    fn progress(&mut self, phase: &str, done: u64, total: u64) {
        self.0.progress(Progress {
            done: done as f64,
            total: total as f64,
            unit: "rows".to_owned(),
            message: phase.to_owned(),
            phase: phase.to_owned(),
            ..Progress::default()
        });
    }

    fn log(&mut self, line: &str) {
        self.0.log(line);
    }

    fn stop_requested(&mut self) -> bool {
        self.0.directive() != Directive::Continue
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let reason = match &error {
            Error::Argument { .. } => ErrorReason::InvalidField,
            Error::Files(files) if files.is_input_fault() => ErrorReason::BadInput,
            Error::Files(quintet_nlp::Error::Io { source, .. }) => ErrorReason::of_io(source),
            Error::Files(_) => ErrorReason::Unavailable,
            Error::Unsupported { .. } | Error::Evaluation(_) => ErrorReason::BadInput,
            Error::NotFinite { .. } => ErrorReason::NotFinite,
            Error::TooLarge { .. } => ErrorReason::TooLarge,
            Error::Runtime(
                quintet_onnx::Error::LibraryMissing { .. } | quintet_onnx::Error::LibraryUnusable { .. },
            ) => ErrorReason::EngineMissing,
            Error::Runtime(_) => ErrorReason::Internal,
            Error::Verification { .. } => ErrorReason::ParityFailed,
            Error::Cancelled => ErrorReason::Cancelled,
        };
        let class = if error.is_input_fault() { ErrorClass::User } else { ErrorClass::Infrastructure };
        Self::new(class, reason, error)
    }
}
