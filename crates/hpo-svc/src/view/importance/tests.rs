//! Importances against Optuna's, and on histories that could break them.

use serde_json::Value;

use super::*;
use crate::{
    space::{Distribution, ParamValue},
    study::{Param, State, tests::trial},
    view::golden,
};

fn cases() -> Vec<(Value, Vec<Direction>, Vec<Trial>)> {
    let golden = golden::load("importances.json");
    let distributions = golden::distributions(&golden);
    let case = |case: &Value| (case.clone(), golden::directions(case), golden::trials(case, &distributions));
    golden["cases"].as_array().unwrap().iter().map(case).collect()
}

/// Forests draw other random numbers than scikit-learn's: the mean over some seeds may differ by four standard errors of both means,
/// and by half a point for what the seeds of one side do not show (scikit-learn computes in single precision).
#[test]
fn fanova_is_that_of_optuna_within_the_noise_of_its_forests() {
    const SEEDS: u64 = 6;
    for (case, directions, trials) in cases() {
        let objective = usize::from(directions.len() > 1);
        for (key, transform_log) in [("fanova", false), ("fanova_log", true)] {
            let run = |seed| {
                let settings = Fanova { seed, transform_log, ..Fanova::default() };
                importances(&settings, &trials, &directions, objective).unwrap()
            };
            let runs: Vec<Vec<Importance>> = (0..SEEDS).map(run).collect();
            let theirs = case[key].as_object().unwrap();
            assert_eq!(runs[0].len(), theirs.len());
            let mut means = Vec::new();
            for (name, forests) in theirs {
                let of = |run: &Vec<Importance>| run.iter().find(|i| i.name == *name).unwrap().value;
                let ours = runs.iter().map(of).sum::<f64>() / SEEDS as f64;
                let (mean, std) = (forests["mean"].as_f64().unwrap(), forests["std"].as_f64().unwrap());
                let tolerance = 4.0 * std * (1.0 / SEEDS as f64 + 1.0 / 12.0).sqrt() + 0.005;
                assert!((ours - mean).abs() < tolerance, "{} {key} {name}: {ours}, {mean} +- {std}", case["name"]);
                means.push((mean, ours, tolerance));
            }
            // What Optuna tells apart has our order too.
            for (mean, ours, tolerance) in &means {
                for (other_mean, other_ours, _) in means.iter().filter(|other| other.0 > mean + 2.0 * tolerance) {
                    assert!(other_ours > ours, "{} {key}: {other_mean} and {mean}", case["name"]);
                }
            }
        }
    }
}

fn with(number: i64, value: f64, params: &[(&str, f64, Distribution)]) -> Trial {
    let mut trial = trial(number, State::Complete, Some(value));
    let param = |(name, value, distribution): &(&str, f64, Distribution)| Param {
        name: (*name).to_owned(),
        value: *value,
        distribution: distribution.clone(),
    };
    trial.params = params.iter().map(param).collect();
    trial
}

#[test]
fn what_cannot_be_told_apart_is_not_explained() {
    let unit = Distribution::float(0.0, 1.0, false, None).unwrap();
    let found = |trials: &[Trial]| importances(&Fanova::default(), trials, &[Direction::Minimize], 0);
    assert_eq!(found(&[]), Ok(vec![]));
    assert_eq!(found(&[trial(0, State::Complete, Some(1.0)), trial(1, State::Fail, None)]), Ok(vec![]));
    let single = with(0, 1.0, &[("b", 0.5, unit.clone()), ("a", 0.5, unit.clone())]);
    let one = |number: i64| Trial { number, ..single.clone() };
    let same_parameters = |number: i64| Trial { values: vec![number as f64], ..one(number) };
    let same_values =
        |number: i64| with(number, 1.0, &[("b", 0.1, unit.clone()), ("a", 0.04 * number as f64, unit.clone())]);
    let infinite = |number: i64| Trial { values: vec![f64::INFINITY], ..one(number) };
    assert_eq!(found(std::slice::from_ref(&single)), Err(Error::NothingDiffers));
    for trials in [
        (0..20).map(one).collect::<Vec<Trial>>(),
        (0..20).map(same_parameters).collect(),
        (0..20).map(same_values).collect(),
        (0..20).map(infinite).collect(),
    ] {
        assert_eq!(found(&trials), Err(Error::NothingDiffers));
    }
}

#[test]
fn strange_values_do_no_harm() {
    let log = Distribution::float(1e-5, 1.0, true, None).unwrap();
    let choice = Distribution::categorical((0..70).map(ParamValue::Int).collect()).unwrap();
    let strange = [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300, 0.5, 3.0, 65.0];
    let trials: Vec<Trial> = (0..64)
        .map(|i| {
            let (x, y) = (strange[i % 8], strange[i / 8]);
            let number = i as i64;
            with(number, if i % 3 == 0 { 1e308 } else { -1e308 }, &[("x", x, log.clone()), ("y", y, choice.clone())])
        })
        .collect();
    for transform_log in [false, true] {
        let fanova = Fanova { transform_log, ..Fanova::default() };
        let found = importances(&fanova, &trials, &[Direction::Maximize], 0).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|importance| (0.0..=1.0).contains(&importance.value)), "{found:?}");
    }
}

#[test]
fn an_objective_that_does_not_exist_is_refused() {
    let two = [Direction::Minimize; 2];
    assert_eq!(importances(&Fanova::default(), &[], &two, 1), Ok(vec![]));
    let expected = Err(Error::NoSuchObjective { objective: 2, objectives: 2 });
    assert_eq!(importances(&Fanova::default(), &[], &two, 2), expected);
}

#[test]
fn what_is_shown_tells_of_what_it_was_made() {
    let unit = Distribution::float(0.0, 1.0, false, None).unwrap();
    let both = |number: i64| {
        let x = number as f64 / 30.0;
        with(number, x, &[("x", x, unit.clone()), ("rare", 0.5, unit.clone())])
    };
    let mut trials: Vec<Trial> = (0..30).map(both).collect();
    trials[3].params.pop();
    let minimize = [Direction::Minimize];
    let shown = sampled(&trials, &minimize, 0, 20).unwrap();
    assert_eq!(shown.sample().as_deref(), Some("20 of 30 trials"));
    let all = told(&trials, &minimize, 0).unwrap();
    assert_eq!((all.sample(), &all.importances[..]), (None, &[Importance { name: "x".into(), value: 1.0 }][..]));
    let left_out = "without rare: not every trial has that, or not with the same domain";
    assert_eq!(all.left_out().as_deref(), Some(left_out));
    assert_eq!(told(&trials[..1], &minimize, 0), Ok(Told::default()), "one trial tells nothing");
}
