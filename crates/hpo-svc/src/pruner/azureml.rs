//! AzureML's early termination policies, which no pruner of Optuna equals: bandit, median stopping, truncation selection.
//!
//! An interval is one logged value of the primary metric. A policy is applied at the multiples of `evaluation_interval` that are
//! not below `delay_evaluation`. Source: <https://learn.microsoft.com/azure/machine-learning/how-to-tune-hyperparameters>.

use super::{Judged, Pruner, patient::best};
use crate::study::{Direction, Trial};

/// When a policy is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Intervals from one application to the next; at least 1.
    pub evaluation_interval: usize,
    /// Intervals before the first application.
    pub delay_evaluation: usize,
}

impl Schedule {
    /// The number of intervals of the trial, when the policy is applied at its last one.
    fn due(&self, trial: &Trial) -> Option<usize> {
        let intervals = trial.intermediate.len();
        let due = intervals > 0
            && intervals.is_multiple_of(self.evaluation_interval.max(1))
            && intervals >= self.delay_evaluation;
        due.then_some(intervals)
    }
}

/// The values of a trial's first intervals, in order of step; `None` when it has not come so far.
fn first(trial: &Trial, intervals: usize) -> Option<Vec<f64>> {
    (trial.intermediate.len() >= intervals).then(|| trial.intermediate.values().copied().take(intervals).collect())
}

/// The study's trials with `trial` as it is now among them.
fn with<'a>(trials: &'a [Trial], trial: &'a Trial) -> impl Iterator<Item = &'a Trial> {
    trials.iter().filter(|other| other.number != trial.number).chain([trial])
}

/// How far a trial may lie behind the best one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Slack {
    /// A ratio: with 0.2 and a best of 0.8 to be maximized, what is below 0.8 / 1.2 stops. For metrics that are not negative.
    Factor(f64),
    /// A difference.
    Amount(f64),
}

/// Stops a trial whose best value is not within a slack of the best trial's at the same interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandit {
    /// What is allowed.
    pub slack: Slack,
    /// When it is applied.
    pub schedule: Schedule,
}

impl Pruner for Bandit {
    fn should_prune(&self, judged: &Judged<'_>) -> bool {
        let Judged { direction, trials, trial, .. } = *judged;
        let Some(intervals) = self.schedule.due(trial) else { return false };
        let best_of = |trial: &Trial| first(trial, intervals).and_then(|values| best(direction, &values));
        // Nothing but NaN: worse than any.
        let Some(own) = best_of(trial) else { return true };
        let all: Vec<f64> = with(trials, trial).filter_map(best_of).collect();
        let Some(leader) = best(direction, &all) else { return false };
        let limit = match (self.slack, direction) {
            (Slack::Factor(factor), Direction::Maximize) => leader / (1.0 + factor),
            (Slack::Factor(factor), Direction::Minimize) => leader * (1.0 + factor),
            (Slack::Amount(amount), Direction::Maximize) => leader - amount,
            (Slack::Amount(amount), Direction::Minimize) => leader + amount,
        };
        // A ratio of negative values would stop the leader itself.
        direction.better(leader, own) && direction.better(limit, own)
    }
}

/// Stops a trial whose best value is worse than the median of all trials' averages over the same intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MedianStopping {
    /// When it is applied.
    pub schedule: Schedule,
}

impl Pruner for MedianStopping {
    fn should_prune(&self, judged: &Judged<'_>) -> bool {
        let Judged { direction, trials, trial, .. } = *judged;
        let Some(intervals) = self.schedule.due(trial) else { return false };
        let Some(own) = first(trial, intervals).and_then(|values| best(direction, &values)) else { return true };
        let average = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let averages = with(trials, trial).filter_map(|other| first(other, intervals)).map(average);
        let mut averages: Vec<f64> = averages.filter(|average| !average.is_nan()).collect();
        averages.sort_by(f64::total_cmp);
        let (Some(low), Some(high)) =
            (averages.get(averages.len().wrapping_sub(1) / 2), averages.get(averages.len() / 2))
        else {
            return false;
        };
        direction.better((low + high) / 2.0, own)
    }
}

/// Stops a share of the trials, the worst by their value at the interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TruncationSelection {
    /// 1 to 99.
    pub truncation_percentage: u32,
    /// Whether trials that have ended are left out of the comparison.
    pub exclude_finished_jobs: bool,
    /// When it is applied.
    pub schedule: Schedule,
}

impl Pruner for TruncationSelection {
    fn should_prune(&self, judged: &Judged<'_>) -> bool {
        let Judged { direction, trials, trial, .. } = *judged;
        let Some(intervals) = self.schedule.due(trial) else { return false };
        let counts = |other: &&Trial| !(self.exclude_finished_jobs && other.state.finished());
        let values: Vec<(f64, i64)> = with(trials, trial)
            .filter(counts)
            .filter_map(|other| Some((*first(other, intervals)?.last()?, other.number)))
            .collect();
        let Some(own) = values.iter().find(|(_, number)| *number == trial.number).copied() else { return false };
        // Among equals, and among those without a number, the later trial is the worse one.
        let worse = |(value, number): &(f64, i64)| {
            direction.better(own.0, *value)
                || (value.is_nan() && !own.0.is_nan())
                || ((*value == own.0 || (value.is_nan() && own.0.is_nan())) && *number > own.1)
        };
        let stopped = values.len() * self.truncation_percentage as usize / 100;
        values.iter().filter(|other| worse(other)).count() < stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pruner::tests::stops as prunes,
        study::{State, tests::trial},
    };

    const ALWAYS: Schedule = Schedule { evaluation_interval: 1, delay_evaluation: 0 };

    fn running(number: i64, values: &[f64]) -> Trial {
        let mut trial = trial(number, State::Running, None);
        // Steps as a trainer counts them; the policies count values.
        trial.intermediate.extend(values.iter().enumerate().map(|(index, value)| (index as i64 * 50, *value)));
        trial
    }

    #[test]
    fn a_policy_is_applied_at_multiples_of_its_interval_after_the_delay() {
        let schedule = Schedule { evaluation_interval: 2, delay_evaluation: 5 };
        let due: Vec<usize> = (0..=9).filter_map(|n| schedule.due(&running(0, &vec![0.0; n]))).collect();
        assert_eq!(due, [6, 8]);
    }

    #[test]
    fn the_bandit_allows_the_slack_of_the_documentation() {
        let leader = [running(0, &[0.5, 0.8, 0.1])];
        let factor = Bandit { slack: Slack::Factor(0.2), schedule: ALWAYS };
        let stops = |bandit: &Bandit, values: &[f64]| prunes(bandit, Direction::Maximize, &leader, &running(1, values));
        // 0.8 / 1.2 = 0.667, by the best so far.
        assert!(stops(&factor, &[0.1, 0.66]) && !stops(&factor, &[0.1, 0.67]) && !stops(&factor, &[0.67, 0.0]));
        // At the first interval the leader had 0.5 only.
        assert!(!stops(&factor, &[0.42]) && stops(&factor, &[0.41]));
        let amount = Bandit { slack: Slack::Amount(0.1), schedule: ALWAYS };
        assert!(stops(&amount, &[0.0, 0.69]) && !stops(&amount, &[0.0, 0.71]) && stops(&amount, &[f64::NAN]));
        let losses = [running(0, &[1.0])];
        let up = |value: f64| prunes(&factor, Direction::Minimize, &losses, &running(1, &[value]));
        assert!(up(1.21) && !up(1.19));
        // The leader goes on, also when its value is negative.
        let negative = [running(0, &[-2.0])];
        assert!(!prunes(&factor, Direction::Maximize, &negative, &running(1, &[-1.0])));
        assert!(!prunes(&factor, Direction::Maximize, &[], &running(1, &[-1.0])));
    }

    #[test]
    fn median_stopping_compares_the_best_with_the_median_of_averages() {
        let others = [running(0, &[0.2, 0.6]), running(1, &[0.4, 0.4]), running(2, &[0.9, 0.9]), running(3, &[0.99])];
        let policy = MedianStopping { schedule: ALWAYS };
        let stops = |values: &[f64]| prunes(&policy, Direction::Maximize, &others, &running(9, values));
        // Averages over two values: 0.4, 0.4, 0.9 and its own; trial 3 has not come so far.
        assert!(stops(&[0.1, 0.2]) && !stops(&[0.1, 0.41]) && !stops(&[0.7, 0.0]));
        assert!(!prunes(&policy, Direction::Maximize, &[], &running(9, &[0.1])), "alone it is the median");
    }

    #[test]
    fn truncation_stops_the_worst_share() {
        let mut others: Vec<Trial> = (0..9).map(|n| running(n, &[n as f64])).collect();
        let policy = TruncationSelection { truncation_percentage: 20, exclude_finished_jobs: false, schedule: ALWAYS };
        let stops = |policy: &TruncationSelection, others: &[Trial], value: f64| {
            prunes(policy, Direction::Maximize, others, &running(9, &[value]))
        };
        // Of ten the two worst.
        assert!(stops(&policy, &others, 0.5) && !stops(&policy, &others, 1.5) && stops(&policy, &others, f64::NAN));
        assert!(stops(&policy, &others, 1.0), "among equals the later one");
        others[..5].iter_mut().for_each(|trial| trial.state = State::Complete);
        let exclude = TruncationSelection { exclude_finished_jobs: true, ..policy };
        // Of five the worst.
        assert!(stops(&exclude, &others, 4.5) && !stops(&exclude, &others, 5.5));
    }
}
