//! Whole training runs on tiny checkpoints: what they learn, leave, resume and refuse.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests

mod bad_input;
mod crf;
mod cuda;
mod devices;
mod families;
mod lora;
mod memory;
mod precision;
mod resume;
mod settings;
mod support;
mod texts;

use std::path::{Path, PathBuf};

use quintet_nlp::{
    checkpoint::Checkpoint,
    decoder::Decoder,
    evaluation::EvaluationSet,
    seqeval::{Mode, evaluate},
};
use quintet_proto::v1::Hyperparameters;
use train_worker::{Directive, Outcome, train};

use crate::support::{Bench, Recorder, entities, nothing_written};

#[test]
fn a_run_learns_and_leaves_whole_outputs() {
    let bench = Bench::new();
    let mut recorder = Recorder::default();
    let report = train(&bench.request("out"), &mut recorder).unwrap();

    assert_eq!(report.outcome, Outcome::Completed);
    assert_eq!(report.labels, ["O", "B-loc", "I-loc", "B-per", "I-per"]);
    assert!(report.metrics["test_f1"] > 0.95, "{:?}", report.epochs);
    assert!(report.epochs[3].train_loss < report.epochs[0].train_loss / 2.0);
    assert_eq!((report.steps, recorder.total), (32, 32));
    assert!(recorder.steps.is_sorted());
    let f1: Vec<i64> = recorder.metrics.iter().filter(|(key, ..)| key == "f1").map(|(_, _, step)| *step).collect();
    assert_eq!(f1, [1, 2, 3, 4]);
    let kept = &report.epochs[report.kept_epoch.unwrap() - 1];
    assert!(report.epochs.iter().all(|epoch| epoch.metrics["f1"] <= kept.metrics["f1"]));
    assert_eq!(report.metrics["f1"], kept.metrics["f1"]);

    let checkpoint = Checkpoint::open(&bench.path("out/checkpoint")).unwrap();
    assert!(checkpoint.has_head());
    assert_eq!(checkpoint.config.labels, report.labels);
    checkpoint.tokenizer().unwrap();

    let set = EvaluationSet::load(&bench.path("out/evaluation")).unwrap();
    assert_eq!((set.description.split.as_str(), set.description.rows, set.description.logit_rows), ("test", 80, 64));
    let again = evaluate(&set.description.gold_tags, &set.description.predicted_tags, Mode::Default).unwrap();
    assert_eq!(Some(&again), report.evaluation.as_ref().map(entities));
    // The logits of the first rows say what the predictions say.
    let decoder = Decoder::new(None, set.description.labels.len());
    let row = set.description.length * set.description.labels.len();
    for index in 0..64 {
        let tags = set.predicted_tags(index, &set.logits[index * row..(index + 1) * row], &decoder).unwrap();
        assert_eq!(tags, set.description.predicted_tags[index]);
    }
}

#[test]
fn a_pruned_trial_stops_at_once_and_writes_nothing() {
    let mut bench = Bench::new();
    bench.spec.metrics_only = true;
    let mut recorder = Recorder { stop: Some((9, Directive::Prune)), ..Recorder::default() };
    let report = train(&bench.request("out"), &mut recorder).unwrap();
    assert_eq!((report.outcome, report.steps, report.epochs.len()), (Outcome::Pruned, 9, 1));
    assert_eq!(report.metrics["f1"], report.epochs[0].metrics["f1"]);

    let report = train(&bench.request("out"), &mut Recorder::default()).unwrap();
    assert_eq!(report.outcome, Outcome::Completed);
    assert!(report.evaluation.is_none() && !report.metrics.contains_key("test_f1"));
    assert!(nothing_written(&bench, "out"));
}

#[test]
fn without_a_validation_file_a_part_is_held_out() {
    let mut bench = Bench::new();
    let data = bench.spec.data.as_mut().unwrap();
    data.validation.clear();
    data.test.clear();
    data.validation_fraction = 0.25;
    bench.hyper().load_best_model = Some(false);
    let report = train(&bench.request("out"), &mut Recorder::default()).unwrap();
    assert_eq!((report.splits["train"].rows, report.splits["validation"].rows), (45, 15));
    assert_eq!(report.kept_epoch, Some(4));
    assert_eq!(EvaluationSet::load(&bench.path("out/evaluation")).unwrap().description.split, "validation");
    // The last epoch was kept, so that its validation is the final one.
    let last = report.epochs.last().unwrap();
    assert_eq!(entities(&report.evaluation.unwrap()).micro.f1, last.metrics["f1"]);
}

/// The pretrained encoder of the demo, when the set-up has fetched it.
fn pretrained() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.runtime/models/all-MiniLM-L6-v2");
    if path.join("model.safetensors").exists() {
        return Some(path);
    }
    eprintln!("`{}` is absent: run `cargo xtask setup --demo`; this test checked nothing", path.display());
    None
}

#[test]
fn a_pretrained_encoder_learns_in_a_few_steps() {
    let Some(path) = pretrained() else { return };
    let mut bench = Bench::new();
    bench.spec.checkpoint = path.display().to_string();
    bench.spec.metrics_only = true;
    *bench.hyper() =
        Hyperparameters { learning_rate: Some(5e-4), epochs: Some(2), batch_size: Some(8), ..Default::default() };
    let mut recorder = Recorder::default();
    let report = train(&bench.request("out"), &mut recorder).unwrap();
    assert!(report.metrics["f1"] > 0.9, "{:?}", report.epochs);
}
