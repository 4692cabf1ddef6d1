//! CSV and its kin: a header, then a row a record; fields may be quoted and then hold line breaks (RFC 4180).
use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    io::{self, Read},
    path::Path,
    rc::Rc,
};

use serde_json::{Map, Value};

use super::record::Record;
use crate::Error;

/// Separators that are told apart by the header.
const SEPARATORS: [u8; 4] = [b'\t', b',', b';', b'|'];

/// Calls `sink` with each record: its cells as texts by the names of the header. `header` is the beginning of the file, by which
/// the separator is found when none is given.
pub(super) fn read(
    input: impl Read,
    separator: Option<u8>,
    beginning: &[u8],
    path: &Path,
    sink: &mut dyn FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let separator = separator.unwrap_or_else(|| guess(beginning));
    let lines = Rc::new(RefCell::new(Lines { next: true, line: 1, ..Lines::default() }));
    let counted = Counted { input, lines: Rc::clone(&lines) };
    let mut reader = csv::ReaderBuilder::new().delimiter(separator).from_reader(counted);
    let wrong = |e: &csv::Error| {
        let line = e.position().map_or(1, |at| lines.borrow_mut().at(at.byte()));
        wrong(e, line, path)
    };
    let names: Vec<String> = reader.headers().map_err(|e| wrong(&e))?.iter().map(str::to_owned).collect();
    let unique: BTreeSet<&String> = names.iter().collect();
    if unique.len() != names.len() {
        return Err(Error::data(path, 1, format!("two columns have the same name: {}", names.join(", "))));
    }
    let mut row = csv::StringRecord::new();
    while reader.read_record(&mut row).map_err(|e| wrong(&e))? {
        let line = lines.borrow_mut().at(row.position().map_or(0, csv::Position::byte));
        let cells: Map<String, Value> =
            names.iter().cloned().zip(row.iter().map(|cell| Value::String(cell.to_owned()))).collect();
        sink(Record { line, value: Value::Object(cells) })?;
    }
    Ok(())
}

/// Where the lines of a file begin that are not blank. The reader's own count of a record stops before the second half of a `\r\n` and before
/// blank lines.
#[derive(Default)]
struct Lines {
    offset: u64,
    line: usize,
    next: bool,
    starts: VecDeque<(u64, usize)>,
}

impl Lines {
    fn pass(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.next && !matches!(byte, b'\r' | b'\n') {
                self.starts.push_back((self.offset, self.line));
            }
            self.next = *byte == b'\n' || self.next && *byte == b'\r';
            self.line += usize::from(*byte == b'\n');
            self.offset += 1;
        }
    }

    /// The first line that begins at `offset` or after it; lines before are forgotten.
    fn at(&mut self, offset: u64) -> usize {
        while self.starts.front().is_some_and(|(start, _)| *start < offset) {
            self.starts.pop_front();
        }
        self.starts.front().map_or(self.line, |(_, line)| *line)
    }
}

struct Counted<R> {
    input: R,
    lines: Rc<RefCell<Lines>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.lines.borrow_mut().pass(&buffer[..count]);
        Ok(count)
    }
}

/// The separator that the first line has most often, a comma when it has none.
pub(super) fn guess(beginning: &[u8]) -> u8 {
    let header = beginning.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |separator: &u8| header.iter().filter(|byte| *byte == separator).count();
    // The first one of equals.
    SEPARATORS.into_iter().rev().max_by_key(count).unwrap_or(b',')
}

fn wrong(error: &csv::Error, line: usize, path: &Path) -> Error {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            Error::data(path, line, format!("found {len} columns, expected {expected_len} as in the header"))
        }
        csv::ErrorKind::Utf8 { .. } => Error::data(path, line, "not UTF-8"),
        csv::ErrorKind::Io(source) => Error::io(path, std::io::Error::new(source.kind(), source.to_string())),
        _ => Error::data(path, line, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<(usize, String)>, Error> {
        let mut rows = Vec::new();
        read(text.as_bytes(), None, text.as_bytes(), Path::new("f.csv"), &mut |record| {
            rows.push((record.line, record.value.to_string()));
            Ok(())
        })?;
        Ok(rows)
    }

    #[test]
    fn quoted_line_breaks_and_other_separators() {
        let rows = parse("\u{feff}text,label\r\n\"a\n\"\"b\"\"\n, c\",x\n\nd,y\n").unwrap();
        let expected =
            [(2, r#"{"text":"a\n\"b\"\n, c","label":"x"}"#.to_owned()), (6, r#"{"text":"d","label":"y"}"#.to_owned())];
        assert_eq!(rows, expected);
        assert_eq!(parse("a\tb, c\n1\t2\n").unwrap(), [(2, r#"{"a":"1","b, c":"2"}"#.to_owned())]);
        assert_eq!(parse("a;b\n1;2\n").unwrap(), [(2, r#"{"a":"1","b":"2"}"#.to_owned())]);
        assert_eq!(parse("text\nab\n").unwrap(), [(2, r#"{"text":"ab"}"#.to_owned())]);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn malformed_rows_are_named() {
        for (text, line, part) in [
            ("a,b\r\n1,2\r\n3\r\n", 3, "found 1 columns"),
            ("a,a\n", 1, "same name"),
            ("a,b\n\"1\n\",2,3\n", 2, "found 3"),
        ] {
            match parse(text) {
                Err(Error::Data { line: found, problem, .. }) => {
                    assert!(found == line && problem.contains(part), "{text}: {found} {problem}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
