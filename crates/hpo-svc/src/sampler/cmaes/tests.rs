//! The strategies against the Python package (`tests/peers/cmaes_golden.py` writes its states), and the sampler through histories
//! as sweeps make them.

use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};
use serde_json::Value;

use super::*;
use crate::{
    sampler::{Suggestion, suggest},
    space::{Condition, Distribution, ParamValue, Space},
    study::{Param, tests::trial},
};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().flat_map(|v| v.as_f64().map_or_else(|| numbers(v), |v| vec![v])).collect()
}

/// Feeds the generations of a case, and gives what the strategy knows wherever the file has it too.
fn states<S: Strategy>(case: &Value, mut strategy: S, known: impl Fn(&S) -> Vec<(&'static str, Vec<f64>)>) -> usize {
    let mut compared = 0;
    for generation in case["generations"].as_array().unwrap() {
        let members = generation["members"].as_array().unwrap();
        let members: Vec<Member> = members.iter().map(|m| (numbers(&m[0]), m[1].as_f64().unwrap())).collect();
        if let Some(encoded) = generation.get("encoded") {
            for ((x, _), expected) in members.iter().zip(encoded.as_array().unwrap()) {
                close("encoded", &strategy.encode(x), &numbers(expected), 1e-9);
            }
        }
        strategy.tell(members);
        let Some(state) = generation.get("state") else { continue };
        for (name, ours) in known(&strategy) {
            close(name, &ours, &numbers(&Value::from(vec![state[name].clone()])), 1e-7);
            compared += 1;
        }
    }
    compared
}

fn close(name: &str, ours: &[f64], theirs: &[f64], tolerance: f64) {
    let largest = theirs.iter().fold(1e-9_f64, |max, value| max.max(value.abs()));
    assert_eq!(ours.len(), theirs.len(), "{name}");
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() <= tolerance * largest, "{name}: {ours:?} and {theirs:?}");
    }
}

fn known(full: &Full) -> Vec<(&'static str, Vec<f64>)> {
    vec![
        ("mean", full.mean.as_slice().to_vec()),
        ("sigma", vec![full.sigma]),
        ("covariance", full.covariance.transpose().as_slice().to_vec()),
        ("p_sigma", full.p_sigma.as_slice().to_vec()),
        ("pc", full.pc.as_slice().to_vec()),
    ]
}

#[test]
fn strategies_adapt_as_the_python_package_does() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/cmaes.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut compared = 0;
    for case in golden["cases"].as_array().unwrap() {
        let mean = numbers(&case["mean"]);
        let sampler = CmaEs { popsize: case["population"].as_u64().map(|n| n as usize), ..CmaEs::default() };
        if case["generations"][0]["members"].as_array().unwrap().len() == 4 + (3.0 * (mean.len() as f64).ln()) as usize
        {
            let unit = Distribution::float(0.0, 1.0, false, None).unwrap();
            let axes = vec![Axis::new(&unit); mean.len()];
            let names = vec!["x"; mean.len()];
            let strategy = CmaEs::default().strategy(Kind::Full { adapt: false }, &names, &axes, None);
            assert_eq!(Some(strategy.population()), sampler.popsize);
        }
        let start = Start {
            mean,
            sigma: case["sigma"].as_f64().unwrap(),
            population: sampler.popsize.unwrap(),
            covariance: None,
        };
        compared += match case["kind"].as_str().unwrap() {
            "full" => states(case, Full::new(start, case["adapt"].as_bool().unwrap()), known),
            "separable" => states(case, Separable::new(start), |s| {
                vec![
                    ("mean", s.mean.clone()),
                    ("sigma", vec![s.sigma]),
                    ("covariance", s.variances.clone()),
                    ("p_sigma", s.p_sigma.clone()),
                    ("pc", s.pc.clone()),
                ]
            }),
            _ => {
                let steps: Vec<Option<f64>> = case["steps"].as_array().unwrap().iter().map(Value::as_f64).collect();
                states(case, Margin::new(start, &steps), |margin| {
                    [known(&margin.full), vec![("stretches", margin.stretches())]].concat()
                })
            }
        };
    }
    assert!(compared > 250, "{compared}");
}

fn study(space: &Space, trials: &[Trial], number: i64, sampler: &CmaEs, seed: u64) -> Suggestion {
    let directions = &[Direction::Minimize];
    suggest(sampler, &Request { space, directions, trials, number, seed }, &[])
}

fn open(number: i64, suggestion: Suggestion) -> Trial {
    let mut open = trial(number, State::Running, None);
    (open.params, open.system_attrs) = (suggestion.params, suggestion.system_attrs);
    open
}

fn end(trial: &mut Trial, state: State, value: f64) {
    (trial.state, trial.values) = (state, vec![value]);
}

fn generation(trial: &Trial) -> Option<u64> {
    let found = trial.system_attrs.iter().find(|(key, _)| key.ends_with(":generation"));
    found.map(|(_, value)| value.parse().unwrap())
}

/// Runs trials one by one and gives all of them.
fn minimize(sampler: &CmaEs, space: &Space, count: i64, seed: u64, f: impl Fn(&[f64]) -> f64) -> Vec<Trial> {
    let mut trials = Vec::new();
    for number in 0..count {
        let mut next = open(number, study(space, &trials, number, sampler, seed));
        let values: Vec<f64> = next.params.iter().map(|param| param.value).collect();
        for param in &next.params {
            assert!(param.distribution.contains(param.value), "{} {}", param.name, param.value);
        }
        end(&mut next, State::Complete, f(&values));
        trials.push(next);
    }
    trials
}

fn best(trials: &[Trial]) -> f64 {
    trials.iter().filter_map(Trial::value).fold(f64::INFINITY, f64::min)
}

fn box_of(dimensions: usize, low: f64, high: f64) -> Space {
    Space::of((0..dimensions).map(|i| (format!("x{i}"), Distribution::float(low, high, false, None).unwrap())))
}

fn rosenbrock(x: &[f64]) -> f64 {
    x.windows(2).map(|w| 100.0 * (w[1] - w[0] * w[0]).powi(2) + (1.0 - w[0]).powi(2)).sum()
}

#[test]
fn it_converges_whatever_the_strategy() {
    let sphere = |x: &[f64]| x.iter().map(|v| (v - 1.0).powi(2)).sum::<f64>();
    let ellipsoid = |x: &[f64]| x.iter().enumerate().map(|(i, v)| 10_f64.powi(i as i32) * v * v).sum::<f64>();
    let separable = CmaEs { use_separable_cma: true, ..CmaEs::default() };
    let margin = CmaEs { with_margin: true, ..CmaEs::default() };
    // Rates that are adapted start slowly, for the sake of noise.
    let adapted = CmaEs { lr_adapt: true, ..CmaEs::default() };
    for (sampler, limit) in [(CmaEs::default(), 1e-2), (separable, 1e-2), (margin, 1e-2), (adapted, 0.5)] {
        let reached = best(&minimize(&sampler, &box_of(3, -5.0, 7.0), 120, 1, sphere));
        assert!(reached < limit, "{sampler:?} {reached}");
        let reached = best(&minimize(&sampler, &box_of(3, -5.0, 7.0), 120, 2, ellipsoid));
        assert!(reached < limit * 100.0, "{sampler:?} {reached}");
    }
    let reached = best(&minimize(&CmaEs::default(), &box_of(2, -2.0, 2.0), 200, 3, rosenbrock));
    assert!(reached < 0.2, "{reached}");
    let one = best(&minimize(&CmaEs::default(), &box_of(1, -5.0, 7.0), 80, 3, sphere));
    assert!(one < 1e-4, "{one}");
}

#[test]
fn order_is_all_that_counts_of_values_and_the_direction_is_respected() {
    let space = box_of(3, -2.0, 2.0);
    let plain = minimize(&CmaEs::default(), &space, 120, 5, rosenbrock);
    let bent = minimize(&CmaEs::default(), &space, 120, 5, |x| (1.0 + rosenbrock(x)).ln().atan());
    let params = |trials: &[Trial]| trials.iter().map(|t| t.params.clone()).collect::<Vec<_>>();
    assert_eq!(params(&plain), params(&bent));
    let mirrored: Vec<Trial> = plain
        .iter()
        .map(|trial| Trial { values: trial.values.iter().map(|v| -v).collect(), ..trial.clone() })
        .collect();
    let directions = &[Direction::Maximize];
    let request = Request { space: &space, directions, trials: &mirrored, number: 120, seed: 5 };
    assert_eq!(suggest(&CmaEs::default(), &request, &[]), study(&space, &plain, 120, &CmaEs::default(), 5));
}

#[test]
fn a_generation_is_a_population_of_complete_trials_and_later_ones_change_nothing() {
    let space = box_of(2, 0.0, 1.0); // a population of 6
    let sampler = CmaEs::default();
    let mut trials = minimize(&sampler, &space, 1, 1, |_| 1.0);
    assert_eq!(generation(&trials[0]), None);
    for number in 1..=9 {
        let next = open(number, study(&space, &trials, number, &sampler, 1));
        assert_eq!(generation(&next), Some(0));
        trials.push(next);
    }
    let points: std::collections::BTreeSet<u64> = trials.iter().map(|t| t.params[0].value.to_bits()).collect();
    assert_eq!(points.len(), 10, "parallel trials differ");
    end(&mut trials[2], State::Fail, 0.0);
    end(&mut trials[3], State::Pruned, 0.0);
    for number in [4, 5, 6, 7, 8] {
        end(&mut trials[number], State::Complete, number as f64);
    }
    assert_eq!(generation(&open(10, study(&space, &trials, 10, &sampler, 1))), Some(0));
    end(&mut trials[9], State::Complete, f64::NAN);
    let eleventh = open(10, study(&space, &trials, 10, &sampler, 1));
    assert_eq!(generation(&eleventh), Some(1));
    assert_eq!(eleventh.system_attrs["cma:told"], "[4,5,6,7,8,9]");
    let without = study(&space, &trials, 11, &sampler, 1);
    trials.push(eleventh);
    assert_eq!(study(&space, &trials, 11, &sampler, 1), without);
    // Trial 1 ends late and well; the generation is what it was.
    end(&mut trials[1], State::Complete, -9.0);
    assert_eq!(study(&space, &trials, 11, &sampler, 1), without);
    trials.pop();
    assert_ne!(study(&space, &trials, 11, &sampler, 1), without);
    // The trial to sample may be there already.
    trials.push(open(11, Suggestion::default()));
    trials[10].system_attrs.insert("cma:generation".into(), "0".into());
    let again = study(&space, &trials[..10], 11, &sampler, 1);
    assert_eq!(study(&space, &trials, 11, &sampler, 1), again);
}

#[test]
fn pruned_trials_count_by_their_last_value_when_asked_to() {
    let space = box_of(2, 0.0, 1.0);
    let sampler = CmaEs { consider_pruned_trials: true, ..CmaEs::default() };
    let mut trials = minimize(&sampler, &space, 1, 1, |_| 1.0);
    for number in 1..=6 {
        let mut next = open(number, study(&space, &trials, number, &sampler, 1));
        next.state = State::Pruned;
        next.intermediate = [(1, 0.5), (2, if number == 3 { f64::NAN } else { number as f64 })].into();
        trials.push(next);
    }
    assert_eq!(generation(&open(7, study(&space, &trials, 7, &sampler, 1))), Some(1));
    assert_eq!(generation(&open(7, study(&space, &trials, 7, &CmaEs::default(), 1))), Some(0));
    trials[1].intermediate.clear();
    assert_eq!(generation(&open(7, study(&space, &trials, 7, &sampler, 1))), Some(0));
}

#[test]
fn other_parameters_are_left_to_uniform_sampling() {
    let words = ["a", "b"].map(|text| ParamValue::Text(text.into())).to_vec();
    let mut space = Space::of([
        ("kind", Distribution::categorical(words).unwrap()),
        ("z", Distribution::int(1, 1000, true, 1).unwrap()),
        ("under", Distribution::float(0.0, 1.0, false, None).unwrap()),
        ("one", Distribution::int(4, 4, false, 1).unwrap()),
        ("a", Distribution::float(0.0, 1.0, false, Some(0.125)).unwrap()),
    ]);
    space.set_condition(2, Condition { parameter: 0, values: vec![1.0] });
    for with_margin in [false, true] {
        let sampler = CmaEs { with_margin, ..CmaEs::default() };
        let trials = minimize(&sampler, &space, 150, 1, |x| (x[1].ln() - 3.0).abs() + x[x.len() - 1]);
        let request =
            Request { space: &space, directions: &[Direction::Minimize], trials: &trials, number: 150, seed: 1 };
        let mut generator = <Generator as rand::SeedableRng>::seed_from_u64(1);
        let joint = sampler.joint(&request, &mut generator);
        let modelled: Vec<bool> = joint.values.iter().map(Option::is_some).collect();
        assert_eq!(modelled, [false, true, false, false, true]);
        assert!(best(&trials) < 0.1, "{}", best(&trials));
        assert!(trials[100..].iter().any(|t| t.param("under").is_some()));
        assert!(trials[100..].iter().any(|t| t.param("under").is_none()));
        let two = Request { directions: &[Direction::Minimize; 2], ..request };
        assert_eq!(sampler.joint(&two, &mut generator), Joint::default());
    }
}

#[test]
fn x0_and_sigma0_say_where_the_search_begins() {
    let space = Space::of([
        ("lr", Distribution::float(1e-6, 1e-2, true, None).unwrap()),
        ("x", Distribution::float(0.0, 10.0, false, None).unwrap()),
    ]);
    let x0 = [("lr".to_owned(), 1e-5), ("other".to_owned(), 3.0)].into();
    let sampler = CmaEs { x0, sigma0: Some(1e-3), ..CmaEs::default() };
    let trials = minimize(&sampler, &space, 5, 1, |_| 0.0);
    for trial in &trials[1..] {
        assert!((trial.params[0].value.log10() + 5.0).abs() < 0.02 && (trial.params[1].value - 5.0).abs() < 0.05);
    }
    assert!(sampler.check().is_ok());
    for (sampler, word) in [
        (CmaEs { sigma0: Some(0.0), ..CmaEs::default() }, "sigma0 is 0"),
        (CmaEs { sigma0: Some(f64::NAN), ..CmaEs::default() }, "sigma0 is NaN"),
        (CmaEs { popsize: Some(1), ..CmaEs::default() }, "popsize is 1"),
    ] {
        assert!(sampler.check().unwrap_err().starts_with(word));
        // Used all the same, it goes on with the default.
        minimize(&sampler, &space, 12, 1, |x| x[1]);
    }
}

#[test]
fn values_that_somebody_gave_are_what_the_strategy_learns_from() {
    let int = Distribution::int(0, 9, false, 1).unwrap();
    let space = Space::of([("a", int.clone()), ("b", int)]);
    let sampler = CmaEs { with_margin: true, ..CmaEs::default() };
    let mut trials = minimize(&sampler, &space, 1, 1, |_| 1.0);
    for number in 1..=6 {
        let request = Request { space: &space, directions: &[Direction::Minimize], trials: &trials, number, seed: 1 };
        // The first parameter is given in every trial of the generation.
        let mut next = open(number, suggest(&sampler, &request, &[Some(9.0)]));
        assert_eq!(next.params[0].value, 9.0);
        end(&mut next, State::Complete, number as f64);
        trials.push(next);
    }
    let following: Vec<f64> =
        (7..40).map(|number| study(&space, &trials, number, &sampler, 1).params[0].value).collect();
    assert!(following.iter().sum::<f64>() / 33.0 > 7.0, "{following:?}");
    trials[3].system_attrs.insert(X_FOR_TELL.into(), "[1e999, 0]".into());
    trials[4].system_attrs.insert("cmawm:told".into(), "{}".into());
    assert_eq!(generation(&open(7, study(&space, &trials, 7, &sampler, 1))), Some(1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_history_is_survived(
        outcomes in proptest::collection::vec((0..6, -3..3), 30..90),
        (with_margin, use_separable_cma, lr_adapt) in any::<(bool, bool, bool)>(),
        popsize in 2_usize..7,
        seed: u64,
    ) {
        let space = Space::of([
            ("x", Distribution::float(-1e300, 1e300, false, None).unwrap()),
            ("n", Distribution::int(0, 1, false, 1).unwrap()),
            ("g", Distribution::float(0.0, 1.0, false, Some(0.3)).unwrap()),
        ]);
        let sampler = CmaEs { with_margin, use_separable_cma, lr_adapt, popsize: Some(popsize), ..CmaEs::default() };
        let mut trials: Vec<Trial> = Vec::new();
        for (number, (outcome, value)) in outcomes.into_iter().enumerate() {
            let mut next = open(number as i64, study(&space, &trials, number as i64, &sampler, seed));
            for (param, parameter) in next.params.iter().zip(space.parameters()) {
                prop_assert!(parameter.distribution.contains(param.value));
            }
            match outcome {
                0 => end(&mut next, State::Fail, 0.0),
                1 => end(&mut next, State::Complete, f64::NAN),
                2 => end(&mut next, State::Complete, f64::INFINITY * f64::from(value)),
                3 => next.params = trials.first().map_or(next.params, |t| t.params.clone()),
                _ => end(&mut next, State::Complete, f64::from(value)),
            }
            if outcome == 3 {
                end(&mut next, State::Complete, 0.0);
            }
            trials.push(next);
        }
    }

    #[test]
    fn a_strategy_survives_points_of_any_size(points in proptest::collection::vec(-1e200f64..1e200, 24), tiny: bool) {
        let start = Start { mean: vec![0.5; 2], sigma: if tiny { 1e-9 } else { 0.2 }, population: 4, covariance: None };
        let steps = [Some(0.5), None];
        let strategies: [Box<dyn Strategy>; 4] = [
            Box::new(Full::new(start.clone(), false)),
            Box::new(Full::new(start.clone(), true)),
            Box::new(Separable::new(start.clone())),
            Box::new(Margin::new(start, &steps)),
        ];
        let mut generator = <Generator as rand::SeedableRng>::seed_from_u64(3);
        for mut strategy in strategies {
            for generation in points.chunks(8) {
                let members = generation.chunks(2).enumerate().map(|(i, x)| (x.to_vec(), i as f64)).collect();
                strategy.tell(members);
                let x = strategy.encode(&strategy.ask(&mut generator));
                prop_assert!(x.iter().all(|x| (0.0..=1.0).contains(x)), "{x:?}");
            }
        }
    }
}

#[test]
fn a_thousand_trials_are_replayed_quickly() {
    let space = box_of(10, -2.0, 2.0);
    let mut trials: Vec<Trial> = Vec::new();
    let mut generator = <Generator as rand::SeedableRng>::seed_from_u64(3);
    // A history that any sampler could have left: the replay does not ask where the points come from.
    for number in 0..1000 {
        let mut next = trial(number, State::Complete, None);
        for parameter in space.parameters() {
            let value = crate::sampler::random::uniform(&parameter.distribution, &mut generator);
            let (name, distribution) = (parameter.name.clone(), parameter.distribution.clone());
            next.params.push(Param { name, value, distribution });
        }
        let x: Vec<f64> = next.params.iter().map(|param| param.value).collect();
        next.values = vec![rosenbrock(&x)];
        next.system_attrs.insert("cma:generation".into(), (number / 10).to_string());
        trials.push(next);
    }
    let suggestion = study(&space, &trials, 1000, &CmaEs::default(), 1);
    assert_eq!(suggestion.system_attrs["cma:generation"], "100");
}
