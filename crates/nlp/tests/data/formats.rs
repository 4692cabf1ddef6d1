//! Data sets as their own tools write them (`tests/peers/datasets_golden.py`), read whole.
use std::path::{Path, PathBuf};

use crate::support::{Set, load, sentence, text};
use quintet_nlp::{
    data::{Answer, Form, Format, ReadOptions, Sentence, Sources, TextExample, TextOptions},
    task::Task,
};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/datasets").join(name)
}

fn sources(train: PathBuf, form: Form) -> Sources {
    Sources { train, validation: None, test: None, form, validation_fraction: 0.34, seed: 1, fold: None }
}

fn texts(name: &str, options: TextOptions) -> Set {
    load(&sources(data(name), Form::Text(options))).unwrap()
}

/// What is trained and validated on, in the order of the file.
fn all(set: &Set) -> Vec<TextExample> {
    let mut rows: Vec<TextExample> = set.train.iter().chain(&set.validation).map(|row| text(row).clone()).collect();
    rows.sort_by_key(|row| row.line);
    rows
}

const TEXTS: [&str; 6] = ["first, \"quoted\"", "second\nline", "third \u{1f600}", "fourth", "fifth", "sixth"];

#[test]
fn saved_data_sets_give_texts_with_named_classes() {
    let set = texts("saved", TextOptions::default());
    assert_eq!((set.task, set.labels.join(" ").as_str()), (Task::SequenceClassification, "neg pos"));
    let test: Vec<&TextExample> = set.test.iter().flatten().map(text).collect();
    let test: Vec<(&str, &Answer)> = test.iter().map(|row| (row.text.as_str(), &row.answer)).collect();
    assert_eq!(test, [("sixth", &Answer::Label("neg".into())), ("first, \"quoted\"", &Answer::Label("pos".into()))]);
    let rows = all(&set);
    assert_eq!(rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>(), TEXTS);
    assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn folders_of_the_hub_give_their_splits() {
    let set = texts("hub", TextOptions::default());
    assert_eq!((set.labels.join(" ").as_str(), set.train.len(), set.validation.len()), ("neg pos", 6, 2));
    assert_eq!(text(&set.validation[0]).text, "second\nline");
}

#[test]
fn tables_of_every_compression_are_read_alike() {
    let read = |name: &str, column: &str| {
        let options = TextOptions { label_column: Some(column.into()), ..TextOptions::default() };
        let set = texts(name, options);
        let rows = all(&set);
        (set.task, set.labels, rows)
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
    let error = load(&sources(data("table-zstd.parquet"), Form::Text(wrong))).unwrap_err().to_string();
    assert!(error.contains("`when` is of type Timestamp"), "{error}");
}

fn sentences(name: &str) -> (Vec<String>, Vec<Sentence>) {
    let set = load(&sources(data(name), Form::Tokens(ReadOptions::default()))).unwrap();
    let mut rows: Vec<Sentence> = set.train.iter().chain(&set.validation).map(|row| sentence(row).clone()).collect();
    rows.sort_by(|one, other| other.words.len().cmp(&one.words.len()).then(one.words.cmp(&other.words)));
    (set.labels, rows)
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
            let found = load(&sources(path.clone(), Form::Text(TextOptions::default())));
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
    let error = load(&sources(csv, Form::Text(options))).unwrap_err().to_string();
    assert!(error.contains("no Parquet file"), "{error}");
}
