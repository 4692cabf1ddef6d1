//! The documents that a sweep leaves: the report with every trial, and the best configuration.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{ATTR_ERROR, ATTR_JOB, BACKBONE, Goals, folds::folds};
use crate::{
    objective::Objective,
    pareto::best_trials,
    pyjson::float_repr,
    study::{State, Trial},
};

/// A number, or its word when it is not finite: JSON has none for it.
pub(super) fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!(float_repr(value)) }
}

/// The parameters by name, as the user sees them.
pub(crate) fn parameters(trial: &Trial) -> Map<String, Value> {
    trial.params.iter().map(|param| (param.name.clone(), param.external().to_json())).collect()
}

fn trial_row(trial: &Trial) -> Value {
    let steps: Map<String, Value> =
        trial.intermediate.iter().map(|(step, value)| (step.to_string(), number(*value))).collect();
    let folds = folds(trial).into_iter().map(|fold| {
        let metrics: Map<String, Value> = fold.metrics.into_iter().map(|(k, v)| (k, number(v))).collect();
        json!({"job": fold.job, "metrics": metrics})
    });
    json!({
        "number": trial.number,
        "state": trial.state.as_str(),
        "parameters": parameters(trial),
        "value": trial.value().map(number),
        "values": trial.values.iter().map(|value| number(*value)).collect::<Vec<_>>(),
        "folds": folds.collect::<Vec<_>>(),
        "intermediate_values": steps,
        "seconds": trial.seconds(),
        "job": trial.user_text(ATTR_JOB),
        "error": trial.user_text(ATTR_ERROR),
    })
}

/// Everything about a study: each trial, the best one or with several objectives the Pareto front, counts by state.
pub fn report(study: &str, storage: &str, goals: &Goals, trials: &[Trial], seconds: f64) -> Value {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for state in [State::Complete, State::Pruned, State::Fail] {
        counts.insert(state.as_str(), 0);
    }
    for trial in trials {
        *counts.entry(trial.state.as_str()).or_default() += 1;
    }
    let best = goals.best(trials).map(|trial| {
        json!({
            "number": trial.number,
            "parameters": parameters(trial),
            "value": trial.value().map(number),
            "job": trial.user_text(ATTR_JOB),
        })
    });
    let front = match goals.objectives.len() {
        1 => Vec::new(),
        _ => best_trials(trials, &goals.directions()).into_iter().map(|trial| trial.number).collect(),
    };
    let first = goals.objectives.first();
    let objective =
        |objective: &Objective| json!({"metric": objective.metric, "direction": objective.direction.as_str()});
    json!({
        "study": study,
        "storage": storage,
        "direction": first.map(|objective| objective.direction.as_str()),
        "metric": first.map(|objective| &objective.metric),
        "objectives": goals.objectives.iter().map(objective).collect::<Vec<_>>(),
        "pareto_front": front,
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
        study::{Direction, Param, tests::trial},
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
        let objective = |metric: &str, direction| Objective { metric: metric.into(), direction };
        let mut goals = Goals {
            objectives: vec![objective("f1", Direction::Maximize)],
            constraints: Vec::new(),
            cost_metric: None,
        };
        let report = |goals: &Goals| super::report("s", "sqlite:////d/s.db", goals, &trials, 1.5);
        goals.objectives.push(objective("ms", Direction::Minimize));
        let front = report(&goals);
        assert_eq!((&front["best"], &front["pareto_front"]), (&Value::Null, &json!([])), "one value of two");
        goals.objectives.pop();
        let report = report(&goals);
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
