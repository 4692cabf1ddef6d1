//! The documents that a sweep leaves: the report with every trial, and the best configuration.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{ATTR_ERROR, ATTR_JOB, BACKBONE};
use crate::{
    pyjson::float_repr,
    study::{Direction, State, Trial, best},
};

/// A number, or its word when it is not finite: JSON has none for it.
fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!(float_repr(value)) }
}

/// The parameters by name, as the user sees them.
pub(crate) fn parameters(trial: &Trial) -> Map<String, Value> {
    trial.params.iter().map(|param| (param.name.clone(), param.external().to_json())).collect()
}

fn trial_row(trial: &Trial) -> Value {
    let steps: Map<String, Value> =
        trial.intermediate.iter().map(|(step, value)| (step.to_string(), number(*value))).collect();
    json!({
        "number": trial.number,
        "state": trial.state.as_str(),
        "parameters": parameters(trial),
        "value": trial.value().map(number),
        "intermediate_values": steps,
        "seconds": trial.seconds(),
        "job": trial.user_text(ATTR_JOB),
        "error": trial.user_text(ATTR_ERROR),
    })
}

/// Everything about a study: each trial, the best one, counts by state.
pub fn report(study: &str, storage: &str, metric: &str, direction: Direction, trials: &[Trial], seconds: f64) -> Value {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for state in [State::Complete, State::Pruned, State::Fail] {
        counts.insert(state.as_str(), 0);
    }
    for trial in trials {
        *counts.entry(trial.state.as_str()).or_default() += 1;
    }
    let best = best(trials, direction).map(|trial| {
        json!({
            "number": trial.number,
            "parameters": parameters(trial),
            "value": trial.value().map(number),
            "job": trial.user_text(ATTR_JOB),
        })
    });
    json!({
        "study": study,
        "storage": storage,
        "direction": direction.as_str(),
        "metric": metric,
        "trials": trials.iter().map(trial_row).collect::<Vec<_>>(),
        "best": best,
        "counts": counts,
        "seconds": seconds,
    })
}

/// What final training takes: the study, the trial, the pretrained model and the trial's parameters.
pub fn best_config(study: &str, backbone: &str, trial: &Trial) -> Value {
    json!({
        "study": study,
        "trial": trial.number,
        BACKBONE: backbone,
        "hyperparameters": parameters(trial),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        space::{Distribution, ParamValue},
        study::{Param, tests::trial},
    };

    #[test]
    fn a_report_holds_every_trial_and_the_best() {
        let mut first = trial(0, State::Complete, Some(0.5));
        let choices = vec![ParamValue::Int(8), ParamValue::Int(16)];
        first.params.push(Param {
            name: "batch_size".into(),
            value: 1.0,
            distribution: Distribution::categorical(choices).unwrap(),
        });
        first.intermediate.extend([(1, 0.25), (2, f64::NAN)]);
        first.user_attrs.insert(ATTR_JOB.into(), "\"jobs/1\"".into());
        let mut second = trial(1, State::Fail, None);
        second.user_attrs.insert(ATTR_ERROR.into(), "\"boom\"".into());
        let trials = [first, second];
        let report = report("s", "sqlite:////d/s.db", "f1", Direction::Maximize, &trials, 1.5);
        assert_eq!(report["counts"], json!({"COMPLETE": 1, "FAIL": 1, "PRUNED": 0}));
        assert_eq!(report["trials"][0]["intermediate_values"], json!({"1": 0.25, "2": "NaN"}));
        assert_eq!(report["trials"][1]["error"], "boom");
        assert_eq!(
            report["best"],
            json!({"number": 0, "parameters": {"batch_size": 16}, "value": 0.5, "job": "jobs/1"})
        );
        let config = best_config("s", "/models/minilm", &trials[0]);
        assert_eq!(
            config,
            json!({"study": "s", "trial": 0, "backbone": "/models/minilm", "hyperparameters": {"batch_size": 16}})
        );
    }
}
