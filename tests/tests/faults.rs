//! `kill -9` of workers and of the server at random moments: the same command finishes, nothing is lost, nothing is doubled.
//!
//! `QUINTET_TEST_PIPELINE=FILE QUINTET_TEST_KILLS=10 QUINTET_TEST_PAUSE=60 cargo nextest run -p quintet-tests -E 'test(same_command)'`
//! does it to another pipeline, with up to so many seconds between a start and a kill. `QUINTET_TEST_SEED` repeats a run.
// Helpers of tests fail by panicking, like the tests; each test has a stack of its own for its future.
#![allow(clippy::unwrap_used, clippy::large_futures)]

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quintet_proto::v1::{CommandSpec, CreateJobRequest, Job, JobSpec, JobState, job_spec::Kind};
use quintet_tests::{
    history::History,
    sandbox::{Sandbox, quintet, tail},
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use runtime_core::artifacts::ArtifactStore;
use serde_json::Value;

/// Trials take long enough that kills fall between them, and every job has more attempts than there are kills.
const PIPELINE: &str = r#"
name: faults
stages:
  sweep:
    retry: {max_attempts: 12}
    sweep:
      study_name: faults
      search_space: [{name: x, float: {low: 0.0, high: 1.0}}]
      objective: {metric: loss, direction: MINIMIZE}
      max_trials: 14
      max_parallel_trials: 2
      seed: 3
      command:
        command: |
          sleep 0.4
          echo "{\"loss\": ${{search_space.x}}}" > metrics.json
          seq 1 2000 > ${{outputs.model}}/weights
        outputs: [model]
        metrics_file: metrics.json
  final:
    retry: {max_attempts: 12}
    config_from: sweep
    command:
      command: sleep 0.4; seq 1 20000 > ${{outputs.model}}/weights; echo ${{search_space.x}} > ${{outputs.model}}/x
      outputs: [model]
  use:
    retry: {max_attempts: 12}
    command:
      command: test -s ${{inputs.model}}/x
      inputs: {model: {uri: "${{stages.final.outputs.model}}"}}
"#;

fn setting(name: &str) -> Option<String> {
    std::env::var(format!("QUINTET_TEST_{name}")).ok()
}

fn number(name: &str, default: u64) -> u64 {
    setting(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("QUINTET_TEST_{name}: {text:?}")))
}

/// Processes whose parent this one is.
fn children_of(parent: u32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        // The name in parentheses may hold anything; the parent is the second word after it.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        after.split_whitespace().nth(1) == Some(&parent.to_string())
    })
    .collect()
}

/// Waits until the program has a worker; false when it ended before.
fn working(run: &mut Child) -> bool {
    let start = Instant::now();
    while run.try_wait().unwrap().is_none() {
        if !children_of(run.id()).is_empty() {
            return true;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "no worker was started");
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[derive(Debug, Default)]
struct Kills {
    servers: u64,
    workers: u64,
}

/// Starts the same command until it finishes, killing it or one of its workers meanwhile.
fn run_under_kills(sandbox: &Sandbox, pipeline: &Path, random: &mut ChaCha8Rng) -> Kills {
    let wanted = number("KILLS", 6);
    let longest = Duration::from_secs_f64(setting("PAUSE").map_or(0.8, |text| text.parse().unwrap()));
    let mut kills = Kills::default();
    let output = sandbox.folder().join("run.log");
    loop {
        let log = fs::File::options().create(true).append(true).open(&output).unwrap();
        let mut run = quintet()
            .unwrap()
            .arg("run")
            .arg(pipeline)
            .arg("--data-dir")
            .arg(sandbox.data_dir())
            .args(["--json", "result.json"])
            .current_dir(sandbox.folder())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        while kills.servers + kills.workers < wanted && working(&mut run) {
            // The moment itself is what is drawn; nothing is waited for here.
            std::thread::sleep(longest.mul_f64(random.random()));
            let workers = children_of(run.id());
            // Each kind gets its share; which comes first is drawn.
            let server = match kills.servers.cmp(&kills.workers) {
                Ordering::Less => true,
                Ordering::Equal => random.random_bool(0.5),
                Ordering::Greater => false,
            };
            if server || workers.is_empty() {
                if run.try_wait().unwrap().is_none() {
                    run.kill().unwrap();
                    kills.servers += 1;
                }
                break;
            }
            let worker = workers[random.random_range(0..workers.len())];
            // It may have ended by itself in this very moment.
            if kill(Pid::from_raw(worker), Signal::SIGKILL).is_ok() {
                kills.workers += 1;
            }
        }
        let status = run.wait().unwrap();
        match status.code() {
            Some(0) => return kills,
            None => {}
            Some(code) => panic!("the command ended with {code}: {}", tail(&output)),
        }
    }
}

/// Every artifact that a job of the history names is whole.
async fn artifacts_verify(sandbox: &Sandbox, history: &History) -> usize {
    let store = ArtifactStore::open(&sandbox.data_dir().join("artifacts").display().to_string()).unwrap();
    let mut uris = BTreeSet::new();
    for job in history.jobs.values() {
        uris.extend(job.outputs.iter().flat_map(|outputs| outputs.artifacts.values()).map(|artifact| &artifact.uri));
    }
    for uri in &uris {
        store.verify(uri).await.unwrap_or_else(|error| panic!("{uri}: {error}"));
    }
    // Nothing else is there either: what was half-written when a worker died is invisible.
    for artifact in store.list("").await.unwrap() {
        store.verify(&artifact.uri).await.unwrap_or_else(|error| panic!("{}: {error}", artifact.uri));
    }
    uris.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_command_finishes_after_kills_at_random_moments() {
    let sandbox = Sandbox::new().unwrap();
    let pipeline = match setting("PIPELINE") {
        Some(path) => fs::canonicalize(path).unwrap(),
        None => sandbox.file("pipeline.yaml", PIPELINE).unwrap(),
    };
    let seed = number("SEED", 20);
    println!("QUINTET_TEST_SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let kills = tokio::task::block_in_place(|| run_under_kills(&sandbox, &pipeline, &mut random));
    println!("{kills:?}");
    assert!(kills.servers >= 1 && kills.workers >= 1, "the seed has to kill both: {kills:?}");

    let document: Value = serde_json::from_slice(&fs::read(sandbox.folder().join("result.json")).unwrap()).unwrap();
    assert_eq!(document["state"], "SUCCEEDED");
    let history = History::check(&sandbox.database("jobs")).await.unwrap();
    history.all_ended().unwrap();
    assert!(artifacts_verify(&sandbox, &history).await > 0);
    for stage in document["stages"].as_array().unwrap().iter().filter(|stage| stage["kind"] == "sweep") {
        let trials = stage["sweep"]["trials"].as_array().unwrap();
        let jobs: BTreeSet<&str> = trials.iter().filter_map(|trial| trial["job"].as_str()).collect();
        assert_eq!(jobs.len(), trials.len(), "each trial has a job of its own");
        let numbers = trials.iter().map(|trial| trial["number"].as_u64().unwrap());
        assert!(numbers.eq(0..trials.len() as u64), "{trials:#?}");
        // One sweep did the work, whatever was started in between, and no job is without its trial.
        let sweep = history.jobs.values().filter(|job| job.spec.as_ref().is_some_and(is_sweep));
        let children: BTreeSet<&str> =
            sweep.flat_map(|sweep| history.children(&sweep.name)).map(|job| job.name.as_str()).collect();
        assert_eq!(children, jobs);
        if setting("PIPELINE").is_none() {
            assert_eq!(trials.len(), 14);
            assert!(trials.iter().all(|trial| trial["state"] == "COMPLETE"), "{trials:#?}");
        }
    }
    assert!(history.jobs.values().any(|job| job.attempt > 1), "a kill has cost an attempt");
}

fn is_sweep(spec: &JobSpec) -> bool {
    matches!(spec.kind, Some(Kind::Sweep(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_had_acknowledged_is_there_and_clients_go_on_by_themselves() {
    const CLIENTS: usize = 3;
    const JOBS: usize = 6;
    let mut sandbox = Sandbox::new().unwrap();
    sandbox.start().unwrap();
    let submitting = futures::future::join_all((0..CLIENTS).map(|client| {
        let jobs = sandbox.jobs().unwrap();
        tokio::spawn(async move {
            let mut ended = Vec::new();
            for number in 0..JOBS {
                let text = format!("sleep 0.2; seq {client}{number} 3000 > ${{{{outputs.numbers}}}}/all");
                let command = CommandSpec { command: text, outputs: vec!["numbers".into()], ..CommandSpec::default() };
                let spec = Some(JobSpec { kind: Some(Kind::Command(command)) });
                let job = Job { spec, ..Job::default() };
                let request_id = format!("{client}-{number}");
                let request = CreateJobRequest { job: Some(job), request_id, ..CreateJobRequest::default() };
                ended.push(jobs.submit_and_wait(request, |_| {}).await.unwrap());
            }
            ended
        })
    }));
    let killing = async {
        let mut random = ChaCha8Rng::seed_from_u64(number("SEED", 7));
        for _ in 0..3 {
            let pause = Duration::from_millis(random.random_range(200..900));
            tokio::time::sleep(pause).await;
            tokio::task::block_in_place(|| {
                sandbox.kill().unwrap();
                sandbox.start().unwrap();
            });
        }
    };
    let (ended, ()) = futures::join!(submitting, killing);
    let ended: Vec<Job> = ended.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(ended.len(), CLIENTS * JOBS);
    assert!(ended.iter().all(|job| job.state() == JobState::Succeeded), "{ended:#?}");
    sandbox.terminate().unwrap();
    let history = History::check(&sandbox.database("jobs")).await.unwrap();
    history.all_ended().unwrap();
    assert_eq!(history.jobs.len(), CLIENTS * JOBS, "no submission was lost, none was done twice");
    for job in &ended {
        assert_eq!(history.jobs[&job.name], *job, "what was answered is what is stored");
    }
    assert_eq!(artifacts_verify(&sandbox, &history).await, CLIENTS * JOBS);
    assert!(ended.iter().any(|job| job.attempt > 1), "a kill has cost an attempt");
}
