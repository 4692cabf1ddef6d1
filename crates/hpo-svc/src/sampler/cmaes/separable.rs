//! CMA-ES with a diagonal covariance matrix, whose cost and number of trials grow linearly with the dimension: Ros and Hansen,
//! "A Simple Modification in CMA-ES Achieving Linear Time and Space Complexity" (2008), as in the Python package `cmaes`.

use super::{Member, Start, Strategy, full::expected_length, normal, resampled};
use crate::sampler::Generator;

/// The largest step size.
const SIGMA_MAX: f64 = 1e32;

/// The distribution of the next generation, and how it adapts.
#[derive(Debug, Clone)]
pub(super) struct Separable {
    start: Start,
    /// Of the better half, best first.
    weights: Vec<f64>,
    mu_eff: f64,
    pub(super) generation: u64,
    pub(super) mean: Vec<f64>,
    pub(super) sigma: f64,
    /// The diagonal of the covariance.
    pub(super) variances: Vec<f64>,
    pub(super) p_sigma: Vec<f64>,
    pub(super) pc: Vec<f64>,
}

impl Separable {
    /// The distribution before the first generation.
    pub(super) fn new(start: Start) -> Self {
        let (n, mu) = (start.mean.len(), start.population / 2);
        let raw: Vec<f64> = (1..=mu).map(|i| (mu as f64 + 1.0).ln() - (i as f64).ln()).collect();
        let sum: f64 = raw.iter().sum();
        let weights: Vec<f64> = raw.iter().map(|weight| weight / sum).collect();
        Self {
            mu_eff: 1.0 / weights.iter().map(|weight| weight * weight).sum::<f64>(),
            weights,
            generation: 0,
            mean: start.mean.clone(),
            sigma: start.sigma,
            variances: vec![1.0; n],
            p_sigma: vec![0.0; n],
            pc: vec![0.0; n],
            start,
        }
    }

    fn adapt(&mut self, members: &[Member]) {
        let (n, mu_eff) = (self.mean.len() as f64, self.mu_eff);
        let c1 = 2.0 / ((n + 1.3).powi(2) + mu_eff);
        let cmu_full = 2.0 / mu_eff / (n + 2_f64.sqrt()).powi(2)
            + (1.0 - 1.0 / mu_eff) * ((2.0 * mu_eff - 1.0) / ((n + 2.0).powi(2) + mu_eff)).min(1.0);
        let cmu = (n + 2.0) / 3.0 * cmu_full;
        let c_sigma = (mu_eff + 2.0) / (n + mu_eff + 3.0);
        let d_sigma = 1.0 + 2.0 * (((mu_eff - 1.0) / (n + 1.0)).sqrt() - 1.0).max(0.0) + c_sigma;
        let (cc, chi_n) = (4.0 / (n + 4.0), expected_length(n));

        let step = |member: &Member, i: usize| (member.0[i] - self.mean[i]) / self.sigma;
        let best = || members.iter().zip(&self.weights);
        let dimensions = 0..self.mean.len();
        let y_w: Vec<f64> =
            dimensions.clone().map(|i| best().map(|(member, weight)| weight * step(member, i)).sum()).collect();
        let squares: Vec<f64> =
            dimensions.map(|i| best().map(|(member, weight)| weight * step(member, i).powi(2)).sum()).collect();

        let rate = (c_sigma * (2.0 - c_sigma) * mu_eff).sqrt();
        for ((path, y), variance) in self.p_sigma.iter_mut().zip(&y_w).zip(&self.variances) {
            *path = (1.0 - c_sigma) * *path + rate * y / variance.sqrt();
        }
        for (mean, y) in self.mean.iter_mut().zip(&y_w) {
            *mean += self.sigma * y;
        }
        let length = self.p_sigma.iter().map(|path| path * path).sum::<f64>().sqrt();
        self.sigma = (self.sigma * (c_sigma / d_sigma * (length / chi_n - 1.0)).exp()).min(SIGMA_MAX);
        let stalled = length / (1.0 - (1.0 - c_sigma).powf(2.0 * (self.generation as f64 + 1.0))).sqrt()
            >= (1.4 + 2.0 / (n + 1.0)) * chi_n;
        let h_sigma = if stalled { 0.0 } else { 1.0 };
        let keep = 1.0 + c1 * (1.0 - h_sigma) * cc * (2.0 - cc) - c1 - cmu * self.weights.iter().sum::<f64>();
        let rate = h_sigma * (cc * (2.0 - cc) * mu_eff).sqrt();
        for (((path, y), square), variance) in self.pc.iter_mut().zip(&y_w).zip(&squares).zip(&mut self.variances) {
            *path = (1.0 - cc) * *path + rate * y;
            *variance = keep * *variance + c1 * *path * *path + cmu * square;
        }
    }

    /// Whether the numbers can go on.
    fn fit(&self) -> bool {
        let paths = self.mean.iter().chain(&self.p_sigma).chain(&self.pc);
        let variances = self.variances.iter().all(|variance| variance.is_finite() && *variance > 0.0);
        variances && self.sigma.is_finite() && self.sigma > f64::MIN_POSITIVE && paths.copied().all(f64::is_finite)
    }
}

impl Strategy for Separable {
    fn population(&self) -> usize {
        self.start.population
    }

    fn ask(&self, generator: &mut Generator) -> Vec<f64> {
        let sample = || {
            let axes = self.mean.iter().zip(&self.variances);
            axes.map(|(mean, variance)| mean + self.sigma * variance.sqrt() * normal(generator)).collect()
        };
        resampled(self.mean.len(), |_| true, sample)
    }

    fn tell(&mut self, mut members: Vec<Member>) {
        self.generation += 1;
        members.sort_by(|a, b| super::order(a.1, b.1));
        self.adapt(&members);
        if !self.fit() {
            *self = Self { generation: self.generation, ..Self::new(self.start.clone()) };
        }
    }
}
