//! A training that diverges leaves what it had, and another one goes on from there.
use std::{fs, time::Duration};

use quintet_nlp::testing::TinyCheckpoint;
use quintet_proto::v1::{
    CreateJobRequest, Hyperparameters, Job, JobSpec, JobState, TokenClassificationData, TrainSpec, job_spec::Kind,
};
use runtime_core::client::{JobClient, connect};

use crate::support::serve;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diverged_training_leaves_its_best_checkpoint_to_go_on_from() {
    let files = tempfile::tempdir().unwrap();
    TinyCheckpoint::default().write(&files.path().join("base")).unwrap();
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let row = |n: usize| format!("we O\nlike O\n{} B-loc\n\n", ["oslo", "rome", "lima"][n % 3]);
    fs::write(path("train.conll"), (0..60).map(row).collect::<String>()).unwrap();
    let spec = |checkpoint: &str, hyperparameters: Hyperparameters| TrainSpec {
        checkpoint: checkpoint.to_owned(),
        data: Some(TokenClassificationData { train: path("train.conll"), ..Default::default() }),
        hyperparameters: Some(Hyperparameters { batch_size: Some(8), max_length: Some(16), ..hyperparameters }),
        ..TrainSpec::default()
    };
    let request = |id: &str, spec| {
        let job = Job { spec: Some(JobSpec { kind: Some(Kind::Train(spec)) }), ..Job::default() };
        CreateJobRequest { job: Some(job), request_id: id.to_owned(), ..Default::default() }
    };

    let data = tempfile::tempdir().unwrap();
    let server = serve(data.path()).await;
    let jobs = JobClient::new(connect(&server.url(), None).unwrap(), Duration::from_secs(20));
    // Boxed: the future is large.
    let run = |id: &str, spec| Box::pin(jobs.submit_and_wait(request(id, spec), |_| {}));

    let wild = Hyperparameters {
        learning_rate: Some(1.0),
        weight_decay: Some(7.0),
        lr_scheduler_type: Some("constant".into()),
        ..Default::default()
    };
    let failed = run("wild", spec(&path("base"), wild)).await.unwrap();
    let error = failed.error.clone().unwrap();
    assert_eq!((failed.state(), error.reason.as_str()), (JobState::Failed, "NOT_FINITE"), "{error:?}");
    assert!(error.message.contains("`last_good_checkpoint`"), "{error:?}");
    let left = failed.outputs.unwrap();
    assert_eq!(left.artifacts.keys().collect::<Vec<_>>(), ["last_good_checkpoint"]);
    assert!(left.metrics.contains_key("f1") && left.metrics.contains_key("train_loss"), "{:?}", left.metrics);

    let tame = Hyperparameters { learning_rate: Some(1e-6), epochs: Some(1), ..Default::default() };
    let next = spec(&format!("{}/outputs/last_good_checkpoint", failed.name), tame.clone());
    let done = run("tame", next).await.unwrap();
    assert_eq!(done.state(), JobState::Succeeded, "{:?}", done.error);
    // What it did not leave is no input.
    let missing = spec(&format!("{}/outputs/checkpoint", failed.name), tame);
    let refused = Box::pin(jobs.create(request("missing", missing))).await.unwrap_err();
    assert!(refused.message().contains("FAILED, not SUCCEEDED"), "{refused}");
    server.shutdown().await.unwrap();
}
