//! JSON texts one after the other, from a file of lines or from one array, without holding the file in memory.
use std::{
    borrow::Cow,
    io::{BufRead, Bytes},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::Error;

/// Calls `sink` with the line number and the value of each line that is not blank.
pub(super) fn lines(
    mut input: impl BufRead,
    path: &Path,
    sink: &mut dyn FnMut(usize, Value) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut buffer = Vec::new();
    for number in 1.. {
        buffer.clear();
        if input.read_until(b'\n', &mut buffer).map_err(|e| Error::io(path, e))? == 0 {
            break;
        }
        let content = buffer.strip_prefix(b"\xef\xbb\xbf").filter(|_| number == 1).unwrap_or(&buffer).trim_ascii();
        if !content.is_empty() {
            sink(number, value(content, number, path)?)?;
        }
    }
    Ok(())
}

/// Calls `sink` with the line number and the value of each element of the array that the file holds.
pub(super) fn array(
    input: impl BufRead,
    path: &Path,
    sink: &mut dyn FnMut(usize, Value) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut elements = Elements::of(input, path);
    while let Some((line, value)) = elements.next()? {
        sink(line, value)?;
    }
    Ok(())
}

/// The elements of an array, one at a time.
pub(crate) struct Elements<R> {
    bytes: Bytes<R>,
    line: usize,
    state: State,
    path: PathBuf,
}

impl<R: BufRead> Elements<R> {
    /// Those of the array that the input holds.
    pub(crate) fn of(input: R, path: &Path) -> Self {
        Self { bytes: input.bytes(), line: 1, state: State::Before, path: path.to_owned() }
    }

    /// The next element with the line where it begins; none behind the array.
    pub(crate) fn next(&mut self) -> Result<Option<(usize, Value)>, Error> {
        let Self { bytes, line, state, path } = self;
        // Of the element that is open.
        let (mut element, mut start, mut depth) = (Vec::new(), 1, 0usize);
        let (mut in_text, mut escaped) = (false, false);
        for byte in bytes {
            let byte = byte.map_err(|e| Error::io(path, e))?;
            let here = *line;
            *line += usize::from(byte == b'\n');
            let wrong = |expected: &str| {
                let found = char::from(byte).escape_default().to_string();
                Error::data(path, here, format!("not a JSON array: found `{found}`, expected {expected}"))
            };
            if *state == State::Element {
                if in_text {
                    (in_text, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
                } else {
                    match byte {
                        b'"' => in_text = true,
                        b'[' | b'{' => depth += 1,
                        b']' | b'}' if depth > 0 => depth -= 1,
                        b',' | b']' if depth == 0 => {
                            *state = if byte == b',' { State::Wanted } else { State::After };
                            return value(element.trim_ascii(), start, path).map(|value| Some((start, value)));
                        }
                        _ => {}
                    }
                }
                element.push(byte);
            } else if !byte.is_ascii_whitespace() && (*state != State::Before || !BOM.contains(&byte)) {
                match (*state, byte) {
                    (State::Before, b'[') => *state = State::First,
                    (State::Before, _) => return Err(wrong("`[`")),
                    (State::First, b']') => *state = State::After,
                    (State::Wanted, b',' | b']') => return Err(wrong("an element")),
                    (State::After, _) => return Err(wrong("the end of the file")),
                    _ => {
                        *state = State::Element;
                        (start, depth) = (here, usize::from(matches!(byte, b'[' | b'{')));
                        in_text = byte == b'"';
                        element.push(byte);
                    }
                }
            }
        }
        match state {
            State::After => Ok(None),
            State::Element => {
                Err(Error::data(path, start, "not a JSON array: the file ends inside the element that begins here"))
            }
            _ => Err(Error::data(path, *line, "not a JSON array: the file ends before its `]`")),
        }
    }
}

const BOM: [u8; 3] = *b"\xef\xbb\xbf";

#[derive(Clone, Copy, PartialEq)]
enum State {
    Before,
    First,
    Wanted,
    Element,
    After,
}

/// A JSON text that begins on a line.
pub(crate) fn value(content: &[u8], line: usize, path: &Path) -> Result<Value, Error> {
    let text = std::str::from_utf8(content).map_err(|e| {
        let before = content[..e.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        Error::data(path, line + before, "not UTF-8")
    })?;
    serde_json::from_str(&whole_surrogates(text)).map_err(|e| {
        // The parser's own line counts from the beginning of this value.
        let problem = e.to_string();
        let problem = problem.split(" at line ").next().unwrap_or(&problem);
        Error::data(path, line + e.line().saturating_sub(1), format!("not JSON: {problem} (column {})", e.column()))
    })
}

/// Puts U+FFFD in place of each escaped half of a surrogate pair: Python writes them, no Unicode text may hold them.
fn whole_surrogates(text: &str) -> Cow<'_, str> {
    if !text.contains("\\ud") && !text.contains("\\uD") {
        return Cow::Borrowed(text);
    }
    let unit = |at: usize| {
        let hex = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(hex, 16).ok()
    };
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    while let Some(found) = text[at..].find('\\') {
        out.push_str(&text[at..at + found]);
        at += found;
        let (taken, kept) = match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, &text[at..at + 12]),
            (Some(0xd800..=0xdfff), _) => (6, "\\ufffd"),
            (Some(_), _) => (6, &text[at..at + 6]),
            // Another escape: the backslash and the character after it.
            (None, _) => {
                let next = text[at + 1..].chars().next().map_or(0, char::len_utf8);
                (1 + next, &text[at..at + 1 + next])
            }
        };
        out.push_str(kept);
        at += taken;
    }
    out.push_str(&text[at..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Clone, Copy)]
    enum Form {
        Array,
        Lines,
    }

    use Form::{Array, Lines};

    fn read(form: Form, text: &str) -> Result<Vec<(usize, Value)>, Error> {
        let mut values = Vec::new();
        let mut sink = |line, value| {
            values.push((line, value));
            Ok(())
        };
        match form {
            Array => array(text.as_bytes(), Path::new("f.json"), &mut sink)?,
            Lines => lines(text.as_bytes(), Path::new("f.json"), &mut sink)?,
        }
        Ok(values)
    }

    fn failing_line(form: Form, text: &str) -> usize {
        match read(form, text) {
            Err(Error::Data { line, .. }) => line,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn elements_carry_the_line_where_they_begin() {
        let text = "\u{feff} [\n {\"a\": \"],}\\\"[\"},\n\n[1, [2]]\n, 3, \"x\", null]\n";
        let expected =
            [(2, json!({"a": "],}\"["})), (4, json!([1, [2]])), (5, json!(3)), (5, json!("x")), (5, json!(null))];
        assert_eq!(read(Array, text).unwrap(), expected);
        assert_eq!(read(Array, "[]").unwrap(), []);
        let expected = [(1, json!({"a": 1})), (3, json!([]))];
        assert_eq!(read(Lines, "\u{feff}{\"a\": 1}\r\n\n []").unwrap(), expected);
    }

    #[test]
    fn broken_arrays_are_named_by_line() {
        for (text, line) in [
            ("{}", 1),
            ("[1,\n]", 2),
            ("[1\n2]", 2),
            ("[\n{\"a\":\n1", 2),
            ("[1,\n", 2),
            ("[]\nx", 2),
            ("[{\n\"a\" 1}]", 2),
            ("", 1),
        ] {
            assert_eq!(failing_line(Array, text), line, "{text}");
        }
        assert_eq!(failing_line(Lines, "1\n{\n"), 2);
    }

    #[test]
    fn halves_of_surrogate_pairs_are_replaced() {
        let text = r#"["a\ud83d\ude00b", "\ud83d x", "\\ud83d", "\udc00\ud800", "\ud83d\ud83d\ude00\n"]"#;
        let expected: Vec<Value> =
            ["a😀b", "\u{fffd} x", "\\ud83d", "\u{fffd}\u{fffd}", "\u{fffd}😀\n"].map(Value::from).to_vec();
        let found: Vec<Value> = read(Array, text).unwrap().into_iter().map(|(_, value)| value).collect();
        assert_eq!(found, expected);
    }

    proptest::proptest! {
        #[test]
        fn arrays_are_cut_as_the_parser_does(text in r#"[\[\]{}",\\: a1]{0,40}"#) {
            let text = format!("[{text}]");
            let whole: Option<Vec<Value>> = serde_json::from_str(&text).ok();
            let ours = read(Array, &text).ok().map(|found| found.into_iter().map(|(_, value)| value).collect());
            proptest::prop_assert_eq!(ours, whole);
        }
    }
}
