//! Optuna's PercentilePruner, and with 50 its MedianPruner: stops a trial that is worse than most completed ones at the same step.

use super::{Judged, Pruner, interval, patient::best};
use crate::study::{Direction, State, Trial};

/// Prunes when the trial's best value so far is worse than the percentile of the completed trials' values at its last step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentile {
    /// 0 to 100: the share of the trials to keep.
    pub percentile: f64,
    /// COMPLETE trials before anything is pruned.
    pub n_startup_trials: usize,
    /// The smallest step at which anything is pruned.
    pub n_warmup_steps: i64,
    /// Steps between checks; the first report in each interval is checked. At least 1.
    pub interval_steps: i64,
    /// Values at the step that are needed to judge. At least 1.
    pub n_min_trials: usize,
}

impl Percentile {
    /// The MedianPruner with Optuna's defaults.
    pub fn median() -> Self {
        Self { percentile: 50.0, n_startup_trials: 5, n_warmup_steps: 0, interval_steps: 1, n_min_trials: 1 }
    }
}

impl Pruner for Percentile {
    fn should_prune(&self, judged: &Judged<'_>) -> bool {
        let Judged { direction, trials, trial, .. } = *judged;
        let complete: Vec<&Trial> = trials.iter().filter(|trial| trial.state == State::Complete).collect();
        if complete.is_empty() || complete.len() < self.n_startup_trials {
            return false;
        }
        let Some((step, _)) = trial.last_report() else { return false };
        if step < self.n_warmup_steps || !interval::is_first(step, trial, self.n_warmup_steps, self.interval_steps) {
            return false;
        }
        let own: Vec<f64> = trial.intermediate.values().copied().collect();
        // Nothing but NaN.
        let Some(own) = best(direction, &own) else { return true };
        let others: Vec<f64> = complete.iter().filter_map(|other| other.intermediate.get(&step).copied()).collect();
        if others.len() < self.n_min_trials {
            return false;
        }
        let share = match direction {
            Direction::Minimize => self.percentile,
            Direction::Maximize => 100.0 - self.percentile,
        };
        // A comparison with NaN is false: the trial goes on.
        percentile(others, share).is_some_and(|limit| direction.better(limit, own))
    }
}

/// numpy's `nanpercentile` with linear interpolation; `None` when there is nothing but NaN.
fn percentile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let position = share / 100.0 * last as f64;
    let index = (position.floor() as usize).min(last);
    let (low, high) = (values[index], values[(index + 1).min(last)]);
    let t = position - index as f64;
    let difference = high - low;
    // numpy interpolates from the nearer end, and gives NaN between infinities of the same sign.
    Some(if t >= 0.5 { high - difference * (1.0 - t) } else { low + difference * t })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pruner::tests::stops, study::tests::trial};

    fn reporting(number: i64, state: State, reports: &[(i64, f64)]) -> Trial {
        let mut trial = trial(number, state, None);
        trial.intermediate.extend(reports.iter().copied());
        trial
    }

    #[test]
    fn a_trial_below_the_median_stops_after_the_startup_trials() {
        let mut trials: Vec<Trial> =
            (0..4).map(|n| reporting(n, State::Complete, &[(1, n as f64), (2, 10.0)])).collect();
        let bad = reporting(9, State::Running, &[(1, 0.5)]);
        let median = Percentile::median();
        assert!(!stops(&median, Direction::Maximize, &trials, &bad), "four completed trials are too few");
        trials.push(reporting(4, State::Complete, &[(1, 4.0)]));
        assert!(stops(&median, Direction::Maximize, &trials, &bad));
        assert!(!stops(&median, Direction::Minimize, &trials, &bad));
        // Equal to the median goes on; PRUNED and FAIL do not count.
        assert!(!stops(&median, Direction::Maximize, &trials, &reporting(9, State::Running, &[(1, 2.0)])));
        trials.push(reporting(5, State::Pruned, &[(1, 100.0)]));
        assert!(!stops(&median, Direction::Maximize, &trials, &reporting(9, State::Running, &[(1, 2.0)])));
        // Nobody has reported this step.
        assert!(!stops(&median, Direction::Maximize, &trials, &reporting(9, State::Running, &[(7, -1.0)])));
        assert!(stops(&median, Direction::Maximize, &trials, &reporting(9, State::Running, &[(1, f64::NAN)])));
    }

    #[test]
    fn only_the_first_report_of_an_interval_is_checked() {
        let trials: Vec<Trial> = (0..5)
            .map(|n| reporting(n, State::Complete, &(0..20).map(|step| (step, 1.0)).collect::<Vec<_>>()))
            .collect();
        let pruner = Percentile { n_warmup_steps: 3, interval_steps: 4, ..Percentile::median() };
        let checked = |reports: &[(i64, f64)]| {
            stops(&pruner, Direction::Maximize, &trials, &reporting(9, State::Running, reports))
        };
        assert!(!checked(&[(0, 0.0)]) && !checked(&[(2, 0.0)]));
        assert!(checked(&[(2, 0.0), (3, 0.0)]));
        assert!(!checked(&[(3, 0.0), (4, 0.0)]), "3 to 6 is one interval");
        assert!(checked(&[(3, 0.0), (8, 0.0)]));
        assert!(!checked(&[(3, 0.0), (7, 0.0), (9, 0.0)]));
    }
}
