//! The kernels of TPE in one dimension.

use std::{collections::HashMap, ops::Range};

use rand::RngExt as _;

use super::{
    super::{
        Generator,
        random::on_grid,
        truncnorm,
        widths::{Changed, Widths},
    },
    draw,
};
use crate::space::Distribution;

/// A kernel of each observation, and the prior.
#[derive(Debug)]
pub(super) enum Dimension {
    Categorical(Categorical),
    Numeric(Box<Numeric>),
}

/// Probabilities of choices: a share of the prior everywhere and 1 at the observed choice, normalised; the prior is uniform.
#[derive(Debug)]
pub(super) struct Categorical {
    n_choices: usize,
    /// The choice of each kernel; `n_choices` for one that is none.
    observed: Vec<u32>,
}

/// Truncated normals, in log space for log parameters, over cells of the grid for those with steps.
#[derive(Debug)]
pub(super) struct Numeric {
    kernels: Widths,
    /// Bounds of the kernels: the domain widened by half a step, then in log space.
    bounds: (f64, f64),
    domain: (f64, f64),
    log: bool,
    density: Density,
}

#[derive(Debug)]
enum Density {
    Continuous(Continuous),
    Grid(Grid),
}

/// Of each kernel.
#[derive(Debug, Default)]
struct Continuous {
    /// 1 / (sigma sqrt 2)
    scales: Vec<f64>,
    /// Minus the log of what its density shares for all points.
    norms: Vec<f64>,
}

/// Kernels on a grid: those of the same observation and width are computed once.
#[derive(Debug)]
struct Grid {
    step: f64,
    /// Which of the different ones each kernel is.
    kernel: Vec<u32>,
    /// mu, sigma and log mass within the bounds of each different kernel, and how many there are of it.
    different: Vec<((f64, f64, f64), usize)>,
    /// Places of the different ones by the bits of mu and sigma.
    known: HashMap<(u64, u64), u32>,
    /// Places that are not used any more.
    free: Vec<u32>,
}

/// A coordinate of a point, made ready for all kernels of its dimension, with the log density of the prior there.
#[derive(Debug)]
pub(super) enum At {
    /// In the kernels' scale.
    Continuous { x: f64, prior: f64 },
    /// No kernel reaches there.
    Outside,
    /// log mass of each different kernel.
    Masses { of: Vec<f64>, prior: f64 },
}

impl At {
    /// log density of the prior.
    pub(super) fn prior(&self) -> f64 {
        match self {
            Self::Continuous { prior, .. } | Self::Masses { prior, .. } => *prior,
            Self::Outside => f64::NEG_INFINITY,
        }
    }
}

/// What a block of kernels adds to the log densities of a point, but for what their densities share for all points.
pub(super) enum Terms<'a> {
    /// Minus ((x - mu) scale)^2.
    Squares {
        /// In the kernels' scale.
        x: f64,
        mu: &'a [f64],
        scales: &'a [f64],
    },
    /// That of its kind.
    Masses { of: &'a [f64], kernels: &'a [u32] },
    /// No kernel reaches there.
    None,
}

impl Dimension {
    /// From internal observations, oldest first.
    pub(super) fn new(distribution: &Distribution, observations: Vec<f64>) -> Self {
        let (low, high, step, log) = match distribution {
            Distribution::Categorical { choices } => {
                return Self::Categorical(Categorical::new(choices.len(), &observations));
            }
            Distribution::Float { low, high, log, step } => (*low, *high, *step, *log),
            Distribution::Int { low, high, log, step, .. } => (*low as f64, *high as f64, Some(*step as f64), *log),
        };
        Self::Numeric(Box::new(Numeric::new((low, high), step, log, observations)))
    }

    /// What each kernel's density shares for all points, where it is continuous.
    pub(super) fn norms(&self) -> Option<&[f64]> {
        match self {
            Self::Numeric(numeric) => match &numeric.density {
                Density::Continuous(continuous) => Some(&continuous.norms),
                Density::Grid(_) => None,
            },
            Self::Categorical(_) => None,
        }
    }

    /// A coordinate.
    pub(super) fn at(&self, x: f64) -> At {
        match self {
            Self::Categorical(categorical) => categorical.at(x),
            Self::Numeric(numeric) => numeric.at(x),
        }
    }

    /// What the kernels of a block add at a coordinate that [`Dimension::at`] has made.
    pub(super) fn terms<'a>(&'a self, at: &'a At, block: Range<usize>) -> Terms<'a> {
        match (at, self) {
            (At::Masses { of, .. }, Self::Categorical(categorical)) => {
                Terms::Masses { of, kernels: &categorical.observed[block] }
            }
            (_, Self::Numeric(numeric)) => match (at, &numeric.density) {
                (At::Continuous { x, .. }, Density::Continuous(of)) => {
                    let mu = &numeric.kernels.mu()[block.clone()];
                    Terms::Squares { x: *x, mu, scales: &of.scales[block] }
                }
                (At::Masses { of, .. }, Density::Grid(grid)) => Terms::Masses { of, kernels: &grid.kernel[block] },
                _ => Terms::None,
            },
            _ => Terms::None,
        }
    }

    /// Draws from a kernel; the one behind the last is the prior.
    pub(super) fn sample(&self, kernel: usize, generator: &mut Generator) -> f64 {
        match self {
            Self::Categorical(categorical) => categorical.sample(kernel, generator),
            Self::Numeric(numeric) => numeric.sample(kernel, generator),
        }
    }

    /// Puts an internal value at that index; what else has changed is added to `changed`.
    pub(super) fn insert(&mut self, index: usize, value: f64, changed: &mut Changed) {
        match self {
            Self::Categorical(categorical) => categorical.observed.insert(index, categorical.choice(value)),
            Self::Numeric(numeric) => numeric.insert(index, value, changed),
        }
    }

    /// Takes an observation away.
    pub(super) fn remove(&mut self, index: usize, changed: &mut Changed) {
        match self {
            Self::Categorical(categorical) => drop(categorical.observed.remove(index)),
            Self::Numeric(numeric) => numeric.remove(index, changed),
        }
    }
}

impl Categorical {
    fn new(n_choices: usize, observations: &[f64]) -> Self {
        let mut categorical = Self { n_choices, observed: Vec::new() };
        categorical.observed = observations.iter().map(|choice| categorical.choice(*choice)).collect();
        categorical
    }

    fn choice(&self, value: f64) -> u32 {
        (value as usize).min(self.n_choices) as u32
    }

    /// Of a kernel: probability of its own choice, and of any other.
    fn probabilities(&self) -> (f64, f64) {
        let share = 1.0 / (self.observed.len() + 1) as f64;
        let total = share * self.n_choices as f64 + 1.0;
        ((share + 1.0) / total, share / total)
    }

    fn sample(&self, kernel: usize, generator: &mut Generator) -> f64 {
        let (hit, miss) = self.probabilities();
        let observed = self.observed.get(kernel).map_or(self.n_choices, |choice| *choice as usize);
        let probability = |choice| match observed {
            none if none == self.n_choices => 1.0 / self.n_choices as f64,
            observed if observed == choice => hit,
            _ => miss,
        };
        draw((0..self.n_choices).map(probability), generator) as f64
    }

    fn at(&self, x: f64) -> At {
        let (hit, miss) = self.probabilities();
        let mut of = vec![miss.ln(); self.n_choices];
        if let Some(mass) = of.get_mut(x as usize) {
            *mass = hit.ln();
        }
        let prior = -(self.n_choices as f64).ln();
        of.push(prior);
        At::Masses { of, prior }
    }
}

impl Numeric {
    fn new(domain: (f64, f64), step: Option<f64>, log: bool, observations: Vec<f64>) -> Self {
        let margin = step.unwrap_or(0.0) / 2.0;
        let scale = |x: f64| if log { x.ln() } else { x };
        let bounds = (scale(domain.0 - margin), scale(domain.1 + margin));
        let mu: Vec<f64> = observations.into_iter().map(scale).collect();
        let n = mu.len();
        let kernels = Widths::new(mu, bounds.0, bounds.1);
        let density = match step {
            None => Density::Continuous(Continuous { scales: vec![0.0; n], norms: vec![0.0; n] }),
            Some(step) => Density::Grid(Grid {
                step,
                kernel: Vec::new(),
                different: Vec::new(),
                known: HashMap::new(),
                free: Vec::new(),
            }),
        };
        let mut numeric = Self { kernels, bounds, domain, log, density };
        numeric.renew_all();
        numeric
    }

    fn scale(&self, x: f64) -> f64 {
        if self.log { x.ln() } else { x }
    }

    /// mu and sigma of the prior.
    fn prior(&self) -> (f64, f64) {
        (0.5 * (self.bounds.0 + self.bounds.1), self.bounds.1 - self.bounds.0)
    }

    /// log of a kernel's mass within the bounds.
    fn log_mass(bounds: (f64, f64), mu: f64, sigma: f64) -> f64 {
        truncnorm::log_mass((bounds.0 - mu) / sigma, (bounds.1 - mu) / sigma)
    }

    fn norm(bounds: (f64, f64), mu: f64, sigma: f64, log_sigma: f64) -> f64 {
        truncnorm::LOG_NORMALIZER + log_sigma + Self::log_mass(bounds, mu, sigma)
    }

    fn insert(&mut self, index: usize, value: f64, changed: &mut Changed) {
        let before = changed.kernels.len();
        let mu = self.scale(value);
        self.kernels.insert(index, mu, changed);
        match &mut self.density {
            Density::Continuous(Continuous { scales, norms }) => {
                scales.insert(index, 0.0);
                norms.insert(index, 0.0);
            }
            Density::Grid(grid) => grid.kernel.insert(index, Grid::NONE),
        }
        self.renew(before, changed);
    }

    fn remove(&mut self, index: usize, changed: &mut Changed) {
        let before = changed.kernels.len();
        self.kernels.remove(index, changed);
        match &mut self.density {
            Density::Continuous(Continuous { scales, norms }) => {
                scales.remove(index);
                norms.remove(index);
            }
            Density::Grid(grid) => {
                let kernel = grid.kernel.remove(index);
                grid.leave(kernel);
            }
        }
        self.renew(before, changed);
    }

    /// Computes anew what follows from the widths that have changed.
    fn renew(&mut self, before: usize, changed: &Changed) {
        if changed.all {
            return self.renew_all();
        }
        for index in &changed.kernels[before..] {
            let (mu, sigma) = (self.kernels.mu()[*index], self.kernels.sigma()[*index]);
            match &mut self.density {
                Density::Continuous(Continuous { scales, norms }) => {
                    scales[*index] = std::f64::consts::FRAC_1_SQRT_2 / sigma;
                    norms[*index] = Self::norm(self.bounds, mu, sigma, sigma.ln());
                }
                Density::Grid(grid) => grid.set(*index, mu, sigma, self.bounds),
            }
        }
    }

    fn renew_all(&mut self) {
        let (mu, sigma) = (self.kernels.mu(), self.kernels.sigma());
        match &mut self.density {
            Density::Continuous(Continuous { scales, norms }) => {
                // Most kernels have the least width.
                let (mut last, mut log_last) = (1.0, 0.0);
                for (((scale, norm), mu), sigma) in scales.iter_mut().zip(norms).zip(mu).zip(sigma) {
                    if *sigma != last {
                        (last, log_last) = (*sigma, sigma.ln());
                    }
                    *scale = std::f64::consts::FRAC_1_SQRT_2 / sigma;
                    *norm = Self::norm(self.bounds, *mu, *sigma, log_last);
                }
            }
            Density::Grid(grid) => {
                (grid.known, grid.different, grid.free) = Default::default();
                grid.kernel = vec![Grid::NONE; mu.len()];
                for (index, (mu, sigma)) in mu.iter().zip(sigma).enumerate() {
                    grid.set(index, *mu, *sigma, self.bounds);
                }
            }
        }
    }

    fn sample(&self, kernel: usize, generator: &mut Generator) -> f64 {
        let (mu, sigma) = match self.kernels.mu().get(kernel) {
            Some(mu) => (*mu, self.kernels.sigma()[kernel]),
            None => self.prior(),
        };
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
        let (mu, sigma) = self.prior();
        match &self.density {
            Density::Continuous(_) => match self.scale(x) {
                x if x < self.bounds.0 || x > self.bounds.1 => At::Outside,
                x => {
                    let z = (x - mu) * (std::f64::consts::FRAC_1_SQRT_2 / sigma);
                    At::Continuous { x, prior: -(z * z) - Self::norm(self.bounds, mu, sigma, sigma.ln()) }
                }
            },
            Density::Grid(grid) => {
                let (left, right) = (self.scale(x - grid.step / 2.0), self.scale(x + grid.step / 2.0));
                let mass = |mu: f64, sigma: f64, mass: f64| {
                    truncnorm::log_mass((left - mu) / sigma, (right - mu) / sigma) - mass
                };
                let used = |(kernel, uses): &((f64, f64, f64), usize)| match uses {
                    0 => f64::NEG_INFINITY,
                    _ => mass(kernel.0, kernel.1, kernel.2),
                };
                let of = grid.different.iter().map(used).collect();
                At::Masses { of, prior: mass(mu, sigma, Self::log_mass(self.bounds, mu, sigma)) }
            }
        }
    }
}

impl Grid {
    /// The place of a kernel that is none yet.
    const NONE: u32 = u32::MAX;

    /// Makes a kernel that of this observation and width.
    fn set(&mut self, index: usize, mu: f64, sigma: f64, bounds: (f64, f64)) {
        let bits = (mu.to_bits(), sigma.to_bits());
        let place = match self.known.get(&bits) {
            Some(place) => *place,
            None => {
                let new = ((mu, sigma, Numeric::log_mass(bounds, mu, sigma)), 0);
                let place = match self.free.pop() {
                    Some(place) => {
                        self.different[place as usize] = new;
                        place
                    }
                    None => {
                        self.different.push(new);
                        self.different.len() as u32 - 1
                    }
                };
                self.known.insert(bits, place);
                place
            }
        };
        self.different[place as usize].1 += 1;
        let before = std::mem::replace(&mut self.kernel[index], place);
        self.leave(before);
    }

    /// One kernel fewer is the one at that place.
    fn leave(&mut self, place: u32) {
        let Some(((mu, sigma, _), uses)) = self.different.get_mut(place as usize) else { return };
        *uses -= 1;
        if *uses == 0 {
            self.known.remove(&(mu.to_bits(), sigma.to_bits()));
            self.free.push(place);
        }
    }
}
