//! How much is hoped for at a point: what the next trial maximises.
//!
//! The log of the expected improvement (Ament et al., "Unexpected improvements to expected improvement", 2023), to which the logs of
//! the probabilities to keep each constraint are added (Gardner et al., "Bayesian optimization with inequality constraints", 2014).
//! Where trials are running, or objectives are several, the expectation is one over samples. As Optuna's `_gp/acqf.py`.

use super::{
    model::{Belief, Model, Slopes},
    sampled::Sampled,
};
use crate::sampler::truncnorm::log_ndtr;

/// Added to variances, so that they are never 0.
pub(super) const STABILIZER: f64 = 1e-12;

/// The log of 1 / sqrt(2 pi)
const LOG_DENSITY_AT_0: f64 = -0.918_938_533_204_672_8;

/// Below this the formulas that subtract lose digits, and series take their place.
const TAIL: f64 = -25.0;

/// A function to maximise over the scaled space.
#[derive(Debug)]
pub(super) struct Acquisition {
    /// One an objective; scores are to be large.
    pub(super) objectives: Vec<Model>,
    /// With the value that has to be reached, one a constraint.
    pub(super) constraints: Vec<(Model, f64)>,
    pub(super) hope: Hope,
}

/// What is hoped for from the objectives.
#[derive(Debug)]
pub(super) enum Hope {
    /// An improvement over this score of the only objective; `None` while no trial is feasible: the constraints alone count.
    Improvement(Option<f64>),
    /// An expectation over samples.
    Sampled(Sampled),
}

impl Acquisition {
    fn models(&self) -> impl Iterator<Item = &Model> {
        self.objectives.iter().chain(self.constraints.iter().map(|(model, _)| model))
    }

    /// The mean length scales of the objectives.
    pub(super) fn length_scales(&self, dimensions: usize) -> Vec<f64> {
        let mut mean = vec![0.0; dimensions];
        for model in &self.objectives {
            let shares = model.length_scales().into_iter().map(|scale| scale / self.objectives.len() as f64);
            mean.iter_mut().zip(shares).for_each(|(mean, share)| *mean += share);
        }
        mean
    }

    /// The values at many points.
    pub(super) fn values(&self, rows: &[Vec<f64>]) -> Vec<f64> {
        let mut beliefs: Vec<_> = self.models().map(|model| model.beliefs(rows).into_iter()).collect();
        rows.iter().map(|_| self.judge(&beliefs.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>()).0).collect()
    }

    /// The value at a point.
    pub(super) fn value(&self, x: &[f64]) -> f64 {
        self.judge(&self.models().map(|model| model.belief(x).0).collect::<Vec<_>>()).0
    }

    /// The value at a point and its gradient, which is 0 for choices.
    pub(super) fn with_gradient(&self, x: &[f64]) -> (f64, Vec<f64>) {
        let (beliefs, pulls): (Vec<_>, Vec<_>) = self.models().map(|model| model.belief(x)).unzip();
        let (value, slopes) = self.judge(&beliefs);
        let mut gradient = vec![0.0; x.len()];
        for (pull, slopes) in pulls.iter().zip(&slopes) {
            if *slopes != Slopes::default() {
                gradient.iter_mut().zip(pull(slopes)).for_each(|(sum, part)| *sum += part);
            }
        }
        (value, gradient)
    }

    /// The value for what the models believe, objectives first, with its slopes.
    fn judge(&self, beliefs: &[Belief]) -> (f64, Vec<Slopes>) {
        let (objectives, constraints) = beliefs.split_at(self.objectives.len().min(beliefs.len()));
        let thresholds = self.constraints.iter().map(|(_, threshold)| *threshold);
        let (mut value, mut slopes) = match &self.hope {
            Hope::Improvement(best) => match (best, objectives.first()) {
                (Some(best), Some(belief)) => {
                    let (value, slopes) = log_improvement(belief, *best);
                    (value, vec![slopes])
                }
                _ => (0.0, vec![Slopes::default(); objectives.len()]),
            },
            Hope::Sampled(sampled) if sampled.constrained() => {
                return sampled.judge(objectives, &constraints.iter().zip(thresholds).collect::<Vec<_>>());
            }
            Hope::Sampled(sampled) => sampled.judge(objectives, &[]),
        };
        for (belief, threshold) in constraints.iter().zip(thresholds) {
            let (log, slope) = log_probability(belief, threshold);
            value += log;
            slopes.push(slope);
        }
        (value, slopes)
    }
}

/// log E[max(0, z + N(0, 1))] and its derivative.
pub(super) fn log_ei(z: f64) -> (f64, f64) {
    if z < TAIL {
        // The expectation is the density times (1 - 3 / z² + 15 / z⁴ - ...) / z², the mass the density times (1 - 1 / z² + ...) / -z.
        let (gain, mass) = (tail(z, 3.0), tail(z, 1.0));
        return (LOG_DENSITY_AT_0 - 0.5 * z * z - 2.0 * (-z).ln() + gain.ln(), -z * mass / gain);
    }
    let mass = 0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2);
    let expectation = z * mass + (LOG_DENSITY_AT_0 - 0.5 * z * z).exp();
    (expectation.ln(), mass / expectation)
}

/// 1 - a / z² + a (a + 2) / z⁴ - a (a + 2) (a + 4) / z⁶ + ..., for z in the tail.
fn tail(z: f64, first: f64) -> f64 {
    let (mut sum, mut term, mut factor) = (1.0, 1.0, first);
    for _ in 0..8 {
        term *= -factor / (z * z);
        sum += term;
        factor += 2.0;
    }
    sum
}

/// The log of the improvement over `best` that is expected.
fn log_improvement(belief: &Belief, best: f64) -> (f64, Slopes) {
    let sigma = (belief.variance + STABILIZER).sqrt();
    let z = (belief.mean - best) / sigma;
    let (log, slope) = log_ei(z);
    let by_sigma = (1.0 - slope * z) / sigma;
    (log + sigma.ln(), Slopes { mean: slope / sigma, variance: by_sigma / (2.0 * sigma), cross: Vec::new() })
}

/// The log of the probability to reach the threshold.
fn log_probability(belief: &Belief, threshold: f64) -> (f64, Slopes) {
    let sigma = (belief.variance + STABILIZER).sqrt();
    let z = (belief.mean - threshold) / sigma;
    let log = log_ndtr(z);
    let slope = if z < TAIL { -z / tail(z, 1.0) } else { (LOG_DENSITY_AT_0 - 0.5 * z * z - log).exp() };
    (log, Slopes { mean: slope / sigma, variance: -slope * z / (2.0 * sigma * sigma), cross: Vec::new() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_of_the_expectation_meet() {
        let (above, below) = (log_ei(TAIL + 1e-9), log_ei(TAIL - 1e-9));
        assert!((above.0 - below.0).abs() < 1e-6 && (above.1 - below.1).abs() < 1e-6, "{above:?} {below:?}");
        // An improvement that is certain is linear; one that is out of reach still has a slope towards it.
        assert!((log_ei(50.0).0 - 50.0_f64.ln()).abs() < 1e-12);
        assert!(log_ei(-1e8).0.is_finite() && (log_ei(-1e8).1 / 1e8 - 1.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn slopes_are_those_of_the_values(
            mean in -40.0f64..5.0, variance in 0.01f64..2.0, threshold in -1.0f64..1.0,
        ) {
            for judge in [log_improvement, log_probability] {
                let at = |mean: f64, variance: f64| judge(&Belief { mean, variance, cross: Vec::new() }, threshold);
                let (_, slopes) = at(mean, variance);
                let by_mean = (at(mean + 1e-5, variance).0 - at(mean - 1e-5, variance).0) / 2e-5;
                prop_assert!((by_mean - slopes.mean).abs() < 1e-4 * by_mean.abs().max(1.0), "{by_mean} {slopes:?}");
                let by = 1e-5 * variance;
                let by_variance = (at(mean, variance + by).0 - at(mean, variance - by).0) / (2.0 * by);
                let close = (by_variance - slopes.variance).abs() < 1e-4 * by_variance.abs().max(1.0);
                prop_assert!(close, "{by_variance} {slopes:?}");
            }
        }
    }
}
