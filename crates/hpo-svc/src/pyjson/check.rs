//! Whether a text is JSON to Python, however deeply it is nested and without keeping any of it.

use super::ParseError;

/// Refuses what Python's `json.loads` refuses. How deep a text may be nested is for its reader.
///
/// # Errors
/// The byte at which the text breaks the rules.
pub fn check(text: &str) -> Result<(), ParseError> {
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0 };
    let mut open: Vec<u8> = Vec::new();
    loop {
        // A value begins here.
        scanner.space();
        match scanner.peek() {
            Some(bracket @ (b'[' | b'{')) => {
                scanner.at += 1;
                scanner.space();
                match (bracket, scanner.peek()) {
                    (b'[', Some(b']')) | (b'{', Some(b'}')) => scanner.at += 1,
                    (b'{', _) => {
                        open.push(b'}');
                        scanner.key()?;
                        continue;
                    }
                    _ => {
                        open.push(b']');
                        continue;
                    }
                }
            }
            Some(b'"') => scanner.string()?,
            _ => scanner.word()?,
        }
        // It has ended, and perhaps what it stands in.
        loop {
            scanner.space();
            let Some(end) = open.last() else {
                return if scanner.peek().is_none() { Ok(()) } else { scanner.wrong("text after the value") };
            };
            match scanner.peek() {
                Some(b',') => {
                    scanner.at += 1;
                    if *end == b'}' {
                        scanner.key()?;
                    }
                    break;
                }
                Some(found) if found == *end => {
                    scanner.at += 1;
                    open.pop();
                }
                _ => return scanner.wrong("expected `,` or the end of a list or an object"),
            }
        }
    }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn wrong<T>(&self, problem: &'static str) -> Result<T, ParseError> {
        Err(ParseError { at: self.at, problem })
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<(), ParseError> {
        self.space();
        if self.peek() != Some(b'"') {
            return self.wrong("expected a key");
        }
        self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return self.wrong("expected `:`");
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), ParseError> {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    let hexadecimal = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
                    self.at += match self.bytes.get(self.at + 1) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                        Some(b'u') if self.bytes.get(self.at + 2..self.at + 6).is_some_and(hexadecimal) => 6,
                        _ => return self.wrong("no escape in a string"),
                    };
                }
                Some(0..=0x1f) => return self.wrong("a control character in a string"),
                Some(_) => self.at += 1,
                None => return self.wrong("the text ends early"),
            }
        }
    }

    /// A word or a number.
    fn word(&mut self) -> Result<(), ParseError> {
        let rest = &self.bytes[self.at..];
        for word in ["null", "true", "false", "NaN", "Infinity", "-Infinity"] {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(());
            }
        }
        let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut length = usize::from(rest.starts_with(b"-"));
        length += match digits(&rest[length..]) {
            0 => return self.wrong("not a value"),
            // A zero stands alone.
            _ if rest[length] == b'0' => 1,
            count => count,
        };
        // A fraction or an exponent without digits is no part of a number.
        if rest.get(length) == Some(&b'.') {
            length += match digits(&rest[length + 1..]) {
                0 => 0,
                count => 1 + count,
            };
        }
        if matches!(rest.get(length), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(rest.get(length + 1), Some(b'+' | b'-')));
            length += match digits(&rest[length + 1 + sign..]) {
                0 => 0,
                count => 1 + sign + count,
            };
        }
        self.at += length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_reads_passes() {
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        for text in [
            "0",
            "-0",
            "1.5e-3",
            "1E5",
            " [ ] ",
            "{}",
            "[1, [2, {\"a\" : {\"b\": [null]}, \"\": -Infinity}], NaN]",
            r#""\u00e9\ud83d\n\/ü""#,
            "123456789012345678901234567890",
            "\t\"\"\n",
            &deep,
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_python_refuses_is_refused() {
        for text in [
            "",
            " ",
            "{bad",
            "1 2",
            "'a'",
            "[1,]",
            "nan",
            "01",
            "-01",
            "1.",
            "-.5",
            ".5",
            "+1",
            "1e",
            "1e+",
            "-",
            r#""\u+123""#,
            r#""\u12""#,
            r#""\x""#,
            "\"a",
            "\"\n\"",
            "[",
            "{",
            "[}",
            "{]",
            "{\"a\"}",
            "{\"a\": }",
            "{1: 2}",
            "{\"a\": 1,}",
            "[1 2]",
            "]",
            "nul",
            "True",
            "[[]",
            "[]]",
            "\u{feff}1",
            "1\u{a0}",
        ] {
            assert!(check(text).is_err(), "{text}");
        }
        let open = "[".repeat(5000);
        assert!(check(&open).is_err() && check(&(open + "x")).is_err());
    }
}
