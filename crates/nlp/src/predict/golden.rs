//! Prediction against the pipelines of `transformers`.
use serde_json::Value;

use super::*;
use crate::{files, task::Task};

/// Made by `tests/peers/pipeline_golden.py` with transformers 4.57.6 and tiny random models.
const GOLDEN: &str = include_str!("../../testdata/pipelines.json");

fn golden() -> Value {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    assert_eq!(golden["transformers"], "4.57.6");
    golden
}

fn list<T: serde::de::DeserializeOwned>(value: &Value) -> Vec<T> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Equal but for the last digits of scores.
fn equal(ours: &Value, theirs: &Value, place: &str) {
    match (ours, theirs) {
        (Value::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{place}: {ours:?}\ninstead of {theirs:?}");
            ours.iter().zip(theirs).for_each(|(ours, theirs)| equal(ours, theirs, place));
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            let mut keys: [Vec<&String>; 2] = [ours.keys().collect(), theirs.keys().collect()];
            keys.iter_mut().for_each(|keys| keys.sort());
            assert_eq!(keys[0], keys[1], "{place}");
            ours.iter().for_each(|(key, value)| equal(value, &theirs[key], &format!("{place}, {key}")));
        }
        (Value::Number(ours), Value::Number(theirs)) => {
            let (ours, theirs) = (ours.as_f64().unwrap(), theirs.as_f64().unwrap());
            assert!((ours - theirs).abs() <= 1e-6 * theirs.abs().max(1.0), "{place}: {ours} instead of {theirs}");
        }
        (ours, theirs) => assert_eq!(ours, theirs, "{place}"),
    }
}

#[test]
fn entities_equal_the_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let mut compared = 0;
    for suite in golden()["tokens"].as_array().unwrap() {
        files::write_file(&path, suite["tokenizer"].to_string().as_bytes()).unwrap();
        let labels: Vec<String> = list(&suite["labels"]);
        for (number, case) in suite["cases"].as_array().unwrap().iter().enumerate() {
            let place = format!("{} case {number}", suite["name"]);
            let size = |key: &str| case.get(key).and_then(Value::as_u64).map(|n| n as usize);
            let tokenizer = PipelineTokenizer::load(&path, size("max_length").unwrap_or(512), size("stride")).unwrap();
            let input = match case.get("words") {
                Some(words) => InputText::Words(list(words)),
                None => InputText::Text(case["text"].as_str().unwrap().to_owned()),
            };
            let rows = tokenizer.rows(&input).unwrap();
            let expected = case["rows"].as_array().unwrap();
            assert_eq!(rows.len(), expected.len(), "{place}");
            let mut probabilities: Vec<Vec<f32>> = Vec::new();
            for (row, expected) in rows.iter().zip(expected) {
                assert_eq!(row.encoded.input_ids, list::<i64>(&expected["ids"]), "{place}");
                assert_eq!(row.special, list::<bool>(&expected["special"]), "{place}");
                assert_eq!(row.offsets, list::<(usize, usize)>(&expected["offsets"]), "{place}");
                let logits: Vec<f32> = list(&expected["logits"]);
                probabilities.push(logits.chunks_exact(labels.len()).flat_map(softmax).collect());
            }
            let scored: Vec<ScoredRow<'_>> = rows
                .iter()
                .zip(&probabilities)
                .map(|(row, probabilities)| ScoredRow {
                    ids: &row.encoded.input_ids,
                    special: &row.special,
                    offsets: &row.offsets,
                    probabilities,
                })
                .collect();
            let text: Vec<char> = input.text().chars().collect();
            let ignored = case.get("ignore_labels").map_or_else(|| vec!["O".to_owned()], list);
            for (name, theirs) in case["strategies"].as_object().unwrap() {
                let context = EntityContext {
                    text: &text,
                    labels: &labels,
                    tokenizer: &tokenizer,
                    strategy: AggregationStrategy::parse(name).unwrap(),
                    ignore_labels: &ignored,
                };
                let ours = serde_json::to_value(context.entities(&scored).unwrap()).unwrap();
                equal(&ours, theirs, &format!("{place} {name}"));
                compared += theirs.as_array().unwrap().len();
            }
        }
    }
    assert!(compared > 1000, "{compared}");
}

#[test]
fn labels_equal_the_pipeline() {
    let golden = golden();
    let cases = golden["texts"].as_array().unwrap();
    assert!(cases.len() > 100);
    for (number, case) in cases.iter().enumerate() {
        let labels: Vec<String> = list(&case["labels"]);
        let task = match case["problem_type"].as_str() {
            Some("regression") => Task::Regression,
            Some("multi_label_classification") => Task::MultiLabelClassification,
            _ => Task::SequenceClassification,
        };
        let function = FunctionToApply::parse(case["function"].as_str().unwrap()).unwrap();
        let scores = function.unwrap_or(FunctionToApply::of(task, labels.len())).apply(&list::<f32>(&case["logits"]));
        let top = top_labels(&labels, &scores, case["top_k"].as_u64().unwrap() as usize).unwrap();
        equal(&serde_json::to_value(top).unwrap(), &case["result"], &format!("case {number}"));
    }
}

#[test]
fn windows_and_lengths_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    files::write_file(&path, golden()["tokens"][0]["tokenizer"].to_string().as_bytes()).unwrap();
    let field = |max_length, stride| match PipelineTokenizer::load(&path, max_length, stride) {
        Err(crate::Error::Argument { field, .. }) => field,
        _ => "none",
    };
    assert_eq!((field(3, None), field(9, Some(7)), field(9, Some(6))), ("max_length", "stride", "none"));
    let tokenizer = PipelineTokenizer::load(&path, 9, Some(6)).unwrap();
    let pair = InputText::Pair("a b c d e f".to_owned(), "g h i j".to_owned());
    assert!(matches!(tokenizer.rows(&pair), Err(crate::Error::Argument { field: "stride", .. })));
    let row = &PipelineTokenizer::load(&path, 9, None).unwrap().rows(&pair).unwrap()[0].encoded;
    assert_eq!(row.type_ids, [0, 0, 0, 0, 0, 1, 1, 1, 1]);
    let problem = AggregationStrategy::parse("mean").unwrap_err().to_string();
    assert!(problem.contains("`mean`") && problem.contains("none, simple, first, average, max"), "{problem}");
}
