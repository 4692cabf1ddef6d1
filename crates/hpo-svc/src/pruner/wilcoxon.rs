//! Optuna's WilcoxonPruner: stops a trial that is worse than the best one on the steps that both have, by a signed-rank test.
//!
//! For objectives that are a mean over instances, such as folds or documents, with a report for each instance: the step says which
//! one it is, and the value stands for it alone.

use super::{
    Judged, Pruner,
    signed_rank::{Alternative, p_value},
};
use crate::study::{Direction, Trial, best};

/// Prunes when the trial is worse than the best one with that error probability, unless its mean is at least as good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wilcoxon {
    /// 0 to 1: the larger, the sooner a trial stops. The test is repeated with each report, which errs more often than once.
    pub p_threshold: f64,
    /// Steps that both trials need to have before one is pruned; at least 2 are always needed.
    pub n_startup_steps: usize,
}

impl Default for Wilcoxon {
    fn default() -> Self {
        Self { p_threshold: 0.1, n_startup_steps: 2 }
    }
}

impl Pruner for Wilcoxon {
    fn should_prune(&self, judged: &Judged<'_>) -> bool {
        let own = &judged.trial.intermediate;
        let Some(best) = best(judged.trials, judged.direction) else { return false };
        // Nothing can be paired with what is not a number, and a mean of infinity says nothing.
        let finite = |trial: &Trial| trial.intermediate.values().all(|value| value.is_finite());
        if !finite(judged.trial) || !finite(best) {
            return false;
        }
        let common = own.iter().filter_map(|(step, value)| Some(value - best.intermediate.get(step)?));
        let differences: Vec<f64> = common.collect();
        if differences.len() < self.n_startup_steps.max(2) {
            return false;
        }
        let worse = match judged.direction {
            Direction::Maximize => Alternative::Less,
            Direction::Minimize => Alternative::Greater,
        };
        let mean = |trial: &Trial| trial.intermediate.values().sum::<f64>() / trial.intermediate.len() as f64;
        // The means are those of all steps, as in Optuna.
        p_value(&differences, worse) < self.p_threshold && judged.direction.better(mean(best), mean(judged.trial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pruner::tests::stops,
        study::{State, tests::trial},
    };

    fn reporting(number: i64, state: State, reports: &[(i64, f64)]) -> Trial {
        let mut trial = trial(number, state, (state == State::Complete).then_some(0.5));
        trial.intermediate.extend(reports.iter().copied());
        trial
    }

    #[test]
    fn a_trial_that_is_worse_on_most_instances_stops() {
        let best = [reporting(0, State::Complete, &[(0, 0.5), (1, 0.7), (2, 0.6), (3, 0.4), (4, 0.8)])];
        let pruned = |pruner: &Wilcoxon, direction, reports: &[(i64, f64)]| {
            stops(pruner, direction, &best, &reporting(1, State::Running, reports))
        };
        let default = Wilcoxon::default();
        let worse = [(4, 0.7), (0, 0.45), (3, 0.35), (1, 0.4)];
        assert!(pruned(&default, Direction::Maximize, &worse) && !pruned(&default, Direction::Minimize, &worse));
        // One in 8 is not rare enough, and five steps may be asked for.
        assert!(!pruned(&default, Direction::Maximize, &worse[..3]));
        assert!(!pruned(&Wilcoxon { n_startup_steps: 5, ..default }, Direction::Maximize, &worse));
        // Steps that the best trial has not do not count in the test, but in the mean, which saves the trial.
        let mut with_more = worse.to_vec();
        with_more.push((9, 5.0));
        assert!(!pruned(&default, Direction::Maximize, &with_more));
        with_more[4].1 = f64::NAN;
        assert!(!pruned(&default, Direction::Maximize, &with_more));
        assert!(
            !stops(&default, Direction::Maximize, &[], &reporting(1, State::Running, &worse)),
            "nothing to compare with"
        );
    }
}
