//! Reading the search space of an AzureML sweep job, in both of its forms: `{type: uniform, min_value: 0, max_value: 1}` as in the
//! YAML of a job, and `["uniform", [0, 1]]` as in the body of a request.
//!
//! The ten distributions are those of the job's schema (<https://learn.microsoft.com/azure/machine-learning/reference-yaml-job-sweep>).
//! Bounds, mean and deviation of those with `log` are natural logarithms. Those with `q` round: `round(x / q) * q`. Normal
//! distributions have no bounds, which our domains need: they become the interval that holds 99.7 % of them, uniform.
//! A `choice` may have objects among its values, whose members exist only when that object is chosen: they become parameters with a
//! condition, see [`from_azureml`].

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{
    Draft, ROOT, Read, brief, no_scalar, scalar,
    scale::{multiples, tidy, value_of_log},
};
use crate::space::{Condition, Distribution, ParamValue};

/// What a distribution draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Choice,
    Randint,
    Uniform,
    Normal,
}

/// A distribution of AzureML.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) family: Family,
    /// Its numbers are logarithms of the values.
    pub(super) log: bool,
    /// In the order of the list form; a third one is the rounding.
    pub(super) fields: &'static [&'static str],
}

const BOUNDS: &[&str] = &["min_value", "max_value"];
const ROUNDED_BOUNDS: &[&str] = &["min_value", "max_value", "q"];
const MOMENTS: &[&str] = &["mu", "sigma"];
const ROUNDED_MOMENTS: &[&str] = &["mu", "sigma", "q"];

#[rustfmt::skip]
pub(super) const KINDS: [Kind; 10] = [
    Kind { name: "choice", family: Family::Choice, log: false, fields: &["values"] },
    Kind { name: "randint", family: Family::Randint, log: false, fields: &["upper"] },
    Kind { name: "uniform", family: Family::Uniform, log: false, fields: BOUNDS },
    Kind { name: "quniform", family: Family::Uniform, log: false, fields: ROUNDED_BOUNDS },
    Kind { name: "loguniform", family: Family::Uniform, log: true, fields: BOUNDS },
    Kind { name: "qloguniform", family: Family::Uniform, log: true, fields: ROUNDED_BOUNDS },
    Kind { name: "normal", family: Family::Normal, log: false, fields: MOMENTS },
    Kind { name: "qnormal", family: Family::Normal, log: false, fields: ROUNDED_MOMENTS },
    Kind { name: "lognormal", family: Family::Normal, log: true, fields: MOMENTS },
    Kind { name: "qlognormal", family: Family::Normal, log: true, fields: ROUNDED_MOMENTS },
];

/// Reads the `search_space` of a sweep job's YAML, or the `searchSpace` of its request.
///
/// Of a `choice` with objects among its values, the parameter itself says which value is chosen: an object by that member which
/// all of them have, with another constant each, or else by its position. The other members become parameters of their own names
/// under a condition, constants too; one that several objects have is one parameter when it says the same in all. A name that is
/// taken, or that means another thing in each object, is put behind that of the choice: `model_depth`, `model_yolo_depth`.
///
/// # Errors
/// Every fault by its place.
pub fn from_azureml(document: &Value) -> Read {
    let (draft, entries) = Draft::of(document);
    let taken = entries.into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let mut reader = Reader { draft, taken };
    for (name, expression) in entries.into_iter().flatten() {
        reader.expression(&Place { path: format!("{ROOT}.{name}"), name: name.clone(), condition: None }, expression);
    }
    reader.draft.finish()
}

/// Where a parameter is defined, and when it exists.
struct Place {
    path: String,
    name: String,
    condition: Option<Condition>,
}

/// A member of the objects of a choice.
struct Member<'v> {
    key: &'v str,
    /// What the objects say it is, where it is first said, and the internal values of the choice for which they do.
    said: Vec<(&'v Value, String, Vec<f64>)>,
}

struct Reader {
    draft: Draft,
    taken: BTreeSet<String>,
}

impl Reader {
    /// Adds the parameter of an expression, and those that depend on it.
    fn expression(&mut self, place: &Place, expression: &Value) {
        let Some((kind, arguments)) = self.arguments(&place.path, expression) else { return };
        if kind.family == Family::Choice {
            return self.choice(place, arguments.first().and_then(|values| values.as_array()));
        }
        let field = |index: usize| format!("{}.{}", place.path, kind.fields[index]);
        let mut numbers = Vec::with_capacity(arguments.len());
        for (index, argument) in arguments.iter().enumerate() {
            match argument.as_f64() {
                Some(number) => numbers.push(number),
                None => self.draft.say(field(index), format!("{} is no number; a number is expected", brief(argument))),
            }
        }
        let distribution = match (kind.family, numbers.as_slice()) {
            (Family::Randint, [_]) => self.randint(&place.path, arguments[0]),
            (Family::Uniform, [low, high, ..]) => {
                if low > high {
                    let problem = format!("{low} is above max_value ({high}); min_value <= max_value must hold");
                    return self.draft.say(field(0), problem);
                }
                if kind.log && *low > 0.0 && *high <= 1.0 {
                    let (low, high) = (low.exp(), high.exp());
                    let note =
                        "the bounds are logarithms: should they have been values, write their logarithms instead";
                    self.draft.note(&place.name, format!("lies between {low:.6} and {high:.6}; {note}"));
                }
                self.interval(place, kind, [*low, *high], arguments.get(2).copied())
            }
            (Family::Normal, [mu, sigma, ..]) => {
                if *sigma <= 0.0 {
                    return self.draft.say(field(1), format!("{sigma} is not above 0"));
                }
                let interval =
                    self.interval(place, kind, [mu - 3.0 * sigma, mu + 3.0 * sigma], arguments.get(2).copied());
                let scale = if kind.log { " in its logarithm" } else { "" };
                let note = format!("{} has no bounds; taken as uniform{scale} where 99.7 % of it lie", kind.name);
                self.draft.note(&place.name, note);
                interval
            }
            _ => None,
        };
        if let Some(distribution) = distribution {
            self.draft.push(&place.name, distribution, place.condition.clone(), &place.path);
        }
    }

    /// The distribution that an expression names, and its arguments in order; all are there.
    fn arguments<'v>(&mut self, path: &str, expression: &'v Value) -> Option<(&'static Kind, Vec<&'v Value>)> {
        let (name, given): (&str, &Value) = match expression {
            Value::Object(fields) => (fields.get("type").and_then(Value::as_str).unwrap_or_default(), expression),
            Value::Array(list) => match list.as_slice() {
                [Value::String(name), given @ Value::Array(_)] => (name, given),
                _ => ("", expression),
            },
            _ => ("", expression),
        };
        let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else {
            let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            let problem =
                format!("{} is no distribution; its type has to be one of {}", brief(expression), names.join(", "));
            self.draft.say(path, problem);
            return None;
        };
        let arguments: Vec<&Value> = match given {
            Value::Object(fields) => {
                for field in fields.keys().filter(|field| *field != "type" && !kind.fields.contains(&field.as_str())) {
                    let allowed = kind.fields.join(", ");
                    self.draft.say(format!("{path}.{field}"), format!("is no field of {name}; it has {allowed}"));
                }
                kind.fields.iter().filter_map(|field| fields.get(*field)).collect()
            }
            given => given.as_array().into_iter().flatten().collect(),
        };
        if arguments.len() == kind.fields.len() {
            return Some((kind, arguments));
        }
        match given {
            Value::Object(fields) => {
                for field in kind.fields.iter().filter(|field| !fields.contains_key(**field)) {
                    self.draft.say(format!("{path}.{field}"), format!("is missing; {name} needs it"));
                }
            }
            _ => {
                let problem = format!(
                    "{} has not the {} arguments of {name}: {}",
                    brief(given),
                    kind.fields.len(),
                    kind.fields.join(", ")
                );
                self.draft.say(path, problem);
            }
        }
        None
    }

    fn randint(&mut self, path: &str, upper: &Value) -> Option<Distribution> {
        let Some(upper) = upper.as_i64().filter(|upper| *upper >= 1) else {
            let problem = format!("{} is no integer above 0; values are below upper", brief(upper));
            self.draft.say(format!("{path}.upper"), problem);
            return None;
        };
        self.draft.built(path, Distribution::int(0, upper - 1, false, 1), &[("high", "upper")])
    }

    /// The values between two bounds, which are logarithms if the distribution's are, on the grid of `q`.
    fn interval(&mut self, place: &Place, kind: &Kind, bounds: [f64; 2], q: Option<&Value>) -> Option<Distribution> {
        let path = &place.path;
        let mut ends = bounds;
        if kind.log {
            for (index, end) in ends.iter_mut().enumerate() {
                let Some(value) = value_of_log(*end) else {
                    let problem = format!("{end} is the logarithm of no double; -708 to 709 is allowed");
                    self.draft.say(format!("{path}.{}", kind.fields[index]), problem);
                    return None;
                };
                *end = value;
            }
        }
        let [low, high] = ends;
        let fields = [("low", kind.fields[0]), ("high", kind.fields[1]), ("step", "q")];
        let Some(q) = q else {
            return self.draft.built(path, Distribution::float(low, high, kind.log, None), &fields);
        };
        let step = q.as_f64().unwrap_or_default();
        if step <= 0.0 {
            self.draft.say(format!("{path}.q"), format!("{step} is not above 0"));
            return None;
        }
        let Some((first, last)) = multiples(low, high, step) else {
            self.draft.say(format!("{path}.q"), format!("{step} is too fine for the range from {low} to {high}"));
            return None;
        };
        if kind.log && q.as_i64() == Some(1) && last >= 1 {
            if first < 1 {
                self.draft.note(&place.name, "0 is left out, which has no logarithm");
            }
            return self.draft.built(path, Distribution::int(first.max(1), last, true, 1), &fields);
        }
        if kind.log {
            let note =
                "the multiples of q are taken as equally likely; a logarithm goes together with no grid but that of 1";
            self.draft.note(&place.name, note);
        }
        let grid = match q.as_i64() {
            Some(q) => Distribution::int(first.saturating_mul(q), last.saturating_mul(q), false, q),
            // Half a step more, lest rounding loses the last one.
            None => {
                let [low, high] = [first as f64 * step, (last as f64 + 0.5) * step].map(tidy);
                Distribution::float(low, high, false, Some(step))
            }
        };
        self.draft.built(path, grid, &fields)
    }

    /// Adds the parameter of a choice, then those of the members of its objects.
    fn choice(&mut self, place: &Place, values: Option<&Vec<Value>>) {
        let Some(values) = values else {
            return self.draft.say(format!("{}.values", place.path), "is no list; a list of values is expected");
        };
        let faults = self.draft.wrong.len();
        for (index, value) in values.iter().enumerate().filter(|(_, value)| value.is_array()) {
            let problem = no_scalar(value).replace("null is", "null, or an object of such and of distributions is");
            self.draft.say(format!("{}.values[{index}]", place.path), problem);
        }
        let key = discriminator(&place.name, values);
        let label = |(index, value): (usize, &Value)| {
            let constant = key.and_then(|key| scalar(value.get(key)?));
            scalar(value).or(constant).unwrap_or_else(|| ParamValue::Text(index.to_string()))
        };
        let labels: Vec<ParamValue> = values.iter().enumerate().map(label).collect();
        let choices = Distribution::categorical(labels.clone());
        let Some(distribution) = self.draft.built(&place.path, choices, &[("choices", "values")]) else { return };
        if self.draft.wrong.len() > faults {
            return;
        }
        let index = self.draft.push(&place.name, distribution, place.condition.clone(), &place.path);
        match key {
            Some(key) if key != place.name => {
                self.draft.note(&place.name, format!("says by their `{key}` which object is chosen"))
            }
            None if values.iter().any(Value::is_object) => {
                self.draft.note(&place.name, "says by its position, from 0, which object is chosen")
            }
            _ => {}
        }
        for Member { key, said } in members(&place.path, values, key) {
            let different = said.len() > 1;
            for (value, path, of) in said {
                let condition = Some(Condition { parameter: index, values: of.clone() });
                let first = of.first().map_or(0, |first| *first as usize);
                let names = match labels.get(first).filter(|_| different) {
                    Some(label) => {
                        [word(&label.to_string()), first.to_string()].map(|of| format!("{}_{of}_{key}", place.name))
                    }
                    None => [key.to_owned(), format!("{}_{key}", place.name)],
                };
                let Some(name) = names.iter().find(|name| !self.taken.contains(*name)) else {
                    self.draft.say(path, format!("both `{}` and `{}` are taken", names[0], names[1]));
                    continue;
                };
                let name = name.clone();
                if name != key {
                    self.draft.note(&name, format!("is the `{key}` of `{}`", place.name));
                }
                self.taken.insert(name.clone());
                self.member(&Place { path, name, condition }, value);
            }
        }
    }

    /// Adds a member of an object: an expression, or a constant.
    fn member(&mut self, place: &Place, value: &Value) {
        match scalar(value) {
            Some(constant) => {
                if let Ok(distribution) = Distribution::categorical(vec![constant]) {
                    self.draft.push(&place.name, distribution, place.condition.clone(), &place.path);
                }
            }
            None if value.is_object() && value.get("type").is_none() => {
                let problem = format!("{} is no distribution, for it has no type, and no value", brief(value));
                self.draft.say(&place.path, problem);
            }
            None => self.expression(place, value),
        }
    }
}

/// A text as a part of a name that stands in a command.
fn word(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

/// The member by whose constants the objects of a choice can be told apart, from each other and from its other values: the one with
/// the choice's own name, or else the first.
fn discriminator<'v>(name: &str, values: &'v [Value]) -> Option<&'v str> {
    let first = values.iter().find_map(Value::as_object)?;
    let keys = first.keys().map(String::as_str);
    let named = keys.clone().filter(|key| *key == name);
    named.chain(keys).find(|key| {
        let labels: Option<Vec<ParamValue>> = values
            .iter()
            .map(|value| if value.is_object() { scalar(value.get(*key)?) } else { scalar(value) })
            .collect();
        labels.is_some_and(|labels| Distribution::categorical(labels).is_ok())
    })
}

/// The members of the objects of a choice, but for the one that tells the objects apart, in the order in which they appear.
fn members<'v>(path: &str, values: &'v [Value], discriminator: Option<&str>) -> Vec<Member<'v>> {
    let mut members: Vec<Member<'v>> = Vec::new();
    for (index, object) in values.iter().enumerate() {
        let entries = object.as_object().into_iter().flat_map(Map::iter);
        for (key, value) in entries.filter(|(key, _)| Some(key.as_str()) != discriminator) {
            let at = members.iter().position(|member| member.key == key).unwrap_or_else(|| {
                members.push(Member { key, said: Vec::new() });
                members.len() - 1
            });
            let said = &mut members[at].said;
            match said.iter_mut().find(|(other, ..)| *other == value) {
                Some((_, _, of)) => of.push(index as f64),
                None => said.push((value, format!("{path}.values[{index}].{key}"), vec![index as f64])),
            }
        }
    }
    members
}
