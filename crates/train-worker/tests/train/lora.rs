//! Runs that train low-rank changes and publish merged weights.
use std::fs;

use quintet_nlp::{
    checkpoint::{Checkpoint, Elements, Weights, write_safetensors},
    evaluation::EvaluationSet,
};
use quintet_proto::v1::Hyperparameters;
use train_worker::{
    Directive, Error, Outcome,
    probe::{Steps, probe},
    train,
};

use crate::{
    bad_input::failure,
    support::{Bench, Recorder},
};

fn bench(given: Hyperparameters) -> Bench {
    let mut bench = Bench::new();
    *bench.hyper() = Hyperparameters {
        lora_r: Some(4),
        learning_rate: given.learning_rate.or(Some(2e-2)),
        epochs: Some(6),
        batch_size: Some(8),
        max_length: Some(32),
        ..given
    };
    bench
}

#[test]
fn a_run_learns_and_publishes_merged_weights() {
    let bench = bench(Hyperparameters { weight_decay: Some(0.1), ..Default::default() });
    let report = train(&bench.request("out"), &mut Recorder::default()).unwrap();
    assert!(report.metrics["test_f1"] > 0.9, "{:?}", report.metrics);

    let before = Checkpoint::open(&bench.path("base")).unwrap().weights;
    let after = Checkpoint::open(&bench.path("out/checkpoint")).unwrap().weights;
    let new: Vec<&str> = after.names().filter(|name| !before.contains(name)).collect();
    assert_eq!(new, ["classifier.bias", "classifier.weight"]);
    let mut changed = 0;
    for name in before.names().filter(|name| after.contains(name)) {
        let same = before.get(name).unwrap().data == after.get(name).unwrap().data;
        let projection = name.starts_with("encoder.layer.") && name.ends_with(".weight") && !name.contains("LayerNorm");
        assert_eq!(same, !projection, "{name}");
        changed += usize::from(projection);
    }
    assert_eq!(changed, 2 * 6);

    // What the checkpoint computes is what the evaluation tells.
    let set = EvaluationSet::load(&bench.path("out/evaluation")).unwrap();
    let (rows, length) = (set.description.logit_rows, set.description.length);
    let part = |values: &[i64]| values[..rows * length].to_vec();
    let inputs = [
        ("input_ids", part(&set.input_ids)),
        ("attention_mask", part(&set.attention_mask)),
        ("token_type_ids", part(&set.token_type_ids)),
        ("labels", part(&set.labels)),
    ];
    let tensors: Vec<_> =
        inputs.iter().map(|(name, values)| ((*name).to_owned(), vec![rows, length], Elements::I64(values))).collect();
    let file = bench.path("inputs.safetensors");
    write_safetensors(&file, &tensors).unwrap();
    let steps = Steps { count: 0, learning_rate: 0.0, weight_decay: 0.0, max_grad_norm: 0.0 };
    probe(&bench.path("out/checkpoint"), &file, &bench.path("probe"), steps).unwrap();
    let probed = Weights::open_file(&bench.path("probe/probe.safetensors")).unwrap();
    let logits = probed.f32("logits", &[rows, length, report.labels.len()]).unwrap();
    let difference = logits.iter().zip(&set.logits).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(difference < 1e-4, "{difference}");
    // The weights of the best epoch: the run's own metrics are those of the merged weights.
    let kept = &report.epochs[report.kept_epoch.unwrap() - 1];
    assert_eq!(report.metrics["f1"], kept.metrics["f1"]);
}

#[test]
fn other_optimizers_averages_and_rates_by_layer_learn_too() {
    let h = Hyperparameters::default;
    let cases = [
        Hyperparameters { optim: Some("adafactor".into()), ..h() },
        Hyperparameters { optim: Some("lion".into()), learning_rate: Some(1e-2), ..h() },
        Hyperparameters { ema_decay: Some(0.8), lora_alpha: Some(16.0), ..h() },
        Hyperparameters { layer_decay: Some(0.9), head_learning_rate: Some(1e-2), ..h() },
    ];
    for given in cases {
        let mut bench = bench(given);
        bench.spec.metrics_only = true;
        let report = train(&bench.request("out"), &mut Recorder::default()).unwrap();
        assert!(report.metrics["f1"] > 0.8, "{:?}: {:?}", bench.hyper(), report.metrics);
    }
}

#[test]
fn an_interrupted_run_ends_like_an_undisturbed_one() {
    for optim in ["adamw", "adafactor"] {
        let bench = bench(Hyperparameters { optim: Some(optim.into()), ..Default::default() });
        let mut undisturbed = bench.request("whole");
        undisturbed.resume_dir = None;
        let whole = train(&undisturbed, &mut Recorder::default()).unwrap();
        for step in [11, 29] {
            let mut recorder = Recorder { stop: Some((step, Directive::Cancel)), ..Recorder::default() };
            assert_eq!(train(&bench.request("parts"), &mut recorder).unwrap().outcome, Outcome::Cancelled);
        }
        let mut last = Recorder::default();
        let parts = train(&bench.request("parts"), &mut last).unwrap();
        assert!(last.log.iter().any(|line| line.contains("resuming after epoch")), "{:?}", last.log);
        assert_eq!(parts.metrics, whole.metrics);
        assert_eq!(parts.evaluation, whole.evaluation);
        let weights = |out: &str| fs::read(bench.path(out).join("checkpoint/model.safetensors")).unwrap();
        assert!(weights("parts") == weights("whole"), "{optim}: the weights differ");
    }
}

#[test]
fn a_rank_above_the_width_is_refused() {
    let mut bench = bench(Hyperparameters::default());
    bench.hyper().lora_r = Some(33);
    match failure(&bench) {
        Error::Fields(errors) => {
            assert_eq!(errors.names(), ["hyperparameters.lora_r"]);
            let told = errors.to_string();
            assert!(told.contains("33") && told.contains("up to 32"), "{told}");
        }
        other => panic!("{other}"),
    }
}
