//! The Parzen estimator of TPE: one product kernel an observation and a prior kernel, mixed by weights.
//!
//! What a kernel's density has in common for all points is computed once and kept while observations come and go; a point is
//! compared with every kernel in its first dimension only, and in the others with those that can still matter.

use rand::RngExt as _;

use super::{Generator, truncnorm::LogSum, widths::Changed};
use crate::space::Distribution;

mod dimension;
mod near;

use dimension::{At, Dimension};
use near::{BLOCK, Near};

/// A mixture of products of one-dimensional kernels. Kernel `k` of every dimension belongs to observation `k`; beside them is the prior.
#[derive(Debug)]
pub(crate) struct Mixture {
    weights: Weights,
    /// Of each kernel: log of what its continuous densities share for all points.
    shared: Vec<f64>,
    dimensions: Vec<Dimension>,
}

/// The weights of `n` observations, oldest first: all 1 when there are fewer than 25 or all are as good; else a linear ramp up to the
/// newest 25, which have 1. The prior has 1 too.
#[derive(Debug, Clone, Copy)]
struct Weights {
    n: usize,
    ageing: bool,
}

impl Weights {
    const NEWEST: usize = 25;

    fn at(self, index: usize) -> f64 {
        let ramp = self.n.saturating_sub(Self::NEWEST);
        if !self.ageing || index >= ramp {
            return 1.0;
        }
        let start = 1.0 / self.n as f64;
        if ramp == 1 { start } else { start + (1.0 - start) * index as f64 / (ramp - 1) as f64 }
    }

    /// Of all, the prior's among them.
    fn total(self) -> f64 {
        let ramp = if self.ageing { self.n.saturating_sub(Self::NEWEST) } else { 0 };
        let flat = (self.n - ramp + 1) as f64;
        match ramp {
            0 => flat,
            1 => flat + 1.0 / self.n as f64,
            _ => flat + ramp as f64 * (1.0 + 1.0 / self.n as f64) / 2.0,
        }
    }
}

impl Mixture {
    /// From internal observations, oldest first, a column each dimension. With `ageing` the older of many weigh less.
    pub(super) fn new(distributions: &[&Distribution], observations: Vec<Vec<f64>>, ageing: bool) -> Self {
        let n = observations.first().map_or(0, Vec::len);
        let dimensions =
            distributions.iter().zip(observations).map(|(of, column)| Dimension::new(of, column)).collect();
        let mut mixture = Self { weights: Weights { n, ageing }, shared: vec![0.0; n], dimensions };
        mixture.share();
        mixture
    }

    /// Adds an observation, a value each dimension, as the one at that index; those from there on are newer.
    pub(super) fn insert(&mut self, index: usize, row: &[f64]) {
        let mut changed = Changed { all: false, kernels: vec![index] };
        for (dimension, value) in self.dimensions.iter_mut().zip(row) {
            dimension.insert(index, *value, &mut changed);
        }
        self.shared.insert(index, 0.0);
        self.weights.n += 1;
        self.share_again(&changed);
    }

    /// Takes the observation at that index away.
    pub(super) fn remove(&mut self, index: usize) {
        let mut changed = Changed::default();
        self.dimensions.iter_mut().for_each(|dimension| dimension.remove(index, &mut changed));
        self.shared.remove(index);
        self.weights.n -= 1;
        self.share_again(&changed);
    }

    fn share(&mut self) {
        self.shared.fill(0.0);
        for norms in self.dimensions.iter().filter_map(Dimension::norms) {
            self.shared.iter_mut().zip(norms).for_each(|(shared, norm)| *shared -= norm);
        }
    }

    fn share_again(&mut self, changed: &Changed) {
        if changed.all {
            return self.share();
        }
        for index in &changed.kernels {
            let norms = self.dimensions.iter().filter_map(Dimension::norms);
            self.shared[*index] = norms.fold(0.0, |shared, norms| shared - norms[*index]);
        }
    }

    /// Draws one point: a kernel by its weight, then each dimension from that kernel.
    pub(super) fn sample(&self, generator: &mut Generator) -> Vec<f64> {
        let total = self.weights.total();
        let kernel = draw((0..=self.weights.n).map(|index| self.weights.at(index) / total), generator);
        self.dimensions.iter().map(|dimension| dimension.sample(kernel, generator)).collect()
    }

    /// log density of a point: density where a dimension is continuous, mass of the grid cell or choice where it is discrete.
    #[cfg(test)]
    pub(crate) fn log_density(&self, point: &[f64]) -> f64 {
        self.log_densities(&[point.to_vec()])[0]
    }

    /// [`Mixture::log_density`] of several points.
    pub(super) fn log_densities(&self, points: &[Vec<f64>]) -> Vec<f64> {
        // Where continuous dimensions come first, most kernels are out of the question after one of them.
        let mut dimensions: Vec<usize> = (0..self.dimensions.len()).collect();
        dimensions.sort_by_key(|index| self.dimensions[*index].norms().is_none());
        let at = |point: &Vec<f64>| -> Vec<At> {
            dimensions.iter().map(|index| self.dimensions[*index].at(point[*index])).collect()
        };
        let dimensions: Vec<&Dimension> = dimensions.iter().map(|index| &self.dimensions[*index]).collect();
        let points: Vec<Vec<At>> = points.iter().map(at).collect();
        // The prior's density is the least that there is.
        let prior = |point: &Vec<At>| {
            let mut sum = LogSum::default();
            sum.add_times(point.iter().map(At::prior).sum(), 1.0);
            sum
        };
        let mut sums: Vec<LogSum> = points.iter().map(prior).collect();
        let mut near = Near::default();
        // All points look at a block of kernels while it is at hand.
        for start in (0..self.weights.n).step_by(BLOCK) {
            let block = start..(start + BLOCK).min(self.weights.n);
            for (point, sum) in points.iter().zip(&mut sums) {
                near.begin(&self.shared[block.clone()]);
                for (dimension, at) in dimensions.iter().zip(point) {
                    near.add(dimension, at, block.clone(), sum.floor());
                }
                for (index, log) in near.left() {
                    sum.add_times(log, self.weights.at(start + index));
                }
            }
        }
        let total = self.weights.total().ln();
        sums.into_iter().map(|sum| sum.log() - total).collect()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_ramp_up_to_the_newest_25() {
        let weights = |n| {
            let weights = Weights { n, ageing: true };
            let all: Vec<f64> = (0..n).map(|index| weights.at(index)).collect();
            assert!((weights.total() - all.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{n}");
            assert_eq!(Weights { ageing: false, ..weights }.total(), n as f64 + 1.0);
            all
        };
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
