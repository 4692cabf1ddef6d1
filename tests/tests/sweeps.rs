//! Sweeps on the real server: a Python script that logs with the unmodified mlflow client beside native trials, the study opened
//! by Optuna itself.
// Helpers of tests fail by panicking, like the tests; each test has a stack of its own for its future.
#![allow(clippy::unwrap_used, clippy::large_futures)]

use std::{collections::BTreeMap, process::Command};

use quintet_nlp::testing::TinyCheckpoint;
use quintet_proto::v1::{
    CreateJobRequest, GetStudyRequest, Job, JobSpec, JobState, ListTrialsRequest, ReadMetricsRequest,
    StreamLogsRequest, SweepSpec, Trial, TrialState, hpo_service_client::HpoServiceClient, job_spec::Kind,
    tracking_service_client::TrackingServiceClient,
};
use quintet_tests::{
    history::History,
    sandbox::{Sandbox, program, python, root},
};
use serde_json::{Value, json};

async fn sweep(sandbox: &Sandbox, spec: Value) -> Job {
    let spec: SweepSpec = serde_json::from_value(spec).unwrap();
    let request_id = spec.study_name.clone();
    let job = Job { spec: Some(JobSpec { kind: Some(Kind::Sweep(spec)) }), ..Job::default() };
    let request = CreateJobRequest { job: Some(job), request_id, ..CreateJobRequest::default() };
    sandbox.jobs().unwrap().submit_and_wait(request, |_| {}).await.unwrap()
}

fn python_sweep(sandbox: &Sandbox) -> Value {
    let finished = sandbox.folder().join("finished");
    std::fs::create_dir(&finished).unwrap();
    let script = root().join("tests/peers/trial_mlflow.py");
    let python = python().unwrap();
    json!({
        "study_name": "python",
        "search_space": [{"name": "x", "float": {"low": 0.0, "high": 1.0}}],
        "objective": {"metric": "loss", "direction": "MINIMIZE"},
        "sampler": {"random": {}},
        "pruner": {"median": {"n_startup_trials": 2}},
        "max_trials": 9,
        "max_parallel_trials": 2,
        "max_failed_trials": 9,
        "seed": 5,
        "command": {
            "command": format!("{} ${{{{inputs.code}}}} --x ${{{{search_space.x}}}} --finished {}",
                python.display(), finished.display()),
            "inputs": {"code": {"uri": script.display().to_string()}},
        },
    })
}

fn native_sweep(sandbox: &Sandbox) -> Value {
    let words = ["anna", "lives", "in", "oslo", "rome"].map(str::to_owned).to_vec();
    let base = sandbox.folder().join("base");
    TinyCheckpoint { words, ..TinyCheckpoint::default() }.write(&base).unwrap();
    let rows = |count: usize| "anna B-per\nlives O\nin O\noslo B-loc\n\nin O\nrome B-loc\n\n".repeat(count);
    let train = sandbox.file("train.conll", &rows(12)).unwrap();
    let validation = sandbox.file("dev.conll", &rows(4)).unwrap();
    json!({
        "study_name": "native",
        "search_space": [{"name": "learning_rate", "float": {"low": 1e-3, "high": 1e-2, "log": true}}],
        "objective": {"metric": "f1", "direction": "MAXIMIZE"},
        "max_trials": 2,
        "seed": 1,
        "train": {
            "checkpoint": base.display().to_string(),
            "data": {"train": train.display().to_string(), "validation": validation.display().to_string()},
            "hyperparameters": {"epochs": 2, "batch_size": 8, "max_length": 16},
            "metrics_only": true,
        },
    })
}

async fn trials(sandbox: &Sandbox, study: &str) -> (Vec<Trial>, String, Option<Trial>) {
    let mut client = HpoServiceClient::new(sandbox.connection().unwrap());
    let parent = format!("studies/{study}");
    let study = client.get_study(GetStudyRequest { name: parent.clone() }).await.unwrap().into_inner();
    let request = ListTrialsRequest { parent, page_size: 1000, ..ListTrialsRequest::default() };
    let trials = client.list_trials(request).await.unwrap().into_inner().trials;
    (trials, study.storage, study.best)
}

fn x_of(trial: &Trial) -> f64 {
    let parameters = serde_json::to_value(trial.parameters.as_ref().unwrap()).unwrap();
    parameters["x"].as_f64().unwrap()
}

/// Points of the metric in the tracking run of a job.
async fn points(sandbox: &Sandbox, job: &Job) -> usize {
    let mut client = TrackingServiceClient::new(sandbox.connection().unwrap());
    let request = ReadMetricsRequest { run_id: job.uid.clone(), key: "loss".into(), after: 0 };
    client.read_metrics(request).await.unwrap().into_inner().metrics.len()
}

async fn log_of(sandbox: &Sandbox, job: &Job) -> String {
    let request = StreamLogsRequest { name: job.name.clone(), ..StreamLogsRequest::default() };
    let mut stream = sandbox.jobs().unwrap().logs(request).await.unwrap();
    let mut text = Vec::new();
    while let Some(chunk) = stream.message().await.unwrap() {
        text.extend(chunk.data);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_trainer_is_swept_beside_native_trials_and_optuna_opens_the_study() {
    let mut sandbox = Sandbox::new().unwrap();
    sandbox.start().unwrap();
    let native = async {
        if let Err(missing) = program("train-worker") {
            eprintln!("no native trials beside: {missing}");
            return None;
        }
        Some(sweep(&sandbox, native_sweep(&sandbox)).await)
    };
    let (python, native) = futures::join!(sweep(&sandbox, python_sweep(&sandbox)), native);
    assert_eq!(python.state(), JobState::Succeeded, "{:?}", python.error);

    let (trials, storage, best) = trials(&sandbox, "python").await;
    assert_eq!(trials.len(), 9);
    let jobs: BTreeMap<String, Job> =
        sandbox.children(&python.name).await.unwrap().into_iter().map(|job| (job.name.clone(), job)).collect();
    assert_eq!(jobs.len(), 9);
    let mut by_state = BTreeMap::<&str, usize>::new();
    for trial in &trials {
        let (x, job) = (x_of(trial), &jobs[&trial.job]);
        let log = log_of(&sandbox, job).await;
        assert!(log.contains(&format!("training with x = {x}")), "{log}");
        match trial.state() {
            TrialState::TrialFail => {
                assert!(x > 0.85, "{trial:?}");
                let error = job.error.as_ref().unwrap();
                assert!(error.log_tail.contains(&format!("ValueError: no convergence at x = {x}")), "{error:?}");
                assert!(trial.error.contains("no convergence"), "{}", trial.error);
            }
            TrialState::TrialComplete => {
                assert!(x <= 0.85);
                assert_eq!(trial.intermediate_values.len(), 5);
                assert!((trial.value.unwrap() - (x - 0.3).powi(2) - 0.02).abs() < 1e-12, "{trial:?}");
                assert_eq!(points(&sandbox, job).await, 5, "each point is kept once");
            }
            TrialState::TrialPruned => {
                assert!((0.0..=0.85).contains(&x));
                assert_eq!(job.state(), JobState::Cancelled);
                assert_eq!(job.error.as_ref().unwrap().reason, "PRUNED");
                assert!(!log.contains("nobody stopped"), "{log}");
            }
            other => panic!("trial {} is {}", trial.number, other.as_str_name()),
        }
        *by_state.entry(trial.state().as_str_name()).or_default() += 1;
    }
    let expected = ["TRIAL_COMPLETE", "TRIAL_FAIL", "TRIAL_PRUNED"];
    assert!(by_state.keys().copied().eq(expected), "the seed has to bring each kind of end: {by_state:?}");
    // A median pruner never prunes the best of all.
    let alive = trials.iter().filter(|trial| x_of(trial) <= 0.85);
    let nearest = alive.min_by(|a, b| (x_of(a) - 0.3).abs().total_cmp(&(x_of(b) - 0.3).abs())).unwrap();
    assert_eq!(best.unwrap().number, nearest.number);

    if let Some(native) = native {
        assert_eq!(native.state(), JobState::Succeeded, "{:?}", native.error);
        assert!(native.outputs.unwrap().metrics["f1"] >= 0.0);
    }
    opened_by_optuna(&storage, &trials, nearest.number);
    let history = History::check(&sandbox.database("jobs")).await.unwrap();
    history.all_ended().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn folds_train_on_parts_of_the_data_and_the_refit_leaves_a_checkpoint() {
    if let Err(missing) = program("train-worker") {
        eprintln!("skipped: {missing}");
        return;
    }
    let mut sandbox = Sandbox::new().unwrap();
    sandbox.start().unwrap();
    let mut spec = native_sweep(&sandbox);
    spec["study_name"] = json!("folds");
    spec["train"]["data"].as_object_mut().unwrap().remove("validation");
    spec["train"]["hyperparameters"]["epochs"] = json!(1);
    spec["k_fold"] = json!({"n_splits": 3, "seed": "7"});
    spec["refit"] = json!(true);
    let job = sweep(&sandbox, spec).await;
    assert_eq!(job.state(), JobState::Succeeded, "{:?}", job.error);
    let report = serde_json::to_value(job.outputs.clone().unwrap().report.unwrap()).unwrap();
    let children = sandbox.children(&job.name).await.unwrap();
    assert_eq!(children.len(), 2 * 3 + 1, "two trials of three folds, and the refit");
    // 24 rows, of which each fold validates on eight.
    for trial in report["trials"].as_array().unwrap() {
        for (index, fold) in trial["folds"].as_array().unwrap().iter().enumerate() {
            let child = children.iter().find(|child| child.name == fold["job"].as_str().unwrap()).unwrap();
            let trained = serde_json::to_value(child.outputs.clone().unwrap().report.unwrap()).unwrap();
            let rows = |split: &str| trained["splits"][split]["rows"].as_f64();
            assert_eq!((rows("train"), rows("validation")), (Some(16.0), Some(8.0)), "fold {index}: {trained}");
        }
    }
    assert!(report["refit"]["outputs"]["checkpoint"].is_string(), "{report}");
}

/// Optuna's own client reads what the service says.
fn opened_by_optuna(storage: &str, trials: &[Trial], best: i32) {
    let script = root().join("tests/peers/optuna_study.py");
    let output = Command::new(python().unwrap()).arg(script).args([storage, "python"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let study: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&study["direction"], study["best"].as_i64()), (&"MINIMIZE".into(), Some(best.into())));
    let read = study["trials"].as_array().unwrap();
    assert_eq!(read.len(), trials.len());
    for (ours, theirs) in trials.iter().zip(read) {
        let state = ours.state().as_str_name().trim_start_matches("TRIAL_").to_owned();
        assert_eq!((theirs["number"].as_i64(), &theirs["state"]), (Some(ours.number.into()), &state.into()));
        assert_eq!(theirs["params"]["x"].as_f64(), Some(x_of(ours)));
        assert_eq!(theirs["values"][0].as_f64(), ours.value);
        let steps = theirs["intermediate_values"].as_object().unwrap();
        let steps: BTreeMap<i64, f64> =
            steps.iter().map(|(step, value)| (step.parse().unwrap(), value.as_f64().unwrap())).collect();
        assert_eq!(steps.into_iter().collect::<Vec<_>>(), sorted(ours));
    }
}

fn sorted(trial: &Trial) -> Vec<(i64, f64)> {
    let mut values: Vec<(i64, f64)> = trial.intermediate_values.iter().map(|(step, value)| (*step, *value)).collect();
    values.sort_by_key(|(step, _)| *step);
    values
}
