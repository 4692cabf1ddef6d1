//! Uniform sampling: in log space for log domains, with half a step of margin on grids, as Optuna's RandomSampler does.

use rand::RngExt as _;

use super::{Generator, Joint, Request, Sampler};
use crate::space::Distribution;

/// Ignores the history.
#[derive(Debug, Clone, Copy, Default)]
pub struct Random;

impl Sampler for Random {
    fn joint(&self, _: &Request<'_>, _: &mut Generator) -> Joint {
        Joint::default()
    }
}

/// One internal value, uniform over the domain.
pub(super) fn uniform(distribution: &Distribution, generator: &mut Generator) -> f64 {
    if distribution.single() {
        return distribution.first();
    }
    let mut between = |low: f64, high: f64| low + generator.random::<f64>() * (high - low);
    match distribution {
        Distribution::Float { low, high, log: true, .. } => between(low.ln(), high.ln()).exp().clamp(*low, *high),
        Distribution::Float { low, high, step: Some(step), .. } => {
            let value = between(low - step / 2.0, high + step / 2.0);
            on_grid(value, *low, *high, *step)
        }
        Distribution::Float { low, high, .. } => between(*low, *high).clamp(*low, *high),
        Distribution::Int { low, high, log: true, .. } => {
            let (low, high) = (*low as f64, *high as f64);
            between((low - 0.5).ln(), (high + 0.5).ln()).exp().round_ties_even().clamp(low, high)
        }
        Distribution::Int { low, high, step, .. } => {
            let (low, high, step) = (*low as f64, *high as f64, *step as f64);
            on_grid(between(low - step / 2.0, high + step / 2.0), low, high, step)
        }
        Distribution::Categorical { choices } => generator.random_range(0..choices.len()) as f64,
    }
}

/// The nearest point of the grid inside of the range.
pub(super) fn on_grid(value: f64, low: f64, high: f64, step: f64) -> f64 {
    (((value - low) / step).round_ties_even() * step + low).clamp(low, high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        sampler::suggest,
        space::{ParamValue, Space},
        study::Direction,
    };

    fn space() -> Space {
        Space::of(vec![
            ("log", Distribution::float(1e-5, 1e-1, true, None).unwrap()),
            ("grid", Distribution::float(0.0, 1.0, false, Some(0.3)).unwrap()),
            ("int", Distribution::int(-3, 9, false, 4).unwrap()),
            ("intlog", Distribution::int(1, 1000, true, 1).unwrap()),
            ("choice", Distribution::categorical(vec![ParamValue::Null, ParamValue::Int(3)]).unwrap()),
            ("one", Distribution::float(2.5, 2.5, false, None).unwrap()),
        ])
    }

    fn sample(seed: u64, number: i64) -> Vec<f64> {
        let space = space();
        let directions = &[Direction::Minimize];
        let request = Request { space: &space, directions, trials: &[], number, seed };
        suggest(&Random, &request, &[]).params.iter().map(|param| param.value).collect()
    }

    proptest! {
        #[test]
        fn samples_lie_in_their_domains_and_repeat(seed: u64, number in 0i64..1_000_000) {
            let values = sample(seed, number);
            for (parameter, value) in space().parameters().iter().zip(&values) {
                prop_assert!(parameter.distribution.contains(*value), "{} {}", parameter.name, value);
            }
            prop_assert_eq!(&values, &sample(seed, number));
            prop_assert_ne!(&values[..1], &sample(seed, number + 1)[..1]);
        }
    }

    #[test]
    fn every_grid_point_is_as_likely_as_the_others_and_log_halves_are_equal() {
        let samples: Vec<Vec<f64>> = (0..4000).map(|number| sample(7, number)).collect();
        let share = |test: &dyn Fn(&[f64]) -> bool| samples.iter().filter(|s| test(s)).count() as f64 / 4000.0;
        for point in [-3.0, 1.0, 5.0, 9.0] {
            assert!((share(&|s| s[2] == point) - 0.25).abs() < 0.03);
        }
        for point in 0..4 {
            assert!((share(&|s| (s[1] - 0.3 * f64::from(point)).abs() < 1e-9) - 0.25).abs() < 0.03);
        }
        assert!((share(&|s| s[0] < 1e-3) - 0.5).abs() < 0.03);
        assert!((share(&|s| s[4] == 0.0) - 0.5).abs() < 0.03);
    }
}
