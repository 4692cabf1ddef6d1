//! Tasks of Label Studio exports, of every age.
use serde_json::{Map, Value};

use super::{spans::Changes, words::Span};

/// The text of a task and its spans: those of the annotation that is the ground truth, else of the first one that was not cancelled. None of a task
/// that nobody has annotated.
pub(super) fn task(row: &Map<String, Value>, changes: &mut Changes) -> Result<Option<(String, Vec<Span>)>, String> {
    let data = row.get("data").and_then(Value::as_object).ok_or("`data` is not an object")?;
    let texts: Vec<(&String, &str)> = data.iter().filter_map(|(key, value)| Some((key, value.as_str()?))).collect();
    let text = match (data.get("text").and_then(Value::as_str), texts.as_slice()) {
        (Some(text), _) => text,
        (None, [(_, text)]) => text,
        (None, _) => return Err("`data` has no string under `text`".to_owned()),
    };
    // What is `annotations` since version 1.0.
    let key = if row.contains_key("annotations") { "annotations" } else { "completions" };
    let list = row.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let is = |one: &Value, flag: &str| one.get(flag) == Some(&Value::Bool(true));
    let done: Vec<(usize, &Value)> = list.iter().enumerate().filter(|(_, one)| !is(one, "was_cancelled")).collect();
    let Some((at, chosen)) = done.iter().find(|(_, one)| is(one, "ground_truth")).or(done.first()).copied() else {
        changes.unannotated += 1;
        return Ok(None);
    };
    changes.several += usize::from(done.len() > 1);
    let place = format!("{key}[{at}].result");
    let regions = chosen.get("result").and_then(Value::as_array).ok_or_else(|| format!("`{place}` is not a list"))?;
    let mut spans = Vec::new();
    for (index, value) in regions.iter().enumerate() {
        let Some(value) = value.get("value") else { continue };
        // Choices, relations and ratings have no labels.
        if value.get("labels").or_else(|| value.get("hypertextlabels")).is_some() {
            spans.push(region(value, text).map_err(|problem| format!("`{place}[{index}]`: {problem}"))?);
        }
    }
    Ok(Some((text.to_owned(), spans)))
}

/// A region with its one label.
pub(super) fn region(value: &Value, text: &str) -> Result<Span, String> {
    let labels = value.get("labels").or_else(|| value.get("hypertextlabels"));
    let labels = labels.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let [Value::String(label)] = labels else { return Err("expected one label".to_owned()) };
    // Those of HyperText tell where in the HTML the region lies; beside them stands where it lies in what is shown.
    let places = value.get("globalOffsets").unwrap_or(value);
    let offset = |key: &str| places.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let (Some(start), Some(end)) = (offset("start"), offset("end")) else {
        return Err("expected whole numbers under `start` and `end`, or under those of `globalOffsets`".to_owned());
    };
    let given = value.get("text").and_then(Value::as_str);
    let (start, end) = characters(text, start, end, given)
        .ok_or_else(|| format!("{start}..{end} is not where its text {:?} stands", given.unwrap_or_default()))?;
    Ok(Span { start, end, label: label.clone() })
}

/// A region in characters. Where the export says which text it covers, that decides whether its offsets count characters or, as the browser
/// does, UTF-16 units.
fn characters(text: &str, start: usize, end: usize, given: Option<&str>) -> Option<(usize, usize)> {
    let count = end.checked_sub(start)?;
    let Some(given) = given else { return Some((start, end)) };
    if text.chars().skip(start).take(count).eq(given.chars()) {
        return Some((start, end));
    }
    let (mut units, mut bounds) = (0, (None, None));
    for (index, character) in text.chars().chain(['\0']).enumerate() {
        bounds.0 = bounds.0.or((units == start).then_some(index));
        bounds.1 = bounds.1.or((units == end).then_some(index));
        units += character.len_utf16();
    }
    let (start, end) = (bounds.0?, bounds.1?);
    text.chars().skip(start).take(end - start).eq(given.chars()).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(row: &Value) -> Result<(Vec<Span>, Changes), String> {
        let mut changes = Changes::default();
        let found = task(row.as_object().unwrap(), &mut changes)?;
        Ok((found.map(|(_, spans)| spans).unwrap_or_default(), changes))
    }

    fn result(label: &str) -> Value {
        json!([{"value": {"start": 3, "end": 7, "labels": [label], "text": "Oslo"}}])
    }

    #[test]
    fn the_ground_truth_counts_before_the_first_annotation() {
        let task = |annotations: Value| json!({"data": {"text": "in Oslo"}, "annotations": annotations});
        let label = |row: &Value| read(row).map(|(spans, changes)| (spans[0].label.clone(), changes.several));
        let truth = json!({"result": result("b"), "ground_truth": true});
        assert_eq!(label(&task(json!([{"result": result("a")}, truth]))).unwrap(), ("b".to_owned(), 1));
        assert_eq!(label(&task(json!([{"result": result("a")}, {"result": result("c")}]))).unwrap().0, "a");
        let cancelled = json!({"result": result("a"), "was_cancelled": true});
        assert_eq!(label(&task(json!([cancelled, truth]))).unwrap(), ("b".to_owned(), 0));
        let wrong = read(&task(json!([cancelled, {"result": [{"value": {"labels": []}}]}]))).unwrap_err();
        assert!(wrong.contains("`annotations[1].result[0]`: expected one label"), "{wrong}");
    }

    #[test]
    fn exports_before_1_0_call_annotations_completions() {
        let row = json!({"data": {"text": "in Oslo"}, "completions": [{"result": result("loc")}], "predictions": []});
        assert_eq!(read(&row).unwrap().0, [Span { start: 3, end: 7, label: "loc".into() }]);
        let (spans, changes) = read(&json!({"data": {"text": "in Oslo"}, "completions": []})).unwrap();
        assert_eq!((spans.len(), changes.unannotated), (0, 1));
    }

    #[test]
    fn regions_of_hypertext_are_where_their_text_is_shown() {
        let row = |start: usize, end: usize| {
            json!({"data": {"text": "in Oslo"}, "annotations": [{"result": [{"type": "hypertextlabels", "value": {
                "start": "/div[1]/text()[1]", "end": "/div[1]/text()[1]", "startOffset": 0, "endOffset": 4,
                "globalOffsets": {"start": start, "end": end}, "text": "Oslo", "hypertextlabels": ["loc"]}}]}]})
        };
        assert_eq!(read(&row(3, 7)).unwrap().0, [Span { start: 3, end: 7, label: "loc".into() }]);
        assert!(read(&row(0, 4)).unwrap_err().contains("0..4 is not where its text \"Oslo\" stands"));
    }
}
