//! Grids against a plain enumeration of the tree of parameters.

use proptest::prelude::*;

use super::*;
use crate::{
    pruner::Hyperband,
    sampler::{Random, seen, suggest},
    space::{Condition, Distribution, ParamValue},
    study::{Direction, Param, State, Trial, tests::trial},
};

const MINIMIZE: &[Direction] = &[Direction::Minimize];

fn choices(count: i64) -> Distribution {
    Distribution::categorical((0..count).map(ParamValue::Int).collect()).unwrap()
}

fn request<'a>(space: &'a Space, trials: &'a [Trial], number: i64, seed: u64) -> Request<'a> {
    Request { space, directions: MINIMIZE, trials, number, seed }
}

fn key(params: &[Param]) -> Vec<(String, u64)> {
    params.iter().map(|param| (param.name.clone(), param.value.to_bits())).collect()
}

/// Suggests a trial and lets it end in that state.
fn step(grid: &Grid, space: &Space, trials: &mut Vec<Trial>, state: State, seed: u64) -> Vec<(String, u64)> {
    let number = trials.len() as i64;
    let params = suggest(grid, &request(space, trials, number, seed), &[]).params;
    let mut next = trial(number, state, Some(0.0));
    next.params = params.clone();
    trials.push(next);
    key(&params)
}

/// Every combination, by going through the tree.
fn enumerate(space: &Space, points: &BTreeMap<String, Vec<f64>>) -> BTreeSet<Vec<(String, u64)>> {
    let mut rows: Vec<Vec<Option<f64>>> = vec![Vec::new()];
    for (index, parameter) in space.parameters().iter().enumerate() {
        let all: Vec<f64> = match (&parameter.distribution, points.get(&parameter.name)) {
            (_, Some(points)) => points.clone(),
            (Distribution::Int { low, high, step, .. }, _) => {
                (*low..=*high).step_by(*step as usize).map(|v| v as f64).collect()
            }
            (Distribution::Categorical { choices }, _) => (0..choices.len()).map(|v| v as f64).collect(),
            (Distribution::Float { low, high, .. }, _) => {
                let step = 0.25;
                (0..=((high - low) / step) as i64).map(|k| low + k as f64 * step).collect()
            }
        };
        let extended = |row: Vec<Option<f64>>| {
            let values: Vec<Option<f64>> =
                if space.active(index, &row) { all.iter().copied().map(Some).collect() } else { vec![None] };
            values.into_iter().map(move |value| [row.clone(), vec![value]].concat())
        };
        rows = rows.into_iter().flat_map(extended).collect();
    }
    let name = |index: usize| space.parameters()[index].name.clone();
    let of = |row: Vec<Option<f64>>| {
        row.into_iter().enumerate().filter_map(|(i, v)| Some((name(i), v?.to_bits()))).collect()
    };
    rows.into_iter().map(of).collect()
}

/// `momentum` for sgd, `nesterov` when the momentum is 1 or 2, points for `lr`.
fn conditional() -> (Grid, Space) {
    let mut space = Space::of([
        ("optimizer", choices(2)),
        ("momentum", Distribution::int(0, 3, false, 1).unwrap()),
        ("nesterov", choices(2)),
        ("lr", Distribution::float(1e-5, 1.0, true, None).unwrap()),
        ("dropout", Distribution::float(0.0, 0.5, false, Some(0.25)).unwrap()),
    ]);
    space.set_condition(1, Condition { parameter: 0, values: vec![0.0] });
    space.set_condition(2, Condition { parameter: 1, values: vec![1.0, 2.0] });
    (Grid { points: [("lr".to_owned(), vec![1e-4, 1e-3, 1e-3])].into() }, space)
}

#[test]
fn every_combination_comes_once_and_then_any() {
    let (grid, space) = conditional();
    // adam, sgd with momentum 0 and 3, and twice two with nesterov; times 2 rates; times 3 dropouts.
    assert_eq!(grid.size(&space), Ok(7 * 2 * 3));
    let (mut trials, mut seen) = (Vec::new(), Vec::new());
    for left in (1..=42).rev() {
        assert_eq!(grid.remaining(&request(&space, &trials, trials.len() as i64, 3)), Some(left));
        let state = [State::Complete, State::Pruned, State::Running][left % 3];
        seen.push(step(&grid, &space, &mut trials, state, 3));
    }
    assert_eq!(grid.remaining(&request(&space, &trials, 42, 3)), Some(0));
    let all = enumerate(&space, &grid.points);
    assert_eq!(seen.iter().cloned().collect::<BTreeSet<_>>(), all);
    // Shuffled, and otherwise by another seed.
    let order = |seed| {
        let mut trials = Vec::new();
        (0..42).map(|_| step(&grid, &space, &mut trials, State::Complete, seed)).collect::<Vec<_>>()
    };
    assert_eq!(order(3), seen);
    assert_ne!(order(4), seen);
    assert!(!seen.is_sorted());
    let again: BTreeSet<_> = (0..40).map(|_| step(&grid, &space, &mut trials, State::Complete, 3)).collect();
    assert!(again.len() > 10 && again.is_subset(&all));
}

#[test]
fn what_failed_was_visited_and_parallel_trials_keep_apart() {
    let (grid, space) = conditional();
    let mut trials = Vec::new();
    let mut seen = BTreeSet::from([step(&grid, &space, &mut trials, State::Fail, 1)]);
    for left in (0..42).rev() {
        assert_eq!(grid.remaining(&request(&space, &trials, trials.len() as i64, 1)), Some(left));
        if left > 0 {
            assert!(seen.insert(step(&grid, &space, &mut trials, State::Complete, 1)));
        }
    }
    // None of them knows of the others.
    let blind: BTreeSet<_> =
        (0..42).map(|number| key(&suggest(&grid, &request(&space, &[], number, 1), &[]).params)).collect();
    assert_eq!(blind.len(), 42);
}

#[test]
fn brackets_of_a_pruner_do_not_hide_what_was_visited() {
    let (grid, space) = conditional();
    let hyperband = Hyperband { max_resource: Some(27), ..Hyperband::default() };
    let mut trials: Vec<Trial> = Vec::new();
    let mut visited = BTreeSet::new();
    for number in 0..42 {
        let shown = seen(&grid, &hyperband, "study", &trials, number);
        let params = suggest(&grid, &request(&space, &shown, number, 2), &[]).params;
        assert!(visited.insert(key(&params)), "trial {number} repeats a combination");
        let mut next = trial(number, State::Complete, Some(0.0));
        next.params = params;
        trials.push(next);
    }
    assert!(seen(&Random, &hyperband, "study", &trials, 42).len() < 42, "others see the trials of their bracket");
}

#[test]
fn trials_of_other_origin_count_by_their_values() {
    let space = Space::of([("n", Distribution::int(1, 3, false, 1).unwrap()), ("c", choices(3))]);
    let grid = Grid::default();
    let mut other = trial(0, State::Complete, Some(1.0));
    let param = |name: &str, value: f64, distribution: Distribution| Param { name: name.into(), value, distribution };
    // The choice 2 has another index there.
    let reversed = Distribution::categorical([2, 1].map(ParamValue::Int).to_vec()).unwrap();
    other.params = vec![param("c", 0.0, reversed), param("n", 3.0, Distribution::int(0, 9, false, 3).unwrap())];
    let mut trials = vec![other];
    assert_eq!(grid.remaining(&request(&space, &trials, 1, 0)), Some(8));
    let seen: BTreeSet<_> = (0..8).map(|_| step(&grid, &space, &mut trials, State::Complete, 0)).collect();
    assert!(seen.len() == 8 && !seen.contains(&vec![("n".into(), 3_f64.to_bits()), ("c".into(), 2_f64.to_bits())]));
    // Off the grid, incomplete, the trial itself.
    for (name, value) in [("n", 2.5), ("n", 7.0), ("n", f64::NAN), ("m", 1.0)] {
        let mut odd = trial(0, State::Complete, Some(1.0));
        let wide = Distribution::float(0.0, 9.0, false, None).unwrap();
        odd.params = vec![param(name, value, wide), param("c", 0.0, choices(3))];
        assert_eq!(grid.remaining(&request(&space, &[odd], 1, 0)), Some(9));
    }
    assert_eq!(grid.remaining(&request(&space, &trials[1..2], 1, 0)), Some(9));
}

#[test]
fn what_has_no_grid_is_named_with_the_remedy() {
    let of = |distribution| Space::of([("x", distribution)]);
    let continuous = of(Distribution::float(0.0, 1.0, false, None).unwrap());
    let problem = Grid::default().check(&continuous).unwrap_err();
    assert!(problem.contains("`x` is continuous") && problem.contains("list of points"), "{problem}");
    let given = |name: &str, points: &[f64]| Grid { points: [(name.to_owned(), points.to_vec())].into() };
    assert_eq!(given("x", &[0.5, 0.25]).size(&continuous), Ok(2));
    for (grid, word) in [
        (given("x", &[0.5, 1.5]), "1.5 is not in the domain"),
        (given("x", &[f64::NAN]), "NaN is not in the domain"),
        (given("x", &[]), "an empty list"),
        (given("y", &[0.5]), "`y`, which is no parameter"),
    ] {
        let problem = grid.check(&continuous).unwrap_err();
        assert!(problem.contains(word), "{problem}");
    }
    let one = of(Distribution::float(0.5, 0.5, false, None).unwrap());
    assert_eq!(Grid::default().size(&one), Ok(1));
    let fine = of(Distribution::float(0.0, 1.0, false, Some(1e-17)).unwrap());
    assert!(Grid::default().check(&fine).unwrap_err().contains("larger step"));
    let wide = Distribution::int(0, 1 << 40, false, 1).unwrap();
    let huge = Space::of([("a", wide.clone()), ("b", wide)]);
    assert!(Grid::default().check(&huge).unwrap_err().contains("2^63"));
    // Without a grid the sampler goes on uniformly.
    assert_eq!(Grid::default().remaining(&request(&huge, &[], 0, 0)), None, "it is no grid");
    assert_eq!(suggest(&Grid::default(), &request(&continuous, &[], 0, 0), &[]).params.len(), 1);
}

#[test]
fn a_grid_too_large_to_list_is_visited_without_a_repetition() {
    let wide = Distribution::int(1, 1 << 20, true, 1).unwrap();
    let space = Space::of([("a", wide.clone()), ("b", wide.clone()), ("c", wide)]);
    let grid = Grid::default();
    assert_eq!(grid.size(&space), Ok(1 << 60));
    let mut trials = Vec::new();
    let seen: BTreeSet<_> = (0..300).map(|_| step(&grid, &space, &mut trials, State::Complete, 5)).collect();
    assert_eq!((seen.len(), grid.remaining(&request(&space, &trials, 300, 5))), (300, Some((1 << 60) - 300)));
    let upper = trials.iter().filter(|trial| trial.params[0].value > f64::from(1 << 19)).count();
    assert!((100..200).contains(&upper), "{upper} of 300 in the upper half");
}

/// A parameter's kind, size, and perhaps the one before that it depends on with a value.
fn spaces() -> impl Strategy<Value = Space> {
    let parameter = (0..3, 1_i64..4, proptest::option::of((0_usize..8, 0_i64..4)));
    proptest::collection::vec(parameter, 1..6).prop_map(|list| {
        let distribution = |kind, size: i64| match kind {
            0 => choices(size),
            1 => Distribution::int(0, 2 * size, false, 2).unwrap(),
            _ => Distribution::float(0.0, 0.25 * size as f64, false, Some(0.25)).unwrap(),
        };
        let named =
            |(index, (kind, size, _)): (usize, &(i32, i64, _))| (format!("p{index}"), distribution(*kind, *size));
        let mut space = Space::of(list.iter().enumerate().map(named));
        for (index, (_, _, condition)) in list.iter().enumerate() {
            let Some((other, value)) = condition.filter(|_| index > 0) else { continue };
            space.set_condition(
                index,
                Condition { parameter: other % index, values: vec![value as f64, 0.5, value as f64] },
            );
        }
        space
    })
}

proptest! {
    #[test]
    fn numbers_and_combinations_are_one_to_one(space in spaces(), seed: u64) {
        let none = BTreeMap::new();
        let plan = Plan::new(&space, &none).unwrap();
        let all = enumerate(&space, &none);
        prop_assert_eq!(plan.size(), all.len() as u64);
        let order = Order::new(plan.size(), seed);
        let mut seen = BTreeSet::new();
        for index in 0..plan.size().min(500) {
            let number = order.at(index);
            let mut one = trial(0, State::Complete, None);
            for (parameter, value) in space.parameters().iter().zip(plan.values(number)) {
                let Some(value) = value else { continue };
                let distribution = parameter.distribution.clone();
                one.params.push(Param { name: parameter.name.clone(), value, distribution });
            }
            prop_assert!(all.contains(&key(&one.params)));
            prop_assert_eq!(plan.combination(&one), Some(number));
            prop_assert!(seen.insert(number));
        }
    }
}
