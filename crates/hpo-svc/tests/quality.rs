//! TPE is worth its name: it beats random sampling on functions of different kinds, seed by seed. Deterministic.
#![allow(clippy::unwrap_used)] // Helpers of tests panic like the tests themselves.

use std::collections::BTreeMap;

use hpo_svc::{
    sampler::{Random, Request, Sampler, Tpe, suggest},
    space::{Distribution, ParamValue, Space},
    study::{Direction, Param, State, Trial},
};

const SEEDS: u64 = 20;
const TRIALS: i64 = 60;

/// The best value of a study that is run to its end.
fn best(sampler: &dyn Sampler, space: &Space, direction: Direction, seed: u64, objective: fn(&[Param]) -> f64) -> f64 {
    let mut trials: Vec<Trial> = Vec::new();
    for number in 0..TRIALS {
        let directions = std::slice::from_ref(&direction);
        let request = Request { space, directions, trials: &trials, number, seed };
        let params = suggest(sampler, &request, &[]).params;
        assert!(params.iter().all(|param| param.distribution.contains(param.value)), "{params:?}");
        trials.push(Trial {
            id: number,
            number,
            state: State::Complete,
            values: vec![objective(&params)],
            params,
            intermediate: BTreeMap::new(),
            user_attrs: BTreeMap::new(),
            system_attrs: BTreeMap::new(),
            start: None,
            complete: None,
        });
    }
    hpo_svc::study::best(&trials, direction).and_then(Trial::value).unwrap()
}

fn wins(space: &Space, direction: Direction, objective: fn(&[Param]) -> f64) -> usize {
    (0..SEEDS)
        .filter(|seed| {
            let tpe = best(&Tpe::default(), space, direction, *seed, objective);
            let random = best(&Random, space, direction, *seed, objective);
            direction.better(tpe, random)
        })
        .count()
}

#[test]
fn on_branin() {
    let space = Space::of([
        ("x", Distribution::float(-5.0, 10.0, false, None).unwrap()),
        ("y", Distribution::float(0.0, 15.0, false, None).unwrap()),
    ]);
    let branin = |params: &[Param]| {
        let (x, y) = (params[0].value, params[1].value);
        let pi = std::f64::consts::PI;
        let a = y - 5.1 / (4.0 * pi * pi) * x * x + 5.0 / pi * x - 6.0;
        a * a + 10.0 * (1.0 - 1.0 / (8.0 * pi)) * x.cos() + 10.0
    };
    let wins = wins(&space, Direction::Minimize, branin);
    assert!(wins >= 15, "{wins} of {SEEDS}");
}

#[test]
fn on_learning_rates_and_choices() {
    let choices = ["linear", "cosine", "constant"].map(|name| ParamValue::Text(name.into()));
    let space = Space::of([
        ("lr", Distribution::float(1e-6, 1e-2, true, None).unwrap()),
        ("batch", Distribution::int(8, 128, false, 8).unwrap()),
        ("schedule", Distribution::categorical(choices.to_vec()).unwrap()),
        ("dropout", Distribution::float(0.0, 0.5, false, Some(0.05)).unwrap()),
    ]);
    // To maximize: a score that falls from its peak.
    let score = |params: &[Param]| {
        let value = |index: usize| params[index].value;
        1.0 - 0.2 * (value(0).log10() + 4.3).powi(2)
            - (value(1) - 48.0).abs() / 200.0
            - [0.1, 0.0, 0.3][value(2) as usize]
            - (value(3) - 0.15).powi(2)
    };
    let wins = wins(&space, Direction::Maximize, score);
    assert!(wins >= 15, "{wins} of {SEEDS}");
}

#[test]
fn on_five_dimensions_of_ackley() {
    let space =
        Space::of(["a", "b", "c", "d", "e"].map(|name| (name, Distribution::float(-10.0, 10.0, false, None).unwrap())));
    let ackley = |params: &[Param]| {
        let square = params.iter().map(|p| p.value * p.value).sum::<f64>() / 5.0;
        let cosine = params.iter().map(|p| (2.0 * std::f64::consts::PI * p.value).cos()).sum::<f64>() / 5.0;
        20.0 + std::f64::consts::E - 20.0 * (-0.2 * square.sqrt()).exp() - cosine.exp()
    };
    let wins = wins(&space, Direction::Minimize, ackley);
    assert!(wins >= 15, "{wins} of {SEEDS}");
}
