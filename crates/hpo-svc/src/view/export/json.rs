//! A study with its trials as one document of strict JSON, and back.
//!
//! Parameters are the user's values beside their distributions; attributes are JSON values. JSON has no word for numbers that are not
//! finite: they are the strings `NaN`, `Infinity` and `-Infinity`. What no strict parser reads as it is, such as an integer beyond
//! 64 bits or a lone surrogate, is its JSON text after the word `\json:`; so is the whole of an attribute that would not come back
//! as the same text otherwise, but for its white space. Where any value may stand, in attributes and among choices, a text that
//! reads as one of these words has a backslash before it, and one more for each that it had. Of equal choices the first one is read
//! back.

use std::{borrow::Borrow, collections::BTreeMap};

use jiff::Timestamp;
use serde_json::{Map, Number, Value, json};

use crate::{
    pyjson::{PyValue, float_repr},
    space::{Distribution, ParamValue},
    study::{Direction, Param, State, Study, Trial},
};

/// Of the document; readers refuse others.
const FORMAT: u64 = 1;

/// A document that is no study.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ReadError {
    /// Where in the document, as `trials[3].params.lr`.
    pub place: String,
    /// What is wrong there.
    pub problem: String,
}

/// The study and its trials as a document.
pub fn to_json<T: Borrow<Trial>>(study: &Study, trials: &[T]) -> Value {
    let directions: Vec<&str> = study.directions.iter().map(|direction| direction.as_str()).collect();
    json!({
        "format": FORMAT,
        "id": study.id,
        "name": study.name,
        "directions": directions,
        "user_attrs": attributes(&study.user_attrs),
        "system_attrs": attributes(&study.system_attrs),
        "trials": trials.iter().map(|each| trial(each.borrow())).collect::<Vec<Value>>(),
    })
}

fn trial(trial: &Trial) -> Value {
    let params: Map<String, Value> = trial.params.iter().map(|p| (p.name.clone(), parameter(p))).collect();
    let distribution = |p: &Param| {
        let parsed = PyValue::parse(&p.distribution.to_json()).unwrap_or(PyValue::Null);
        (p.name.clone(), strict(&parsed))
    };
    let distributions: Map<String, Value> = trial.params.iter().map(distribution).collect();
    let reports: Map<String, Value> =
        trial.intermediate.iter().map(|(step, value)| (step.to_string(), number(*value))).collect();
    json!({
        "id": trial.id,
        "number": trial.number,
        "state": trial.state.as_str(),
        "values": trial.values.iter().map(|value| number(*value)).collect::<Vec<Value>>(),
        "params": params,
        "distributions": distributions,
        "intermediate_values": reports,
        "user_attrs": attributes(&trial.user_attrs),
        "system_attrs": attributes(&trial.system_attrs),
        "datetime_start": trial.start.map(|at| at.to_string()),
        "datetime_complete": trial.complete.map(|at| at.to_string()),
    })
}

fn parameter(param: &Param) -> Value {
    match (&param.distribution, param.external()) {
        (Distribution::Categorical { .. }, choice) => strict(&choice.to_py()),
        // What was stored beside the domain stays what it is.
        (Distribution::Int { .. }, ParamValue::Int(value)) if param.value.fract() == 0.0 => json!(value),
        _ => number(param.value),
    }
}

fn attributes(attributes: &BTreeMap<String, String>) -> Value {
    attributes.iter().map(|(key, text)| (key.clone(), attribute(text))).collect::<Map<_, _>>().into()
}

fn attribute(text: &str) -> Value {
    if let Ok(parsed) = PyValue::parse(text) {
        let value = strict(&parsed);
        // As Python writes it, and as we do.
        let compact = value.to_string();
        if plain(&value).dump() == text || compact == text {
            return value;
        }
    }
    raw(text)
}

/// Before a JSON text that is kept as it is.
const RAW: &str = "\\json:";

fn raw(text: &str) -> Value {
    Value::String(format!("{RAW}{text}"))
}

fn number(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| Value::String(float_repr(value)), Value::Number)
}

/// Whether a text, without backslashes before it, is the word for a number that is not finite, or begins as [`RAW`] does.
fn is_word(text: &str) -> bool {
    let bare = text.trim_start_matches('\\');
    matches!(bare, "NaN" | "Infinity" | "-Infinity") || (bare.starts_with("json:") && bare.len() < text.len())
}

fn strict(value: &PyValue) -> Value {
    match value {
        PyValue::Null => Value::Null,
        PyValue::Bool(value) => Value::Bool(*value),
        PyValue::Int(value) => json!(value),
        PyValue::Big(digits) => digits.parse::<u64>().map_or_else(|_| raw(digits), |value| json!(value)),
        PyValue::Float(value) => number(*value),
        PyValue::Units(_) => raw(&value.dump()),
        PyValue::Text(text) if is_word(text) => Value::String(format!("\\{text}")),
        PyValue::Text(text) => Value::String(text.clone()),
        PyValue::List(items) => items.iter().map(strict).collect(),
        PyValue::Object(entries) => {
            entries.iter().map(|(key, value)| (key.clone(), strict(value))).collect::<Map<_, _>>().into()
        }
    }
}

/// Reads what [`to_json`] writes.
///
/// # Errors
/// The first place at which the document is no study.
pub fn read_json(document: &Value) -> Result<(Study, Vec<Trial>), ReadError> {
    let root = At { place: String::new(), value: document };
    let format = root.field("format")?;
    if format.value.as_u64() != Some(FORMAT) {
        return Err(format.wrong(&format!("{} is not the known format {FORMAT}", format.value)));
    }
    let direction = |at: At<'_>| {
        let known = [Direction::Minimize, Direction::Maximize];
        let found = known.into_iter().find(|direction| Some(direction.as_str()) == at.value.as_str());
        found.ok_or_else(|| at.wrong("is neither MINIMIZE nor MAXIMIZE"))
    };
    let study = Study {
        id: root.field("id")?.integer()?,
        name: root.field("name")?.text()?.to_owned(),
        directions: root.field("directions")?.items()?.into_iter().map(direction).collect::<Result<_, _>>()?,
        user_attrs: root.field("user_attrs")?.attributes()?,
        system_attrs: root.field("system_attrs")?.attributes()?,
    };
    let trials = root.field("trials")?.items()?.iter().map(At::trial).collect::<Result<_, _>>()?;
    Ok((study, trials))
}

/// A value with its place.
struct At<'a> {
    place: String,
    value: &'a Value,
}

impl<'a> At<'a> {
    fn wrong(&self, problem: &str) -> ReadError {
        let place = if self.place.is_empty() { "the document" } else { &self.place };
        ReadError { place: place.to_owned(), problem: problem.to_owned() }
    }

    fn below(&self, key: &str, value: &'a Value) -> At<'a> {
        let dot = if self.place.is_empty() { "" } else { "." };
        At { place: format!("{}{dot}{key}", self.place), value }
    }

    fn field(&self, key: &str) -> Result<At<'a>, ReadError> {
        let value = self.value.get(key).ok_or_else(|| self.wrong(&format!("lacks `{key}`")))?;
        Ok(self.below(key, value))
    }

    fn integer(&self) -> Result<i64, ReadError> {
        self.value.as_i64().ok_or_else(|| self.wrong("is no integer of 64 bits"))
    }

    fn text(&self) -> Result<&'a str, ReadError> {
        self.value.as_str().ok_or_else(|| self.wrong("is no text"))
    }

    fn number(&self) -> Result<f64, ReadError> {
        let found = match self.value.as_str() {
            Some("NaN") => Some(f64::NAN),
            Some("Infinity") => Some(f64::INFINITY),
            Some("-Infinity") => Some(f64::NEG_INFINITY),
            _ => self.value.as_f64(),
        };
        found.ok_or_else(|| self.wrong("is no number"))
    }

    fn items(&self) -> Result<Vec<At<'a>>, ReadError> {
        let items = self.value.as_array().ok_or_else(|| self.wrong("is no list"))?;
        let item = |(index, value)| At { place: format!("{}[{index}]", self.place), value };
        Ok(items.iter().enumerate().map(item).collect())
    }

    fn entries(&self) -> Result<Vec<(&'a str, At<'a>)>, ReadError> {
        let entries = self.value.as_object().ok_or_else(|| self.wrong("is no object"))?;
        Ok(entries.iter().map(|(key, value)| (key.as_str(), self.below(key, value))).collect())
    }

    fn attributes(&self) -> Result<BTreeMap<String, String>, ReadError> {
        let entries = self.entries()?.into_iter();
        let text = |at: At<'a>| match at.value.as_str().and_then(|text| text.strip_prefix(RAW)) {
            Some(raw) => raw.to_owned(),
            None => plain(at.value).dump(),
        };
        Ok(entries.map(|(key, at)| (key.to_owned(), text(at))).collect())
    }

    fn moment(&self) -> Result<Option<Timestamp>, ReadError> {
        if self.value.is_null() {
            return Ok(None);
        }
        self.text()?.parse().map(Some).map_err(|_| self.wrong("is no time like 2026-01-31T12:00:00Z"))
    }

    fn trial(&self) -> Result<Trial, ReadError> {
        let state = self.field("state")?;
        let step =
            |(step, at): (&str, At<'a>)| Ok((step.parse().map_err(|_| at.wrong("is no integer step"))?, at.number()?));
        let distributions = self.field("distributions")?;
        let params = self.field("params")?.entries()?.into_iter();
        let param = |(name, at): (&str, At<'a>)| at.param(name, &distributions.field(name)?);
        Ok(Trial {
            id: self.field("id")?.integer()?,
            number: self.field("number")?.integer()?,
            state: State::parse(state.text()?).ok_or_else(|| state.wrong("is no state of a trial"))?,
            values: self.field("values")?.items()?.iter().map(At::number).collect::<Result<_, _>>()?,
            params: params.map(param).collect::<Result<_, _>>()?,
            intermediate: self
                .field("intermediate_values")?
                .entries()?
                .into_iter()
                .map(step)
                .collect::<Result<_, _>>()?,
            user_attrs: self.field("user_attrs")?.attributes()?,
            system_attrs: self.field("system_attrs")?.attributes()?,
            start: self.field("datetime_start")?.moment()?,
            complete: self.field("datetime_complete")?.moment()?,
        })
    }

    fn param(&self, name: &str, distribution: &At<'_>) -> Result<Param, ReadError> {
        let text = plain(distribution.value).dump();
        let read = Distribution::from_json(&text).map_err(|problem| distribution.wrong(&problem))?;
        let value = match &read {
            Distribution::Float { .. } | Distribution::Int { .. } => self.number()?,
            Distribution::Categorical { .. } => {
                let choice = read.internal(&ParamValue::choice(&plain(self.value)));
                choice.ok_or_else(|| self.wrong("is none of the choices"))?
            }
        };
        Ok(Param { name: name.to_owned(), value, distribution: read })
    }
}

/// The inverse of [`strict`].
fn plain(value: &Value) -> PyValue {
    match value {
        Value::Null => PyValue::Null,
        Value::Bool(value) => PyValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => PyValue::Int(integer),
            (None, Some(integer)) => PyValue::Big(integer.to_string()),
            (None, None) => PyValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => match text.as_str() {
            "NaN" => PyValue::Float(f64::NAN),
            "Infinity" => PyValue::Float(f64::INFINITY),
            "-Infinity" => PyValue::Float(f64::NEG_INFINITY),
            text => match text.strip_prefix(RAW).map(PyValue::parse) {
                Some(Ok(value)) => value,
                _ if is_word(text) => PyValue::Text(text[1..].to_owned()),
                _ => PyValue::Text(text.to_owned()),
            },
        },
        Value::Array(items) => PyValue::List(items.iter().map(plain).collect()),
        Value::Object(entries) => PyValue::Object(entries.iter().map(|(k, v)| (k.clone(), plain(v))).collect()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scalars() -> impl Strategy<Value = PyValue> {
        let words = [
            "NaN",
            "Infinity",
            "-Infinity",
            "\\NaN",
            "\\\\-Infinity",
            "",
            "\"\u{1}é",
            "json:1",
            "\\json:1",
            "\\\\json:",
        ];
        let units = [vec![0xd800], vec![u16::from(b'a'), 0xdc00, 0xd834, 0xdd1e]];
        let digits = ["18446744073709551615", "18446744073709551616", "-9223372036854775809"].map(String::from);
        prop_oneof![
            Just(PyValue::Null),
            any::<bool>().prop_map(PyValue::Bool),
            any::<i64>().prop_map(PyValue::Int),
            prop::num::f64::ANY.prop_map(PyValue::Float),
            prop::sample::select(words.to_vec()).prop_map(|word| PyValue::Text(word.into())),
            prop::sample::select(units.to_vec()).prop_map(PyValue::Units),
            prop::sample::select(digits.to_vec()).prop_map(PyValue::Big),
            ".{0,6}".prop_map(PyValue::Text),
        ]
    }

    fn values() -> impl Strategy<Value = PyValue> {
        scalars().prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(PyValue::List),
                prop::collection::btree_map(".{0,3}", inner, 0..4)
                    .prop_map(|entries| PyValue::Object(entries.into_iter().collect())),
            ]
        })
    }

    fn attrs() -> impl Strategy<Value = BTreeMap<String, String>> {
        let odd = [
            r#"{"a":[1, 2 ]}"#,
            r#"{"a": 1, "a": 2}"#,
            r#"{"\udc00": 1e5}"#,
            "1E400",
            "-0",
            "no json",
            r"\json:1",
            r#""\\json:1""#,
        ];
        let odd = prop::sample::select(odd.map(String::from).to_vec());
        prop::collection::btree_map(".{0,4}", prop_oneof![values().prop_map(|value| value.dump()), odd], 0..4)
    }

    fn params() -> impl Strategy<Value = Vec<Param>> {
        let small = -1_000_i64..1_000;
        let float = (-1e9..1e9_f64, 0.0..1e9_f64, prop::num::f64::ANY)
            .prop_map(|(low, width, value)| (Distribution::float(low, low + width, false, None).unwrap(), value));
        let int = (small.clone(), 0..500_i64, 1..9_i64, small).prop_map(|(low, width, step, value)| {
            (Distribution::int(low, low + width, false, step).unwrap(), value as f64 + 0.5 * (value % 2) as f64)
        });
        let choice = (prop::collection::vec(scalars(), 1..5), any::<prop::sample::Index>()).prop_map(|(values, at)| {
            let mut choices: Vec<ParamValue> = Vec::new();
            for value in values.iter().filter_map(ParamValue::from_py) {
                if !choices.contains(&value) {
                    choices.push(value);
                }
            }
            let value = at.index(choices.len()) as f64;
            (Distribution::categorical(choices).unwrap(), value)
        });
        prop::collection::btree_map(".{0,5}", prop_oneof![float, int, choice], 0..5).prop_map(|params| {
            let param = |(name, (distribution, value))| Param { name, value, distribution };
            params.into_iter().map(param).rev().collect()
        })
    }

    fn trials() -> impl Strategy<Value = Trial> {
        let states = [State::Waiting, State::Running, State::Complete, State::Pruned, State::Fail];
        let moment =
            || prop::option::of((0..2_000_000_000_000_000_i64).prop_map(|us| Timestamp::from_microsecond(us).unwrap()));
        (
            (any::<i64>(), any::<i64>(), prop::sample::select(states.to_vec())),
            prop::collection::vec(prop::num::f64::ANY, 0..3),
            params(),
            prop::collection::btree_map(any::<i64>(), prop::num::f64::ANY, 0..4),
            (attrs(), attrs(), moment(), moment()),
        )
            .prop_map(
                |((id, number, state), values, params, intermediate, (user_attrs, system_attrs, start, complete))| {
                    Trial { id, number, state, values, params, intermediate, user_attrs, system_attrs, start, complete }
                },
            )
    }

    /// Equality would not hold for NaN; bits and all else are compared through the debug text.
    fn text(study: &(Study, Vec<Trial>)) -> String {
        format!("{study:?}")
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            trials in prop::collection::vec(trials(), 0..4),
            user_attrs in attrs(),
            system_attrs in attrs(),
            name in ".{0,9}",
        ) {
            let directions = vec![Direction::Minimize, Direction::Maximize];
            let written = (Study { id: 7, name, directions, user_attrs, system_attrs }, trials);
            let document = serde_json::to_string(&to_json(&written.0, &written.1)).unwrap();
            let read = read_json(&serde_json::from_str(&document).unwrap()).unwrap();
            prop_assert_eq!(text(&read), text(&written));
        }

        #[test]
        fn broken_documents_are_refused_not_survived(path in 0..16_usize, junk in values()) {
            let fields = ["id", "number", "state", "values", "params", "distributions", "intermediate_values", "user_attrs"];
            let study = Study { id: 1, name: "s".into(), directions: vec![], user_attrs: BTreeMap::new(), system_attrs: BTreeMap::new() };
            let mut document = to_json(&study, &[crate::study::tests::trial(0, State::Complete, Some(1.0))]);
            let junk = strict(&junk);
            match fields.get(path) {
                Some(field) => document["trials"][0][*field] = junk,
                None => document[["format", "name", "directions", "trials"][path % 4]] = junk,
            }
            // Junk may happen to be right; it must not panic.
            let _ = read_json(&document);
        }
    }

    #[test]
    fn errors_name_the_place() {
        let study = Study {
            id: 1,
            name: "s".into(),
            directions: vec![Direction::Minimize],
            user_attrs: BTreeMap::new(),
            system_attrs: BTreeMap::new(),
        };
        let mut trial = crate::study::tests::trial(0, State::Complete, Some(f64::NEG_INFINITY));
        let choices = Distribution::categorical(vec![ParamValue::Text("NaN".into()), ParamValue::Float(f64::NAN)]);
        trial.params.push(Param { name: "act".into(), value: 0.0, distribution: choices.unwrap() });
        let document = to_json(&study, &[trial]);
        assert_eq!(document["trials"][0]["values"], json!(["-Infinity"]));
        assert_eq!(document["trials"][0]["params"]["act"], json!("\\NaN"));
        assert_eq!(document["trials"][0]["distributions"]["act"]["attributes"]["choices"], json!(["\\NaN", "NaN"]));
        let error = |pointer: &str, value: Value| {
            let mut document = document.clone();
            *document.pointer_mut(pointer).unwrap() = value;
            read_json(&document).unwrap_err().to_string()
        };
        assert_eq!(error("/trials/0/params/act", json!("relu")), "trials[0].params.act: is none of the choices");
        assert_eq!(error("/trials/0/values/0", json!("x")), "trials[0].values[0]: is no number");
        assert_eq!(
            error("/trials/0/datetime_start", json!("x")),
            "trials[0].datetime_start: is no time like 2026-01-31T12:00:00Z"
        );
        assert_eq!(error("/format", json!(2)), "format: 2 is not the known format 1");
        assert_eq!(error("/directions", json!(["UP"])), "directions[0]: is neither MINIMIZE nor MAXIMIZE");
        assert_eq!(error("/trials/0/distributions", json!({})), "trials[0].distributions: lacks `act`");
        assert_eq!(read_json(&json!([])).unwrap_err().to_string(), "the document: lacks `format`");
    }
}
