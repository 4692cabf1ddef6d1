//! A space in the words in which it travels and is kept: the messages of a specification, and the text in a study's attribute.

use quintet_proto::v1::{self, parameter::Domain};

use super::{Condition, Distribution, ParamValue, Parameter, Space};
use crate::pyjson::PyValue;

impl Space {
    /// The parameters of a specification, which [`Space::from_proto`] reads. A choice that is not a finite number becomes text.
    pub fn to_proto(&self) -> Vec<v1::Parameter> {
        let condition = |condition: &Condition| {
            let other = &self.parameters[condition.parameter];
            let values = condition.values.iter().map(|value| other.distribution.external(*value).to_proto());
            v1::Condition { parameter: other.name.clone(), values: values.collect() }
        };
        let parameter = |parameter: &Parameter| v1::Parameter {
            name: parameter.name.clone(),
            domain: Some(domain(&parameter.distribution)),
            condition: parameter.condition.as_ref().map(condition),
        };
        self.parameters.iter().map(parameter).collect()
    }

    /// Reads the text of [`Space::to_json`].
    ///
    /// # Errors
    /// What is no such text.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let PyValue::Object(entries) = PyValue::parse(text).map_err(|error| error.to_string())? else {
            return Err("a search space is an object of distributions by name".into());
        };
        let mut space = Self { parameters: Vec::with_capacity(entries.len()), notes: Vec::new() };
        for (key, value) in entries {
            let read = Distribution::from_json(&value.dump());
            let sampled = read.and_then(|distribution| distribution.sampled().map_err(|error| error.to_string()));
            let distribution = sampled.map_err(|error| format!("{key}: {error}"))?;
            let (name, condition) = space.split(&key);
            space.parameters.push(Parameter { name, distribution, condition });
        }
        Ok(space)
    }

    /// A key of the text in its parts. A name may itself hold what looks like a condition, but of no parameter before it.
    fn split(&self, key: &str) -> (String, Option<Condition>) {
        for (at, _) in key.match_indices(" if ") {
            let rest = &key[at + 4..];
            for (index, other) in self.parameters.iter().enumerate() {
                let values = rest.strip_prefix(other.name.as_str()).and_then(|rest| rest.strip_prefix(" is "));
                if let Some(values) = values.and_then(|values| values_of(&other.distribution, values)) {
                    return (key[..at].to_owned(), Some(Condition { parameter: index, values }));
                }
            }
        }
        (key.to_owned(), None)
    }
}

/// In what a search space differs from another one, both as [`Space::to_json`] has them, whatever the order of their parameters.
pub(crate) fn differences(theirs: &str, ours: &str) -> Vec<String> {
    let (Ok(PyValue::Object(theirs)), Ok(PyValue::Object(ours))) = (PyValue::parse(theirs), PyValue::parse(ours))
    else {
        return if theirs == ours { Vec::new() } else { vec![format!("{theirs}, not {ours}")] };
    };
    let of = |space: &[(String, PyValue)], name: &str| {
        space.iter().find(|(known, _)| known == name).map(|(_, distribution)| distribution.dump())
    };
    let mut found = Vec::new();
    for (name, distribution) in &theirs {
        match of(&ours, name) {
            Some(own) if own == distribution.dump() => {}
            Some(own) => found.push(format!("`{name}` is {}, not {own}", distribution.dump())),
            None => found.push(format!("it has `{name}` as well")),
        }
    }
    let missing = ours.iter().filter(|(name, _)| of(&theirs, name).is_none());
    found.extend(missing.map(|(name, _)| format!("it has no `{name}`")));
    found
}

/// The internal values that `a or b` names; a choice may itself hold the word.
fn values_of(distribution: &Distribution, text: &str) -> Option<Vec<f64>> {
    let one = |text: &str| {
        let internal = match distribution {
            Distribution::Categorical { choices } => {
                choices.iter().position(|choice| choice.to_string() == text).map(|index| index as f64)
            }
            Distribution::Int { .. } => text.parse().ok().and_then(|v| distribution.internal(&ParamValue::Int(v))),
            Distribution::Float { .. } => text.parse().ok().and_then(|v| distribution.internal(&ParamValue::Float(v))),
        };
        internal.filter(|internal| distribution.contains(*internal))
    };
    if let Some(value) = one(text) {
        return Some(vec![value]);
    }
    text.match_indices(" or ").find_map(|(at, word)| {
        let (first, mut rest) = (one(&text[..at])?, values_of(distribution, &text[at + word.len()..])?);
        rest.insert(0, first);
        Some(rest)
    })
}

fn domain(distribution: &Distribution) -> Domain {
    match distribution {
        Distribution::Float { low, high, log, step } => {
            Domain::Float(v1::FloatDomain { low: *low, high: *high, log: *log, step: *step })
        }
        Distribution::Int { low, high, log, step, .. } => {
            // The default is not written.
            let step = if *step == 1 { 0 } else { *step };
            Domain::Int(v1::IntDomain { low: *low, high: *high, log: *log, step })
        }
        Distribution::Categorical { choices } => {
            let choice = |choice: &ParamValue| match choice {
                ParamValue::Float(value) if !value.is_finite() => ParamValue::Text(choice.to_string()).to_proto(),
                choice => choice.to_proto(),
            };
            Domain::Categorical(v1::CategoricalDomain { choices: choices.iter().map(choice).collect() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        let texts = ["sgd", "a or b", "b", "x is y"].map(|text| ParamValue::Text(text.into()));
        let mut space = Space::of([
            (
                "opt",
                Distribution::categorical([&texts[..], &[ParamValue::Null, ParamValue::Bool(true)]].concat()).unwrap(),
            ),
            ("momentum", Distribution::float(0.0, 0.99, false, None).unwrap()),
            ("lr if opt is fast", Distribution::float(1e-5, 1e-1, true, None).unwrap()),
            ("layers", Distribution::int(2, 12, false, 2).unwrap()),
            ("width", Distribution::int(1, 64, true, 1).unwrap()),
            ("grid", Distribution::float(0.0, 0.9, false, Some(0.3)).unwrap()),
            ("deep", Distribution::float(0.0, 1.0, false, None).unwrap()),
        ]);
        space.set_condition(1, Condition { parameter: 0, values: vec![1.0, 2.0, 4.0] });
        space.set_condition(4, Condition { parameter: 3, values: vec![4.0, 10.0] });
        space.set_condition(6, Condition { parameter: 5, values: vec![0.3] });
        space
    }

    #[test]
    fn a_space_comes_back_from_its_messages() {
        assert_eq!(Space::from_proto(&space().to_proto()).unwrap(), space());
    }

    #[test]
    fn spaces_differ_by_their_parameters_and_not_by_the_order_of_them() {
        let float = |high| Distribution::float(0.0, high, false, None).unwrap();
        let of = |parameters: &[(&'static str, f64)]| {
            Space::of(parameters.iter().map(|(name, high)| (*name, float(*high))).collect::<Vec<_>>()).to_json()
        };
        assert_eq!(differences(&of(&[("a", 1.0), ("b", 2.0)]), &of(&[("b", 2.0), ("a", 1.0)])), [""; 0]);
        let found = differences(&of(&[("a", 1.0), ("b", 2.0)]), &of(&[("b", 3.0), ("c", 1.0)]));
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].as_str(), found[2].as_str()), ("it has `a` as well", "it has no `c`"));
        assert!(found[1].starts_with("`b` is {") && found[1].contains("\"high\": 2.0") && found[1].contains("3.0"));
        assert_eq!(differences("?", "{}"), ["?, not {}"]);
    }

    #[test]
    fn a_space_comes_back_from_its_text() {
        let text = space().to_json();
        assert_eq!(Space::from_json(&text).unwrap(), space());
        assert!(Space::from_json("[]").is_err());
        assert!(Space::from_json(r#"{"a": {"name": "Unknown"}}"#).unwrap_err().starts_with("a: "));
    }
}
