//! Optuna itself opens a study of ours, sees every field as we wrote it, and goes on with it; we read what it wrote.
//!
//! Runs where set-up has laid out a Python with Optuna (`cargo xtask test` does); says so and passes elsewhere.
#![allow(clippy::unwrap_used)] // Helpers of tests panic like the tests themselves.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use hpo_svc::{
    space::{Distribution, ParamValue},
    storage::{Attributes, Edit, NewTrial, Store},
    study::{Direction, Param, State, best},
};
use jiff::Timestamp;
use runtime_core::db::testing::PostgresServer;
use serde_json::{Value, json};

/// The Python of set-up, or that of `QUINTET_PEER_PYTHON`, when it has these modules.
fn python(modules: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = std::env::var_os("QUINTET_PEER_PYTHON").map(PathBuf::from);
    let python = python.unwrap_or_else(|| root.join(".runtime/venv/bin/python"));
    let ready = Command::new(&python).args(["-c", &format!("import {modules}")]).output();
    if ready.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    eprintln!("skipped: {} cannot import {modules}; `cargo xtask test` brings it", python.display());
    None
}

fn optuna(python: &Path, url: &str, more: usize) -> Value {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/optuna_study.py");
    let output = Command::new(python)
        .arg(script)
        .args([url, "peer", "--continue", &more.to_string()])
        // A zone far from UTC, so that times in the wrong one show.
        .env("TZ", "Asia/Tokyo")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_microsecond(1_790_000_000_000_000 + seconds * 1_000_000 + 123).unwrap()
}

fn params(lr: f64, batch: f64, act: f64) -> Vec<Param> {
    let param = |name: &str, value, distribution| Param { name: name.into(), value, distribution };
    let choices = vec![ParamValue::Null, ParamValue::Text("gélu".into()), ParamValue::Int(3), ParamValue::Float(0.5)];
    vec![
        param("lr", lr, Distribution::float(1e-5, 1e-1, true, None).unwrap()),
        param("batch", batch, Distribution::int(8, 65, false, 8).unwrap()),
        param("act", act, Distribution::categorical(choices).unwrap()),
    ]
}

async fn write_study(store: &Store) -> i64 {
    let user = Attributes::from([("note".to_owned(), "\"é\"".to_owned())]);
    let system = Attributes::from([("study:metric_names".to_owned(), "[\"f1\"]".to_owned())]);
    let study = store.create_study("peer", &[Direction::Maximize], user, system).await.unwrap();
    let ends = [
        (State::Complete, Some(0.5), vec![(1, 0.25), (2, f64::NAN), (3, f64::INFINITY)]),
        (State::Pruned, Some(0.1), vec![(1, 0.1)]),
        (State::Fail, None, vec![]),
        (State::Complete, Some(f64::NEG_INFINITY), vec![(1, f64::NEG_INFINITY)]),
    ];
    for (number, (state, value, reports)) in (0_i64..).zip(ends) {
        let new = NewTrial {
            params: params(1e-4 * (number + 1) as f64, 16.0, number as f64),
            user_attrs: Attributes::from([("quintet:job".to_owned(), format!("\"jobs/{number}\""))]),
            ..NewTrial::default()
        };
        let trial = store.create_trial(study.id, new, at(number * 10)).await.unwrap();
        assert_eq!(trial.number, number);
        let end = Edit { reports, ..Edit::state(state, value.into_iter().collect()) };
        store.edit(trial.id, end, at(number * 10 + 3)).await.unwrap();
    }
    let new = NewTrial { params: params(1e-2, 64.0, 1.0), ..NewTrial::default() };
    store.create_trial(study.id, new, at(100)).await.unwrap();
    study.id
}

async fn optuna_and_we_agree(python: &Path, url: &str) {
    let store = Store::open(url).unwrap();
    let study = write_study(&store).await;
    let seen = optuna(python, store.optuna_url(), 0);
    assert_eq!(seen["direction"], "MAXIMIZE");
    assert_eq!(seen["metric_names"], json!(["f1"]));
    assert_eq!(seen["user_attrs"], json!({"note": "é"}));
    assert_eq!(seen["best"], 0);
    let trials = seen["trials"].as_array().unwrap();
    let states: Vec<&Value> = trials.iter().map(|trial| &trial["state"]).collect();
    assert_eq!(states, ["COMPLETE", "PRUNED", "FAIL", "COMPLETE", "RUNNING"]);
    assert_eq!(trials[0]["intermediate_values"], json!({"1": 0.25, "2": "nan", "3": "inf"}));
    assert_eq!(trials[0]["values"], json!([0.5]));
    assert_eq!(trials[2]["values"], Value::Null);
    assert_eq!(trials[3]["values"], json!(["-inf"]));
    assert_eq!(trials[0]["params"], json!({"lr": 1e-4, "batch": 16, "act": null}));
    assert_eq!(trials[1]["params"]["act"], "gélu");
    assert_eq!(trials[2]["params"]["act"], 3);
    assert_eq!(trials[3]["params"]["act"], 0.5);
    for (name, text) in trials[0]["distributions"].as_object().unwrap() {
        let ours = params(1e-4, 16.0, 0.0).into_iter().find(|p| p.name == *name).unwrap();
        assert_eq!(text.as_str().unwrap(), ours.distribution.to_json());
    }
    assert_eq!(trials[1]["user_attrs"], json!({"quintet:job": "jobs/1"}));
    assert_eq!(trials[1]["start"], at(10).as_microsecond());
    assert_eq!(trials[1]["complete"], at(13).as_microsecond());
    assert_eq!(trials[4]["complete"], Value::Null);

    // Optuna goes on in the study, with its own sampler, and we read its trials.
    let before = Timestamp::now();
    let seen = optuna(python, store.optuna_url(), 12);
    let ours = store.trials(study).await.unwrap();
    assert_eq!(ours.len(), 17);
    for (trial, theirs) in ours.iter().zip(seen["trials"].as_array().unwrap()) {
        assert_eq!(theirs["number"], trial.number);
        assert_eq!(theirs["state"], trial.state.as_str());
        for param in &trial.params {
            assert_eq!(theirs["params"][&param.name], param.external().to_json(), "trial {}", trial.number);
        }
        let micros = |time: Option<Timestamp>| time.map(Timestamp::as_microsecond);
        assert_eq!(theirs["start"].as_i64(), micros(trial.start));
        assert_eq!(theirs["complete"].as_i64(), micros(trial.complete));
    }
    let last = &ours[16];
    assert_eq!((last.state, last.intermediate.get(&1)), (State::Complete, Some(&0.5)));
    let age = last.start.unwrap().duration_since(before);
    assert!(age.as_secs().abs() < 120, "Optuna's time is read as {age:?} from now");
    assert_eq!(seen["best"], best(&ours, Direction::Maximize).unwrap().number);

    // And we go on after Optuna.
    let next = store.create_trial(study, NewTrial { params: params(1e-3, 8.0, 2.0), ..NewTrial::default() }, at(200));
    assert_eq!(next.await.unwrap().number, 17);
    assert_eq!(optuna(python, store.optuna_url(), 0)["trials"].as_array().unwrap().len(), 18);
}

#[tokio::test]
async fn on_sqlite() {
    let Some(python) = python("optuna") else { return };
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("studies.db").display());
    optuna_and_we_agree(&python, &url).await;
}

#[tokio::test]
async fn on_postgresql() {
    let Some(python) = python("optuna, psycopg") else { return };
    let server = PostgresServer::start().unwrap();
    let url = format!("{}?schema=hpo", server.database().unwrap());
    optuna_and_we_agree(&python, &url).await;
}

#[tokio::test]
async fn a_store_that_optuna_made_is_used_as_it_is() {
    let Some(python) = python("optuna") else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study.db");
    let script = "import optuna, sys; s = optuna.create_study(study_name='peer', storage='sqlite:///' + sys.argv[1]); \
                  s.optimize(lambda t: t.suggest_float('x', 0, 1), n_trials=3)";
    let output = Command::new(&python).args(["-c", script]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let store = Store::open(&format!("sqlite://{}", path.display())).unwrap();
    store.check_revision().await.unwrap();
    let study = store.find_study("peer").await.unwrap().unwrap();
    assert_eq!(study.directions, [Direction::Minimize]);
    assert_eq!(store.trials(study.id).await.unwrap().len(), 3);
    let trial = store.create_trial(study.id, NewTrial::default(), at(0)).await.unwrap();
    assert_eq!(trial.number, 3);
    assert_eq!(optuna(&python, store.optuna_url(), 1)["trials"].as_array().unwrap().len(), 5);
    // Optuna would give the ids of the newest study to the next.
    let mut last = (study.id, trial.id + 1);
    for _ in 0..2 {
        let none = Attributes::new;
        let newest = store.create_study("newest", &[Direction::Minimize], none(), none()).await.unwrap().id;
        let trial = store.create_trial(newest, NewTrial::default(), at(1)).await.unwrap().id;
        assert!(newest > last.0 && trial > last.1, "{:?} after {last:?}", (newest, trial));
        last = (newest, trial);
        store.delete_study(newest).await.unwrap();
    }
    assert_eq!(optuna(&python, store.optuna_url(), 1)["trials"].as_array().unwrap().len(), 6);
    assert_eq!(store.trials(study.id).await.unwrap().len(), 6);
}
