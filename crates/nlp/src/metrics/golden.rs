//! The metrics against golden files of their peers.
use serde_json::Value;

use super::*;

/// Made by `tests/peers/metrics_golden.py` with scikit-learn 1.9.1, SciPy 1.17.1 and torchmetrics.
const GOLDEN: &str = include_str!("../../testdata/metrics.json");

const QUIET: Bootstrap = Bootstrap { resamples: 20, confidence: 0.95, seed: 1 };

fn cases(name: &str) -> Vec<Value> {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    assert_eq!(golden["scikit-learn"], "1.9.1");
    let cases = golden[name].as_array().unwrap().clone();
    assert!(cases.len() >= 20);
    cases
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn close(ours: f64, theirs: &Value, place: &str) {
    let theirs = theirs.as_f64().unwrap();
    assert!((ours - theirs).abs() < 1e-6 * theirs.abs().max(1.0), "{place}: {ours} instead of {theirs}");
}

fn averages(report: &ClassReport, theirs: &Value, place: &str) {
    for (name, scores) in
        [("micro", &report.micro), ("macro", &report.macro_average), ("weighted", &report.weighted_average)]
    {
        close(scores.precision, &theirs[name]["precision"], &format!("{place} {name} precision"));
        close(scores.recall, &theirs[name]["recall"], &format!("{place} {name} recall"));
        close(scores.f1, &theirs[name]["f1"], &format!("{place} {name} f1"));
    }
}

fn classes(report: &ClassReport, theirs: &Value, place: &str) {
    let rows = theirs.as_array().unwrap();
    assert_eq!(report.classes.len(), rows.len(), "{place}");
    for (ours, theirs) in report.classes.iter().zip(rows) {
        close(ours.scores.precision, &theirs["precision"], place);
        close(ours.scores.recall, &theirs["recall"], place);
        close(ours.scores.f1, &theirs["f1"], place);
        close(ours.scores.support as f64, &theirs["support"], place);
    }
}

fn label_names(count: &Value) -> Vec<String> {
    (0..count.as_u64().unwrap()).map(|label| format!("L{label}")).collect()
}

fn agrees(report: &TextReport) {
    for (name, interval) in &report.intervals {
        let value = report.metrics[name];
        assert!((interval.value - value).abs() < 1e-9 * value.abs().max(1.0), "{name}: {interval:?} beside {value}");
    }
    for name in report.metrics.keys() {
        assert!(greater_is_better(name).is_some(), "{name}");
    }
}

#[test]
fn words_equal_scikit_learn() {
    for (number, case) in cases("tokens").iter().enumerate() {
        let place = format!("case {number}");
        let split = |key: &str| vec![case[key].as_str().unwrap().split(' ').map(str::to_owned).collect::<Vec<_>>()];
        let (gold, predicted) = (split("gold"), split("predicted"));
        let labels: Vec<String> = serde_json::from_value(case["labels"].clone()).unwrap();
        let predictions = TokenPredictions { labels: &labels, gold: &gold, predicted: &predicted, probabilities: None };
        let report = evaluate_tokens(&predictions, &QUIET).unwrap();
        assert_eq!(report.scores.token_confusion.labels, labels);
        assert_eq!(serde_json::json!(report.scores.token_confusion.counts), case["confusion"], "{place}");
        classes(&report.scores.tokens, &case["classes"], &place);
        averages(&report.scores.tokens, &case["averages"], &place);
        averages(&report.scores.tokens_without_outside, &case["averages_without_outside"], &place);
        close(report.metrics["accuracy"], &case["accuracy"], &place);
        close(report.metrics[canonical("macro-f1")], &case["macro_f1_of_gold"], &place);
    }
}

#[test]
fn texts_equal_scikit_learn() {
    for (number, case) in cases("classes").iter().enumerate() {
        let place = format!("case {number}");
        let labels = label_names(&case["labels"]);
        let gold: Vec<usize> = serde_json::from_value(case["gold"].clone()).unwrap();
        let probabilities = floats(&case["probabilities"]);
        let predictions = TextPredictions::Class { labels: &labels, gold: &gold, probabilities: &probabilities };
        let report = evaluate_texts(&predictions, &QUIET).unwrap();
        let TextScores::Class(scores) = &report.scores else { panic!("{report:?}") };
        classes(&scores.classes, &case["classes"], &place);
        averages(&scores.classes, &case["averages"], &place);
        let keys = [
            "accuracy",
            "balanced_accuracy",
            "matthews_correlation",
            "nll",
            "brier",
            "ece",
            "mce",
            "adaptive_ece",
            "f1",
        ];
        for key in keys.into_iter().filter(|key| case.get(key).is_some()) {
            close(report.metrics[key], &case[key], &format!("{place} {key}"));
        }
        for (k, value) in case["top_k"].as_object().unwrap() {
            close(report.metrics[&format!("top_{k}_accuracy")], value, &format!("{place} top {k}"));
        }
        agrees(&report);
    }
}

#[test]
fn label_sets_equal_scikit_learn() {
    for (number, case) in cases("multi_label").iter().enumerate() {
        let place = format!("case {number}");
        let labels = label_names(&case["labels"]);
        let (gold, probabilities) = (floats(&case["gold"]), floats(&case["probabilities"]));
        let predictions =
            TextPredictions::MultiLabel { labels: &labels, gold: &gold, probabilities: &probabilities, threshold: 0.5 };
        let report = evaluate_texts(&predictions, &QUIET).unwrap();
        let TextScores::MultiLabel(scores) = &report.scores else { panic!("{report:?}") };
        averages(&scores.labels, &case["averages"], &place);
        for key in
            ["f1_samples", "subset_accuracy", "hamming_loss", "average_precision_macro", "average_precision_micro"]
        {
            close(report.metrics[key], &case[key], &format!("{place} {key}"));
        }
        for (ours, theirs) in scores.average_precision.iter().zip(case["average_precision"].as_array().unwrap()) {
            close(*ours, theirs, &place);
        }
        agrees(&report);
    }
}

#[test]
fn numbers_equal_scikit_learn_and_scipy() {
    for (number, case) in cases("numbers").iter().enumerate() {
        let (gold, predicted) = (floats(&case["gold"]), floats(&case["predicted"]));
        let predictions = TextPredictions::Regression { gold: &gold, predicted: &predicted };
        let report = evaluate_texts(&predictions, &QUIET).unwrap();
        for key in ["mse", "rmse", "mae", "r2", "pearson", "spearman"] {
            close(report.metrics[key], &case[key], &format!("case {number} {key}"));
        }
        agrees(&report);
    }
}

#[test]
fn wrong_shapes_and_values_are_refused() {
    let labels = label_names(&3.into());
    let field = |predictions: TextPredictions<'_>| match evaluate_texts(&predictions, &QUIET) {
        Err(crate::Error::Argument { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let class = |gold, probabilities| TextPredictions::Class { labels: &labels, gold, probabilities };
    assert_eq!(field(class(&[0, 1], &[0.1; 3])), "probabilities");
    assert_eq!(field(class(&[3], &[0.1; 3])), "gold");
    assert_eq!(field(class(&[0], &[f32::NAN; 3])), "probabilities");
    let sets =
        |gold, threshold| TextPredictions::MultiLabel { labels: &labels, gold, probabilities: &[0.5; 3], threshold };
    assert_eq!(field(sets(&[1.0; 4], 0.5)), "gold");
    assert_eq!(field(sets(&[1.0; 3], f64::NAN)), "threshold");
    let numbers = |gold, predicted| TextPredictions::Regression { gold, predicted };
    assert_eq!(field(numbers(&[1.0], &[])), "predicted");
    assert_eq!(field(numbers(&[1.0], &[f32::INFINITY])), "predicted");
    let none = evaluate_texts(&class(&[], &[]), &QUIET).unwrap();
    assert!(none.intervals.is_empty() && none.metrics["accuracy"] == 0.0);
}
