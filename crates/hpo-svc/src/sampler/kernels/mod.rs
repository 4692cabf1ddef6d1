//! The Parzen estimator of TPE: one product kernel an observation and a prior kernel, mixed by weights.
//!
//! What a kernel's density has in common for all points is computed once, and everything is linear in the number of observations.

use std::{collections::HashMap, ops::Range};

use rand::RngExt as _;

use super::{Generator, random::on_grid, truncnorm};
use crate::space::Distribution;

/// A mixture of products of one-dimensional kernels. Kernel `k` of every dimension belongs to observation `k`; the last is the prior.
#[derive(Debug)]
pub(crate) struct Mixture {
    weights: Vec<f64>,
    /// Of each kernel: log of its weight and of what its continuous densities share for all points.
    log_shared: Vec<f64>,
    dimensions: Vec<Dimension>,
}

#[derive(Debug)]
enum Dimension {
    Categorical(Categorical),
    Numeric(Numeric),
}

/// Probabilities of choices: a share of the prior everywhere and 1 at the observed choice, normalised; the prior is uniform.
#[derive(Debug)]
struct Categorical {
    n_choices: usize,
    /// The choice of each kernel; `n_choices` for the prior, the last.
    observed: Vec<usize>,
    /// Of a kernel: probability of its own choice, and of any other.
    hit: f64,
    miss: f64,
}

/// Truncated normals, in log space for log parameters, over cells of the grid for those with steps.
#[derive(Debug)]
struct Numeric {
    mu: Vec<f64>,
    sigma: Vec<f64>,
    /// Bounds of the kernels: the domain widened by half a step, then in log space.
    bounds: (f64, f64),
    domain: (f64, f64),
    log: bool,
    density: Density,
}

#[derive(Debug)]
enum Density {
    /// 1 / (sigma sqrt 2) of each kernel.
    Continuous(Vec<f64>),
    Grid(Grid),
}

/// Kernels on a grid: those of the same observation and width are computed once.
#[derive(Debug)]
struct Grid {
    step: f64,
    /// mu, sigma and log mass within the bounds of each different kernel.
    different: Vec<(f64, f64, f64)>,
    /// Which of them each kernel is.
    kernel: Vec<usize>,
}

impl Mixture {
    /// From internal observations, oldest first, a column each dimension. With `ageing` the older of many weigh less.
    pub(super) fn new(distributions: &[&Distribution], observations: Vec<Vec<f64>>, ageing: bool) -> Self {
        let n = observations.first().map_or(0, Vec::len);
        let mut weights = if ageing { weights(n) } else { vec![1.0; n] };
        weights.push(1.0);
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= total);
        let mut log_shared: Vec<f64> = weights.iter().map(|weight| weight.ln()).collect();
        let dimensions = distributions.iter().zip(observations);
        let dimensions = dimensions.map(|(of, column)| Dimension::new(of, column, &mut log_shared)).collect();
        Self { weights, log_shared, dimensions }
    }

    /// Draws one point: a kernel by its weight, then each dimension from that kernel.
    pub(super) fn sample(&self, generator: &mut Generator) -> Vec<f64> {
        let kernel = draw(self.weights.iter().copied(), generator);
        self.dimensions
            .iter()
            .map(|dimension| match dimension {
                Dimension::Categorical(categorical) => categorical.sample(kernel, generator),
                Dimension::Numeric(numeric) => numeric.sample(kernel, generator),
            })
            .collect()
    }

    /// log density of a point: density where a dimension is continuous, mass of the grid cell or choice where it is discrete.
    #[cfg(test)]
    pub(crate) fn log_density(&self, point: &[f64]) -> f64 {
        self.log_densities(&[point.to_vec()])[0]
    }

    /// [`Mixture::log_density`] of several points.
    pub(super) fn log_densities(&self, points: &[Vec<f64>]) -> Vec<f64> {
        let at = |point: &Vec<f64>| -> Vec<At> {
            self.dimensions.iter().zip(point).map(|(dimension, x)| dimension.at(*x)).collect()
        };
        let points: Vec<Vec<At>> = points.iter().map(at).collect();
        let mut sums = vec![truncnorm::LogSum::default(); points.len()];
        let mut logs = [0.0; BLOCK];
        // All points look at a block of kernels while it is at hand.
        for start in (0..self.log_shared.len()).step_by(BLOCK) {
            let block = start..(start + BLOCK).min(self.log_shared.len());
            for (point, sum) in points.iter().zip(&mut sums) {
                let logs = &mut logs[..block.len()];
                logs.copy_from_slice(&self.log_shared[block.clone()]);
                for (dimension, at) in self.dimensions.iter().zip(point) {
                    dimension.add_log_density(at, block.clone(), logs);
                }
                sum.add(logs);
            }
        }
        sums.into_iter().map(truncnorm::LogSum::log).collect()
    }
}

/// Kernels of a block: what one dimension of them takes stays in the nearest cache.
const BLOCK: usize = 512;

/// A coordinate of a point, made ready for all kernels of its dimension.
#[derive(Debug)]
enum At {
    /// In the kernels' scale.
    Continuous(f64),
    /// No kernel reaches there.
    Outside,
    /// log mass of each different kernel.
    Masses(Vec<f64>),
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
fn draw(probabilities: impl Iterator<Item = f64>, generator: &mut Generator) -> usize {
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
    fn at(&self, x: f64) -> At {
        match self {
            Self::Categorical(categorical) => categorical.at(x),
            Self::Numeric(numeric) => numeric.at(x),
        }
    }

    /// Adds the log densities of a block of kernels, but for what [`Mixture::log_shared`] has.
    fn add_log_density(&self, at: &At, block: Range<usize>, logs: &mut [f64]) {
        match (at, self) {
            (At::Continuous(x), Self::Numeric(Numeric { mu, density: Density::Continuous(scales), .. })) => {
                for ((log, mu), scale) in logs.iter_mut().zip(&mu[block.clone()]).zip(&scales[block]) {
                    let z = (x - mu) * scale;
                    *log -= z * z;
                }
            }
            (At::Masses(masses), Self::Categorical(Categorical { observed: kernels, .. }))
            | (
                At::Masses(masses),
                Self::Numeric(Numeric { density: Density::Grid(Grid { kernel: kernels, .. }), .. }),
            ) => {
                for (log, kernel) in logs.iter_mut().zip(&kernels[block]) {
                    *log += masses[*kernel];
                }
            }
            _ => logs.fill(f64::NEG_INFINITY),
        }
    }

    fn new(distribution: &Distribution, observations: Vec<f64>, log_shared: &mut [f64]) -> Self {
        let (low, high, step, log) = match distribution {
            Distribution::Categorical { choices } => {
                return Self::Categorical(Categorical::new(choices.len(), &observations));
            }
            Distribution::Float { low, high, log, step } => (*low, *high, *step, *log),
            Distribution::Int { low, high, log, step } => (*low as f64, *high as f64, Some(*step as f64), *log),
        };
        Self::Numeric(Numeric::new((low, high), step, log, observations, log_shared))
    }
}

impl Categorical {
    fn new(n_choices: usize, observations: &[f64]) -> Self {
        let share = 1.0 / (observations.len() + 1) as f64;
        let total = share * n_choices as f64 + 1.0;
        let observed = observations.iter().map(|choice| (*choice as usize).min(n_choices)).chain([n_choices]);
        Self { n_choices, observed: observed.collect(), hit: (share + 1.0) / total, miss: share / total }
    }

    fn sample(&self, kernel: usize, generator: &mut Generator) -> f64 {
        let probability = |choice| match self.observed[kernel] {
            prior if prior == self.n_choices => 1.0 / self.n_choices as f64,
            observed if observed == choice => self.hit,
            _ => self.miss,
        };
        draw((0..self.n_choices).map(probability), generator) as f64
    }

    fn at(&self, x: f64) -> At {
        let mut masses = vec![self.miss.ln(); self.n_choices];
        if let Some(mass) = masses.get_mut(x as usize) {
            *mass = self.hit.ln();
        }
        masses.push(-(self.n_choices as f64).ln());
        At::Masses(masses)
    }
}

impl Numeric {
    /// For a continuous dimension, what its kernels' densities share for all points is added to `log_shared`.
    fn new(domain: (f64, f64), step: Option<f64>, log: bool, observations: Vec<f64>, log_shared: &mut [f64]) -> Self {
        let margin = step.unwrap_or(0.0) / 2.0;
        let scale = |x: f64| if log { x.ln() } else { x };
        let bounds = (scale(domain.0 - margin), scale(domain.1 + margin));
        let mut mu: Vec<f64> = observations.into_iter().map(scale).collect();
        let mut sigma = super::widths::sigmas(&mu, bounds.0, bounds.1);
        mu.push(0.5 * (bounds.0 + bounds.1));
        sigma.push(bounds.1 - bounds.0);
        let mass = |mu: f64, sigma: f64| truncnorm::log_mass((bounds.0 - mu) / sigma, (bounds.1 - mu) / sigma);
        let density = match step {
            None => {
                // Most kernels have the least width.
                let (mut last, mut log_last) = (1.0, 0.0);
                for ((shared, mu), sigma) in log_shared.iter_mut().zip(&mu).zip(&sigma) {
                    if *sigma != last {
                        (last, log_last) = (*sigma, sigma.ln());
                    }
                    *shared -= truncnorm::LOG_NORMALIZER + log_last + mass(*mu, *sigma);
                }
                Density::Continuous(sigma.iter().map(|sigma| std::f64::consts::FRAC_1_SQRT_2 / sigma).collect())
            }
            Some(step) => {
                let mut known = HashMap::new();
                let mut different = Vec::new();
                let each = mu.iter().zip(&sigma).map(|(mu, sigma)| {
                    *known.entry((mu.to_bits(), sigma.to_bits())).or_insert_with(|| {
                        different.push((*mu, *sigma, mass(*mu, *sigma)));
                        different.len() - 1
                    })
                });
                let kernel = each.collect();
                Density::Grid(Grid { step, different, kernel })
            }
        };
        Self { mu, sigma, bounds, domain, log, density }
    }

    fn sample(&self, kernel: usize, generator: &mut Generator) -> f64 {
        let (mu, sigma) = (self.mu[kernel], self.sigma[kernel]);
        let (low, high) = self.bounds;
        let z = truncnorm::quantile(generator.random::<f64>(), (low - mu) / sigma, (high - mu) / sigma);
        let x = z * sigma + mu;
        let x = if self.log { x.exp() } else { x };
        let (low, high) = self.domain;
        match &self.density {
            Density::Grid(grid) => on_grid(x, low, high, grid.step),
            Density::Continuous(_) => x.clamp(low, high),
        }
    }

    fn at(&self, x: f64) -> At {
        let scale = |x: f64| if self.log { x.ln() } else { x };
        match &self.density {
            Density::Continuous(_) => match scale(x) {
                x if x < self.bounds.0 || x > self.bounds.1 => At::Outside,
                x => At::Continuous(x),
            },
            Density::Grid(grid) => {
                let (left, right) = (scale(x - grid.step / 2.0), scale(x + grid.step / 2.0));
                let mass = |(mu, sigma, mass): &(f64, f64, f64)| {
                    truncnorm::log_mass((left - mu) / sigma, (right - mu) / sigma) - mass
                };
                At::Masses(grid.different.iter().map(mass).collect())
            }
        }
    }
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
    fn a_mixture_integrates_to_one() {
        let float = Distribution::float(-1.0, 3.0, false, None).unwrap();
        let int = Distribution::int(0, 4, false, 2).unwrap();
        let mixture = Mixture::new(&[&float, &int], vec![vec![0.0, 2.9, 2.0], vec![2.0, 0.0, 4.0]], true);
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
