//! Labelled words for token classification: files read, checked and split.
mod conll;
mod folds;
mod jsonl;
mod labels;
mod tags;

use std::path::{Path, PathBuf};

pub use folds::Fold;
pub use labels::LabelSet;
pub use tags::{Tag, parse_tag};

use crate::{Error, files, random::Stream};

/// A sentence, or another piece of text that is tagged as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// The words.
    pub words: Vec<String>,
    /// One IOB2 tag a word: `O`, `B-TYPE`, `I-TYPE`.
    pub tags: Vec<String>,
    /// Line of its first word in the file, counted from 1.
    pub line: usize,
}

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A word and its tag a line, columns separated by tabs or blanks, sentences by empty lines.
    Conll,
    /// A JSON object a line, with `text` and character spans.
    Jsonl,
}

/// How to read a data file.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Absent: told by the content.
    pub format: Option<Format>,
    /// CoNLL: column of the word, counted from 0.
    pub word_column: usize,
    /// CoNLL: column of the tag, counted from 0; absent means the last.
    pub tag_column: Option<usize>,
}

/// What was read from one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileContent {
    /// The sentences in the order of the file.
    pub sentences: Vec<Sentence>,
    /// Tags `I-TYPE` that opened an entity (IOB1, or stray) and were made `B-TYPE`.
    pub retagged: usize,
    /// JSONL: words that were cut in two because a span begins or ends inside.
    pub cut_words: usize,
}

/// Where the splits come from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Training file.
    pub train: PathBuf,
    /// Absent: a part of the training file is held out.
    pub validation: Option<PathBuf>,
    /// Optional.
    pub test: Option<PathBuf>,
    /// How to read each of them.
    pub options: ReadOptions,
    /// Part held out, between 0 and 1.
    pub validation_fraction: f64,
    /// Chooses the rows held out.
    pub seed: u64,
    /// Hold this fold of the training file out instead; `validation` is absent.
    pub fold: Option<Fold>,
}

/// A whole data set.
#[derive(Debug, Clone)]
pub struct DataSet {
    /// Labels of the training file, `O` first.
    pub labels: LabelSet,
    /// Rows to train on.
    pub train: Vec<Sentence>,
    /// Rows to select by.
    pub validation: Vec<Sentence>,
    /// Rows to report on.
    pub test: Option<Vec<Sentence>>,
    /// What was changed while reading, one line each.
    pub notes: Vec<String>,
}

/// Reads one file.
pub fn read(path: &Path, options: &ReadOptions) -> Result<FileContent, Error> {
    let bytes = files::read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        let line = bytes[..e.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::data(path, line, "not UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match options.format.unwrap_or_else(|| detect(text)) {
        Format::Conll => conll::parse(text, path, options),
        Format::Jsonl => jsonl::parse(text, path),
    }
}

/// JSONL when the first line that is not blank is a JSON object, else CoNLL.
fn detect(text: &str) -> Format {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    // A line that only begins like an object is JSONL too, so that its error speaks of JSON.
    if first.starts_with("{\"") || serde_json::from_str::<serde_json::Map<_, _>>(first).is_ok() {
        Format::Jsonl
    } else {
        Format::Conll
    }
}

impl DataSet {
    /// Reads all splits. An empty split, a training split without entities, and a label that the training file does not
    /// have are errors.
    pub fn load(sources: &Sources) -> Result<Self, Error> {
        let mut notes = Vec::new();
        let mut train = open("train", &sources.train, sources, &mut notes)?;
        let labels = LabelSet::of(&train);
        if labels.len() == 1 {
            let problem = format!("`{}` has no entity: every tag is O", sources.train.display());
            return Err(Error::Split { split: "train", problem });
        }
        let validation = match (&sources.fold, &sources.validation) {
            (Some(fold), _) => fold.take(&mut train)?,
            (None, Some(path)) => open_checked("validation", path, sources, &labels, &mut notes)?,
            (None, None) => hold_out(&mut train, sources.validation_fraction, sources.seed)?,
        };
        let test = match &sources.test {
            Some(path) => Some(open_checked("test", path, sources, &labels, &mut notes)?),
            None => None,
        };
        Ok(Self { labels, train, validation, test, notes })
    }
}

fn open(split: &'static str, path: &Path, sources: &Sources, notes: &mut Vec<String>) -> Result<Vec<Sentence>, Error> {
    let content = read(path, &sources.options)?;
    if content.sentences.is_empty() {
        return Err(Error::Split { split, problem: format!("`{}` has no sentence", path.display()) });
    }
    if content.retagged > 0 {
        notes.push(format!("{split}: {} tags I-TYPE that open an entity were read as B-TYPE", content.retagged));
    }
    if content.cut_words > 0 {
        notes.push(format!("{split}: {} words were cut where a span begins or ends inside them", content.cut_words));
    }
    Ok(content.sentences)
}

fn open_checked(
    split: &'static str,
    path: &Path,
    sources: &Sources,
    labels: &LabelSet,
    notes: &mut Vec<String>,
) -> Result<Vec<Sentence>, Error> {
    let sentences = open(split, path, sources, notes)?;
    for sentence in &sentences {
        if let Some(tag) = sentence.tags.iter().find(|tag| labels.id(tag).is_none()) {
            let problem = format!("label `{tag}` is unknown: the training split has {}", labels.types().join(", "));
            return Err(Error::data(path, sentence.line, problem));
        }
    }
    Ok(sentences)
}

/// Moves a seeded random part of `train` out, at least one row; the order of both parts is that of the file.
fn hold_out(train: &mut Vec<Sentence>, fraction: f64, seed: u64) -> Result<Vec<Sentence>, Error> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::argument("validation_fraction", format!("found {fraction}, expected above 0 and below 1")));
    }
    let count = ((train.len() as f64 * fraction).round() as usize).max(1);
    if count >= train.len() {
        let problem = format!("nothing is left of {} sentences after holding out {count}", train.len());
        return Err(Error::Split { split: "train", problem });
    }
    let mut held = vec![false; train.len()];
    for index in Stream::new(seed, "validation", 0).permutation(train.len()).into_iter().take(count) {
        held[index] = true;
    }
    let (mut kept, mut validation) = (Vec::new(), Vec::new());
    for (sentence, held) in train.drain(..).zip(held) {
        if held { validation.push(sentence) } else { kept.push(sentence) }
    }
    *train = kept;
    Ok(validation)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            options: ReadOptions::default(),
            validation_fraction: 0.25,
            seed: 1,
            fold: None,
        }
    }

    #[test]
    fn splits_of_both_formats_meet() {
        let dir = tempfile::tempdir().unwrap();
        let dev = r#"{"text": "in Oslo", "spans": [{"start": 3, "end": 7, "label": "loc"}]}"#;
        let set = DataSet::load(&sources(dir.path(), "a O\nb B-loc\n\nc I-per\n", Some(dev))).unwrap();
        assert_eq!(set.labels.names(), ["O", "B-loc", "I-loc", "B-per", "I-per"]);
        assert_eq!((set.train.len(), set.validation.len()), (2, 1));
        assert_eq!(set.notes, ["train: 1 tags I-TYPE that open an entity were read as B-TYPE"]);
    }

    #[test]
    fn holding_out_is_seeded_and_complete() {
        let dir = tempfile::tempdir().unwrap();
        let text: String = (0..40).map(|n| format!("w{n} B-x\n\n")).collect();
        let load = |seed| DataSet::load(&Sources { seed, ..sources(dir.path(), &text, None) }).unwrap();
        let set = load(1);
        assert_eq!((set.train.len(), set.validation.len()), (30, 10));
        assert_eq!(set.validation, load(1).validation);
        assert_ne!(set.validation, load(2).validation);
        let mut lines: Vec<usize> = set.train.iter().chain(&set.validation).map(|s| s.line).collect();
        lines.sort_unstable();
        assert_eq!(lines, (0..40).map(|n| 2 * n + 1).collect::<Vec<_>>());
    }

    #[test]
    fn a_fold_is_held_out_under_the_labels_of_all_rows() {
        let dir = tempfile::tempdir().unwrap();
        let fold = Fold { n_splits: 2, index: 1, shuffle: false, seed: 0, stratified: false };
        let sources = Sources { fold: Some(fold), ..sources(dir.path(), "a B-x\n\nb B-y\n\nc B-x\n", None) };
        let set = DataSet::load(&sources).unwrap();
        assert_eq!((set.train.len(), set.validation[0].line), (2, 3));
        assert!(set.labels.id("B-y").is_some());
    }

    #[test]
    fn unusable_splits_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let fails = |train: &str, dev: Option<&str>| DataSet::load(&sources(dir.path(), train, dev)).unwrap_err();
        assert!(matches!(fails("", None), Error::Split { split: "train", .. }));
        assert!(matches!(fails("a O\n", None), Error::Split { split: "train", .. }));
        assert!(matches!(fails("a B-x\n", None), Error::Split { split: "train", .. }));
        assert!(matches!(fails("a B-x\n", Some("\n \n")), Error::Split { split: "validation", .. }));
        match fails("a B-x\n", Some("a O\n\nb O\nc B-y\n")) {
            Error::Data { line: 3, problem, .. } => assert!(problem.contains("`B-y`") && problem.contains("has x")),
            other => panic!("{other}"),
        }
        let mut broken = sources(dir.path(), "a B-x\n", None);
        broken.validation_fraction = f64::NAN;
        assert!(matches!(DataSet::load(&broken), Err(Error::Argument { field: "validation_fraction", .. })));
        std::fs::write(dir.path().join("train"), b"a B-x\n\xff O\n").unwrap();
        assert!(matches!(DataSet::load(&broken), Err(Error::Data { line: 2, .. })));
    }
}
