//! Optuna's HyperbandPruner: several successive halvings side by side, each of which begins to prune at another step.
//!
//! Li et al., "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization" (JMLR 18, 2018). How early it is worth to
//! prune is not known beforehand, so that trials are spread over brackets that prune from the first step on, from the
//! `reduction_factor`-fold, and so on up to the whole length. Optuna spreads them by a hash of the study's name and the trial's
//! number: nothing needs to be stored.

use std::borrow::Cow;

use super::{
    Judged, Judgement, Pruner, SuccessiveHalving,
    halving::{longest, longest_kept},
};
use crate::study::Trial;

/// Prunes each trial by the successive halving of its bracket, among the trials of that bracket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hyperband {
    /// Steps up to the first rung of the bracket that prunes earliest; at least 1.
    pub min_resource: i64,
    /// Steps of a trial that is not pruned; at least `min_resource`. `None` is Optuna's `auto`: one more than the largest last step of
    /// the trials that have completed when one is judged for the first time, and no judgement before.
    pub max_resource: Option<i64>,
    /// See [`SuccessiveHalving`]; at least 2.
    pub reduction_factor: i64,
    /// See [`SuccessiveHalving`].
    pub bootstrap_count: usize,
}

impl Default for Hyperband {
    fn default() -> Self {
        Self { min_resource: 1, max_resource: None, reduction_factor: 3, bootstrap_count: 0 }
    }
}

impl Hyperband {
    /// The share of the trials that each bracket gets, and with it the number of brackets: none while `auto` waits for a trial.
    fn budgets(&self, longest: Option<i64>) -> Vec<u64> {
        let auto = longest.map(|last| last.saturating_add(1));
        let Some(max_resource) = self.max_resource.or(auto) else { return Vec::new() };
        let (least, factor) = (self.min_resource.max(1) as f64, self.reduction_factor.max(2));
        // In doubles, as Optuna: 5 brackets for 243 and 3, where six would be due.
        let brackets = ((max_resource as f64 / least).ln() / (factor as f64).ln()).floor() + 1.0;
        // Zero where the logarithm is negative or none.
        let brackets = brackets as u64;
        let budget = |bracket: u64| {
            let s = brackets - 1 - bracket;
            let runs = u32::try_from(s).ok().and_then(|s| factor.unsigned_abs().checked_pow(s));
            runs.unwrap_or(u64::MAX).saturating_mul(brackets).div_ceil(s + 1)
        };
        (0..brackets).map(budget).collect()
    }

    /// Puts trials into brackets; with `auto` the trials say what it stands for, once one was judged.
    pub fn brackets<'a>(&self, study: &'a str, trials: &[Trial]) -> Brackets<'a> {
        let longest = if self.max_resource.is_none() { longest_kept(trials) } else { None };
        Brackets { study, budgets: self.budgets(longest) }
    }
}

/// Which trials of a study belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brackets<'a> {
    study: &'a str,
    budgets: Vec<u64>,
}

impl Brackets<'_> {
    /// The share of the trials that each bracket gets.
    pub fn budgets(&self) -> &[u64] {
        &self.budgets
    }

    /// The bracket of a trial: 0 prunes earliest. `None` while there are no brackets.
    pub fn of(&self, number: i64) -> Option<u32> {
        let total: u128 = self.budgets.iter().map(|budget| u128::from(*budget)).sum();
        let mut place = u128::from(crc32(format!("{}_{number}", self.study).as_bytes())).checked_rem(total)?;
        for (bracket, budget) in (0..).zip(&self.budgets) {
            match place.checked_sub(u128::from(*budget)) {
                Some(rest) => place = rest,
                None => return Some(bracket),
            }
        }
        None
    }
}

impl Pruner for Hyperband {
    fn should_prune(&self, judged: &Judged<'_>) -> bool {
        self.judge(judged).prune
    }

    /// The trials of the bracket of trial `number`: what trials of other brackets report comes from other steps. All while the
    /// brackets are not known.
    fn comparable<'a>(&self, study: &str, trials: &'a [Trial], number: i64) -> Cow<'a, [Trial]> {
        let brackets = self.brackets(study, trials);
        let own = brackets.of(number);
        if brackets.budgets.len() < 2 {
            return Cow::Borrowed(trials);
        }
        Cow::Owned(trials.iter().filter(|trial| brackets.of(trial.number) == own).cloned().collect())
    }

    fn compares_all(&self) -> bool {
        false
    }

    fn judge(&self, judged: &Judged<'_>) -> Judgement {
        let mut kept = Judgement::default();
        let longest = if self.max_resource.is_none() { longest(judged, &mut kept) } else { None };
        let brackets = Brackets { study: judged.study, budgets: self.budgets(longest) };
        let Some(bracket) = brackets.of(judged.trial.number) else { return kept };
        let halving = SuccessiveHalving {
            min_resource: Some(self.min_resource),
            reduction_factor: self.reduction_factor,
            min_early_stopping_rate: bracket,
            bootstrap_count: self.bootstrap_count,
        };
        let mut judgement = halving.judge_among(judged, |other| brackets.of(other.number) == Some(bracket));
        judgement.system_attrs.extend(kept.system_attrs);
        judgement
    }
}

/// CRC-32 of IEEE 802.3, as zlib computes it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::{State, tests::trial};

    #[test]
    fn the_checksum_is_that_of_zlib() {
        // The check value of the standard.
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn samplers_see_the_trials_of_one_bracket() {
        let hyperband = Hyperband { max_resource: Some(9), ..Hyperband::default() };
        let trials: Vec<Trial> = (0..200).map(|number| trial(number, State::Complete, Some(0.0))).collect();
        let brackets = hyperband.brackets("study", &trials);
        let mut seen = std::collections::BTreeMap::new();
        for number in 0..200 {
            let shown = hyperband.comparable("study", &trials, number);
            assert!(shown.iter().any(|trial| trial.number == number));
            assert!(shown.iter().all(|trial| brackets.of(trial.number) == brackets.of(number)));
            seen.insert(brackets.of(number), shown.len());
        }
        assert_eq!((seen.len(), seen.values().sum::<usize>()), (3, 200));
        // 9, 5 and 3 of 17: the more the earlier it prunes.
        assert!(seen.values().is_sorted_by(|a, b| a > b), "{seen:?}");
        assert_eq!(brackets.budgets, [9, 5, 3]);
        // Nothing has completed with a report: nobody knows the brackets yet.
        let auto = Hyperband::default();
        assert_eq!((auto.brackets("s", &trials).of(0), auto.comparable("s", &trials, 3).len()), (None, 200));
    }

    #[test]
    fn extreme_resources_are_survived() {
        let of = |min_resource, max_resource, reduction_factor| {
            let hyperband =
                Hyperband { min_resource, max_resource: Some(max_resource), reduction_factor, bootstrap_count: 0 };
            hyperband.brackets("s", &[]).budgets.len()
        };
        assert_eq!(
            [of(1, i64::MAX, 2), of(0, i64::MAX, 0), of(5, 4, 3), of(5, 5, 3), of(1, i64::MIN, 3)],
            [64, 64, 0, 1, 0]
        );
    }
}
