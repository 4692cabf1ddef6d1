//! The search space of a study: named, validated distributions in the order of their definition.

use quintet_proto::{types, v1};
use runtime_core::status::{FieldViolation, violation};

mod decimal;
mod distribution;
pub mod forms;
mod value;
mod written;

pub(crate) use distribution::grid_point;
pub use distribution::{Distribution, DomainError};
pub use value::ParamValue;
pub(crate) use written::differences;

/// A validated search space: at least one parameter, names unique.
#[derive(Debug, Clone, PartialEq)]
pub struct Space {
    parameters: Vec<Parameter>,
    notes: Vec<String>,
}

/// A parameter and where its values come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Unique in the space.
    pub name: String,
    /// Its domain.
    pub distribution: Distribution,
    /// When the parameter exists; `None`: always.
    pub condition: Option<Condition>,
}

/// A parameter exists only when another one, which is defined before it, exists and has one of some values.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Index of the other parameter in the space.
    pub parameter: usize,
    /// Its internal values; at least one.
    pub values: Vec<f64>,
}

/// The longest name that Optuna's tables hold.
const MAX_NAME: usize = 512;

impl Space {
    /// Checks the parameters of a sweep.
    ///
    /// # Errors
    /// Every rule that is broken, by `search_space[i].field`.
    pub fn from_proto(parameters: &[v1::Parameter]) -> Result<Self, Vec<FieldViolation>> {
        let mut violations = Vec::new();
        let mut space = Self { parameters: Vec::new(), notes: Vec::new() };
        if parameters.is_empty() {
            violations.push(violation("search_space", "is empty; a sweep needs at least one parameter"));
        }
        for (index, parameter) in parameters.iter().enumerate() {
            let path = format!("search_space[{index}]");
            let name = parameter.name.as_str();
            violations.extend(name_problem(name).map(|problem| violation(format!("{path}.name"), problem)));
            if parameters[..index].iter().any(|other| other.name == parameter.name) {
                violations.push(violation(format!("{path}.name"), format!("`{}` is there twice", parameter.name)));
            }
            match distribution(parameter) {
                Ok((distribution, note)) => {
                    space.notes.extend(note.map(|note| format!("{path} `{name}`: {note}")));
                    let condition = parameter.condition.as_ref().and_then(|condition| {
                        let checked = space.condition(condition).map_err(|(field, problem)| {
                            violations.push(violation(format!("{path}.condition{field}"), problem));
                        });
                        checked.ok()
                    });
                    space.parameters.push(Parameter { name: name.to_owned(), distribution, condition });
                }
                Err((field, problem)) => violations.push(violation(format!("{path}.{field}"), problem)),
            }
        }
        if violations.is_empty() { Ok(space) } else { Err(violations) }
    }

    /// A space of distributions that exist already; the names have to be different.
    pub fn of<N: Into<String>>(parameters: impl IntoIterator<Item = (N, Distribution)>) -> Self {
        let parameter = |(name, distribution): (N, _)| Parameter { name: name.into(), distribution, condition: None };
        Self { parameters: parameters.into_iter().map(parameter).collect(), notes: Vec::new() }
    }

    /// Gives a parameter a condition on one that is defined before it.
    pub fn set_condition(&mut self, index: usize, condition: Condition) {
        self.parameters[index].condition = Some(condition);
    }

    /// The condition on parameters that are defined already, or the broken field with the problem.
    fn condition(&self, condition: &v1::Condition) -> Result<Condition, (String, String)> {
        let name = &condition.parameter;
        let index = self.parameters.iter().position(|parameter| parameter.name == *name);
        let Some(index) = index else {
            return Err((".parameter".into(), format!("`{name}` is not defined before this parameter")));
        };
        if condition.values.is_empty() {
            return Err((".values".into(), format!("is empty; name the values of `{name}` that the condition is for")));
        }
        let domain = &self.parameters[index].distribution;
        let value = |(at, value): (usize, &types::Value)| {
            let external = ParamValue::from_proto(value);
            let internal = external.as_ref().and_then(|value| domain.internal(value));
            internal.filter(|internal| domain.contains(*internal)).ok_or_else(|| {
                let shown = external.map_or_else(|| "a list or an object".into(), |value| value.to_string());
                (format!(".values[{at}]"), format!("{shown} is no value of `{name}`: {}", domain.to_json()))
            })
        };
        let values = condition.values.iter().enumerate().map(value).collect::<Result<_, _>>()?;
        Ok(Condition { parameter: index, values })
    }

    /// Whether a parameter exists, given the values of those before it; `None` is one that does not exist.
    pub fn active(&self, index: usize, before: &[Option<f64>]) -> bool {
        self.parameters[index].condition.as_ref().is_none_or(|condition| {
            let parent = self.parameters.get(condition.parameter).map(|parent| &parent.distribution);
            let value = before.get(condition.parameter).copied().flatten();
            parent.zip(value).is_some_and(|(parent, value)| {
                condition.values.iter().any(|allowed| parent.same_value(*allowed, value))
            })
        })
    }

    /// The parameters in the order of their definition.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The distribution of that name.
    pub fn get(&self, name: &str) -> Option<&Distribution> {
        self.parameters.iter().find(|parameter| parameter.name == name).map(|parameter| &parameter.distribution)
    }

    /// What was adjusted and the user should know: a `high` that is not on the grid of its step.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The name of the parameter that this one depends on, and the values that it exists for.
    fn condition_text(&self, parameter: &Parameter) -> Option<(&str, String)> {
        let condition = parameter.condition.as_ref()?;
        let other = self.parameters.get(condition.parameter)?;
        let values = condition.values.iter().map(|value| other.distribution.external(*value).to_string());
        Some((&other.name, values.collect::<Vec<_>>().join(" or ")))
    }

    /// The space as text, to compare it with that of an existing study: an object of Optuna's distributions by name; after the
    /// name of a parameter with a condition stands what it is.
    pub fn to_json(&self) -> String {
        let entry = |parameter: &Parameter| {
            let condition = self.condition_text(parameter).map(|(other, values)| format!(" if {other} is {values}"));
            let name = parameter.name.clone() + condition.as_deref().unwrap_or_default();
            format!("{}: {}", crate::pyjson::dump_text(&name), parameter.distribution.to_json())
        };
        format!("{{{}}}", self.parameters.iter().map(entry).collect::<Vec<_>>().join(", "))
    }
}

/// What is wrong with the name of a parameter.
fn name_problem(name: &str) -> Option<String> {
    if name.is_empty() || name.trim() != name {
        return Some(format!("`{name}` must be a name without spaces around it"));
    }
    if name.contains('\0') {
        return Some(format!("{name:?} holds a NUL character"));
    }
    (name.len() > MAX_NAME).then(|| format!("is longer than {MAX_NAME} bytes"))
}

type Checked = Result<(Distribution, Option<String>), (String, String)>;

/// The distribution of one parameter and what was adjusted, or the broken field with the problem.
fn distribution(parameter: &v1::Parameter) -> Checked {
    use v1::parameter::Domain;
    let of = |kind: &str, result: Result<Distribution, DomainError>| {
        result.map_err(|error| (format!("{kind}.{}", error.field), error.problem))
    };
    match &parameter.domain {
        None => Err(("domain".into(), "is missing; one of float, int and categorical is needed".into())),
        Some(Domain::Float(domain)) => {
            let built = of("float", Distribution::float(domain.low, domain.high, domain.log, domain.step))?;
            let Distribution::Float { high, .. } = built else { return Ok((built, None)) };
            let note = (high != domain.high).then(|| off_grid(domain.high, domain.step.unwrap_or_default(), high));
            Ok((built, note))
        }
        Some(Domain::Int(domain)) => {
            let step = if domain.step == 0 { 1 } else { domain.step };
            let built = of("int", Distribution::int(domain.low, domain.high, domain.log, step))?;
            let Distribution::Int { high, .. } = built else { return Ok((built, None)) };
            Ok((built, (high != domain.high).then(|| off_grid(domain.high, step, high))))
        }
        Some(Domain::Categorical(domain)) => {
            let mut choices = Vec::with_capacity(domain.choices.len());
            for (index, choice) in domain.choices.iter().enumerate() {
                let field = || format!("categorical.choices[{index}]");
                let value = ParamValue::from_proto(choice).ok_or_else(|| {
                    (field(), "is a list or an object; a string, number, boolean or null is allowed".to_owned())
                })?;
                if matches!(value, ParamValue::Float(number) if !number.is_finite()) {
                    return Err((field(), format!("{value} is not a finite number")));
                }
                choices.push(value);
            }
            Ok((of("categorical", Distribution::categorical(choices))?, None))
        }
    }
}

fn off_grid(high: impl std::fmt::Display, step: impl std::fmt::Display, last: impl std::fmt::Display) -> String {
    format!("high {high} is not on the grid of step {step}; the largest value is {last}")
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::parameter::Domain;

    use super::*;

    fn parameter(name: &str, domain: Domain) -> v1::Parameter {
        v1::Parameter { name: name.into(), domain: Some(domain), condition: None }
    }

    fn float(low: f64, high: f64, log: bool, step: Option<f64>) -> Domain {
        Domain::Float(v1::FloatDomain { low, high, log, step })
    }

    fn int(low: i64, high: i64, step: i64) -> Domain {
        Domain::Int(v1::IntDomain { low, high, log: false, step })
    }

    fn choices(values: Vec<types::Value>) -> Domain {
        Domain::Categorical(v1::CategoricalDomain { choices: values })
    }

    #[test]
    fn a_good_space_keeps_order_and_says_what_it_adjusted() {
        let space = Space::from_proto(&[
            parameter("lr", float(1e-5, 1e-3, true, None)),
            parameter("batch", int(8, 65, 8)),
            parameter("epochs", int(1, 3, 0)),
            parameter("act", choices(vec!["gelu".into(), 16.0.into(), 0.5.into(), true.into()])),
        ])
        .unwrap();
        let names: Vec<_> = space.parameters().iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["lr", "batch", "epochs", "act"]);
        assert_eq!(space.get("epochs"), Some(&Distribution::int(1, 3, false, 1).unwrap()));
        assert_eq!(
            space.notes(),
            ["search_space[1] `batch`: high 65 is not on the grid of step 8; the largest value is 64"]
        );
        let Some(Distribution::Categorical { choices }) = space.get("act") else { panic!("not categorical") };
        assert!(matches!(choices[1], ParamValue::Int(16)));
    }

    #[test]
    fn conditions_name_a_parameter_before_and_its_values() {
        let on = |name: &str, values: Vec<types::Value>| v1::Condition { parameter: name.into(), values };
        let when = |name: &str, condition: v1::Condition| v1::Parameter {
            condition: Some(condition),
            ..parameter(name, float(0.0, 1.0, false, None))
        };
        let first = parameter("optimizer", choices(vec!["sgd".into(), "adam".into()]));
        let space = Space::from_proto(&[first.clone(), when("momentum", on("optimizer", vec!["sgd".into()]))]).unwrap();
        assert_eq!(space.parameters()[1].condition, Some(Condition { parameter: 0, values: vec![0.0] }));
        assert!(space.to_json().contains("\"momentum if optimizer is sgd\": "), "{}", space.to_json());
        let violations = Space::from_proto(&[
            when("early", on("optimizer", vec!["sgd".into()])),
            first,
            when("none", on("optimizer", vec![])),
            when("other", on("optimizer", vec!["sgd".into(), "rms".into()])),
        ])
        .unwrap_err();
        let fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "search_space[0].condition.parameter",
                "search_space[2].condition.values",
                "search_space[3].condition.values[1]"
            ]
        );
        assert!(violations[2].description.starts_with("rms is no value of `optimizer`"), "{violations:?}");
    }

    #[test]
    fn every_broken_rule_is_named_with_its_place() {
        let list = types::Value { kind: Some(types::value::Kind::ListValue(types::ListValue::default())) };
        let violations = Space::from_proto(&[
            parameter("a", float(1.0, 0.0, false, None)),
            parameter("b", float(0.0, 1.0, true, None)),
            parameter("b", int(1, 2, -1)),
            parameter("", choices(vec![])),
            v1::Parameter { name: "c".into(), ..Default::default() },
            parameter("d", choices(vec!["x".into(), list])),
        ])
        .unwrap_err();
        let fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "search_space[0].float.low",
                "search_space[1].float.low",
                "search_space[2].name",
                "search_space[2].int.step",
                "search_space[3].name",
                "search_space[3].categorical.choices",
                "search_space[4].domain",
                "search_space[5].categorical.choices[1]",
            ]
        );
        assert_eq!(violations[0].description, "1 is above high (0); low <= high must hold");
        assert_eq!(Space::from_proto(&[]).unwrap_err()[0].field, "search_space");
    }
}
