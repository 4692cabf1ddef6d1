//! Optuna's PatientPruner: lets another pruner stop a trial only once it has not improved for a while.

use super::Pruner;
use crate::study::{Direction, Trial};

/// Asks the wrapped pruner when the best of the last `patience + 1` reports is worse than the best before by more than
/// `min_delta`.
#[derive(Debug)]
pub struct Patient {
    /// None stops at once.
    pub wrapped: Option<Box<dyn Pruner>>,
    /// Reports without improvement that are endured.
    pub patience: usize,
    /// Not negative.
    pub min_delta: f64,
}

impl Pruner for Patient {
    fn should_prune(&self, direction: Direction, trials: &[Trial], trial: &Trial) -> bool {
        let values: Vec<f64> = trial.intermediate.values().copied().collect();
        // The reports are sorted by step.
        let Some(split) = values.len().checked_sub(self.patience + 1).filter(|before| *before > 0) else {
            return false;
        };
        let (before, after) = values.split_at(split);
        // Nothing but NaN on either side compares as false, as in numpy.
        let (Some(before), Some(after)) = (best(direction, before), best(direction, after)) else { return false };
        let given_up = match direction {
            Direction::Minimize => before + self.min_delta < after,
            Direction::Maximize => before - self.min_delta > after,
        };
        given_up && self.wrapped.as_ref().is_none_or(|wrapped| wrapped.should_prune(direction, trials, trial))
    }
}

/// The best of the values that are numbers.
pub(super) fn best(direction: Direction, values: &[f64]) -> Option<f64> {
    let numbers = values.iter().copied().filter(|value| !value.is_nan());
    match direction {
        Direction::Minimize => numbers.reduce(f64::min),
        Direction::Maximize => numbers.reduce(f64::max),
    }
}
