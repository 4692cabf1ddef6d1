//! The Parzen estimator of TPE: one product kernel an observation and a prior kernel, mixed by weights.

use rand::RngExt as _;

use super::{Generator, random::on_grid, truncnorm};
use crate::space::Distribution;

/// A mixture of products of one-dimensional kernels. Kernel `k` of every dimension belongs to observation `k`; the last is the prior.
#[derive(Debug)]
pub(crate) struct Mixture {
    log_weights: Vec<f64>,
    dimensions: Vec<Dimension>,
}

#[derive(Debug)]
enum Dimension {
    /// A row of probabilities a kernel.
    Categorical {
        rows: Vec<Vec<f64>>,
    },
    Numeric(Numeric),
}

/// Truncated normals, in log space for log parameters, over cells of the grid for those with steps.
#[derive(Debug)]
struct Numeric {
    mu: Vec<f64>,
    sigma: Vec<f64>,
    /// Bounds of the kernels: the domain widened by half a step, then in log space.
    bounds: (f64, f64),
    domain: (f64, f64),
    step: Option<f64>,
    log: bool,
    /// log mass of each kernel within the bounds; used by grids only.
    log_masses: Vec<f64>,
}

impl Mixture {
    /// From internal observations, a row each, oldest first, of the dimensions' distributions. With `ageing` the older of many weigh
    /// less.
    pub(super) fn new(distributions: &[&Distribution], observations: &[Vec<f64>], ageing: bool) -> Self {
        let mut weights = if ageing { weights(observations.len()) } else { vec![1.0; observations.len()] };
        weights.push(1.0);
        let total: f64 = weights.iter().sum();
        let column = |i: usize| observations.iter().map(|row| row[i]).collect::<Vec<f64>>();
        Self {
            log_weights: weights.iter().map(|weight| (weight / total).ln()).collect(),
            dimensions: distributions
                .iter()
                .enumerate()
                .map(|(i, distribution)| Dimension::new(distribution, column(i)))
                .collect(),
        }
    }

    /// Draws one point: a kernel by its weight, then each dimension from that kernel.
    pub(super) fn sample(&self, generator: &mut Generator) -> Vec<f64> {
        let kernel = draw(self.log_weights.iter().map(|weight| weight.exp()), generator);
        self.dimensions
            .iter()
            .map(|dimension| match dimension {
                Dimension::Categorical { rows } => draw(rows[kernel].iter().copied(), generator) as f64,
                Dimension::Numeric(numeric) => numeric.sample(kernel, generator),
            })
            .collect()
    }

    /// log density of a point: density where a dimension is continuous, mass of the grid cell or choice where it is discrete.
    pub(crate) fn log_density(&self, point: &[f64]) -> f64 {
        let mut sums = self.log_weights.clone();
        for (dimension, x) in self.dimensions.iter().zip(point) {
            dimension.add_log_density(*x, &mut sums);
        }
        truncnorm::log_sum_exp(sums.iter().copied())
    }
}

/// The weights of `n` observations, oldest first: all 1 below 25, else a linear ramp up to the newest 25, which have 1.
fn weights(n: usize) -> Vec<f64> {
    if n < 25 {
        return vec![1.0; n];
    }
    let ramp = n - 25;
    let start = 1.0 / n as f64;
    let at = |i: usize| if ramp == 1 { start } else { start + (1.0 - start) * i as f64 / (ramp - 1) as f64 };
    (0..ramp).map(at).chain(std::iter::repeat_n(1.0, 25)).collect()
}

/// An index by its probability.
fn draw(probabilities: impl Iterator<Item = f64> + Clone, generator: &mut Generator) -> usize {
    let quantile = generator.random::<f64>();
    let mut sum = 0.0;
    let mut last = 0;
    for (index, probability) in probabilities.enumerate() {
        sum += probability;
        last = index;
        if quantile < sum {
            break;
        }
    }
    last
}

impl Dimension {
    fn new(distribution: &Distribution, observations: Vec<f64>) -> Self {
        match distribution {
            Distribution::Categorical { choices } => Self::Categorical { rows: rows(choices.len(), &observations) },
            Distribution::Float { low, high, log, step } => {
                Self::Numeric(Numeric::new(*low, *high, *step, *log, observations))
            }
            Distribution::Int { low, high, log, step } => {
                Self::Numeric(Numeric::new(*low as f64, *high as f64, Some(*step as f64), *log, observations))
            }
        }
    }

    fn add_log_density(&self, x: f64, sums: &mut [f64]) {
        match self {
            Self::Categorical { rows } => {
                for (sum, row) in sums.iter_mut().zip(rows) {
                    *sum += row.get(x as usize).map_or(f64::NEG_INFINITY, |p| p.ln());
                }
            }
            Self::Numeric(numeric) => numeric.add_log_density(x, sums),
        }
    }
}

/// A row an observation: a share of the prior everywhere and 1 at the choice, normalised; the last row is uniform.
fn rows(n_choices: usize, observations: &[f64]) -> Vec<Vec<f64>> {
    let uniform = vec![1.0 / n_choices as f64; n_choices];
    let share = 1.0 / (observations.len() + 1) as f64;
    let total = share * n_choices as f64 + 1.0;
    let mut rows: Vec<Vec<f64>> = observations
        .iter()
        .map(|observed| (0..n_choices).map(|i| (share + f64::from(i == *observed as usize)) / total).collect())
        .collect();
    rows.push(uniform);
    rows
}

impl Numeric {
    fn new(low: f64, high: f64, step: Option<f64>, log: bool, observations: Vec<f64>) -> Self {
        let margin = step.unwrap_or(0.0) / 2.0;
        let scale = |x: f64| if log { x.ln() } else { x };
        let bounds = (scale(low - margin), scale(high + margin));
        let mut mu: Vec<f64> = observations.into_iter().map(scale).collect();
        let mut sigma = sigmas(&mu, bounds.0, bounds.1);
        mu.push(0.5 * (bounds.0 + bounds.1));
        sigma.push(bounds.1 - bounds.0);
        let log_masses = match step {
            None => Vec::new(),
            Some(_) => {
                let mass =
                    |(mu, sigma): (&f64, &f64)| truncnorm::log_mass((bounds.0 - mu) / sigma, (bounds.1 - mu) / sigma);
                mu.iter().zip(&sigma).map(mass).collect()
            }
        };
        Self { mu, sigma, bounds, domain: (low, high), step, log, log_masses }
    }

    fn sample(&self, kernel: usize, generator: &mut Generator) -> f64 {
        let (mu, sigma) = (self.mu[kernel], self.sigma[kernel]);
        let (low, high) = self.bounds;
        let z = truncnorm::quantile(generator.random::<f64>(), (low - mu) / sigma, (high - mu) / sigma);
        let x = z * sigma + mu;
        let x = if self.log { x.exp() } else { x };
        let (low, high) = self.domain;
        match self.step {
            Some(step) => on_grid(x, low, high, step),
            None => x.clamp(low, high),
        }
    }

    fn add_log_density(&self, x: f64, sums: &mut [f64]) {
        let scale = |x: f64| if self.log { x.ln() } else { x };
        let kernels = self.mu.iter().zip(&self.sigma);
        match self.step {
            None => {
                let x = scale(x);
                for (sum, (mu, sigma)) in sums.iter_mut().zip(kernels) {
                    *sum += truncnorm::log_density(x, *mu, *sigma, self.bounds.0, self.bounds.1);
                }
            }
            Some(step) => {
                let (left, right) = (scale(x - step / 2.0), scale(x + step / 2.0));
                for ((sum, (mu, sigma)), mass) in sums.iter_mut().zip(kernels).zip(&self.log_masses) {
                    *sum += truncnorm::log_mass((left - mu) / sigma, (right - mu) / sigma) - mass;
                }
            }
        }
    }
}

/// The width of each kernel: the larger distance to its neighbours, the ends of the domain counting for a single observation
/// only; never below a part of the domain that shrinks with the number of observations.
fn sigmas(mu: &[f64], low: f64, high: f64) -> Vec<f64> {
    let n = mu.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| mu[*a].total_cmp(&mu[*b]));
    let minimum = (high - low) / 100.0_f64.min(n as f64 + 2.0);
    let mut sigma = vec![0.0; n];
    for (rank, index) in order.iter().enumerate() {
        let here = mu[*index];
        let left = if rank == 0 { low } else { mu[order[rank - 1]] };
        let right = if rank + 1 == n { high } else { mu[order[rank + 1]] };
        let wide = if n >= 2 && rank == 0 {
            right - here
        } else if n >= 2 && rank + 1 == n {
            here - left
        } else {
            (here - left).max(right - here)
        };
        sigma[*index] = wide.clamp(minimum, high - low);
    }
    sigma
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_ramp_up_to_the_newest_25() {
        assert_eq!(weights(3), [1.0; 3]);
        assert_eq!(weights(25), [1.0; 25]);
        assert_eq!(weights(26)[..2], [1.0 / 26.0, 1.0]);
        let many = weights(30);
        assert_eq!((many.len(), many[0], many[4], many[29]), (30, 1.0 / 30.0, 1.0, 1.0));
        assert!((many[1] - (1.0 / 30.0 + 29.0 / 30.0 / 4.0)).abs() < 1e-12);
    }

    #[test]
    fn duplicates_keep_the_smallest_width() {
        assert_eq!(sigmas(&[0.5, 0.5, 0.5], 0.0, 1.0), [0.2, 0.2, 0.2]);
        assert_eq!(sigmas(&[0.2], 0.0, 1.0), [0.8]);
        assert_eq!(sigmas(&[0.9, 0.1], 0.0, 1.0), [0.8, 0.8]);
    }

    #[test]
    fn a_mixture_integrates_to_one() {
        let float = Distribution::float(-1.0, 3.0, false, None).unwrap();
        let int = Distribution::int(0, 4, false, 2).unwrap();
        let mixture = Mixture::new(&[&float, &int], &[vec![0.0, 2.0], vec![2.9, 0.0], vec![2.0, 4.0]], true);
        let cells = 4000;
        let mut sum = 0.0;
        for cell in 0..cells {
            let x = -1.0 + 4.0 * (f64::from(cell) + 0.5) / f64::from(cells);
            for y in [0.0, 2.0, 4.0] {
                sum += mixture.log_density(&[x, y]).exp() * 4.0 / f64::from(cells);
            }
        }
        assert!((sum - 1.0).abs() < 1e-4, "{sum}");
    }
}
