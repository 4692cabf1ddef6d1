//! Data files taken apart and put together, row by row as they are: what `quintet data split` and `quintet data combine` do.
use std::{
    collections::BTreeSet,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use super::guess::guess_form;
use super::{
    Form, Format, HoldOut, Sentence, TextOptions, TextReader,
    folder::{self, SplitFiles},
    kind_numbers, partition, read_label_names,
    reader::{SentenceReader, known, sentence_format},
    record::{self, Features, Record},
    split_checks::{answer_kind, sentence_kind},
};
use crate::{Error, files, random::Stream};

/// How the rows of a new data set and an old one become one: as in the continued training of the system before this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The new rows alone.
    NewOnly,
    /// All rows in a seeded random order.
    Combined,
    /// The old rows, then the new ones.
    Append,
}

/// One row, as it is.
#[derive(Debug, Clone, PartialEq)]
enum Item {
    Sentence(Sentence),
    Record(Value),
}

/// The rows of one split, as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    items: Vec<Item>,
    /// Of each row: its entity types or labels.
    kinds: Vec<String>,
    /// What it is written as: CoNLL stays CoNLL, CSV stays CSV, anything else becomes JSON lines.
    format: Format,
    separator: u8,
    /// What was changed or left out while they were read.
    notes: Vec<String>,
}

impl Rows {
    /// Reads one split.
    ///
    /// # Errors
    /// A file cannot be read, or a row is malformed: nothing is passed on unchecked.
    fn read(name: &str, split: &SplitFiles, form: &Form) -> Result<Self, Error> {
        let mut rows =
            Self { items: Vec::new(), kinds: Vec::new(), format: Format::Jsonl, separator: b',', notes: Vec::new() };
        let names = match form {
            Form::Text(TextOptions { labels: Some(path), .. }) => Some(read_label_names(path)?),
            _ => None,
        };
        let text_options = match form {
            Form::Text(options) => options.clone(),
            Form::Tokens(_) => TextOptions::default(),
        };
        let mut texts = TextReader::new(&text_options, names);
        let mut sentences = SentenceReader::default();
        for path in &split.files {
            let format = match form {
                Form::Tokens(options) => sentence_format(path, options)?,
                Form::Text(options) => options.format.map_or_else(|| record::detect(path, Format::Csv), Ok)?,
            };
            if let (Format::Conll, Form::Tokens(options)) = (format, form) {
                rows.format = Format::Conll;
                sentences.conll(path, options, &mut |sentence| {
                    rows.kinds.push(sentence_kind(&sentence));
                    rows.items.push(Item::Sentence(sentence));
                    Ok(())
                })?;
                continue;
            }
            if format == Format::Csv {
                rows.format = Format::Csv;
                let start = record::beginning(path)?;
                rows.separator = text_options.separator.unwrap_or_else(|| super::delimited::guess(&start));
            }
            let broken = record::read_records(path, format, text_options.separator, &mut |features, record| {
                let features = known(features, split);
                let kind = match form {
                    Form::Text(_) => {
                        let found = texts.read(features, &record);
                        let found = found.map_err(|problem| Error::data(path, record.line, problem))?;
                        found.map(|example| answer_kind(&example.answer))
                    }
                    Form::Tokens(_) => sentences.sentence(path, features, &record)?.as_ref().map(sentence_kind),
                };
                if let Some(kind) = kind {
                    rows.items.push(Item::Record(named(features, record)));
                    rows.kinds.push(kind);
                }
                Ok(())
            })?;
            texts.broken(broken);
        }
        rows.notes = sentences.notes(name);
        rows.notes.extend(texts.notes(name));
        Ok(rows)
    }

    /// What was changed or left out while they were read, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Rows that stay and rows that are held out, each in their old order.
    ///
    /// # Errors
    /// Those of [`HoldOut::choose`].
    pub fn split(self, choice: &HoldOut) -> Result<(Self, Self), Error> {
        let held = choice.choose(self.len(), &kind_numbers(&self.kinds))?;
        let (kept, out) = partition(self.items, &held);
        let (kept_kinds, out_kinds) = partition(self.kinds, &held);
        let (format, separator) = (self.format, self.separator);
        let rows = |items, kinds| Self { items, kinds, format, separator, notes: Vec::new() };
        Ok((rows(kept, kept_kinds), rows(out, out_kinds)))
    }

    /// Makes one of old and new rows.
    ///
    /// # Errors
    /// One is CoNLL and the other is not: their rows have no common form.
    pub fn combine(old: Self, new: Self, strategy: Strategy, seed: u64) -> Result<Self, Error> {
        if strategy == Strategy::NewOnly || old.is_empty() {
            return Ok(new);
        }
        if new.is_empty() {
            return Ok(old);
        }
        if (old.format == Format::Conll) != (new.format == Format::Conll) {
            let problem = "one data set is CoNLL and the other is not; give both in the same form";
            return Err(Error::argument("strategy", problem));
        }
        let same = old.format == new.format && columns(&old.items) == columns(&new.items);
        let format = if same || old.format == Format::Conll { new.format } else { Format::Jsonl };
        let separator = new.separator;
        let mut items: Vec<Option<Item>> = old.items.into_iter().chain(new.items).map(Some).collect();
        let kinds: Vec<String> = old.kinds.into_iter().chain(new.kinds).collect();
        let order = match strategy {
            Strategy::Combined => Stream::new(seed, "combine", 0).permutation(items.len()),
            Strategy::NewOnly | Strategy::Append => (0..items.len()).collect(),
        };
        let kinds = order.iter().map(|row| kinds[*row].clone()).collect();
        let items = order.iter().filter_map(|row| items[*row].take()).collect();
        Ok(Self { items, kinds, format, separator, notes: Vec::new() })
    }

    /// Extension of its file.
    pub fn extension(&self) -> &'static str {
        match (self.format, self.separator) {
            (Format::Conll, _) => "conll",
            (Format::Csv, b'\t') => "tsv",
            (Format::Csv, _) => "csv",
            _ => "jsonl",
        }
    }

    /// Writes a file that replaces `path` in one step.
    ///
    /// # Errors
    /// The file cannot be written, or a word cannot stand in a CoNLL file.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let broken = |e: std::io::Error| Error::io(path, e);
        let mut bytes = Vec::new();
        let mut table = csv::WriterBuilder::new().delimiter(self.separator).from_writer(Vec::new());
        let names = columns(&self.items);
        if self.format == Format::Csv {
            table.write_record(&names).map_err(|e| Error::format(path, e.to_string()))?;
        }
        for item in &self.items {
            match item {
                Item::Sentence(sentence) => {
                    for (word, tag) in sentence.words.iter().zip(&sentence.tags) {
                        writeln!(bytes, "{word}\t{tag}").map_err(broken)?;
                    }
                    writeln!(bytes).map_err(broken)?;
                }
                Item::Record(value) if self.format == Format::Csv => {
                    let cells = names.iter().map(|name| value[name.as_str()].as_str().unwrap_or_default());
                    table.write_record(cells).map_err(|e| Error::format(path, e.to_string()))?;
                }
                Item::Record(value) => writeln!(bytes, "{value}").map_err(broken)?,
            }
        }
        if self.format == Format::Csv {
            bytes = table.into_inner().map_err(|e| Error::format(path, e.to_string()))?;
        }
        files::write_file(path, &bytes)
    }
}

/// Names of the columns of the first record.
fn columns(items: &[Item]) -> Vec<String> {
    match items.first() {
        Some(Item::Record(Value::Object(cells))) => cells.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

/// A record with names of classes in place of their ids, which JSON lines cannot explain.
fn named(features: &Features, record: Record) -> Value {
    let Value::Object(cells) = record.value else { return record.value };
    let name = |names: &[String], id: &Value| {
        let name = id.as_u64().and_then(|id| names.get(usize::try_from(id).ok()?));
        name.map_or_else(|| id.clone(), |name| Value::String(name.clone()))
    };
    let cells: Map<String, Value> = cells
        .into_iter()
        .map(|(column, value)| {
            let value = match (features.classes.get(&column), value) {
                (Some(names), Value::Array(ids)) => ids.iter().map(|id| name(names, id)).collect(),
                (Some(names), value) => name(names, &value),
                (None, value) => value,
            };
            (column, value)
        })
        .collect();
    Value::Object(cells)
}

/// The splits of a file or folder by name; those of a file alone are called `train`.
///
/// # Errors
/// See [`Rows`]: a file cannot be read, or a row is malformed.
pub fn read_splits(path: &Path, form: &Form) -> Result<Vec<(&'static str, Rows)>, Error> {
    let splits = folder::splits(path)?;
    let name = |name: &'static str| if name.is_empty() { "train" } else { name };
    splits.iter().map(|(split, files)| Ok((name(split), Rows::read(name(split), files, form)?))).collect()
}

/// Writes splits into a folder that does not exist or is empty, all or none; gives the files.
///
/// # Errors
/// The folder cannot be written, or holds something.
pub fn write_splits(dir: &Path, splits: &[(&str, Rows)]) -> Result<Vec<PathBuf>, Error> {
    let name = |split: &str, rows: &Rows| format!("{split}.{}", rows.extension());
    if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::format(dir, "the folder is not empty"));
    }
    files::write_folder(dir, |folder| {
        splits.iter().try_for_each(|(split, rows)| rows.write(&folder.join(name(split, rows))))
    })?;
    Ok(splits.iter().map(|(split, rows)| dir.join(name(split, rows))).collect())
}

/// Combines two data sets split by split. A validation split is held out of the training rows when neither has one.
///
/// # Errors
/// Those of reading, of [`Rows::combine`] and of holding out; there is no training split.
pub fn combine(
    old: Vec<(&'static str, Rows)>,
    new: Vec<(&'static str, Rows)>,
    strategy: Strategy,
    validation: HoldOut,
    seed: u64,
) -> Result<Vec<(&'static str, Rows)>, Error> {
    let names: BTreeSet<&'static str> = old.iter().chain(&new).map(|(name, _)| *name).collect();
    let mut sides = [old, new];
    let mut take = |side: usize, name: &str| {
        let at = sides[side].iter().position(|(found, _)| *found == name)?;
        Some(sides[side].swap_remove(at).1)
    };
    let mut splits: Vec<(&'static str, Rows)> = Vec::new();
    for name in names {
        let rows = match (take(0, name), take(1, name)) {
            (Some(old), Some(new)) => Rows::combine(old, new, strategy, seed)?,
            // What only the old set has is not new, but without it nothing could be measured.
            (Some(rows), None) | (None, Some(rows)) => rows,
            (None, None) => continue,
        };
        splits.push((name, rows));
    }
    let Some(train) = splits.iter().position(|(name, _)| *name == "train") else {
        return Err(Error::Split { split: "train", problem: "neither data set has one".to_owned() });
    };
    if !splits.iter().any(|(name, _)| *name == "validation") {
        let (kept, held) = splits.swap_remove(train).1.split(&validation)?;
        splits.extend([("train", kept), ("validation", held)]);
    }
    Ok(splits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, name: &str, content: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn rows(path: &Path) -> Rows {
        read_splits(path, &guess_form(path).unwrap()).unwrap().remove(0).1
    }

    fn written(rows: &Rows, dir: &Path) -> String {
        let path = dir.join("out");
        rows.write(&path).unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    fn share(stratified: bool) -> HoldOut {
        HoldOut::Share { fraction: 0.25, seed: 3, stratified }
    }

    #[test]
    fn rows_are_split_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let texts: String =
            (0..20).map(|n| format!("{{\"text\": \"t{n}\", \"label\": \"{}\", \"id\": [{n}]}}\n", n % 2)).collect();
        let (kept, held) = rows(&file(dir.path(), "a.jsonl", &texts)).split(&share(true)).unwrap();
        assert_eq!((kept.len(), held.len()), (15, 5));
        let ones = held.kinds.iter().filter(|kind| *kind == "1").count();
        assert!((2..=3).contains(&ones), "{ones}");
        let lines = written(&kept, dir.path()) + &written(&held, dir.path());
        let mut found: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        found.sort_by_key(|value| value["id"][0].as_u64());
        let expected: Vec<Value> = texts.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(found, expected);

        let words = "a\tS-x\n\nb\tO\nc\tB-y\n\nd\tO\n\ne\tO\n";
        let (kept, held) = rows(&file(dir.path(), "a.conll", words)).split(&share(false)).unwrap();
        assert_eq!((kept.len(), held.len(), kept.extension()), (3, 1, "conll"));
        let both = written(&kept, dir.path()) + &written(&held, dir.path());
        assert!(both.contains("a\tB-x\n\n") && both.contains("b\tO\nc\tB-y\n\n"), "{both}");
        assert!(rows(&file(dir.path(), "b.conll", "a O\n")).split(&share(false)).is_err());
    }

    #[test]
    fn tables_stay_tables() {
        let dir = tempfile::tempdir().unwrap();
        let text = "text;label\n\"a\nb\";x\n\"c;d\";y\n";
        let found = rows(&file(dir.path(), "a.csv", text));
        assert_eq!((written(&found, dir.path()).as_str(), found.extension()), (text, "csv"));
    }

    #[test]
    fn columns_under_the_name_of_a_table_are_columns() {
        let dir = tempfile::tempdir().unwrap();
        let found = rows(&file(dir.path(), "a.tsv", "in\tO\nOslo\tB-x\n\nb\tO\n"));
        assert_eq!((found.len(), found.extension()), (2, "conll"));
        assert_eq!(written(&found, dir.path()), "in\tO\nOslo\tB-x\n\nb\tO\n\n");
    }

    #[test]
    fn what_is_left_out_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let spans = "{\"text\": \"a\", \"spans\": [[0, 1, \"x\"]]}\n{\"text\": \"\", \"spans\": []}\n\
            {\"text\": \"b\", \"spans\": [], \"answer\": \"reject\"}\n";
        let found = rows(&file(dir.path(), "a.jsonl", spans));
        assert_eq!(found.len(), 1);
        let notes = found.notes().join("\n");
        assert!(
            notes.contains("train: 1 rows without a word") && notes.contains("train: 1 rows that were rejected"),
            "{notes}"
        );
        let texts =
            "{\"text\": \"a\", \"label\": \"x\", \"answer\": \"ignore\"}\n{\"text\": \"b\", \"label\": \"x\"}\n";
        let found = rows(&file(dir.path(), "b.jsonl", texts));
        assert_eq!((found.len(), found.notes().len()), (1, 1));
    }

    #[test]
    fn strategies_of_combining() {
        let dir = tempfile::tempdir().unwrap();
        let csv = |name: &str, range: std::ops::Range<usize>| {
            let lines: String = range.map(|n| format!("t{n},{}\n", n % 2)).collect();
            rows(&file(dir.path(), name, &format!("text,label\n{lines}")))
        };
        let combined =
            |strategy, seed| Rows::combine(csv("old.csv", 0..10), csv("new.csv", 10..20), strategy, seed).unwrap();
        let texts = |rows: &Rows| written(rows, dir.path());
        assert_eq!(combined(Strategy::NewOnly, 1), csv("new.csv", 10..20));
        assert_eq!(texts(&combined(Strategy::Append, 1)), texts(&csv("all.csv", 0..20)));
        let mixed = combined(Strategy::Combined, 1);
        assert_eq!(mixed, combined(Strategy::Combined, 1));
        assert_ne!(texts(&mixed), texts(&combined(Strategy::Combined, 2)));
        let mut lines: Vec<String> = texts(&mixed).lines().map(str::to_owned).collect();
        lines.sort();
        let mut expected: Vec<String> = texts(&csv("all.csv", 0..20)).lines().map(str::to_owned).collect();
        expected.sort();
        assert_eq!(lines, expected);
        let conll = rows(&file(dir.path(), "a.conll", "a O\n"));
        assert!(Rows::combine(conll, csv("new.csv", 0..3), Strategy::Append, 1).is_err());
    }

    #[test]
    fn data_sets_are_combined_split_by_split_and_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("old");
        std::fs::create_dir(&old).unwrap();
        file(
            &old,
            "train.json",
            r#"[{"text": "Ana", "annotations": [[0, 3, "per"]]}, {"text": "b", "annotations": []}]"#,
        );
        file(&old, "test.json", r#"[{"text": "x", "annotations": []}]"#);
        let new = file(
            dir.path(),
            "new.jsonl",
            "{\"text\": \"Ben\", \"annotations\": [[0, 3, \"per\"]]}\n{\"text\": \"c\", \"annotations\": []}\n",
        );
        let read = |path: &Path| read_splits(path, &guess_form(path).unwrap()).unwrap();
        let all = combine(read(&old), read(&new), Strategy::Append, share(false), 1).unwrap();
        let out = dir.path().join("out");
        let files = write_splits(&out, &all).unwrap();
        let mut names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_owned()).collect();
        names.sort();
        assert_eq!(names, ["test.jsonl", "train.jsonl", "validation.jsonl"]);
        let count = |name: &str| std::fs::read_to_string(out.join(name)).unwrap().lines().count();
        assert_eq!((count("train.jsonl"), count("validation.jsonl"), count("test.jsonl")), (3, 1, 1));
        assert!(write_splits(&out, &all).is_err());
        assert_eq!(read(&out).len(), 3);
    }

    #[test]
    fn ids_are_written_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/datasets");
        let found = rows(&data.join("sentences.parquet"));
        let first: Value = serde_json::from_str(written(&found, dir.path()).lines().next().unwrap()).unwrap();
        assert_eq!(first["ner_tags"], serde_json::json!(["B-per", "O", "O", "B-loc", "I-loc"]));
        assert!(matches!(guess_form(&data.join("saved")).unwrap(), Form::Text(_)));
    }
}
