//! A benchmark as a job: a server with the service, the worker program that it launches, and the report it publishes.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests

use std::{path::Path, time::Duration};

use quintet_proto::{
    types,
    v1::{
        BenchmarkSpec, CreateJobRequest, ErrorClass, GetBenchmarkReportRequest, Job, JobSpec, JobState,
        benchmark_service_client::BenchmarkServiceClient, job_spec::Kind,
    },
};
use runtime_core::{
    client::{JobClient, connect},
    config::Loader,
    host::Host,
    server::ServerHandle,
};

async fn serve(data: &Path) -> ServerHandle {
    let programs = Path::new(env!("CARGO_BIN_EXE_bench-svc")).parent().unwrap();
    let config = Loader::new()
        .set("data_dir", data.to_str().unwrap())
        .set("listen", "127.0.0.1:0")
        .set("services", "bench")
        .set("worker.program_dir", programs.to_str().unwrap())
        .load()
        .unwrap();
    bench_svc::mount(Host::open(config).await.unwrap()).unwrap().start().await.unwrap()
}

fn request(id: &str, model: &Path) -> CreateJobRequest {
    let spec = BenchmarkSpec {
        models: vec![model.to_str().unwrap().to_owned()],
        batch_sizes: vec![2],
        sequence_lengths: vec![16],
        min_runs: 10,
        min_duration: Some(types::Duration { seconds: 0, nanos: 10_000_000 }),
        ..BenchmarkSpec::default()
    };
    let job = Job { spec: Some(JobSpec { kind: Some(Kind::Benchmark(spec)) }), ..Job::default() };
    CreateJobRequest { job: Some(job), request_id: id.to_owned(), ..CreateJobRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_benchmark_job_publishes_its_report_or_says_why_not() {
    if let Err(error) = quintet_onnx::locate() {
        eprintln!("SKIPPED, NOTHING WAS TESTED: {error}");
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let server = serve(data.path()).await;
    let connection = connect(&server.url(), None).unwrap();
    let jobs = JobClient::new(connection.clone(), Duration::from_secs(20));
    // Boxed: the future is large.
    let run = |request| Box::pin(jobs.submit_and_wait(request, |_| {}));

    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny.onnx");
    let first = request("6a1b2f0e-7b1f-4f8c-9b7e-3f2f7a0c1d21", &tiny);
    let done = run(first).await.unwrap();
    assert_eq!(done.state(), JobState::Succeeded, "{:?}", done.error);
    let outputs = done.outputs.unwrap();
    assert_eq!(outputs.artifacts["report"].file_count, 2);
    assert!(outputs.metrics["tiny/b2/s16/p50_ms"] > 0.0, "{:?}", outputs.metrics);

    let mut benchmarks = BenchmarkServiceClient::new(connection);
    let asked = GetBenchmarkReportRequest { job: done.name.clone() };
    let answer = benchmarks.get_benchmark_report(asked).await.unwrap().into_inner();
    assert!(answer.markdown.contains("| tiny | 2 | 16 | "), "{}", answer.markdown);
    assert!(answer.report.unwrap().fields.contains_key("environment"));

    let text = data.path().join("text.onnx");
    std::fs::write(&text, "no model").unwrap();
    let failed = run(request("6a1b2f0e-7b1f-4f8c-9b7e-3f2f7a0c1d22", &text)).await.unwrap();
    let error = failed.error.clone().unwrap();
    assert_eq!((failed.state(), error.class(), failed.attempt), (JobState::Failed, ErrorClass::User, 1), "{error:?}");
    assert!(error.message.contains("text.onnx: not a usable ONNX model") && error.reason == "BAD_INPUT", "{error:?}");
    server.shutdown().await.unwrap();
}
