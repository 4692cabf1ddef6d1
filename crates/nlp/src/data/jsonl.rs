//! JSON lines with character spans.
use std::path::Path;

use serde_json::{Map, Value};

use super::{FileContent, Sentence};
use crate::Error;

/// Keys that hold the spans of a line, the first one found counts.
const SPAN_KEYS: [&str; 5] = ["spans", "entities", "annotations", "label", "labels"];

struct Span {
    start: usize,
    end: usize,
    label: String,
}

/// Parses a file: a line is `{"text": ..., "spans": [{"start": 0, "end": 5, "label": "loc"}]}`; the spans may also stand
/// under `entities`, `annotations`, `label` or `labels`, and be triples `[start, end, label]`. Offsets count characters, `end`
/// is exclusive. Words are runs of letters and digits, and single other characters; a word is cut where a span begins
/// or ends inside it, so that no span is lost or widened.
pub(super) fn parse(text: &str, path: &Path) -> Result<FileContent, Error> {
    let mut content = FileContent::default();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let (sentence, cut) = parse_line(line, number).map_err(|problem| Error::data(path, number, problem))?;
        content.cut_words += cut;
        // A text without any word has nothing to tag.
        if !sentence.words.is_empty() {
            content.sentences.push(sentence);
        }
    }
    Ok(content)
}

fn parse_line(line: &str, number: usize) -> Result<(Sentence, usize), String> {
    let row: Map<String, Value> = serde_json::from_str(line).map_err(|e| format!("not a JSON object: {e}"))?;
    let text = row.get("text").and_then(Value::as_str).ok_or("no string under `text`")?;
    let (key, value) = SPAN_KEYS
        .iter()
        .find_map(|key| row.get(*key).map(|value| (*key, value)))
        .ok_or("no spans: expected a list under `spans`, `entities` or `annotations`")?;
    let list = value.as_array().ok_or_else(|| format!("`{key}` is not a list"))?;
    let characters: Vec<char> = text.chars().collect();
    let mut spans = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        let span = read_span(item).ok_or_else(|| {
            format!("`{key}[{index}]`: found {item}, expected {{\"start\", \"end\", \"label\"}} or [start, end, label]")
        })?;
        check_span(&span, &characters).map_err(|problem| format!("`{key}[{index}]`: {problem}"))?;
        spans.push(span);
    }
    spans.sort_by_key(|span| (span.start, span.end));
    if let Some(pair) = spans.windows(2).find(|pair| pair[1].start < pair[0].end) {
        let name = |span: &Span| format!("{}..{} ({})", span.start, span.end, span.label);
        return Err(format!("spans {} and {} overlap", name(&pair[0]), name(&pair[1])));
    }
    Ok(tag_words(&characters, &spans, number))
}

fn read_span(item: &Value) -> Option<Span> {
    let (start, end, label) = match item {
        Value::Array(triple) => match triple.as_slice() {
            [start, end, label] => (start, end, label),
            _ => return None,
        },
        Value::Object(map) => (map.get("start")?, map.get("end")?, map.get("label").or_else(|| map.get("type"))?),
        _ => return None,
    };
    let offset = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    Some(Span { start: offset(start)?, end: offset(end)?, label: label.as_str()?.to_owned() })
}

fn check_span(span: &Span, characters: &[char]) -> Result<(), String> {
    let Span { start, end, label } = span;
    if label.is_empty() || label.contains(char::is_whitespace) {
        return Err(format!("label {label:?} is empty or has white space"));
    }
    if start >= end {
        return Err(format!("span {start}..{end} is empty"));
    }
    if *end > characters.len() {
        return Err(format!("span {start}..{end} lies outside its text of {} characters", characters.len()));
    }
    if characters[*start..*end].iter().all(|c| c.is_whitespace()) {
        return Err(format!("span {start}..{end} holds white space alone"));
    }
    Ok(())
}

/// Splits a text into words and tags them; also returns how many words a span's border cut.
fn tag_words(characters: &[char], spans: &[Span], line: usize) -> (Sentence, usize) {
    let mut sentence = Sentence { words: Vec::new(), tags: Vec::new(), line };
    let mut cut = 0;
    let mut spans = spans.iter().peekable();
    let mut opened = false;
    let mut start = 0;
    while start < characters.len() {
        if characters[start].is_whitespace() {
            start += 1;
            continue;
        }
        while spans.next_if(|span| span.end <= start).is_some() {
            opened = false;
        }
        let mut end = start + 1;
        while end < characters.len() && continues_word(characters[end - 1], characters[end]) {
            end += 1;
        }
        let current = spans.peek();
        let border = current.and_then(|span| [span.start, span.end].into_iter().find(|b| start < *b && *b < end));
        if let Some(border) = border {
            end = border;
            cut += 1;
        }
        let tag = match current.filter(|span| span.start <= start) {
            Some(span) if opened => format!("I-{}", span.label),
            Some(span) => {
                opened = true;
                format!("B-{}", span.label)
            }
            None => "O".to_owned(),
        };
        sentence.words.push(characters[start..end].iter().collect());
        sentence.tags.push(tag);
        start = end;
    }
    (sentence, cut)
}

/// Letters, digits and the marks that combine with them stay together; every other character is a word of its own.
fn continues_word(before: char, next: char) -> bool {
    let joins = |c: char| c.is_alphanumeric() || is_mark(c);
    joins(before) && joins(next) || is_mark(next)
}

fn is_mark(c: char) -> bool {
    // Combining diacritical marks, variation selectors, joiners: they belong to the character before.
    matches!(c, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{200c}' | '\u{200d}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: &str) -> Result<(String, String, usize), String> {
        parse_line(line, 1).map(|(sentence, cut)| (sentence.words.join("|"), sentence.tags.join(" "), cut))
    }

    #[test]
    fn spans_become_tags() {
        let (words, tags, cut) =
            row(r#"{"text": "Ana Ruiz, Zürich!", "spans": [{"start": 10, "end": 16, "label": "loc"}, {"start": 0, "end": 8, "label": "per"}], "id": 3}"#)
                .unwrap();
        assert_eq!(words, "Ana|Ruiz|,|Zürich|!");
        assert_eq!(tags, "B-per I-per O B-loc O");
        assert_eq!(cut, 0);
    }

    #[test]
    fn triples_under_other_keys_and_touching_spans() {
        let (words, tags, cut) = row(r#"{"text": "12kmh x", "entities": [[0, 2, "num"], [2, 5, "unit"]]}"#).unwrap();
        assert_eq!((words.as_str(), tags.as_str(), cut), ("12|kmh|x", "B-num B-unit O", 1));
        let (words, tags, cut) = row(r#"{"text": "prefixed", "annotations": [[3, 6, "x"]]}"#).unwrap();
        assert_eq!((words.as_str(), tags.as_str(), cut), ("pre|fix|ed", "O B-x O", 2));
        assert_eq!(row(r#"{"text": "a b", "spans": []}"#).unwrap().1, "O O");
    }

    #[test]
    fn a_span_may_hold_blanks_at_its_borders() {
        let (_, tags, _) = row(r#"{"text": "a bc d", "spans": [{"start": 1, "end": 5, "label": "x"}]}"#).unwrap();
        assert_eq!(tags, "O B-x O");
    }

    #[test]
    fn wrong_lines_say_what_is_wrong() {
        let cases = [
            ("[1]", "not a JSON object"),
            (r#"{"spans": []}"#, "`text`"),
            (r#"{"text": "a"}"#, "no spans"),
            (r#"{"text": "a", "spans": 3}"#, "not a list"),
            (r#"{"text": "ab", "spans": [[0, 3, "x"]]}"#, "outside its text of 2"),
            (r#"{"text": "ab", "spans": [[1, 1, "x"]]}"#, "is empty"),
            (r#"{"text": "ab", "spans": [[-1, 1, "x"]]}"#, "`spans[0]`"),
            (r#"{"text": "ab", "spans": [[0, 1]]}"#, "`spans[0]`"),
            (r#"{"text": "a  b", "spans": [[1, 3, "x"]]}"#, "white space alone"),
            (r#"{"text": "a", "spans": [[0, 1, ""]]}"#, "label"),
            (r#"{"text": "abcd", "spans": [[0, 3, "x"], [2, 4, "y"]]}"#, "0..3 (x) and 2..4 (y) overlap"),
            (r#"{"text": "abcd", "spans": [[0, 4, "x"], [1, 2, "y"]]}"#, "overlap"),
        ];
        for (line, expected) in cases {
            let problem = row(line).unwrap_err();
            assert!(problem.contains(expected), "{line}: {problem}");
        }
    }

    proptest::proptest! {
        #[test]
        fn words_cover_the_text_and_spans_survive(text in "[a-c ,é\u{301}]{1,30}", start in 0usize..30, len in 1usize..10) {
            let characters: Vec<char> = text.chars().collect();
            let span = Span { start, end: start + len, label: "x".into() };
            if check_span(&span, &characters).is_ok() {
                let inside: String = characters[start..start + len].iter().filter(|c| !c.is_whitespace()).collect();
                let (sentence, _) = tag_words(&characters, &[span], 1);
                let all: String = characters.iter().filter(|c| !c.is_whitespace()).collect();
                proptest::prop_assert_eq!(sentence.words.concat(), all);
                let tagged = sentence.words.iter().zip(&sentence.tags).filter(|(_, tag)| *tag != "O");
                proptest::prop_assert_eq!(tagged.map(|(word, _)| word.as_str()).collect::<String>(), inside);
                proptest::prop_assert_eq!(sentence.tags.iter().filter(|tag| tag.starts_with("B-")).count(), 1);
            }
        }
    }
}
