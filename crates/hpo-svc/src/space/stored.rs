//! Reads a search space from the text that a study keeps of it.

use super::{Condition, Distribution, Parameter, Space};
use crate::pyjson::PyValue;

impl Space {
    /// The space of a text that [`Space::to_json`] has written.
    ///
    /// # Errors
    /// Says what is no distribution.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let PyValue::Object(entries) = PyValue::parse(text).map_err(|error| error.to_string())? else {
            return Err("a search space is an object of distributions by name".into());
        };
        let mut space = Self { parameters: Vec::new(), notes: Vec::new() };
        for (key, value) in entries {
            let distribution =
                Distribution::from_json(&value.dump()).map_err(|problem| format!("`{key}`: {problem}"))?;
            let (name, condition) = space.named(&key);
            space.parameters.push(Parameter { name, distribution, condition });
        }
        Ok(space)
    }

    /// Takes `NAME if OTHER is VALUE or VALUE` apart. A key of which that makes no sense is a name as it is.
    fn named(&self, key: &str) -> (String, Option<Condition>) {
        let splits = key.match_indices(" if ").filter_map(|(at, word)| {
            let (name, rest) = (&key[..at], &key[at + word.len()..]);
            Some((name.to_owned(), Some(self.condition_of(rest)?)))
        });
        splits.last().unwrap_or_else(|| (key.to_owned(), None))
    }

    /// The condition `OTHER is VALUE or VALUE` on a parameter that is defined already.
    fn condition_of(&self, text: &str) -> Option<Condition> {
        let fits = |(index, other): (usize, &Parameter)| {
            let values = text.strip_prefix(other.name.as_str())?.strip_prefix(" is ")?;
            Some(Condition { parameter: index, values: values_of(&other.distribution, values)? })
        };
        self.parameters.iter().enumerate().find_map(fits)
    }
}

/// The internal values of a list such as `sgd or adam`.
fn values_of(distribution: &Distribution, text: &str) -> Option<Vec<f64>> {
    let one = |text: &str| match distribution {
        Distribution::Categorical { choices } => {
            choices.iter().position(|choice| choice.to_string() == text).map(|index| index as f64)
        }
        _ => text.parse().ok().filter(|value| distribution.contains(*value)),
    };
    // A choice may hold the word itself.
    one(text).map(|value| vec![value]).or_else(|| text.split(" or ").map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::ParamValue;

    #[test]
    fn a_written_space_reads_back() {
        let text = |name: &str| ParamValue::Text(name.into());
        let choices = vec![text("sgd"), text("adam or not"), text("1"), ParamValue::Bool(true), ParamValue::Float(0.5)];
        let mut space = Space::of([
            ("optimizer", Distribution::categorical(choices).unwrap()),
            ("momentum", Distribution::float(0.0, 1.0, false, None).unwrap()),
            ("layers", Distribution::int(1, 9, false, 2).unwrap()),
            ("width if any", Distribution::float(1e-5, 1.0, true, None).unwrap()),
            ("depth", Distribution::float(0.0, 1.0, false, Some(0.25)).unwrap()),
            ("x", Distribution::int(0, 1, false, 1).unwrap()),
        ]);
        for (index, parameter, values) in
            [(1, 0, vec![0.0, 3.0, 4.0]), (3, 2, vec![3.0]), (4, 0, vec![1.0]), (5, 4, vec![0.25, 1.0])]
        {
            space.set_condition(index, Condition { parameter, values });
        }
        assert_eq!(Space::from_json(&space.to_json()), Ok(space));
    }

    #[test]
    fn what_is_no_space_is_refused() {
        for (text, problem) in [
            ("[]", "a search space is an object"),
            ("{", "invalid JSON"),
            (r#"{"x": {"name": "NoDistribution", "attributes": {}}}"#, "`x`: unknown distribution"),
        ] {
            let found = Space::from_json(text).unwrap_err();
            assert!(found.contains(problem), "{found}");
        }
    }
}
