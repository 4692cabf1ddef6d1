//! The program as a user runs it: pipelines of command jobs on an embedded server, their results, and every way to fail.
#![allow(clippy::unwrap_used)] // the helpers of the tests are tests too

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const SWEEP: &str = r#"
name: commands
params: {trials: 4, end: "0"}
stages:
  sweep:
    sweep:
      search_space:
        - {name: x, float: {low: 0.0, high: 1.0}}
        - {name: kind, categorical: {choices: [a, b]}}
      objective: {metric: f1, direction: MAXIMIZE}
      sampler: {random: {}}
      max_trials: ${{params.trials}}
      max_parallel_trials: 2
      seed: 1
      command:
        command: 'echo ${{search_space.kind}}; echo "{\"f1\":" ${{search_space.x}} "}" > metrics.json'
        metrics_file: metrics.json
  final:
    config_from: sweep
    command:
      command: |
        cat ${{inputs.text}}; echo ${{search_space.x}} ${{search_space.kind}} > ${{outputs.model}}/best.txt
        echo '{"score": 0.5}' > metrics.json; exit ${{params.end}}
      inputs: {text: {uri: text.txt}}
      outputs: [model]
      metrics_file: metrics.json
  use:
    command:
      command: grep -q . ${{inputs.model}}/best.txt
      inputs: {model: {uri: "${{stages.final.outputs.model}}"}}
"#;

/// Nothing of the tester's own environment decides what is tested.
fn quintet(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("QUINTET_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).stdin(Stdio::null());
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    quintet(folder).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn ended(output: &Output, code: i32) -> String {
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "stdout:\n{}\nstderr:\n{told}", text(&output.stdout));
    told
}

fn document(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn pipeline(folder: &Path, content: &str) {
    fs::write(folder.join("p.yaml"), content).unwrap();
    fs::write(folder.join("text.txt"), "some text\n").unwrap();
}

#[test]
fn a_pipeline_of_commands_runs_is_reused_and_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    pipeline(folder, SWEEP);
    let first = run(folder, &["run", "p.yaml", "--data-dir", "d", "--json", "new/r.json"]);
    let told = ended(&first, 0);
    assert!(told.contains("To look further") && told.contains("optuna trials --study-name"), "{told}");
    let table = text(&first.stdout);
    assert!(table.contains("4 trials: 4 complete, 0 pruned, 0 failed") && table.contains("best f1"), "{table}");
    let result = document(&folder.join("new/r.json"));
    assert_eq!((&result["state"], &result["schema"]), (&"SUCCEEDED".into(), &"quintet.result/1".into()));
    let stages = result["stages"].as_array().unwrap();
    let trials = stages[0]["sweep"]["trials"].as_array().unwrap();
    let value = |trial: &Value| trial["value"].as_f64().unwrap();
    assert!(trials.iter().all(|trial| (value(trial) - trial["parameters"]["x"].as_f64().unwrap()).abs() < 1e-9));
    let best = &stages[0]["sweep"]["best"];
    assert_eq!(best["value"].as_f64().unwrap(), trials.iter().map(value).fold(0.0, f64::max));
    assert_eq!(stages[1]["metrics"]["score"], 0.5);
    // The best trial's values reached the command.
    let model = stages[1]["outputs"]["model"]["path"].as_str().unwrap();
    let written = fs::read_to_string(Path::new(model).join("best.txt")).unwrap();
    let (x, kind) = written.trim().split_once(' ').unwrap();
    assert_eq!(
        (x.parse::<f64>().unwrap(), kind),
        (best["value"].as_f64().unwrap(), best["parameters"]["kind"].as_str().unwrap())
    );

    // Again: nothing is done twice, also by a third run, whose second is itself a reuse.
    for _ in 0..2 {
        ended(&run(folder, &["run", "p.yaml", "--data-dir", "d", "--json", "again.json"]), 0);
        let again = document(&folder.join("again.json"));
        for (stage, first) in again["stages"].as_array().unwrap().iter().zip(stages) {
            assert_eq!(stage["reused"], true, "{stage}");
            assert_eq!(stage["outputs"], first["outputs"]);
        }
        assert_eq!(again["stages"][0]["sweep"], stages[0]["sweep"]);
    }
    // Another value is other work, for the stage that it concerns and those behind it.
    fs::write(folder.join("text.txt"), "other text\n").unwrap();
    ended(&run(folder, &["run", "p.yaml", "--data-dir", "d", "--json", "other.json"]), 0);
    let other = document(&folder.join("other.json"));
    let reused: Vec<bool> =
        other["stages"].as_array().unwrap().iter().map(|stage| stage["reused"].as_bool().unwrap()).collect();
    assert_eq!(reused[..2], [true, false]);

    let listed = run(folder, &["jobs", "list", "--data-dir", "d", "--kind", "command", "--limit", "2"]);
    ended(&listed, 0);
    assert_eq!(text(&listed.stdout).lines().count(), 3, "{}", text(&listed.stdout));
    let uid = stages[1]["job"].as_str().unwrap().trim_start_matches("jobs/");
    let got = run(folder, &["jobs", "get", &uid[..12], "-o", "json", "--data-dir", "d"]);
    ended(&got, 0);
    assert_eq!(serde_json::from_slice::<Value>(&got.stdout).unwrap()["uid"], uid);
    let log = run(folder, &["jobs", "logs", uid, "--follow", "--data-dir", "d"]);
    ended(&log, 0);
    assert!(text(&log.stdout).contains("some text"), "{}", text(&log.stdout));
    let study = stages[0]["sweep"]["study"].as_str().unwrap();
    let shown = run(folder, &["hpo", "show", study, "--data-dir", "d"]);
    ended(&shown, 0);
    assert!(text(&shown.stdout).contains("COMPLETE") && text(&shown.stdout).contains("best: trial"));
    ended(&run(folder, &["jobs", "delete", uid, "--data-dir", "d"]), 0);
    assert!(ended(&run(folder, &["jobs", "get", uid, "--data-dir", "d"]), 2).contains("does not exist"));
}

#[test]
fn a_failed_stage_tells_reason_log_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    pipeline(folder, SWEEP);
    let failed =
        run(folder, &["run", "p.yaml", "--data-dir", "d", "--set", "end=3", "--set", "trials=1", "--json", "r.json"]);
    let told = ended(&failed, 1);
    assert!(told.contains("stage `final`") && told.contains("COMMAND_FAILED: The user's command ended"), "{told}");
    assert!(told.contains("    some text"), "the end of the log: {told}");
    let result = document(&folder.join("r.json"));
    assert_eq!((&result["state"], result["stages"].as_array().unwrap().len()), (&"FAILED".into(), 2));
    assert_eq!(result["stages"][1]["error"]["reason"], "COMMAND_FAILED");
}

#[test]
fn bad_files_are_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (from, to, place, problem) in [
        (
            "max_trials:",
            "max_trails:",
            "p.yaml:12:7: stages.sweep.sweep: ",
            "unknown key `max_trails`; did you mean `max_trials`?",
        ),
        ("{low: 0.0,", "{low: 2.0,", "p.yaml:8:", "stages.sweep.sweep.search_space[0].float"),
        ("${{search_space.kind}} >", "${{search_space.king}} >", "p.yaml:22:", "stages.final.command.command: "),
        ("uri: text.txt", "uri: no.txt", "p.yaml:24:", "stages.final.command.inputs.text"),
    ] {
        assert!(SWEEP.contains(from));
        pipeline(folder, &SWEEP.replacen(from, to, 1));
        let told = ended(&run(folder, &["run", "p.yaml", "--data-dir", "d", "--json", "r.json"]), 2);
        assert!(told.contains(place) && told.contains(problem), "{told}\nexpected {place}{problem}");
    }
    assert!(!folder.join("r.json").exists());
    let listed = run(folder, &["jobs", "list", "--data-dir", "d"]);
    assert_eq!(text(&listed.stdout).lines().count(), 1, "no job was made: {}", text(&listed.stdout));
    assert!(ended(&run(folder, &["run", "nothing.yaml"]), 2).contains("nothing.yaml: there is no such file"));
    let away = ended(&run(folder, &["jobs", "list", "--server", "http://127.0.0.1:1"]), 3);
    assert!(away.contains("server http://127.0.0.1:1"), "{away}");
    assert!(ended(&run(folder, &["jobs", "get", "xyz", "--data-dir", "d"]), 2).contains("`xyz` is no id of a job"));
    let backups = ended(&run(folder, &["backup", "list"]), 2);
    assert!(backups.contains("no backup location"), "{backups}");
}

#[test]
fn ctrl_c_asks_once_and_then_cancels() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let slow = "name: slow\nstages:\n  wait:\n    command: {command: 'echo begun; exec sleep 600'}\n";
    fs::write(folder.join("p.yaml"), slow).unwrap();
    let mut child = quintet(folder)
        .args(["run", "p.yaml", "--data-dir", "d", "--json", "r.json"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut until = |part: &str| {
        let mut seen = String::new();
        while !seen.lines().last().unwrap_or_default().contains(part) {
            assert!(lines.read_line(&mut seen).unwrap() > 0, "`{part}` never came:\n{seen}");
        }
    };
    until("wait: running");
    kill(pid, Signal::SIGINT).unwrap();
    until("press Ctrl-C again");
    kill(pid, Signal::SIGINT).unwrap();
    until("cancelling");
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    let result = document(&folder.join("r.json"));
    assert_eq!((&result["state"], &result["stages"][0]["state"]), (&"INTERRUPTED".into(), &"CANCELLED".into()));
}

#[test]
fn search_spaces_come_from_other_systems_and_go_there() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let list = "
        - {name: x, float: {low: 0.0, high: 1.0}}
        - {name: kind, categorical: {choices: [a, b]}}
";
    assert!(SWEEP.contains(list));
    let space = "
        x: {type: loguniform, min: 1e-3, max: 1}
        kind: {type: choice, values: [a, b]}
";
    pipeline(folder, &SWEEP.replace(list, space));
    let told = ended(&run(folder, &["run", "p.yaml", "--data-dir", "d", "--json", "r.json"]), 0);
    assert!(
        told.contains("note: p.yaml:8:12: stages.sweep.sweep.search_space.x: lies between 0.001 and 1.0; read as"),
        "{told}"
    );
    let study = document(&folder.join("r.json"))["stages"][0]["sweep"]["study"].as_str().unwrap().to_owned();
    let printed = |form: &str| {
        let output = run(folder, &["hpo", "space", &study, "--form", form, "--output", "json", "--data-dir", "d"]);
        ended(&output, 0);
        serde_json::from_str::<Value>(&text(&output.stdout)).unwrap()["search_space"].clone()
    };
    assert_eq!(
        printed("quintet")[0],
        serde_json::json!({"name": "x", "float": {"low": 0.001, "high": 1.0, "log": true}})
    );
    assert_eq!(printed("plain")["x"], serde_json::json!({"type": "loguniform", "min": 0.001, "max": 1.0}));
    assert_eq!(printed("azureml")["x"]["min_value"], 0.001_f64.ln());
    assert_eq!(printed("optuna")["kind"]["name"], "CategoricalDistribution");
    let yaml = run(folder, &["hpo", "space", &study, "--form", "azureml", "--data-dir", "d"]);
    assert!(text(&yaml.stdout).starts_with("search_space:\n  x:\n    type: loguniform\n"), "{}", text(&yaml.stdout));
    // What was printed is a pipeline's space again, and the same one: the sweep is answered from the earlier study.
    let azureml: String = text(&yaml.stdout).lines().skip(1).map(|line| format!("      {line}\n")).collect();
    pipeline(folder, &SWEEP.replace(list, &format!("\n{azureml}")));
    ended(&run(folder, &["run", "p.yaml", "--data-dir", "d", "--json", "again.json"]), 0);
    assert_eq!(document(&folder.join("again.json"))["stages"][0]["reused"], true);
}
