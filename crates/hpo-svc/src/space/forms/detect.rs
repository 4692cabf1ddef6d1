//! Telling which system's words a search space is written in, so that a file need not say it.
//!
//! The forms differ by their fields: AzureML's bounds are `min_value` and `max_value`, those of the plain form `min` and `max`, and
//! Optuna's distributions have `attributes`. That matters for a `loguniform`, whose bounds are logarithms in AzureML's form alone. A
//! `choice` is the same in both. A document that mixes forms is refused rather than understood half.

use std::fmt;

use runtime_core::status::{FieldViolation, violation};
use serde_json::Value;

use super::{ROOT, azureml::KINDS, from_azureml, from_optuna, from_plain};
use crate::{
    pyjson::float_repr,
    space::{Distribution, Space},
};

/// A system whose words a search space can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Sweep jobs of AzureML.
    AzureMl,
    /// Optuna's distributions.
    Optuna,
    /// Configuration files, bounds of a `loguniform` being values.
    Plain,
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AzureMl => "AzureML's form",
            Self::Optuna => "Optuna's form",
            Self::Plain => "the plain form",
        })
    }
}

/// Reads a document in any of the forms. The notes of the space say first what was understood where the forms could be confused.
///
/// # Errors
/// Every fault by its place, each with the form that the document was taken for; a mixture of forms.
pub fn read_any(document: &Value) -> Result<(Language, Space), Vec<FieldViolation>> {
    let language = language(document)?;
    let read = match language {
        Language::AzureMl => from_azureml(document),
        Language::Optuna => from_optuna(document),
        Language::Plain => from_plain(document),
    };
    match read {
        Ok(mut space) => {
            space.notes.splice(0..0, understood(language, document, &space));
            Ok((language, space))
        }
        Err(mut wrong) => {
            if document.as_object().is_some_and(|entries| !entries.is_empty()) {
                wrong.iter_mut().for_each(|fault| fault.description += &format!(" (read as {language})"));
            }
            Err(wrong)
        }
    }
}

/// What only one form has, and why it is that one.
fn mark(expression: &Value) -> Option<(Language, String)> {
    let fields = match expression {
        Value::Object(fields) => fields,
        Value::Array(_) => return Some((Language::AzureMl, "a list".into())),
        Value::String(_) => return Some((Language::Optuna, "text".into())),
        _ => return None,
    };
    let has = |field: &&&str| fields.contains_key(**field);
    if let Some(field) = ["attributes", "name"].iter().find(has) {
        return Some((Language::Optuna, format!("`{field}`")));
    }
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
    match kind {
        "float" | "int" | "categorical" => Some((Language::Optuna, format!("the type `{kind}`"))),
        "uniform" | "loguniform" => {
            let azureml = ["min_value", "max_value"].iter().find(has).map(|field| (Language::AzureMl, field));
            let found = azureml.or_else(|| ["min", "max"].iter().find(has).map(|field| (Language::Plain, field)));
            found.map(|(language, field)| (language, format!("`{field}`")))
        }
        "choice" => {
            let values = fields.get("values").and_then(Value::as_array);
            let nested = values.is_some_and(|values| values.iter().any(Value::is_object));
            nested.then(|| (Language::AzureMl, "objects among its values".into()))
        }
        _ => KINDS.iter().any(|other| other.name == kind).then(|| (Language::AzureMl, format!("the type `{kind}`"))),
    }
}

/// The one form of all parameters; AzureML's when nothing tells, for it has the most types.
fn language(document: &Value) -> Result<Language, Vec<FieldViolation>> {
    let entries = document.as_object().into_iter().flatten();
    let mut marks = entries.filter_map(|(name, expression)| mark(expression).map(|found| (name, found)));
    let Some((first, (language, why))) = marks.next() else { return Ok(Language::AzureMl) };
    match marks.find(|(_, (other, _))| *other != language) {
        None => Ok(language),
        Some((name, (other, because))) => Err(vec![violation(
            format!("{ROOT}.{name}"),
            format!(
                "has {because} and so is in {other}, while `{first}` has {why} and is in {language}; write all in one form, since \
                 the bounds of a loguniform are logarithms in AzureML's and values in the plain form"
            ),
        )]),
    }
}

/// How the bounds of those distributions were taken that the forms write alike.
fn understood(language: Language, document: &Value, space: &Space) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, expression) in document.as_object().into_iter().flatten() {
        let kind = expression.get("type").or_else(|| expression.get(0)).and_then(Value::as_str).unwrap_or_default();
        let told = space.notes.iter().any(|note| note.starts_with(&format!("`{name}`: lies between")));
        let (low, high) = match space.get(name) {
            Some(Distribution::Float { low, high, .. }) => (float_repr(*low), float_repr(*high)),
            Some(Distribution::Int { low, high, .. }) => (low.to_string(), high.to_string()),
            _ => continue,
        };
        match language {
            Language::AzureMl if kind.ends_with("loguniform") && !told => notes.push(format!(
                "`{name}`: lies between {low} and {high}; read as {language}, where the bounds are natural logarithms"
            )),
            Language::Plain if kind == "loguniform" => notes.push(format!(
                "`{name}`: lies between {low} and {high}; read as {language}, where the bounds are values and no logarithms"
            )),
            _ => {}
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_two_loguniforms_are_told_apart_and_said() {
        let choice = json!({"type": "choice", "values": [8, 16]});
        let (language, space) =
            read_any(&json!({"b": choice, "lr": {"type": "loguniform", "min": 1e-5, "max": 5e-5}})).unwrap();
        let values = Distribution::float(1e-5, 5e-5, true, None).unwrap();
        assert_eq!((language, space.get("lr")), (Language::Plain, Some(&values)));
        assert_eq!(
            space.notes(),
            [
                "`lr`: lies between 1e-05 and 5e-05; read as the plain form, where the bounds are values and no logarithms"
            ]
        );
        let logs = [1e-5_f64.ln(), 5e-5_f64.ln()];
        let (language, space) =
            read_any(&json!({"b": choice, "lr": {"type": "loguniform", "min_value": logs[0], "max_value": logs[1]}}))
                .unwrap();
        assert_eq!((language, space.get("lr")), (Language::AzureMl, Some(&values)));
        assert!(space.notes()[0].ends_with("where the bounds are natural logarithms"), "{:?}", space.notes());
        // Values in AzureML's fields are taken by AzureML's word, and doubted.
        let (_, space) =
            read_any(&json!({"lr": {"type": "loguniform", "min_value": 1e-5, "max_value": 5e-5}})).unwrap();
        assert_eq!(space.notes().len(), 1);
        assert!(space.notes()[0].contains("should they have been values"), "{:?}", space.notes());
    }

    #[test]
    fn each_form_is_known_by_what_only_it_has() {
        for (expression, expected) in [
            (json!({"type": "choice", "values": [1]}), Language::AzureMl),
            (json!({"type": "normal", "mu": 0, "sigma": 1}), Language::AzureMl),
            (json!(["uniform", [0, 1]]), Language::AzureMl),
            (json!({"type": "uniform", "min": 0, "max": 1}), Language::Plain),
            (json!({"type": "float", "low": 0, "high": 1}), Language::Optuna),
            (json!({"name": "IntDistribution", "attributes": {"low": 0, "high": 1}}), Language::Optuna),
            (json!(r#"{"name": "IntDistribution", "attributes": {"low": 0, "high": 1}}"#), Language::Optuna),
        ] {
            let read = read_any(&json!({"x": expression}));
            assert_eq!(read.as_ref().ok().map(|(language, _)| *language), Some(expected), "{expression}: {read:?}");
        }
    }

    #[test]
    fn a_mixture_and_faults_say_what_was_understood() {
        let wrong = read_any(&json!({
            "a": {"type": "choice", "values": [1]},
            "b": {"type": "uniform", "min": 0, "max": 1},
            "c": {"type": "loguniform", "min_value": -3, "max_value": 0},
        }))
        .unwrap_err();
        assert_eq!(wrong.len(), 1);
        assert_eq!(wrong[0].field, "search_space.c");
        assert!(
            wrong[0].description.starts_with("has `min_value` and so is in AzureML's form, while `b` has `min`"),
            "{wrong:?}"
        );
        let wrong = read_any(&json!({"b": {"type": "loguniform", "min": 0, "max": 1}})).unwrap_err();
        assert!(wrong[0].description.ends_with("(read as the plain form)"), "{wrong:?}");
        assert_eq!(read_any(&json!({})).unwrap_err()[0].description, "is empty; at least one parameter is needed");
    }
}
