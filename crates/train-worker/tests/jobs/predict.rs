//! A prediction as a job: a server with the service, the worker program that it launches, and the output it publishes.
use std::{fs, path::Path, time::Duration};

use quintet_nlp::testing::TinyCheckpoint;
use quintet_proto::v1::{CreateJobRequest, ErrorClass, Job, JobSpec, JobState, PredictSpec, job_spec::Kind};
use runtime_core::client::{JobClient, connect};

use crate::support::serve;

fn request(number: u8, spec: PredictSpec) -> CreateJobRequest {
    let job = Job { spec: Some(JobSpec { kind: Some(Kind::Predict(spec)) }), ..Job::default() };
    let request_id = format!("6a1b2f0e-7b1f-4f8c-9b7e-3f2f7a0c1d{number:02x}");
    CreateJobRequest { job: Some(job), request_id, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prediction_job_publishes_its_rows_or_says_why_not() {
    let files = tempfile::tempdir().unwrap();
    let labels = ["O", "B-loc", "I-loc"].map(str::to_owned).to_vec();
    TinyCheckpoint { labels, deviation: 0.5, ..TinyCheckpoint::default() }.write(&files.path().join("model")).unwrap();
    fs::write(files.path().join("texts.csv"), "id,text\na,we like paris\nb,\"in\noslo\"\n").unwrap();
    fs::write(files.path().join("broken.jsonl"), "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n").unwrap();
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let spec = PredictSpec { checkpoint: path("model"), input: path("texts.csv"), ..Default::default() };

    let data = tempfile::tempdir().unwrap();
    let server = serve(data.path()).await;
    let jobs = JobClient::new(connect(&server.url(), None).unwrap(), Duration::from_secs(20));
    // Boxed: the future is large.
    let run = |request| Box::pin(jobs.submit_and_wait(request, |_| {}));

    let done = run(request(1, spec.clone())).await.unwrap();
    assert_eq!(done.state(), JobState::Succeeded, "{:?}", done.error);
    let outputs = done.outputs.unwrap();
    assert_eq!((outputs.artifacts["predictions"].file_count, outputs.metrics["texts"]), (1, 2.0));
    let rows = fs::read_to_string(published(data.path())).unwrap();
    let rows: Vec<serde_json::Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let brief: Vec<_> = rows.iter().map(|row| (row["id"].as_str().unwrap(), row["line"].as_u64().unwrap())).collect();
    assert_eq!(brief, [("a", 2), ("b", 3)]);
    assert!(rows.iter().all(|row| row["entities"].is_array()));

    // What is wrong with the specification is told before there is a job, what is wrong with the input by the job.
    let wrong = PredictSpec { aggregation_strategy: "mean".into(), ..spec.clone() };
    let status = Box::pin(jobs.create(request(2, wrong))).await.unwrap_err();
    assert!(status.message().contains("job.spec.predict.aggregation_strategy: found `mean`"), "{status}");
    let failed = run(request(3, PredictSpec { input: path("broken.jsonl"), ..spec })).await.unwrap();
    let error = failed.error.clone().unwrap();
    assert_eq!((failed.state(), error.class(), failed.attempt), (JobState::Failed, ErrorClass::User, 1), "{error:?}");
    assert!(error.message.contains("broken.jsonl`:2: neither `text` nor `tokens`: found txt"), "{error:?}");
    server.shutdown().await.unwrap();
}

/// The one file of results in a store.
fn published(folder: &Path) -> std::path::PathBuf {
    let mut folders = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("predictions.jsonl")
                && path.components().any(|part| part.as_os_str() == "artifacts")
            {
                found.push(path);
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}
