//! What is refused, and what is left then.
use std::fs;

use quintet_proto::v1::Hyperparameters;
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

#[test]
fn divergence_after_an_epoch_leaves_its_checkpoint() {
    let mut bench = Bench::new();
    // Each step takes seven times a weight from it: they grow until squares of their products overflow.
    bench.hyper().learning_rate = Some(1.0);
    bench.hyper().weight_decay = Some(7.0);
    bench.hyper().lr_scheduler_type = Some("constant".into());
    let error = train(&bench.request("out"), &mut Recorder::default()).unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains("; the checkpoint of epoch 1, the best before, is the output `last_good_checkpoint`; try"),
        "{told}"
    );
    match error {
        Error::Diverged { step, kept: Some(epoch), .. } => {
            assert!((9..=16).contains(&step) && epoch.epoch == 1, "{step}, {epoch:?}");
        }
        other => panic!("{other}"),
    }
    assert!(nothing_written(&bench, "out/checkpoint") && nothing_written(&bench, "out/evaluation"));

    // It is what a run of that one epoch gives.
    bench.hyper().epochs = Some(1);
    fs::remove_dir_all(bench.path("resume")).unwrap();
    train(&bench.request("short"), &mut Recorder::default()).unwrap();
    let weights = |folder: &str| fs::read(bench.path(folder).join("model.safetensors")).unwrap();
    assert!(weights("out/last_good_checkpoint") == weights("short/checkpoint"));

    // Without a kept epoch, and in a sweep, there is none.
    bench.hyper().epochs = Some(4);
    bench.hyper().load_best_model = Some(false);
    let error = train(&bench.request("last"), &mut Recorder::default()).unwrap_err();
    assert!(matches!(error, Error::Diverged { kept: None, .. }) && nothing_written(&bench, "last"), "{error}");
    bench.hyper().load_best_model = None;
    bench.spec.metrics_only = true;
    let error = train(&bench.request("trial"), &mut Recorder::default()).unwrap_err();
    assert!(matches!(error, Error::Diverged { kept: None, .. }) && nothing_written(&bench, "trial"), "{error}");
}

#[test]
fn the_last_step_of_an_epoch_may_diverge_too() {
    // A step an epoch: what it spoils is seen in the evaluation after it.
    let mut bench = Bench::new();
    *bench.hyper() = Hyperparameters {
        learning_rate: Some(1e30),
        lr_scheduler_type: Some("constant".into()),
        batch_size: Some(100),
        epochs: Some(3),
        max_length: Some(32),
        ..Default::default()
    };
    match train(&bench.request("out"), &mut Recorder::default()).unwrap_err() {
        Error::Diverged { step: 1, what: "score", rows, kept: None } => {
            assert!(rows.contains("validation lines 1"), "{rows}")
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
    assert!(matches!(failure(&bench), Error::Fields(errors) if errors.names() == ["hyperparameters.max_length"]));

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
