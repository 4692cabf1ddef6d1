//! The parameters of a Gaussian process that explain its points best, with priors against overfitting, as Optuna's `_gp/prior.py`.

use std::sync::Arc;

use super::{
    lbfgs::{Limits, minimize},
    model::{Model, Parameters, Points, log_likelihood},
};

/// The least variance of noise; more is added to it unless the objective is deterministic.
pub(super) const MINIMUM_NOISE: f64 = 1e-6;

/// SciPy's number of iterations, Optuna's size of the gradient.
const LIMITS: Limits = Limits { iterations: 15_000, gradient: 1e-2 };

/// Fits a process to scores at points. `deterministic` fixes the noise at its minimum.
///
/// Where no fit is possible the parameters are all 1. `None` if there is no positive definite covariance even then, which finite
/// points do not bring about.
pub(super) fn fit(points: &Arc<Points>, scores: &[f64], dimensions: usize, deterministic: bool) -> Option<Model> {
    let ones = Parameters::ones(dimensions);
    let mut start: Vec<f64> = vec![0.0; dimensions + 1];
    start.push((ones.noise - 0.99 * MINIMUM_NOISE).ln());
    let bounds = vec![(f64::NEG_INFINITY, f64::INFINITY); start.len()];
    let minimum = minimize(|raw| loss(points, scores, raw, deterministic), &start, &bounds, LIMITS);
    let fitted =
        minimum.and_then(|minimum| Model::new(Arc::clone(points), scores, parameters(&minimum.x, deterministic)));
    fitted.or_else(|| Model::new(Arc::clone(points), scores, ones))
}

/// The parameters whose logs are given; that of the noise is of what it has above its minimum.
fn parameters(raw: &[f64], deterministic: bool) -> Parameters {
    let (relevance, rest) = raw.split_at(raw.len() - 2);
    Parameters {
        relevance: relevance.iter().map(|raw| raw.exp()).collect(),
        scale: rest[0].exp(),
        noise: MINIMUM_NOISE + if deterministic { 0.0 } else { rest[1].exp() },
    }
}

/// Minus the log of the posterior density of the parameters whose logs are given, with its gradient by the logs; infinite where it
/// is undefined.
pub(super) fn loss(points: &Points, scores: &[f64], raw: &[f64], deterministic: bool) -> (f64, Vec<f64>) {
    let parameters = parameters(raw, deterministic);
    let Some((likelihood, mut gradient)) = log_likelihood(points, scores, &parameters) else {
        return (f64::INFINITY, vec![0.0; raw.len()]);
    };
    let (prior, slopes) = log_prior(&parameters);
    for ((gradient, slope), raw) in gradient.iter_mut().zip(slopes).zip(raw) {
        *gradient = -(*gradient + slope) * raw.exp();
    }
    if let Some(by_noise) = gradient.last_mut().filter(|_| deterministic) {
        *by_noise = 0.0;
    }
    (-likelihood - prior, gradient)
}

/// Optuna's prior: one by hand on the relevances, Gamma(2, 1) on the scale, Gamma(1.1, 30) on the noise; with its gradient.
fn log_prior(parameters: &Parameters) -> (f64, Vec<f64>) {
    let (scale, noise) = (parameters.scale, parameters.noise);
    let relevances: f64 = parameters.relevance.iter().map(|relevance| 0.1 / relevance + 0.1 * relevance).sum();
    let value = -relevances + scale.ln() - scale + 0.1 * noise.ln() - 30.0 * noise;
    let mut gradient: Vec<f64> =
        parameters.relevance.iter().map(|relevance| 0.1 / (relevance * relevance) - 0.1).collect();
    gradient.extend([1.0 / scale - 1.0, 0.1 / noise - 30.0]);
    (value, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sampler::gp::domain::{Dimension, quasi_random},
        space::Distribution,
    };

    fn cube(dimensions: usize) -> Vec<Dimension> {
        vec![Dimension::new(&Distribution::float(0.0, 1.0, false, None).unwrap()); dimensions]
    }

    #[test]
    fn the_gradient_of_the_loss_is_its_slope() {
        let rows = quasi_random(&cube(2), 30, 1);
        let points = Points::new(&cube(2), &rows);
        let scores: Vec<f64> = rows.iter().map(|x| (3.0 * x[0]).sin() + x[1]).collect();
        for deterministic in [false, true] {
            let here = [0.3, -0.5, 0.2, -3.0];
            let (_, gradient) = loss(&points, &scores, &here, deterministic);
            for i in 0..4 {
                let moved = |by: f64| {
                    let mut there = here;
                    there[i] += by;
                    loss(&points, &scores, &there, deterministic).0
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((slope - gradient[i]).abs() < 1e-4 * slope.abs().max(1.0), "{i}: {slope} {}", gradient[i]);
            }
        }
    }

    #[test]
    fn what_matters_gets_a_short_scale_and_noise_is_recognised() {
        let rows = quasi_random(&cube(2), 60, 1);
        let points = Arc::new(Points::new(&cube(2), &rows));
        let exact: Vec<f64> = rows.iter().map(|x| (6.0 * x[0]).sin() * 1.4).collect();
        let model = fit(&points, &exact, 2, false).unwrap();
        let (relevance, noise) = (&model.parameters().relevance, model.parameters().noise);
        assert!(relevance[0] > 4.0 * relevance[1] && noise < 0.01, "{:?}", model.parameters());
        let noisy: Vec<f64> = exact.iter().enumerate().map(|(i, y)| y + 0.4 * (i as f64 * 12.9898).sin()).collect();
        let model = fit(&points, &noisy, 2, false).unwrap();
        assert!((0.02..0.2).contains(&model.parameters().noise), "{:?}", model.parameters());
        assert_eq!(fit(&points, &noisy, 2, true).unwrap().parameters().noise, MINIMUM_NOISE);
    }

    #[test]
    fn equal_scores_and_single_points_are_fitted() {
        let rows = quasi_random(&cube(1), 20, 1);
        let points = Arc::new(Points::new(&cube(1), &rows));
        let model = fit(&points, &[0.0; 20], 1, false).unwrap();
        assert!(model.beliefs(&rows).iter().all(|belief| belief.mean.abs() < 1e-9 && belief.variance.is_finite()));
        let one = Arc::new(Points::new(&cube(1), &rows[..1]));
        assert!(fit(&one, &[0.0], 1, true).is_some());
    }
}
