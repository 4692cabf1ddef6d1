//! Samplers: pure functions from a search space, the history of its study and a seed to the parameters of the next trial.

use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;

use crate::{
    space::Space,
    study::{Direction, Trial},
};

mod kernels;
mod random;
mod tpe;
mod truncnorm;

pub use random::Random;
pub use tpe::Tpe;
#[cfg(test)]
pub(crate) use tpe::{mixture, split};

/// What a sampler decides from.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What to sample.
    pub space: &'a Space,
    /// Which way the objective improves.
    pub direction: Direction,
    /// The study's trials in order of their number; the one to sample is not among them, or ignored by its number.
    pub trials: &'a [Trial],
    /// Number of the trial to sample.
    pub number: i64,
    /// Seed of the study.
    pub seed: u64,
}

/// Suggests the parameters of a trial. The same request gives the same answer.
pub trait Sampler: Send + Sync + std::fmt::Debug {
    /// Internal values in the order of the space, each inside of its domain.
    fn sample(&self, request: &Request<'_>) -> Vec<f64>;
}

/// The generator of one trial: a stream of its own, so that trials do not depend on the order in which they are asked for.
fn generator(seed: u64, number: i64) -> ChaCha12Rng {
    let mut generator = ChaCha12Rng::seed_from_u64(seed);
    generator.set_stream(number.unsigned_abs());
    generator
}
