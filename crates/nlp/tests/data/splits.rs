//! The splits of a data set: found, checked, held out of training.
use std::path::Path;

use crate::support::{Set, load, text};
use quintet_nlp::{
    Error,
    data::{Answer, Fold, Form, ReadOptions, Sources, TextOptions},
    rows::Example,
    task::Task,
};

fn sources(dir: &Path, train: &str, validation: Option<&str>) -> Sources {
    let write = |name: &str, content: &str| {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    Sources {
        train: write("train", train),
        validation: validation.map(|content| write("dev", content)),
        test: None,
        form: Form::Tokens(ReadOptions::default()),
        validation_fraction: 0.25,
        seed: 1,
        fold: None,
    }
}

fn texts(dir: &Path, train: &str, validation: Option<&str>) -> Sources {
    Sources { form: Form::Text(TextOptions::default()), ..sources(dir, train, validation) }
}

#[test]
fn splits_of_both_formats_meet() {
    let dir = tempfile::tempdir().unwrap();
    let dev = r#"{"text": "in Oslo", "spans": [{"start": 3, "end": 7, "label": "loc"}]}"#;
    let Set { labels, train, validation, notes, .. } =
        load(&sources(dir.path(), "a O\nb B-loc\n\nc I-per\n", Some(dev))).unwrap();
    assert_eq!(labels, ["O", "B-loc", "I-loc", "B-per", "I-per"]);
    assert_eq!((train.len(), validation.len()), (2, 1));
    assert_eq!(notes, ["train: 1 tags that open an entity without saying so (I-TYPE) were read as B-TYPE"]);
}

#[test]
fn holding_out_is_seeded_and_complete() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..40).map(|n| format!("w{n} B-x\n\n")).collect();
    let with = |seed| load(&Sources { seed, ..sources(dir.path(), &text, None) }).unwrap();
    let set = with(1);
    assert_eq!((set.train.len(), set.validation.len()), (30, 10));
    assert_eq!(set.validation, with(1).validation);
    assert_ne!(set.validation, with(2).validation);
    let mut lines: Vec<usize> = set.train.iter().chain(&set.validation).map(Example::line).collect();
    lines.sort_unstable();
    assert_eq!(lines, (0..40).map(|n| 2 * n + 1).collect::<Vec<_>>());
}

#[test]
fn a_fold_is_held_out_under_the_labels_of_all_rows() {
    let dir = tempfile::tempdir().unwrap();
    let fold = Fold { n_splits: 2, index: 1, shuffle: false, seed: 0, stratified: false };
    let sources = Sources { fold: Some(fold), ..sources(dir.path(), "a B-x\n\nb B-y\n\nc B-x\n", None) };
    let set = load(&sources).unwrap();
    assert_eq!((set.train.len(), set.validation[0].line()), (2, 3));
    assert!(set.labels.iter().any(|label| label == "B-y"));
}

#[test]
fn unusable_splits_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |train: &str, dev: Option<&str>| load(&sources(dir.path(), train, dev)).unwrap_err();
    assert!(matches!(fails("", None), Error::Split { split: "train", .. }));
    assert!(matches!(fails("a O\n", None), Error::Split { split: "train", .. }));
    assert!(matches!(fails("a B-x\n", None), Error::Split { split: "train", .. }));
    assert!(matches!(fails("a B-x\n", Some("\n \n")), Error::Split { split: "validation", .. }));
    assert!(fails("a B-x\n", Some("a O\n")).to_string().contains("validation split: `"));
    match fails("a B-x\n", Some("a O\n\nb O\nc B-y\n")) {
        Error::Data { line: 3, problem, .. } => assert!(problem.contains("`B-y`") && problem.contains("has x")),
        other => panic!("{other}"),
    }
    let mut broken = sources(dir.path(), "a B-x\n", None);
    broken.validation_fraction = f64::NAN;
    assert!(matches!(load(&broken), Err(Error::Argument { field: "validation_fraction", .. })));
    std::fs::write(dir.path().join("train"), b"a B-x\n\xff O\n").unwrap();
    assert!(matches!(load(&broken), Err(Error::Data { line: 2, .. })));
}

#[test]
fn texts_are_held_out_label_by_label() {
    let dir = tempfile::tempdir().unwrap();
    let csv: String = (0..40).map(|n| format!("t{n},{}\n", if n % 10 == 3 { "rare" } else { "often" })).collect();
    let set = load(&texts(dir.path(), &format!("text,label\n{csv}"), None)).unwrap();
    assert_eq!(
        (set.task, set.labels.as_slice()),
        (Task::SequenceClassification, &["often".to_owned(), "rare".to_owned()][..])
    );
    assert_eq!((set.train.len(), set.validation.len()), (30, 10));
    let rare = set.validation.iter().filter(|row| text(row).answer == Answer::Label("rare".into())).count();
    assert_eq!(rare, 1);
}

#[test]
fn a_file_of_labels_decides_ids_and_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let labels = dir.path().join("labels.json");
    std::fs::write(&labels, r#"["z", "a", "m"]"#).unwrap();
    let options = TextOptions { labels: Some(labels), ..TextOptions::default() };
    let read = |dev: &str| {
        let sources = texts(dir.path(), "text,label\nx,a\ny,z\n", Some(dev));
        load(&Sources { form: Form::Text(options.clone()), ..sources })
    };
    assert_eq!(read("text,label\nx,m\ny,a\n").unwrap().labels, ["z", "a", "m"]);
    match read("text,label\nx,a\ny,b\n") {
        Err(Error::Data { line: 3, problem, .. }) => assert!(problem.contains("z, a, m"), "{problem}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_split_of_texts_needs_two_labels() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |train: &str, dev: Option<&str>| load(&texts(dir.path(), train, dev)).unwrap_err().to_string();
    assert!(fails("text,label\n", None).contains("train split: `"));
    assert!(fails("text,label\nx,a\ny,a\nz,a\n", None).contains("train split: all 3 rows have label `a`"));
    let two = "text,label\nx,a\ny,b\n";
    assert!(fails(two, Some("text,label\nx,a\n")).contains("validation split: all 1 rows have label `a`"));
    let unknown = fails(two, Some("text,label\nx,a\ny,c\n"));
    assert!(unknown.contains("dev`:3: label `c` is unknown: the training split has a, b"), "{unknown}");
    // The answers of a regression may all be the same.
    let regression = TextOptions { task: Some(Task::Regression), ..TextOptions::default() };
    let sources = texts(dir.path(), "text,label\nx,1\ny,1\n", Some("text,label\nx,1\n"));
    let set = load(&Sources { form: Form::Text(regression), ..sources }).unwrap();
    assert_eq!((set.task, set.labels.len()), (Task::Regression, 1));
}

#[test]
fn a_folder_gives_its_splits() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| std::fs::write(dir.path().join(name), content).unwrap();
    write("train.csv", "text,label\nx,a\ny,b\nz,a\nw,b\n");
    write("dev.csv", "text,label\nx,a\ny,b\n");
    write("test.csv", "text,label\nx,a\n");
    let base = Sources {
        train: dir.path().to_owned(),
        form: Form::Text(TextOptions::default()),
        ..sources(tempfile::tempdir().unwrap().path(), "", None)
    };
    let set = load(&base).unwrap();
    assert_eq!((set.train.len(), set.validation.len(), set.test.map(|test| test.len())), (4, 2, Some(1)));
    // A fold is of the training split alone.
    let fold = Fold { n_splits: 2, index: 0, shuffle: false, seed: 0, stratified: true };
    let folded = Sources { fold: Some(fold), ..base.clone() };
    let set = load(&folded).unwrap();
    assert_eq!(set.validation.len(), 2);
    assert!(set.notes[0].contains("left aside"));

    let digest = base.digest().unwrap();
    assert_eq!(base.digest().unwrap(), digest);
    assert_ne!(folded.digest().unwrap(), digest);
    write("test.csv", "text,label\nx,b\n");
    assert_eq!(base.digest().unwrap(), digest);
    write("dev.csv", "text,label\nx,b\ny,a\n");
    assert_ne!(base.digest().unwrap(), digest);
}
