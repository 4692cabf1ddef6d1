//! Prediction against the pipelines of `transformers`.
use std::path::Path;

use serde_json::{Map, Value, json};

use super::*;
use crate::{crf::Crf, data::words::split, encoder::EncoderConfig, files, tokenizer::WordTokenizer};

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
            let mut outputs: Vec<Vec<f32>> = Vec::new();
            for (row, expected) in rows.iter().zip(expected) {
                assert_eq!(row.encoded.input_ids, list::<i64>(&expected["ids"]), "{place}");
                assert_eq!(row.special, list::<bool>(&expected["special"]), "{place}");
                assert_eq!(row.offsets, list::<(usize, usize)>(&expected["offsets"]), "{place}");
                outputs.push(list(&expected["logits"]));
            }
            let scored: Vec<ScoredRow<'_>> =
                rows.iter().zip(&outputs).map(|(row, logits)| row.scored(logits)).collect();
            let text: Vec<char> = input.text().chars().collect();
            let ignored = case.get("ignore_labels").map_or_else(|| vec!["O".to_owned()], list);
            for (name, theirs) in case["strategies"].as_object().unwrap() {
                let context = EntityContext {
                    text: &text,
                    labels: &labels,
                    tokenizer: &tokenizer,
                    strategy: AggregationStrategy::parse(name).unwrap(),
                    crf: None,
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

/// Texts with character spans are trained on as the pipeline sees them.
#[test]
fn what_is_trained_on_equals_what_the_pipeline_sees() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let mut words = 0;
    for suite in golden()["tokens"].as_array().unwrap() {
        files::write_file(&path, suite["tokenizer"].to_string().as_bytes()).unwrap();
        let tokenizer = WordTokenizer::load(&path).unwrap();
        for case in suite["cases"].as_array().unwrap() {
            let Some(text) = case["text"].as_str() else { continue };
            let characters: Vec<char> = text.chars().collect();
            let places = split(&characters);
            let max_length = case["max_length"].as_u64().map_or(512, |length| length as usize);
            let tokens = tokenizer.encode_tagged(text, &places, max_length).unwrap();
            if !tokens.truncated {
                assert_eq!(tokens.ids, list::<i64>(&case["rows"][0]["ids"]), "{} {text}", suite["name"]);
                let spoken = tokens.first.iter().filter(|first| **first).count();
                assert_eq!(spoken + tokens.covered.len(), places.len(), "{} {text}: {tokens:?}", suite["name"]);
                words += places.len();
            }
        }
    }
    assert!(words > 100, "{words}");
}

#[test]
fn labels_equal_the_pipeline() {
    let golden = golden();
    let cases = golden["texts"].as_array().unwrap();
    assert!(cases.len() > 100);
    for (number, case) in cases.iter().enumerate() {
        let labels: Vec<String> = list(&case["labels"]);
        let names: Map<String, Value> =
            labels.iter().enumerate().map(|(id, name)| (id.to_string(), json!(name))).collect();
        let Value::Object(config) = json!({"model_type": "bert", "architectures": ["BertForSequenceClassification"],
            "id2label": names, "problem_type": case["problem_type"]})
        else {
            panic!("an object")
        };
        let config = EncoderConfig::from_map(config, Path::new("config.json")).unwrap();
        let function = FunctionToApply::parse(case["function"].as_str().unwrap()).unwrap();
        let function = function.unwrap_or_else(|| FunctionToApply::of_config(&config));
        let scores = function.apply(&list::<f32>(&case["logits"]));
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

/// Sub-tokens of a text with a CRF that lets nothing but `I-x` follow `B-x`.
#[test]
fn a_crf_labels_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let json = crate::testing::tokenizer_json(&["new", "##port", "is"]).to_string();
    files::write_file(&path, json.as_bytes()).unwrap();
    let tokenizer = PipelineTokenizer::load(&path, 32, None).unwrap();
    let labels: Vec<String> = ["O", "B-x", "I-x"].map(str::to_owned).to_vec();
    let bar = -50.0;
    let crf = Crf::new(vec![0.0, 0.0, bar, bar, bar, 0.0, 0.0, 0.0, 0.0], vec![0.0; 3], vec![0.0; 3]).unwrap();
    let predict = |input: InputText, strategy, logits: &[[f32; 3]]| -> Vec<FoundEntity> {
        let rows = tokenizer.rows(&input).unwrap();
        let text: Vec<char> = input.text().chars().collect();
        let context = EntityContext {
            text: &text,
            labels: &labels,
            tokenizer: &tokenizer,
            strategy,
            crf: Some(&crf),
            ignore_labels: &["O".to_owned()],
        };
        assert_eq!(rows[0].encoded.length(), logits.len());
        context.entities(&[rows[0].scored(logits.as_flattened())]).unwrap()
    };
    let text = || InputText::Text("newport is a".to_owned());
    // [CLS] new ##port is a [SEP]: by itself `is` would be O, and ##port anything; behind B-x it can but go on.
    let logits = [[9.0, 0.0, 0.0], [0.0, 3.0, 0.0], [9.0, 0.0, 9.0], [2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 9.0]];
    for strategy in AggregationStrategy::ALL.into_iter().skip(1) {
        let found = predict(text(), strategy, &logits);
        assert_eq!(found.len(), 1, "{strategy:?}: {found:?}");
        let entity = &found[0];
        assert_eq!(
            (entity.entity_group.as_deref(), entity.word.as_str(), entity.start, entity.end),
            (Some("x"), "newport is", 0, 10)
        );
        let shares = crf.marginals(&[0.0, 3.0, 0.0, 2.0, 0.0, 0.0, 2.0, 0.0, 0.0]);
        assert!((entity.score - (shares[1] + shares[5]) / 2.0).abs() < 1e-6, "{entity:?}");
    }
    let found = predict(text(), AggregationStrategy::None, &logits);
    let told: Vec<_> =
        found.iter().map(|entity| (entity.entity.as_deref(), entity.index, entity.word.as_str())).collect();
    assert_eq!(told, [(Some("B-x"), Some(1), "new"), (Some("B-x"), Some(2), "##port"), (Some("I-x"), Some(3), "is")]);
    assert_eq!(found[0].score, found[1].score);

    // The tokenizer's own words reach up to the next blank, as those of SentencePiece: what is tagged does not.
    let mut file = crate::testing::tokenizer_json(&["newport", "##,", "is"]);
    file["pre_tokenizer"] = json!({"type": "WhitespaceSplit"});
    files::write_file(&path, file.to_string().as_bytes()).unwrap();
    let blanks = PipelineTokenizer::load(&path, 32, None).unwrap();
    let characters: Vec<char> = "newport, is".chars().collect();
    let rows = blanks.rows(&InputText::Text("newport, is".to_owned())).unwrap();
    assert_eq!(rows[0].encoded.words, [None, Some(0), Some(1), Some(2), None]);
    let logits = [[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [9.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0; 3]];
    let free = Crf::new(vec![0.0; 9], vec![0.0; 3], vec![0.0; 3]).unwrap();
    let context = EntityContext {
        text: &characters,
        labels: &labels,
        tokenizer: &blanks,
        strategy: AggregationStrategy::First,
        crf: Some(&free),
        ignore_labels: &["O".to_owned()],
    };
    let found = context.entities(&[rows[0].scored(logits.as_flattened())]).unwrap();
    assert_eq!((found.len(), found[0].start, found[0].end), (1, 0, 7), "{found:?}");

    // Words given beforehand are the words, though the tokenizer would cut them.
    let words = InputText::Words(vec!["a-b".to_owned(), "is".to_owned()]);
    let logits = [[0.0; 3], [0.0, 9.0, 0.0], [9.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0; 3], [0.0; 3]];
    let found = predict(words, AggregationStrategy::First, &logits);
    assert_eq!((found.len(), found[0].start, found[0].end), (1, 0, 6), "{found:?}");
    // Of another number of labels.
    let few = labels[..2].to_vec();
    let rows = tokenizer.rows(&text()).unwrap();
    let context = EntityContext {
        text: &[],
        labels: &few,
        tokenizer: &tokenizer,
        strategy: AggregationStrategy::First,
        crf: Some(&crf),
        ignore_labels: &[],
    };
    assert!(matches!(
        context.entities(&[rows[0].scored(&[0.0; 12])]),
        Err(crate::Error::Argument { field: "labels", .. })
    ));
}
