//! Pruners: whether a running trial is hopeless, decided from its reports and those of the others.

use crate::study::{Direction, Trial};

mod azureml;
mod interval;
mod patient;
mod percentile;
mod settings;
mod threshold;

pub use azureml::{Bandit, MedianStopping, Schedule, Slack, TruncationSelection};
pub use patient::Patient;
pub use percentile::Percentile;
pub use settings::from_proto;
pub use threshold::Threshold;

/// Decides on a trial after each of its reports.
pub trait Pruner: Send + Sync + std::fmt::Debug {
    /// Whether `trial` should stop now. `trials` are all of the study; which of them count is the pruner's rule.
    fn should_prune(&self, direction: Direction, trials: &[Trial], trial: &Trial) -> bool;
}

/// Never prunes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nop;

impl Pruner for Nop {
    fn should_prune(&self, _: Direction, _: &[Trial], _: &Trial) -> bool {
        false
    }
}
