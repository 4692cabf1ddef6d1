//! Search spaces in the words of other systems, read into ours and written from it: AzureML's sweep jobs, Optuna's distributions,
//! and plain configuration files.
//!
//! All on JSON documents: an object of one expression a parameter, by name. What a form says and ours cannot hold, or the other way
//! around, is approximated where that keeps every value legal, and each time a note tells so: [`Space::notes`] after reading,
//! [`Form::notes`] after writing. What cannot be read is refused by its place, such as `search_space.lr.max_value`.

use runtime_core::status::{FieldViolation, violation};
use serde_json::{Map, Value};

use super::{Condition, Distribution, DomainError, ParamValue, Parameter, Space, name_problem};

mod azureml;
mod azureml_write;
mod detect;
mod optuna;
mod plain;
mod scale;
#[cfg(test)]
mod tests;

pub use azureml::from_azureml;
pub use azureml_write::{Style, to_azureml};
pub use detect::{Language, read_any};
pub use optuna::{from_optuna, to_optuna};
pub use plain::{from_plain, to_plain};

/// A space that was read, or what is wrong with every part of its document.
pub type Read = Result<Space, Vec<FieldViolation>>;

/// A search space in the words of another system.
#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    /// An object of one expression a parameter, by name.
    pub document: Value,
    /// What the other system understands otherwise than ours, one sentence each, which begins with the parameter.
    pub notes: Vec<String>,
}

/// What a document is called in the places of its faults.
const ROOT: &str = "search_space";

/// A space on its way out of a document.
struct Draft {
    space: Space,
    wrong: Vec<FieldViolation>,
}

impl Draft {
    /// An empty draft and the entries of the document, unless that is no object.
    fn of(document: &Value) -> (Self, Option<&Map<String, Value>>) {
        let mut draft = Self { space: Space { parameters: Vec::new(), notes: Vec::new() }, wrong: Vec::new() };
        let entries = document.as_object();
        match entries {
            None => draft.say(ROOT, format!("{} is no object of parameters by name", brief(document))),
            Some(entries) if entries.is_empty() => draft.say(ROOT, "is empty; at least one parameter is needed"),
            Some(_) => {}
        }
        (draft, entries)
    }

    fn say(&mut self, path: impl Into<String>, problem: impl Into<String>) {
        self.wrong.push(violation(path.into(), problem.into()));
    }

    fn note(&mut self, name: &str, note: impl std::fmt::Display) {
        self.space.notes.push(format!("`{name}`: {note}"));
    }

    /// Adds a parameter; returns its index.
    fn push(&mut self, name: &str, distribution: Distribution, condition: Option<Condition>, path: &str) -> usize {
        if let Some(problem) = name_problem(name) {
            self.say(path, problem);
        }
        self.space.parameters.push(Parameter { name: name.to_owned(), distribution, condition });
        self.space.parameters.len() - 1
    }

    /// The distribution, or its fault at the field that `fields` has for the domain's.
    fn built(
        &mut self,
        path: &str,
        result: Result<Distribution, DomainError>,
        fields: &[(&str, &str)],
    ) -> Option<Distribution> {
        result
            .map_err(|DomainError { field, problem }| {
                let field = fields.iter().find(|(domain, _)| *domain == field).map_or(field, |(_, field)| field);
                self.say(format!("{path}.{field}"), problem);
            })
            .ok()
    }

    /// A choice among scalars, told as `PATH.FIELD`.
    fn scalars(&mut self, path: &str, field: &str, values: &[Value]) -> Option<Distribution> {
        let mut choices = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            match scalar(value) {
                Some(choice) => choices.push(choice),
                None => self.say(format!("{path}.{field}[{index}]"), no_scalar(value)),
            }
        }
        if choices.len() < values.len() {
            return None;
        }
        self.built(path, Distribution::categorical(choices), &[("choices", field)])
    }

    fn finish(self) -> Read {
        if self.wrong.is_empty() { Ok(self.space) } else { Err(self.wrong) }
    }
}

/// A value that a parameter can have.
fn scalar(value: &Value) -> Option<ParamValue> {
    Some(match value {
        Value::Null => ParamValue::Null,
        Value::Bool(value) => ParamValue::Bool(*value),
        Value::Number(value) => {
            value.as_i64().map(ParamValue::Int).or_else(|| value.as_f64().map(ParamValue::Float))?
        }
        Value::String(value) => ParamValue::Text(value.clone()),
        Value::Array(_) | Value::Object(_) => return None,
    })
}

fn no_scalar(value: &Value) -> String {
    format!("{} is no value; text, a number, a boolean or null is allowed", brief(value))
}

/// A value as a message shows it.
fn brief(value: &Value) -> String {
    const MOST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
