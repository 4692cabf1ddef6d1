//! JSON as Python's `json` module writes and reads it: `NaN` and `Infinity` as bare words, floats by `repr`, ASCII only.
//!
//! Optuna keeps distributions and attributes as such text, which strict parsers refuse.

use std::fmt::Write as _;

mod check;
mod parse;

pub use check::check;
use parse::Parser;

/// A JSON value with Python's distinction between integers and floats.
#[derive(Debug, Clone, PartialEq)]
pub enum PyValue {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number without fraction and exponent that fits.
    Int(i64),
    /// One that does not fit: its digits, with a sign when it is negative.
    Big(String),
    /// Any other number, and `NaN`, `Infinity`, `-Infinity`.
    Float(f64),
    /// A string.
    Text(String),
    /// A string with a lone surrogate, in UTF-16. In the key of an object it becomes U+FFFD.
    Units(Vec<u16>),
    /// An array.
    List(Vec<PyValue>),
    /// An object, in the order of the text.
    Object(Vec<(String, PyValue)>),
}

/// Text that is not JSON in Python's sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid JSON at byte {at}: {problem}")]
pub struct ParseError {
    at: usize,
    problem: &'static str,
}

impl PyValue {
    /// Reads one value; nothing but white space may follow it.
    ///
    /// # Errors
    /// The byte at which the text breaks the rules.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Parser::new(text).only_value()
    }

    /// The entry of an object; `None` for other values too.
    pub fn get(&self, key: &str) -> Option<&PyValue> {
        match self {
            Self::Object(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// A number as a double.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Big(digits) => digits.parse().ok(),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// Whether both are equal in Python: `True == 1 == 1.0`, and the order of an object does not matter. NaN equals itself, as in
    /// Optuna's comparison of choices.
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Units(a), Self::Units(b)) => a == b,
            (Self::List(a), Self::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b)),
            (Self::Object(a), Self::Object(b)) => {
                let same = |(key, value): &(String, Self)| other.get(key).is_some_and(|theirs| value.equals(theirs));
                a.len() == b.len() && a.iter().all(same)
            }
            (Self::Float(a), Self::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
            (a, b) => a.digits().is_some_and(|digits| b.digits().is_some_and(|other| digits == other)),
        }
    }

    /// Of a number without a fraction: doubles hold few large integers, so that only their digits tell whether they are the same.
    fn digits(&self) -> Option<String> {
        match self {
            Self::Bool(value) => Some(i32::from(*value).to_string()),
            Self::Int(value) => Some(value.to_string()),
            Self::Big(digits) => Some(digits.clone()),
            // Without the sign of -0.0.
            Self::Float(value) if value.fract() == 0.0 => Some(format!("{:.0}", value + 0.0)),
            _ => None,
        }
    }

    /// The text that `json.dumps` gives.
    pub fn dump(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(value) => out.push_str(&value.to_string()),
            Self::Big(digits) => out.push_str(digits),
            Self::Float(value) => out.push_str(&float_repr(*value)),
            Self::Text(value) => write_text(out, value),
            Self::Units(units) => {
                out.push('"');
                for ch in char::decode_utf16(units.iter().copied()) {
                    match ch {
                        Ok(ch) => write_char(out, ch),
                        Err(lone) => write_unit(out, lone.unpaired_surrogate()),
                    }
                }
                out.push('"');
            }
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(entries) => {
                out.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    write_text(out, key);
                    out.push_str(": ");
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// A string as JSON text, as Python writes it.
pub fn dump_text(text: &str) -> String {
    let mut out = String::new();
    write_text(&mut out, text);
    out
}

/// A double as Python's `repr` shows it, with JSON's words for what is not finite: `0.1`, `1.0`, `1e-05`, `NaN`, `-Infinity`.
pub fn float_repr(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    // Both languages print the shortest digits that read back as the same double; only the layout differs.
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    text.chars().for_each(|ch| write_char(out, ch));
    out.push('"');
}

fn write_char(out: &mut String, ch: char) {
    match ch {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        ' '..='~' => out.push(ch),
        _ => ch.encode_utf16(&mut [0; 2]).iter().for_each(|unit| write_unit(out, *unit)),
    }
}

fn write_unit(out: &mut String, unit: u16) {
    // Writing to a string cannot fail.
    let _ = write!(out, "\\u{unit:04x}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_look_like_python() {
        // Pairs from CPython 3.11.
        let cases = [
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (0.0001, "0.0001"),
            (0.1, "0.1"),
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (123456789012345.0, "123456789012345.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (value, text) in cases {
            assert_eq!(float_repr(value), text);
        }
    }

    #[test]
    fn text_is_ascii_and_reads_back() {
        let text = "a\"\\\n\u{1}é𝄞\u{7f}/";
        let dumped = dump_text(text);
        assert_eq!(dumped, "\"a\\\"\\\\\\n\\u0001\\u00e9\\ud834\\udd1e\\u007f/\"");
        assert_eq!(PyValue::parse(&dumped).unwrap(), PyValue::Text(text.into()));
        // A pair, a lone one, text on both sides: as it was.
        for text in [r#""\ud800x""#, r#""a\u00e9\ud834\udd1e\udd1e\"\u00e9""#, r#"["\ud834", "\udd1e"]"#] {
            assert_eq!(PyValue::parse(text).unwrap().dump(), text);
        }
        assert_eq!(PyValue::parse("\"\\ud800x\"").unwrap(), PyValue::Units(vec![0xd800, u16::from(b'x')]));
    }

    #[test]
    fn what_python_writes_is_read() {
        let text = r#"{"a": [1, 1.0, -2e-3, NaN, -Infinity, true, null, 123456789012345678901], "b": {}}"#;
        let value = PyValue::parse(text).unwrap();
        let PyValue::List(items) = value.get("a").unwrap() else { panic!("not a list") };
        assert_eq!(items[0], PyValue::Int(1));
        assert_eq!(items[1], PyValue::Float(1.0));
        assert!(items[3].as_f64().unwrap().is_nan());
        assert_eq!(items[7], PyValue::Big("123456789012345678901".into()));
        assert_eq!(items[7].as_f64(), Some(123456789012345678901.0));
        for digits in ["18446744073709551615", "-9223372036854775809", "9223372036854775807"] {
            assert_eq!(PyValue::parse(digits).unwrap().dump(), digits);
        }
        assert_eq!(PyValue::parse(r#"["x", 1, {"y": 2.5}]"#).unwrap().dump(), r#"["x", 1, {"y": 2.5}]"#);
    }

    #[test]
    fn values_are_equal_as_in_python() {
        let equal = |a: &str, b: &str| {
            let [a, b] = [a, b].map(|text| PyValue::parse(text).unwrap());
            assert_eq!(a.equals(&b), b.equals(&a));
            a.equals(&b)
        };
        for (a, b) in [
            ("true", "1"),
            ("0.0", "false"),
            ("-0.0", "0"),
            ("NaN", "NaN"),
            ("1e20", "100000000000000000000"),
            ("[1, {\"a\": 1, \"b\": 0}]", "[true, {\"b\": false, \"a\": 1.0}]"),
        ] {
            assert!(equal(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("1", "\"1\""),
            ("null", "0"),
            ("null", "false"),
            ("9007199254740993", "9007199254740992.0"),
            ("[]", "{}"),
            ("{\"a\": 1}", "{\"b\": 1}"),
            ("[1]", "[1, 1]"),
            ("Infinity", "1e308"),
        ] {
            assert!(!equal(a, b), "{a} {b}");
        }
    }

    #[test]
    fn broken_text_is_refused() {
        for text in ["", "{", "[1,]", "{\"a\" 1}", "\"abc", "nul", "1 2", "--1", "\"\\u12\"", "\"\\q\""] {
            assert!(PyValue::parse(text).is_err(), "{text}");
        }
        assert!(PyValue::parse(&"[".repeat(10_000)).is_err());
    }
}
