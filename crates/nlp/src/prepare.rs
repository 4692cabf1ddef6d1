//! From the sources of a data set to rows that a model trains on: one call for every task and every size.
//!
//! The files are read twice, row by row: first to check every row, to find the labels and to choose which rows are held out, then to encode
//! them. Nothing but a few bytes a row stays in memory between; encoded rows are [`packed`](crate::packed) into memory up to a budget and into a file beyond
//! it. All of it depends on the files and settings alone, so that a run that is taken up again sees the same rows.
use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    thread,
};

use crate::{
    Error,
    align::{Alignment, Document, encode_sentence, encode_text},
    data::{
        ClassSet, Form, LabelSet, ReadOptions, Sentence, Sources, TextExample, TextOptions, TextReader,
        folder::SplitFiles,
        kind_numbers, read_label_names,
        reader::{SentenceReader, read_texts},
        sources::{Resolved, place},
        split_checks::{
            answer_kind, has_entity, known_labels, known_tags, sentence_kind, several_kinds, some_entity,
            some_entity_each,
        },
    },
    packed::{MEMORY, RowWriter},
    rows::{Example, Rows},
    task::Task,
    tokenizer::WordTokenizer,
};

/// Documents encoded at a time by each thread.
const CHUNK: usize = 256;

/// How to prepare.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Longest row in sub-tokens, the special ones included.
    pub max_length: usize,
    /// Folder for rows that do not fit in memory; absent: everything is held in memory.
    pub work_dir: Option<PathBuf>,
    /// Bytes of rows held in memory before they go to the folder; absent: [`MEMORY`].
    pub memory: Option<usize>,
    /// Threads that encode; 0 means all cores.
    pub threads: usize,
}

/// A split, ready for the encoder.
#[derive(Clone)]
pub struct Part {
    /// `train`, `validation` or `test`.
    pub name: &'static str,
    /// Its rows. Those of `train` all have something that the loss looks at.
    pub rows: Arc<dyn Rows>,
    /// What encoding did to it.
    pub alignment: Alignment,
}

/// A data set, ready for the encoder.
pub struct Prepared {
    /// What the model is trained to say.
    pub task: Task,
    /// Labels in the order of their ids; a regression has one.
    pub labels: Vec<String>,
    /// To train on.
    pub train: Part,
    /// To select by.
    pub validation: Part,
    /// To report on.
    pub test: Option<Part>,
    /// What was changed or decided while reading, one line each.
    pub notes: Vec<String>,
}

/// Reads, checks, splits and encodes a data set.
///
/// # Errors
/// A split is empty; one to train on or to select by has a single label, or no entity; a label is unknown to the training split (and to the file
/// of labels); no row of the training split has anything that the tokenizer keeps; a file cannot be read, or the folder cannot be written.
pub fn prepare(sources: &Sources, tokenizer: &WordTokenizer, options: &Options) -> Result<Prepared, Error> {
    prepare_watched(sources, tokenizer, options, &mut |_, _| true)
}

/// [`prepare`] for sets that take long: `watch` hears now and then which split is at work and how many documents of it are done, and stops the
/// work with [`Error::Stopped`] by answering false.
///
/// # Errors
/// As there.
pub fn prepare_watched(
    sources: &Sources,
    tokenizer: &WordTokenizer,
    options: &Options,
    watch: &mut dyn FnMut(&'static str, usize) -> bool,
) -> Result<Prepared, Error> {
    let resolved = sources.resolve()?;
    let mut prepared = match &sources.form {
        Form::Tokens(read) => tokens(sources, read, &resolved, tokenizer, options, watch)?,
        Form::Text(read) => texts(sources, read, &resolved, tokenizer, options, watch)?,
    };
    if prepared.train.rows.is_empty() {
        let problem = "no row has a word that the tokenizer keeps".to_owned();
        return Err(Error::Split { split: "train", problem });
    }
    prepared.notes.splice(0..0, resolved.notes);
    Ok(prepared)
}

/// The kinds of the rows of a split, a number each.
#[derive(Default)]
struct Kinds {
    found: HashMap<String, u32>,
    rows: Vec<u32>,
}

impl Kinds {
    fn add(&mut self, kind: String) {
        let next = self.found.len() as u32;
        self.rows.push(*self.found.entry(kind).or_insert(next));
    }

    /// Numbers by the order of kinds instead of that of their appearance.
    fn ranked(mut self) -> Vec<u32> {
        let mut names: Vec<(String, u32)> = self.found.into_iter().collect();
        names.sort_unstable_by_key(|(_, first)| *first);
        let ranks = kind_numbers(&names.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
        self.rows.iter_mut().for_each(|row| *row = ranks[*row as usize]);
        self.rows
    }
}

fn empty(split: &'static str, files: &SplitFiles, what: &str) -> Error {
    Error::Split { split, problem: format!("`{}` has no {what}", place(files).display()) }
}

fn tokens(
    sources: &Sources,
    read: &ReadOptions,
    resolved: &Resolved,
    tokenizer: &WordTokenizer,
    options: &Options,
    watch: &mut dyn FnMut(&'static str, usize) -> bool,
) -> Result<Prepared, Error> {
    let mut reader = SentenceReader::default();
    let (mut tags, mut kinds, mut count) = (BTreeSet::new(), Kinds::default(), 0);
    // Of rows that are held out later: whether each has an entity.
    let mut entities = Vec::new();
    let held_out = resolved.validation.is_none();
    reader.read(&resolved.train, read, &mut |_, sentence| {
        for tag in &sentence.tags {
            if !tags.contains(tag) {
                tags.insert(tag.clone());
            }
        }
        if held_out {
            entities.push(has_entity(&sentence));
            if sources.hold_out().is_stratified() {
                kinds.add(sentence_kind(&sentence));
            }
        }
        count += 1;
        Ok(())
    })?;
    if count == 0 {
        return Err(empty("train", &resolved.train, "sentence"));
    }
    let labels = LabelSet::of_tags(tags.iter().map(String::as_str), reader.classes.take());
    some_entity("train", tags.iter().any(|tag| tag != "O"), &sources.train)?;
    let mut notes = reader.notes("train");
    let mut check = |split: &'static str, files: &SplitFiles| {
        let (mut count, mut entity) = (0, split == "test");
        reader.read(files, read, &mut |path, sentence| {
            count += 1;
            entity |= has_entity(&sentence);
            known_tags(&sentence, &labels, path)
        })?;
        notes.extend(reader.notes(split));
        if count == 0 { Err(empty(split, files, "sentence")) } else { some_entity(split, entity, place(files)) }
    };
    resolved.validation.iter().try_for_each(|files| check("validation", files))?;
    resolved.test.iter().try_for_each(|files| check("test", files))?;
    let held = held_out.then(|| sources.hold_out().choose(count, &kinds.ranked())).transpose()?;
    if let Some(held) = &held {
        some_entity_each(held, &entities, &sources.train)?;
    }

    let encode = |sentence: &Sentence| encode_sentence(sentence, tokenizer, &labels, options.max_length, read.stride);
    let mut pass = Pass { options, watch };
    let source = |files: &SplitFiles, sink: &mut dyn FnMut(Sentence) -> Result<(), Error>| {
        SentenceReader::default().read(files, read, &mut |_, sentence| sink(sentence))
    };
    let (train, validation) =
        pass.train(&resolved.train, resolved.validation.as_ref(), held, &source, &encode, Example::Sentence)?;
    let test = resolved.test.as_ref().map(|files| pass.part("test", files, &source, &encode, Example::Sentence));
    let labels = labels.names().to_vec();
    Ok(Prepared { task: Task::TokenClassification, labels, train, validation, test: test.transpose()?, notes })
}

fn texts(
    sources: &Sources,
    read: &TextOptions,
    resolved: &Resolved,
    tokenizer: &WordTokenizer,
    options: &Options,
    watch: &mut dyn FnMut(&'static str, usize) -> bool,
) -> Result<Prepared, Error> {
    let names = read.labels.as_deref().map(read_label_names).transpose()?;
    let mut reader = TextReader::new(read, names.clone());
    let (mut kinds, mut found, mut count) = (Kinds::default(), BTreeSet::new(), 0);
    read_texts(&resolved.train, read, &mut reader, &mut |_, example| {
        for label in example.answer.labels() {
            if !found.contains(label) {
                found.insert(label.to_owned());
            }
        }
        kinds.add(answer_kind(&example.answer));
        count += 1;
        Ok(())
    })?;
    if count == 0 {
        return Err(empty("train", &resolved.train, "row"));
    }
    let task = reader.task().unwrap_or(Task::SequenceClassification);
    let mut notes: Vec<String> = reader.decision().into_iter().chain(reader.notes("train")).collect();
    let labels = match (task, reader.known_labels()?) {
        (Task::Regression, _) => ClassSet::regression(),
        (_, Some(known)) => known,
        (_, None) => ClassSet::of(found.iter().map(String::as_str)),
    };
    several_kinds("train", count, &kinds.found.keys().cloned().collect(), task)?;
    let mut check = |split: &'static str, files: &SplitFiles| {
        let (mut kinds, mut count) = (BTreeSet::new(), 0);
        read_texts(files, read, &mut reader, &mut |path, example| {
            count += 1;
            if kinds.len() < 2 {
                kinds.insert(answer_kind(&example.answer));
            }
            known_labels(&example, &labels, path)
        })?;
        notes.extend(reader.notes(split));
        match (count, split) {
            (0, _) => Err(empty(split, files, "row")),
            (_, "test") => Ok(()),
            _ => several_kinds(split, count, &kinds, task),
        }
    };
    resolved.validation.iter().try_for_each(|files| check("validation", files))?;
    resolved.test.iter().try_for_each(|files| check("test", files))?;
    let held = match &resolved.validation {
        Some(_) => None,
        None => {
            let names: HashMap<u32, String> = kinds.found.iter().map(|(name, kind)| (*kind, name.clone())).collect();
            let rows = kinds.rows.clone();
            let held = sources.hold_out().choose(count, &kinds.ranked())?;
            for (split, out) in [("train", false), ("validation", true)] {
                let ours = rows.iter().zip(&held).filter(|(_, held)| **held == out).map(|(kind, _)| *kind);
                let numbers: BTreeSet<u32> = ours.collect();
                let kinds = numbers.into_iter().filter_map(|kind| names.get(&kind).cloned()).collect();
                several_kinds(split, held.iter().filter(|held| **held == out).count(), &kinds, task)?;
            }
            Some(held)
        }
    };
    if let (Some(names), false) = (&names, task == Task::Regression) {
        let missing = names.iter().filter(|name| !found.contains(*name)).count();
        if missing > 0 {
            notes.push(format!("train: {missing} of {} labels do not occur", names.len()));
        }
    }

    let encode = |example: &TextExample| encode_text(example, tokenizer, &labels, options.max_length);
    let mut pass = Pass { options, watch };
    let source = |files: &SplitFiles, sink: &mut dyn FnMut(TextExample) -> Result<(), Error>| {
        read_texts(files, read, &mut reader.clone(), &mut |_, example| sink(example))
    };
    let (train, validation) =
        pass.train(&resolved.train, resolved.validation.as_ref(), held, &source, &encode, Example::Text)?;
    let test = resolved.test.as_ref().map(|files| pass.part("test", files, &source, &encode, Example::Text));
    Ok(Prepared { task, labels: labels.names().to_vec(), train, validation, test: test.transpose()?, notes })
}

/// Reads the examples of a split into a sink.
type Source<'s, T> = &'s dyn Fn(&SplitFiles, &mut dyn FnMut(T) -> Result<(), Error>) -> Result<(), Error>;

/// Encodes an example.
type Encode<'s, T> = &'s (dyn Fn(&T) -> Result<Document, Error> + Sync);

/// The second reading, in which examples are encoded.
struct Pass<'a> {
    options: &'a Options,
    watch: &'a mut dyn FnMut(&'static str, usize) -> bool,
}

impl Pass<'_> {
    /// The training split and the validation split, which may be rows of the same files.
    fn train<T: Sync>(
        &mut self,
        train: &SplitFiles,
        validation: Option<&SplitFiles>,
        held: Option<Vec<bool>>,
        source: Source<'_, T>,
        encode: Encode<'_, T>,
        wrap: fn(T) -> Example,
    ) -> Result<(Part, Part), Error> {
        let (Some(held), None) = (&held, validation) else {
            let train = self.part("train", train, source, encode, wrap)?;
            let files = validation.ok_or_else(|| Error::argument("validation", "missing"))?;
            return Ok((train, self.part("validation", files, source, encode, wrap)?));
        };
        let mut writers = [self.writer("train"), self.writer("validation")];
        self.each("train", train, source, encode, &mut |index, example: T, document| {
            let out = held.get(index).copied().unwrap_or(false);
            writers[usize::from(out)].push(&wrap(example), document)
        })?;
        let [train, validation] = writers.map(Writer::finish);
        Ok((train?, validation?))
    }

    fn part<T: Sync>(
        &mut self,
        name: &'static str,
        files: &SplitFiles,
        source: Source<'_, T>,
        encode: Encode<'_, T>,
        wrap: fn(T) -> Example,
    ) -> Result<Part, Error> {
        let mut writer = self.writer(name);
        self.each(name, files, source, encode, &mut |_, example, document| writer.push(&wrap(example), document))?;
        writer.finish()
    }

    fn writer(&self, name: &'static str) -> Writer {
        let memory = self.options.memory.unwrap_or(MEMORY);
        // Most of it is for the split that is read in every epoch.
        let memory = if name == "train" { memory - memory / 4 } else { memory / 8 };
        let rows = RowWriter::new(self.options.work_dir.as_deref(), memory);
        Writer { name, rows, alignment: Alignment::default() }
    }

    /// Encodes the examples of a split, several threads at a time, and hands them on in their order.
    fn each<T: Sync>(
        &mut self,
        name: &'static str,
        files: &SplitFiles,
        source: Source<'_, T>,
        encode: Encode<'_, T>,
        sink: &mut dyn FnMut(usize, T, Document) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let threads = match self.options.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let (mut chunk, mut done) = (Vec::with_capacity(CHUNK * threads), 0);
        let mut flush = |chunk: &mut Vec<T>| {
            let documents = parallel(chunk, threads, encode);
            for (example, document) in chunk.drain(..).zip(documents) {
                sink(done, example, document?)?;
                done += 1;
            }
            if (self.watch)(name, done) { Ok(()) } else { Err(Error::Stopped) }
        };
        source(files, &mut |example| {
            chunk.push(example);
            if chunk.len() == CHUNK * threads { flush(&mut chunk) } else { Ok(()) }
        })?;
        flush(&mut chunk)
    }
}

fn parallel<T: Sync>(examples: &[T], threads: usize, encode: Encode<'_, T>) -> Vec<Result<Document, Error>> {
    let share = examples.len().div_ceil(threads.max(1)).max(1);
    if examples.len() <= CHUNK / 8 {
        return examples.iter().map(encode).collect();
    }
    thread::scope(|scope| {
        let parts: Vec<_> = examples
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(encode).collect::<Vec<_>>()))
            .collect();
        let joined = parts.into_iter().flat_map(|part| match part.join() {
            Ok(found) => found,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    })
}

struct Writer {
    name: &'static str,
    rows: RowWriter,
    alignment: Alignment,
}

impl Writer {
    fn push(&mut self, example: &Example, document: Document) -> Result<(), Error> {
        self.alignment.add(&document);
        // A training row without a label would make a batch's mean loss 0/0.
        let rows: Vec<_> = document.rows.iter().filter(|row| self.name != "train" || row.counts()).collect();
        if rows.is_empty() { Ok(()) } else { self.rows.push(example, rows) }
    }

    fn finish(self) -> Result<Part, Error> {
        Ok(Part { name: self.name, rows: Arc::new(self.rows.finish()?), alignment: self.alignment })
    }
}
