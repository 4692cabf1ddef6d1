//! Optuna's storage proxy: unmodified clients, Optuna's own tests of a storage, and many processes on one study.
//!
//! `QUINTET_TEST_ROUNDS=3` repeats Optuna's tests; `QUINTET_TEST_TRIALS=2000 QUINTET_TEST_WORKERS=8` enlarges the last test.
#![allow(clippy::unwrap_used)] // Helpers of tests panic like the tests themselves.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use quintet_proto::{
    optuna::{
        CreateNewStudyRequest, CreateNewTrialRequest, DeleteStudyRequest, GetStudyIdFromNameRequest, GetTrialsRequest,
        Trial, TrialState, storage_service_client::StorageServiceClient,
    },
    v1::{CreateJobRequest, Job, JobSpec, JobState, SweepSpec, job_spec::Kind},
};
use quintet_tests::sandbox::{Sandbox, python, root};
use runtime_core::db::testing::PostgresServer;
use serde_json::{Value, json};

fn setting(name: &str, default: usize) -> usize {
    let text = std::env::var(format!("QUINTET_TEST_{name}"));
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("QUINTET_TEST_{name}: {text:?}")))
}

fn address(sandbox: &Sandbox) -> String {
    sandbox.url().trim_start_matches("http://").to_owned()
}

fn peer(arguments: &[&str]) -> Command {
    let mut command = Command::new(python().unwrap());
    command.args(arguments).current_dir(root()).env("PYTHONWARNINGS", "ignore");
    command
}

fn backup_of(sandbox: &Sandbox) -> PathBuf {
    sandbox.folder().join("backup")
}

/// A server of studies, on SQLite or on a database of its own of a PostgreSQL server.
fn server(postgres: Option<&PostgresServer>) -> Sandbox {
    let mut sandbox = Sandbox::new().unwrap().args(["--services", "hpo", "--set", "lease.trial=1s"]);
    let backup = format!("backup.location=file://{}", backup_of(&sandbox).display());
    sandbox = sandbox.args(["--set", "backup.enabled=true", "--set", &backup]);
    if let Some(postgres) = postgres {
        sandbox = sandbox.env("QUINTET_DATABASE__URL", postgres.database().unwrap());
    }
    sandbox.start().unwrap();
    sandbox
}

/// Runs a file of tests against the server, and gives what pytest says. `long_names`: its database takes them.
fn pytest(sandbox: &Sandbox, file: &str, long_names: bool) -> String {
    let mut command = peer(&["-m", "pytest", "-q", "-p", "no:cacheprovider", file]);
    command.env("QUINTET_TEST_OPTUNA", address(sandbox)).env("QUINTET_TEST_LONG_NAMES", long_names.to_string());
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    told
}

/// 59 tests of which the two that no map on a wire can pass are one skipped function.
fn optunas_own_tests_pass(sandbox: &Sandbox) {
    let told = pytest(sandbox, "tests/peers/optuna_storage.py", false);
    assert!(told.contains("57 passed, 1 skipped"), "{told}");
}

fn before_and_after_a_kill(postgres: Option<&PostgresServer>) {
    let mut sandbox = server(postgres);
    for _ in 0..setting("ROUNDS", 1) {
        optunas_own_tests_pass(&sandbox);
    }
    sandbox.kill().unwrap();
    sandbox.start().unwrap();
    optunas_own_tests_pass(&sandbox);
}

fn what_they_leave_open_holds(postgres: Option<&PostgresServer>) {
    let mut sandbox = server(postgres);
    let told = pytest(&sandbox, "tests/peers/optuna_wire.py", postgres.is_none());
    assert!(!told.contains("skipped"), "{told}");
    // The study with the last ids is gone before the server is.
    let last = newest_then_deleted(&sandbox);
    sandbox.kill().unwrap();
    sandbox.start().unwrap();
    let next = newest_then_deleted(&sandbox);
    assert!(next.0 > last.0 && next.1 > last.1, "ids are used again: {last:?}, then {next:?}");
}

/// The ids of a new study and of a trial in it, which are deleted again.
fn newest_then_deleted(sandbox: &Sandbox) -> (i64, i64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = StorageServiceClient::new(sandbox.connection().unwrap());
        let request = CreateNewStudyRequest { directions: vec![0], study_name: "newest".into() };
        let study_id = client.create_new_study(request).await.unwrap().into_inner().study_id;
        let request = CreateNewTrialRequest { study_id, template_trial: None, template_trial_is_none: true };
        let trial_id = client.create_new_trial(request).await.unwrap().into_inner().trial_id;
        client.delete_study(DeleteStudyRequest { study_id }).await.unwrap();
        (study_id, trial_id)
    })
}

#[test]
fn optunas_own_storage_tests_pass_on_sqlite() {
    before_and_after_a_kill(None);
}

#[test]
fn optunas_own_storage_tests_pass_on_postgresql() {
    before_and_after_a_kill(Some(&PostgresServer::start().unwrap()));
}

#[test]
fn what_optunas_tests_leave_open_holds_on_sqlite() {
    what_they_leave_open_holds(None);
}

#[test]
fn what_optunas_tests_leave_open_holds_on_postgresql() {
    what_they_leave_open_holds(Some(&PostgresServer::start().unwrap()));
}

/// Names, numbers and types alone: comments and names for JSON are not on the wire.
fn bare(mut file: FileDescriptorProto) -> FileDescriptorProto {
    fn bare_message(message: &mut DescriptorProto) {
        message.field.iter_mut().for_each(|field| field.json_name = None);
        message.nested_type.iter_mut().for_each(bare_message);
    }
    file.name = None;
    file.source_code_info = None;
    file.message_type.iter_mut().for_each(bare_message);
    file.message_type.sort_by(|a, b| a.name.cmp(&b.name));
    file.enum_type.sort_by(|a, b| a.name.cmp(&b.name));
    file.service.iter_mut().for_each(|service| service.method.sort_by(|a, b| a.name.cmp(&b.name)));
    file
}

#[test]
fn the_wire_is_that_of_the_installed_optuna() {
    let script =
        "from optuna.storages._grpc.auto_generated import api_pb2; print(api_pb2.DESCRIPTOR.serialized_pb.hex())";
    let output = peer(&["-c", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let bytes: Vec<u8> = text
        .trim()
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let theirs = bare(FileDescriptorProto::decode(&bytes[..]).unwrap());
    let set = FileDescriptorSet::decode(quintet_proto::FILE_DESCRIPTOR_SET).unwrap();
    let ours = bare(set.file.into_iter().find(|file| file.package() == "optuna").unwrap());
    assert_eq!(ours, theirs);
}

/// The states of a study's trials once none is RUNNING any more.
async fn settled(sandbox: &Sandbox, study: &str) -> Vec<Trial> {
    let mut client = StorageServiceClient::new(sandbox.connection().unwrap());
    let request = GetStudyIdFromNameRequest { study_name: study.into() };
    let study_id = client.get_study_id_from_name(request).await.unwrap().into_inner().study_id;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let request = GetTrialsRequest { study_id, included_trial_ids: Vec::new(), trial_id_greater_than: -1 };
        let encoded = client.get_trials(request).await.unwrap().into_inner().trials;
        let trials: Vec<Trial> = encoded.into_iter().map(|bytes| Trial::decode(bytes).unwrap()).collect();
        if trials.iter().all(|trial| trial.state() != TrialState::Running) {
            return trials;
        }
        assert!(Instant::now() < deadline, "the trial of the killed worker is still RUNNING");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_share_a_study_and_one_is_killed() {
    let mut sandbox = tokio::task::block_in_place(|| server(None));
    let (workers, trials) = (setting("WORKERS", 4), setting("TRIALS", 120));
    let output = peer(&["tests/peers/optuna_workers.py"])
        .args([
            address(&sandbox).as_str(),
            "shared",
            "--workers",
            &workers.to_string(),
            "--trials",
            &trials.to_string(),
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let statuses: Vec<i64> =
        told["statuses"].as_array().unwrap().iter().map(|status| status.as_i64().unwrap()).collect();
    assert_eq!(statuses[0], -9, "the first worker was killed");
    assert!(statuses[1..].iter().all(|status| *status == 0), "{statuses:?}");

    // No trial was given to two workers.
    let mut owners = BTreeMap::new();
    for (worker, given) in told["given"].as_array().unwrap().iter().enumerate() {
        for number in given.as_array().into_iter().flatten() {
            assert_eq!(owners.insert(number.as_i64().unwrap(), worker), None, "trial {number} was handed out twice");
        }
    }
    let all = told["trials"].as_array().unwrap();
    let numbers: Vec<i64> = all.iter().map(|trial| trial["number"].as_i64().unwrap()).collect();
    assert!(numbers.iter().copied().eq(0..all.len() as i64), "{numbers:?}");
    let ids: HashSet<i64> = all.iter().map(|trial| trial["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), all.len());
    let complete: Vec<&Value> = all.iter().filter(|trial| trial["state"] == "COMPLETE").collect();
    let failed = all.iter().filter(|trial| trial["state"] == "FAIL").count();
    assert!(
        complete.len() + failed >= trials && failed <= 1,
        "{} of {trials} complete, {failed} failed",
        complete.len()
    );
    for trial in &complete {
        let worker = trial["worker"].as_u64().unwrap() as usize;
        let owner = owners.get(&trial["number"].as_i64().unwrap()).copied();
        assert_eq!(owner.unwrap_or(0), worker, "{trial}");
        assert_eq!(trial["reports"], 1);
    }
    // The queued ones came first, each with the value that it was queued with.
    for (trial, x) in all.iter().zip(told["queued"].as_array().unwrap()) {
        assert!(
            trial["x"] == *x || (trial["x"].is_null() && trial["state"] != "COMPLETE"),
            "{trial} was queued with {x}"
        );
    }
    // The trial of the killed worker is freed, and says why it failed.
    let failed: Vec<Trial> =
        settled(&sandbox, "shared").await.into_iter().filter(|trial| trial.state() == TrialState::Fail).collect();
    let [failed] = &failed[..] else { panic!("one worker was killed: {failed:?}") };
    assert!(failed.user_attributes["quintet:error"].contains("closed its connection"), "{failed:?}");
    assert!(!failed.datetime_complete.is_empty());
    // What clients tell is backed up as the trials of sweeps are.
    let copies = backup_of(&sandbox).join("databases/hpo");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !std::fs::read_dir(&copies).is_ok_and(|mut copies| copies.next().is_some()) {
        assert!(Instant::now() < deadline, "no copy in {}", copies.display());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Nothing of what was told is lost when the server dies, too.
    let told = settled(&sandbox, "shared").await;
    tokio::task::block_in_place(|| {
        sandbox.kill().unwrap();
        sandbox.start().unwrap();
    });
    assert_eq!(settled(&sandbox, "shared").await, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_adds_trials_to_a_sweep_at_work() {
    let sandbox = tokio::task::block_in_place(|| {
        let mut sandbox = Sandbox::new().unwrap();
        sandbox.start().unwrap();
        sandbox
    });
    let spec = json!({
        "study_name": "shared",
        "search_space": [{"name": "x", "float": {"low": 0.0, "high": 1.0}}],
        "objective": {"metric": "loss", "direction": "MINIMIZE"},
        "max_trials": 9,
        "max_parallel_trials": 1,
        "seed": 4,
        "command": {
            "command": "sleep 0.4; echo '{\"loss\": ${{search_space.x}}}' > metrics.json",
            "metrics_file": "metrics.json",
        },
    });
    let spec: SweepSpec = serde_json::from_value(spec).unwrap();
    let job = Job { spec: Some(JobSpec { kind: Some(Kind::Sweep(spec)) }), ..Job::default() };
    let create = CreateJobRequest { job: Some(job), request_id: "sweep".into(), ..CreateJobRequest::default() };
    let jobs = sandbox.jobs().unwrap();
    let guest = async {
        let mut command = peer(&["tests/peers/optuna_guest.py", &address(&sandbox), "shared", "--trials", "3"]);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Vec<i64>>(&output.stdout).unwrap()
    };
    let (sweep, guests) = futures::join!(jobs.submit_and_wait(create, |_| {}), guest);
    let sweep = sweep.unwrap();
    assert_eq!(sweep.state(), JobState::Succeeded, "{:?}", sweep.error);

    let trials = settled(&sandbox, "shared").await;
    assert!(trials.iter().map(|trial| trial.number).eq(0..9), "those of the script count: {trials:#?}");
    let of_sweep = |trial: &&Trial| trial.user_attributes.contains_key("quintet:sweep");
    let theirs: Vec<i64> = trials.iter().filter(|trial| !of_sweep(trial)).map(|trial| trial.number).collect();
    assert_eq!(theirs, guests);
    assert!(trials.iter().all(|trial| trial.state() == TrialState::Complete && trial.values.len() == 1));
    let children = sandbox.children(&sweep.name).await.unwrap();
    assert_eq!(children.len(), 6, "each of the others has a job");
}
