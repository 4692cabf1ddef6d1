//! Data sets as their own tools write them (`tests/peers/datasets_golden.py`), read whole.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests
use std::path::{Path, PathBuf};

use quintet_nlp::{
    data::{Answer, DataSet, Form, Format, ReadOptions, Sentence, Sources, Splits, TextExample, TextOptions},
    task::Task,
};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/datasets").join(name)
}

fn sources(train: PathBuf, form: Form) -> Sources {
    Sources { train, validation: None, test: None, form, validation_fraction: 0.34, seed: 1, fold: None }
}

fn texts(name: &str, options: TextOptions) -> (Task, Vec<String>, Splits<TextExample>) {
    let set = DataSet::load(&sources(data(name), Form::Text(options))).unwrap();
    let labels = set.label_names().to_vec();
    match set {
        DataSet::Text { task, splits, .. } => (task, labels, splits),
        other => panic!("{other:?}"),
    }
}

fn all(mut splits: Splits<TextExample>) -> Vec<TextExample> {
    splits.train.append(&mut splits.validation);
    splits.train.sort_by_key(|example| example.line);
    splits.train
}

const TEXTS: [&str; 6] = ["first, \"quoted\"", "second\nline", "third \u{1f600}", "fourth", "fifth", "sixth"];

#[test]
fn saved_data_sets_give_texts_with_named_classes() {
    let (task, labels, splits) = texts("saved", TextOptions::default());
    assert_eq!((task, labels.join(" ").as_str()), (Task::SequenceClassification, "neg pos"));
    let test: Vec<(&str, &Answer)> =
        splits.test.iter().flatten().map(|example| (example.text.as_str(), &example.answer)).collect();
    assert_eq!(test, [("sixth", &Answer::Label("neg".into())), ("first, \"quoted\"", &Answer::Label("pos".into()))]);
    let rows = all(splits);
    assert_eq!(rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>(), TEXTS);
    assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn folders_of_the_hub_give_their_splits() {
    let (_, labels, splits) = texts("hub", TextOptions::default());
    assert_eq!((labels.join(" ").as_str(), splits.train.len(), splits.validation.len()), ("neg pos", 6, 2));
    assert_eq!(splits.validation[0].text, "second\nline");
}

#[test]
fn tables_of_every_compression_are_read_alike() {
    let read = |name: &str, column: &str| {
        let options = TextOptions { label_column: Some(column.into()), ..TextOptions::default() };
        let (task, labels, splits) = texts(name, options);
        (task, labels, all(splits))
    };
    let (task, labels, rows) = read("table-none.parquet", "label");
    assert_eq!((task, labels.join(" ").as_str()), (Task::SequenceClassification, "a b"));
    assert_eq!(rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>(), TEXTS);
    for name in
        ["table-snappy.parquet", "table-gzip.parquet", "table-zstd.parquet", "table-lz4.parquet", "table.feather"]
    {
        assert_eq!(read(name, "label").2, rows, "{name}");
    }
    let (task, _, scores) = read("table-zstd.parquet", "score");
    assert_eq!((task, &scores[1].answer), (Task::Regression, &Answer::Value(1.0)));
    let (task, labels, several) = read("table-zstd.parquet", "labels");
    assert_eq!((task, labels.join(" ").as_str()), (Task::MultiLabelClassification, "x y"));
    assert_eq!(several[2].answer, Answer::Labels(["x".to_owned(), "y".to_owned()].into()));
    assert_eq!(several[1].answer, Answer::Labels([].into()));

    let wrong = TextOptions { label_column: Some("when".into()), ..TextOptions::default() };
    let error = DataSet::load(&sources(data("table-zstd.parquet"), Form::Text(wrong))).unwrap_err().to_string();
    assert!(error.contains("`when` is of type Timestamp"), "{error}");
}

fn sentences(name: &str) -> (Vec<String>, Vec<Sentence>) {
    let set = DataSet::load(&sources(data(name), Form::Tokens(ReadOptions::default()))).unwrap();
    let labels = set.label_names().to_vec();
    let DataSet::Tokens { mut splits, .. } = set else { panic!("not of words") };
    splits.train.append(&mut splits.validation);
    splits.train.sort_by(|one, other| other.words.len().cmp(&one.words.len()).then(one.words.cmp(&other.words)));
    (labels, splits.train)
}

#[test]
fn words_with_class_ids_come_from_several_files_and_from_parquet() {
    for name in ["sentences", "sentences.parquet"] {
        let (labels, rows) = sentences(name);
        assert_eq!(labels, ["O", "B-loc", "I-loc", "B-per", "I-per"]);
        let shown: Vec<String> =
            rows.iter().map(|row| format!("{} {}", row.words.join("|"), row.tags.join("|"))).collect();
        assert_eq!(shown, ["Ana|lives|in|New|Oslo B-per|O|O|B-loc|I-loc", "Ben B-per", "nothing O"]);
    }
}

#[test]
fn damaged_tables_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["table-zstd.parquet", "table.feather", "saved/train/data-00000-of-00001.arrow"] {
        let whole = std::fs::read(data(name)).unwrap();
        let path = dir.path().join(Path::new(name).file_name().unwrap());
        for length in [whole.len() / 2, whole.len() - 9] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let found = DataSet::load(&sources(path.clone(), Form::Text(TextOptions::default())));
            // The stream format has an end mark that readers can do without.
            if name.ends_with(".arrow") && length > whole.len() / 2 {
                continue;
            }
            let error = found.unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{name}: {error}");
        }
    }
    let csv = dir.path().join("t.parquet");
    std::fs::write(&csv, "text,label\nx,a\n").unwrap();
    let options = TextOptions { format: Some(Format::Parquet), ..TextOptions::default() };
    let error = DataSet::load(&sources(csv, Form::Text(options))).unwrap_err().to_string();
    assert!(error.contains("no Parquet file"), "{error}");
}
