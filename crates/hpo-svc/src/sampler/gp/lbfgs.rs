//! Minimisation of a smooth function in a box by a limited-memory quasi-Newton method.
//!
//! The two-loop recursion of L-BFGS (Nocedal and Wright, "Numerical Optimization", algorithm 7.4) on the variables that are free,
//! steps projected onto the box (Bertsekas, "Projected Newton methods", 1982), a line search by halving and doubling for the weak
//! Wolfe conditions. The rules for stopping are those of SciPy's L-BFGS-B, with its defaults where [`Limits`] names none.

use std::collections::VecDeque;

use super::linalg::dot;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Steps.
    pub(super) iterations: usize,
    /// Largest entry of the projected gradient.
    pub(super) gradient: f64,
}

/// Where the search ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Minimum {
    pub(super) x: Vec<f64>,
    pub(super) value: f64,
    /// Steps that were taken.
    pub(super) iterations: usize,
}

/// Pairs of steps and changes of the gradient that are remembered.
const MEMORY: usize = 10;
/// A step that lowers the value by less than this share is the last one: SciPy's `factr` times the precision of a double.
const REDUCTION: f64 = 1e7 * f64::EPSILON;
/// Points that one line search may look at.
const EVALUATIONS: usize = 20;
/// A step must lower the value by this share of what the slope promises (Armijo), ...
const DECREASE: f64 = 1e-4;
/// ... and leave less than this share of the slope (Wolfe).
const CURVATURE: f64 = 0.9;

/// A point with its value and gradient.
#[derive(Debug, Clone)]
struct At {
    x: Vec<f64>,
    value: f64,
    gradient: Vec<f64>,
}

/// Minimises `function`, which answers a value and its gradient, from `start` within `bounds` (one pair a variable, infinite ones
/// allowed). Where the value is not finite the function counts as undefined; `None` when it is so at the start.
pub(super) fn minimize(
    mut function: impl FnMut(&[f64]) -> (f64, Vec<f64>),
    start: &[f64],
    bounds: &[(f64, f64)],
    limits: Limits,
) -> Option<Minimum> {
    let mut evaluate = |x: Vec<f64>| {
        let (value, gradient) = function(&x);
        let defined = value.is_finite() && gradient.iter().all(|entry| entry.is_finite());
        defined.then_some(At { x, value, gradient })
    };
    let mut here = evaluate(project(start.to_vec(), bounds))?;
    let mut pairs: VecDeque<(Vec<f64>, Vec<f64>)> = VecDeque::with_capacity(MEMORY);
    let mut iterations = 0;
    while iterations < limits.iterations && steepness(&here, bounds) > limits.gradient {
        let free: Vec<bool> = here
            .x
            .iter()
            .zip(&here.gradient)
            .zip(bounds)
            .map(|((x, slope), bound)| !((*x <= bound.0 && *slope > 0.0) || (*x >= bound.1 && *slope < 0.0)))
            .collect();
        let direction = direction(&here.gradient, &free, &pairs);
        let Some(next) = line_search(&mut evaluate, &here, &direction, bounds) else {
            // The remembered curvature may be wrong here: once more along the gradient.
            if pairs.is_empty() {
                break;
            }
            pairs.clear();
            continue;
        };
        iterations += 1;
        if pairs.len() == MEMORY {
            pairs.pop_front();
        }
        pairs.push_back((difference(&next.x, &here.x), difference(&next.gradient, &here.gradient)));
        let reduction = here.value - next.value;
        let scale = here.value.abs().max(next.value.abs()).max(1.0);
        here = next;
        if reduction <= REDUCTION * scale {
            break;
        }
    }
    Some(Minimum { x: here.x, value: here.value, iterations })
}

fn project(mut x: Vec<f64>, bounds: &[(f64, f64)]) -> Vec<f64> {
    for (x, (low, high)) in x.iter_mut().zip(bounds) {
        *x = x.max(*low).min(*high);
    }
    x
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// The largest entry of the projected gradient.
fn steepness(here: &At, bounds: &[(f64, f64)]) -> f64 {
    let entries = here.x.iter().zip(&here.gradient).zip(bounds);
    entries.map(|((x, slope), (low, high))| ((x - slope).max(*low).min(*high) - x).abs()).fold(0.0, f64::max)
}

/// The quasi-Newton direction of the free variables; 0 for the others. The gradient's, at most 1 long, where nothing is known yet.
fn direction(gradient: &[f64], free: &[bool], pairs: &VecDeque<(Vec<f64>, Vec<f64>)>) -> Vec<f64> {
    let masked = |v: &[f64]| -> Vec<f64> { v.iter().zip(free).map(|(v, free)| if *free { *v } else { 0.0 }).collect() };
    let slope = masked(gradient);
    let mut pairs: Vec<(Vec<f64>, Vec<f64>, f64)> = pairs
        .iter()
        .map(|(step, change)| {
            let (step, change) = (masked(step), masked(change));
            let curvature = dot(&step, &change);
            (step, change, curvature)
        })
        .collect();
    pairs.retain(|(_, change, curvature)| *curvature > f64::EPSILON * dot(change, change));
    let mut q: Vec<f64> = slope.iter().map(|slope| -slope).collect();
    let mut shares = Vec::with_capacity(pairs.len());
    for (step, change, curvature) in pairs.iter().rev() {
        let share = dot(step, &q) / curvature;
        q.iter_mut().zip(change).for_each(|(q, change)| *q -= share * change);
        shares.push(share);
    }
    let length = dot(&slope, &slope).sqrt();
    let scale = match pairs.last() {
        Some((_, change, curvature)) => curvature / dot(change, change),
        None => 1.0 / length.max(1.0),
    };
    q.iter_mut().for_each(|q| *q *= scale);
    for ((step, change, curvature), share) in pairs.iter().zip(shares.iter().rev()) {
        let back = share - dot(change, &q) / curvature;
        q.iter_mut().zip(step).for_each(|(q, step)| *q += back * step);
    }
    // Rounding may have spoilt it.
    if dot(&q, &slope) < 0.0 && q.iter().all(|q| q.is_finite()) {
        return q;
    }
    slope.iter().map(|slope| -slope / length.max(1.0)).collect()
}

/// The point to step to; `None` when no step lowers the value.
fn line_search(
    evaluate: &mut impl FnMut(Vec<f64>) -> Option<At>,
    here: &At,
    direction: &[f64],
    bounds: &[(f64, f64)],
) -> Option<At> {
    let (mut low, mut high, mut length) = (0.0, f64::INFINITY, 1.0);
    let mut best: Option<At> = None;
    for _ in 0..EVALUATIONS {
        let x = here.x.iter().zip(direction).map(|(x, d)| x + length * d).collect();
        let x = project(x, bounds);
        let step = difference(&x, &here.x);
        let slope = dot(&here.gradient, &step);
        // At the end of the box in every direction, or too close to tell points apart.
        let stuck = best.as_ref().is_some_and(|best| best.x == x);
        if slope >= 0.0 || stuck {
            break;
        }
        let next = evaluate(x);
        match next {
            Some(next) if next.value <= here.value + DECREASE * slope => {
                let flat = dot(&next.gradient, &step) >= CURVATURE * slope;
                best = Some(next);
                if flat {
                    break;
                }
                low = length;
                length = if high.is_finite() { f64::midpoint(low, high) } else { 2.0 * length };
            }
            next => {
                high = length;
                // Where the parabola through what is known has its lowest point, while that is a safe guess.
                let share = match &next {
                    Some(next) if low == 0.0 => (-0.5 * slope / (next.value - here.value - slope)).clamp(0.1, 0.5),
                    _ => 0.5,
                };
                length = low + share * (high - low);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { iterations: 500, gradient: 1e-8 };
    const OPEN: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

    fn rosenbrock(x: &[f64]) -> (f64, Vec<f64>) {
        let mut gradient = vec![0.0; x.len()];
        let mut value = 0.0;
        for i in 0..x.len() - 1 {
            let (a, b) = (x[i + 1] - x[i] * x[i], 1.0 - x[i]);
            value += 100.0 * a * a + b * b;
            gradient[i] -= 400.0 * a * x[i] + 2.0 * b;
            gradient[i + 1] += 200.0 * a;
        }
        (value, gradient)
    }

    #[test]
    fn the_curved_valley_is_followed_to_its_end() {
        let minimum = minimize(rosenbrock, &[-1.2, 1.0, -0.5, 2.0], &[OPEN; 4], LIMITS).unwrap();
        assert!(minimum.x.iter().all(|x| (x - 1.0).abs() < 1e-4), "{minimum:?}");
        assert!(minimum.iterations < 150, "{minimum:?}");
    }

    #[test]
    fn bounds_hold_and_the_end_at_a_bound_is_the_best_there() {
        // With x <= 0.5 the lowest point is (0.5, 0.25).
        let bounds = [(-2.0, 0.5), (-2.0, 2.0)];
        let minimum = minimize(rosenbrock, &[-1.2, 1.0], &bounds, LIMITS).unwrap();
        assert!((minimum.x[0] - 0.5).abs() < 1e-9 && (minimum.x[1] - 0.25).abs() < 1e-5, "{minimum:?}");
        let corner = minimize(|x| (x[0] + x[1], vec![1.0, 1.0]), &[0.3, 9.0], &[(0.0, 1.0); 2], LIMITS).unwrap();
        assert_eq!((corner.x, corner.value), (vec![0.0, 0.0], 0.0));
    }

    #[test]
    fn undefined_regions_are_kept_out_of() {
        let barrier = |x: &[f64]| (x[0] - x[0].ln(), vec![1.0 - 1.0 / x[0]]);
        let minimum = minimize(barrier, &[1e-3], &[OPEN], LIMITS).unwrap();
        assert!((minimum.x[0] - 1.0).abs() < 1e-4, "{minimum:?}");
        assert_eq!(minimize(|_| (f64::NAN, vec![0.0]), &[1.0], &[OPEN], LIMITS), None);
        let flat = minimize(|_| (1.0, vec![0.0]), &[1.0], &[OPEN], LIMITS).unwrap();
        assert_eq!((flat.x, flat.iterations), (vec![1.0], 0));
        assert_eq!(minimize(|_| (1.0, vec![]), &[], &[], LIMITS).unwrap().value, 1.0);
    }

    proptest! {
        #[test]
        fn boxes_around_bowls(
            centre in prop::collection::vec(-2.0f64..2.0, 1..6),
            start in prop::collection::vec(-1.0f64..1.0, 6),
            stretch in prop::collection::vec(0.01f64..100.0, 6),
        ) {
            let bowl = |x: &[f64]| {
                let gap: Vec<f64> = x.iter().zip(&centre).map(|(x, c)| x - c).collect();
                let value = gap.iter().zip(&stretch).map(|(g, s)| s * g * g).sum();
                (value, gap.iter().zip(&stretch).map(|(g, s)| 2.0 * s * g).collect())
            };
            let bounds = vec![(-1.0, 1.0); centre.len()];
            let start = &start[..centre.len()];
            let minimum = minimize(bowl, start, &bounds, LIMITS).unwrap();
            // Judged by the value: along a direction that hardly matters the search may stop early.
            let best = bowl(&centre.iter().map(|c| c.clamp(-1.0, 1.0)).collect::<Vec<_>>()).0;
            prop_assert!(minimum.value - best <= 1e-6 * (1.0 + bowl(start).0 - best), "{:?} {:?}", minimum, centre);
        }
    }
}
