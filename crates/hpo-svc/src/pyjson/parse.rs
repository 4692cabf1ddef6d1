//! Reads JSON as Python does.

use super::{ParseError, PyValue};

/// Deeper nesting than this is refused rather than risking the stack.
const MAX_DEPTH: usize = 128;

/// Reads a text from its beginning.
pub(super) struct Parser<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), text, at: 0 }
    }

    /// One value; nothing but white space may follow it.
    pub(super) fn only_value(mut self) -> Result<PyValue, ParseError> {
        let value = self.value(0)?;
        self.space();
        if self.at < self.bytes.len() {
            return Err(self.error("text after the value"));
        }
        Ok(value)
    }

    fn error(&self, problem: &'static str) -> ParseError {
        ParseError { at: self.at, problem }
    }

    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.bytes[self.at..].starts_with(word.as_bytes());
        if found {
            self.at += word.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<PyValue, ParseError> {
        if depth > MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        self.space();
        let words = [
            ("null", PyValue::Null),
            ("true", PyValue::Bool(true)),
            ("false", PyValue::Bool(false)),
            ("NaN", PyValue::Float(f64::NAN)),
            ("Infinity", PyValue::Float(f64::INFINITY)),
            ("-Infinity", PyValue::Float(f64::NEG_INFINITY)),
        ];
        for (word, value) in words {
            if self.eat(word) {
                return Ok(value);
            }
        }
        match self.bytes.get(self.at) {
            Some(b'"') => self.string(),
            Some(b'[') => self.list(depth),
            Some(b'{') => self.object(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(self.error("not a value")),
            None => Err(self.error("the text ends early")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<PyValue, ParseError> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.eat("]") {
            return Ok(PyValue::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            if self.eat("]") {
                return Ok(PyValue::List(items));
            }
            if !self.eat(",") {
                return Err(self.error("expected `,` or `]`"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<PyValue, ParseError> {
        self.at += 1;
        let mut entries = Vec::new();
        self.space();
        if self.eat("}") {
            return Ok(PyValue::Object(entries));
        }
        loop {
            self.space();
            if self.bytes.get(self.at) != Some(&b'"') {
                return Err(self.error("expected a key"));
            }
            let key = match self.string()? {
                PyValue::Text(key) => key,
                PyValue::Units(units) => String::from_utf16_lossy(&units),
                _ => return Err(self.error("expected a key")),
            };
            self.space();
            if !self.eat(":") {
                return Err(self.error("expected `:`"));
            }
            entries.push((key, self.value(depth + 1)?));
            self.space();
            if self.eat("}") {
                return Ok(PyValue::Object(entries));
            }
            if !self.eat(",") {
                return Err(self.error("expected `,` or `}`"));
            }
        }
    }

    fn number(&mut self) -> Result<PyValue, ParseError> {
        let start = self.at;
        while matches!(self.bytes.get(self.at), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
            self.at += 1;
        }
        let digits = &self.text[start..self.at];
        if let Ok(value) = digits.parse::<i64>() {
            return Ok(PyValue::Int(value));
        }
        let unsigned = digits.strip_prefix('-').unwrap_or(digits);
        if unsigned.starts_with(|first: char| matches!(first, '1'..='9'))
            && unsigned.bytes().all(|b| b.is_ascii_digit())
        {
            return Ok(PyValue::Big(digits.to_owned()));
        }
        digits.parse::<f64>().map(PyValue::Float).map_err(|_| ParseError { at: start, problem: "not a number" })
    }

    /// [`PyValue::Text`] or [`PyValue::Units`].
    fn string(&mut self) -> Result<PyValue, ParseError> {
        self.at += 1;
        let mut units: Vec<u16> = Vec::new();
        let mut out = Characters::default();
        loop {
            let rest = &self.text[self.at..];
            let Some(ch) = rest.chars().next() else { return Err(self.error("the string does not end")) };
            if ch == '\\' && rest.as_bytes().get(1) == Some(&b'u') {
                let hex = rest.get(2..6).and_then(|hex| u16::from_str_radix(hex, 16).ok());
                units.push(hex.ok_or_else(|| self.error("a bad \\u escape"))?);
                self.at += 6;
                continue;
            }
            // Surrogate pairs come as two escapes: decode a run of escapes as a whole.
            out.extend(&units);
            units.clear();
            self.at += ch.len_utf8();
            match ch {
                '"' => return Ok(out.value()),
                '\\' => {
                    let escaped = match self.bytes.get(self.at) {
                        Some(b'n') => '\n',
                        Some(b't') => '\t',
                        Some(b'r') => '\r',
                        Some(b'b') => '\u{8}',
                        Some(b'f') => '\u{c}',
                        Some(c @ (b'"' | b'\\' | b'/')) => char::from(*c),
                        _ => return Err(self.error("a bad escape")),
                    };
                    out.push(escaped);
                    self.at += 1;
                }
                ch if ch < ' ' => return Err(self.error("a control character in a string")),
                ch => out.push(ch),
            }
        }
    }
}

/// A string while it is read.
#[derive(Default)]
struct Characters {
    text: String,
    /// Instead of the text, from the first lone surrogate on.
    units: Vec<u16>,
}

impl Characters {
    fn push(&mut self, ch: char) {
        match self.units.is_empty() {
            true => self.text.push(ch),
            false => self.units.extend_from_slice(ch.encode_utf16(&mut [0; 2])),
        }
    }

    /// Adds a run of escapes.
    fn extend(&mut self, units: &[u16]) {
        match String::from_utf16(units) {
            Ok(text) if self.units.is_empty() => self.text.push_str(&text),
            _ => {
                if self.units.is_empty() {
                    self.units.extend(self.text.encode_utf16());
                }
                self.units.extend_from_slice(units);
            }
        }
    }

    fn value(self) -> PyValue {
        if self.units.is_empty() { PyValue::Text(self.text) } else { PyValue::Units(self.units) }
    }
}
