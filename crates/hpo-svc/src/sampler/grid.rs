//! Exhaustive search: every combination of a grid once, in an order that the seed shuffles.
//!
//! What Optuna's `GridSampler` and `BruteForceSampler` do. The grid is not held in memory: its combinations have numbers, a seeded
//! permutation of these is the order, and what was visited is read off the parameters of the trials.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;

use super::{Generator, Joint, Request, Sampler};
use crate::space::Space;

mod plan;

use plan::Plan;

/// The sampler's settings.
///
/// The grid is the product of all choices, integers and points of stepped floats. Parameters with a condition multiply only the
/// combinations in which they exist.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grid {
    /// Internal values by the name of a parameter, to be visited instead of the whole domain. A float without a step needs them.
    pub points: BTreeMap<String, Vec<f64>>,
}

impl Sampler for Grid {
    /// The next combination that no trial has, counted from the trial's number, so that parallel trials keep apart. When there is none
    /// left, any of them, as in Optuna.
    fn joint(&self, request: &Request<'_>, generator: &mut Generator) -> Joint {
        // Whoever did not ask `check` gets uniform values.
        let Ok(plan) = Plan::new(request.space, &self.points) else { return Joint::default() };
        let visited = visited(&plan, request);
        let size = plan.size();
        let order = Order::new(size, request.seed);
        let combination = if visited.len() as u64 >= size {
            generator.random_range(0..size)
        } else {
            let mut at = request.number.unsigned_abs() % size;
            // Ends: fewer than all are visited.
            while visited.contains(&order.at(at)) {
                at = (at + 1) % size;
            }
            order.at(at)
        };
        Joint { values: plan.values(combination), ..Joint::default() }
    }

    /// Some of the combinations may have been visited from other brackets than the trial's.
    fn every_trial(&self) -> bool {
        true
    }

    /// The combinations that no trial has. One that failed was visited too, as in Optuna: a combination that always fails would
    /// otherwise be tried until the study ends, and whether failed trials are repeated is for the study to say.
    fn remaining(&self, request: &Request<'_>) -> Option<usize> {
        let plan = Plan::new(request.space, &self.points).ok()?;
        let left = plan.size() - visited(&plan, request).len() as u64;
        Some(usize::try_from(left).unwrap_or(usize::MAX))
    }
}

impl Grid {
    /// Whether the space has a grid.
    ///
    /// # Errors
    /// Says which parameter has none, or too fine a one, and what to do.
    pub fn check(&self, space: &Space) -> Result<(), String> {
        Plan::new(space, &self.points).map(|_| ())
    }

    /// How many combinations there are.
    ///
    /// # Errors
    /// Those of [`Grid::check`].
    pub fn size(&self, space: &Space) -> Result<u64, String> {
        Plan::new(space, &self.points).map(|plan| plan.size())
    }
}

/// The combinations that trials have.
fn visited(plan: &Plan<'_>, request: &Request<'_>) -> BTreeSet<u64> {
    let others = request.trials.iter().filter(|trial| trial.number != request.number);
    others.filter_map(|trial| plan.combination(trial)).collect()
}

/// A permutation of the numbers below a size, without a list of them: a Feistel network (Luby and Rackoff, 1988) over the next
/// power of four, gone through again until the number is below the size (Black and Rogaway, 2002).
struct Order {
    size: u64,
    half: u32,
    seed: u64,
}

impl Order {
    fn new(size: u64, seed: u64) -> Self {
        let bits = u64::BITS - size.saturating_sub(1).leading_zeros();
        Self { size, half: bits.div_ceil(2).max(1), seed }
    }

    fn at(&self, index: u64) -> u64 {
        let mut number = index;
        loop {
            number = self.network(number);
            if number < self.size {
                return number;
            }
        }
    }

    fn network(&self, number: u64) -> u64 {
        let mask = (1_u64 << self.half) - 1;
        let (mut left, mut right) = (number >> self.half, number & mask);
        for round in 0..8 {
            let key = super::qmc::mix(super::qmc::mix(self.seed ^ round) ^ right);
            (left, right) = (right, left ^ (key & mask));
        }
        (left << self.half) | right
    }
}

#[cfg(test)]
mod tests;
