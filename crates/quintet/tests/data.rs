//! `quintet data` as a user runs it.
#![allow(clippy::unwrap_used)] // the helpers of the tests are tests too

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

fn data(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
    command.current_dir(folder).stdin(Stdio::null()).arg("data").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn ok(folder: &Path, args: &[&str]) -> String {
    let output = data(folder, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_data_set_is_split_reported_on_and_combined() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let rows: String =
        (0..50).map(|n| format!("\"text\n{n}\",{}\n", if n % 10 == 0 { "rare" } else { "often" })).collect();
    fs::write(folder.join("all.csv"), format!("body,intent\n{rows}")).unwrap();
    let columns = ["--text-column", "body", "--label-column", "intent"];

    let args = [&["split", "all.csv", "--out", "one", "--part", "validation", "--ratio", "0.2"][..], &columns].concat();
    assert!(ok(folder, &args).contains("one/validation.csv  10 rows"));
    let json = ok(folder, &[&["report", "one", "-o", "json"][..], &columns].concat());
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["splits"][0]["labels"], serde_json::json!({"often": 36, "rare": 4}));
    assert_eq!(report["splits"][1]["labels"], serde_json::json!({"often": 9, "rare": 1}));
    assert_eq!((report["overlaps"].clone(), &report["conflicting_rows"]), (serde_json::json!([]), &Value::from(0)));
    assert!(ok(folder, &[&["report", "one"][..], &columns].concat()).contains("train: 40 texts"));

    let args = [&["combine", "one", "all.csv", "--out", "two", "--strategy", "append"][..], &columns].concat();
    assert!(ok(folder, &args).contains("two/train.csv  90 rows"));
    let report = ok(folder, &[&["report", "two"][..], &columns].concat());
    assert!(report.contains("validation: 10 rows have a text that is in train too"), "{report}");

    // What is left out is told.
    let spans =
        "{\"text\": \"in Oslo\", \"spans\": [[3, 7, \"loc\"]]}\n".repeat(4) + "{\"text\": \"\", \"spans\": []}\n";
    fs::write(folder.join("spans.jsonl"), spans).unwrap();
    let split = data(folder, &["split", "spans.jsonl", "--out", "three"]);
    assert!(text(&split.stdout).contains("three/train.jsonl  3 rows"), "{}", text(&split.stderr));
    assert!(text(&split.stderr).contains("note: spans.jsonl: train: 1 rows without a word were left out"));

    // Nothing is written over, and what is wrong is told by its place.
    let args = [&["combine", "one", "all.csv", "--out", "two"][..], &columns].concat();
    let again = data(folder, &args);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("not empty"));
    fs::write(folder.join("bad.conll"), "a\tO\nb\tX-y\n").unwrap();
    let bad = data(folder, &["report", "bad.conll"]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(text(&bad.stderr).contains("bad.conll`:2: column 1: tag `X-y`"), "{}", text(&bad.stderr));
}

#[test]
fn sentences_are_reported_on_with_a_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    quintet_nlp::testing::TinyCheckpoint::default().write(&dir.path().join("base")).unwrap();
    fs::write(dir.path().join("train.conll"), "in O\noslo B-loc\nnow O\n\nhe O\n").unwrap();
    let args = ["report", "train.conll", "--checkpoint", "base", "--max-length", "6"];
    let report = ok(dir.path(), &args);
    for part in ["train: 2 sentences", "too long    1 rows", "1 entities would be cut in two", "loc  1"] {
        assert!(report.contains(part), "{part} is not in:\n{report}");
    }
}
