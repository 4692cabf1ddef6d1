//! The Gaussian process against Optuna's (`tests/peers/optuna_gp_golden.py` writes the file), and whole suggestions.

use serde_json::Value;

use super::*;
use crate::{
    sampler::{Suggestion, suggest},
    space::{Distribution, ParamValue, Space},
    study::{Param, tests::trial},
};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn table(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(numbers).collect()
}

/// Equal but for rounding; `what` says where they are not.
fn close(what: &str, ours: f64, theirs: f64) {
    assert!((ours - theirs).abs() <= 1e-6 * theirs.abs().max(1.0), "{what}: {ours} and {theirs}");
}

fn all_close(what: &str, ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        close(&format!("{what} [{i}]"), *ours, *theirs);
    }
}

fn golden() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/gp.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn golden_space(golden: &Value) -> Space {
    Space::of(golden["space"].as_array().unwrap().iter().map(|entry| {
        let distribution = Distribution::from_json(entry[1].as_str().unwrap()).unwrap();
        (entry[0].as_str().unwrap().to_owned(), distribution)
    }))
}

fn golden_trials(case: &Value, space: &Space) -> Vec<Trial> {
    let read = |(number, value): (usize, &Value)| {
        let state = State::parse(value["state"].as_str().unwrap()).unwrap();
        let mut trial = trial(number as i64, state, None);
        trial.values = numbers(&value["values"]);
        for (name, internal) in value["params"].as_object().unwrap() {
            let distribution = space.get(name).unwrap().clone();
            trial.params.push(Param { name: name.clone(), value: internal.as_f64().unwrap(), distribution });
        }
        for (name, limit) in value["constraints"].as_object().unwrap() {
            trial.system_attrs.insert(format!("constraints:{name}"), limit.to_string());
        }
        trial
    };
    case["trials"].as_array().unwrap().iter().enumerate().map(read).collect()
}

/// The history of a case with some objectives, with or without constraints and running trials.
fn history(case: &Value, space: &Space, objectives: usize, constrained: bool, waiting: bool) -> History {
    let mut trials = golden_trials(case, space);
    trials.retain(|trial| waiting || trial.state == State::Complete);
    for trial in &mut trials {
        trial.values.truncate(objectives);
        if !constrained {
            trial.system_attrs.clear();
        }
    }
    let directions = &[Direction::Minimize, Direction::Maximize][..objectives];
    let request = Request { space, directions, trials: &trials, number: 1000, seed: 0 };
    let parameters: Vec<&Parameter> = intersection(&request).iter().map(|i| &space.parameters()[*i]).collect();
    History::new(&parameters, &request)
}

fn parameters(numbers: &[f64]) -> model::Parameters {
    let (relevance, rest) = numbers.split_at(numbers.len() - 2);
    model::Parameters { relevance: relevance.to_vec(), scale: rest[0], noise: rest[1] }
}

#[test]
fn history_kernel_likelihood_and_posterior_are_optunas() {
    let golden = golden();
    let space = golden_space(&golden);
    for case in golden["cases"].as_array().unwrap() {
        let history = history(case, &space, 2, true, true);
        for (ours, theirs) in history.rows.iter().zip(table(&case["rows"])) {
            all_close("row", ours, &theirs);
        }
        for (ours, theirs) in history.pending.iter().zip(table(&case["pending"])) {
            all_close("pending", ours, &theirs);
        }
        for (ours, theirs) in history.scores.iter().zip(table(&case["scores"])) {
            all_close("scores", ours, &theirs);
        }
        for (ours, theirs) in history.constraints.iter().zip(table(&case["constraint_scores"])) {
            all_close("constraint", &ours.scores, &theirs);
        }
        let thresholds: Vec<f64> = history.constraints.iter().map(|constraint| constraint.threshold).collect();
        all_close("thresholds", &thresholds, &numbers(&case["thresholds"]));

        let points = Arc::new(Points::new(&history.space, &history.rows));
        let parameters = parameters(&table(&case["parameters"])[0]);
        let (covariance, _) = parameters.covariance(&points);
        for (i, row) in table(&case["kernel"]).iter().enumerate() {
            for (j, theirs) in row.iter().enumerate().take(i + 1) {
                let noise = if i == j { parameters.noise } else { 0.0 };
                close("kernel", covariance[(i, j)] - noise, *theirs);
            }
        }
        for (deterministic, expected) in [false, true].into_iter().zip(case["losses"].as_array().unwrap()) {
            let (loss, gradient) = fit::loss(&points, &history.scores[0], &numbers(&case["raw"]), deterministic);
            close("loss", loss, expected[0].as_f64().unwrap());
            all_close("gradient", &gradient, &numbers(&expected[1]));
        }
        let model = Model::new(Arc::clone(&points), &history.scores[0], parameters).unwrap();
        let beliefs = model.beliefs(&table(&case["points"]));
        let means: Vec<f64> = beliefs.iter().map(|belief| belief.mean).collect();
        let variances: Vec<f64> = beliefs.iter().map(|belief| belief.variance).collect();
        all_close("mean", &means, &numbers(&case["mean"]));
        all_close("variance", &variances, &numbers(&case["variance"]));

        // Both fits stop early; ours may not be worse than that allows.
        let fitted = fit::fit(&points, &history.scores[0], history.space.len(), false).unwrap();
        let found = fitted.parameters();
        let mut raw: Vec<f64> = found.relevance.iter().map(|relevance| relevance.ln()).collect();
        raw.extend([found.scale.ln(), (found.noise - fit::MINIMUM_NOISE).ln()]);
        let loss = fit::loss(&points, &history.scores[0], &raw, false).0;
        let theirs = case["fitted_loss"].as_f64().unwrap();
        assert!(loss < theirs + 0.01, "fitted to {loss}, Optuna to {theirs}");
    }
}

#[test]
fn acquisition_functions_and_their_gradients_are_optunas() {
    let golden = golden();
    let space = golden_space(&golden);
    for row in table(&golden["log_ei"]) {
        close(&format!("log_ei({})", row[0]), acquisition::log_ei(row[0]).0, row[1]);
    }
    let mut compared = 0;
    for case in golden["cases"].as_array().unwrap() {
        for (name, expected) in case["acquisitions"].as_object().unwrap() {
            let (several, waiting) = (name.ends_with("ehvi"), name.starts_with('q'));
            let history = history(case, &space, if several { 2 } else { 1 }, name.contains("logc"), waiting);
            let points = Arc::new(Points::new(&history.space, &history.rows));
            let all = table(&case["parameters"]);
            let model = |scores: &[f64], index: usize| {
                Model::new(Arc::clone(&points), scores, parameters(&all[index])).unwrap()
            };
            let objectives = history.scores.iter().enumerate().map(|(i, scores)| model(scores, i)).collect();
            let constraints = history.constraints.iter().enumerate();
            let constraints = constraints.map(|(i, c)| (model(&c.scores, 2 + i), c.threshold)).collect();
            let normals =
                |offset: usize, dimensions: usize| table(&case["normals"][format!("{}:{dimensions}", 100 + offset)]);
            let function = super::acquisition(objectives, constraints, &history, &normals).unwrap();
            let points = table(&case["points"]);
            for ((point, value), expected) in
                points.iter().zip(function.values(&points)).zip(expected.as_array().unwrap())
            {
                let theirs = expected[0].as_f64().unwrap();
                close(name, value, theirs);
                let (value, gradient) = function.with_gradient(point);
                close(name, value, theirs);
                all_close(&format!("gradient of {name}"), &gradient, &numbers(&expected[1]));
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 3 * 8 * 7);
}

fn complete(number: i64, params: Vec<Param>, values: Vec<f64>) -> Trial {
    Trial { params, values, ..trial(number, State::Complete, None) }
}

/// Suggests trials one after the other, each evaluated at once.
fn optimize(
    space: &Space,
    directions: &[Direction],
    n: i64,
    mut evaluate: impl FnMut(&[Param], &mut Trial) -> Vec<f64>,
) -> Vec<Trial> {
    let mut trials: Vec<Trial> = Vec::new();
    for number in 0..n {
        let request = Request { space, directions, trials: &trials, number, seed: 5 };
        let Suggestion { params, .. } = suggest(&Gp::default(), &request, &[]);
        assert!(params.iter().all(|param| param.distribution.contains(param.value)), "{params:?}");
        let mut trial = complete(number, params.clone(), Vec::new());
        trial.values = evaluate(&params, &mut trial);
        trials.push(trial);
    }
    trials
}

fn float(low: f64, high: f64) -> Distribution {
    Distribution::float(low, high, false, None).unwrap()
}

fn choices(n: i64) -> Distribution {
    Distribution::categorical((0..n).map(ParamValue::Int).collect()).unwrap()
}

const MINIMIZE: &[Direction] = &[Direction::Minimize];

#[test]
fn an_optimum_among_numbers_grids_and_choices_is_found() {
    let space = Space::of([
        ("lr", Distribution::float(1e-6, 1e-1, true, None).unwrap()),
        ("batch", Distribution::int(8, 512, false, 8).unwrap()),
        ("act", choices(3)),
    ]);
    let trials = optimize(&space, &[Direction::Maximize], 30, |params, _| {
        let act = [1.0, 0.0, 0.7][params[2].value as usize];
        vec![-(params[0].value.log10() + 3.4).powi(2) - ((params[1].value - 320.0) / 100.0).powi(2) - act]
    });
    let best = crate::study::best(&trials, Direction::Maximize).unwrap();
    assert!(best.values[0] > -0.01, "{best:?}");
    let request = Request { space: &space, directions: MINIMIZE, trials: &trials, number: 30, seed: 5 };
    assert_eq!(suggest(&Gp::default(), &request, &[]), suggest(&Gp::default(), &request, &[]));
}

#[test]
fn histories_of_all_kinds_are_survived() {
    let one = Space::of([("x", float(-2.0, 3.0))]);
    let lists = Space::of([("a", choices(4)), ("b", choices(2))]);
    let long = Space::of([("n", Distribution::int(1, 1 << 50, true, 1).unwrap()), ("m", float(0.0, 1e300))]);
    for space in [&one, &lists, &long] {
        for kind in 0..5 {
            optimize(space, MINIMIZE, 14, |params, trial| {
                let value = params[0].value;
                if kind == 0 {
                    trial.system_attrs.insert("constraints:never".into(), "2.0".into());
                }
                vec![match (kind, trial.number % 3) {
                    (0, _) => 7.0,
                    (1, 0) => f64::INFINITY,
                    (1, 1) => f64::NEG_INFINITY,
                    (2, _) => f64::INFINITY,
                    (3, _) => value * 1e290,
                    (4, 0) => f64::NAN,
                    _ => value,
                }]
            });
        }
        // One point, again and again, and others that are running there.
        let params: Vec<Param> = space
            .parameters()
            .iter()
            .map(|parameter| {
                let (name, distribution) = (parameter.name.clone(), parameter.distribution.clone());
                Param { name, value: distribution.first(), distribution }
            })
            .collect();
        let mut trials: Vec<Trial> =
            (0..40).map(|number| complete(number, params.clone(), vec![(number % 2) as f64])).collect();
        trials[38..].iter_mut().for_each(|trial| trial.state = State::Running);
        for deterministic_objective in [false, true] {
            let sampler = Gp { deterministic_objective, ..Gp::default() };
            let request = Request { space, directions: MINIMIZE, trials: &trials, number: 40, seed: 1 };
            let suggestion = suggest(&sampler, &request, &[]);
            assert!(suggestion.params.iter().all(|p| p.distribution.contains(p.value)), "{suggestion:?}");
        }
    }
}

#[test]
fn too_few_trials_and_parameters_of_some_trials_are_sampled_uniformly() {
    let mut space = Space::of([("kind", choices(2)), ("depth", float(0.0, 1.0)), ("x", float(0.0, 1.0))]);
    space.set_condition(1, crate::space::Condition { parameter: 0, values: vec![1.0] });
    let trials = optimize(&space, MINIMIZE, 16, |params, _| vec![params[0].value]);
    let at = |sampler: &dyn Sampler, known: usize| {
        let request = Request { space: &space, directions: MINIMIZE, trials: &trials[..known], number: 50, seed: 5 };
        sampler.joint(&request, &mut rand::SeedableRng::seed_from_u64(1)).values
    };
    assert!(at(&Gp::default(), 9).is_empty());
    assert_eq!(at(&Gp { n_startup_trials: 0, ..Gp::default() }, 0), []);
    let joint = at(&Gp::default(), 16);
    assert!(joint[0].is_some() && joint[1].is_none() && joint[2].is_some(), "{joint:?}");
}

#[test]
fn running_trials_are_kept_away_from() {
    let space = Space::of([("x", float(0.0, 1.0))]);
    let trials = optimize(&space, MINIMIZE, 12, |params, _| vec![(6.0 * params[0].value).sin()]);
    let ask = |trials: &[Trial]| {
        let request = Request { space: &space, directions: MINIMIZE, trials, number: 99, seed: 5 };
        suggest(&Gp::default(), &request, &[]).params
    };
    let first = ask(&trials);
    let mut running = trials.clone();
    running.push(Trial { params: first.clone(), ..trial(12, State::Running, None) });
    let second = ask(&running);
    assert!((first[0].value - second[0].value).abs() > 1e-3, "{first:?} {second:?}");
    // The same when it has only been announced, as Optuna's workers do.
    let mut announced = trials.clone();
    let mut waiting = trial(12, State::Running, None);
    let text = format!("{{\"x\": {}}}", first[0].value);
    waiting.system_attrs.insert("gp:relative_params:0".into(), crate::pyjson::dump_text(&text));
    announced.push(waiting);
    assert_eq!(ask(&announced), second);
}

#[test]
fn constraints_are_kept_even_if_some_trials_lack_them() {
    let space = Space::of([("x", float(0.0, 1.0)), ("y", float(0.0, 1.0))]);
    let trials = optimize(&space, MINIMIZE, 35, |params, trial| {
        let (x, y) = (params[0].value, params[1].value);
        if trial.number % 7 != 3 {
            trial.system_attrs.insert("constraints:sum".into(), (1.0 - x - y).to_string());
        }
        vec![x * x + y * y]
    });
    let limited: Vec<Trial> = trials.into_iter().filter(|trial| trial.number % 7 != 3).collect();
    let best = crate::study::best(&limited, Direction::Minimize).unwrap();
    assert!(best.values[0] < 0.52, "{best:?}");
}

#[test]
fn several_objectives_fill_their_front() {
    let space = Space::of([("x", float(-2.0, 4.0)), ("y", float(-2.0, 4.0))]);
    let directions = &[Direction::Minimize, Direction::Maximize];
    let trials = optimize(&space, directions, 20, |params, _| {
        let (x, y) = (params[0].value, params[1].value);
        vec![x * x + y * y, -(x - 2.0).powi(2) - y * y]
    });
    // On the front y is 0 and x between 0 and 2.
    let near = |trial: &&Trial| trial.params[1].value.abs() < 0.15 && (-0.1..2.1).contains(&trial.params[0].value);
    let near: Vec<f64> = trials.iter().filter(near).map(|trial| trial.params[0].value).collect();
    let spread = near.iter().copied().fold(0.0, f64::max) - near.iter().copied().fold(2.0, f64::min);
    assert!(near.len() >= 6 && spread > 1.2, "{near:?}");
    let mut constrained = trials.clone();
    for (number, trial) in constrained.iter_mut().enumerate() {
        trial.system_attrs.insert("constraints:never".into(), format!("{}", 1.0 + number as f64));
    }
    constrained.push(Trial { params: trials[0].params.clone(), ..trial(20, State::Running, None) });
    let request = Request { space: &space, directions, trials: &constrained, number: 99, seed: 5 };
    assert_eq!(suggest(&Gp::default(), &request, &[]).params.len(), 2);
}
