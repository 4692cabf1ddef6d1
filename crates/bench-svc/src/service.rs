//! `BenchmarkService`: the report of a benchmark, and the check of benchmarks before they become jobs.

use std::sync::Arc;

use quintet_proto::{
    types::{Struct, Value, value::Kind as ValueKind},
    v1::{
        GetBenchmarkReportRequest, GetBenchmarkReportResponse, Job, JobState,
        benchmark_service_server::{BenchmarkService, BenchmarkServiceServer},
        job_spec::Kind,
    },
};
use runtime_core::{
    client::JobClient,
    config::Service,
    host::{Error as HostError, Host, PATIENCE},
    jobs::{
        Validator,
        model::{is_terminal, job_kind, uid_of},
    },
    limited,
    status::{self, ErrorReason, violation},
};
use tonic::{Request, Response, Status};

use crate::{Error, Settings, markdown, report::Report};

/// `BenchmarkService` over the jobs of a server.
#[derive(Clone)]
pub struct BenchmarkApi {
    jobs: JobClient,
}

impl BenchmarkApi {
    /// A service that reads jobs through a client.
    pub fn new(jobs: JobClient) -> Self {
        Self { jobs }
    }
}

#[tonic::async_trait]
impl BenchmarkService for BenchmarkApi {
    async fn get_benchmark_report(
        &self,
        request: Request<GetBenchmarkReportRequest>,
    ) -> Result<Response<GetBenchmarkReportResponse>, Status> {
        let name = request.into_inner().job;
        if uid_of(&name).is_none() {
            return Err(status::invalid_field("job", format!("{name:?} is not of the form jobs/{{uid}}")));
        }
        report_of(self.jobs.get(&name).await?).map(Response::new)
    }
}

/// The report that a job left; an error when it has none.
fn report_of(job: Job) -> Result<GetBenchmarkReportResponse, Status> {
    let name = job.name.clone();
    let state = job.state();
    let refuse = |reason, message: String| {
        let metadata = [("job", name.as_str()), ("state", state.as_str_name())];
        Err(status::failed_precondition(reason, &name, message, metadata))
    };
    let kind = job_kind(&job);
    if kind != "benchmark" {
        return refuse(ErrorReason::IllegalState, format!("{name} is a {kind} job, not a benchmark"));
    }
    match state {
        JobState::Succeeded => {}
        state if is_terminal(state) => {
            let why = job.error.as_ref().map(|error| format!(": {}", error.message)).unwrap_or_default();
            return refuse(ErrorReason::JobFailed, format!("{name} is {}{why}", state.as_str_name()));
        }
        state => return refuse(ErrorReason::JobNotTerminal, format!("{name} is {}", state.as_str_name())),
    }
    let Some(document) = job.outputs.and_then(|outputs| outputs.report) else {
        return refuse(ErrorReason::OutputMissing, format!("{name} has no report"));
    };
    let report: Report = serde_json::from_value(json_of_struct(&document)).map_err(|error| {
        let text = format!("the report of {name} is not a benchmark's: {error}");
        status::Error::new(ErrorReason::DataCorrupt, text).with("job", &name).into_status()
    })?;
    Ok(GetBenchmarkReportResponse { markdown: markdown::render(&report), report: Some(document) })
}

/// Numbers of a `Struct` are floats; whole ones become integers again, so that counts can be read.
fn json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match &value.kind {
        None | Some(ValueKind::NullValue(_)) => Json::Null,
        Some(ValueKind::BoolValue(value)) => Json::Bool(*value),
        Some(ValueKind::NumberValue(value)) if value.fract() == 0.0 && (0.0..9e15).contains(value) => {
            Json::from(*value as u64)
        }
        Some(ValueKind::NumberValue(value)) => Json::from(*value),
        Some(ValueKind::StringValue(value)) => Json::String(value.clone()),
        Some(ValueKind::ListValue(list)) => Json::Array(list.values.iter().map(json).collect()),
        Some(ValueKind::StructValue(value)) => json_of_struct(value),
    }
}

fn json_of_struct(value: &Struct) -> serde_json::Value {
    serde_json::Value::Object(value.fields.iter().map(|(key, value)| (key.clone(), json(value))).collect())
}

/// The check of `benchmark` jobs before they are created; fields are told as `spec.benchmark.FIELD`.
pub fn validator() -> Validator {
    Arc::new(|spec, _| {
        let Some(Kind::Benchmark(benchmark)) = &spec.kind else { return vec![violation("spec", "is no benchmark")] };
        let mut wrong = Vec::new();
        if benchmark.models.is_empty() {
            wrong.push(violation("spec.benchmark.models", "is empty; at least one ONNX file or folder"));
        }
        for (index, model) in benchmark.models.iter().enumerate().filter(|(_, model)| model.is_empty()) {
            let text = format!("{model:?}; a path, a URL or jobs/{{uid}}/outputs/{{output}}");
            wrong.push(violation(format!("spec.benchmark.models[{index}]"), text));
        }
        match Settings::from_spec(benchmark) {
            Err(Error::Argument { field, problem }) => {
                wrong.push(violation(format!("spec.benchmark.{field}"), problem));
            }
            Err(error) => wrong.push(violation("spec.benchmark", error.to_string())),
            Ok(_) => {}
        }
        wrong
    })
}

/// Mounts the service on a host.
///
/// # Errors
/// A malformed address of the benchmark service.
pub fn mount(host: Host) -> Result<Host, HostError> {
    let api = BenchmarkApi::new(JobClient::new(host.connection(Service::Bench)?, PATIENCE));
    let options = host.config().server_options()?;
    Ok(host
        .kind("benchmark", validator())
        .worker("benchmark", "bench-svc", &["worker"], "build it with `cargo build -p bench-svc`")
        .service(limited!(BenchmarkServiceServer::new(api), options)))
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::{BenchmarkSpec, JobSpec, Outputs, TrainSpec};
    use tonic::Code;

    use super::*;
    use crate::report::{Environment, Latency, Row, SCHEMA, Warmup};

    fn report() -> Report {
        Report {
            schema: SCHEMA.to_owned(),
            time: "2026-01-01T00:00:00Z".to_owned(),
            seconds: 3.0,
            settings: Settings::from_spec(&BenchmarkSpec::default()).unwrap(),
            inputs: "none".to_owned(),
            environment: Environment::default(),
            models: Vec::new(),
            rows: vec![Row {
                model: "model_int8".to_owned(),
                batch: 8,
                sequence: 32,
                runs: 700,
                seconds: 2.0,
                latency_ms: Latency { p50: 2.5, p99: 4.0, ..Latency::default() },
                throughput: 2800.0,
                cpu_ms: 2.25,
                peak_memory_bytes: Some(5_000_000_000),
                others_share: None,
                machine_others_share: Some(0.125),
                warmup: Warmup::default(),
                rounds_ratio: 1.0,
                speedup: 2.0,
                valid: true,
                problems: Vec::new(),
                notes: Vec::new(),
            }],
        }
    }

    fn job(state: JobState, report: Option<Struct>) -> Job {
        Job {
            name: "jobs/00000000000000000000000000000001".into(),
            spec: Some(JobSpec { kind: Some(Kind::Benchmark(BenchmarkSpec::default())) }),
            state: state.into(),
            outputs: Some(Outputs { report, ..Outputs::default() }),
            ..Job::default()
        }
    }

    #[test]
    fn a_report_comes_back_as_document_and_table() {
        let document: Struct = serde_json::from_value(serde_json::to_value(report()).unwrap()).unwrap();
        let back: Report = serde_json::from_value(json_of_struct(&document)).unwrap();
        assert_eq!(back, report());
        let answer = report_of(job(JobState::Succeeded, Some(document.clone()))).unwrap();
        assert_eq!(answer.report, Some(document));
        assert!(answer.markdown.contains("| model_int8 | 8 | 32 | 2.500 |"), "{}", answer.markdown);
    }

    #[test]
    fn jobs_without_a_report_are_refused_with_the_reason() {
        let mut train = job(JobState::Succeeded, None);
        train.spec = Some(JobSpec { kind: Some(Kind::Train(TrainSpec::default())) });
        for (job, reason) in [
            (job(JobState::Running, None), ErrorReason::JobNotTerminal),
            (job(JobState::Failed, None), ErrorReason::JobFailed),
            (job(JobState::Succeeded, None), ErrorReason::OutputMissing),
            (train, ErrorReason::IllegalState),
        ] {
            let status = report_of(job).unwrap_err();
            assert_eq!((status.code(), status::reason_of(&status)), (Code::FailedPrecondition, Some(reason)));
        }
        let corrupt = report_of(job(JobState::Succeeded, Some(Struct::default()))).unwrap_err();
        assert_eq!(corrupt.code(), Code::DataLoss);
    }

    #[test]
    fn violations_name_their_fields() {
        let spec = BenchmarkSpec { batch_sizes: vec![0], ..BenchmarkSpec::default() };
        let wrong = validator()(&JobSpec { kind: Some(Kind::Benchmark(spec)) }, &runtime_core::jobs::Checks::default());
        let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["spec.benchmark.models", "spec.benchmark.batch_sizes"]);
    }
}
