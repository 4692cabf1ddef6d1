//! Trials that were queued with values of their own (`study.enqueue_trial`): they go first.

use crate::{
    pyjson::PyValue,
    space::{ParamValue, Space},
    study::{State, Trial},
};

/// Where Optuna keeps the values of a queued trial: JSON, name to value.
pub(super) const FIXED_PARAMS: &str = "fixed_params";

/// The queued trial that comes first.
pub(super) fn next(trials: &[Trial]) -> Option<&Trial> {
    trials.iter().find(|trial| trial.state == State::Waiting)
}

/// The internal values that a queued trial was given, in the order of the space.
///
/// # Errors
/// A value that is not in the search space, with the reason.
pub(super) fn fixed(trial: &Trial, space: &Space) -> Result<Vec<Option<f64>>, String> {
    let text = trial.system_attrs.get(FIXED_PARAMS).map_or("{}", String::as_str);
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
        let internal = ParamValue::from_py(&value).and_then(|value| distribution.internal(&value));
        let inside = internal.filter(|internal| distribution.contains(*internal));
        values[index] = Some(inside.ok_or_else(|| {
            format!("the queued value {} of `{name}` is outside of {}", value.dump(), distribution.to_json())
        })?);
    }
    Ok(values)
}
