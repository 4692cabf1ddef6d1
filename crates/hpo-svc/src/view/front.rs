//! Pareto fronts: ranks of non-domination, and the part of a front that keeps most of its hypervolume.
//!
//! Ranks are those of NSGA-II (Deb et al. 2002). The part is chosen greedily by exclusive hypervolume, which is at least 1 - 1/e of
//! the best choice (Guerreiro et al., "Greedy hypervolume subset selection in low dimensions", 2016); hypervolumes are those of
//! While et al., "A fast way of calculating exact hypervolumes" (2012). Optuna splits trials of several objectives in this way.

use std::cmp::Ordering;

use crate::study::{Direction, State, Trial};

/// The trial's values, each negated where larger is better; `None` unless it has one a direction and none is NaN.
pub(super) fn losses(trial: &Trial, directions: &[Direction]) -> Option<Vec<f64>> {
    let fits = trial.values.len() == directions.len() && trial.values.iter().all(|value| !value.is_nan());
    let loss = |(value, direction): (&f64, &Direction)| match direction {
        Direction::Minimize => *value,
        Direction::Maximize => -*value,
    };
    fits.then(|| trial.values.iter().zip(directions).map(loss).collect())
}

/// The feasible COMPLETE trials that no other one dominates, in the order of the study.
pub(super) fn pareto<'a>(trials: &'a [Trial], directions: &[Direction]) -> Vec<&'a Trial> {
    let candidates = trials.iter().filter(|trial| trial.state == State::Complete && trial.feasible());
    let (candidates, points): (Vec<&Trial>, Vec<Vec<f64>>) =
        candidates.filter_map(|trial| Some((trial, losses(trial, directions)?))).unzip();
    let on_front = first_front(&points);
    candidates.into_iter().zip(on_front).filter_map(|(trial, on_front)| on_front.then_some(trial)).collect()
}

fn lexicographic(a: &[f64], b: &[f64]) -> Ordering {
    let unequal = a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
    unequal.unwrap_or(Ordering::Equal)
}

/// Whether `a` is nowhere worse than `b`.
fn covers(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a <= b)
}

/// Which points are on the first front; equal points are all on it or all not.
fn first_front(points: &[Vec<f64>]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|a, b| lexicographic(&points[*a], &points[*b]));
    let mut on_front = vec![false; points.len()];
    let mut front: Vec<usize> = Vec::new();
    for index in order {
        // In this order only a point before can cover one after it.
        let point = &points[index];
        let covered = front.iter().rev().any(|other| covers(&points[*other], point) && points[*other] != *point);
        if !covered {
            on_front[index] = true;
            front.push(index);
        }
    }
    on_front
}

/// The indices of `count` points, ascending: whole fronts from the best, of the last one the part with most hypervolume.
pub(super) fn top(points: &[Vec<f64>], count: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    let mut rest: Vec<usize> = (0..points.len()).collect();
    while chosen.len() < count && !rest.is_empty() {
        let on_front = first_front(&rest.iter().map(|index| points[*index].clone()).collect::<Vec<_>>());
        let pick = |wanted: bool| -> Vec<usize> {
            rest.iter().zip(&on_front).filter_map(|(index, on)| (*on == wanted).then_some(*index)).collect()
        };
        let (front, behind) = (pick(true), pick(false));
        if front.len() <= count - chosen.len() {
            chosen.extend(front);
        } else {
            chosen.extend(part(points, &front, count - chosen.len()));
        }
        rest = behind;
    }
    chosen.sort_unstable();
    chosen
}

/// `count` of the front's points by greedy hypervolume; equal points count once, and are taken in their order when too few differ.
fn part(points: &[Vec<f64>], front: &[usize], count: usize) -> Vec<usize> {
    let mut unique: Vec<usize> = front.to_vec();
    unique.sort_by(|a, b| lexicographic(&points[*a], &points[*b]).then(a.cmp(b)));
    unique.dedup_by(|b, a| points[*a] == points[*b]);
    if unique.len() <= count {
        let again = front.iter().filter(|index| !unique.contains(index)).take(count - unique.len());
        let again: Vec<usize> = again.copied().collect();
        return unique.into_iter().chain(again).collect();
    }
    let reference = reference_point(unique.iter().map(|index| points[*index].as_slice()));
    if reference.iter().any(|bound| !bound.is_finite()) {
        return unique.into_iter().take(count).collect();
    }
    let mut bounds: Vec<(usize, f64)> =
        unique.into_iter().map(|index| (index, volume(&points[index], &reference))).collect();
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < count && !bounds.is_empty() {
        // What a point adds only shrinks while others are chosen: an old figure is a bound, and few have to be computed anew.
        let mut by_bound: Vec<usize> = (0..bounds.len()).collect();
        by_bound.sort_by(|a, b| bounds[*b].1.total_cmp(&bounds[*a].1));
        let mut most = f64::NEG_INFINITY;
        for position in by_bound {
            if bounds[position].1 < most {
                break;
            }
            let point = &points[bounds[position].0];
            bounds[position].1 = exclusive(point, chosen.iter().map(|index| points[*index].as_slice()), &reference);
            most = most.max(bounds[position].1);
        }
        // Without bounds that are stale but above, the first of the largest is the answer.
        let best = bounds.iter().position(|(_, added)| *added == most).unwrap_or(0);
        chosen.push(bounds.remove(best).0);
    }
    chosen
}

/// A point that is a tenth worse than the worst of each objective, as in Optuna.
fn reference_point<'a>(points: impl Iterator<Item = &'a [f64]>) -> Vec<f64> {
    let mut worst: Vec<f64> = Vec::new();
    for point in points {
        worst.resize(point.len(), f64::NEG_INFINITY);
        worst.iter_mut().zip(point).for_each(|(worst, value)| *worst = worst.max(*value));
    }
    worst.into_iter().map(|worst| (1.1 * worst).max(0.9 * worst)).map(|b| if b == 0.0 { 1e-12 } else { b }).collect()
}

fn volume(point: &[f64], reference: &[f64]) -> f64 {
    point.iter().zip(reference).map(|(value, bound)| bound - value).product()
}

/// What `point` dominates and none of the others does.
fn exclusive<'a>(point: &[f64], others: impl Iterator<Item = &'a [f64]>, reference: &[f64]) -> f64 {
    let limit = |other: &[f64]| -> Vec<f64> { other.iter().zip(point).map(|(a, b)| a.max(*b)).collect() };
    let limited: Vec<Vec<f64>> = others.map(limit).collect();
    volume(point, reference) - hypervolume(limited, reference)
}

/// What the points dominate together, up to the reference point.
fn hypervolume(mut points: Vec<Vec<f64>>, reference: &[f64]) -> f64 {
    points.sort_by(|a, b| lexicographic(a, b));
    points.dedup();
    let on_front = first_front(&points);
    let mut keep = on_front.into_iter();
    points.retain(|_| keep.next().unwrap_or(false));
    if reference.len() == 2 {
        let mut ceiling = reference[1];
        let mut total = 0.0;
        for point in &points {
            total += (reference[0] - point[0]) * (ceiling - point[1]);
            ceiling = point[1];
        }
        return total;
    }
    let rest = |index: usize| points[index + 1..].iter().map(Vec::as_slice);
    (0..points.len()).map(|index| exclusive(&points[index], rest(index), reference)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::study::tests::trial;

    #[test]
    fn the_front_keeps_equals_and_skips_what_is_worse_infeasible_or_no_number() {
        let make =
            |number: i64, values: &[f64]| Trial { values: values.to_vec(), ..trial(number, State::Complete, None) };
        let mut infeasible = make(5, &[-9.0, 9.0]);
        infeasible.system_attrs.insert("constraints".into(), "[1.0]".into());
        let trials = [
            make(0, &[1.0, 1.0]),
            make(1, &[1.0, 1.0]),
            make(2, &[2.0, 0.5]),
            make(3, &[0.5, f64::INFINITY]),
            make(4, &[f64::NAN, 9.0]),
            infeasible,
            make(6, &[0.0]),
            trial(7, State::Fail, None),
        ];
        let numbers: Vec<i64> =
            pareto(&trials, &[Direction::Minimize, Direction::Maximize]).iter().map(|trial| trial.number).collect();
        assert_eq!(numbers, [3]);
        let numbers: Vec<i64> =
            pareto(&trials[..3], &[Direction::Minimize, Direction::Maximize]).iter().map(|t| t.number).collect();
        assert_eq!(numbers, [0, 1]);
    }

    #[test]
    fn hypervolumes_of_known_bodies() {
        let two = vec![vec![0.0, 1.0], vec![1.0, 0.0], vec![1.0, 1.0]];
        assert_eq!(hypervolume(two, &[2.0, 2.0]), 3.0);
        let three = vec![vec![0.0, 1.0, 1.0], vec![1.0, 0.0, 1.0], vec![1.0, 1.0, 0.0]];
        assert_eq!(hypervolume(three, &[2.0, 2.0, 2.0]), 4.0);
    }

    fn points(dimensions: usize) -> impl Strategy<Value = Vec<Vec<f64>>> {
        prop::collection::vec(prop::collection::vec((-4_i8..5).prop_map(f64::from), dimensions), 1..25)
    }

    /// Half of the front, each point by what it adds to the hypervolume of those before.
    fn greedy(points: &[Vec<f64>], front: &[usize]) -> Vec<usize> {
        let count = front.len().div_ceil(2);
        let mut rest: Vec<usize> = front.to_vec();
        rest.sort_by(|a, b| lexicographic(&points[*a], &points[*b]).then(a.cmp(b)));
        rest.dedup_by(|b, a| points[*a] == points[*b]);
        if rest.len() <= count {
            return part(points, front, count);
        }
        let reference = reference_point(rest.iter().map(|index| points[*index].as_slice()));
        let mut chosen: Vec<usize> = Vec::new();
        while chosen.len() < count {
            let adds = |index: &usize| {
                exclusive(&points[*index], chosen.iter().map(|chosen| points[*chosen].as_slice()), &reference)
            };
            let added: Vec<f64> = rest.iter().map(adds).collect();
            let most = added.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            chosen.push(rest.remove(added.iter().position(|added| *added == most).unwrap()));
        }
        chosen
    }

    proptest! {
        #[test]
        fn whole_fronts_come_first_and_the_lazy_choice_is_the_plain_greedy_one(
            points in prop_oneof![points(2), points(3), points(4)],
            share in 0.0..=1.0_f64,
        ) {
            let count = (share * points.len() as f64) as usize;
            let chosen = top(&points, count);
            prop_assert_eq!(chosen.len(), count);
            for index in (0..points.len()).filter(|index| !chosen.contains(index)) {
                let beats = |other: &usize| covers(&points[index], &points[*other]) && points[index] != points[*other];
                prop_assert!(!chosen.iter().any(beats));
            }
            let front: Vec<usize> = (0..points.len()).filter(|index| first_front(&points)[*index]).collect();
            prop_assert_eq!(part(&points, &front, front.len().div_ceil(2)), greedy(&points, &front));
        }
    }
}
