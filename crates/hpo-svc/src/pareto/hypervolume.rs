//! The hypervolume that points dominate below a reference point, exact in any dimension, and the greedy choice of a subset by it.
//!
//! One objective more than three goes by the exclusive volumes of While, Bradstreet and Barone, "A fast way of calculating exact
//! hypervolumes" (2012), each of them one dimension lower; what is left is swept.

use super::{Unique, order};

/// The volume of what the points dominate within the box that ends at `reference`. Points that do not lie within it add nothing;
/// infinite when the reference or a point is.
pub fn hypervolume(points: &[Vec<f64>], reference: &[f64]) -> f64 {
    let within =
        |point: &&Vec<f64>| point.len() == reference.len() && point.iter().zip(reference).all(|(x, end)| x <= end);
    let points: Vec<Vec<f64>> = points.iter().filter(within).cloned().collect();
    if points.is_empty() {
        return 0.0;
    }
    if reference.iter().any(|end| !end.is_finite()) {
        return f64::INFINITY;
    }
    finite_or_infinity(volume(points, reference))
}

/// Optuna's reference point for the subset of points of one rank: a tenth behind the worst loss of each objective.
pub fn reference_point(points: &[Vec<f64>]) -> Vec<f64> {
    let dimension = points.first().map_or(0, Vec::len);
    let end = |objective: usize| {
        let worst = points.iter().map(|point| point[objective]).fold(f64::NEG_INFINITY, f64::max);
        let end = (1.1 * worst).max(0.9 * worst);
        // A box of no extent would make all points equal.
        if end == 0.0 { 1e-12 } else { end }
    };
    (0..dimension).map(end).collect()
}

/// The indices of `size` points, at most all, that dominate much together: each is the one that adds most to those before it.
/// Duplicates come last. Optuna's `_solve_hssp`.
///
/// Guerreiro, Fonseca and Paquete, "Greedy hypervolume subset selection in low dimensions" (2016).
pub fn subset(points: &[Vec<f64>], size: usize, reference: &[f64]) -> Vec<usize> {
    if size >= points.len() {
        return (0..points.len()).collect();
    }
    if size == 0 {
        return Vec::new();
    }
    let unique = Unique::new(points).first;
    if unique.len() < size {
        let mut chosen = vec![false; points.len()];
        unique.iter().for_each(|index| chosen[*index] = true);
        let duplicates = (0..points.len()).filter(|index| !chosen[*index]).take(size - unique.len());
        let duplicates: Vec<usize> = duplicates.collect();
        duplicates.into_iter().for_each(|index| chosen[index] = true);
        return (0..points.len()).filter(|index| chosen[*index]).collect();
    }
    if unique.len() == size || reference.iter().any(|end| !end.is_finite()) {
        return unique[..size].to_vec();
    }
    let sorted: Vec<&[f64]> = unique.iter().map(|index| points[*index].as_slice()).collect();
    let chosen =
        if reference.len() == 2 { greedy_2d(&sorted, size, reference) } else { greedy(&sorted, size, reference) };
    chosen.into_iter().map(|index| unique[index]).collect()
}

/// Two objectives, points of one front in lexicographic order: what a point adds is the rectangle up to its chosen neighbours.
fn greedy_2d(sorted: &[&[f64]], size: usize, reference: &[f64]) -> Vec<usize> {
    let mut left: Vec<(usize, [f64; 2])> =
        (0..sorted.len()).map(|index| (index, [reference[0], reference[1]])).collect();
    let mut chosen = Vec::with_capacity(size);
    while chosen.len() < size {
        let adds = left.iter().map(|(index, corner)| {
            finite_or_infinity((corner[0] - sorted[*index][0]) * (corner[1] - sorted[*index][1]))
        });
        let Some(at) = first_largest(adds) else { break };
        let (index, _) = left.remove(at);
        for (place, (_, corner)) in left.iter_mut().enumerate() {
            let objective = usize::from(place >= at);
            corner[objective] = corner[objective].min(sorted[index][objective]);
        }
        chosen.push(index);
    }
    chosen
}

/// What a point adds can only shrink while others are chosen: an old value is a bound, and those below the best need no new one.
fn greedy(sorted: &[&[f64]], size: usize, reference: &[f64]) -> Vec<usize> {
    let alone: Vec<f64> = sorted.iter().map(|point| box_volume(point, reference)).collect();
    let mut left: Vec<(usize, f64)> = alone.iter().copied().enumerate().collect();
    let mut chosen: Vec<usize> = Vec::with_capacity(size);
    let mut total = 0.0;
    while let Some(at) = first_largest(left.iter().map(|(_, adds)| *adds)) {
        let (latest, adds) = left.remove(at);
        chosen.push(latest);
        total += adds;
        if chosen.len() >= size {
            break;
        }
        if total == f64::INFINITY {
            // Nothing can be told apart any more.
            left.iter_mut().for_each(|(_, adds)| *adds = f64::INFINITY);
            continue;
        }
        for (index, bound) in &mut left {
            let shared = box_volume(&limited(sorted[latest], sorted[*index]), reference);
            *bound = bound.min(alone[*index] - shared);
        }
        let mut by_bound: Vec<usize> = (0..left.len()).collect();
        by_bound.sort_by(|a, b| order(left[*b].1, left[*a].1));
        let mut best = 0.0_f64;
        for place in by_bound {
            let (index, bound) = &mut left[place];
            if alone[*index] == f64::INFINITY {
                *bound = f64::INFINITY;
            } else if *bound >= best {
                let shared = chosen.iter().map(|other| limited(sorted[*other], sorted[*index])).collect();
                *bound = alone[*index] - volume(shared, reference);
            }
            if *bound >= best {
                best = *bound;
            }
        }
    }
    chosen
}

fn first_largest(values: impl Iterator<Item = f64>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (index, value) in values.enumerate() {
        if best.is_none_or(|(_, other)| value > other) {
            best = Some((index, value));
        }
    }
    best.map(|(index, _)| index)
}

/// The difference of infinities is infinite here: volumes only grow.
fn finite_or_infinity(volume: f64) -> f64 {
    if volume.is_finite() { volume } else { f64::INFINITY }
}

fn box_volume(point: &[f64], reference: &[f64]) -> f64 {
    finite_or_infinity(point.iter().zip(reference).map(|(x, end)| end - x).product())
}

/// The part of `point` that `by` dominates too: the worse of both in each coordinate.
fn limited(point: &[f64], by: &[f64]) -> Vec<f64> {
    point.iter().zip(by).map(|(a, b)| a.max(*b)).collect()
}

/// Points within the box, in any order, dominated ones among them.
fn volume(mut points: Vec<Vec<f64>>, reference: &[f64]) -> f64 {
    match reference {
        [] => 0.0,
        [end] => points.iter().map(|point| end - point[0]).fold(0.0, f64::max),
        [x, y] => {
            let mut staircase = Staircase::new(*x, *y);
            points.iter().for_each(|point| staircase.insert(point[0], point[1]));
            staircase.area
        }
        [first, x, y] => {
            points.sort_by(|a, b| order(a[0], b[0]));
            let mut staircase = Staircase::new(*x, *y);
            let mut sum = 0.0;
            for (index, point) in points.iter().enumerate() {
                staircase.insert(point[1], point[2]);
                sum += staircase.area * (points.get(index + 1).map_or(*first, |next| next[0]) - point[0]);
            }
            sum
        }
        [first, rest @ ..] => {
            // Those that are dominated would only cost time, one level after the other.
            let on_front = super::front(&points);
            let mut keep = on_front.into_iter();
            points.retain(|_| keep.next().unwrap_or(true));
            points.sort_by(|a, b| super::lexicographic(a, b));
            points.dedup();
            let slice = |(index, point): (usize, &Vec<f64>)| {
                let shared = points[..index].iter().map(|before| limited(&before[1..], &point[1..])).collect();
                (first - point[0]) * (box_volume(&point[1..], rest) - volume(shared, rest))
            };
            points.iter().enumerate().map(slice).sum()
        }
    }
}

/// The area that points of the plane dominate, point by point.
struct Staircase {
    /// The front: x grows, y falls.
    steps: Vec<(f64, f64)>,
    end: (f64, f64),
    area: f64,
}

impl Staircase {
    fn new(x: f64, y: f64) -> Self {
        Self { steps: Vec::new(), end: (x, y), area: 0.0 }
    }

    fn insert(&mut self, x: f64, y: f64) {
        let start = self.steps.partition_point(|step| step.0 < x);
        let mut ceiling = if start == 0 { self.end.1 } else { self.steps[start - 1].1 };
        let equal = self.steps.get(start).filter(|step| step.0 == x).map_or(f64::INFINITY, |step| step.1);
        if (start > 0 && ceiling <= y) || equal <= y {
            return;
        }
        let covered = self.steps[start..].iter().take_while(|step| step.1 >= y).count();
        let mut from = x;
        for step in self.steps.drain(start..start + covered) {
            self.area += (step.0 - from) * (ceiling - y);
            (from, ceiling) = step;
        }
        let to = self.steps.get(start).map_or(self.end.0, |step| step.0);
        self.area += (to - from) * (ceiling - y);
        self.steps.insert(start, (x, y));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Cells of a grid that some point dominates.
    fn counted(points: &[Vec<f64>], size: u32, dimension: u32) -> f64 {
        let cells = (0..size.pow(dimension)).filter(|cell| {
            let corner = |objective: usize| f64::from(cell / size.pow(u32::try_from(objective).unwrap()) % size);
            points.iter().any(|point| point.iter().enumerate().all(|(objective, x)| *x <= corner(objective)))
        });
        cells.count() as f64
    }

    proptest! {
        #[test]
        fn the_volume_is_that_of_the_dominated_cells(
            points in (1_usize..6).prop_flat_map(|d| {
                prop::collection::vec(prop::collection::vec((0..5_i32).prop_map(f64::from), d), 1..12)
            }),
        ) {
            let dimension = points[0].len();
            let expected = counted(&points, 4, u32::try_from(dimension).unwrap());
            // Coordinates of 4 lie on the box, where they add nothing.
            prop_assert!((hypervolume(&points, &vec![4.0; dimension]) - expected).abs() < 1e-9);
        }

        #[test]
        fn a_greedy_choice_adds_most_at_each_step(
            points in (2_usize..5).prop_flat_map(|d| {
                prop::collection::vec(prop::collection::vec(0.0..1.0_f64, d), 2..12)
            }),
            size in 1_usize..6,
        ) {
            // A front, as the callers have it.
            let on_front = crate::pareto::front(&points);
            let points: Vec<Vec<f64>> = points.into_iter().zip(on_front).filter(|(_, on)| *on).map(|(p, _)| p).collect();
            let reference = reference_point(&points);
            let chosen = subset(&points, size, &reference);
            prop_assert_eq!(chosen.len(), size.min(points.len()));
            if size >= points.len() {
                return Ok(());
            }
            let together = |indices: &[usize]| {
                hypervolume(&indices.iter().map(|index| points[*index].clone()).collect::<Vec<_>>(), &reference)
            };
            for step in 1..=chosen.len() {
                let reached = together(&chosen[..step]);
                for other in 0..points.len() {
                    let mut instead = chosen[..step - 1].to_vec();
                    instead.push(other);
                    prop_assert!(together(&instead) <= reached + 1e-9);
                }
            }
        }
    }

    #[test]
    fn infinities_duplicates_and_nothing_are_survived() {
        assert_eq!(hypervolume(&[], &[1.0, 1.0]), 0.0);
        assert_eq!(hypervolume(&[vec![2.0, 0.0], vec![f64::NAN, 0.0], vec![0.0]], &[1.0, 1.0]), 0.0);
        assert_eq!(hypervolume(&[vec![0.0, 0.0]], &[1.0, f64::INFINITY]), f64::INFINITY);
        for dimension in 1..6 {
            let points = vec![vec![f64::NEG_INFINITY; dimension], vec![1.0; dimension], vec![1.0; dimension]];
            let reference = vec![2.0; dimension];
            assert_eq!(hypervolume(&points, &reference), f64::INFINITY);
            assert_eq!(subset(&points, 2, &reference), [0, 1]);
            assert_eq!(subset(&points, 1, &vec![f64::INFINITY; dimension]), [0]);
        }
        assert_eq!(reference_point(&[vec![-1.0, 0.0, 2.0], vec![-2.0, 0.0, 1.0]]), [-0.9, 1e-12, 2.2]);
        assert_eq!(
            subset(&[vec![1.0, 1.0], vec![0.0, 2.0], vec![1.0, 1.0], vec![1.0, 1.0]], 3, &[3.0, 3.0]),
            [0, 1, 2]
        );
        assert!(subset(&[], 3, &[]).is_empty() && subset(&[vec![0.0; 3]], 0, &[1.0; 3]).is_empty());
    }
}
