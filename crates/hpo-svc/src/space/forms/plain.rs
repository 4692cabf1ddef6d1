//! The plain form of configuration files: `{type: choice, values: [...]}`, `{type: uniform, min, max}` and
//! `{type: loguniform, min, max}`, whose bounds are values, also of a `loguniform`: it looks like AzureML's, but means another thing.

use serde_json::{Map, Value, json};

use super::{Draft, Form, ROOT, Read, azureml_write::points, brief};
use crate::space::{Distribution, Space};

/// Reads the plain form. Numbers may be text, as `1e-5` is to readers of YAML 1.1.
///
/// # Errors
/// Every fault by its place.
pub fn from_plain(document: &Value) -> Read {
    let (mut draft, entries) = Draft::of(document);
    for (name, expression) in entries.into_iter().flatten() {
        let path = format!("{ROOT}.{name}");
        let Some(fields) = expression.as_object() else {
            draft.say(path, format!("{} is no object with a `type`", brief(expression)));
            continue;
        };
        if let Some(distribution) = distribution(&mut draft, &path, fields) {
            draft.push(name, distribution, None, &path);
        }
    }
    draft.finish()
}

fn distribution(draft: &mut Draft, path: &str, fields: &Map<String, Value>) -> Option<Distribution> {
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
    let allowed: &[&str] = match kind {
        "choice" => &["values"],
        "uniform" | "loguniform" => &["min", "max"],
        _ => {
            let given =
                fields.get("type").map_or_else(|| "is missing".into(), |given| format!("{} is unknown", brief(given)));
            draft.say(format!("{path}.type"), format!("{given}; choice, uniform or loguniform is allowed"));
            return None;
        }
    };
    for field in fields.keys().filter(|field| *field != "type" && !allowed.contains(&field.as_str())) {
        draft.say(format!("{path}.{field}"), format!("is no field of {kind}; it has {}", allowed.join(" and ")));
    }
    if kind == "choice" {
        let values = fields.get("values").and_then(Value::as_array);
        if values.is_none() {
            draft.say(format!("{path}.values"), "is missing; a list of values is expected");
        }
        return draft.scalars(path, "values", values?);
    }
    let [low, high] = ["min", "max"].map(|field| {
        let given = fields.get(field);
        let number = given.and_then(|given| given.as_f64().or_else(|| given.as_str()?.trim().parse().ok()));
        if number.is_none() {
            let given = given.map_or_else(|| "is missing".into(), |given| format!("{} is no number", brief(given)));
            draft.say(format!("{path}.{field}"), format!("{given}; a number is expected"));
        }
        number
    });
    draft.built(path, Distribution::float(low?, high?, kind == "loguniform", None), &[("low", "min"), ("high", "max")])
}

/// Writes the plain form. What it cannot say is approximated, by more values rather than by less, and noted.
pub fn to_plain(space: &Space) -> Form {
    let mut document = Map::new();
    let mut notes = Vec::new();
    for parameter in space.parameters() {
        let name = &parameter.name;
        let distribution = &parameter.distribution;
        let values = points(distribution);
        let interval = |low: f64, high: f64, log: bool| json!({"type": if log { "loguniform" } else { "uniform" }, "min": low, "max": high});
        let expression = match (distribution, values) {
            (_, Some(points)) => {
                if matches!(distribution, Distribution::Int { log: true, .. }) {
                    notes.push(format!(
                        "`{name}`: its values are taken as equally likely, for a choice has no logarithm"
                    ));
                }
                let choice = |point: f64| distribution.external(point).to_json();
                json!({"type": "choice", "values": points.into_iter().map(choice).collect::<Vec<_>>()})
            }
            (Distribution::Float { low, high, log, step }, None) => {
                if step.is_some() {
                    notes.push(format!("`{name}`: also gets values beside its grid, which is too long for a choice"));
                }
                interval(*low, *high, *log)
            }
            (Distribution::Int { low, high, log, .. }, None) => {
                notes.push(format!("`{name}`: also gets fractions, for its integers are too many for a choice"));
                interval(*low as f64, *high as f64, *log)
            }
            (Distribution::Categorical { .. }, None) => continue,
        };
        document.insert(name.clone(), expression);
        if let Some((other, values)) = space.condition_text(parameter) {
            notes.push(format!("`{name}`: exists whatever `{other}` is, not only when it is {values}"));
        }
    }
    Form { document: Value::Object(document), notes }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::space::{Condition, ParamValue};

    #[test]
    fn bounds_are_values() {
        let space = from_plain(&json!({
            "backbone": {"type": "choice", "values": ["distilbert", "distilroberta"]},
            "learning_rate": {"type": "loguniform", "min": "1e-5", "max": 5e-5},
            "dropout": {"type": "uniform", "min": 0.1, "max": 0.3},
        }))
        .unwrap();
        assert_eq!(space.get("learning_rate"), Some(&Distribution::float(1e-5, 5e-5, true, None).unwrap()));
        assert_eq!(space.get("dropout"), Some(&Distribution::float(0.1, 0.3, false, None).unwrap()));
        let backbones = ["distilbert", "distilroberta"].map(|name| ParamValue::Text(name.into())).to_vec();
        assert_eq!(space.get("backbone"), Some(&Distribution::categorical(backbones).unwrap()));
    }

    #[test]
    fn a_space_is_written_and_read_again() {
        let document = json!({
            "backbone": {"type": "choice", "values": ["distilbert", null, 2, 0.5]},
            "learning_rate": {"type": "loguniform", "min": 1e-5, "max": 5e-5},
            "dropout": {"type": "uniform", "min": 0.1, "max": 0.3},
        });
        let form = to_plain(&from_plain(&document).unwrap());
        assert_eq!((form.document, form.notes.len()), (document, 0));
        let mut space = Space::of([
            ("layers", Distribution::int(2, 6, false, 2).unwrap()),
            ("width", Distribution::int(1, 1 << 40, true, 1).unwrap()),
            ("x", Distribution::float(0.0, 0.9, false, Some(0.3)).unwrap()),
        ]);
        space.set_condition(2, Condition { parameter: 0, values: vec![2.0, 4.0] });
        let form = to_plain(&space);
        assert_eq!(form.document["layers"], json!({"type": "choice", "values": [2, 4, 6]}));
        assert_eq!(form.document["x"], json!({"type": "choice", "values": [0.0, 0.3, 0.6, 0.9]}));
        assert_eq!(form.document["width"]["type"], "loguniform");
        assert_eq!(form.notes.len(), 2, "{:?}", form.notes);
        assert!(form.notes[1].ends_with("whatever `layers` is, not only when it is 2 or 4"), "{:?}", form.notes);
    }

    #[test]
    fn faults_have_a_place_a_value_and_what_is_allowed() {
        let wrong = from_plain(&json!({
            "a": {"type": "normal", "mu": 0},
            "b": {"type": "loguniform", "min": 0, "max": 1},
            "c": {"type": "uniform", "min_value": 0, "max": "high"},
            "d": {"type": "choice", "values": [1, [2]]},
            "e": 3,
            "f": {"type": "choice", "values": []},
        }))
        .unwrap_err();
        let told: Vec<String> = wrong.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
        assert_eq!(
            told,
            [
                "search_space.a.type: \"normal\" is unknown; choice, uniform or loguniform is allowed",
                "search_space.b.min: 0 has no logarithm; with log, low must be above 0",
                "search_space.c.min_value: is no field of uniform; it has min and max",
                "search_space.c.min: is missing; a number is expected",
                "search_space.c.max: \"high\" is no number; a number is expected",
                "search_space.d.values[1]: [2] is no value; text, a number, a boolean or null is allowed",
                "search_space.e: 3 is no object with a `type`",
                "search_space.f.values: there is none; at least one is needed",
            ]
        );
        assert_eq!(from_plain(&json!([])).unwrap_err()[0].field, "search_space");
        assert_eq!(from_plain(&json!({})).unwrap_err().len(), 1);
    }
}
