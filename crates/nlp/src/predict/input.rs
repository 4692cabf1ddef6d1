//! Texts to predict on, read one at a time from JSON, CSV, TSV and plain text files.
use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::InputText;
use crate::{
    Error,
    data::{
        delimited::{self, Table},
        json::{self, Elements},
    },
};

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputFormat {
    /// A text a line, empty lines included.
    Text,
    /// A JSON object a line, or one array of objects.
    Jsonl,
    /// Columns separated by commas, or by what the first line has most often of tabs, commas, semicolons and bars; it has their names.
    Csv,
    /// Columns separated by tabs, their names in the first line.
    Tsv,
}

/// Where the texts stand in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputOptions {
    /// Absent: told by the ending of the file's name (`.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv`), else plain text.
    pub format: Option<InputFormat>,
    /// Key or column of the text.
    pub text_column: String,
    /// Key or column of the second text of a pair; where it is absent the texts stand alone.
    pub pair_column: String,
    /// JSONL: key of the words, for texts split beforehand.
    pub tokens_column: String,
    /// Key or column of what identifies a row in the results; may be absent.
    pub id_column: String,
}

impl Default for InputOptions {
    fn default() -> Self {
        Self {
            format: None,
            text_column: "text".to_owned(),
            pair_column: "text_pair".to_owned(),
            tokens_column: "tokens".to_owned(),
            id_column: "id".to_owned(),
        }
    }
}

/// One text.
#[derive(Debug, Clone, PartialEq)]
pub struct InputItem {
    /// Counted from 0.
    pub row: usize,
    /// Line where it begins, counted from 1.
    pub line: usize,
    /// What the file calls it.
    pub id: Option<Value>,
    /// The text.
    pub input: InputText,
}

/// The texts of a file in order; ends after the first error.
pub struct InputReader {
    path: PathBuf,
    options: InputOptions,
    source: Source,
    row: usize,
    failed: bool,
}

enum Source {
    Lines { reader: BufReader<File>, line: usize, json: bool },
    Array(Elements<BufReader<File>>),
    Table { table: Box<Table<BufReader<File>>>, columns: Columns },
}

struct Columns {
    text: usize,
    pair: Option<usize>,
    id: Option<usize>,
}

impl InputReader {
    /// Opens a file. A table without the column of texts is refused here.
    pub fn open(path: &Path, options: &InputOptions) -> Result<Self, Error> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let beginning = reader.fill_buf().map_err(|e| Error::io(path, e))?;
        let format = options.format.unwrap_or_else(|| by_name(path));
        let source = match format {
            InputFormat::Jsonl if is_array(beginning) => Source::Array(Elements::of(reader, path)),
            InputFormat::Text | InputFormat::Jsonl => {
                Source::Lines { reader, line: 0, json: format == InputFormat::Jsonl }
            }
            InputFormat::Csv | InputFormat::Tsv => {
                let separator = if format == InputFormat::Csv { delimited::guess(beginning) } else { b'\t' };
                let table = Box::new(Table::open(reader, separator, path)?);
                let columns = Columns::find(table.names(), path, options)?;
                Source::Table { table, columns }
            }
        };
        Ok(Self { path: path.to_owned(), options: options.clone(), source, row: 0, failed: false })
    }

    fn read(&mut self) -> Result<Option<InputItem>, Error> {
        let row = self.row;
        let item = match &mut self.source {
            Source::Lines { reader, line, json } => loop {
                let mut bytes = Vec::new();
                let count = reader.read_until(b'\n', &mut bytes).map_err(|e| Error::io(&self.path, e))?;
                if count == 0 {
                    return Ok(None);
                }
                *line += 1;
                if *json {
                    let content = bytes.strip_prefix(BOM).filter(|_| *line == 1).unwrap_or(&bytes).trim_ascii();
                    if content.is_empty() {
                        continue;
                    }
                    break object(json::value(content, *line, &self.path)?, &self.options, row, *line)
                        .map_err(|problem| Error::data(&self.path, *line, problem))?;
                }
                let text = std::str::from_utf8(&bytes).map_err(|_| Error::data(&self.path, *line, "not UTF-8"))?;
                let text = text.strip_suffix('\n').unwrap_or(text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                let text = if *line == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
                break InputItem { row, line: *line, id: None, input: InputText::Text(text.to_owned()) };
            },
            Source::Array(elements) => {
                let Some((line, value)) = elements.next()? else { return Ok(None) };
                object(value, &self.options, row, line).map_err(|problem| Error::data(&self.path, line, problem))?
            }
            Source::Table { table, columns } => {
                let Some((line, record)) = table.next()? else { return Ok(None) };
                let cell = |column: usize| record.get(column).unwrap_or_default().to_owned();
                let text = cell(columns.text);
                let input = match columns.pair {
                    Some(pair) => InputText::Pair(text, cell(pair)),
                    None => InputText::Text(text),
                };
                InputItem { row, line, id: columns.id.map(|column| Value::String(cell(column))), input }
            }
        };
        self.row += 1;
        Ok(Some(item))
    }
}

impl Iterator for InputReader {
    type Item = Result<InputItem, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.read().transpose();
        self.failed = matches!(item, Some(Err(_)));
        item
    }
}

fn by_name(path: &Path) -> InputFormat {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    match ending.as_str() {
        "jsonl" | "ndjson" | "json" => InputFormat::Jsonl,
        "csv" => InputFormat::Csv,
        "tsv" => InputFormat::Tsv,
        _ => InputFormat::Text,
    }
}

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Whether JSON is one array: a line of texts begins otherwise.
fn is_array(beginning: &[u8]) -> bool {
    beginning.strip_prefix(BOM).unwrap_or(beginning).trim_ascii_start().first() == Some(&b'[')
}

/// The text of a JSON object.
fn object(value: Value, options: &InputOptions, number: usize, line: usize) -> Result<InputItem, String> {
    let mut row: Map<String, Value> = match value {
        Value::Object(row) => row,
        other => return Err(format!("not a JSON object: found {other}")),
    };
    let id = row.remove(&options.id_column);
    let (text, tokens) = (row.remove(&options.text_column), row.remove(&options.tokens_column));
    let input = match (text, tokens, row.remove(&options.pair_column)) {
        (Some(Value::String(text)), _, None | Some(Value::Null)) => InputText::Text(text),
        (Some(Value::String(text)), _, Some(Value::String(pair))) => InputText::Pair(text, pair),
        (Some(Value::String(_)), _, Some(_)) => return Err(format!("`{}` is not a string", options.pair_column)),
        (Some(_), ..) => return Err(format!("`{}` is not a string", options.text_column)),
        (None, Some(Value::Array(items)), _) => {
            let word = |item: Value| match item {
                Value::String(word) => Ok(word),
                other => Err(format!("`{}`: found {other}, expected a list of strings", options.tokens_column)),
            };
            InputText::Words(items.into_iter().map(word).collect::<Result<_, _>>()?)
        }
        (None, Some(_), _) => return Err(format!("`{}` is not a list", options.tokens_column)),
        (None, None, _) => {
            let (text, tokens) = (&options.text_column, &options.tokens_column);
            let found: Vec<&str> = row.keys().map(String::as_str).collect();
            return Err(format!("neither `{text}` nor `{tokens}`: found {}", found.join(", ")));
        }
    };
    Ok(InputItem { row: number, line, id, input })
}

impl Columns {
    fn find(names: &[String], path: &Path, options: &InputOptions) -> Result<Self, Error> {
        let place = |name: &str| names.iter().position(|column| column == name);
        let text = place(&options.text_column).ok_or_else(|| {
            Error::data(path, 1, format!("no column `{}`: found {}", options.text_column, names.join(", ")))
        })?;
        Ok(Self { text, pair: place(&options.pair_column), id: place(&options.id_column) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &[u8], options: &InputOptions) -> Result<Vec<InputItem>, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let items: Vec<InputItem> = InputReader::open(&path, options)?.collect::<Result<_, _>>()?;
        assert!(items.iter().enumerate().all(|(row, item)| item.row == row));
        Ok(items)
    }

    fn fails(name: &str, content: &str) -> (usize, String) {
        match read(name, content.as_bytes(), &InputOptions::default()) {
            Err(Error::Data { line, problem, .. }) => (line, problem),
            other => panic!("{other:?}"),
        }
    }

    fn text(text: &str) -> InputText {
        InputText::Text(text.to_owned())
    }

    #[test]
    fn every_format_gives_texts_with_their_lines() {
        let options = InputOptions::default();
        let brief = |items: Vec<InputItem>| -> Vec<(usize, Option<String>, InputText)> {
            items.into_iter().map(|item| (item.line, item.id.map(|id| id.to_string()), item.input)).collect()
        };
        let plain = read("a.txt", "\u{feff}one\r\n\ntwo".as_bytes(), &options).unwrap();
        assert_eq!(brief(plain), [(1, None, text("one")), (2, None, text("")), (3, None, text("two"))]);
        let jsonl = br#"{"text": "a", "id": 7}

{"tokens": ["b", "c"]}
{"text": "d", "text_pair": "e", "id": "x", "spans": []}"#;
        let pair = InputText::Pair("d".to_owned(), "e".to_owned());
        let words = InputText::Words(vec!["b".to_owned(), "c".to_owned()]);
        assert_eq!(
            brief(read("a.jsonl", jsonl, &options).unwrap()),
            [(1, Some("7".to_owned()), text("a")), (3, None, words), (4, Some("\"x\"".to_owned()), pair)]
        );
        let csv = "\u{feff}id,text\n1,\"line one\nline two\"\n2,b\n";
        let rows = brief(read("a.csv", csv.as_bytes(), &options).unwrap());
        assert_eq!(rows[0], (2, Some("\"1\"".to_owned()), text("line one\nline two")));
        assert_eq!(rows[1], (4, Some("\"2\"".to_owned()), text("b")));
        let named = InputOptions { text_column: "body".to_owned(), ..InputOptions::default() };
        assert_eq!(read("a.tsv", b"body\tx\na, b\t1\n", &named).unwrap()[0].input, text("a, b"));
        // Line breaks of Windows, blank lines and other separators.
        let csv = b"id;text\r\n\r\n1;\"a\r\nb\"\r\n\r\n2;c, d\r\n";
        let rows = read("a.csv", csv, &options).unwrap();
        assert_eq!(rows.iter().map(|item| item.line).collect::<Vec<_>>(), [3, 6]);
        assert_eq!(rows[1].input, text("c, d"));
        let array = "\u{feff} [\n{\"text\": \"a\", \"id\": 1},\n\n {\"text\":\n\"b\"}]\n".as_bytes();
        for name in ["a.json", "a.jsonl"] {
            let found = brief(read(name, array, &options).unwrap());
            assert_eq!(found, [(2, Some("1".to_owned()), text("a")), (4, None, text("b"))]);
        }
        // Half of a surrogate pair, as Python writes it.
        let half = read("a.jsonl", b"{\"text\": \"a \\ud83d b\"}\n", &options).unwrap();
        assert_eq!(half[0].input, text("a \u{fffd} b"));
        let forced = InputOptions { format: Some(InputFormat::Text), ..options };
        assert_eq!(read("a.csv", b"id,text", &forced).unwrap()[0].input, text("id,text"));
    }

    #[test]
    fn malformed_input_is_named() {
        for (name, content, line, part) in [
            ("a.jsonl", "{\"text\": \"a\"}\nb", 2, "not JSON"),
            ("a.jsonl", "{\"text\": \"a\"}\n[1]", 2, "not a JSON object: found [1]"),
            ("a.json", "[{\"text\": \"a\"},\n{\"txt\": 1}]", 2, "neither `text` nor `tokens`"),
            ("a.json", "[{\"text\": \"a\"}\n", 1, "ends inside the element"),
            ("a.jsonl", "{\"txt\": 1}", 1, "neither `text` nor `tokens`: found txt"),
            ("a.jsonl", "{\"text\": 1}", 1, "`text` is not a string"),
            ("a.jsonl", "{\"tokens\": [1]}", 1, "found 1, expected a list of strings"),
            ("a.csv", "a,b\n1,2\n", 1, "no column `text`: found a, b"),
            ("a.csv", "id,text\r\n\r\n1,b\r\n2\r\n", 4, "found 1 columns, expected 2"),
        ] {
            let (found, problem) = fails(name, content);
            assert!(found == line && problem.contains(part), "{name}:{found}: {problem}");
        }
        for name in ["a.txt", "a.csv"] {
            let result = read(name, b"text\n\xff\xfe\n", &InputOptions::default());
            assert!(matches!(result, Err(Error::Data { line: 2, .. })), "{result:?}");
        }
        let missing = InputReader::open(Path::new("/does/not/exist"), &InputOptions::default());
        assert!(matches!(missing, Err(Error::Io { .. })));
    }
}
