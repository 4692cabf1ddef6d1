//! Metrics that a program leaves in a file: a JSON object of numbers, in Python's spelling too.

use std::{collections::BTreeMap, path::Path};

use crate::{status::ErrorReason, worker::Failure};

/// Largest file, in bytes.
const LARGEST: u64 = 16 << 20;
/// What Python's `json` writes for numbers that JSON has not.
const WORDS: [(&str, f64); 3] = [("NaN", f64::NAN), ("-Infinity", f64::NEG_INFINITY), ("Infinity", f64::INFINITY)];

/// Stands before them in a text that JSON takes; a private character.
const MARK: &str = "\u{f8ff}";

/// Reads a file.
///
/// # Errors
/// It is not there, too large, or no object of numbers.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, f64>, Failure> {
    let bad = |text: String| Failure::user(ErrorReason::BadInput, format!("metrics file {}: {text}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?.len();
    if size > LARGEST {
        return Err(bad(format!("has {size} bytes; at most {LARGEST} are read")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    metrics(&text).map_err(bad)
}

fn metrics(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&strict(text)).map_err(|error| format!("is no JSON object: {error}"))?;
    let number = |value: &serde_json::Value| {
        let word = value.as_str().and_then(|text| WORDS.iter().find(|(word, _)| text.strip_prefix(MARK) == Some(word)));
        value.as_f64().or_else(|| word.map(|(_, number)| *number))
    };
    let metric = |(key, value): (String, serde_json::Value)| match number(&value) {
        _ if key.starts_with(MARK) => Err(format!("is no JSON object: {} stands for a name", &key[MARK.len()..])),
        Some(number) => Ok((key, number)),
        None => Err(format!("{key:?} is {value}, not a number")),
    };
    fields.into_iter().map(metric).collect()
}

/// The text with Python's words as texts with a mark.
fn strict(text: &str) -> String {
    let (mut strict, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(first) = rest.chars().next() {
        let word = WORDS.iter().find(|(word, _)| rest.starts_with(word));
        let length = match (first, word) {
            ('"', _) => {
                let mut escaped = false;
                let closes = |c: char| {
                    let closes = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    closes
                };
                rest[1..].find(closes).map_or(rest.len(), |end| end + 2)
            }
            (_, Some((word, _))) => word.len(),
            (other, None) => other.len_utf8(),
        };
        let (piece, after) = rest.split_at(length);
        match word {
            Some(_) => strict.extend(["\"", MARK, piece, "\""]),
            None => strict.push_str(piece),
        }
        rest = after;
    }
    strict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_and_json_are_read() {
        let read =
            metrics(r#"{"loss": NaN, "a \"NaN\": -Infinity": Infinity, "b\\": -Infinity, "c": 1e-3, "ü": 2}"#).unwrap();
        assert!(read["loss"].is_nan());
        let rest: Vec<(&str, f64)> = read.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        let expected = [("a \"NaN\": -Infinity", f64::INFINITY), ("b\\", f64::NEG_INFINITY), ("c", 1e-3)];
        assert_eq!((&rest[..3], rest[4]), (&expected[..], ("ü", 2.0)));
        assert_eq!(metrics("{}").unwrap().len(), 0);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, told) in [
            (r#"{"f1": "high"}"#, r#""f1" is "high", not a number"#),
            (r#"{"f1": null}"#, r#""f1" is null, not a number"#),
            (r#"{"f1": "NaN"}"#, r#""f1" is "NaN", not a number"#),
            ("{NaN: 1}", "is no JSON object: NaN stands for a name"),
            ("[1]", "is no JSON object"),
            (r#"{"f1": 0.5"#, "is no JSON object"),
            (r#"{"f1": "0.5"#, "is no JSON object"),
            (r#"{"f1": nan}"#, "is no JSON object"),
        ] {
            let problem = metrics(text).unwrap_err();
            assert!(problem.contains(told), "{text}: {problem}");
        }
    }
}
