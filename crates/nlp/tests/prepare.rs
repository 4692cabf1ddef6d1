//! Data sets prepared for training: the same rows from memory and from files, and no more memory than allowed.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
};

use quintet_nlp::{
    Error,
    align::{Alignment, Encoded, encode, encode_texts},
    data::{
        Answer, ClassSet, Fold, Form, LabelSet, ReadOptions, Sentence, Sources, TextExample, TextOptions, kind_numbers,
        parse_tag, partition,
    },
    prepare::{Options, Part, Prepared, prepare, prepare_watched},
    rows::Example,
    task::{Target, Task},
    testing,
    tokenizer::WordTokenizer,
    windows,
};

struct Fixture {
    dir: tempfile::TempDir,
    tokenizer: WordTokenizer,
}

/// The encoded rows of a split, and how they are aligned with its words.
type Split = (Vec<Encoded>, Alignment);

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = testing::tokenizer(dir.path(), &["oslo", "##port"]);
        Self { dir, tokenizer }
    }

    fn sources(&self, train: &str, form: Form) -> Sources {
        let path = self.dir.path().join("train");
        std::fs::write(&path, train).unwrap();
        Sources { train: path, validation: None, test: None, form, validation_fraction: 0.2, seed: 5, fold: None }
    }

    fn work_dir(&self) -> PathBuf {
        let dir = self.dir.path().join("work");
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// What preparing gives, by the steps one after the other on all rows in memory.
    fn expected(&self, sources: &Sources, rows: &[Example]) -> (Task, Vec<String>, [Split; 2]) {
        let kind = |row: &Example| match row {
            Example::Sentence(sentence) => {
                let types = sentence.tags.iter().filter_map(|tag| parse_tag(tag).unwrap().kind());
                types.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
            }
            Example::Text(text) => text.answer.labels().collect(),
        };
        let kinds: Vec<String> = rows.iter().map(kind).collect();
        let held = sources.hold_out().choose(rows.len(), &kind_numbers(&kinds)).unwrap();
        let (train, validation) = partition(rows.to_vec(), &held);
        let texts = |rows: &[Example]| -> Vec<TextExample> {
            let text = |row: &Example| match row {
                Example::Text(text) => Some(text.clone()),
                Example::Sentence(_) => None,
            };
            rows.iter().filter_map(text).collect()
        };
        if rows.iter().any(|row| sentence(row).is_some()) {
            let sentences = |rows: &[Example]| rows.iter().filter_map(sentence).cloned().collect::<Vec<_>>();
            let labels = LabelSet::of(&sentences(rows));
            let encoded =
                [train, validation].map(|rows| encode(&sentences(&rows), &self.tokenizer, &labels, 12).unwrap());
            (Task::TokenClassification, labels.names().to_vec(), encoded)
        } else {
            let labels = ClassSet::of(["x", "y", "z"]);
            let encoded =
                [train, validation].map(|rows| encode_texts(&texts(&rows), &self.tokenizer, &labels, 12).unwrap());
            (Task::SequenceClassification, labels.names().to_vec(), encoded)
        }
    }

    fn prepare(&self, sources: &Sources, memory: usize) -> Result<Prepared, Error> {
        let options = Options { max_length: 12, work_dir: Some(self.work_dir()), memory: Some(memory), threads: 3 };
        prepare(sources, &self.tokenizer, &options)
    }
}

fn sentences(rows: usize) -> Vec<Example> {
    let mut line = 1;
    let sentence = |n: usize| {
        let count = n % 9 + 1;
        let tag = |word: usize| match ["O", "B-a", "I-a", "B-b"][(n * 7 + word) % 4] {
            "I-a" if word == 0 => "B-a".to_owned(),
            tag => tag.to_owned(),
        };
        let (words, tags) = (0..count).map(|word| (format!("w{word}x{n}"), tag(word))).unzip();
        let sentence = Sentence { words, tags, line, text: None };
        line += count + 1;
        Example::Sentence(sentence)
    };
    (0..rows).map(sentence).collect()
}

fn conll(rows: usize) -> String {
    let mut text = String::new();
    for sentence in sentences(rows).iter().filter_map(sentence) {
        for (word, tag) in sentence.words.iter().zip(&sentence.tags) {
            writeln!(text, "{word}\t{tag}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn sentence(example: &Example) -> Option<&Sentence> {
    match example {
        Example::Sentence(sentence) => Some(sentence),
        Example::Text(_) => None,
    }
}

fn examples(rows: usize) -> Vec<Example> {
    let example = |n: usize| TextExample {
        text: format!("row {n} of many"),
        pair: None,
        answer: Answer::Label(["x", "y", "z"][n % 3].to_owned()),
        line: n + 2,
    };
    (0..rows).map(example).map(Example::Text).collect()
}

fn csv(rows: usize) -> String {
    let lines: String = (0..rows).map(|n| format!("row {n} of many,{}\n", ["x", "y", "z"][n % 3])).collect();
    format!("text,label\n{lines}")
}

fn all(part: &Part) -> Vec<(usize, Encoded, Example)> {
    let row =
        |row| (part.rows.length(row), part.rows.get(row).unwrap(), part.rows.example(part.rows.document(row)).unwrap());
    (0..part.rows.len()).map(row).collect()
}

#[test]
fn rows_equal_those_of_the_data_set_in_memory() {
    let fixture = Fixture::new();
    let fold = Some(Fold { n_splits: 3, index: 1, shuffle: true, seed: 2, stratified: true });
    let (words, texts) = (sentences(400), examples(700));
    for (text, form, rows) in [
        (conll(400), Form::Tokens(ReadOptions::default()), words),
        (csv(700), Form::Text(TextOptions::default()), texts),
    ] {
        for fold in [None, fold] {
            let sources = Sources { fold, ..fixture.sources(&text, form.clone()) };
            let (small, large) =
                (fixture.prepare(&sources, 1000).unwrap(), fixture.prepare(&sources, 1 << 30).unwrap());
            for (one, other) in [(&small.train, &large.train), (&small.validation, &large.validation)] {
                assert!(all(one) == all(other) && one.alignment == other.alignment);
            }
            let (task, labels, expected) = fixture.expected(&sources, rows.as_slice());
            assert_eq!((small.task, small.labels.as_slice()), (task, labels.as_slice()));
            for (part, (rows, alignment)) in [&small.train, &small.validation].into_iter().zip(expected) {
                assert_eq!((part.rows.len(), part.alignment), (rows.len(), alignment));
                assert!(all(part).into_iter().zip(rows).all(|((_, found, _), expected)| found == expected));
            }
        }
    }
}

#[test]
fn documents_are_cut_into_windows_that_answer_for_each_word() {
    let fixture = Fixture::new();
    let options = ReadOptions { stride: Some(4), ..ReadOptions::default() };
    let prepared = fixture.prepare(&fixture.sources(&conll(40), Form::Tokens(options)), 1 << 20).unwrap();
    let part = &prepared.validation;
    assert!(part.rows.len() > part.rows.documents() && part.alignment.unseen_words == 0);
    let mut row = 0;
    for document in 0..part.rows.documents() {
        let mut windows = Vec::new();
        while row < part.rows.len() && part.rows.document(row) == document {
            let window = part.rows.get(row).unwrap();
            assert!(window.length() <= 12);
            let Target::Tokens(labels) = &window.target else { panic!("not of words") };
            let predicted: Vec<usize> = labels.iter().map(|label| usize::try_from(*label).unwrap_or(99)).collect();
            windows.push((window, predicted));
            row += 1;
        }
        let pairs = windows.iter().map(|(window, predicted)| (window, predicted.as_slice()));
        let found = windows::word_labels(pairs, &prepared.labels);
        let names: Vec<&String> = found.iter().map(|label| &prepared.labels[*label]).collect();
        let example = part.rows.example(document).unwrap();
        assert_eq!(names, example.tags().iter().collect::<Vec<_>>());
    }
    let too_far = ReadOptions { stride: Some(10), ..ReadOptions::default() };
    let error = fixture.prepare(&fixture.sources(&conll(40), Form::Tokens(too_far)), 1 << 20).err();
    assert!(matches!(error, Some(Error::Argument { field: "stride", .. })));
}

#[test]
fn what_cannot_be_trained_on_is_refused() {
    let fixture = Fixture::new();
    let fails = |text: &str, form: Form| fixture.prepare(&fixture.sources(text, form), 1000).err().unwrap().to_string();
    let tokens = || Form::Tokens(ReadOptions::default());
    let texts = || Form::Text(TextOptions::default());
    assert!(fails("", tokens()).contains("train split"));
    assert!(fails("a O\n\nb O\n", tokens()).contains("every tag is O"));
    assert!(fails(&"\u{200b} B-x\n\n".repeat(9), tokens()).contains("no row has a word that the tokenizer keeps"));
    assert!(fails("text,label\n", texts()).contains("has no row"));
    assert!(fails("text,label\na,x\nb,x\nc,x\nd,x\n", texts()).contains("train split: all 4 rows have label `x`"));
    assert!(fails("text,label\na,x\nb,y\nc,x\nd,x\n", texts()).contains("split: all "));
    // One sentence of ten has an entity: it is either held out or not.
    let one = "a O\n\n".repeat(9) + "b B-x\n";
    let share = fails(&one, tokens());
    assert!(
        share.contains("train split: the 8 rows left of `")
            || share.contains("validation split: the 2 rows held out of `")
    );
    for (index, expected) in [(0, "validation split: the 5 rows held out"), (1, "train split: the 5 rows left of `")] {
        let fold = Some(Fold { n_splits: 2, index, shuffle: false, seed: 0, stratified: false });
        let sources = Sources { fold, ..fixture.sources(&one, tokens()) };
        let error = fixture.prepare(&sources, 1000).err().unwrap().to_string();
        assert!(error.contains(expected) && error.contains("no entity"), "{error}");
    }
    let mut asked = 0;
    let options = Options { max_length: 12, threads: 1, ..Options::default() };
    let stopped = prepare_watched(&fixture.sources(&csv(2000), texts()), &fixture.tokenizer, &options, &mut |_, _| {
        asked += 1;
        asked < 3
    });
    assert!(matches!(stopped.err(), Some(Error::Stopped)));
    assert_eq!(asked, 3);
}

/// Bytes of a line of `/proc/self/status`.
fn status(key: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn memory_does_not_grow_with_the_data() {
    if !Path::new("/proc/self/clear_refs").exists() {
        eprintln!("skipped: the peak of resident memory can be read and reset on Linux alone");
        return;
    }
    let mut fixture = Fixture::new();
    // A tokenizer that is quick with long words.
    let mut json = testing::tokenizer_json(&[]);
    json["normalizer"] = serde_json::Value::Null;
    json["pre_tokenizer"] = serde_json::json!({"type": "WhitespaceSplit"});
    let tokenizer = fixture.dir.path().join("tokenizer.json");
    std::fs::write(&tokenizer, json.to_string()).unwrap();
    fixture.tokenizer = WordTokenizer::load(&tokenizer).unwrap();
    let path = fixture.dir.path().join("large.csv");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    writeln!(file, "text,label").unwrap();
    // A word of 990 letters is one unknown sub-token: much data in little time.
    let word = "abcdefghijk".repeat(90);
    let rounds = std::env::var("QUINTET_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let rows = 28_000 * rounds;
    for n in 0..rows {
        writeln!(file, "{n} {word},{}", n % 5).unwrap();
    }
    drop(file);
    let size = std::fs::metadata(&path).unwrap().len() as usize;
    assert!(size / rows > 990);
    let sources = Sources { train: path, ..fixture.sources("", Form::Text(TextOptions::default())) };
    // Whatever is loaded once is loaded before.
    fixture.prepare(&fixture.sources(&csv(2000), Form::Text(TextOptions::default())), 1000).unwrap();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let prepared = fixture.prepare(&sources, 1 << 20).unwrap();
    let mut sum = 0;
    for row in 0..prepared.train.rows.len() {
        sum += prepared.train.rows.get(row).unwrap().length();
    }
    let grown = status("VmHWM:") - before;
    assert_eq!(
        (prepared.task, prepared.train.rows.len() + prepared.validation.rows.len()),
        (Task::SequenceClassification, rows)
    );
    assert!(sum > rows);
    eprintln!("{} KiB more than before for {} KiB of data in {rows} rows", grown >> 10, size >> 10);
    assert!(grown < (12 << 20) + 16 * rows, "{} KiB more for {} KiB of data", grown >> 10, size >> 10);
    // The files have no names: nothing is left, even when the process is killed.
    assert_eq!(std::fs::read_dir(fixture.work_dir()).unwrap().count(), 0);
}
