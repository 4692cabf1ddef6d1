//! Trials that were queued with values of their own (`study.enqueue_trial`): they go first.

use crate::{
    pyjson::PyValue,
    space::{ParamValue, Space},
    study::{Param, State, Trial},
};

/// Where Optuna keeps the values of a queued trial: JSON, name to value.
pub(super) const FIXED_PARAMS: &str = "fixed_params";

/// The queued trial that comes first.
pub(super) fn next(trials: &[Trial]) -> Option<&Trial> {
    trials.iter().find(|trial| trial.state == State::Waiting)
}

/// The parameters of a queued trial: its own values, and sampled ones (in the order of the space) for what it leaves open.
///
/// # Errors
/// A value that is not in the search space, with the reason.
pub(super) fn parameters(trial: &Trial, space: &Space, sampled: Vec<f64>) -> Result<Vec<Param>, String> {
    let text = trial.system_attrs.get(FIXED_PARAMS).map_or("{}", String::as_str);
    let fixed = match PyValue::parse(text) {
        Ok(PyValue::Object(fixed)) => fixed,
        Ok(_) => return Err(format!("{FIXED_PARAMS} is no object: {text}")),
        Err(error) => return Err(format!("{FIXED_PARAMS}: {error}")),
    };
    let known = |name: &String| space.parameters().iter().any(|parameter| parameter.name == *name);
    if let Some((name, _)) = fixed.iter().find(|(name, _)| !known(name)) {
        return Err(format!("the queued parameter `{name}` is not in the search space"));
    }
    let value = |name: &str| fixed.iter().find(|(fixed, _)| fixed == name).map(|(_, value)| value);
    let parameters = space.parameters().iter().zip(sampled);
    let parameters = parameters.map(|(parameter, sampled)| {
        let distribution = &parameter.distribution;
        let internal = match value(&parameter.name) {
            None => sampled,
            Some(value) => {
                let internal = ParamValue::from_py(value).and_then(|value| distribution.internal(&value));
                internal.filter(|internal| distribution.contains(*internal)).ok_or_else(|| {
                    let (name, value) = (&parameter.name, value.dump());
                    format!("the queued value {value} of `{name}` is outside of {}", distribution.to_json())
                })?
            }
        };
        Ok(Param { name: parameter.name.clone(), value: internal, distribution: distribution.clone() })
    });
    parameters.collect()
}
