//! CMA-ES with margin, for integers and grids: the share of the points on either side of the one that the mean is at stays above a
//! margin, so that no integer is fixed before its time. Hamano, Saito, Nomura and Shirakawa, "CMA-ES with Margin" (2022,
//! arXiv:2205.13482), as in the Python package `cmaes`.

use super::{Member, Start, Strategy, full::Full, resampled};
use crate::sampler::{
    Generator,
    truncnorm::{log_ndtr, ndtri_exp},
};

/// CMA-ES over coordinates of which some are grids from 0 to 1.
#[derive(Debug, Clone)]
pub(super) struct Margin {
    pub(super) full: Full,
    /// By coordinate; `None` where it is continuous.
    grids: Vec<Option<Points>>,
    margin: f64,
}

/// The grid of one coordinate.
#[derive(Debug, Clone, Copy)]
struct Points {
    step: f64,
    /// At least two.
    count: f64,
    /// By how much the coordinate's distance from the mean is stretched before it is rounded.
    stretch: f64,
}

impl Points {
    /// The number of the nearest point; the lower one in the middle.
    fn nearest(&self, x: f64) -> f64 {
        (x / self.step - 0.5).ceil().clamp(0.0, self.count - 1.0)
    }

    fn at(&self, index: f64) -> f64 {
        index * self.step
    }

    /// The middles between the point nearest to `x` and its neighbours; at an end both are the same.
    fn limits(&self, x: f64) -> (f64, f64) {
        let index = self.nearest(x);
        let middle = |index: f64| (index.clamp(0.0, self.count - 2.0) + 0.5) * self.step;
        (middle(index - 1.0), middle(index))
    }
}

fn cdf(x: f64) -> f64 {
    log_ndtr(x).exp()
}

/// How many standard deviations below the mean that share of a normal distribution ends.
fn deviations(share: f64) -> f64 {
    -ndtri_exp(share.ln())
}

impl Margin {
    /// The distribution before the first generation; `steps` are those of the grids by coordinate.
    pub(super) fn new(start: Start, steps: &[Option<f64>]) -> Self {
        let margin = 1.0 / (start.mean.len() as f64 * start.population as f64);
        let points = |step: f64| Points { step, count: (1.0 / step).round() + 1.0, stretch: 1.0 };
        Self { grids: steps.iter().map(|step| step.map(points)).collect(), margin, full: Full::new(start, false) }
    }

    /// By how much each coordinate is stretched; 1 for continuous ones.
    #[cfg(test)]
    pub(super) fn stretches(&self) -> Vec<f64> {
        self.grids.iter().map(|grid| grid.map_or(1.0, |points| points.stretch)).collect()
    }

    fn encoded(&self, index: usize, x: f64) -> f64 {
        let Some(points) = &self.grids[index] else { return x };
        let mean = self.full.mean[index];
        points.at(points.nearest((x - mean) * points.stretch + mean))
    }

    /// Moves the mean of one coordinate, and stretches it, so that the margin holds.
    fn correct(&mut self, index: usize) {
        let Some(points) = &mut self.grids[index] else { return };
        let mean = self.full.mean[index];
        let (low, high) = points.limits(mean);
        let deviation = self.full.sigma * self.full.covariance[(index, index)].sqrt();
        let scale = deviation * points.stretch;
        let (below, above) = (cdf((low - mean) / scale), cdf((mean - high) / scale));
        let between = 1.0 - (below + above);
        if below.max(above) > 0.5 || low == high {
            // At an end of the grid: the one neighbour keeps its share.
            if below.min(above) < self.margin {
                let distance = scale * deviations(self.margin);
                self.full.mean[index] = high + (mean - high).signum() * distance;
            }
            return;
        }
        let half = self.margin / 2.0;
        let (below, above) = (below.max(half), above.max(half));
        let excess = 1.0 - below - above - between;
        let free = below + between + above - 3.0 * half;
        let share = |side: f64| (side + excess * (side - half) / free).clamp(1e-10, 0.5 - 1e-10);
        let (left, right) = (deviations(share(below)), deviations(share(above)));
        points.stretch = (high - low) / ((left + right) * deviation);
        self.full.mean[index] = (low * right + high * left) / (left + right);
    }

    fn fit(&self) -> bool {
        let stretches = self.grids.iter().flatten().all(|grid| grid.stretch.is_finite() && grid.stretch > 0.0);
        stretches && self.full.mean.iter().all(|mean| mean.is_finite())
    }
}

impl Strategy for Margin {
    fn population(&self) -> usize {
        self.full.population()
    }

    fn ask(&self, generator: &mut Generator) -> Vec<f64> {
        // Grids are rounded into their range.
        resampled(self.grids.len(), |index| self.grids[index].is_none(), || self.full.sample(generator))
    }

    fn encode(&self, x: &[f64]) -> Vec<f64> {
        x.iter().enumerate().map(|(index, x)| self.encoded(index, *x)).collect()
    }

    fn tell(&mut self, members: Vec<Member>) {
        let mut restart = self.full.update(members);
        if !restart {
            for index in 0..self.grids.len() {
                self.correct(index);
            }
            restart = !self.fit();
        }
        if restart {
            self.full.restart();
            self.grids.iter_mut().flatten().for_each(|points| points.stretch = 1.0);
        }
    }
}
