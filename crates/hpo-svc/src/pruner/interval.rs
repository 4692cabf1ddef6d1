//! Which reports Optuna's pruners look at.

use crate::study::Trial;

/// Whether a report is the first one in its interval: Optuna's `_is_first_in_interval_step`.
///
/// Intervals of `interval_steps` steps (at least 1) begin at `n_warmup_steps`.
pub(super) fn is_first(step: i64, trial: &Trial, n_warmup_steps: i64, interval_steps: i64) -> bool {
    let interval = interval_steps.max(1);
    let start = (step - n_warmup_steps).div_euclid(interval) * interval + n_warmup_steps;
    let earlier = trial.intermediate.keys().copied().filter(|other| *other != step).max().unwrap_or(-1);
    earlier.max(-1) < start
}
