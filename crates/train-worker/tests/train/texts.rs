//! The sequence tasks.
use std::fs;

use quintet_proto::v1::{TextClassificationData, TextTask};
use train_worker::train;

use crate::{
    bad_input::failure,
    support::{Bench, NAMES, PLACES, Recorder},
};

/// The label of a row.
type Answer = &'static dyn Fn(usize) -> String;

/// Texts of which one word tells the answer.
fn texts(rows: usize, offset: usize, answer: impl Fn(usize) -> String) -> String {
    let row = |n: usize| format!("we saw {} in {},{}\n", NAMES[n % 6], PLACES[(n * 7 + n / 6) % 6], answer(n % 6));
    std::iter::once("text,label\n".to_owned()).chain((offset..offset + rows).map(row)).collect()
}

#[test]
fn texts_are_trained_on_by_label_by_labels_and_by_number() {
    let cases: [(TextTask, Answer, &str); 3] = [
        (TextTask::Unspecified, &|n| ["good", "bad", "so so"][n % 3].to_owned(), "single_label_classification"),
        (TextTask::MultiLabel, &|n| ["\"a,b\"", "b", "a"][n % 3].to_owned(), "multi_label_classification"),
        (TextTask::Regression, &|n| format!("{:.2}", n as f64 / 5.0), "regression"),
    ];
    for (task, answer, kind) in cases {
        let mut bench = Bench::new();
        let file = |name: &str, rows, offset| {
            let path = bench.path(name);
            fs::write(&path, texts(rows, offset, answer)).unwrap();
            path.display().to_string()
        };
        let data = TextClassificationData {
            train: file("train.csv", 60, 0),
            validation: file("dev.csv", 24, 60),
            test: file("test.csv", 24, 90),
            task: task.into(),
            ..Default::default()
        };
        bench.spec.data = None;
        bench.spec.text_classification = Some(data);
        if kind == "regression" {
            bench.hyper().focal_gamma = Some(2.0);
            assert!(failure(&bench).to_string().contains("hyperparameters.focal_gamma"));
            bench.hyper().focal_gamma = None;
            // Not defined while all predictions are equal, and then no epoch is the best.
            bench.hyper().metric_for_best_model = Some("pearson".into());
        }
        bench.hyper().epochs = Some(12);
        let report = train(&bench.request("out"), &mut Recorder::default()).unwrap();
        assert_eq!(report.splits["train"].rows, 60);
        let (metric, best) = if kind == "regression" { ("test_mse", 0.02) } else { ("test_f1", 0.9) };
        let value = report.metrics[metric];
        let good = if kind == "regression" { value < best } else { value > best };
        assert!(good, "{kind}: {:?}", report.metrics);
        let config: serde_json::Value =
            serde_json::from_slice(&fs::read(bench.path("out/checkpoint/config.json")).unwrap()).unwrap();
        assert_eq!(config["architectures"], serde_json::json!(["BertForSequenceClassification"]));
        assert_eq!(config["problem_type"], serde_json::json!(kind));
        for name in ["report.json", "worst.md", "worst.jsonl"] {
            assert!(bench.path("out/evaluation").join(name).exists(), "{kind}: {name}");
        }
    }
}
