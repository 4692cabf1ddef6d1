//! Studies as files: what Optuna has begun is finished here, what is finished here is opened by Optuna, equal in every trial.
#![allow(clippy::unwrap_used)] // Helpers of tests panic like the tests themselves.

use std::{fs, path::Path, process::Command};

use quintet_tests::sandbox::{Sandbox, python, root};
use serde_json::Value;

/// Runs the Optuna side and returns what it prints.
fn optuna(arguments: &[&str]) -> String {
    peer("tests/peers/optuna_files.py", arguments)
}

/// What Optuna's dashboard shows of a study is what is there; returns the number of its trials.
fn dashboard(arguments: &[&str]) -> String {
    peer("tests/peers/optuna_dashboard_api.py", arguments)
}

fn peer(script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(python().unwrap());
    command.arg(script).args(arguments).current_dir(root()).env("PYTHONWARNINGS", "ignore");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs `quintet hpo` against the sandbox's server.
fn hpo(sandbox: &Sandbox, arguments: &[&str]) -> Result<String, String> {
    let url = sandbox.url();
    let all: Vec<&str> = ["hpo"].iter().chain(arguments).copied().chain(["--server", &url]).collect();
    let output = sandbox.quintet(&all).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

#[test]
fn a_study_goes_from_optuna_to_us_and_back_and_is_equal_in_every_trial() {
    const NAME: &str = "theirs / ü";
    let mut sandbox = Sandbox::new().unwrap().args(["--services", "hpo"]);
    sandbox.start().unwrap();
    let folder = sandbox.folder().to_owned();
    let theirs = path(&folder, "theirs.db");
    optuna(&["make", &theirs]);
    let untouched = fs::read(&theirs).unwrap();
    hpo(&sandbox, &["import", &theirs]).unwrap();
    assert_eq!(fs::read(&theirs).unwrap(), untouched, "an import only reads");
    let again = hpo(&sandbox, &["import", &theirs]).unwrap_err();
    assert!(again.contains("already exists"), "{again}");
    hpo(&sandbox, &["import", &theirs, "--name", "renamed"]).unwrap();
    assert!(hpo(&sandbox, &["list"]).unwrap().contains("renamed"));

    // The server's own database is one that Optuna opens, and so is the file.
    let database = path(&sandbox.data_dir(), "hpo.db");
    assert_eq!(optuna(&["compare", &theirs, NAME, &database, NAME]), "20");
    let ours = path(&folder, "ours.db");
    hpo(&sandbox, &["export", NAME, &ours]).unwrap();
    assert_eq!(optuna(&["compare", &theirs, NAME, &ours, NAME]), "20");
    let refused = hpo(&sandbox, &["export", NAME, &ours]).unwrap_err();
    assert!(refused.contains("exists"), "{refused}");
    let deep = path(&folder, "new/folder/ours.csv");
    hpo(&sandbox, &["export", NAME, &deep]).unwrap();
    assert!(Path::new(&deep).is_file());
    let refused = hpo(&sandbox, &["export", NAME, "/proc/ours.json"]).unwrap_err();
    assert!(refused.contains("/proc: ") && !refused.contains(".export-"), "{refused}");

    // Its dashboard serves both.
    assert_eq!(dashboard(&[&ours, NAME]), "20");
    let address = sandbox.url().trim_start_matches("http://").to_owned();
    assert_eq!(dashboard(&[&address, NAME]), "20");
    assert_eq!(dashboard(&[&address, "renamed", "--change"]), "20");

    // Optuna goes on with ours; then we have it back, as a document too.
    assert_eq!(optuna(&["go-on", &ours, NAME, "5"]), "24", "the queued trial is one of them");
    hpo(&sandbox, &["import", &ours, "--name", "back"]).unwrap();
    let document = path(&folder, "back.json");
    hpo(&sandbox, &["export", "back", &document]).unwrap();
    hpo(&sandbox, &["delete", "back"]).unwrap();
    hpo(&sandbox, &["import", &document]).unwrap();
    assert_eq!(optuna(&["compare", &ours, NAME, &database, "back"]), "24");

    let table = path(&folder, "back.csv");
    hpo(&sandbox, &["export", "back", &table]).unwrap();
    let rows = fs::read_to_string(&table).unwrap();
    assert_eq!(rows.lines().count(), 25);
    assert!(rows.starts_with("number,value_f1,datetime_start,"), "{rows}");

    let plots: Vec<String> = ["history", "parallel", "slice", "importances", "pareto", "intermediate"]
        .iter()
        .flat_map(|kind| ["svg", "png"].map(|format| format!("--plot={}", path(&folder, &format!("{kind}.{format}")))))
        .collect();
    let arguments: Vec<&str> = ["show", "back"].into_iter().chain(plots.iter().map(String::as_str)).collect();
    let shown = hpo(&sandbox, &arguments).unwrap();
    assert!(shown.contains("best: trial") && shown.contains("importance of the parameters (fANOVA)"), "{shown}");
    for kind in ["history", "parallel", "slice", "importances", "pareto", "intermediate"] {
        let svg = fs::read_to_string(folder.join(format!("{kind}.svg"))).unwrap();
        assert!(svg.starts_with("<svg") || svg.starts_with("<?xml"), "{kind}: {}", &svg[..80.min(svg.len())]);
        let png = fs::read(folder.join(format!("{kind}.png"))).unwrap();
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() > 5000, "{kind}: {} bytes", png.len());
    }
    let json: Value = serde_json::from_str(&hpo(&sandbox, &["show", "back", "--output", "json"]).unwrap()).unwrap();
    assert_eq!(json["trials"].as_array().unwrap().len(), 24);
}

#[test]
fn files_that_hold_no_study_are_told_apart_and_leave_nothing() {
    let mut sandbox = Sandbox::new().unwrap().args(["--services", "hpo"]);
    sandbox.start().unwrap();
    let folder = sandbox.folder().to_owned();
    let file = |name: &str, content: &str| {
        fs::write(folder.join(name), content).unwrap();
        path(&folder, name)
    };
    let trial = r#"{"format": 1, "id": 1, "name": "s", "directions": ["MINIMIZE"], "user_attrs": {}, "system_attrs": {},
        "trials": [{"number": 0}]}"#;
    for (name, content, problem) in [
        ("study.txt", "", "must end with .json, .csv, or .db"),
        ("study.csv", "", "a table does not hold all of a study"),
        ("broken.json", "{", "EOF"),
        ("other.json", "{}", "format"),
        ("trial.json", trial, "trials[0]"),
        ("noise.db", "this is no database at all, only some text", "not a database"),
    ] {
        let error = hpo(&sandbox, &["import", &file(name, content)]).unwrap_err();
        assert!(error.contains(problem), "{name}: {error}");
    }
    let missing = hpo(&sandbox, &["import", &path(&folder, "none.db")]).unwrap_err();
    assert!(missing.contains("none.db"), "{missing}");
    let unknown = hpo(&sandbox, &["export", "none", &path(&folder, "none.json")]).unwrap_err();
    assert!(unknown.contains("`none`") || unknown.contains("studies/none"), "{unknown}");
    assert!(!folder.join("none.json").exists());
    let plot = hpo(&sandbox, &["show", "none", "--plot", "x.svg"]).unwrap_err();
    assert!(plot.contains("KIND is one of history"), "{plot}");
    assert_eq!(hpo(&sandbox, &["list"]).unwrap().lines().count(), 1, "only the header");
}
