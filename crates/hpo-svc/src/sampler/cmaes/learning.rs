//! Learning rates of CMA-ES that follow the signal-to-noise ratio of its steps: Nomura, Akimoto and Ono, "CMA-ES with Learning
//! Rate Adaptation" (arXiv:2304.03473), with the constants of the Python package `cmaes`.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

const ALPHA: f64 = 1.4;
const GAMMA: f64 = 0.1;
const SIGMA_MAX: f64 = 1e32;

/// The rates of the mean and of the covariance.
#[derive(Debug, Clone)]
pub(super) struct LearningRates {
    mean: Rate,
    covariance: Rate,
}

/// One rate and the moving averages that it follows.
#[derive(Debug, Clone)]
struct Rate {
    eta: f64,
    beta: f64,
    /// Average of the steps, and of their squared lengths.
    steps: DMatrix<f64>,
    lengths: f64,
}

impl Rate {
    fn new(rows: usize, columns: usize, beta: f64) -> Self {
        Self { eta: 1.0, beta, steps: DMatrix::zeros(rows, columns), lengths: 0.0 }
    }

    /// Takes one step, in coordinates in which the old distribution is standard.
    fn follow(&mut self, step: &DMatrix<f64>) {
        let beta = self.beta;
        self.steps = &self.steps * (1.0 - beta) + step * beta;
        self.lengths = (1.0 - beta) * self.lengths + beta * step.norm_squared();
        let average = self.steps.norm_squared();
        let ratio = (average - beta / (2.0 - beta) * self.lengths) / (self.lengths - average);
        let relative = (ratio / ALPHA / self.eta - 1.0).clamp(-1.0, 1.0);
        self.eta = (self.eta * ((GAMMA * self.eta).min(beta) * relative).exp()).min(1.0);
    }
}

impl LearningRates {
    pub(super) fn new(dimensions: usize) -> Self {
        Self { mean: Rate::new(dimensions, 1, 0.1), covariance: Rate::new(dimensions, dimensions, 0.03) }
    }

    /// From the mean, the covariance and the root of its inverse before an update, and those that the update wants: mean, step size
    /// and covariance to be. `None` when there is no such covariance.
    pub(super) fn adapt(
        &mut self,
        (old_mean, old, inverse_root): (&DVector<f64>, &DMatrix<f64>, &DMatrix<f64>),
        mean: &DVector<f64>,
        covariance: &DMatrix<f64>,
    ) -> Option<(DVector<f64>, f64, DMatrix<f64>)> {
        let (step, change) = (mean - old_mean, covariance - old);
        let before = self.mean.eta;
        let local = inverse_root * &step;
        self.mean.follow(&DMatrix::from_column_slice(local.len(), 1, local.as_slice()));
        self.covariance.follow(&(inverse_root * &change * inverse_root / 2_f64.sqrt()));

        let mean = old_mean + step * self.mean.eta;
        let all = old + change * self.covariance.eta;
        if all.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let n = mean.len();
        let values = SymmetricEigen::try_new(all.clone(), f64::EPSILON, 1000 * n.max(1))?.eigenvalues;
        // The step size is the geometric mean of the axes.
        let log: f64 = values.iter().map(|value| value.ln()).sum();
        let sigma = (log / 2.0 / n as f64).exp().min(SIGMA_MAX);
        let covariance = all / (sigma * sigma);
        Some((mean, sigma * before / self.mean.eta, covariance))
    }
}
