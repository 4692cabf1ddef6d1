//! The benchmark as a job: models fetched, progress and outcome told, the report published.

use std::{collections::BTreeMap, env};

use quintet_proto::v1::{Directive, ErrorClass, Progress, job_spec::Kind};
use runtime_core::{
    status::ErrorReason,
    worker::{Context, Done, Failure, WorkResult},
};

use crate::{Error, Observer, Request, Settings, Source, benchmark, report::Report};

/// Name of the output.
pub const OUTPUT: &str = "report";
/// The command of this program that measures a model; see [`crate::measure`].
pub const MEASURE: &str = "measure";

/// Runs one attempt of a `benchmark` job. The measuring processes are this program, started with [`MEASURE`].
///
/// # Errors
/// What the job ends with.
pub fn run(context: &Context) -> WorkResult {
    let Some(Kind::Benchmark(spec)) = context.spec().kind else {
        return Err(Failure::user(ErrorReason::InvalidField, "spec: is no benchmark"));
    };
    let settings = Settings::from_spec(&spec)?;
    let mut models = Vec::new();
    for (index, given) in spec.models.iter().enumerate() {
        let path = context.fetch(&format!("models[{index}]"), given)?;
        models.push(Source { path, given: given.clone() });
    }
    let program = env::current_exe().map_err(Error::io("finding this program"))?;
    let output = context.output_dir(OUTPUT)?;
    let request = Request { models, settings, output, program, program_arguments: vec![MEASURE.into()] };
    match benchmark(&request, &mut Told(context)) {
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

/// Figures of each row by `model/b{batch}/s{sequence}/`.
fn metrics(report: &Report) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    for row in &report.rows {
        let place = format!("{}/b{}/s{}", row.model, row.batch, row.sequence);
        for (name, value) in [
            ("p50_ms", row.latency_ms.p50),
            ("p95_ms", row.latency_ms.p95),
            ("p99_ms", row.latency_ms.p99),
            ("throughput", row.throughput),
        ] {
            metrics.insert(format!("{place}/{name}"), value);
        }
    }
    metrics
}

struct Told<'a>(&'a Context);

impl Observer for Told<'_> {
    fn progress(&mut self, done: u64, total: u64, message: &str) {
        self.0.progress(Progress {
            done: done as f64,
            total: total as f64,
            unit: "rounds".to_owned(),
            message: message.to_owned(),
            phase: "measure".to_owned(),
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
            Error::Model { .. } => ErrorReason::BadInput,
            Error::Runtime(_) => ErrorReason::EngineMissing,
            Error::Process { .. } => ErrorReason::WorkerCrashed,
            Error::Io { source, .. } | Error::Output(quintet_nlp::Error::Io { source, .. }) => {
                ErrorReason::of_io(source)
            }
            Error::Output(_) => ErrorReason::Unavailable,
            Error::Cancelled => ErrorReason::Cancelled,
        };
        let class = if error.is_input_fault() { ErrorClass::User } else { ErrorClass::Infrastructure };
        Self::new(class, reason, error)
    }
}
