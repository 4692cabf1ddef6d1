//! Trials that were queued with values of their own: they go first, and keep them.
//!
//! There are two kinds of such values in Optuna: those that are still to be set (`study.enqueue_trial`), and parameters that the trial
//! has already, since it was added with them, repeats another one (`RetryFailedTrialCallback`) or was given back to the queue.

use crate::{
    pyjson::PyValue,
    space::{ParamValue, Space},
    storage::{Attributes, NewTrial, Past},
    study::{Param, State, Trial},
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
    values(&new.params, &new.system_attrs, space).map(|_| ())
}

/// The internal values that a queued trial was given, in the order of the space.
///
/// # Errors
/// A value that is not in the search space, with the reason.
pub(crate) fn fixed(trial: &Trial, space: &Space) -> Result<Vec<Option<f64>>, String> {
    values(&trial.params, &trial.system_attrs, space)
}

fn values(params: &[Param], system_attrs: &Attributes, space: &Space) -> Result<Vec<Option<f64>>, String> {
    let text = system_attrs.get(FIXED_PARAMS).map_or("{}", String::as_str);
    let fixed = match PyValue::parse(text) {
        Ok(PyValue::Object(fixed)) => fixed,
        Ok(_) => return Err(format!("{FIXED_PARAMS} is no object: {text}")),
        Err(error) => return Err(format!("{FIXED_PARAMS}: {error}")),
    };
    let mut values = vec![None; space.parameters().len()];
    for (name, value) in fixed {
        let index = place(&name, space)?;
        values[index] = Some(inside(index, &ParamValue::choice(&value), space)?);
    }
    // As in Optuna, what a trial has is not set again.
    for param in params {
        let index = place(&param.name, space)?;
        let distribution = &space.parameters()[index].distribution;
        if !param.distribution.compatible(distribution) {
            let [theirs, ours] = [&param.distribution, distribution].map(|one| one.to_json());
            return Err(format!("the queued parameter `{}` is of {theirs}, not of {ours}", param.name));
        }
        values[index] = Some(inside(index, &param.external(), space)?);
    }
    Ok(values)
}

/// Where a parameter stands in the space.
fn place(name: &str, space: &Space) -> Result<usize, String> {
    let place = space.parameters().iter().position(|parameter| parameter.name == name);
    place.ok_or_else(|| format!("the queued parameter `{name}` is not in the search space"))
}

/// The internal value of the parameter of that index.
fn inside(index: usize, external: &ParamValue, space: &Space) -> Result<f64, String> {
    let parameter = &space.parameters()[index];
    let distribution = &parameter.distribution;
    let inside = distribution.internal(external).filter(|internal| distribution.contains(*internal));
    inside.ok_or_else(|| {
        let (name, value) = (&parameter.name, external.to_py().dump());
        format!("the queued value {value} of `{name}` is outside of {}", distribution.to_json())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        space::{Distribution, Space},
        study::tests::trial,
    };

    fn float(low: f64, high: f64) -> Distribution {
        Distribution::float(low, high, false, None).unwrap()
    }

    fn space() -> Space {
        let choices = ["a", "b"].map(|text| ParamValue::Text(text.into()));
        Space::of(vec![
            ("x", float(0.0, 1.0)),
            ("y", float(0.0, 1.0)),
            ("z", Distribution::categorical(choices.to_vec()).unwrap()),
        ])
    }

    fn waiting(params: &[(&str, f64, Distribution)], fixed: &str) -> Trial {
        let mut waiting = trial(0, State::Waiting, None);
        let param = |(name, value, distribution): &(&str, f64, Distribution)| Param {
            name: (*name).into(),
            value: *value,
            distribution: distribution.clone(),
        };
        waiting.params = params.iter().map(param).collect();
        waiting.system_attrs.insert(FIXED_PARAMS.into(), fixed.into());
        waiting
    }

    #[test]
    fn what_a_queued_trial_has_stays_and_what_it_is_to_get_fills_the_rest() {
        let letters = space().parameters()[2].distribution.clone();
        let queued = waiting(&[("x", 0.25, float(0.0, 9.0)), ("z", 1.0, letters)], r#"{"x": 0.75, "y": 0.5}"#);
        assert_eq!(fixed(&queued, &space()), Ok(vec![Some(0.25), Some(0.5), Some(1.0)]));
        assert_eq!(fixed(&waiting(&[], r#"{"z": "a"}"#), &space()), Ok(vec![None, None, Some(0.0)]));
    }

    #[test]
    fn what_a_queued_trial_has_is_in_the_space_or_refused() {
        let refused = |name: &str, value, distribution| fixed(&waiting(&[(name, value, distribution)], "{}"), &space());
        assert!(
            refused("x", 2.0, float(0.0, 9.0)).unwrap_err().starts_with("the queued value 2.0 of `x` is outside of")
        );
        assert!(refused("w", 0.5, float(0.0, 1.0)).unwrap_err().contains("`w` is not in the search space"));
        let log = Distribution::float(0.1, 1.0, true, None).unwrap();
        assert!(refused("x", 0.5, log).unwrap_err().starts_with("the queued parameter `x` is of"));
    }
}
