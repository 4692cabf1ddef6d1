//! A conversion as a job: a server with the service, the worker program that it launches, and the outputs it publishes.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests

mod support;

use std::{path::Path, time::Duration};

use quintet_proto::v1::{
    ConvertSpec, CreateJobRequest, ErrorClass, GetCheckpointFromTrainingJobRequest, Job, JobSpec, JobState,
    conversion_service_client::ConversionServiceClient, job_spec::Kind,
};
use runtime_core::{
    client::{JobClient, connect},
    config::Loader,
    host::Host,
    server::ServerHandle,
    status::{ErrorReason, reason_of},
};
use support::{Case, has_runtime};
use tonic::Code;

async fn serve(data: &Path) -> ServerHandle {
    let programs = Path::new(env!("CARGO_BIN_EXE_convert-svc")).parent().unwrap();
    let config = Loader::new()
        .set("data_dir", data.to_str().unwrap())
        .set("listen", "127.0.0.1:0")
        .set("services", "convert")
        .set("worker.program_dir", programs.to_str().unwrap())
        .load()
        .unwrap();
    convert_svc::mount(Host::open(config).await.unwrap()).unwrap().start().await.unwrap()
}

fn request(spec: ConvertSpec) -> CreateJobRequest {
    let job = Job { spec: Some(JobSpec { kind: Some(Kind::Convert(spec)) }), ..Job::default() };
    CreateJobRequest { job: Some(job), request_id: "6a1b2f0e-7b1f-4f8c-9b7e-3f2f7a0c1d2e".into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversion_job_publishes_models_or_says_why_not() {
    if !has_runtime() {
        return;
    }
    let case = Case::new(|_, _| {});
    let data = tempfile::tempdir().unwrap();
    let server = serve(data.path()).await;
    let connection = connect(&server.url(), None).unwrap();
    let jobs = JobClient::new(connection.clone(), Duration::from_secs(20));
    // Boxed: the future is large.
    let run = |request| Box::pin(jobs.submit_and_wait(request, |_| {}));
    let text = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let spec = ConvertSpec {
        checkpoint: text(case.checkpoint()),
        evaluation: text(case.evaluation()),
        max_f1_loss: 1.0,
        ..ConvertSpec::default()
    };

    let done = run(request(spec.clone())).await.unwrap();
    assert_eq!(done.state(), JobState::Succeeded, "{:?}", done.error);
    let outputs = done.outputs.unwrap();
    assert_eq!(outputs.artifacts["model"].file_count, 5, "two models, configuration, tokenizer, report");
    assert_eq!(outputs.metrics["trainer_f1"], 1.0);
    assert!(outputs.metrics["fp32_max_abs_logit_difference"] < 1e-5, "{:?}", outputs.metrics);
    assert!(outputs.report.unwrap().fields.contains_key("models"));

    // A conversion is no training.
    let mut conversion = ConversionServiceClient::new(connection);
    let asked = GetCheckpointFromTrainingJobRequest { job: done.name.clone() };
    let status = conversion.get_checkpoint_from_training_job(asked).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::FailedPrecondition, Some(ErrorReason::IllegalState)));
    let asked = GetCheckpointFromTrainingJobRequest { job: format!("jobs/{}", "0".repeat(32)) };
    assert_eq!(conversion.get_checkpoint_from_training_job(asked).await.unwrap_err().code(), Code::NotFound);
    let asked = GetCheckpointFromTrainingJobRequest { job: "mine".into() };
    assert_eq!(conversion.get_checkpoint_from_training_job(asked).await.unwrap_err().code(), Code::InvalidArgument);

    // What is wrong with the specification is told before there is a job, what is wrong with the inputs by the job.
    let mut bad = request(ConvertSpec { opset: 5, ..spec.clone() });
    bad.request_id = "0c9b6f43-9f39-45a5-8d4e-0d3c5a0f5b11".into();
    let status = Box::pin(jobs.create(bad)).await.unwrap_err();
    assert!(status.message().contains("job.spec.convert.opset: 5; allowed is 17 to 24"), "{status}");
    case.edit_config(|config| config["model_type"] = "gpt2".into());
    let mut unsupported = request(spec);
    unsupported.request_id = "0c9b6f43-9f39-45a5-8d4e-0d3c5a0f5b12".into();
    let failed = run(unsupported).await.unwrap();
    let error = failed.error.clone().unwrap();
    assert_eq!((failed.state(), error.class(), failed.attempt), (JobState::Failed, ErrorClass::User, 1), "{error:?}");
    assert!(error.message.contains("gpt2") && error.reason == "BAD_INPUT", "{error:?}");
    server.shutdown().await.unwrap();
}
