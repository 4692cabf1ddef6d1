//! Runs that are broken off and taken up again.
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use train_worker::{Directive, Outcome, train};

use crate::support::{Bench, Recorder, nothing_written};

#[test]
fn an_interrupted_run_ends_like_an_undisturbed_one() {
    let mut bench = Bench::new();
    bench.hyper().warmup_ratio = Some(0.2);
    let mut undisturbed = bench.request("whole");
    undisturbed.resume_dir = None;
    let whole = train(&undisturbed, &mut Recorder::default()).unwrap();

    for (attempt, step) in [(1, 11), (2, 19), (3, 29)] {
        let mut recorder = Recorder { stop: Some((step, Directive::Cancel)), ..Recorder::default() };
        let report = train(&bench.request("parts"), &mut recorder).unwrap();
        assert_eq!(report.outcome, Outcome::Cancelled);
        assert_eq!(report.epochs.len(), attempt);
        assert!(nothing_written(&bench, "parts"));
    }
    let mut last = Recorder::default();
    let parts = train(&bench.request("parts"), &mut last).unwrap();
    assert!(last.log.iter().any(|line| line.contains("resuming after epoch 3")), "{:?}", last.log);
    // In the middle of the epoch, unless the last steps' state was still being written.
    assert!(last.steps.first().is_some_and(|step| (25..=30).contains(step)), "{:?}", last.steps.first());

    assert_eq!(parts.metrics, whole.metrics);
    assert_eq!(parts.evaluation, whole.evaluation);
    let weights = |out: &str| fs::read(bench.path(out).join("checkpoint/model.safetensors")).unwrap();
    assert!(weights("parts") == weights("whole"), "the weights differ");
    // Old states are gone, and another run does not take this one's.
    assert_eq!(fs::read_dir(bench.path("resume")).unwrap().count(), 1);
    bench.hyper().seed = Some(7);
    let mut other = Recorder::default();
    train(&bench.request("other"), &mut other).unwrap();
    assert!(other.log.iter().any(|line| line.contains("another run")));
    assert_eq!(other.steps.first(), Some(&1));
}

#[test]
fn a_broken_state_is_passed_over() {
    let bench = Bench::new();
    let mut recorder = Recorder { stop: Some((10, Directive::Cancel)), ..Recorder::default() };
    train(&bench.request("out"), &mut recorder).unwrap();
    let newest = fs::read_dir(bench.path("resume")).unwrap().next().unwrap().unwrap();
    let state = newest.path().join("state.safetensors");
    let bytes = fs::read(&state).unwrap();
    fs::write(&state, &bytes[..bytes.len() / 2]).unwrap();
    let mut recorder = Recorder::default();
    assert_eq!(train(&bench.request("out"), &mut recorder).unwrap().outcome, Outcome::Completed);
    assert!(recorder.log.iter().any(|line| line.contains("passed over") && line.contains("truncated")));
}

/// Runs the program until it has kept a state of at least `step` steps, and kills it then. False when it ended before.
fn killed_at(program: &mut Command, resume: &Path, step: usize) -> bool {
    let mut child = program.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let reached = || {
        let names = fs::read_dir(resume).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.to_str()?.strip_prefix("step-")?.parse::<usize>().ok()).any(|kept| kept >= step)
    };
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return false;
        }
        if reached() {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_run_killed_at_random_steps_ends_with_the_same_weights() {
    let mut bench = Bench::new();
    bench.hyper().epochs = Some(8);
    bench.hyper().weight_decay = Some(0.1);
    bench.hyper().ema_decay = Some(0.9);
    bench.hyper().gradient_accumulation_steps = Some(2);
    bench.hyper().batch_size = Some(4);
    ends_alike_after_kills(&bench, 8 * 8, 10);
}

/// Runs the program whole, and again with kills at so many random steps of all, and compares the weights.
pub(crate) fn ends_alike_after_kills(bench: &Bench, steps: usize, wanted: usize) {
    let spec = bench.path("spec.json");
    fs::write(&spec, serde_json::to_vec(&bench.spec).unwrap()).unwrap();
    let run = |out: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_train-worker"));
        program.args(["local", "--threads", "1", "--device", "cpu", "--resume-every", "0"]);
        program.arg("--spec").arg(&spec).arg("--out").arg(bench.path(out)).env("OMP_WAIT_POLICY", "PASSIVE");
        program
    };
    let output = run("whole").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut stream = quintet_nlp::random::Stream::new(std::process::id().into(), "kills", 0);
    // Not in the last steps: the newest state may be some steps behind the work.
    let mut places: Vec<usize> = stream.permutation(steps - 16).into_iter().take(wanted).map(|step| step + 1).collect();
    places.sort_unstable();
    let kill = |step: &&usize| killed_at(&mut run("parts"), &bench.path("parts/resume"), **step);
    let kills = places.iter().take_while(kill).count();
    assert!(kills >= wanted / 2, "{kills} of {places:?}");
    if !bench.path("parts/checkpoint").exists() {
        let output = run("parts").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let weights = |out: &str| fs::read(bench.path(out).join("checkpoint/model.safetensors")).unwrap();
    assert!(weights("parts") == weights("whole"), "the weights differ after kills at {places:?}");
}
