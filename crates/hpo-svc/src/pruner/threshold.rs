//! Optuna's ThresholdPruner: stops a trial whose value leaves a range.

use super::{Judged, Pruner, interval};

/// Prunes at a report that is not a number or lies outside of `lower..=upper`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// -infinity for none.
    pub lower: f64,
    /// Infinity for none.
    pub upper: f64,
    /// The smallest step at which anything is pruned.
    pub n_warmup_steps: i64,
    /// Steps between checks; the first report in each interval is checked. At least 1.
    pub interval_steps: i64,
}

impl Pruner for Threshold {
    fn should_prune(&self, judged: &Judged<'_>) -> bool {
        let trial = judged.trial;
        let Some((step, value)) = trial.last_report() else { return false };
        step >= self.n_warmup_steps
            && interval::is_first(step, trial, self.n_warmup_steps, self.interval_steps)
            && (value.is_nan() || value < self.lower || value > self.upper)
    }
}
