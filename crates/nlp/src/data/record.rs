//! Files of records, whatever their format: a record is a JSON value with its line.
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read as _},
    path::Path,
};

use serde_json::{Map, Value};

use super::{arrow, delimited, json};
use crate::Error;

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A word and its tag a line, columns separated by tabs or blanks, sentences by empty lines.
    Conll,
    /// A JSON value a line.
    Jsonl,
    /// One JSON array.
    Json,
    /// Fields separated by commas, tabs, semicolons or bars, with a header (RFC 4180).
    Csv,
    /// Apache Parquet.
    Parquet,
    /// Apache Arrow, as `datasets` writes it.
    Arrow,
}

/// One row of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Line where it begins, or number of the row in a binary file, counted from 1.
    pub line: usize,
    /// What it holds: an object by column for tables.
    pub value: Value,
}

/// What a file says of its columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    /// Names of classes by id, for columns of type `ClassLabel` of `datasets` and lists of such.
    pub classes: BTreeMap<String, Vec<String>>,
    /// Columns that are left out, with their types.
    pub unreadable: BTreeMap<String, String>,
}

impl Features {
    /// The classes in the `features` of a `dataset_info.json`.
    pub fn of(features: &Value) -> Self {
        let columns = features.as_object().into_iter().flatten();
        let classes = columns.filter_map(|(name, feature)| Some((name.clone(), class_names(feature)?))).collect();
        Self { classes, unreadable: BTreeMap::new() }
    }
}

/// `{"names": [...], "_type": "ClassLabel"}`, alone or as what a list consists of.
fn class_names(feature: &Value) -> Option<Vec<String>> {
    match feature {
        Value::Array(items) => class_names(items.first()?),
        Value::Object(map) if map.get("_type").is_some_and(|kind| kind == "ClassLabel") => {
            map.get("names")?.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
        }
        Value::Object(map) => class_names(map.get("feature")?),
        _ => None,
    }
}

/// What is said of records that are left out because of [`is_rejected`].
pub(super) const REJECTED: &str = "rows that were rejected or ignored in Prodigy were left out";

/// Whether whoever annotated a record with Prodigy did not accept it.
pub(super) fn is_rejected(row: &Map<String, Value>) -> bool {
    matches!(row.get("answer").and_then(Value::as_str), Some("reject" | "ignore"))
}

/// Calls `sink` with each record of a file, in bounded memory. `separator` is that of CSV, found by the header when absent. Returns how many rows
/// between tabs go over several lines, which stray quotes cause.
///
/// # Errors
/// The file cannot be read, is malformed, or is of format CoNLL, which has no records; those of `sink`.
pub fn read_records(
    path: &Path,
    format: Format,
    separator: Option<u8>,
    sink: &mut dyn FnMut(&Features, Record) -> Result<(), Error>,
) -> Result<usize, Error> {
    let open = || File::open(path).map(|file| BufReader::with_capacity(1 << 16, file)).map_err(|e| Error::io(path, e));
    let none = Features::default();
    match format {
        Format::Parquet => arrow::parquet(path, sink)?,
        Format::Arrow => arrow::arrow(path, sink)?,
        Format::Jsonl => json::lines(open()?, path, &mut |line, value| sink(&none, Record { line, value }))?,
        Format::Json => json::array(open()?, path, &mut |line, value| sink(&none, Record { line, value }))?,
        Format::Csv => {
            let start = beginning(path)?;
            return delimited::read(open()?, separator, &start, path, &mut |record| sink(&none, record));
        }
        Format::Conll => return Err(Error::format(path, "CoNLL columns have no records")),
    }
    Ok(0)
}

/// Tells the format of a file: by its content where that is plain, else by its name, else it is `otherwise`.
///
/// # Errors
/// The file cannot be read, or is one of spaCy's `DocBin`s.
pub fn detect(path: &Path, otherwise: Format) -> Result<Format, Error> {
    let start = beginning(path)?;
    let extension = path.extension().and_then(|ext| ext.to_str()).map(str::to_ascii_lowercase).unwrap_or_default();
    if start.starts_with(b"PAR1") {
        return Ok(Format::Parquet);
    }
    if start.starts_with(b"ARROW1") || start.starts_with(b"\xff\xff\xff\xff") {
        return Ok(Format::Arrow);
    }
    if extension == "spacy" {
        let advice = "a DocBin of spaCy is not read; write its documents as JSON: \
            `json.dump([[d.text, {\"entities\": [[e.start_char, e.end_char, e.label_] for e in d.ents]}] \
            for d in DocBin().from_disk(path).get_docs(nlp.vocab)], file)`";
        return Err(Error::format(path, advice));
    }
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start).trim_ascii_start();
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    let parsed = serde_json::from_slice::<Value>(first).ok();
    Ok(match (text.first(), parsed, extension.as_str()) {
        // A list whose first element is a text is an example of spaCy, one a line.
        (Some(b'['), Some(Value::Array(items)), _) if items.first().is_some_and(Value::is_string) => Format::Jsonl,
        (_, Some(Value::Object(_)), _) => Format::Jsonl,
        (_, _, "jsonl" | "ndjson") => Format::Jsonl,
        (_, _, "csv" | "tsv") => Format::Csv,
        (_, _, "conll" | "conllu" | "iob" | "iob2" | "bio") => Format::Conll,
        (Some(b'['), parsed, ext) if parsed.is_some() || ext == "json" || opens_array(first) => Format::Json,
        // A line that only begins like an object is JSON too, so that its error speaks of JSON.
        _ if first.starts_with(b"{\"") || extension == "json" => Format::Jsonl,
        _ => otherwise,
    })
}

/// `[` alone, or before an element of a usual kind.
fn opens_array(first: &[u8]) -> bool {
    matches!(first.get(1..).map(<[u8]>::trim_ascii_start).and_then(<[u8]>::first), None | Some(b'{' | b'['))
}

/// The first bytes of a file.
pub(super) fn beginning(path: &Path) -> Result<Vec<u8>, Error> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    file.take(1 << 16).read_to_end(&mut start).map_err(|e| Error::io(path, e))?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn formats_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let told = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            detect(&path, Format::Conll).ok()
        };
        let cases = [
            ("a", "{\"text\": \"x\"}\n{", Some(Format::Jsonl)),
            ("a", "\u{feff}{\"text\": ", Some(Format::Jsonl)),
            ("a.json", "{\"text\": 1}\n{\"text\": 2}", Some(Format::Jsonl)),
            ("a", "[\n {}", Some(Format::Json)),
            ("a", "[{\"text\": \"x\"}]", Some(Format::Json)),
            ("a", "[[\"text\", {}],\n[\"b\", {}]]", Some(Format::Json)),
            ("a", "[\"text\", {}]\n[\"b\", {}]", Some(Format::Jsonl)),
            ("a", "[ O\nx O\n", Some(Format::Conll)),
            ("a.csv", "text,label\n", Some(Format::Csv)),
            ("a.parquet", "PAR1", Some(Format::Parquet)),
            ("a", "PAR1", Some(Format::Parquet)),
            ("a", "", Some(Format::Conll)),
            ("a.spacy", "x", None),
        ];
        for (name, content, expected) in cases {
            assert_eq!(told(name, content), expected, "{name}: {content}");
        }
    }

    #[test]
    fn classes_are_found_in_features_of_every_age() {
        let label = json!({"names": ["neg", "pos"], "_type": "ClassLabel"});
        let features = json!({"a": label, "b": {"feature": label, "_type": "Sequence"}, "c": [label],
            "d": {"dtype": "string", "_type": "Value"}, "e": {"feature": label, "length": -1, "_type": "List"}});
        let found = Features::of(&features).classes;
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b", "c", "e"]);
        assert!(found.values().all(|names| names == &["neg", "pos"]));
    }
}
