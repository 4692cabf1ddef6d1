//! Comparison with what Optuna 5.0.0 computes: the files come from `tests/peers/optuna_golden.py`.

use serde_json::Value;

use crate::{
    pruner::{Patient, Percentile, Pruner, Threshold, tests::stops},
    sampler,
    space::{Distribution, Parameter},
    study::{Direction, Param, State, Trial, tests::trial},
};

pub(crate) fn load(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub(crate) fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some("nan") => f64::NAN,
        Some("inf") => f64::INFINITY,
        Some("-inf") => f64::NEG_INFINITY,
        _ => value.as_f64().unwrap(),
    }
}

pub(crate) fn direction(case: &Value) -> Direction {
    if case["direction"] == "minimize" { Direction::Minimize } else { Direction::Maximize }
}

pub(crate) fn trials(case: &Value, space: &[Parameter]) -> Vec<Trial> {
    let read = |value: &Value| {
        let state = State::parse(value["state"].as_str().unwrap()).unwrap();
        let objective = (!value["value"].is_null()).then(|| number(&value["value"]));
        let mut trial = trial(value["number"].as_i64().unwrap(), state, objective);
        for (name, internal) in value["params"].as_object().unwrap() {
            let distribution = space.iter().find(|p| p.name == *name).unwrap().distribution.clone();
            trial.params.push(Param { name: name.clone(), value: number(internal), distribution });
        }
        for report in value["intermediate"].as_array().into_iter().flatten() {
            trial.intermediate.insert(report[0].as_i64().unwrap(), number(&report[1]));
        }
        trial.values.extend(value["values"].as_array().into_iter().flatten().map(number));
        let attrs = value["attrs"].as_object().into_iter().flatten();
        trial.system_attrs.extend(attrs.map(|(key, value)| (key.clone(), value.to_string())));
        trial
    };
    case["trials"].as_array().unwrap().iter().map(read).collect()
}

pub(crate) fn space(golden: &Value) -> Vec<Parameter> {
    let entries = golden["space"].as_array().unwrap().iter();
    let parameter = |entry: &Value| Parameter {
        name: entry[0].as_str().unwrap().into(),
        distribution: Distribution::from_json(entry[1].as_str().unwrap()).unwrap(),
        condition: None,
    };
    entries.map(parameter).collect()
}

#[test]
fn tpe_splits_and_scores_as_optuna() {
    let golden = load("tpe.json");
    let space = space(&golden);
    for (entry, parameter) in golden["space"].as_array().unwrap().iter().zip(&space) {
        assert_eq!(entry[1].as_str().unwrap(), parameter.distribution.to_json());
    }
    let space: Vec<&Parameter> = space.iter().collect();
    let owned: Vec<Parameter> = space.iter().map(|p| (*p).clone()).collect();
    let mut compared = 0;
    for case in golden["cases"].as_array().unwrap() {
        let trials = trials(case, &owned);
        let counted = trials.iter().filter(|trial| trial.state != State::Fail);
        let (below, above) = sampler::split(counted, &[direction(case)]);
        let numbers = |trials: &[&Trial]| trials.iter().map(|t| t.number.into()).collect::<Vec<Value>>();
        assert_eq!(Value::from(numbers(&below)), case["below"]);
        assert_eq!(Value::from(numbers(&above)), case["above"]);
        for (side, expected) in [(&below, &case["log_below"]), (&above, &case["log_above"])] {
            let mixture = sampler::mixture(&space, side, true);
            for (point, expected) in case["points"].as_array().unwrap().iter().zip(expected.as_array().unwrap()) {
                let point: Vec<f64> = point.as_array().unwrap().iter().map(number).collect();
                let (ours, theirs) = (mixture.log_density(&point), number(expected));
                assert!((ours - theirs).abs() <= 1e-8 * theirs.abs().max(1.0), "{ours} and {theirs} at {point:?}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 8 * 2 * 12);
}

#[test]
fn percentile_pruner_decides_as_optuna() {
    let golden = load("percentile.json");
    let (mut pruned, mut kept) = (0, 0);
    for case in golden["cases"].as_array().unwrap() {
        let setting = |key: &str| case[key].as_i64().unwrap();
        let pruner = Percentile {
            percentile: number(&case["percentile"]),
            n_startup_trials: setting("n_startup_trials") as usize,
            n_warmup_steps: setting("n_warmup_steps"),
            interval_steps: setting("interval_steps"),
            n_min_trials: setting("n_min_trials") as usize,
        };
        decisions(case, &pruner, &mut pruned, &mut kept);
    }
    assert!(pruned > 20 && kept > 20, "the cases are one-sided: {pruned} pruned, {kept} kept");
}

#[test]
fn threshold_and_patience_decide_as_optuna() {
    let golden = load("pruners.json");
    let (mut pruned, mut kept) = (0, 0);
    for case in golden["cases"].as_array().unwrap() {
        let setting = |key: &str| case[key].as_i64().unwrap();
        let pruner: Box<dyn Pruner> = if case["kind"] == "threshold" {
            Box::new(Threshold {
                lower: number(&case["lower"]),
                upper: number(&case["upper"]),
                n_warmup_steps: setting("n_warmup_steps"),
                interval_steps: setting("interval_steps"),
            })
        } else {
            let median = Percentile { n_startup_trials: 0, ..Percentile::median() };
            let wrapped = case["median"].as_bool().unwrap().then(|| Box::new(median) as Box<dyn Pruner>);
            Box::new(Patient { wrapped, patience: setting("patience") as usize, min_delta: number(&case["min_delta"]) })
        };
        decisions(case, pruner.as_ref(), &mut pruned, &mut kept);
    }
    assert!(pruned > 20 && kept > 20, "the cases are one-sided: {pruned} pruned, {kept} kept");
}

/// Compares the decision at each report of a trial.
fn decisions(case: &Value, pruner: &dyn Pruner, pruned: &mut usize, kept: &mut usize) {
    let history = trials(case, &[]);
    let mut live = trial(history.len() as i64, State::Running, None);
    for report in case["reports"].as_array().unwrap() {
        live.intermediate.insert(report[0].as_i64().unwrap(), number(&report[1]));
        let expected = report[2].as_bool().unwrap();
        assert_eq!(stops(pruner, direction(case), &history, &live), expected, "{case}");
        *if expected { &mut *pruned } else { &mut *kept } += 1;
    }
}
