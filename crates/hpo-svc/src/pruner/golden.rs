//! Comparison of the pruners of rungs and ranks with Optuna 5.0.0 and SciPy: the files come from `tests/peers/optuna_pruners.py`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    ATTR_LONGEST, ATTR_STOPPED_AT, Hyperband, Judged, Pruner, SuccessiveHalving, Wilcoxon,
    signed_rank::{Alternative, p_value},
};
use crate::{
    golden::{direction, load, number, trials},
    pyjson::PyValue,
    study::{State, Trial, tests::trial},
};

fn cases<'a>(golden: &'a Value, key: &str) -> &'a [Value] {
    golden[key].as_array().unwrap()
}

fn halving(case: &Value) -> SuccessiveHalving {
    SuccessiveHalving {
        min_resource: case["min_resource"].as_i64(),
        reduction_factor: case["reduction_factor"].as_i64().unwrap(),
        min_early_stopping_rate: case["min_early_stopping_rate"].as_u64().unwrap() as u32,
        bootstrap_count: case["bootstrap_count"].as_u64().unwrap() as usize,
    }
}

fn hyperband(case: &Value) -> Hyperband {
    Hyperband {
        min_resource: case["min_resource"].as_i64().unwrap(),
        max_resource: case["max_resource"].as_i64(),
        reduction_factor: case["reduction_factor"].as_i64().unwrap(),
        bootstrap_count: case["bootstrap_count"].as_u64().unwrap_or_default() as usize,
    }
}

/// Replays a study and compares each decision and what the pruner leaves at the trial; returns the decisions.
fn replay(case: &Value, pruner: &dyn Pruner) -> Vec<bool> {
    let (study, direction) = (case["study"].as_str().unwrap(), direction(case));
    let mut trials: Vec<Trial> = Vec::new();
    let mut decisions = Vec::new();
    let mut kept = 0;
    for (time, event) in (0..).zip(cases(case, "events")) {
        let index = event[1].as_u64().unwrap() as usize;
        match event[0].as_str().unwrap() {
            "start" => trials.push(trial(index as i64, State::Running, None)),
            "end" => {
                trials[index].state = State::parse(event[2].as_str().unwrap()).unwrap();
                trials[index].complete = Timestamp::from_second(time).ok();
            }
            _ => {
                trials[index].intermediate.insert(event[2].as_i64().unwrap(), number(&event[3]));
                let judgement = pruner.judge(&Judged { study, direction, trials: &trials, trial: &trials[index] });
                let step = trials[index].last_report().map(|(step, _)| step.to_string());
                let rungs = event[5].as_object().unwrap().iter();
                let rungs: BTreeMap<String, String> =
                    rungs.map(|(key, value)| (key.clone(), PyValue::Float(number(value)).dump())).collect();
                let mut attributes = judgement.system_attrs;
                // Optuna keeps no answer, and judges anew a trial that reports an earlier step.
                assert_eq!(attributes.remove(ATTR_STOPPED_AT), step.filter(|_| judgement.prune));
                // It remembers in its process what `auto` stands for.
                let longest = attributes.remove(ATTR_LONGEST);
                kept += usize::from(longest.is_some());
                assert_eq!((judgement.prune, &attributes), (event[4] == true, &rungs), "{event}: {pruner:?}");
                attributes.extend(longest.map(|longest| (ATTR_LONGEST.to_owned(), longest)));
                trials[index].system_attrs.extend(attributes);
                decisions.push(judgement.prune);
            }
        }
    }
    assert!(kept <= 1, "what was found once is not looked for again");
    decisions
}

#[test]
fn successive_halving_and_hyperband_decide_and_remember_as_optuna() {
    let golden = load("rungs.json");
    let mut decisions = Vec::new();
    for case in cases(&golden, "cases") {
        let pruner: Box<dyn Pruner> =
            if case["kind"] == "halving" { Box::new(halving(case)) } else { Box::new(hyperband(case)) };
        decisions.extend(replay(case, pruner.as_ref()));
    }
    let pruned = decisions.iter().filter(|prune| **prune).count();
    assert!(pruned > 500 && decisions.len() - pruned > 500, "{pruned} of {}", decisions.len());
}

#[test]
fn trials_fall_into_the_brackets_of_optuna() {
    for case in cases(&load("rungs.json"), "brackets") {
        let brackets = hyperband(case).brackets(case["study"].as_str().unwrap(), &[]);
        for pair in cases(case, "brackets") {
            let bracket = brackets.of(pair[0].as_i64().unwrap());
            assert_eq!(bracket.map(u64::from), pair[1].as_u64(), "{case}");
        }
        assert_eq!(serde_json::json!(brackets.budgets()), case["budgets"]);
    }
}

#[test]
fn wilcoxon_decides_as_optuna() {
    let mut decisions = Vec::new();
    for case in cases(&load("wilcoxon.json"), "cases") {
        let pruner = Wilcoxon {
            p_threshold: number(&case["p_threshold"]),
            n_startup_steps: case["n_startup_steps"].as_u64().unwrap() as usize,
        };
        let history = trials(case, &[]);
        let mut live = trial(history.len() as i64, State::Running, None);
        for report in cases(case, "reports") {
            live.intermediate.insert(report[0].as_i64().unwrap(), number(&report[1]));
            let judged = Judged { study: "s", direction: direction(case), trials: &history, trial: &live };
            decisions.push(pruner.should_prune(&judged));
            assert_eq!(decisions.last(), report[2].as_bool().as_ref(), "{report} of {case}");
        }
    }
    let pruned = decisions.iter().filter(|prune| **prune).count();
    assert!(pruned > 100 && decisions.len() - pruned > 100, "{pruned} of {}", decisions.len());
}

#[test]
fn p_values_are_those_of_scipy() {
    for case in cases(&load("wilcoxon.json"), "signed_rank") {
        let differences: Vec<f64> = cases(case, "d").iter().map(number).collect();
        for (alternative, expected) in
            [(Alternative::Less, number(&case["less"])), (Alternative::Greater, number(&case["greater"]))]
        {
            let ours = p_value(&differences, alternative);
            assert!((ours - expected).abs() <= 1e-12 * expected, "{ours} and {expected} for {differences:?}");
        }
    }
}
