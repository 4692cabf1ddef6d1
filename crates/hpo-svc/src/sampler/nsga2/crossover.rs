//! How numeric parameters of parents make those of a child, and how they mutate: the operators of `optuna.samplers.nsgaii`.
//!
//! All work on the real line, parameter by parameter or on the whole vector; the child may lie outside of the bounds.

use std::f64::consts::TAU;

use rand::RngExt as _;

use super::Generator;

/// What makes one vector of several. The constants are the defaults of Optuna's classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crossover {
    /// Each parameter from either of two parents. Syswerda, "Uniform crossover in genetic algorithms" (1989).
    Uniform,
    /// Uniform in the box of two parents, made larger by half its width on each side. Eshelman and Schaffer, "Real-coded genetic
    /// algorithms and interval-schemata" (1993).
    BlxAlpha,
    /// Near either of two parents, by a polynomial distribution within the bounds. Deb and Agrawal, "Simulated binary crossover for
    /// continuous search space" (1995).
    Sbx,
    /// SBX that excludes no region. Ballester and Carter, "Real-parameter genetic algorithms for finding multiple optimal solutions in
    /// multi-modal optimization" (2003).
    Vsbx,
    /// Uniform in the simplex of three parents, made larger. Tsutsui, Goldberg and Sastry, "Linkage learning in real-coded GAs with
    /// simplex crossover" (2000).
    Spx,
    /// Normal along the line of two parents, and across it as far as the third is. Kita, Ono and Kobayashi, "Multi-parental extension
    /// of the unimodal normal distribution crossover" (1999).
    Undx,
}

/// What changes one parameter a little.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mutation {
    /// By a polynomial distribution within the bounds, as in Deb's own NSGA-II; the larger `eta`, the nearer. Optuna's default of it
    /// is 20.
    Polynomial {
        /// Not negative.
        eta: f64,
    },
}

/// Extension of the box of BLX-alpha.
const ALPHA: f64 = 0.5;
/// Deviation along the line of two parents in UNDX.
const SIGMA_XI: f64 = 0.5;
/// Deviation across it, over the root of the number of parameters.
const SIGMA_ETA: f64 = 0.35;

impl Crossover {
    /// All of them by name.
    pub const ALL: [(&str, Self); 6] = [
        ("uniform", Self::Uniform),
        ("blxalpha", Self::BlxAlpha),
        ("sbx", Self::Sbx),
        ("vsbx", Self::Vsbx),
        ("spx", Self::Spx),
        ("undx", Self::Undx),
    ];

    /// The crossover of that name: that of Optuna's class in lower case, without `Crossover`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, crossover)| crossover)
    }

    /// How many parents it takes.
    pub fn n_parents(self) -> usize {
        match self {
            Self::Uniform | Self::BlxAlpha | Self::Sbx | Self::Vsbx => 2,
            Self::Spx | Self::Undx => 3,
        }
    }

    /// A child of [`Crossover::n_parents`] parents; `several` says whether the study has several objectives.
    pub(super) fn cross(
        self,
        parents: &[Vec<f64>],
        bounds: &[(f64, f64)],
        swapping_prob: f64,
        several: bool,
        generator: &mut Generator,
    ) -> Vec<f64> {
        let eta = if several { 20.0 } else { 2.0 };
        let pairs = || parents[0].iter().copied().zip(parents[1].iter().copied());
        match self {
            Self::Uniform => {
                pairs().map(|(a, b)| if generator.random::<f64>() >= swapping_prob { b } else { a }).collect()
            }
            Self::BlxAlpha => pairs()
                .map(|(a, b)| {
                    let margin = ALPHA * (a - b).abs();
                    let (low, high) = (a.min(b) - margin, a.max(b) + margin);
                    low + (high - low) * generator.random::<f64>()
                })
                .collect(),
            Self::Sbx => {
                let children = pairs().zip(bounds).map(|(pair, bounds)| sbx(pair, *bounds, eta, generator)).collect();
                one_of(children, pairs(), generator)
            }
            Self::Vsbx => {
                let (first, second) = (generator.random::<f64>() <= 0.5, generator.random::<f64>() <= 0.5);
                let children = pairs().map(|pair| vsbx(pair, first, second, eta, generator)).collect();
                one_of(children, pairs(), generator)
            }
            Self::Spx => spx(parents, generator),
            Self::Undx => undx(parents, generator),
        }
    }
}

/// One of two children, each parameter of which is crossed or a parent's, and belongs to either child.
fn one_of(children: Vec<(f64, f64)>, parents: impl Iterator<Item = (f64, f64)>, generator: &mut Generator) -> Vec<f64> {
    let mut coin = || generator.random::<f64>() < 0.5;
    let second = coin();
    let gene = |(crossed, parents): ((f64, f64), (f64, f64))| {
        let (one, two) = if coin() { crossed } else { parents };
        if coin() == second { one } else { two }
    };
    children.into_iter().zip(parents).map(gene).collect()
}

fn sbx((a, b): (f64, f64), (lower, upper): (f64, f64), eta: f64, generator: &mut Generator) -> (f64, f64) {
    let (low, high) = (a.min(b), a.max(b));
    let width = (high - low).max(1e-10);
    let u = generator.random::<f64>();
    // The spread that keeps the child on its side of the bounds.
    let spread = |room: f64| {
        let alpha = 2.0 - (1.0 + 2.0 * room / width).powf(-(eta + 1.0));
        let base = if u > 1.0 / alpha { 1.0 / (2.0 - u * alpha) } else { u * alpha };
        base.powf(1.0 / (eta + 1.0))
    };
    let (below, above) = (spread(low - lower), spread(upper - high));
    (0.5 * (low + high - below * width), 0.5 * (low + high + above * width))
}

fn vsbx((a, b): (f64, f64), first: bool, second: bool, eta: f64, generator: &mut Generator) -> (f64, f64) {
    let u = generator.random::<f64>();
    let beta = |u: f64| (1.0 / (2.0 * u).max(1e-10)).powf(1.0 / (eta + 1.0));
    let (one, two) = (beta(u), beta(1.0 - u));
    let left = if first { (1.0 + one) * a + (1.0 - two) * b } else { (1.0 - one) * a + (1.0 + two) * b };
    let right = if second { (3.0 - one) * a - (1.0 - two) * b } else { (one - 1.0) * a + (3.0 - two) * b };
    (0.5 * left, 0.5 * right)
}

fn spx(parents: &[Vec<f64>], generator: &mut Generator) -> Vec<f64> {
    let n = parents[0].len();
    let epsilon = (n as f64 + 2.0).sqrt();
    let draws: Vec<f64> = (1..parents.len()).map(|place| generator.random::<f64>().powf(1.0 / place as f64)).collect();
    let gene = |at: usize| {
        let mean = parents.iter().map(|parent| parent[at]).sum::<f64>() / parents.len() as f64;
        let corner = |parent: usize| mean + epsilon * (parents[parent][at] - mean);
        let offset = draws.iter().enumerate().fold(0.0, |sum, (k, draw)| draw * (corner(k) - corner(k + 1) + sum));
        corner(parents.len() - 1) + offset
    };
    (0..n).map(gene).collect()
}

/// Optuna draws along an orthonormal basis across the line; a normal draw of all axes without its part along the line has the same
/// distribution.
fn undx(parents: &[Vec<f64>], generator: &mut Generator) -> Vec<f64> {
    let n = parents[0].len();
    let between = |a: usize, b: usize| parents[b].iter().zip(&parents[a]).map(|(b, a)| b - a).collect::<Vec<f64>>();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (line, third) = (between(0, 1), between(0, 2));
    let length = dot(&line, &line).sqrt().max(1e-10);
    let mut along: Vec<f64> = line.iter().map(|x| x / length).collect();
    let across = |vector: &[f64], along: &[f64]| -> Vec<f64> {
        let part = dot(vector, along);
        vector.iter().zip(along).map(|(x, e)| x - part * e).collect()
    };
    let rest = across(&third, &along);
    let distance = dot(&rest, &rest).sqrt();
    if dot(&along, &along) == 0.0
        && let Some(first) = along.first_mut()
    {
        // Parents at the same place have no line; the first axis stands for it.
        *first = 1.0;
    }
    let deviation = SIGMA_ETA / (n.max(1) as f64).sqrt();
    // Optuna hands the squares to a generator that takes deviations.
    let xi = normal(generator) * SIGMA_XI * SIGMA_XI;
    let draws: Vec<f64> = (0..n).map(|_| normal(generator) * deviation * deviation).collect();
    let aside = across(&draws, &along);
    let gene = |at: usize| (parents[0][at] + parents[1][at]) / 2.0 - xi * line[at] + distance * aside[at];
    (0..n).map(gene).collect()
}

/// A standard normal draw, by Box and Muller.
fn normal(generator: &mut Generator) -> f64 {
    let radius = (-2.0 * (1.0 - generator.random::<f64>()).ln()).sqrt();
    radius * (TAU * generator.random::<f64>()).cos()
}

impl Mutation {
    /// All of them.
    pub const NAMES: [&str; 1] = ["polynomial"];
    /// Optuna's.
    const DEFAULT_ETA: f64 = 20.0;

    /// The mutation of that name: that of Optuna's class in lower case, without `Mutation`.
    pub fn parse(name: &str, eta: Option<f64>) -> Option<Self> {
        (name == "polynomial").then(|| Self::Polynomial { eta: eta.unwrap_or(Self::DEFAULT_ETA) })
    }

    /// A place near `x`, within the bounds.
    pub(super) fn mutate(self, x: f64, (low, high): (f64, f64), generator: &mut Generator) -> f64 {
        let Self::Polynomial { eta } = self;
        let (u, width, power) = (generator.random::<f64>(), high - low, eta.max(0.0) + 1.0);
        if width <= 0.0 {
            return x;
        }
        let delta = if u <= 0.5 {
            let rest = 1.0 - (x - low) / width;
            (2.0 * u + (1.0 - 2.0 * u) * rest.powf(power)).powf(1.0 / power) - 1.0
        } else {
            let rest = 1.0 - (high - x) / width;
            1.0 - (2.0 * (1.0 - u) + 2.0 * (u - 0.5) * rest.powf(power)).powf(1.0 / power)
        };
        (x + delta * width).clamp(low, high)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    const N: usize = 4000;

    fn children(crossover: Crossover, parents: &[[f64; 3]]) -> Vec<Vec<f64>> {
        let parents: Vec<Vec<f64>> = parents.iter().map(|parent| parent.to_vec()).collect();
        let mut generator = Generator::seed_from_u64(1);
        (0..N).map(|_| crossover.cross(&parents, &[(0.0, 1.0); 3], 0.5, true, &mut generator)).collect()
    }

    /// Mean and deviation of one coordinate.
    fn moments(children: &[Vec<f64>], at: usize) -> (f64, f64) {
        let mean = children.iter().map(|child| child[at]).sum::<f64>() / N as f64;
        (mean, (children.iter().map(|child| (child[at] - mean).powi(2)).sum::<f64>() / N as f64).sqrt())
    }

    /// The figures are those of Optuna 5.0.0's classes over 200,000 draws.
    #[test]
    fn children_are_spread_as_those_of_optuna() {
        let parents = [[0.2, 0.7, 0.5], [0.4, 0.3, 0.5], [0.9, 0.6, 0.1]];
        let expected = [
            (Crossover::Uniform, [(0.3, 0.1), (0.5, 0.2), (0.5, 0.0)]),
            (Crossover::BlxAlpha, [(0.3, 0.1155), (0.5, 0.2309), (0.5, 0.0)]),
            (Crossover::Sbx, [(0.3, 0.1002), (0.5, 0.2005), (0.5, 0.0)]),
            (Crossover::Vsbx, [(0.3, 0.1005), (0.5, 0.2007), (0.5, 0.0161)]),
            (Crossover::Spx, [(0.5, 0.3294), (0.5333, 0.19), (0.3667, 0.2109)]),
            (Crossover::Undx, [(0.3, 0.0563), (0.5, 0.1012), (0.5, 0.0288)]),
        ];
        for (crossover, expected) in expected {
            let children = children(crossover, &parents[..crossover.n_parents()]);
            for (at, (mean, deviation)) in expected.into_iter().enumerate() {
                let found = moments(&children, at);
                let tolerance = 0.08 * deviation + 1e-3;
                assert!((found.0 - mean).abs() < tolerance, "{crossover:?} {at}: mean {} of {mean}", found.0);
                assert!((found.1 - deviation).abs() < tolerance, "{crossover:?} {at}: {} of {deviation}", found.1);
            }
        }
    }

    #[test]
    fn mutations_stay_within_and_near() {
        let mut generator = Generator::seed_from_u64(1);
        let mutation = Mutation::Polynomial { eta: 20.0 };
        let of = |x: f64, generator: &mut Generator| -> Vec<Vec<f64>> {
            (0..N).map(|_| vec![mutation.mutate(x, (-1.0, 3.0), generator)]).collect()
        };
        for (x, mean, deviation) in [(-1.0, -0.909, 0.153), (0.5, 0.5, 0.251), (2.9, 2.833, 0.168)] {
            let found = of(x, &mut generator);
            assert!(found.iter().all(|x| (-1.0..=3.0).contains(&x[0])));
            let (m, d) = moments(&found, 0);
            assert!((m - mean).abs() < 0.02 && (d - deviation).abs() < 0.02, "{x}: {m} {d}");
        }
        assert_eq!(mutation.mutate(5.0, (5.0, 5.0), &mut generator), 5.0);
    }
}
