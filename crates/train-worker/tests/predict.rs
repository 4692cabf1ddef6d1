//! Predictions over files with tiny checkpoints: what they leave, how they go on, and what they refuse.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests
use std::{fs, path::PathBuf};

use quintet_nlp::testing::TinyCheckpoint;
use quintet_proto::v1::PredictSpec;
use serde_json::Value;
use train_worker::{DeviceChoice, Directive, Error, Observer, PredictRequest, predict};

struct Bench {
    dir: tempfile::TempDir,
    spec: PredictSpec,
}

/// Cancels once so many texts are done.
struct Patience(u64);

impl Observer for Patience {
    fn progress(&mut self, done: u64, _total: u64, _unit: &str, _message: &str) {
        self.0 = self.0.saturating_sub(done);
    }

    fn metric(&mut self, _key: &str, _value: f64, _step: i64) {}

    fn directive(&mut self) -> Directive {
        if self.0 == 0 { Directive::Cancel } else { Directive::Continue }
    }

    fn log(&mut self, _line: &str) {}
}

impl Bench {
    fn new(texts: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let labels = ["O", "B-loc", "I-loc", "B-per", "I-per"].map(str::to_owned).to_vec();
        let words = ["paris", "anna", "lives", "in"].map(str::to_owned).to_vec();
        TinyCheckpoint { words, labels, deviation: 0.5, ..TinyCheckpoint::default() }
            .write(&dir.path().join("model"))
            .unwrap();
        let lines: Vec<String> = (0..texts)
            .map(|n| {
                let text = format!("Anna{} lives in{} Paris, {n}.", "x".repeat(n % 5), " really".repeat(n % 9));
                serde_json::json!({"id": format!("t{n}"), "text": text}).to_string()
            })
            .collect();
        fs::write(dir.path().join("texts.jsonl"), lines.join("\n")).unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let spec = PredictSpec {
            checkpoint: path("model"),
            input: path("texts.jsonl"),
            batch_size: 4,
            aggregation_strategy: "first".to_owned(),
            ..Default::default()
        };
        Self { dir, spec }
    }

    fn request(&self, out: &str, spec: &PredictSpec) -> PredictRequest {
        let out = self.dir.path().join(out);
        let mut request = PredictRequest::from_spec(spec, &out, &out.join("resume"), 1).unwrap();
        request.device = DeviceChoice::Cpu;
        request
    }

    fn run(&self, out: &str, spec: &PredictSpec, patience: u64) -> Result<bool, Error> {
        predict(&self.request(out, spec), &mut Patience(patience)).map(|summary| summary.stopped)
    }

    fn file(&self, out: &str) -> PathBuf {
        self.dir.path().join(out).join("predictions.jsonl")
    }

    fn rows(&self, out: &str) -> Vec<Value> {
        let content = fs::read_to_string(self.file(out)).unwrap();
        content.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn spans_are_those_of_the_texts_whatever_the_batch() {
    let bench = Bench::new(30);
    bench.run("one", &PredictSpec { batch_size: 1, ..bench.spec.clone() }, u64::MAX).unwrap();
    bench.run("many", &PredictSpec { batch_size: 16, ..bench.spec.clone() }, u64::MAX).unwrap();
    let (one, many) = (bench.rows("one"), bench.rows("many"));
    let mut found = 0;
    let texts = fs::read_to_string(bench.dir.path().join("texts.jsonl")).unwrap();
    for (number, ((one, many), line)) in one.iter().zip(&many).zip(texts.lines()).enumerate() {
        let text: Vec<char> = serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().chars().collect();
        assert_eq!((one["row"].as_u64(), one["line"].as_u64()), (Some(number as u64), Some(number as u64 + 1)));
        assert_eq!(one["id"], format!("t{number}"));
        let (one, many) = (one["entities"].as_array().unwrap(), many["entities"].as_array().unwrap());
        assert_eq!(one.len(), many.len(), "row {number}");
        for (one, many) in one.iter().zip(many) {
            for key in ["entity_group", "word", "start", "end"] {
                assert_eq!(one[key], many[key], "row {number}");
            }
            assert!((one["score"].as_f64().unwrap() - many["score"].as_f64().unwrap()).abs() < 1e-5);
            let place = |key: &str| one[key].as_u64().unwrap() as usize;
            let covered: String = text[place("start")..place("end")].iter().collect();
            let plain = |text: &str| text.to_lowercase().replace(' ', "");
            assert_eq!(plain(&covered), plain(one["word"].as_str().unwrap()));
            found += 1;
        }
    }
    assert_eq!(one.len(), 30);
    assert!(found > 30, "{found}");
}

#[test]
fn a_cancelled_prediction_goes_on_and_leaves_the_same() {
    let bench = Bench::new(150);
    assert!(!bench.run("whole", &bench.spec, u64::MAX).unwrap());
    // A chunk has 64 texts.
    assert!(bench.run("parts", &bench.spec, 64).unwrap());
    assert!(!bench.file("parts").exists());
    let kept = fs::read_to_string(bench.dir.path().join("parts/resume/rows.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), 64);
    assert!(!bench.run("parts", &bench.spec, u64::MAX).unwrap());
    assert_eq!(fs::read(bench.file("parts")).unwrap(), fs::read(bench.file("whole")).unwrap());
    // Rows of other settings are not continued.
    assert!(bench.run("other", &bench.spec, 64).unwrap());
    bench
        .run("other", &PredictSpec { aggregation_strategy: "none".to_owned(), ..bench.spec.clone() }, u64::MAX)
        .unwrap();
    assert!(bench.rows("other").iter().all(|row| row["entities"][0].get("entity_group").is_none()));
}

#[test]
fn what_cannot_be_done_is_refused() {
    let bench = Bench::new(3);
    let field = |spec: PredictSpec| match bench.run("refused", &spec, u64::MAX) {
        Err(Error::Fields(errors)) => errors.names().concat(),
        Err(Error::Input(quintet_nlp::Error::Argument { field, .. })) => field.to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(field(PredictSpec { max_length: 161, ..bench.spec.clone() }), "max_length");
    assert_eq!(field(PredictSpec { max_length: 8, stride: Some(6), ..bench.spec.clone() }), "stride");
    let bare = bench.dir.path().join("bare");
    TinyCheckpoint::default().write(&bare).unwrap();
    assert_eq!(field(PredictSpec { checkpoint: bare.display().to_string(), ..bench.spec.clone() }), "checkpoint");
    assert!(!bench.file("refused").exists());
}
