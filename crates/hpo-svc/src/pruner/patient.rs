//! Optuna's PatientPruner: lets another pruner stop a trial only once it has not improved for a while.

use super::{Judged, Judgement, Pruner};
use crate::study::Direction;

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

impl Patient {
    /// Whether the patience is at its end.
    fn given_up(&self, judged: &Judged<'_>) -> bool {
        let Judged { direction, trial, .. } = *judged;
        let values: Vec<f64> = trial.intermediate.values().copied().collect();
        // The reports are sorted by step.
        let Some(split) = values.len().checked_sub(self.patience + 1).filter(|before| *before > 0) else {
            return false;
        };
        let (before, after) = values.split_at(split);
        // Nothing but NaN on either side compares as false, as in numpy.
        let (Some(before), Some(after)) = (best(direction, before), best(direction, after)) else { return false };
        match direction {
            Direction::Minimize => before + self.min_delta < after,
            Direction::Maximize => before - self.min_delta > after,
        }
    }
}

impl Pruner for Patient {
    fn should_prune(&self, judged: &Judged<'_>) -> bool {
        self.judge(judged).prune
    }

    fn judge(&self, judged: &Judged<'_>) -> Judgement {
        if !self.given_up(judged) {
            return Judgement::default();
        }
        let stop = || Judgement { prune: true, ..Judgement::default() };
        self.wrapped.as_ref().map_or_else(stop, |wrapped| wrapped.judge(judged))
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
