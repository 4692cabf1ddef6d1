//! CMA-ES with a full covariance matrix: Hansen, "The CMA Evolution Strategy: A Tutorial" (arXiv:1604.00772), with active
//! covariance update and the tutorial's constants, as in the Python package `cmaes` that Optuna uses.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

use super::{Member, Start, Strategy, learning::LearningRates, normal, resampled};
use crate::sampler::Generator;

/// Added to squared lengths that are divided by.
const EPS: f64 = 1e-8;
/// The largest step size.
const SIGMA_MAX: f64 = 1e32;

/// The distribution of the next generation, and how it adapts.
#[derive(Debug, Clone)]
pub(super) struct Full {
    start: Start,
    constants: Constants,
    pub(super) generation: u64,
    pub(super) mean: DVector<f64>,
    pub(super) sigma: f64,
    pub(super) covariance: DMatrix<f64>,
    /// Evolution path of the step size.
    pub(super) p_sigma: DVector<f64>,
    /// Evolution path of the covariance.
    pub(super) pc: DVector<f64>,
    /// Eigenvectors of the covariance, and the roots of its eigenvalues.
    basis: DMatrix<f64>,
    scales: DVector<f64>,
    learning: Option<LearningRates>,
}

/// What depends on dimension and population alone; the names and numbers are the tutorial's.
#[derive(Debug, Clone)]
struct Constants {
    /// One for each member, best first; the worse half is negative.
    weights: Vec<f64>,
    mu: usize,
    mu_eff: f64,
    c1: f64,
    cmu: f64,
    cc: f64,
    c_sigma: f64,
    d_sigma: f64,
    /// The expected length of a standard normal vector.
    chi_n: f64,
}

impl Constants {
    fn new(dimensions: usize, population: usize) -> Self {
        let (n, lambda, mu) = (dimensions as f64, population as f64, population / 2);
        let raw: Vec<f64> = (1..=population).map(|i| ((lambda + 1.0) / 2.0).ln() - (i as f64).ln()).collect(); // eq. 49
        let effective = |weights: &[f64]| {
            let (sum, squares) = (weights.iter().sum::<f64>(), weights.iter().map(|w| w * w).sum::<f64>());
            sum * sum / squares
        };
        let (mu_eff, mu_eff_minus) = (effective(&raw[..mu]), effective(&raw[mu..]));
        let c1 = 2.0 / ((n + 1.3).powi(2) + mu_eff);
        let cmu = (2.0 * (mu_eff - 2.0 + 1.0 / mu_eff) / ((n + 2.0).powi(2) + mu_eff)).min(1.0 - c1 - 1e-8);
        let alpha = (1.0 + c1 / cmu) // eq. 50
            .min(1.0 + 2.0 * mu_eff_minus / (mu_eff + 2.0)) // eq. 51
            .min((1.0 - c1 - cmu) / (n * cmu)); // eq. 52
        let positive: f64 = raw.iter().filter(|w| **w > 0.0).sum();
        let negative: f64 = raw.iter().filter(|w| **w < 0.0).map(|w| w.abs()).sum();
        // eq. 53
        let weights = raw.iter().map(|w| if *w >= 0.0 { w / positive } else { w * alpha / negative }).collect();
        let c_sigma = (mu_eff + 2.0) / (n + mu_eff + 5.0); // eq. 55
        Self {
            weights,
            mu,
            mu_eff,
            c1,
            cmu,
            cc: (4.0 + mu_eff / n) / (n + 4.0 + 2.0 * mu_eff / n), // eq. 56
            c_sigma,
            d_sigma: 1.0 + 2.0 * (((mu_eff - 1.0) / (n + 1.0)).sqrt() - 1.0).max(0.0) + c_sigma,
            chi_n: expected_length(n),
        }
    }
}

/// The expected length of a standard normal vector, approximately.
pub(super) fn expected_length(n: f64) -> f64 {
    n.sqrt() * (1.0 - 1.0 / (4.0 * n) + 1.0 / (21.0 * n * n))
}

impl Full {
    /// The distribution before the first generation; `adapt` is for learning rates that follow the noise.
    pub(super) fn new(start: Start, adapt: bool) -> Self {
        let n = start.mean.len();
        let plain = Self {
            constants: Constants::new(n, start.population),
            generation: 0,
            mean: DVector::from_column_slice(&start.mean),
            sigma: start.sigma,
            covariance: DMatrix::identity(n, n),
            p_sigma: DVector::zeros(n),
            pc: DVector::zeros(n),
            basis: DMatrix::identity(n, n),
            scales: DVector::from_element(n, 1.0),
            learning: adapt.then(|| LearningRates::new(n)),
            start,
        };
        let Some(covariance) = plain.start.covariance.clone() else { return plain };
        let mut shaped = Self { covariance, ..plain.clone() };
        if shaped.decompose() { shaped } else { plain }
    }

    /// Members of a generation.
    pub(super) fn population(&self) -> usize {
        self.start.population
    }

    /// A point of the distribution.
    pub(super) fn sample(&self, generator: &mut Generator) -> Vec<f64> {
        let z = self.scales.map(|scale| scale * normal(generator));
        let x = &self.mean + &self.basis * z * self.sigma;
        x.iter().copied().collect()
    }

    /// Starts again from the first distribution, which is a better guess than one that left the numbers of a double.
    pub(super) fn restart(&mut self) {
        *self = Self { generation: self.generation, ..Self::new(self.start.clone(), self.learning.is_some()) };
    }

    /// Adapts to a generation; true when that was a restart.
    pub(super) fn update(&mut self, mut members: Vec<Member>) -> bool {
        self.generation += 1;
        members.sort_by(|a, b| super::order(a.1, b.1));
        let before = self.learning.is_some().then(|| self.clone());
        self.adapt(&members);
        if let (Some(learning), Some(before)) = (&mut self.learning, before) {
            let old =
                (&before.mean, &(&before.covariance * before.sigma.powi(2)), &(before.inverse_root() / before.sigma));
            let adapted = learning.adapt(old, &self.mean, &(&self.covariance * self.sigma.powi(2)));
            if let Some((mean, sigma, covariance)) = adapted {
                (self.mean, self.sigma, self.covariance) = (mean, sigma, covariance);
            } else {
                self.sigma = f64::NAN;
            }
        }
        let broken = !self.decompose();
        if broken {
            self.restart();
        }
        broken
    }

    /// C^(-1/2)
    fn inverse_root(&self) -> DMatrix<f64> {
        &self.basis * DMatrix::from_diagonal(&self.scales.map(f64::recip)) * self.basis.transpose()
    }

    fn adapt(&mut self, members: &[Member]) {
        let Constants { weights, mu, mu_eff, c1, cmu, cc, c_sigma, d_sigma, chi_n } = &self.constants;
        let n = self.mean.len() as f64;
        let y: Vec<DVector<f64>> =
            members.iter().map(|(x, _)| (DVector::from_column_slice(x) - &self.mean) / self.sigma).collect();
        let mut y_w = DVector::zeros(self.mean.len()); // eq. 41
        for (y, weight) in y.iter().zip(weights).take(*mu) {
            y_w.axpy(*weight, y, 1.0);
        }
        let inverse_root = self.inverse_root();
        self.mean.axpy(self.sigma, &y_w, 1.0);

        // Step size.
        let rate = (c_sigma * (2.0 - c_sigma) * mu_eff).sqrt();
        self.p_sigma = &self.p_sigma * (1.0 - c_sigma) + &inverse_root * &y_w * rate;
        let length = self.p_sigma.norm();
        self.sigma = (self.sigma * (c_sigma / d_sigma * (length / chi_n - 1.0)).exp()).min(SIGMA_MAX);

        // Covariance. A long path of the step size means that the path of the covariance would be misled.
        let stalled = length / (1.0 - (1.0 - c_sigma).powf(2.0 * (self.generation as f64 + 1.0))).sqrt()
            >= (1.4 + 2.0 / (n + 1.0)) * chi_n;
        let h_sigma = if stalled { 0.0 } else { 1.0 };
        self.pc = &self.pc * (1.0 - cc) + &y_w * (h_sigma * (cc * (2.0 - cc) * mu_eff).sqrt()); // eq. 45
        let delta = (1.0 - h_sigma) * cc * (2.0 - cc);
        let sum: f64 = weights.iter().sum();
        let mut covariance = &self.covariance * (1.0 + c1 * delta - c1 - cmu * sum); // eq. 47
        covariance.ger(*c1, &self.pc, &self.pc, 1.0);
        for (y, weight) in y.iter().zip(weights) {
            // eq. 46
            let scale = if *weight >= 0.0 { 1.0 } else { n / ((&inverse_root * y).norm_squared() + EPS) };
            covariance.ger(cmu * weight * scale, y, y, 1.0);
        }
        self.covariance = covariance;
    }

    /// Finds the eigenvectors; false when the numbers are not fit for it.
    fn decompose(&mut self) -> bool {
        let finite = |numbers: &[f64]| numbers.iter().all(|number| number.is_finite());
        let fit = self.sigma.is_finite()
            && self.sigma > f64::MIN_POSITIVE
            && [self.mean.as_slice(), self.covariance.as_slice(), self.p_sigma.as_slice(), self.pc.as_slice()]
                .into_iter()
                .all(finite);
        if !fit {
            return false;
        }
        let symmetric = (&self.covariance + self.covariance.transpose()) / 2.0;
        let rounds = 1000 * self.mean.len().max(1);
        let Some(eigen) = SymmetricEigen::try_new(symmetric, f64::EPSILON, rounds) else { return false };
        self.scales = eigen.eigenvalues.map(|value| if value <= 0.0 { EPS } else { value }.sqrt());
        self.basis = eigen.eigenvectors;
        let squares = DMatrix::from_diagonal(&self.scales.map(|scale| scale * scale));
        self.covariance = &self.basis * squares * self.basis.transpose();
        finite(self.scales.as_slice()) && finite(self.basis.as_slice())
    }
}

impl Strategy for Full {
    fn population(&self) -> usize {
        self.start.population
    }

    fn ask(&self, generator: &mut Generator) -> Vec<f64> {
        resampled(self.start.mean.len(), |_| true, || self.sample(generator))
    }

    fn tell(&mut self, members: Vec<Member>) {
        self.update(members);
    }
}
