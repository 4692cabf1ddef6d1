//! `quintet predict` as a user runs it: models trained by a pipeline, asked about files by their jobs' ids.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests

use std::{fmt::Write as _, fs, path::Path, process::Output};

use quintet_nlp::testing::TinyCheckpoint;
use quintet_tests::sandbox::{Sandbox, program};
use serde_json::Value;

const PLACES: [&str; 6] = ["paris", "oslo", "rome", "lima", "cairo", "quito"];
const NAMES: [&str; 6] = ["anna", "piet", "olga", "juan", "mary", "ivan"];

const TRAIN: &str = "
name: train
stages:
  words:
    train:
      checkpoint: base
      data: {train: train.conll}
      hyperparameters: {learning_rate: 0.005, batch_size: 8, epochs: 4, max_length: 32}
  texts:
    train:
      checkpoint: base
      text_classification: {train: train.csv}
      hyperparameters: {learning_rate: 0.005, batch_size: 8, epochs: 6, max_length: 32}
";

#[track_caller]
fn ended(output: &Output, code: i32) -> String {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{}{told}", String::from_utf8_lossy(&output.stdout));
    told
}

/// Words and texts of which a word says the answer.
fn write_data(sandbox: &Sandbox) {
    let (mut conll, mut csv) = (String::new(), "text,label\n".to_owned());
    for n in 0..90 {
        let (name, place) = (NAMES[n * 5 % 6], PLACES[(n * 7 + n / 6) % 6]);
        write!(conll, "{name} B-per\nlives O\nin O\nnew B-loc\n{place} I-loc\n\nwe O\nlike O\n{place} B-loc\n\n")
            .unwrap();
        writeln!(csv, "we like {place},where\nwe saw {name},who").unwrap();
    }
    sandbox.file("train.conll", &conll).unwrap();
    sandbox.file("train.csv", &csv).unwrap();
    let words = PLACES.iter().chain(&NAMES).chain(&["lives", "in", "new", "we", "saw", "like"]);
    let words = words.map(|word| (*word).to_owned()).collect();
    TinyCheckpoint { words, ..TinyCheckpoint::default() }.write(&sandbox.folder().join("base")).unwrap();
}

fn rows(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn trained_models_answer_for_words_and_texts() {
    if let Err(missing) = program("train-worker") {
        eprintln!("skipped: {missing}");
        return;
    }
    let sandbox = Sandbox::new().unwrap();
    write_data(&sandbox);
    sandbox.file("p.yaml", TRAIN).unwrap();
    ended(&sandbox.quintet(&["run", "p.yaml", "--data-dir", "d", "--json", "r.json"]).unwrap(), 0);
    let report: Value = serde_json::from_slice(&fs::read(sandbox.folder().join("r.json")).unwrap()).unwrap();
    let job = |stage: &str| {
        let stages = report["stages"].as_array().unwrap();
        let found = stages.iter().find(|found| found["name"] == stage).unwrap();
        found["job"].as_str().unwrap().trim_start_matches("jobs/").to_owned()
    };
    let predict = |args: &[&str], code: i32| {
        let args: Vec<&str> = ["predict"].iter().chain(args).chain(&["--data-dir", "d"]).copied().collect();
        ended(&sandbox.quintet(&args).unwrap(), code)
    };

    // Words, as words and as text.
    let new = concat!(
        "{\"id\": \"a\", \"tokens\": [\"olga\", \"lives\", \"in\", \"new\", \"rome\"]}\n",
        "{\"id\": \"b\", \"text\": \"we like cairo\"}\n",
        "{\"id\": \"c\", \"text\": \"we saw\"}\n",
    );
    sandbox.file("new.jsonl", new).unwrap();
    let (words, texts) = (job("words"), job("texts"));
    predict(&[&words[..12], "new.jsonl", "--out", "words.jsonl"], 0);
    let answers = rows(&sandbox.folder().join("words.jsonl"));
    let brief: Vec<Vec<(&str, u64, u64)>> = answers
        .iter()
        .map(|row| {
            let entity = |entity: &'static str, found: &Value| {
                assert_eq!(found["entity_group"], entity);
                (entity, found["start"].as_u64().unwrap(), found["end"].as_u64().unwrap())
            };
            let found = row["entities"].as_array().unwrap();
            let kinds = found.iter().map(|found| if found["entity_group"] == "per" { "per" } else { "loc" });
            kinds.zip(found).map(|(kind, found)| entity(kind, found)).collect()
        })
        .collect();
    assert_eq!(brief, [vec![("per", 0, 4), ("loc", 14, 22)], vec![("loc", 8, 13)], vec![]], "{answers:?}");
    assert_eq!(answers.iter().map(|row| &row["id"]).collect::<Vec<_>>(), ["a", "b", "c"]);

    // Texts, a line each; the best label alone, and all of them.
    sandbox.file("new.txt", "we like quito\nwe saw piet\n").unwrap();
    predict(&[&texts[..12], "new.txt", "--out", "texts.jsonl"], 0);
    let best = |row: &Value| row["labels"][0]["label"].as_str().unwrap().to_owned();
    let answers = rows(&sandbox.folder().join("texts.jsonl"));
    assert_eq!(answers.iter().map(best).collect::<Vec<_>>(), ["where", "who"], "{answers:?}");
    assert!(answers.iter().all(|row| row["labels"].as_array().unwrap().len() == 1), "{answers:?}");
    predict(&[&texts[..12], "new.txt", "--top-k", "0", "--out", "texts.jsonl"], 0);
    let answers = rows(&sandbox.folder().join("texts.jsonl"));
    assert!(answers.iter().all(|row| row["labels"].as_array().unwrap().len() == 2), "{answers:?}");

    // What cannot be asked is told, and leaves the file of before.
    sandbox.file("bad.jsonl", "{\"words\": []}\n").unwrap();
    let told = predict(&[&words[..12], "bad.jsonl", "--out", "words.jsonl"], 1);
    assert!(told.contains("bad.jsonl`:1"), "{told}");
    assert_eq!(rows(&sandbox.folder().join("words.jsonl")).len(), 3);
}
