//! What is refused, and what is left then.
use std::fs;

use train_worker::{Error, train};

use crate::support::{Bench, Recorder, nothing_written};

#[test]
fn divergence_names_step_and_rows() {
    let mut bench = Bench::new();
    bench.hyper().learning_rate = Some(1e30);
    match train(&bench.request("out"), &mut Recorder::default()).unwrap_err() {
        Error::Diverged { step, rows, .. } => {
            assert!((2..=4).contains(&step), "{step}");
            assert!(rows.contains("train.conll") && rows.contains("lines"), "{rows}");
        }
        other => panic!("{other}"),
    }
    assert!(nothing_written(&bench, "out"));
}

pub(crate) fn failure(bench: &Bench) -> Error {
    let error = train(&bench.request("out"), &mut Recorder::default()).unwrap_err();
    assert!(error.is_input_fault(), "{error}");
    assert!(nothing_written(bench, "out"), "{error}");
    error
}

#[test]
fn bad_input_is_refused_before_work_starts() {
    let mut bench = Bench::new();
    bench.hyper().max_length = Some(161);
    assert!(matches!(failure(&bench), Error::Field { field, .. } if field == "hyperparameters.max_length"));

    let mut bench = Bench::new();
    bench.spec.checkpoint = bench.path("nowhere").display().to_string();
    assert!(failure(&bench).to_string().contains("nowhere"));

    let bench = Bench::new();
    fs::write(bench.path("dev.conll"), "a O\n\nb B-animal\n").unwrap();
    assert!(failure(&bench).to_string().contains("dev.conll`:3: label `B-animal`"));

    fs::write(bench.path("dev.conll"), "\n").unwrap();
    assert!(failure(&bench).to_string().starts_with("validation split"));

    let bench = Bench::new();
    let weights = bench.path("base/model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 10]).unwrap();
    assert!(failure(&bench).to_string().contains("truncated"));

    let bench = Bench::new();
    let config = bench.path("base/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"hidden_size\": 32", "\"hidden_size\": 48")).unwrap();
    let message = failure(&bench).to_string();
    assert!(message.contains("shape") && message.contains("48"), "{message}");

    let bench = Bench::new();
    fs::create_dir_all(bench.path("out/checkpoint")).unwrap();
    fs::write(bench.path("out/checkpoint/x"), "").unwrap();
    let error = train(&bench.request("out"), &mut Recorder::default()).unwrap_err();
    assert!(error.to_string().contains("not empty"));
}
