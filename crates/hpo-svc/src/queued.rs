//! Trials that were queued with values of their own (`study.enqueue_trial`): they go first.

use crate::{
    pyjson::PyValue,
    space::{ParamValue, Space},
    storage::{Attributes, NewTrial, Past},
    study::{State, Trial},
};

/// Where Optuna keeps the values of a queued trial: JSON, name to value.
pub(crate) const FIXED_PARAMS: &str = "fixed_params";

/// A trial to queue with values of its own, external ones by name.
pub(crate) fn new_trial(values: Vec<(String, PyValue)>) -> NewTrial {
    let system_attrs = Attributes::from([(FIXED_PARAMS.to_owned(), PyValue::Object(values).dump())]);
    NewTrial { system_attrs, past: Some(Past::of(State::Waiting)), ..NewTrial::default() }
}

/// The queued trial that comes first.
pub(crate) fn next(trials: &[Trial]) -> Option<&Trial> {
    trials.iter().find(|trial| trial.state == State::Waiting)
}

/// Whether the values of a trial to queue are in the search space.
///
/// # Errors
/// As [`fixed`].
pub(crate) fn check(new: &NewTrial, space: &Space) -> Result<(), String> {
    values(&new.system_attrs, space).map(|_| ())
}

/// The internal values that a queued trial was given, in the order of the space.
///
/// # Errors
/// A value that is not in the search space, with the reason.
pub(crate) fn fixed(trial: &Trial, space: &Space) -> Result<Vec<Option<f64>>, String> {
    values(&trial.system_attrs, space)
}

fn values(system_attrs: &Attributes, space: &Space) -> Result<Vec<Option<f64>>, String> {
    let text = system_attrs.get(FIXED_PARAMS).map_or("{}", String::as_str);
    let fixed = match PyValue::parse(text) {
        Ok(PyValue::Object(fixed)) => fixed,
        Ok(_) => return Err(format!("{FIXED_PARAMS} is no object: {text}")),
        Err(error) => return Err(format!("{FIXED_PARAMS}: {error}")),
    };
    let mut values = vec![None; space.parameters().len()];
    for (name, value) in fixed {
        let Some(index) = space.parameters().iter().position(|parameter| parameter.name == name) else {
            return Err(format!("the queued parameter `{name}` is not in the search space"));
        };
        let distribution = &space.parameters()[index].distribution;
        let internal = distribution.internal(&ParamValue::choice(&value));
        let inside = internal.filter(|internal| distribution.contains(*internal));
        values[index] = Some(inside.ok_or_else(|| {
            format!("the queued value {} of `{name}` is outside of {}", value.dump(), distribution.to_json())
        })?);
    }
    Ok(values)
}
