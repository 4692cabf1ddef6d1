//! Runs whose head is a CRF over the words.
use std::fs;

use quintet_nlp::{
    checkpoint::Checkpoint,
    crf::{self, Crf},
    decoder::Decoder,
    evaluation::EvaluationSet,
    metrics::TokenReport,
};
use quintet_proto::v1::{Hyperparameters, PredictSpec};
use serde_json::Value;
use train_worker::{DeviceChoice, Directive, Outcome, PredictRequest, TrainRequest, predict, train};

use crate::{
    resume::ends_alike_after_kills,
    support::{Bench, Recorder},
};

fn bench(given: Hyperparameters) -> Bench {
    let mut bench = Bench::new();
    let before = bench.hyper().clone();
    *bench.hyper() = Hyperparameters {
        crf: Some(true),
        learning_rate: given.learning_rate.or(before.learning_rate),
        epochs: given.epochs.or(before.epochs),
        batch_size: given.batch_size.or(before.batch_size),
        max_length: given.max_length.or(before.max_length),
        ..given
    };
    bench
}

fn weights(bench: &Bench, out: &str) -> Vec<u8> {
    fs::read(bench.path(out).join("checkpoint/model.safetensors")).unwrap()
}

fn scores(bench: &Bench, out: &str) -> Crf {
    Crf::of(&Checkpoint::open(&bench.path(out).join("checkpoint")).unwrap()).unwrap().unwrap()
}

#[test]
fn a_run_learns_and_everything_after_it_decodes() {
    let bench = bench(Hyperparameters { head_learning_rate: Some(2e-2), ..Default::default() });
    let mut recorder = Recorder::default();
    let report = train(&bench.request("out"), &mut recorder).unwrap();
    let drawn =
        "drawn anew: classifier.weight, classifier.bias, crf.start_transitions, crf.end_transitions, crf.transitions";
    assert!(recorder.log.iter().any(|line| line.contains(drawn)), "{:?}", recorder.log);
    assert!(report.metrics["test_f1"] > 0.95, "{:?}", report.epochs);
    assert!(report.epochs[3].train_loss < report.epochs[0].train_loss / 2.0);
    assert!(report.hyperparameters.crf);

    let folder = bench.path("out/checkpoint");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    assert!(checkpoint.has_head() && checkpoint.config.has_crf());
    let config: Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["crf"], &config["architectures"][0]), (&true.into(), &"BertForTokenClassification".into()));
    let shapes = [crf::TRANSITIONS, crf::START_TRANSITIONS, crf::END_TRANSITIONS]
        .map(|name| checkpoint.weights.get(name).unwrap().shape.to_vec());
    assert_eq!(shapes, [vec![5, 5], vec![5], vec![5]]);
    // What is seen follows what is never seen: labels are O, B-loc, I-loc, B-per, I-per.
    let transitions = checkpoint.weights.f32(crf::TRANSITIONS, &[5, 5]).unwrap();
    assert!(transitions[5 + 2] > transitions[2], "I-loc after B-loc, and after O: {transitions:?}");

    let set = EvaluationSet::load(&bench.path("out/evaluation")).unwrap();
    let decoder = Decoder::new(Crf::of(&checkpoint).unwrap(), 5);
    let row = set.description.length * 5;
    for index in 0..set.description.logit_rows {
        let tags = set.predicted_tags(index, &set.logits[index * row..(index + 1) * row], &decoder).unwrap();
        assert_eq!(tags, set.description.predicted_tags[index]);
    }
    let whole: TokenReport =
        serde_json::from_slice(&fs::read(bench.path("out/evaluation/report.json")).unwrap()).unwrap();
    let calibration = whole.scores.calibration.unwrap();
    assert_eq!(calibration.count, set.description.gold_tags.iter().map(Vec::len).sum::<usize>());
    assert!(calibration.nll < 0.2, "{calibration:?}");

    // Prediction: all strategies tell the same entities, those of the evaluation.
    let lines: Vec<String> = (0..set.description.rows)
        .map(|index| {
            let row = set.row(index).unwrap();
            serde_json::json!({"tokens": words(&bench, index), "id": row.word_count}).to_string()
        })
        .collect();
    fs::write(bench.path("texts.jsonl"), lines.join("\n")).unwrap();
    let mut told: Vec<Vec<String>> = Vec::new();
    for strategy in ["simple", "first", "average", "max"] {
        let spec = PredictSpec {
            checkpoint: folder.display().to_string(),
            input: bench.path("texts.jsonl").display().to_string(),
            aggregation_strategy: strategy.to_owned(),
            ..Default::default()
        };
        told.push(predicted(&bench, strategy, &spec).iter().map(|answer| answer["entities"].to_string()).collect());
    }
    assert!(told.iter().all(|answers| *answers == told[0]));
    for (answers, tags) in told[0].iter().zip(&set.description.predicted_tags) {
        let found: Value = serde_json::from_str(answers).unwrap();
        let found: Vec<&str> =
            found.as_array().unwrap().iter().filter_map(|entity| entity["entity_group"].as_str()).collect();
        let expected: Vec<&str> = tags.iter().filter_map(|tag| tag.strip_prefix("B-")).collect();
        assert_eq!(found, expected, "{answers}");
    }
}

/// The words of a row of the test file.
fn words(bench: &Bench, row: usize) -> Vec<String> {
    let file = fs::read_to_string(bench.path("test.conll")).unwrap();
    let sentence = file.split("\n\n").nth(row).unwrap();
    sentence.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn predicted(bench: &Bench, out: &str, spec: &PredictSpec) -> Vec<Value> {
    let out = bench.path(out);
    let mut request = PredictRequest::from_spec(spec, &out, &out.join("resume"), 1).unwrap();
    request.device = DeviceChoice::Cpu;
    assert!(!predict(&request, &mut Recorder::default()).unwrap().stopped);
    let content = fs::read_to_string(out.join("predictions.jsonl")).unwrap();
    content.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn other_settings_learn_too() {
    let h = Hyperparameters::default;
    let cases = [
        Hyperparameters { optim: Some("adafactor".into()), learning_rate: Some(1e-2), ..h() },
        Hyperparameters { optim: Some("lion".into()), learning_rate: Some(2e-3), ..h() },
        Hyperparameters { lora_r: Some(4), learning_rate: Some(2e-2), epochs: Some(6), ..h() },
        Hyperparameters { freeze_layers: Some(1), head_learning_rate: Some(2e-2), ..h() },
        Hyperparameters {
            gradient_accumulation: Some("mean".into()),
            gradient_accumulation_steps: Some(2),
            batch_size: Some(4),
            ..h()
        },
    ];
    for given in cases {
        let mut bench = bench(given);
        bench.spec.metrics_only = true;
        let report = train(&bench.request("out"), &mut Recorder::default()).unwrap();
        assert!(report.metrics["f1"] > 0.8, "{:?}: {:?}", bench.hyper(), report.metrics);
    }
}

#[test]
fn each_window_of_a_document_is_a_chain() {
    let mut bench = bench(Hyperparameters { max_length: Some(7), epochs: Some(6), ..Default::default() });
    bench.spec.data.as_mut().unwrap().stride = Some(2);
    let report = train(&bench.request("out"), &mut Recorder::default()).unwrap();
    assert!(report.splits["train"].rows > 60, "{:?}", report.splits);
    assert_eq!(report.splits["test"].unseen_words, 0);
    assert!(report.metrics["test_f1"] > 0.9, "{:?}", report.epochs);
    let set = EvaluationSet::load(&bench.path("out/evaluation")).unwrap();
    let decoder = Decoder::new(Some(scores(&bench, "out")), 5);
    let row = set.description.length * 5;
    for index in 0..set.description.logit_rows {
        let tags = set.predicted_tags(index, &set.logits[index * row..(index + 1) * row], &decoder).unwrap();
        assert_eq!(tags, set.description.predicted_tags[index]);
    }
}

#[test]
fn an_interrupted_run_ends_like_an_undisturbed_one() {
    let h = Hyperparameters::default;
    for given in [
        Hyperparameters { ema_decay: Some(0.8), weight_decay: Some(0.1), ..h() },
        Hyperparameters { optim: Some("adafactor".into()), lora_r: Some(4), learning_rate: Some(2e-2), ..h() },
    ] {
        let bench = bench(given);
        let mut undisturbed = bench.request("whole");
        undisturbed.resume_dir = None;
        let whole = train(&undisturbed, &mut Recorder::default()).unwrap();
        for step in [11, 27] {
            let mut recorder = Recorder { stop: Some((step, Directive::Cancel)), ..Recorder::default() };
            assert_eq!(train(&bench.request("parts"), &mut recorder).unwrap().outcome, Outcome::Cancelled);
        }
        let mut last = Recorder::default();
        let parts = train(&bench.request("parts"), &mut last).unwrap();
        assert!(last.log.iter().any(|line| line.contains("resuming after epoch")), "{:?}", last.log);
        assert_eq!(parts.metrics, whole.metrics);
        assert_eq!(parts.evaluation, whole.evaluation);
        assert!(weights(&bench, "parts") == weights(&bench, "whole"), "the weights differ");
    }
}

#[test]
fn a_run_killed_at_random_steps_ends_with_the_same_weights() {
    let mut bench = bench(Hyperparameters { epochs: Some(8), batch_size: Some(8), ..Default::default() });
    bench.hyper().ema_decay = Some(0.9);
    ends_alike_after_kills(&bench, 8 * 8, 6);
}

fn numbers(crf: &Crf, tensor: &str) -> Vec<f64> {
    fn flat(value: &Value) -> Vec<f64> {
        value.as_array().map_or_else(|| vec![value.as_f64().unwrap()], |list| list.iter().flat_map(flat).collect())
    }
    flat(&serde_json::to_value(crf).unwrap()[tensor])
}

/// Trains from the checkpoint of `first`, `crf` on or off; gives what was logged.
fn further(bench: &Bench, first: &str, out: &str, crf: bool) -> Vec<String> {
    let mut spec = bench.spec.clone();
    spec.checkpoint = bench.path(first).join("checkpoint").display().to_string();
    let hyper = spec.hyperparameters.get_or_insert_default();
    (hyper.crf, hyper.epochs, hyper.learning_rate) = (Some(crf), Some(1), Some(1e-9));
    let mut request = TrainRequest::from_spec(&spec, &bench.path(out), None, 1).unwrap();
    request.device = DeviceChoice::Cpu;
    let mut recorder = Recorder::default();
    train(&request, &mut recorder).unwrap();
    recorder.log
}

#[test]
fn a_checkpoints_crf_is_gone_on_with_or_left_out() {
    let bench = bench(Hyperparameters { epochs: Some(1), ..Default::default() });
    train(&bench.request("first"), &mut Recorder::default()).unwrap();
    let log = further(&bench, "first", "second", true);
    assert!(log.iter().any(|line| line.contains("head taken over")), "{log:?}");
    let (before, after) = (scores(&bench, "first"), scores(&bench, "second"));
    let moved =
        numbers(&before, "transitions").into_iter().zip(numbers(&after, "transitions")).map(|(a, b)| (a - b).abs());
    assert!(moved.fold(0.0, f64::max) < 1e-6, "{before:?} {after:?}");
    // Left out, and put on anew: the classifier stays.
    let log = further(&bench, "second", "third", false);
    assert!(log.iter().any(|line| line.contains("CRF is left out")), "{log:?}");
    let checkpoint = Checkpoint::open(&bench.path("third/checkpoint")).unwrap();
    assert!(!checkpoint.config.has_crf() && !checkpoint.weights.contains(crf::TRANSITIONS));
    let log = further(&bench, "third", "fourth", true);
    let drawn = "drawn anew: crf.start_transitions, crf.end_transitions, crf.transitions";
    assert!(log.iter().any(|line| line.contains(drawn)), "{log:?}");
    let ends = numbers(&scores(&bench, "fourth"), "end_transitions");
    assert!(ends.iter().all(|score| score.abs() <= 0.1) && ends.iter().any(|score| score.abs() > 0.01), "{ends:?}");
}

#[test]
fn what_a_crf_excludes_is_named() {
    let h = Hyperparameters::default;
    let weights = [("O".to_owned(), 0.5)].into();
    for (given, other) in [
        (Hyperparameters { label_smoothing_factor: Some(0.1), ..h() }, "label_smoothing_factor"),
        (Hyperparameters { class_weights: weights, ..h() }, "class_weights"),
        (Hyperparameters { balanced_class_weights: Some(true), ..h() }, "balanced_class_weights"),
        (Hyperparameters { focal_gamma: Some(2.0), ..h() }, "focal_gamma"),
    ] {
        let bench = bench(given);
        let refused = TrainRequest::from_spec(&bench.spec, &bench.path("out"), None, 1).unwrap_err();
        let told: Vec<&str> = refused.0.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(told, ["hyperparameters.crf"]);
        assert!(refused.0[0].problem.contains(&format!("`{other}`")), "{refused}");
    }
}

#[test]
fn scores_that_are_no_numbers_are_refused_by_prediction() {
    let bench = bench(Hyperparameters { epochs: Some(1), ..Default::default() });
    train(&bench.request("out"), &mut Recorder::default()).unwrap();
    let path = bench.path("out/checkpoint/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let index: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let place = 8 + header + index[crf::TRANSITIONS]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[place..place + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    fs::write(bench.path("texts.txt"), "in paris").unwrap();
    let spec = PredictSpec {
        checkpoint: bench.path("out/checkpoint").display().to_string(),
        input: bench.path("texts.txt").display().to_string(),
        ..Default::default()
    };
    let out = bench.path("predicted");
    let request = PredictRequest::from_spec(&spec, &out, &out.join("resume"), 1).unwrap();
    let error = predict(&request, &mut Recorder::default()).unwrap_err().to_string();
    assert!(error.contains("crf.transitions") && error.contains("NaN"), "{error}");
}
