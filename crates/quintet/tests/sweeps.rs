//! Sweeps as a user sees them: the plan before, the choice of the best with its reasons, and the check of what came out.
#![allow(clippy::unwrap_used)] // the helpers of the tests are tests too

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

const PIPELINE: &str = r#"
name: choose
stages:
  sweep:
    sweep:
      study_name: chosen
      search_space: [{name: x, categorical: {choices: [0.9, 0.89, 0.5]}}]
      objective: {metric: f1}
      sampler: {grid: {}}
      max_trials: 8
      seed: 1
      command:
        command: 'echo "{\"f1\":" ${{search_space.x}} "}" > metrics.json'
        metrics_file: metrics.json
  final:
    config_from: {sweep: sweep, metric: f1}
    command: {command: 'echo best ${{search_space.x}}'}
"#;

/// Nothing of the tester's own environment decides what is tested.
fn run(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("QUINTET_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).stdin(Stdio::null()).args(args).output().unwrap()
}

#[track_caller]
fn ended(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, told) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout:\n{out}\nstderr:\n{told}");
    (out, told)
}

#[test]
fn a_sweep_is_planned_run_checked_and_its_best_chosen_by_metric_or_speed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("p.yaml"), PIPELINE).unwrap();
    let (_, planned) = ended(&run(folder, &["run", "p.yaml", "--data-dir", "d", "--check"]), 0);
    assert!(planned.contains("sweep: new study chosen\n  trials     3 to run, 1 at a time\n"), "{planned}");
    assert!(
        planned.contains("  space      3 combinations: x\n") && planned.contains("  sampler    grid\n"),
        "{planned}"
    );
    assert!(planned.contains("  note       the grid has 3 combinations: the sweep ends with them"), "{planned}");

    let (_, told) = ended(&run(folder, &["run", "p.yaml", "--data-dir", "d"]), 0);
    assert!(
        told.contains("sweep: new study chosen: f1 (maximized), 3 trials to run, 1 at a time, over 3 combinations of x, sampler grid"),
        "{told}"
    );

    assert!(told.contains(" hpo show chosen --data-dir "), "{told}");

    let hpo = |args: &[&str], code| {
        let args: Vec<&str> = ["hpo"].iter().chain(args).chain(&["--data-dir", "d"]).copied().collect();
        ended(&run(folder, &args), code)
    };
    let (shown, _) = hpo(&["show", "chosen"], 0);
    assert!(shown.contains(" has ended: every combination of the grid was tried\n"), "{shown}");
    let (shown, _) = hpo(&["best", "chosen"], 0);
    assert!(shown.contains("TRIAL") && shown.contains("F1") && shown.contains("chosen"), "{shown}");
    assert!(
        shown.contains("the best of 3 candidates: f1 0.9. Next is trial") && shown.ends_with("\nx = 0.9000\n"),
        "{shown}"
    );

    // A study goes on with the same space only.
    fs::write(folder.join("p.yaml"), PIPELINE.replace("0.89, ", "")).unwrap();
    let (_, refused) = ended(&run(folder, &["run", "p.yaml", "--data-dir", "d", "--check"]), 2);
    assert!(
        refused.contains("p.yaml:6:19: stages.sweep.sweep.study_name: study `chosen` exists and its search space is"),
        "{refused}"
    );

    // Which trial is which is the seed's choice.
    let (text, _) = hpo(&["best", "chosen", "-o", "json"], 0);
    let answer: Value = serde_json::from_str(&text).unwrap();
    let candidates = answer["candidates"].as_array().unwrap();
    let latencies: Vec<String> = candidates
        .iter()
        .zip(["40", "12", "10"])
        .map(|(candidate, latency)| {
            let number = candidate["trial"].as_str().unwrap().rsplit('/').next().unwrap();
            format!("--latency={number}={latency}")
        })
        .collect();
    let with_speed = |more: &[&str]| {
        let args: Vec<&str> = ["best", "chosen"]
            .into_iter()
            .chain(latencies.iter().map(String::as_str))
            .chain(more.iter().copied())
            .collect();
        hpo(&args, 0).0
    };
    let fast = with_speed(&["--accuracy-floor", "0.015", "--min-gain", "0.02"]);
    assert!(fast.contains("LATENCY MS") && fast.contains("3.33 times as fast as trial"), "{fast}");
    assert!(fast.ends_with("\nx = 0.8900\n"), "{fast}");
    assert!(with_speed(&["--latency-weight", "1"]).ends_with("\nx = 0.5000\n"));
    assert!(with_speed(&["--accuracy-floor", "0.005", "--absolute"]).ends_with("\nx = 0.9000\n"));
    let (_, refused) = hpo(&["best", "chosen", "--min-gain", "0.1"], 2);
    assert!(refused.contains("min_accuracy_gain: needs latencies"), "{refused}");

    let (valid, _) = hpo(&["validate", "chosen", "--min-completed", "3"], 0);
    assert!(valid.starts_with("3 COMPLETE\nbest: chosen trial ") && valid.ends_with("valid\n"), "{valid}");
    let (jobs, _) = ended(&run(folder, &["jobs", "list", "--kind", "sweep", "-o", "json", "--data-dir", "d"]), 0);
    let jobs: Value = serde_json::from_str(&jobs).unwrap();
    let (valid, _) = hpo(&["validate", "chosen", "--job", &jobs[0]["uid"].as_str().unwrap()[..12]], 0);
    assert!(valid.ends_with("valid\n"), "{valid}");
    let (counts, problems) = hpo(&["validate", "chosen", "--min-completed", "9", "--metric", "recall"], 1);
    assert!(!counts.contains("valid"), "{counts}");
    assert!(problems.contains("study `chosen` is not valid:\n  3 trials have completed"), "{problems}");
    assert!(problems.contains("\n  recall is missing in trials 0, 1, 2"), "{problems}");
}

const WRONG: &str = r#"
name: wrong
stages:
  sweep:
    sweep:
      search_space:
        - {name: learning_rate, float: {low: 0, high: 0.001}}
        - {name: optim, categorical: {choices: [adamw, sgd]}}
      objective: {metric: f1}
      max_trials: 2
      train:
        checkpoint: encoder
        data: {train: train.conll}
        hyperparameters: {lr_scheduler_type: step, epochs: 0}
"#;

#[test]
fn what_no_trial_could_be_trained_with_is_refused_before_the_sweep() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("encoder")).unwrap();
    fs::write(folder.join("train.conll"), "a B-x\n").unwrap();
    fs::write(folder.join("p.yaml"), WRONG).unwrap();
    let (_, refused) = ended(&run(folder, &["run", "p.yaml", "--data-dir", "d", "--check"]), 2);
    for told in [
        "stages.sweep.sweep.search_space[0].float.low: `learning_rate`: found 0, expected a number above 0",
        "search_space[1].categorical.choices[1]: `optim`: found `sgd`, expected `adamw`, `adafactor` or `lion`",
        "train.hyperparameters.epochs: found 0, expected 1 or more",
        "train.hyperparameters.lr_scheduler_type: found `step`, expected `linear`, `cosine` or `constant`",
    ] {
        assert!(refused.contains(told), "{told}\n{refused}");
    }
}
