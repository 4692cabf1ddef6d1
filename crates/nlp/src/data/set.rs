//! A whole data set: where its splits come from, and its examples in memory.
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{
    Answer, ClassSet, Fold, HoldOut, LabelSet, ReadOptions, Sentence, Tag, TextExample, TextOptions, TextReader,
    folder::{self, SplitFiles},
    kind_numbers, parse_tag, partition, read_label_names,
    reader::{SentenceReader, read_texts},
};
use crate::{Error, files, task::Task};

/// Where the splits come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Sources {
    /// Training file, or a folder of splits, whose others are taken when they are not given.
    pub train: PathBuf,
    /// Absent: a part of the training file is held out.
    pub validation: Option<PathBuf>,
    /// Optional.
    pub test: Option<PathBuf>,
    /// What the examples are and how to read them.
    pub form: Form,
    /// Part held out, between 0 and 1.
    pub validation_fraction: f64,
    /// Chooses the rows held out.
    pub seed: u64,
    /// Hold this fold of the training file out instead; `validation` is absent.
    pub fold: Option<Fold>,
}

/// What the examples are and how to read them.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// Words with tags.
    Tokens(ReadOptions),
    /// Texts for the sequence tasks.
    Text(TextOptions),
}

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

/// The files of each split.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resolved {
    pub(crate) train: SplitFiles,
    pub(crate) validation: Option<SplitFiles>,
    pub(crate) test: Option<SplitFiles>,
    pub(crate) notes: Vec<String>,
}

impl Sources {
    /// Finds the files: a folder of splits gives what is not given apart.
    pub(crate) fn resolve(&self) -> Result<Resolved, Error> {
        let mut notes = Vec::new();
        let mut splits = folder::splits(&self.train)?;
        let Some(train) = splits.remove("train").or_else(|| splits.remove("")) else {
            return Err(Error::Split { split: "train", problem: format!("`{}` has none", self.train.display()) });
        };
        let mut other = |name: &'static str, given: Option<&PathBuf>| match given {
            Some(path) => {
                let mut found = folder::splits(path)?;
                let ours = found.remove(name).or_else(|| found.remove(""));
                ours.map(Some)
                    .ok_or_else(|| Error::Split { split: name, problem: format!("`{}` has none", path.display()) })
            }
            None => Ok(splits.remove(name)),
        };
        let mut validation = other("validation", self.validation.as_ref())?;
        let test = other("test", self.test.as_ref())?;
        if self.fold.is_some() && validation.take().is_some() {
            notes.push("validation: the folder's own split is left aside, a fold of train is validated on".to_owned());
        }
        for (name, split) in [("train", Some(&train)), ("validation", validation.as_ref()), ("test", test.as_ref())] {
            if let Some(split) = split.filter(|split| split.files.len() > 1) {
                notes.push(format!("{name}: {} files", split.files.len()));
            }
        }
        Ok(Resolved { train, validation, test, notes })
    }

    /// How rows are held out of training when no validation split is given.
    pub fn hold_out(&self) -> HoldOut {
        match self.fold {
            Some(fold) => HoldOut::Fold(fold),
            None => HoldOut::Share {
                fraction: self.validation_fraction,
                seed: self.seed,
                // Labels of texts may be many and rare; sentences have several each.
                stratified: matches!(self.form, Form::Text(_)),
            },
        }
    }

    /// Identifies what is trained on by content and settings; the test split is no part of it.
    pub fn digest(&self) -> Result<String, Error> {
        let resolved = self.resolve()?;
        let mut hash = Sha256::new();
        hash.update(format!("{:?} {} {} {:?}\n", self.form, self.validation_fraction, self.seed, self.fold));
        for (name, split) in [("train", Some(&resolved.train)), ("validation", resolved.validation.as_ref())] {
            for file in split.iter().flat_map(|split| &split.files) {
                hash.update(format!("{name} {}\n", files::digest(file)?));
            }
        }
        if let Form::Text(TextOptions { labels: Some(path), .. }) = &self.form {
            hash.update(files::digest(path)?);
        }
        Ok(hex::encode(hash.finalize()))
    }
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
    let labels = LabelSet::of_train(&train, reader.classes.take());
    if train.iter().all(|row| row.tags.iter().all(|tag| tag == "O")) {
        let problem = format!("`{}` has no entity: every tag is O", sources.train.display());
        return Err(Error::Split { split: "train", problem });
    }
    let mut checked = |name: &'static str, split: &SplitFiles, notes: &mut Vec<String>| {
        let rows = sentences(name, split, options, &mut reader, notes)?;
        for row in &rows {
            if let Some(tag) = row.tags.iter().find(|tag| labels.id(tag).is_none()) {
                let problem = format!("label `{tag}` is unknown: the training split has {}", labels.types().join(", "));
                return Err(Error::data(place(split), row.line, problem));
            }
        }
        Ok(rows)
    };
    let (train, validation) = match &resolved.validation {
        Some(split) => (train, checked("validation", split, &mut notes)?),
        None => {
            let kinds: Vec<BTreeSet<&str>> = train.iter().map(entity_types).collect();
            let held = sources.hold_out().choose(train.len(), &kind_numbers(&kinds))?;
            partition(train, &held)
        }
    };
    let test = resolved.test.as_ref().map(|split| checked("test", split, &mut notes)).transpose()?;
    Ok(DataSet::Tokens { labels, splits: Splits { train, validation, test }, notes })
}

/// The entity types of a sentence.
pub(crate) fn entity_types(sentence: &Sentence) -> BTreeSet<&str> {
    let types = sentence.tags.iter().filter_map(|tag| match parse_tag(tag)? {
        Tag::Outside => None,
        Tag::Begin(kind) | Tag::Inside(kind) => Some(kind),
    });
    types.collect()
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

/// A file by which a split is named in errors.
fn place(split: &SplitFiles) -> &Path {
    split.files.first().map_or(Path::new(""), PathBuf::as_path)
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
        (_, None) => ClassSet::of(train.iter().flat_map(|example| answer_labels(&example.answer))),
    };
    single_class("train", &train, task)?;
    let mut checked = |name: &'static str, split: &SplitFiles| {
        let rows = examples(name, split, options, &mut reader)?;
        for row in &rows {
            let unknown =
                answer_labels(&row.answer).find(|label| task != Task::Regression && labels.id(label).is_none());
            if let Some(label) = unknown {
                let known = super::listed(labels.names());
                let problem = format!(
                    "label `{label}` is unknown: the training split has {known}; a file of labels may name more"
                );
                return Err(Error::data(place(split), row.line, problem));
            }
        }
        Ok(rows)
    };
    let (train, validation) = match &resolved.validation {
        Some(split) => (train, checked("validation", split)?),
        None => {
            let kinds: Vec<Vec<&str>> = train.iter().map(|example| answer_labels(&example.answer).collect()).collect();
            let held = sources.hold_out().choose(train.len(), &kind_numbers(&kinds))?;
            partition(train, &held)
        }
    };
    single_class("train", &train, task)?;
    single_class("validation", &validation, task)?;
    let test = resolved.test.as_ref().map(|split| checked("test", split)).transpose()?;
    Ok(DataSet::Text { task, labels, splits: Splits { train, validation, test }, notes })
}

/// The labels of an answer; none of a number.
pub(crate) fn answer_labels(answer: &Answer) -> impl Iterator<Item = &str> {
    let (one, many) = match answer {
        Answer::Label(label) => (Some(label), None),
        Answer::Labels(labels) => (None, Some(labels)),
        Answer::Value(_) => (None, None),
    };
    one.into_iter().chain(many.into_iter().flatten()).map(String::as_str)
}

/// A split that has the same answer everywhere teaches nothing, and nothing can be selected by it.
fn single_class(split: &'static str, rows: &[TextExample], task: Task) -> Result<(), Error> {
    let mut kinds: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
    for row in rows {
        *kinds.entry(answer_labels(&row.answer).collect()).or_default() += 1;
    }
    if let (Some((labels, _)), false) = (kinds.pop_first().filter(|_| kinds.is_empty()), task == Task::Regression) {
        let what = if labels.is_empty() { "no label".to_owned() } else { format!("label `{}`", labels.join(", ")) };
        return Err(Error::Split {
            split,
            problem: format!("all {} rows have {what}: there is nothing to tell apart", rows.len()),
        });
    }
    Ok(())
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
