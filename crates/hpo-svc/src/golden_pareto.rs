//! Comparison with what Optuna 5.0.0 computes with several objectives and constraints: the files come from
//! `tests/peers/optuna_pareto_golden.py`.

use serde_json::Value;

use crate::{
    golden::{load, number, space, trials},
    pareto,
    sampler::{self, NsgaII, Request},
    space::{Distribution, Parameter, Space},
    study::{Direction, Param, State, Trial, tests::trial},
};

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn indices(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|index| index.as_u64().unwrap() as usize).collect()
}

fn numbers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|number| number.as_i64().unwrap()).collect()
}

fn directions(case: &Value) -> Vec<Direction> {
    let of = |word: &Value| if word == "minimize" { Direction::Minimize } else { Direction::Maximize };
    case["directions"].as_array().unwrap().iter().map(of).collect()
}

fn near(ours: f64, theirs: f64) -> bool {
    ours == theirs || (ours - theirs).abs() <= 1e-9 * theirs.abs().max(1.0)
}

#[test]
fn ranks_crowding_and_hypervolume_are_those_of_optuna() {
    let golden = load("pareto.json");
    let mut subsets = 0;
    for case in golden["cases"].as_array().unwrap() {
        let points: Vec<Vec<f64>> = case["points"].as_array().unwrap().iter().map(floats).collect();
        let n_below = case["n_below"].as_u64().unwrap() as usize;
        assert_eq!(pareto::ranks(&points, points.len()), indices(&case["ranks"]));
        assert_eq!(pareto::ranks(&points, n_below), indices(&case["ranks_below"]));
        let ranks = pareto::constrained_ranks(&points, &floats(&case["penalty"]), n_below);
        assert_eq!(ranks, indices(&case["ranks_constrained"]));
        let crowding = pareto::crowding_distances(&points);
        assert!(crowding.iter().zip(floats(&case["crowding"])).all(|(ours, theirs)| near(*ours, theirs)), "{case}");
        assert_eq!(pareto::by_crowding(&points), indices(&case["by_crowding"]), "{case}");
        let reference = pareto::reference_point(&points);
        assert_eq!(reference, floats(&case["reference"]));
        if !case["hypervolume"].is_null() {
            let (ours, theirs) = (pareto::hypervolume(&points, &reference), number(&case["hypervolume"]));
            assert!(near(ours, theirs), "{ours} and {theirs} of {case}");
        }
        if !case["subset"].is_null() {
            let front = indices(&case["front"]);
            let members: Vec<Vec<f64>> = front.iter().map(|index| points[*index].clone()).collect();
            let size = case["size"].as_u64().unwrap() as usize;
            let chosen = pareto::subset(&members, size, &pareto::reference_point(&members));
            assert_eq!(chosen.iter().map(|i| front[*i]).collect::<Vec<_>>(), indices(&case["subset"]), "{case}");
            subsets += 1;
        }
    }
    assert!(subsets > 40, "only {subsets} subsets");
}

#[test]
fn parameters_fall_into_the_groups_of_optuna() {
    let golden = load("pareto.json");
    let float = Distribution::float(0.0, 1.0, false, None).unwrap();
    for case in golden["groups"].as_array().unwrap() {
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
        };
        let space = Space::of(texts(&case["names"]).into_iter().map(|name| (name, float.clone())));
        let history = case["trials"].as_array().unwrap().iter().enumerate().map(|(number, names)| {
            let state = if number % 2 == 0 { State::Complete } else { State::Pruned };
            let mut trial = trial(number as i64, state, None);
            let param = |name| Param { name, value: 0.5, distribution: float.clone() };
            trial.params = texts(names).into_iter().map(param).collect();
            trial
        });
        let history: Vec<Trial> = history.collect();
        let request = Request {
            space: &space,
            directions: &[Direction::Minimize],
            trials: &history,
            number: history.len() as i64,
            seed: 0,
        };
        let name = |index: usize| space.parameters()[index].name.clone();
        let parts = sampler::partition(&request);
        let mut parts: Vec<Vec<String>> = parts.into_iter().map(|part| part.into_iter().map(name).collect()).collect();
        parts.sort();
        assert_eq!(parts, case["parts"].as_array().unwrap().iter().map(texts).collect::<Vec<_>>());
    }
}

#[test]
fn tpe_splits_and_scores_several_objectives_and_constraints_as_optuna() {
    let golden = load("tpe_multi.json");
    let owned = space(&golden);
    let space: Vec<&Parameter> = owned.iter().collect();
    for case in golden["cases"].as_array().unwrap() {
        let (trials, directions) = (trials(case, &owned), directions(case));
        let of = |trials: &[&Trial]| trials.iter().map(|trial| trial.number).collect::<Vec<_>>();
        if directions.len() > 1 {
            assert_eq!(of(&pareto::best_trials(&trials, &directions)), numbers(&case["best"]));
        }
        let counted = trials.iter().filter(|trial| trial.state != State::Fail);
        let (below, above) = sampler::split(counted, &directions);
        assert_eq!(of(&below), numbers(&case["below"]));
        assert_eq!(of(&above), numbers(&case["above"]));
        for (side, ageing, expected) in
            [(&below, directions.len() < 2, &case["log_below"]), (&above, true, &case["log_above"])]
        {
            let mixture = sampler::mixture(&space, side, ageing);
            for (point, theirs) in case["points"].as_array().unwrap().iter().map(floats).zip(floats(expected)) {
                let ours = mixture.log_density(&point);
                assert!((ours - theirs).abs() <= 1e-8 * theirs.abs().max(1.0), "{ours} and {theirs} at {point:?}");
            }
        }
    }
}

#[test]
fn generations_have_the_parents_that_optuna_selects() {
    let golden = load("nsga2.json");
    let mut later = 0;
    for case in golden["cases"].as_array().unwrap() {
        let (trials, directions) = (trials(case, &[]), directions(case));
        let space = Space::of([("x", Distribution::float(0.0, 1.0, false, None).unwrap())]);
        let number = trials.len() as i64;
        let request = Request { space: &space, directions: &directions, trials: &trials, number, seed: 0 };
        let population_size = case["population_size"].as_u64().unwrap() as usize;
        let sampler = NsgaII { population_size, ..NsgaII::default() };
        let generations = sampler::generations(&request);
        assert_eq!(sampler.next_generation(&generations), case["generation"].as_i64().unwrap());
        for (generation, expected) in (0..).zip(case["parents"].as_array().unwrap()) {
            let parents = sampler.parents(&generations, generation);
            let parents: Vec<i64> = parents.iter().map(|parent| parent.trial.number).collect();
            assert_eq!(parents, numbers(expected), "generation {generation} of {case}");
            later += usize::from(generation > 1);
        }
    }
    assert!(later > 40, "only {later} later generations");
}
