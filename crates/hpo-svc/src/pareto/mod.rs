//! Several objectives: which trials dominate which, ranks of non-domination, the Pareto front, and crowding.
//!
//! A point is a trial's losses: one number an objective, smaller is better. Deb et al., "A fast and elitist multiobjective genetic
//! algorithm: NSGA-II" (2002); the rules for ties, infinities and constraints are those of Optuna 5.0.0.

use std::{borrow::Borrow, cmp::Ordering};

use crate::study::{Direction, State, Trial};

mod hypervolume;

pub use hypervolume::{hypervolume, reference_point, subset};

/// The losses of a trial: its values, negated where the objective is maximized; NaN is the worst there is. `None` unless there is
/// one value a direction.
pub fn losses(trial: &Trial, directions: &[Direction]) -> Option<Vec<f64>> {
    let loss = |(value, direction): (&f64, &Direction)| match direction {
        _ if value.is_nan() => f64::INFINITY,
        Direction::Minimize => *value,
        Direction::Maximize => -value,
    };
    (trial.values.len() == directions.len()).then(|| trial.values.iter().zip(directions).map(loss).collect())
}

/// Whether the first point is nowhere worse than the second one, and somewhere better.
pub fn dominates(a: &[f64], b: &[f64]) -> bool {
    a != b && a.iter().zip(b).all(|(a, b)| a <= b)
}

/// Optuna's `Study.best_trials`: the COMPLETE trials that break no constraint and that no other one of them dominates, in the order
/// given. Trials with equal values are all there; those with NaN among their values are not.
pub fn best_trials<'a, T: Borrow<Trial>>(trials: &'a [T], directions: &[Direction]) -> Vec<&'a Trial> {
    let counts = |trial: &&Trial| {
        trial.state == State::Complete && !trial.values.iter().any(|value| value.is_nan()) && trial.feasible()
    };
    let (trials, points): (Vec<&Trial>, Vec<Vec<f64>>) =
        trials.iter().map(T::borrow).filter(counts).filter_map(|t| Some((t, losses(t, directions)?))).unzip();
    let front = front(&points);
    trials.into_iter().zip(front).filter_map(|(trial, on_front)| on_front.then_some(trial)).collect()
}

/// Which of the points no other one dominates.
pub fn front(points: &[Vec<f64>]) -> Vec<bool> {
    ranks(points, 1).into_iter().map(|rank| rank == 0).collect()
}

/// Which points are the best `count` by whole ranks, of the last of them the part that dominates the largest hypervolume together.
pub fn leading(points: &[Vec<f64>], count: usize) -> Vec<bool> {
    if count >= points.len() {
        return vec![true; points.len()];
    }
    let ranks = ranks(points, count);
    // The ranks that fit as a whole; of the next one a part.
    let (mut tied, mut taken) = (0, 0);
    loop {
        let members = ranks.iter().filter(|rank| **rank == tied).count();
        if members == 0 || taken + members > count {
            break;
        }
        taken += members;
        tied += 1;
    }
    let mut leads: Vec<bool> = ranks.iter().map(|rank| *rank < tied).collect();
    let members: Vec<usize> = (0..points.len()).filter(|index| ranks[*index] == tied).collect();
    let of_rank: Vec<Vec<f64>> = members.iter().map(|index| points[*index].clone()).collect();
    for chosen in subset(&of_rank, count - taken, &reference_point(&of_rank)) {
        leads[members[chosen]] = true;
    }
    leads
}

/// Ranks of non-domination: 0 for the front of all points, 1 for the front of those that are left, and so on; equal points share
/// their rank. Optuna's `_fast_non_domination_rank`.
///
/// The ranks are exact for the best `n_below` points at least; those behind may share the last rank.
pub fn ranks(points: &[Vec<f64>], n_below: usize) -> Vec<usize> {
    if points.is_empty() || n_below == 0 {
        return vec![0; points.len()];
    }
    let Unique { first, of } = Unique::new(points);
    if points[0].len() == 1 {
        return of;
    }
    let n_below = n_below.min(first.len());
    let mut left: Vec<usize> = (0..first.len()).collect();
    let mut ranks = vec![0; first.len()];
    let mut rank = 0;
    while first.len() - left.len() < n_below {
        let mut front: Vec<usize> = Vec::new();
        // In lexicographic order no point is dominated by one behind it, and the first coordinate need not be compared.
        left.retain(|index| {
            let point = &points[first[*index]];
            let behind = |other: &usize| {
                let other = &points[first[*other]];
                !point.iter().zip(other).skip(1).any(|(here, there)| here < there)
            };
            // Of two objectives the second falls along the front: its end is the point to beat.
            let dominated = if point.len() == 2 { front.last().is_some_and(behind) } else { front.iter().any(behind) };
            if !dominated {
                front.push(*index);
                ranks[*index] = rank;
            }
            dominated
        });
        rank += 1;
    }
    for index in left {
        ranks[index] = rank;
    }
    of.into_iter().map(|index| ranks[index]).collect()
}

/// [`ranks`] under constraints: points without penalty come first by domination, the others behind them by their penalty, which is
/// by how much a trial breaks its constraints in all.
///
/// # Panics
/// There is not one penalty a point.
pub fn constrained_ranks(points: &[Vec<f64>], penalties: &[f64], n_below: usize) -> Vec<usize> {
    assert_eq!(points.len(), penalties.len(), "one penalty a point");
    let (feasible, infeasible): (Vec<usize>, Vec<usize>) =
        (0..points.len()).partition(|index| penalties[*index] <= 0.0);
    let of_feasible = ranks(&feasible.iter().map(|index| points[*index].clone()).collect::<Vec<_>>(), n_below);
    let behind = of_feasible.iter().max().map_or(0, |rank| rank + 1);
    let left = n_below.saturating_sub(feasible.len());
    let of_infeasible = ranks(&infeasible.iter().map(|index| vec![penalties[*index]]).collect::<Vec<_>>(), left);
    let mut all = vec![0; points.len()];
    for (index, rank) in feasible.into_iter().zip(of_feasible) {
        all[index] = rank;
    }
    for (index, rank) in infeasible.into_iter().zip(of_infeasible) {
        all[index] = behind + rank;
    }
    all
}

/// How lonely each point is among the others, given the trials' values: the sum over the objectives of the distance between its
/// two neighbours, in widths of the finite values; infinite at the ends. Optuna's `_calc_crowding_distance`.
pub fn crowding_distances(values: &[Vec<f64>]) -> Vec<f64> {
    crowding(values).0
}

/// The indices of the points, the loneliest first. Optuna's `_crowding_distance_sort`.
pub fn by_crowding(values: &[Vec<f64>]) -> Vec<usize> {
    let (distances, mut indices) = crowding(values);
    indices.sort_by(|a, b| order(distances[*a], distances[*b]));
    indices.reverse();
    indices
}

/// The distances, and the indices as the sorting by each objective has left them, which decides among equal distances.
fn crowding(values: &[Vec<f64>]) -> (Vec<f64>, Vec<usize>) {
    let mut distances = vec![0.0; values.len()];
    let mut indices: Vec<usize> = (0..values.len()).collect();
    for objective in 0..values.first().map_or(0, Vec::len) {
        let value = |index: usize| values[index].get(objective).copied().unwrap_or(f64::NAN);
        indices.sort_by(|a, b| order(value(*a), value(*b)));
        let mut sorted = vec![f64::NEG_INFINITY];
        sorted.extend(indices.iter().map(|index| value(*index)));
        sorted.push(f64::INFINITY);
        if sorted[1] == sorted[indices.len()] {
            continue;
        }
        // Both ends are infinite: something is found.
        let smallest = sorted.iter().find(|x| **x != f64::NEG_INFINITY).copied().unwrap_or(f64::INFINITY);
        let largest = sorted.iter().rfind(|x| **x != f64::INFINITY).copied().unwrap_or(f64::NEG_INFINITY);
        let width = if largest > smallest { largest - smallest } else { 1.0 };
        for (at, index) in indices.iter().enumerate() {
            let (before, after) = (sorted[at], sorted[at + 2]);
            // The difference of equal infinities is no distance.
            distances[*index] += if before == after { 0.0 } else { (after - before) / width };
        }
    }
    (distances, indices)
}

/// Points without their duplicates.
struct Unique {
    /// The first point of each value, in lexicographic order of the values.
    first: Vec<usize>,
    /// For each point its place in `first`.
    of: Vec<usize>,
}

impl Unique {
    fn new(points: &[Vec<f64>]) -> Self {
        let mut sorted: Vec<usize> = (0..points.len()).collect();
        sorted.sort_by(|a, b| lexicographic(&points[*a], &points[*b]));
        let mut first: Vec<usize> = Vec::new();
        let mut of = vec![0; points.len()];
        for index in sorted {
            let new = first.last().is_none_or(|last| lexicographic(&points[*last], &points[index]).is_ne());
            if new {
                first.push(index);
            }
            of[index] = first.len() - 1;
        }
        Self { first, of }
    }
}

/// The order of all doubles; zeros of both signs are equal, NaN of positive sign comes last.
fn order(a: f64, b: f64) -> Ordering {
    // -0.0 + 0.0 is 0.0.
    (a + 0.0).total_cmp(&(b + 0.0))
}

fn lexicographic(a: &[f64], b: &[f64]) -> Ordering {
    a.iter().zip(b).map(|(a, b)| order(*a, *b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::study::tests::trial;

    fn points(dimension: usize) -> impl Strategy<Value = Vec<Vec<f64>>> {
        let coordinate = prop_oneof![
            20 => (0..6_i32).prop_map(f64::from),
            1 => Just(f64::INFINITY),
            1 => Just(f64::NEG_INFINITY),
            1 => Just(-0.0),
        ];
        prop::collection::vec(prop::collection::vec(coordinate, dimension), 0..40)
    }

    proptest! {
        #[test]
        fn ranks_are_those_of_the_definition(points in (2_usize..5).prop_flat_map(points)) {
            let ranks = ranks(&points, points.len());
            // A rank is one more than the largest rank of a point that dominates.
            for (point, rank) in points.iter().zip(&ranks) {
                let above = points.iter().zip(&ranks).filter(|(other, _)| dominates(other, point));
                prop_assert_eq!(above.map(|(_, rank)| rank + 1).max().unwrap_or(0), *rank);
            }
            prop_assert_eq!(front(&points), ranks.iter().map(|rank| *rank == 0).collect::<Vec<_>>());
        }

        #[test]
        fn few_ranks_agree_with_all_of_them(points in (1_usize..4).prop_flat_map(points), n in 0_usize..20) {
            let (all, few) = (ranks(&points, points.len()), ranks(&points, n));
            let mut sorted = all.clone();
            sorted.sort_unstable();
            if n > 0 && let Some(last) = sorted.get(n - 1) {
                for (all, few) in all.iter().zip(&few) {
                    let agree = if all <= last { all == few } else { few > last };
                    prop_assert!(agree, "{} and {}", all, few);
                }
            }
        }

        #[test]
        fn feasible_points_come_first(points in points(2), seed: u64) {
            let penalties: Vec<f64> = (0..points.len()).map(|i| ((seed >> (i % 60)) & 3) as f64).collect();
            let ranks = constrained_ranks(&points, &penalties, points.len());
            let all = || penalties.iter().zip(&ranks);
            for (penalty, rank) in all() {
                prop_assert!(all().all(|(other, of_other)| penalty >= other || *other <= 0.0 || rank < of_other));
            }
        }
    }

    #[test]
    fn nan_and_nothing_are_survived() {
        assert!(ranks(&[], 3).is_empty() && by_crowding(&[]).is_empty() && front(&[]).is_empty());
        let odd = [vec![f64::NAN, 1.0, 0.0], vec![f64::NAN, f64::NAN, f64::NAN], vec![0.0, 0.0, 0.0]];
        assert_eq!(ranks(&odd, 3)[2], 0);
        assert_eq!(by_crowding(&odd).len(), 3);
        assert_eq!(constrained_ranks(&odd, &[0.0, f64::NAN, 1.0], 3), [0, 2, 1]);
        assert_eq!(crowding_distances(&[vec![1.0, 2.0]]), [0.0]);
    }

    #[test]
    fn the_best_trials_are_complete_feasible_and_not_dominated() {
        let of = |number: i64, state: State, values: [f64; 2]| {
            let mut trial = trial(number, state, None);
            trial.values = values.to_vec();
            trial
        };
        let mut trials = vec![
            of(0, State::Complete, [1.0, 1.0]),
            of(1, State::Complete, [2.0, 2.0]),
            of(2, State::Complete, [2.0, 2.0]),
            of(3, State::Complete, [1.0, 0.5]),
            of(4, State::Running, [0.0, 9.0]),
            of(5, State::Complete, [0.0, f64::NAN]),
            of(6, State::Complete, [0.0, 9.0]),
            trial(7, State::Complete, Some(0.0)),
        ];
        trials[6].system_attrs.insert("constraints:size".into(), "1.0".into());
        let numbers = |trials: &[Trial]| {
            let best = best_trials(trials, &[Direction::Minimize, Direction::Maximize]);
            best.iter().map(|trial| trial.number).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&trials), [0, 1, 2]);
        trials[6].system_attrs.clear();
        assert_eq!(numbers(&trials), [6]);
        assert_eq!(numbers(&[]), [0_i64; 0]);
    }
}
