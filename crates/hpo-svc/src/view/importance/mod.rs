//! How much each parameter mattered, as shares of 1: what Optuna's `get_param_importances` tells.
//!
//! [`PedAnova`], the default, asks which parameters set the best trials apart from the others; it knows conditional parameters and
//! several objectives. [`Fanova`] asks how much of the objective's variance over the whole space each parameter explains by itself.

use crate::study::{Direction, Trial};

mod fanova;
mod forest;
mod ped_anova;
mod scott;
#[cfg(test)]
mod tests;

pub use fanova::Fanova;
pub use ped_anova::PedAnova;

/// A parameter with its importance.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    /// The parameter.
    pub name: String,
    /// Not negative; those of a study sum to 1.
    pub value: f64,
}

/// Which question to ask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Evaluator {
    /// Optuna's default.
    PedAnova(PedAnova),
    /// Variance explained by a random forest.
    Fanova(Fanova),
}

impl Default for Evaluator {
    fn default() -> Self {
        Self::PedAnova(PedAnova::default())
    }
}

/// Why there are no importances.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fanova explains one objective; with several one has to be chosen.
    #[error("the study has {objectives} objectives: choose one of them for fANOVA")]
    ChooseObjective {
        /// How many there are.
        objectives: usize,
    },
    /// There is no such objective.
    #[error("there is no objective {objective}; the study has {objectives}")]
    NoSuchObjective {
        /// The one asked for, from 0.
        objective: usize,
        /// How many there are.
        objectives: usize,
    },
    /// Fanova explains differences of the values by those of the parameters.
    #[error("there is nothing to explain: the values of the trials do not differ, or none of the parameters does")]
    NothingDiffers,
    /// Quantiles outside of `0 < target_quantile < region_quantile <= 1`.
    #[error("target_quantile {target} and region_quantile {region} must obey 0 < target < region <= 1")]
    Quantiles {
        /// Optuna's `target_quantile`, as text.
        target: String,
        /// Optuna's `region_quantile`, as text.
        region: String,
    },
}

/// The importance of each parameter, the largest first and equal ones by name; they sum to 1.
///
/// `objective` chooses one of several; `None` means the only one, or for [`PedAnova`] the way to the Pareto front. COMPLETE trials
/// with finite values count. When nothing can be told apart all parameters get the same share from [`PedAnova`], as in Optuna.
///
/// # Errors
/// An objective that is missing or does not exist, settings out of their range, or nothing that [`Fanova`] could explain.
pub fn importances(
    evaluator: &Evaluator,
    trials: &[Trial],
    directions: &[Direction],
    objective: Option<usize>,
) -> Result<Vec<Importance>, Error> {
    let objectives = directions.len();
    if let Some(objective) = objective.filter(|objective| *objective >= objectives) {
        return Err(Error::NoSuchObjective { objective, objectives });
    }
    let mut found = match evaluator {
        Evaluator::PedAnova(settings) => settings.evaluate(trials, directions, objective)?,
        Evaluator::Fanova(settings) => settings.evaluate(trials, directions, objective)?,
    };
    let total: f64 = found.iter().map(|importance| importance.value).sum();
    let equal = 1.0 / found.len() as f64;
    for importance in &mut found {
        importance.value = if total > 0.0 { importance.value / total } else { equal };
    }
    found.sort_by(|a, b| b.value.total_cmp(&a.value).then_with(|| a.name.cmp(&b.name)));
    Ok(found)
}
