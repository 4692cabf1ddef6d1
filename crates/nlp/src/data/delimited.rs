//! CSV and its kin: a header, then a row a record; fields may be quoted and then hold line breaks (RFC 4180).
use std::{
    collections::{BTreeSet, VecDeque},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::record::Record;
use crate::Error;

/// Separators that are told apart by the header.
const SEPARATORS: [u8; 4] = [b'\t', b',', b';', b'|'];

/// Calls `sink` with each record: its cells as texts by the names of the header. `header` is the beginning of the file, by which
/// the separator is found when none is given.
///
/// Returns how many rows go over several lines where tabs separate. Files with tabs seldom quote: a quote that begins a field by chance takes the rows
/// up to the next one with it.
pub(super) fn read(
    input: impl Read,
    separator: Option<u8>,
    beginning: &[u8],
    path: &Path,
    sink: &mut dyn FnMut(Record) -> Result<(), Error>,
) -> Result<usize, Error> {
    let separator = separator.unwrap_or_else(|| guess(beginning));
    let mut table = Table::open(input, separator, path)?;
    let mut broken = 0;
    let names = table.names().to_vec();
    let unique: BTreeSet<&String> = names.iter().collect();
    if unique.len() != names.len() {
        return Err(Error::data(path, 1, format!("two columns have the same name: {}", names.join(", "))));
    }
    while let Some((line, row)) = table.next()? {
        broken += usize::from(separator == b'\t' && row.iter().any(|cell| cell.contains('\n')));
        let cells: Map<String, Value> =
            names.iter().cloned().zip(row.iter().map(|cell| Value::String(cell.to_owned()))).collect();
        sink(Record { line, value: Value::Object(cells) })?;
    }
    Ok(broken)
}

/// A table read row by row.
pub(crate) struct Table<R> {
    reader: csv::Reader<Counted<R>>,
    names: Vec<String>,
    row: csv::StringRecord,
    path: PathBuf,
}

impl<R: Read> Table<R> {
    /// Reads the header.
    pub(crate) fn open(input: R, separator: u8, path: &Path) -> Result<Self, Error> {
        let counted = Counted { input, lines: Lines { next: true, line: 1, ..Lines::default() } };
        let mut reader = csv::ReaderBuilder::new().delimiter(separator).from_reader(counted);
        let names = reader.headers().map(|names| names.iter().map(str::to_owned).collect());
        let names = names.map_err(|error| wrong(&mut reader, error, path))?;
        Ok(Self { reader, names, row: csv::StringRecord::new(), path: path.to_owned() })
    }

    /// The names of its columns.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The next row with the line where it begins; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(usize, &csv::StringRecord)>, Error> {
        match self.reader.read_record(&mut self.row) {
            Ok(false) => Ok(None),
            Ok(true) => {
                let at = self.row.position().map_or(0, csv::Position::byte);
                Ok(Some((self.reader.get_mut().lines.at(at), &self.row)))
            }
            Err(error) => Err(wrong(&mut self.reader, error, &self.path)),
        }
    }
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
    lines: Lines,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.lines.pass(&buffer[..count]);
        Ok(count)
    }
}

/// The separator that the first line has most often, a comma when it has none.
pub(crate) fn guess(beginning: &[u8]) -> u8 {
    let header = beginning.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |separator: &u8| header.iter().filter(|byte| *byte == separator).count();
    // The first one of equals.
    SEPARATORS.into_iter().rev().filter(|separator| count(separator) > 0).max_by_key(count).unwrap_or(b',')
}

fn wrong<R: Read>(reader: &mut csv::Reader<Counted<R>>, error: csv::Error, path: &Path) -> Error {
    let line = error.position().map_or(1, |at| reader.get_mut().lines.at(at.byte()));
    match error.into_kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            Error::data(path, line, format!("found {len} columns, expected {expected_len} as in the header"))
        }
        csv::ErrorKind::Utf8 { .. } => Error::data(path, line, "not UTF-8"),
        csv::ErrorKind::Io(source) => Error::io(path, source),
        other => Error::data(path, line, format!("not a table: {other:?}")),
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
        assert_eq!(parse("text\na\tb\n").unwrap(), [(2, r#"{"text":"a\tb"}"#.to_owned())]);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn quotes_that_join_lines_between_tabs_are_counted() {
        let count = |text: &str| read(text.as_bytes(), None, text.as_bytes(), Path::new("f"), &mut |_| Ok(())).unwrap();
        assert_eq!(count("text\tlabel\n\"So he said\tx\nand left\"\ty\nb\tz\n"), 1);
        assert_eq!(count("text\tlabel\n\"a\"\tx\n"), 0);
        assert_eq!(count("text,label\n\"a\nb\",x\n"), 0);
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
