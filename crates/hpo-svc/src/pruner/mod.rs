//! Pruners: whether a running trial is hopeless, decided from its reports and those of the others.

use std::{borrow::Cow, collections::BTreeMap};

use crate::study::{Direction, Trial};

mod azureml;
#[cfg(test)]
mod golden;
mod halving;
mod hyperband;
mod interval;
mod patient;
mod percentile;
mod settings;
mod signed_rank;
mod threshold;
mod wilcoxon;

pub use azureml::{Bandit, MedianStopping, Schedule, Slack, TruncationSelection};
pub use halving::{ATTR_LONGEST, ATTR_STOPPED_AT, SuccessiveHalving, stopped_at};
pub use hyperband::{Brackets, Hyperband};
pub use patient::Patient;
pub use percentile::Percentile;
pub use settings::from_proto;
pub use threshold::Threshold;
pub use wilcoxon::Wilcoxon;

/// A trial after one of its reports, and what it is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// Name of the study.
    pub study: &'a str,
    /// Which way the objective improves.
    pub direction: Direction,
    /// All trials of the study; which of them count is the pruner's rule.
    pub trials: &'a [Trial],
    /// The trial itself, with no report after the one to judge.
    pub trial: &'a Trial,
}

/// What a pruner says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Whether the trial should stop now.
    pub prune: bool,
    /// What the pruner wants to find at the trial from now on: system attributes, key to JSON text. They have to be there before
    /// another report is judged.
    pub system_attrs: BTreeMap<String, String>,
}

/// Decides on a trial after each of its reports. The same study gives the same judgement, also when it has what was kept of the first
/// time.
pub trait Pruner: Send + Sync + std::fmt::Debug {
    /// Whether the trial should stop now.
    fn should_prune(&self, judged: &Judged<'_>) -> bool;

    /// The trials that a sampler may learn from when it suggests the one of this number.
    fn comparable<'a>(&self, study: &str, trials: &'a [Trial], number: i64) -> Cow<'a, [Trial]> {
        let _ = (study, number);
        Cow::Borrowed(trials)
    }

    /// Whether [`Pruner::comparable`] are always all.
    fn compares_all(&self) -> bool {
        true
    }

    /// [`Pruner::should_prune`] with what is to be kept of the decision, by pruners that keep something.
    fn judge(&self, judged: &Judged<'_>) -> Judgement {
        Judgement { prune: self.should_prune(judged), system_attrs: BTreeMap::new() }
    }
}

/// Never prunes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nop;

impl Pruner for Nop {
    fn should_prune(&self, _: &Judged<'_>) -> bool {
        false
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Whether the pruner stops a trial of the study `s`.
    pub(crate) fn stops(pruner: &dyn Pruner, direction: Direction, trials: &[Trial], trial: &Trial) -> bool {
        pruner.should_prune(&Judged { study: "s", direction, trials, trial })
    }
}
