//! What hyperparameters do to a run.
use quintet_nlp::checkpoint::Checkpoint;
use quintet_proto::v1::Hyperparameters;
use train_worker::train;

use crate::{
    bad_input::failure,
    support::{Bench, Recorder},
};

#[test]
fn accumulated_batches_train_as_one_large_batch() {
    let losses = |batch_size, accumulated, how: &str| {
        let mut bench = Bench::new();
        *bench.hyper() = Hyperparameters {
            batch_size: Some(batch_size),
            gradient_accumulation_steps: Some(accumulated),
            gradient_accumulation: Some(how.to_owned()),
            epochs: Some(2),
            group_by_length: Some(false),
            learning_rate: Some(5e-3),
            ..Default::default()
        };
        bench.without_dropout();
        bench.spec.metrics_only = true;
        let report = train(&bench.request("out"), &mut Recorder::default()).unwrap();
        assert_eq!(report.steps, 2 * 5);
        report.epochs.iter().map(|epoch| epoch.train_loss).collect::<Vec<_>>()
    };
    let whole = losses(12, 1, "tokens");
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(close(&whole, &losses(4, 3, "tokens")), "{whole:?}");
    // Rows have different numbers of words, so that the mean of means is another number.
    assert!(!close(&whole, &losses(4, 3, "mean")));
}

#[test]
fn patience_ends_training() {
    let mut bench = Bench::new();
    bench.spec.metrics_only = true;
    bench.hyper().epochs = Some(50);
    bench.hyper().early_stopping_patience = Some(2);
    let mut recorder = Recorder::default();
    let report = train(&bench.request("out"), &mut recorder).unwrap();
    assert!(report.epochs.len() < 50, "{}", report.epochs.len());
    assert_eq!(report.epochs.len(), report.kept_epoch.unwrap() + 2);
    assert!(recorder.log.iter().any(|line| line.contains("stopping early: no improvement in 2 epochs")));
    // By another metric, and without any improvement that counts.
    let mut bench = Bench::new();
    bench.spec.metrics_only = true;
    bench.hyper().metric_for_best_model = Some("loss".into());
    bench.hyper().early_stopping_patience = Some(1);
    bench.hyper().early_stopping_threshold = Some(1e9);
    assert_eq!(train(&bench.request("out"), &mut Recorder::default()).unwrap().epochs.len(), 2);
    // Any metric of the report will do; one of another task is refused before the first step.
    for metric in ["nll", "f1_macro", "loc_f1", "eval_token_f1_macro"] {
        bench.hyper().metric_for_best_model = Some(metric.into());
        assert_eq!(train(&bench.request("out"), &mut Recorder::default()).unwrap().epochs.len(), 2, "{metric}");
    }
    for metric in ["pearson", "top_3_accuracy", "test_f1", "train_loss"] {
        bench.hyper().metric_for_best_model = Some(metric.into());
        let mut recorder = Recorder::default();
        let error = train(&bench.request("out"), &mut recorder).unwrap_err().to_string();
        assert!(error.contains("metric_for_best_model") && error.contains("f1_strict"), "{error}");
        assert!(error.contains(metric) && !error.contains("loc_f1") && recorder.steps.is_empty(), "{error}");
    }
}

#[test]
fn other_optimizers_averages_and_losses_learn_too() {
    let h = Hyperparameters::default;
    let cases = [
        Hyperparameters { optim: Some("lion".into()), learning_rate: Some(3e-3), ..h() },
        Hyperparameters { optim: Some("adafactor".into()), learning_rate: Some(5e-3), ..h() },
        Hyperparameters { ema_decay: Some(0.8), ..h() },
        Hyperparameters { tokens_per_batch: Some(100), lr_scheduler_type: Some("cosine".into()), ..h() },
        Hyperparameters { focal_gamma: Some(2.0), balanced_class_weights: Some(true), ..h() },
        Hyperparameters { label_smoothing_factor: Some(0.1), layer_decay: Some(0.9), ..h() },
        Hyperparameters { freeze_layers: Some(1), head_learning_rate: Some(1e-2), epochs: Some(8), ..h() },
    ];
    for given in cases {
        let mut bench = Bench::new();
        bench.spec.metrics_only = true;
        *bench.hyper() = Hyperparameters {
            learning_rate: given.learning_rate.or(Some(5e-3)),
            epochs: given.epochs.or(Some(6)),
            batch_size: Some(8),
            max_length: Some(32),
            ..given
        };
        let report = train(&bench.request("out"), &mut Recorder::default()).unwrap();
        assert!(report.metrics["f1"] > 0.8, "{:?}: {:?}", bench.hyper(), report.metrics);
    }
}

#[test]
fn frozen_layers_stay_as_they_are() {
    let mut bench = Bench::new();
    bench.hyper().freeze_layers = Some(1);
    train(&bench.request("out"), &mut Recorder::default()).unwrap();
    let tensors = |dir: &str| Checkpoint::open(&bench.path(dir)).unwrap();
    let (before, after) = (tensors("base"), tensors("out/checkpoint"));
    for name in before.weights.names().filter(|name| after.weights.contains(name)) {
        let same = before.weights.get(name).unwrap().data == after.weights.get(name).unwrap().data;
        let frozen = name.starts_with("embeddings.") || name.starts_with("encoder.layer.0.");
        assert_eq!(same, frozen, "{name}");
    }
    bench.hyper().freeze_layers = Some(3);
    let error = failure(&Bench { dir: tempfile::tempdir().unwrap(), spec: bench.spec.clone() }).to_string();
    assert!(error.contains("freeze_layers") && error.contains("2 layers"), "{error}");
}
