//! A whole data set in memory.
use std::{collections::BTreeSet, path::Path};

use super::{
    Answer, ClassSet, Form, LabelSet, ReadOptions, Sentence, Sources, TextExample, TextOptions, TextReader,
    folder::SplitFiles,
    kind_numbers, parse_tag, partition, read_label_names,
    reader::{SentenceReader, read_texts},
    sources::{Resolved, place},
};
use crate::{Error, task::Task};

/// The examples of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Splits<T> {
    /// To train on.
    pub train: Vec<T>,
    /// To select by.
    pub validation: Vec<T>,
    /// To report on.
    pub test: Option<Vec<T>>,
}

/// A whole data set in memory.
#[derive(Debug, Clone, PartialEq)]
pub enum DataSet {
    /// For token classification.
    Tokens {
        /// Labels of the training split, `O` first.
        labels: LabelSet,
        /// Sentences.
        splits: Splits<Sentence>,
        /// What was changed while reading, one line each.
        notes: Vec<String>,
    },
    /// For the sequence tasks.
    Text {
        /// Which one.
        task: Task,
        /// Labels by id.
        labels: ClassSet,
        /// Texts.
        splits: Splits<TextExample>,
        /// What was decided while reading, one line each.
        notes: Vec<String>,
    },
}

impl DataSet {
    /// Reads all splits. An empty split, a training split with a single label, and a label that the training split (or the file of labels)
    /// does not have are errors.
    pub fn load(sources: &Sources) -> Result<Self, Error> {
        let resolved = sources.resolve()?;
        match &sources.form {
            Form::Tokens(options) => tokens(sources, options, resolved),
            Form::Text(options) => texts(sources, options, resolved),
        }
    }

    /// What a model is trained to say.
    pub fn task(&self) -> Task {
        match self {
            Self::Tokens { .. } => Task::TokenClassification,
            Self::Text { task, .. } => *task,
        }
    }

    /// Labels in the order of their ids; a regression has one.
    pub fn label_names(&self) -> &[String] {
        match self {
            Self::Tokens { labels, .. } => labels.names(),
            Self::Text { labels, .. } => labels.names(),
        }
    }

    /// What was changed or decided while reading, one line each.
    pub fn notes(&self) -> &[String] {
        match self {
            Self::Tokens { notes, .. } | Self::Text { notes, .. } => notes,
        }
    }
}

fn tokens(sources: &Sources, options: &ReadOptions, resolved: Resolved) -> Result<DataSet, Error> {
    let mut notes = resolved.notes;
    let mut reader = SentenceReader::default();
    let train = sentences("train", &resolved.train, options, &mut reader, &mut notes)?;
    let tags = || train.iter().flat_map(|row| &row.tags).map(String::as_str);
    let labels = LabelSet::of_tags(tags(), reader.classes.take());
    some_entity("train", tags().any(|tag| tag != "O"), &sources.train)?;
    let mut checked = |name: &'static str, split: &SplitFiles, notes: &mut Vec<String>| {
        let rows = sentences(name, split, options, &mut reader, notes)?;
        rows.iter().try_for_each(|row| known_tags(row, &labels, place(split)))?;
        if name == "validation" {
            some_entity(name, rows.iter().flat_map(|row| &row.tags).any(|tag| tag != "O"), place(split))?;
        }
        Ok(rows)
    };
    let (train, validation) = match &resolved.validation {
        Some(split) => (train, checked("validation", split, &mut notes)?),
        None => {
            let kinds: Vec<String> = train.iter().map(sentence_kind).collect();
            let held = sources.hold_out().choose(train.len(), &kind_numbers(&kinds))?;
            partition(train, &held)
        }
    };
    let test = resolved.test.as_ref().map(|split| checked("test", split, &mut notes)).transpose()?;
    Ok(DataSet::Tokens { labels, splits: Splits { train, validation, test }, notes })
}

/// A split to train on or to select by needs an entity.
pub(crate) fn some_entity(split: &'static str, found: bool, path: &Path) -> Result<(), Error> {
    if found {
        return Ok(());
    }
    Err(Error::Split { split, problem: format!("`{}` has no entity: every tag is O", path.display()) })
}

/// Whether the labels of the training split cover a sentence of another.
pub(crate) fn known_tags(row: &Sentence, labels: &LabelSet, path: &Path) -> Result<(), Error> {
    match row.tags.iter().find(|tag| labels.id(tag).is_none()) {
        Some(tag) => {
            let problem = format!("label `{tag}` is unknown: the training split has {}", labels.types().join(", "));
            Err(Error::data(path, row.line, problem))
        }
        None => Ok(()),
    }
}

/// Whether the labels of the training split cover a text of another.
pub(crate) fn known_labels(row: &TextExample, labels: &ClassSet, path: &Path) -> Result<(), Error> {
    match row.answer.labels().find(|label| labels.id(label).is_none()) {
        Some(label) => {
            let known = super::listed(labels.names());
            // The cells of a table of texts do not say that they are numbers.
            let numbers = labels.names().iter().all(|name| name.parse::<f32>().is_ok()) && label.parse::<f32>().is_ok();
            let advice = if numbers { ", and numbers are learnt as numbers by task REGRESSION" } else { "" };
            let problem = format!(
                "label `{label}` is unknown: the training split has {known}; a file of labels may name more{advice}"
            );
            Err(Error::data(path, row.line, problem))
        }
        None => Ok(()),
    }
}

/// What kind of row a sentence is when rows are split: the types of its entities, sorted.
pub(crate) fn sentence_kind(sentence: &Sentence) -> String {
    let types: BTreeSet<&str> = sentence.tags.iter().filter_map(|tag| parse_tag(tag)?.kind()).collect();
    joined(types)
}

/// What kind of row a text is when rows are split: its labels.
pub(crate) fn answer_kind(answer: &Answer) -> String {
    joined(answer.labels())
}

/// Joined by a character below all that names have, so that kinds sort as lists of names do.
fn joined<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join("\u{1f}")
}

fn sentences(
    name: &'static str,
    split: &SplitFiles,
    options: &ReadOptions,
    reader: &mut SentenceReader,
    notes: &mut Vec<String>,
) -> Result<Vec<Sentence>, Error> {
    let mut all = Vec::new();
    reader.read(split, options, &mut |_, sentence| {
        all.push(sentence);
        Ok(())
    })?;
    if all.is_empty() {
        return Err(Error::Split { split: name, problem: format!("`{}` has no sentence", place(split).display()) });
    }
    notes.extend(reader.notes(name));
    Ok(all)
}

fn texts(sources: &Sources, options: &TextOptions, resolved: Resolved) -> Result<DataSet, Error> {
    let mut notes = resolved.notes;
    let names = options.labels.as_deref().map(read_label_names).transpose()?;
    let mut reader = TextReader::new(options, names);
    let train = examples("train", &resolved.train, options, &mut reader)?;
    let task = reader.task().unwrap_or(Task::SequenceClassification);
    notes.extend(reader.note());
    let labels = match (task, reader.known_labels()?) {
        (Task::Regression, _) => ClassSet::regression(),
        (_, Some(known)) => known,
        (_, None) => ClassSet::of(train.iter().flat_map(|example| example.answer.labels())),
    };
    single_class("train", &train, task)?;
    let mut checked = |name: &'static str, split: &SplitFiles| {
        let rows = examples(name, split, options, &mut reader)?;
        rows.iter().try_for_each(|row| known_labels(row, &labels, place(split)))?;
        Ok(rows)
    };
    let (train, validation) = match &resolved.validation {
        Some(split) => (train, checked("validation", split)?),
        None => {
            let kinds: Vec<String> = train.iter().map(|example| answer_kind(&example.answer)).collect();
            let held = sources.hold_out().choose(train.len(), &kind_numbers(&kinds))?;
            partition(train, &held)
        }
    };
    single_class("train", &train, task)?;
    single_class("validation", &validation, task)?;
    let test = resolved.test.as_ref().map(|split| checked("test", split)).transpose()?;
    Ok(DataSet::Text { task, labels, splits: Splits { train, validation, test }, notes })
}

/// Whether the answers of a split differ: one that has the same answer everywhere teaches nothing, and nothing can be selected by it.
fn single_class(split: &'static str, rows: &[TextExample], task: Task) -> Result<(), Error> {
    let kinds: BTreeSet<String> = rows.iter().map(|row| answer_kind(&row.answer)).collect();
    several_kinds(split, rows.len(), &kinds, task)
}

/// The same by the kinds of answers that were found, of which two are enough.
pub(crate) fn several_kinds(
    split: &'static str,
    rows: usize,
    kinds: &BTreeSet<String>,
    task: Task,
) -> Result<(), Error> {
    match kinds.first() {
        Some(kind) if kinds.len() == 1 && task != Task::Regression => {
            let labels = kind.replace('\u{1f}', ", ");
            let what = if labels.is_empty() { "no label".to_owned() } else { format!("label `{labels}`") };
            let problem = format!("all {rows} rows have {what}: there is nothing to tell apart");
            Err(Error::Split { split, problem })
        }
        _ => Ok(()),
    }
}

fn examples(
    name: &'static str,
    split: &SplitFiles,
    options: &TextOptions,
    reader: &mut TextReader<'_>,
) -> Result<Vec<TextExample>, Error> {
    let mut all = Vec::new();
    read_texts(split, options, reader, &mut |_, example| {
        all.push(example);
        Ok(())
    })?;
    if all.is_empty() {
        return Err(Error::Split { split: name, problem: format!("`{}` has no row", place(split).display()) });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Fold;

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

    fn load_tokens(sources: &Sources) -> (LabelSet, Splits<Sentence>, Vec<String>) {
        match DataSet::load(sources).unwrap() {
            DataSet::Tokens { labels, splits, notes } => (labels, splits, notes),
            other => panic!("{other:?}"),
        }
    }

    fn texts(dir: &Path, train: &str, validation: Option<&str>) -> Sources {
        Sources { form: Form::Text(TextOptions::default()), ..sources(dir, train, validation) }
    }

    fn load_texts(sources: &Sources) -> (Task, ClassSet, Splits<TextExample>) {
        match DataSet::load(sources).unwrap() {
            DataSet::Text { task, labels, splits, .. } => (task, labels, splits),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn splits_of_both_formats_meet() {
        let dir = tempfile::tempdir().unwrap();
        let dev = r#"{"text": "in Oslo", "spans": [{"start": 3, "end": 7, "label": "loc"}]}"#;
        let (labels, splits, notes) = load_tokens(&sources(dir.path(), "a O\nb B-loc\n\nc I-per\n", Some(dev)));
        assert_eq!(labels.names(), ["O", "B-loc", "I-loc", "B-per", "I-per"]);
        assert_eq!((splits.train.len(), splits.validation.len()), (2, 1));
        assert_eq!(notes, ["train: 1 tags that open an entity without saying so (I-TYPE) were read as B-TYPE"]);
    }

    #[test]
    fn holding_out_is_seeded_and_complete() {
        let dir = tempfile::tempdir().unwrap();
        let text: String = (0..40).map(|n| format!("w{n} B-x\n\n")).collect();
        let load = |seed| load_tokens(&Sources { seed, ..sources(dir.path(), &text, None) }).1;
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
        let (labels, set, _) = load_tokens(&sources);
        assert_eq!((set.train.len(), set.validation[0].line), (2, 3));
        assert!(labels.id("B-y").is_some());
    }

    #[test]
    fn unusable_splits_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let fails = |train: &str, dev: Option<&str>| DataSet::load(&sources(dir.path(), train, dev)).unwrap_err();
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
        assert!(matches!(DataSet::load(&broken), Err(Error::Argument { field: "validation_fraction", .. })));
        std::fs::write(dir.path().join("train"), b"a B-x\n\xff O\n").unwrap();
        assert!(matches!(DataSet::load(&broken), Err(Error::Data { line: 2, .. })));
    }

    #[test]
    fn texts_are_held_out_label_by_label() {
        let dir = tempfile::tempdir().unwrap();
        let csv: String = (0..40).map(|n| format!("t{n},{}\n", if n % 10 == 3 { "rare" } else { "often" })).collect();
        let (task, labels, splits) = load_texts(&texts(dir.path(), &format!("text,label\n{csv}"), None));
        assert_eq!(
            (task, labels.names()),
            (Task::SequenceClassification, &["often".to_owned(), "rare".to_owned()][..])
        );
        assert_eq!((splits.train.len(), splits.validation.len()), (30, 10));
        let rare = splits.validation.iter().filter(|row| row.answer == Answer::Label("rare".into())).count();
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
            DataSet::load(&Sources { form: Form::Text(options.clone()), ..sources })
        };
        assert_eq!(read("text,label\nx,m\ny,a\n").unwrap().label_names(), ["z", "a", "m"]);
        match read("text,label\nx,a\ny,b\n") {
            Err(Error::Data { line: 3, problem, .. }) => assert!(problem.contains("z, a, m"), "{problem}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_split_of_texts_needs_two_labels() {
        let dir = tempfile::tempdir().unwrap();
        let fails =
            |train: &str, dev: Option<&str>| DataSet::load(&texts(dir.path(), train, dev)).unwrap_err().to_string();
        assert!(fails("text,label\n", None).contains("train split: `"));
        assert!(fails("text,label\nx,a\ny,a\nz,a\n", None).contains("train split: all 3 rows have label `a`"));
        let two = "text,label\nx,a\ny,b\n";
        assert!(fails(two, Some("text,label\nx,a\n")).contains("validation split: all 1 rows have label `a`"));
        let unknown = fails(two, Some("text,label\nx,a\ny,c\n"));
        assert!(unknown.contains("dev`:3: label `c` is unknown: the training split has a, b"), "{unknown}");
        // The answers of a regression may all be the same.
        let regression = TextOptions { task: Some(Task::Regression), ..TextOptions::default() };
        let sources = texts(dir.path(), "text,label\nx,1\ny,1\n", Some("text,label\nx,1\n"));
        let (task, labels, _) = load_texts(&Sources { form: Form::Text(regression), ..sources });
        assert_eq!((task, labels.names().len()), (Task::Regression, 1));
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
        let (_, _, splits) = load_texts(&base);
        assert_eq!((splits.train.len(), splits.validation.len(), splits.test.map(|test| test.len())), (4, 2, Some(1)));
        // A fold is of the training split alone.
        let fold = Fold { n_splits: 2, index: 0, shuffle: false, seed: 0, stratified: true };
        let folded = Sources { fold: Some(fold), ..base.clone() };
        assert_eq!(load_texts(&folded).2.validation.len(), 2);
        assert!(DataSet::load(&folded).unwrap().notes()[0].contains("left aside"));

        let digest = base.digest().unwrap();
        assert_eq!(base.digest().unwrap(), digest);
        assert_ne!(folded.digest().unwrap(), digest);
        write("test.csv", "text,label\nx,b\n");
        assert_eq!(base.digest().unwrap(), digest);
        write("dev.csv", "text,label\nx,b\ny,a\n");
        assert_ne!(base.digest().unwrap(), digest);
    }
}
