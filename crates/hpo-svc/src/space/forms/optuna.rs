//! Optuna's distributions as its storages keep them: `{"name": "FloatDistribution", "attributes": {...}}` each.

use serde_json::{Map, Value, json};

use super::{Draft, Form, ROOT, Read, brief};
use crate::space::{Distribution, ParamValue, Space};

/// Reads an object of Optuna's distributions by name. Each is an object or, as in Optuna's tables, its text; deprecated names and
/// the abbreviated form with `type` are read too.
///
/// # Errors
/// Every fault by its place.
pub fn from_optuna(document: &Value) -> Read {
    let (mut draft, entries) = Draft::of(document);
    for (name, given) in entries.into_iter().flatten() {
        let path = format!("{ROOT}.{name}");
        let text = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
        let read = Distribution::from_json(&text);
        match read.and_then(|distribution| distribution.sampled().map_err(|error| error.to_string())) {
            Ok(distribution) => {
                if let Some((field, value)) = fraction(given, &distribution) {
                    draft.say(format!("{path}.{field}"), format!("{value} is no integer, of which {name} is made"));
                }
                draft.push(name, distribution, None, &path);
            }
            Err(problem) => draft.say(path, format!("{} is no distribution of Optuna: {problem}", brief(given))),
        }
    }
    draft.finish()
}

/// A bound or step of an integer distribution that is none.
fn fraction<'a>(given: &'a Value, distribution: &Distribution) -> Option<(&'static str, &'a Value)> {
    let Distribution::Int { .. } = distribution else { return None };
    let attributes = given.get("attributes").unwrap_or(given);
    let fields = ["low", "high", "step"].into_iter();
    let mut numbers = fields.filter_map(|field| Some((field, attributes.get(field)?)));
    numbers.find(|(_, value)| value.as_f64().is_some_and(|number| number.fract() != 0.0))
}

/// Writes an object of Optuna's distributions by name. Optuna has conditions in the code of an objective only: notes say which.
pub fn to_optuna(space: &Space) -> Form {
    let mut document = Map::new();
    let mut notes = Vec::new();
    for parameter in space.parameters() {
        let name = &parameter.name;
        let distribution = serde_json::from_str(&parameter.distribution.to_json()).unwrap_or_else(|_| {
            notes.push(format!("`{name}`: a choice that is not a finite number becomes text"));
            worded(&parameter.distribution)
        });
        document.insert(name.clone(), distribution);
        if let Some((other, values)) = space.condition_text(parameter) {
            let note = "distributions of Optuna have no conditions; let the objective suggest it only when";
            notes.push(format!("`{name}`: {note} `{other}` is {values}"));
        }
    }
    Form { document: Value::Object(document), notes }
}

/// A categorical distribution with choices that JSON has no number for.
fn worded(distribution: &Distribution) -> Value {
    let choices: Vec<Value> = match distribution {
        Distribution::Categorical { choices } => choices.iter().map(ParamValue::to_json).collect(),
        Distribution::Float { .. } | Distribution::Int { .. } => Vec::new(),
    };
    json!({"name": "CategoricalDistribution", "attributes": {"choices": choices}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::Condition;

    #[test]
    fn distributions_come_and_go() {
        let mut space = Space::of([
            ("opt", Distribution::categorical(vec![ParamValue::Text("sgd".into()), ParamValue::Null]).unwrap()),
            ("lr", Distribution::float(1e-5, 1e-1, true, None).unwrap()),
            ("odd", Distribution::categorical(vec![ParamValue::Float(f64::NAN)]).unwrap()),
        ]);
        space.set_condition(1, Condition { parameter: 0, values: vec![0.0, 1.0] });
        let form = to_optuna(&space);
        assert_eq!(form.document["lr"]["attributes"], json!({"step": null, "low": 1e-5, "high": 0.1, "log": true}));
        assert_eq!(
            form.notes,
            [
                "`lr`: distributions of Optuna have no conditions; let the objective suggest it only when `opt` is sgd or null",
                "`odd`: a choice that is not a finite number becomes text",
            ]
        );
        let read = from_optuna(&form.document).unwrap();
        assert_eq!((read.get("opt"), read.get("lr")), (space.get("opt"), space.get("lr")));
        let text = json!({"lr": form.document["lr"].to_string(), "n": {"type": "int", "low": 1, "high": 3}});
        assert_eq!(from_optuna(&text).unwrap().get("lr"), space.get("lr"));
    }

    #[test]
    fn faults_have_a_place() {
        let wrong = from_optuna(&json!({
            "a": {"name": "NormalDistribution", "attributes": {}},
            "b": {"name": "IntDistribution", "attributes": {"low": 0.5, "high": 3, "log": false, "step": 1}},
            "c": {"name": "FloatDistribution", "attributes": {"low": 2, "high": 1}},
            "d": 7,
        }))
        .unwrap_err();
        let told: Vec<String> = wrong.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
        assert!(
            told[0].starts_with("search_space.a: {") && told[0].ends_with("unknown distribution `NormalDistribution`")
        );
        assert_eq!(told[1], "search_space.b.low: 0.5 is no integer, of which b is made");
        assert!(told[2].starts_with("search_space.c: ") && told[2].contains("2 is above high (1)"));
        assert!(told[3].starts_with("search_space.d: 7 is no distribution"), "{told:?}");
    }
}
