//! Records of token classification: words with tags, and texts with character spans in the forms of the usual tools.
//!
//! | form | a record |
//! |---|---|
//! | words | `{"tokens": [...], "ner_tags": [...]}`, tags by name or by the ids of a `ClassLabel` |
//! | spans | `{"text": "...", "spans": [{"start": 0, "end": 5, "label": "loc"}]}`, also under `entities`, `annotations`, `label` or `labels`, also as triples `[0, 5, "loc"]` (doccano, Prodigy, the system before this one) |
//! | Label Studio | `{"data": {"text": "..."}, "annotations": [{"result": [{"value": {"start": 0, "end": 5, "labels": ["loc"]}}]}]}`, and its short form `{"text": "...", "label": [{"start": 0, "end": 5, "labels": ["loc"]}]}` |
//! | spaCy | `["...", {"entities": [[0, 5, "loc"]]}]` |
//!
//! Offsets count characters, `end` is exclusive.
use serde_json::{Map, Value};

use super::{
    Sentence,
    label_studio::{self, region},
    record::{self, Features, Record},
    shown,
    tags::{Tagging, is_tag},
    words::{Span, tag_text},
};

/// Keys that hold the spans of a text, the first one found counts.
const SPAN_KEYS: [&str; 5] = ["spans", "entities", "annotations", "label", "labels"];

/// Keys that hold words, and keys that hold their tags.
const WORD_KEYS: [&str; 2] = ["tokens", "words"];
const TAG_KEYS: [&str; 5] = ["ner_tags", "tags", "ner", "labels", "label"];

/// What was changed while reading records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Words cut in two because a span begins or ends inside.
    pub(super) cut_words: usize,
    /// Records without any word.
    pub(super) empty: usize,
    /// Tasks of Label Studio that nobody has annotated.
    pub(super) unannotated: usize,
    /// Tasks of Label Studio with annotations of several people, of which the ground truth counts, or else the first.
    pub(super) several: usize,
    /// Records that were not accepted in Prodigy.
    pub(super) rejected: usize,
    /// Texts that were null, a list or an object.
    pub(super) coerced: usize,
    /// Whether tags without B- and I- were read.
    pub(super) flat: bool,
}

/// A sentence of a record; none when it has nothing to tag.
pub(super) fn sentence(
    features: &Features,
    record: &Record,
    tagging: &mut Tagging,
    changes: &mut Changes,
) -> Result<Option<Sentence>, String> {
    let line = record.line;
    let (text, spans) = match &record.value {
        Value::Object(row) if record::is_rejected(row) => {
            changes.rejected += 1;
            return Ok(None);
        }
        Value::Object(row) => match words(features, row)? {
            Some((words, mut tags, flat)) => {
                changes.flat |= flat;
                tagging.make_iob2(&mut tags)?;
                changes.empty += usize::from(words.is_empty());
                let sentence = Sentence { words, tags, line, text: None };
                return Ok(Some(sentence).filter(|sentence| !sentence.words.is_empty()));
            }
            None if row.get("data").is_some_and(Value::is_object) => match label_studio::task(row, changes)? {
                Some(found) => found,
                None => return Ok(None),
            },
            None => plain(row, changes)?,
        },
        Value::Array(example) => spacy(example)?,
        other => return Err(format!("found {}, expected an object", shown(other))),
    };
    let (sentence, cut) = tag_text(&text, spans, line)?;
    changes.cut_words += cut;
    // A text without any word has nothing to tag.
    changes.empty += usize::from(sentence.words.is_empty());
    Ok(Some(sentence).filter(|sentence| !sentence.words.is_empty()))
}

type Words = (Vec<String>, Vec<String>, bool);

/// Names of the classes of a record's tags, when it has words and the data carries them.
pub(super) fn classes<'a>(features: &'a Features, record: &Record) -> Option<&'a Vec<String>> {
    let key = TAG_KEYS.iter().find(|key| record.value.get(**key).is_some_and(Value::is_array))?;
    features.classes.get(*key)
}

/// Words and their tags, when the record has both; and whether the tags have no place in an entity.
fn words(features: &Features, row: &Map<String, Value>) -> Result<Option<Words>, String> {
    let texts = |value: &Value| -> Option<Vec<String>> {
        value.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let found = WORD_KEYS.iter().find_map(|key| Some((*key, texts(row.get(*key)?)?)));
    let tagged = TAG_KEYS.iter().find_map(|key| Some((*key, row.get(*key)?.as_array()?)));
    let (Some((word_key, words)), Some((key, tags))) = (found, tagged) else { return Ok(None) };
    if words.len() != tags.len() {
        return Err(format!("`{word_key}` has {} elements, but `{key}` has {}", words.len(), tags.len()));
    }
    let names = features.classes.get(key);
    // Tags that are types alone, as in Few-NERD.
    let flat = names.is_some_and(|names| names.iter().all(|name| name == "O" || !is_tag(name)));
    let tags = tags.iter().map(|tag| {
        let name = match (tag, names) {
            (Value::String(name), _) => name.as_str(),
            (Value::Number(id), Some(names)) => {
                let name = id.as_u64().and_then(|id| names.get(usize::try_from(id).ok()?));
                name.map(String::as_str)
                    .ok_or_else(|| format!("`{key}`: id {id} is out of range, there are {}", names.len()))?
            }
            (Value::Number(id), None) => {
                return Err(format!("`{key}`: found {id}, but the file does not say what the ids mean; give names"));
            }
            (other, _) => return Err(format!("`{key}`: found {}, expected tags", shown(other))),
        };
        match name {
            name if is_tag(name) => Ok(name.to_owned()),
            name if flat && !name.is_empty() => Ok(format!("I-{name}")),
            name => Err(format!("`{key}`: tag `{name}` is of no known scheme, allowed are O, B-TYPE and I-TYPE")),
        }
    });
    let tags = tags.collect::<Result<_, String>>()?;
    Ok(Some((words, tags, flat)))
}

/// `{"text": ..., "spans": ...}`.
fn plain(row: &Map<String, Value>, changes: &mut Changes) -> Result<(String, Vec<Span>), String> {
    let found = SPAN_KEYS.iter().find_map(|key| row.get(*key).map(|value| (*key, value)));
    let text = match (row.get("text"), found) {
        (Some(Value::String(text)), _) => text.clone(),
        (Some(other), Some(("annotations", _))) => {
            changes.coerced += 1;
            coerced(other)
        }
        _ if row.contains_key("paragraphs") => {
            return Err("`paragraphs` of spaCy's old training format are not read; write [text, {\"entities\": ...}]"
                .to_owned());
        }
        _ => {
            let keys: Vec<&str> = row.keys().map(String::as_str).collect();
            return Err(format!(
                "no string under `text`, and no list of words under `tokens` with tags under `ner_tags`; found {}",
                keys.join(", ")
            ));
        }
    };
    let (key, value) = found.ok_or("no spans: expected a list under `spans`, `entities` or `annotations`")?;
    let list = value.as_array().ok_or_else(|| format!("`{key}` is not a list"))?;
    let spans = list.iter().enumerate().map(|(index, item)| {
        if item.get("labels").is_some() {
            return region(item, &text).map_err(|problem| format!("`{key}[{index}]`: {problem}"));
        }
        span(item).ok_or_else(|| {
            let found = shown(item);
            format!(
                "`{key}[{index}]`: found {found}, expected {{\"start\", \"end\", \"label\"}} or [start, end, label]"
            )
        })
    });
    let spans = spans.collect::<Result<_, _>>()?;
    Ok((text, spans))
}

/// What the system before this one made of a text that is none: nothing of null, a list joined by blanks, the text of an object.
fn coerced(value: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value {
        Value::Null => String::new(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Object(map) => {
            let inner = ["text", "content", "sentence", "input"].iter().find_map(|key| map.get(*key));
            inner.map_or_else(|| value.to_string(), text)
        }
        other => other.to_string(),
    }
}

fn span(item: &Value) -> Option<Span> {
    let (start, end, label) = match item {
        Value::Array(triple) => match triple.as_slice() {
            [start, end, label] => (start, end, label),
            _ => return None,
        },
        Value::Object(map) => {
            let get = |names: [&str; 2]| names.iter().find_map(|name| map.get(*name));
            (get(["start", "start_offset"])?, get(["end", "end_offset"])?, get(["label", "type"])?)
        }
        _ => return None,
    };
    let offset = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    Some(Span { start: offset(start)?, end: offset(end)?, label: label.as_str()?.to_owned() })
}

/// An example of spaCy: a text and what to find in it.
fn spacy(example: &[Value]) -> Result<(String, Vec<Span>), String> {
    let expected =
        || format!("found {}, expected [text, {{\"entities\": [[start, end, label]]}}]", shown(&Value::from(example)));
    let [Value::String(text), Value::Object(annotations)] = example else { return Err(expected()) };
    let entities = annotations.get("entities").and_then(Value::as_array).ok_or_else(expected)?;
    let spans = entities.iter().map(|item| span(item).ok_or_else(expected));
    Ok((text.clone(), spans.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(features: &Features, value: Value) -> Result<(Option<Sentence>, Changes), String> {
        let (mut tagging, mut changes) = (Tagging::default(), Changes::default());
        let found = sentence(features, &Record { line: 3, value }, &mut tagging, &mut changes)?;
        Ok((found, changes))
    }

    fn row(value: Value) -> Result<(String, String), String> {
        let (found, _) = read(&Features::default(), value)?;
        Ok(found.map(|sentence| (sentence.words.join("|"), sentence.tags.join(" "))).unwrap_or_default())
    }

    #[test]
    fn every_form_gives_the_same_sentence() {
        let value =
            |start: usize, end: usize, text: &str| json!({"start": start, "end": end, "labels": ["loc"], "text": text});
        let studio = |value: Value| {
            json!({"id": 1, "data": {"text": "\u{1f600} Oslo"}, "annotations": [
                {"was_cancelled": true, "result": []},
                {"result": [{"type": "choices", "value": {"choices": ["x"]}}, {"type": "labels", "value": value}, {"type": "relation"}]}]})
        };
        let forms = [
            json!({"text": "\u{1f600} Oslo", "spans": [{"start": 2, "end": 6, "label": "loc"}], "tokens": [{"text": "x"}]}),
            json!({"text": "\u{1f600} Oslo", "label": [[2, 6, "loc"]]}),
            json!({"text": "\u{1f600} Oslo", "entities": [{"id": 1, "start_offset": 2, "end_offset": 6, "label": "loc"}], "relations": []}),
            json!({"text": "\u{1f600} Oslo", "annotations": [[2, 6, "loc"]]}),
            json!(["\u{1f600} Oslo", {"entities": [[2, 6, "loc"]]}]),
            json!({"tokens": ["\u{1f600}", "Oslo"], "ner_tags": ["O", "B-loc"]}),
            json!({"words": ["\u{1f600}", "Oslo"], "tags": ["O", "S-loc"]}),
            studio(value(2, 6, "Oslo")),
            // UTF-16 units.
            studio(value(3, 7, "Oslo")),
            studio(json!({"start": 2, "end": 6, "labels": ["loc"]})),
            json!({"id": 1, "text": "\u{1f600} Oslo", "label": [value(3, 7, "Oslo")], "annotator": 1}),
            json!({"text": "\u{1f600} Oslo", "spans": [[2, 6, "loc"]], "answer": "accept"}),
        ];
        for form in forms {
            assert_eq!(row(form.clone()).unwrap(), ("\u{1f600}|Oslo".to_owned(), "O B-loc".to_owned()), "{form}");
        }
    }

    #[test]
    fn ids_are_read_by_the_names_of_their_classes() {
        let mut features = Features::default();
        features.classes.insert("ner_tags".into(), ["O", "B-x", "I-x"].map(str::to_owned).to_vec());
        let tags = |features: &Features, ids: Value| {
            read(features, json!({"tokens": ["a", "b", "c"], "ner_tags": ids}))
                .map(|(found, changes)| (found.unwrap().tags.join(" "), changes.flat))
        };
        assert_eq!(tags(&features, json!([0, 1, 2])).unwrap(), ("O B-x I-x".to_owned(), false));
        assert!(tags(&features, json!([0, 1, 3])).unwrap_err().contains("id 3 is out of range, there are 3"));
        assert!(tags(&features, json!([0, 1])).unwrap_err().contains("3 elements, but `ner_tags` has 2"));
        assert!(tags(&Features::default(), json!([0, 1, 1])).unwrap_err().contains("what the ids mean"));
        features.classes.insert("ner_tags".into(), ["O", "art", "person-actor"].map(str::to_owned).to_vec());
        assert_eq!(tags(&features, json!([1, 1, 2])).unwrap(), ("B-art I-art B-person-actor".to_owned(), true));
    }

    #[test]
    fn what_was_changed_is_counted() {
        let changes = |value: Value| read(&Features::default(), value).unwrap().1;
        for text in [json!(null), json!([]), json!({"content": ""})] {
            let found = changes(json!({"text": text, "annotations": []}));
            assert_eq!((found.coerced, found.empty), (1, 1));
        }
        assert_eq!(row(json!({"text": ["a", "b"], "annotations": [[2, 3, "x"]]})).unwrap().1, "O B-x");
        assert_eq!(changes(json!({"text": "abc", "spans": [[0, 2, "x"]]})).cut_words, 1);
        for answer in ["reject", "ignore"] {
            let found = changes(json!({"text": "abc", "spans": [[0, 2, "x"]], "answer": answer}));
            assert_eq!((found.rejected, found.empty), (1, 0));
        }
        let studio = |annotations: Value| changes(json!({"data": {"any": "a"}, "annotations": annotations}));
        assert_eq!(studio(json!([])).unannotated, 1);
        assert_eq!(studio(json!([{"result": []}, {"result": []}])).several, 1);
    }

    #[test]
    fn wrong_records_say_what_is_wrong() {
        let cases = [
            (json!(1), "expected an object"),
            (json!([1]), "expected [text, "),
            (json!(["a", {"entities": [[0, 1]]}]), "expected [text, "),
            (json!({"spans": []}), "`text`"),
            (json!({"text": null, "spans": []}), "`text`"),
            (json!({"text": "a"}), "no spans"),
            (json!({"text": "a", "spans": 3}), "not a list"),
            (json!({"text": "ab", "spans": [[-1, 1, "x"]]}), "`spans[0]`"),
            (json!({"text": "ab", "spans": [[0, 1]]}), "`spans[0]`"),
            (json!({"text": "ab", "spans": [[0, 3, "x"]]}), "outside its text of 2"),
            (json!({"id": 1, "paragraphs": []}), "old training format"),
            (
                json!({"text": "ab", "label": [{"start": 0, "end": 1, "labels": ["x", "y"]}]}),
                "`label[0]`: expected one label",
            ),
            (json!({"tokens": ["a"], "tags": ["x"]}), "tag `x` is of no known scheme"),
            (json!({"data": {"a": "x", "b": "y"}, "annotations": []}), "no string under `text`"),
            (
                json!({"data": {"text": "ab"}, "annotations": [{"result": [{"value": {"start": 0, "end": 1, "labels": ["x"], "text": "b"}}]}]}),
                "0..1 is not where its text \"b\" stands",
            ),
            (
                json!({"data": {"text": "ab"}, "annotations": [{"result": [{"value": {"start": 0, "end": 1, "labels": ["x", "y"]}}]}]}),
                "expected one label",
            ),
        ];
        for (value, expected) in cases {
            let problem = row(value.clone()).unwrap_err();
            assert!(problem.contains(expected), "{value}: {problem}");
        }
    }
}
