//! How much each parameter mattered for an objective, as shares of 1: what Optuna's `get_param_importances` tells with its fANOVA.
//!
//! [`Fanova`] asks how much of the objective's variance over the whole space each parameter explains by itself. [`told`] is what is
//! shown of a study: tables and plots read the same, so that they never contradict each other.

use std::collections::BTreeSet;

use crate::study::{Direction, State, Trial};

mod fanova;
mod forest;
#[cfg(test)]
mod tests;

pub use fanova::Fanova;

/// Completed trials from which a forest is grown to be shown, evenly spread over the study: the time grows faster than their number,
/// and more of them hardly tell more.
const FOREST: usize = 2000;

/// A parameter with its importance.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    /// The parameter.
    pub name: String,
    /// Not negative; those of a study sum to 1.
    pub value: f64,
}

/// Why there are no importances.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
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
}

/// The importance of each parameter for an objective, the largest first and equal ones by name; they sum to 1. COMPLETE trials with
/// finite values count.
///
/// # Errors
/// An objective that does not exist, or nothing that could be explained.
pub fn importances(
    fanova: &Fanova,
    trials: &[Trial],
    directions: &[Direction],
    objective: usize,
) -> Result<Vec<Importance>, Error> {
    let objectives = directions.len();
    if objective >= objectives {
        return Err(Error::NoSuchObjective { objective, objectives });
    }
    let mut found = fanova.evaluate(trials, objective)?;
    let total: f64 = found.iter().map(|importance| importance.value).sum();
    let equal = 1.0 / found.len() as f64;
    for importance in &mut found {
        importance.value = if total > 0.0 { importance.value / total } else { equal };
    }
    found.sort_by(|a, b| b.value.total_cmp(&a.value).then_with(|| a.name.cmp(&b.name)));
    Ok(found)
}

/// What is shown of the importances for an objective.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// As [`importances`] gives them.
    pub importances: Vec<Importance>,
    /// Parameters that are not among them: a forest is grown over what all trials have in common.
    pub without: Vec<String>,
    /// COMPLETE trials.
    pub complete: usize,
    /// COMPLETE trials from which the forest was grown.
    pub grown_from: usize,
}

impl Told {
    /// `2000 of 5000 trials`, when the forest was grown from a part of them.
    pub fn sample(&self) -> Option<String> {
        let Self { complete, grown_from, .. } = self;
        (grown_from < complete).then(|| format!("{grown_from} of {complete} trials"))
    }

    /// Which parameters are left out, and why.
    pub fn left_out(&self) -> Option<String> {
        let why = "not every trial has that, or not with the same domain";
        (!self.without.is_empty()).then(|| format!("without {}: {why}", self.without.join(", ")))
    }
}

/// What is shown of the importances for an objective, with Optuna's settings and a fixed seed. Nothing with fewer than two COMPLETE
/// trials.
///
/// # Errors
/// As [`importances`].
pub fn told(trials: &[Trial], directions: &[Direction], objective: usize) -> Result<Told, Error> {
    sampled(trials, directions, objective, FOREST)
}

/// [`told`] of `most` trials.
fn sampled(trials: &[Trial], directions: &[Direction], objective: usize, most: usize) -> Result<Told, Error> {
    let all: Vec<&Trial> = trials.iter().filter(|trial| trial.state == State::Complete).collect();
    let complete = all.len();
    if complete < 2 {
        return Ok(Told::default());
    }
    let fanova = Fanova { max_trials: Some(most), ..Fanova::default() };
    let importances = importances(&fanova, trials, directions, objective)?;
    let mut without: BTreeSet<&str> = all.iter().flat_map(|trial| &trial.params).map(|p| p.name.as_str()).collect();
    for importance in &importances {
        without.remove(importance.name.as_str());
    }
    let without = without.into_iter().map(str::to_owned).collect();
    Ok(Told { importances, without, complete, grown_from: complete.min(most) })
}
