//! A Parzen estimator of one parameter on a grid, with Scott's bandwidth: the densities that PED-ANOVA compares.
//!
//! Scott, "Multivariate density estimation" (1992); grid and constants are those of Optuna's `ScottParzenEstimator`.

use std::f64::consts::SQRT_2;

use crate::space::Distribution;

/// Points of a grid, unless the domain has fewer.
const N_STEPS: usize = 50;
/// Weight of the kernel that covers the whole domain.
const PRIOR_WEIGHT: f64 = 1.0;

/// The density on the grid of a parameter's internal values; `distribution` must have more than one value.
pub(super) fn density(distribution: &Distribution, values: &[f64]) -> Vec<f64> {
    match distribution {
        Distribution::Categorical { choices } => {
            let last = choices.len() - 1;
            categorical(&counts(values.iter().map(|value| value.max(0.0) as usize), last))
        }
        Distribution::Float { low, high, log, step } => {
            let steps = step.map_or(N_STEPS, |step| points((high - low) / step));
            numeric(&counts(on_grid((*low, *high), *log, steps, values), steps - 1))
        }
        Distribution::Int { low, high, log, step, .. } => {
            let (low, high) = (*low as f64, *high as f64);
            let steps =
                if *log { points((high - low + 1.0).log2().ceil()) } else { points((high - low) / *step as f64) };
            numeric(&counts(on_grid((low, high), *log, steps, values), steps - 1))
        }
    }
}

/// Points of a grid with that many steps; at least two.
fn points(steps: f64) -> usize {
    (steps.round_ties_even().clamp(1.0, N_STEPS as f64) as usize + 1).min(N_STEPS)
}

/// The nearest point of a grid for each value; in the middle of two the lower one.
fn on_grid((low, high): (f64, f64), log: bool, steps: usize, values: &[f64]) -> impl Iterator<Item = usize> {
    let scale = move |value: f64| if log { value.ln() } else { value };
    let (low, size) = (scale(low), (scale(high) - scale(low)) / (steps - 1) as f64);
    // What is outside of the domain, or no number, counts at an end of the grid.
    values.iter().map(move |value| ((scale(*value) - low) / size - 0.5).ceil().clamp(0.0, (steps - 1) as f64) as usize)
}

fn counts(indices: impl Iterator<Item = usize>, last: usize) -> Vec<f64> {
    let mut counts = vec![0.0; last + 1];
    indices.for_each(|index| counts[index.min(last)] += 1.0);
    counts
}

/// Kernels: the index on the grid and the share of its observations; the last share is the prior's.
fn kernels(counts: &[f64]) -> (Vec<(usize, f64)>, f64) {
    let total: f64 = counts.iter().sum::<f64>() + PRIOR_WEIGHT;
    let observed = counts.iter().enumerate().filter(|(_, count)| **count > 0.0);
    (observed.map(|(index, count)| (index, count / total)).collect(), PRIOR_WEIGHT / total)
}

fn categorical(counts: &[f64]) -> Vec<f64> {
    let (kernels, prior) = kernels(counts);
    let n = counts.len() as f64;
    let smooth = PRIOR_WEIGHT / (kernels.len() + 1) as f64;
    let row = 1.0 + n * smooth;
    let mut density = vec![prior / n; counts.len()];
    for (index, weight) in kernels {
        density.iter_mut().for_each(|density| *density += weight * smooth / row);
        density[index] += weight / row;
    }
    density
}

fn numeric(counts: &[f64]) -> Vec<f64> {
    let (kernels, prior) = kernels(counts);
    let high = (counts.len() - 1) as f64;
    let sigma = bandwidth(counts);
    let mut density = vec![0.0; counts.len()];
    let observed = kernels.into_iter().map(|(index, weight)| (index as f64, sigma, weight));
    for (mu, sigma, weight) in observed.chain([(high / 2.0, high + 1.0, prior)]) {
        let total = mass((-0.5 - mu) / sigma, (high + 0.5 - mu) / sigma);
        for (index, density) in density.iter_mut().enumerate() {
            let x = index as f64;
            *density += weight * mass((x - 0.5 - mu) / sigma, (x + 0.5 - mu) / sigma) / total;
        }
    }
    density
}

/// Scott's rule with the smaller of deviation and interquartile range, and no kernel narrower than a cell.
fn bandwidth(counts: &[f64]) -> f64 {
    let observed: Vec<(f64, f64)> =
        counts.iter().enumerate().filter(|(_, count)| **count > 0.0).map(|(i, count)| (i as f64, *count)).collect();
    let total: f64 = observed.iter().map(|(_, count)| count).sum();
    let mean = observed.iter().map(|(index, count)| index * count).sum::<f64>() / total;
    let square = observed.iter().map(|(index, count)| (index - mean) * (index - mean) * count).sum::<f64>();
    let deviation = (square / (total - 1.0).max(1.0)).sqrt();
    // The first index whose cumulative count reaches a bound, or exceeds it.
    let quartile = |reached: &dyn Fn(f64) -> bool| {
        let mut cumulative = 0.0;
        let found = observed.iter().find(|(_, count)| {
            cumulative += count;
            reached(cumulative)
        });
        found.or(observed.last()).map_or(0.0, |(index, _)| *index)
    };
    let (first, third) = ((total / 4.0).floor(), (total * 3.0 / 4.0).floor());
    let range = quartile(&|cumulative| cumulative > third) - quartile(&|cumulative| cumulative >= first);
    let scott = 1.059 * (range / 1.34).min(deviation) * total.powf(-0.2);
    // 90 % of the narrowest kernel lie in its own cell.
    let narrowest = 0.5 / 1.64;
    if scott > narrowest { scott } else { narrowest }
}

/// The standard normal's mass between `a` and `b`, from the nearer tail.
fn mass(a: f64, b: f64) -> f64 {
    let below = |x: f64| 0.5 * libm::erfc(-x / SQRT_2);
    if a > 0.0 { below(-a) - below(-b) } else { below(b) - below(a) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::space::ParamValue;

    proptest! {
        #[test]
        fn densities_sum_to_one(values in prop::collection::vec(0.0..40.0_f64, 0..60), kind in 0..4_u8) {
            let distribution = match kind {
                0 => Distribution::float(0.0, 40.0, false, None),
                1 => Distribution::float(0.0, 40.0, false, Some(0.5)),
                2 => Distribution::int(1, 40, true, 1),
                _ => Distribution::categorical((0..40).map(ParamValue::Int).collect()),
            };
            let density = density(&distribution.unwrap(), &values);
            prop_assert!((density.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!(density.iter().all(|density| *density >= 0.0));
        }
    }

    #[test]
    fn grids_are_as_fine_as_the_domain() {
        let size = |distribution: Distribution| density(&distribution, &[1.0, f64::NAN, -1e9, 1e9]).len();
        assert_eq!(size(Distribution::int(0, 1, false, 1).unwrap()), 2);
        assert_eq!(size(Distribution::int(8, 64, false, 8).unwrap()), 8);
        assert_eq!(size(Distribution::int(1, 2, true, 1).unwrap()), 2);
        assert_eq!(size(Distribution::int(1, 100, true, 1).unwrap()), 8);
        assert_eq!(size(Distribution::int(1, 1_000_000, false, 1).unwrap()), 50);
        assert_eq!(size(Distribution::float(0.0, 0.5, false, Some(0.05)).unwrap()), 11);
        assert_eq!(size(Distribution::float(1e-5, 1.0, true, None).unwrap()), 50);
    }
}
