//! Texts to predict on, read one at a time from JSONL, CSV, TSV and plain text files.
use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::InputText;
use crate::Error;

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputFormat {
    /// A text a line, empty lines included.
    Text,
    /// A JSON object a line.
    Jsonl,
    /// Columns separated by commas, their names in the first line.
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
    Table { reader: Box<csv::Reader<File>>, columns: Columns },
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
        let format = options.format.unwrap_or_else(|| by_name(path));
        let source = match format {
            InputFormat::Text | InputFormat::Jsonl => {
                Source::Lines { reader: BufReader::new(file), line: 0, json: format == InputFormat::Jsonl }
            }
            InputFormat::Csv | InputFormat::Tsv => {
                let delimiter = if format == InputFormat::Csv { b',' } else { b'\t' };
                let mut reader = Box::new(csv::ReaderBuilder::new().delimiter(delimiter).from_reader(file));
                let columns = Columns::find(&mut reader, path, options)?;
                Source::Table { reader, columns }
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
                let text = std::str::from_utf8(&bytes).map_err(|_| Error::data(&self.path, *line, "not UTF-8"))?;
                let text = text.strip_suffix('\n').unwrap_or(text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                let text = if *line == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
                if !*json {
                    break InputItem { row, line: *line, id: None, input: InputText::Text(text.to_owned()) };
                }
                if !text.trim().is_empty() {
                    let problem = |problem: String| Error::data(&self.path, *line, problem);
                    let (id, input) = object(text, &self.options).map_err(problem)?;
                    break InputItem { row, line: *line, id, input };
                }
            },
            Source::Table { reader, columns } => {
                let mut record = csv::StringRecord::new();
                if !reader.read_record(&mut record).map_err(|e| of_table(&self.path, e))? {
                    return Ok(None);
                }
                let line = record.position().map_or(0, |position| position.line() as usize);
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

/// The identifier and the text of a JSON line.
fn object(line: &str, options: &InputOptions) -> Result<(Option<Value>, InputText), String> {
    let mut row: Map<String, Value> = serde_json::from_str(line).map_err(|e| format!("not a JSON object: {e}"))?;
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
    Ok((id, input))
}

impl Columns {
    fn find(reader: &mut csv::Reader<File>, path: &Path, options: &InputOptions) -> Result<Self, Error> {
        let headers = reader.headers().map_err(|e| of_table(path, e))?;
        let place = |name: &str| headers.iter().position(|header| header == name);
        let text = place(&options.text_column).ok_or_else(|| {
            let found: Vec<&str> = headers.iter().collect();
            Error::data(path, 1, format!("no column `{}`: found {}", options.text_column, found.join(", ")))
        })?;
        Ok(Self { text, pair: place(&options.pair_column), id: place(&options.id_column) })
    }
}

fn of_table(path: &Path, error: csv::Error) -> Error {
    let line = error.position().map_or(1, |position| position.line() as usize);
    match error.into_kind() {
        csv::ErrorKind::Io(source) => Error::io(path, source),
        csv::ErrorKind::Utf8 { err, .. } => Error::data(path, line, format!("column {}: not UTF-8", err.field())),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            Error::data(path, line, format!("found {len} columns, expected {expected_len} as in the first line"))
        }
        other => Error::data(path, line, format!("not a table: {other:?}")),
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
        let forced = InputOptions { format: Some(InputFormat::Text), ..options };
        assert_eq!(read("a.csv", b"id,text", &forced).unwrap()[0].input, text("id,text"));
    }

    #[test]
    fn malformed_input_is_named() {
        for (name, content, line, part) in [
            ("a.jsonl", "{\"text\": \"a\"}\nb", 2, "not a JSON object"),
            ("a.jsonl", "{\"txt\": 1}", 1, "neither `text` nor `tokens`: found txt"),
            ("a.jsonl", "{\"text\": 1}", 1, "`text` is not a string"),
            ("a.jsonl", "{\"tokens\": [1]}", 1, "found 1, expected a list of strings"),
            ("a.csv", "a,b\n1,2\n", 1, "no column `text`: found a, b"),
            ("a.csv", "id,text\n1,b\n2\n", 3, "found 1 columns, expected 2"),
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
