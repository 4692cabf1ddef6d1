//! Optuna's SuccessiveHalvingPruner: rungs at growing steps, each of which only the best share of those that reached it leaves.
//!
//! The asynchronous algorithm of Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020): a trial is judged
//! against whoever has been at the rung so far, and waits for nobody.
//!
//! What a trial had at a rung is kept as Optuna keeps it, in the system attribute `completed_rung_R`, so that studies are shared
//! with Optuna's own pruner in both directions. It cannot be computed again from the reports: a report that reaches several rungs
//! at once stands at the second of them only if it was among the best of the first *at that time*, and whether a trial was judged
//! at all when it passed is not written anywhere else (with `auto`, nothing is judged before a trial has completed).
//!
//! The attribute alone does not say whether the trial left the rung or was to stop there, so that Optuna lets a trial go on when it
//! asks a second time. Here the step at which it was to stop is kept too: an answer may be lost, and a server may end before it acts.

use super::{Judged, Judgement, Pruner};
use crate::{
    pyjson::PyValue,
    study::{Direction, State, Trial},
};

/// Prunes at the steps `min_resource * reduction_factor^(min_early_stopping_rate + rung)`, from rung 0, each trial that is not among
/// the best `1 / reduction_factor` of the values at the rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuccessiveHalving {
    /// Steps up to rung 0 with a rate of 0; at least 1. `None` is Optuna's `auto`: a hundredth of the largest last step of the trials
    /// that have completed when one is judged for the first time, and no judgement before.
    pub min_resource: Option<i64>,
    /// How much longer each rung is than the one before, and of how many trials one leaves it; at least 2.
    pub reduction_factor: i64,
    /// Rungs that are left out at the start.
    pub min_early_stopping_rate: u32,
    /// Trials at a rung of which none leaves it: those that come later may.
    pub bootstrap_count: usize,
}

impl Default for SuccessiveHalving {
    fn default() -> Self {
        Self { min_resource: None, reduction_factor: 4, min_early_stopping_rate: 0, bootstrap_count: 0 }
    }
}

impl SuccessiveHalving {
    /// Judges against the trials that `competes` picks.
    pub(super) fn judge_among(&self, judged: &Judged<'_>, competes: impl Fn(&Trial) -> bool) -> Judgement {
        let mut judgement = Judgement::default();
        let Some((step, value)) = judged.trial.last_report() else { return judgement };
        if stopped_at(judged.trial).is_some_and(|stopped| step <= stopped) {
            judgement.prune = true;
            return judgement;
        }
        let min_resource = match self.min_resource {
            Some(resource) => resource,
            None => match longest(judged, &mut judgement) {
                Some(last) => (last / 100).max(1),
                None => return judgement,
            },
        };
        let own = &judged.trial.system_attrs;
        let passed = (0..).take_while(|rung| own.contains_key(&key(*rung))).count();
        for rung in u32::try_from(passed).unwrap_or(u32::MAX).. {
            if self.promotion_step(min_resource, rung).is_none_or(|promotion| step < promotion) {
                return judgement;
            }
            let mut leaves = false;
            if !value.is_nan() {
                let key = key(rung);
                let others =
                    judged.trials.iter().filter(|other| other.number != judged.trial.number && competes(other));
                let mut values: Vec<f64> = others.filter_map(|other| rung_value(other, &key)).chain([value]).collect();
                judgement.system_attrs.insert(key, PyValue::Float(value).dump());
                leaves = values.len() > self.bootstrap_count && self.promotes(judged.direction, value, &mut values);
            }
            if !leaves {
                judgement.prune = true;
                judgement.system_attrs.insert(ATTR_STOPPED_AT.into(), step.to_string());
                return judgement;
            }
        }
        judgement
    }

    /// The step of a rung; `None` when it is beyond every step.
    fn promotion_step(&self, min_resource: i64, rung: u32) -> Option<i64> {
        let exponent = self.min_early_stopping_rate.checked_add(rung)?;
        self.reduction_factor.max(2).checked_pow(exponent)?.checked_mul(min_resource.max(1))
    }

    /// Whether the value is among the best share of the rung's values, of which it is one; the best of few is always.
    fn promotes(&self, direction: Direction, value: f64, values: &mut [f64]) -> bool {
        values.sort_by(|a, b| match direction {
            Direction::Minimize => a.total_cmp(b),
            Direction::Maximize => b.total_cmp(a),
        });
        let share = usize::try_from(self.reduction_factor).unwrap_or_default().max(2);
        let last = (values.len() / share).max(1) - 1;
        !direction.better(values[last], value)
    }
}

impl Pruner for SuccessiveHalving {
    fn should_prune(&self, judged: &Judged<'_>) -> bool {
        self.judge(judged).prune
    }

    fn judge(&self, judged: &Judged<'_>) -> Judgement {
        self.judge_among(judged, |_| true)
    }
}

/// The attribute of a rung.
fn key(rung: u32) -> String {
    format!("completed_rung_{rung}")
}

/// What a trial had at a rung.
fn rung_value(trial: &Trial, key: &str) -> Option<f64> {
    PyValue::parse(trial.system_attrs.get(key)?).ok()?.as_f64().filter(|value| !value.is_nan())
}

/// System attribute of a trial: the step at which it was told to stop.
pub const ATTR_STOPPED_AT: &str = "quintet:stopped_at";

/// The step at which a trial was told to stop, by a pruner that keeps it.
pub fn stopped_at(trial: &Trial) -> Option<i64> {
    trial.system_attrs.get(ATTR_STOPPED_AT)?.parse().ok()
}

/// System attribute of the trial that was judged first: the step that `auto` was derived from then.
pub const ATTR_LONGEST: &str = "quintet:longest";

/// What `auto` is derived from: the largest last step of the trials that had completed when the first trial was judged.
///
/// Optuna's pruners look once, in a judgement, and remember it as long as their process lives. Here it is kept at the trial that was
/// judged, so that a restart changes nothing.
pub(super) fn longest(judged: &Judged<'_>, judgement: &mut Judgement) -> Option<i64> {
    let own = judged.trial.system_attrs.get(ATTR_LONGEST).and_then(|text| text.parse().ok());
    if let Some(kept) = longest_kept(judged.trials).or(own) {
        return Some(kept);
    }
    let complete = judged.trials.iter().filter(|trial| trial.state == State::Complete);
    let last = complete.filter_map(|trial| Some(trial.last_report()?.0)).max()?;
    judgement.system_attrs.insert(ATTR_LONGEST.into(), last.to_string());
    Some(last)
}

/// What was found in the first judgement of a study; of several at the same time, that of the first trial.
pub(super) fn longest_kept(trials: &[Trial]) -> Option<i64> {
    trials.iter().find_map(|trial| trial.system_attrs.get(ATTR_LONGEST)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::study::tests::trial;

    fn at(number: i64, reports: &[(i64, f64)]) -> Trial {
        let mut trial = trial(number, State::Running, None);
        trial.intermediate.extend(reports.iter().copied());
        trial
    }

    /// Judges and keeps what the pruner wants to find again.
    fn judge(pruner: &SuccessiveHalving, trials: &mut [Trial], number: usize) -> bool {
        let live = trials[number].clone();
        let judged = Judged { study: "s", direction: Direction::Maximize, trials, trial: &live };
        let Judgement { prune, system_attrs } = pruner.judge(&judged);
        trials[number].system_attrs.extend(system_attrs);
        prune
    }

    #[test]
    fn one_of_four_leaves_a_rung() {
        let pruner = SuccessiveHalving { min_resource: Some(2), ..SuccessiveHalving::default() };
        let values = [0.5, 0.4, 0.6, 0.7, 0.55, 0.8, 0.9, 0.8];
        let mut trials: Vec<Trial> = (0..).zip(values).map(|(n, value)| at(n, &[(2, value)])).collect();
        let pruned: Vec<bool> = (0..8).map(|number| judge(&pruner, &mut trials, number)).collect();
        // The best so far goes on, and once there are eight the best two: the last equals the second.
        assert_eq!(pruned, [false, true, false, false, true, false, false, false]);
        // The trial has left rung 0 and is not judged again before step 8.
        trials[0].intermediate.insert(7, 0.0);
        assert!(!judge(&pruner, &mut trials, 0));
        assert_eq!(trials[0].system_attrs, [("completed_rung_0".into(), "0.5".into())].into());
        trials[0].intermediate.insert(9, f64::NAN);
        assert!(judge(&pruner, &mut trials, 0));
        assert!(!trials[0].system_attrs.contains_key("completed_rung_1"), "a NaN stands at no rung");
        trials[0].intermediate.insert(32, f64::INFINITY);
        assert!(!judge(&pruner, &mut trials, 0), "the first at rungs 1 and 2");
        assert_eq!(trials[0].system_attrs["completed_rung_2"], "Infinity");
    }

    #[test]
    fn those_that_come_before_the_bootstrap_count_are_pruned() {
        let pruner = SuccessiveHalving { min_resource: Some(1), bootstrap_count: 2, ..SuccessiveHalving::default() };
        let mut trials: Vec<Trial> = (0..3).map(|n| at(n, &[(1, n as f64)])).collect();
        assert_eq!([0, 1, 2].map(|number| judge(&pruner, &mut trials, number)), [true, true, false]);
    }

    #[test]
    fn auto_waits_for_a_completed_trial_and_keeps_to_what_it_saw_first() {
        let pruner = SuccessiveHalving::default();
        let mut trials = vec![at(0, &[(999, 0.1)]), at(1, &[(8, 0.5)]), at(2, &[(300, 0.5)]), at(3, &[(9, 0.2)])];
        assert!(!judge(&pruner, &mut trials, 1) && trials[1].system_attrs.is_empty());
        trials.push(at(4, &[(200, 0.1)]));
        trials.push(at(5, &[]));
        for number in [2, 4, 5] {
            trials[number].state = State::Complete;
        }
        // The longer one of the two that are there: 300 / 100 = 3, then 12.
        assert!(!judge(&pruner, &mut trials, 1));
        assert_eq!(
            trials[1].system_attrs,
            [("completed_rung_0", "0.5"), (ATTR_LONGEST, "300")].map(|(k, v)| (k.into(), v.into())).into()
        );
        trials[0].state = State::Complete;
        assert!(judge(&pruner, &mut trials, 3), "at rung 0 still");
        let kept: Vec<&str> = trials[3].system_attrs.keys().map(String::as_str).collect();
        assert_eq!(kept, ["completed_rung_0", ATTR_STOPPED_AT]);
    }

    #[test]
    fn a_report_that_is_judged_again_is_judged_the_same() {
        let pruner = SuccessiveHalving { min_resource: Some(1), reduction_factor: 2, ..SuccessiveHalving::default() };
        let mut trials = vec![at(0, &[(1, 0.9)]), at(1, &[(1, 0.5)]), at(2, &[(1, f64::NAN)])];
        let judged = |trials: &mut [Trial]| [0, 1, 2].map(|number| judge(&pruner, trials, number));
        assert_eq!(judged(&mut trials), [false, true, true]);
        assert_eq!((stopped_at(&trials[0]), stopped_at(&trials[1])), (None, Some(1)));
        let kept: Vec<_> = trials.iter().map(|trial| trial.system_attrs.clone()).collect();
        assert_eq!(judged(&mut trials), [false, true, true]);
        assert!(trials.iter().map(|trial| &trial.system_attrs).eq(&kept));
        // As in Optuna, whoever goes on all the same has left the rung.
        trials[1].intermediate.insert(2, 0.95);
        assert!(!judge(&pruner, &mut trials, 1), "the best at rung 1");
    }

    #[test]
    fn what_others_wrote_is_survived_and_steps_may_be_huge() {
        let pruner = SuccessiveHalving { min_resource: Some(i64::MAX), ..SuccessiveHalving::default() };
        let mut trials = vec![at(0, &[(1, 1.0)]), at(1, &[(i64::MAX, 0.0)]), at(2, &[(i64::MIN, 0.0)])];
        for (number, text) in [(0, "\"much\""), (2, "NaN")] {
            trials[number].system_attrs.insert("completed_rung_0".into(), text.into());
        }
        assert!(!judge(&pruner, &mut trials, 1), "alone at the rung");
        assert!(!judge(&pruner, &mut trials, 2) && !judge(&pruner, &mut [at(0, &[])], 0));
    }

    proptest! {
        /// At a rung of n trials, those that may leave it are the best n / reduction_factor, at least one, and their equals.
        #[test]
        fn as_many_leave_as_the_share_allows(
            values in proptest::collection::vec(-3i32..20, 1..60),
            reduction_factor in 2i64..6,
            maximize: bool,
        ) {
            let direction = if maximize { Direction::Maximize } else { Direction::Minimize };
            let pruner = SuccessiveHalving { reduction_factor, ..SuccessiveHalving::default() };
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let leave = |value: &&f64| pruner.promotes(direction, **value, &mut values.clone());
            let left: Vec<f64> = values.iter().filter(leave).copied().collect();
            let share = (values.len() / reduction_factor as usize).max(1);
            let worst = left.iter().copied().reduce(|a, b| if direction.better(a, b) { b } else { a }).unwrap();
            prop_assert!(left.len() >= share);
            prop_assert!(left.iter().filter(|value| **value != worst).count() < share);
            prop_assert!(values.iter().filter(|value| direction.better(**value, worst)).count() < share);
        }
    }
}
