//! PED-ANOVA: which parameters set the best trials apart from the others.
//!
//! Watanabe, Bansal, Hutter, "PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary subspaces" (2023), and its
//! extension to conditional parameters (arXiv 2601.20800), as in Optuna 5.0's `PedAnovaImportanceEvaluator`. Trials that have a
//! parameter with the same distribution form a regime; within each, the Pearson divergence of the best trials' density from that of
//! all of them counts, weighted by the regime's shares.

use super::{Error, Importance, scott};
use crate::{
    pareto,
    space::Distribution,
    study::{Direction, State, Trial},
};

/// The evaluator's settings; the defaults are Optuna's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PedAnova {
    /// What counts as best: this share of the trials.
    pub target_quantile: f64,
    /// Which trials are compared with: this share from the best.
    pub region_quantile: f64,
    /// Compare with the density of the study's trials rather than with a uniform one.
    pub evaluate_on_local: bool,
}

impl Default for PedAnova {
    fn default() -> Self {
        Self { target_quantile: 0.1, region_quantile: 1.0, evaluate_on_local: true }
    }
}

/// A distribution with fewer trials than this tells nothing.
const MIN_TRIALS_IN_REGIME: usize = 2;

/// A trial that counts, and whether it is among the best.
struct Member<'a> {
    trial: &'a Trial,
    best: bool,
}

impl PedAnova {
    /// Importances before they are made shares of 1.
    pub(super) fn evaluate(
        &self,
        trials: &[Trial],
        directions: &[Direction],
        objective: Option<usize>,
    ) -> Result<Vec<Importance>, Error> {
        let (target, region) = (self.target_quantile, self.region_quantile);
        if !(0.0 < target && target < region && region <= 1.0) {
            return Err(Error::Quantiles { target: target.to_string(), region: region.to_string() });
        }
        let complete: Vec<&Trial> = trials.iter().filter(|trial| trial.state == State::Complete).collect();
        let mut names: Vec<&str> = complete.iter().flat_map(|t| t.params.iter().map(|p| p.name.as_str())).collect();
        names.sort_unstable();
        names.dedup();
        let points = complete.iter().filter_map(|trial| Some((*trial, losses(trial, directions, objective)?)));
        let (trials, points): (Vec<&Trial>, Vec<Vec<f64>>) = points.unzip();
        let members = if trials.len() > 1 { self.members(&trials, &points) } else { Vec::new() };
        let importance = |name: &&str| {
            let value = self.importance(name, &members);
            Importance { name: (*name).to_owned(), value }
        };
        Ok(names.iter().map(importance).collect())
    }

    /// The trials of the region, with the best marked.
    fn members<'a>(&self, trials: &[&'a Trial], points: &[Vec<f64>]) -> Vec<Member<'a>> {
        let best = quantile(points, self.target_quantile);
        let region = quantile(points, self.region_quantile);
        let marked = trials.iter().zip(region).zip(best).filter(|((_, inside), _)| *inside);
        marked.map(|((trial, _), best)| Member { trial, best }).collect()
    }

    fn importance(&self, name: &str, members: &[Member<'_>]) -> f64 {
        let n_best = members.iter().filter(|member| member.best).count() as f64;
        let n = members.len() as f64;
        let mut regimes: Vec<(&Distribution, Vec<(f64, bool)>)> = Vec::new();
        for member in members {
            let Some(param) = member.trial.param(name) else { continue };
            let value = (param.value, member.best);
            match regimes.iter_mut().find(|(distribution, _)| **distribution == param.distribution) {
                Some((_, values)) => values.push(value),
                None => regimes.push((&param.distribution, vec![value])),
            }
        }
        let mut importance = 0.0;
        for (distribution, values) in regimes {
            let best: Vec<f64> = values.iter().filter_map(|(value, best)| best.then_some(*value)).collect();
            if values.len() < MIN_TRIALS_IN_REGIME || best.is_empty() || distribution.single() {
                continue;
            }
            let (share_of_best, share) = (best.len() as f64 / n_best, values.len() as f64 / n);
            let all: Vec<f64> = values.into_iter().map(|(value, _)| value).collect();
            importance += share_of_best * share_of_best / share * self.divergence(distribution, &best, &all);
        }
        if n > 0.0 { importance * (n_best / n) * (n_best / n) } else { 0.0 }
    }

    /// The Pearson divergence of the best trials' density from that of all, or from the uniform one.
    fn divergence(&self, distribution: &Distribution, best: &[f64], all: &[f64]) -> f64 {
        // Keeps quotients finite where kernels vanish.
        let floor = 1e-12;
        let best = scott::density(distribution, best);
        let base = if self.evaluate_on_local {
            scott::density(distribution, all).into_iter().map(|density| density + floor).collect()
        } else {
            vec![1.0 / best.len() as f64; best.len()]
        };
        let term = |(best, base): (f64, &f64)| base * ((best + floor) / base - 1.0) * ((best + floor) / base - 1.0);
        best.into_iter().zip(&base).map(term).sum()
    }
}

/// What of the trial is to be small: the chosen objective, or all of them. `None` unless it is finite.
fn losses(trial: &Trial, directions: &[Direction], objective: Option<usize>) -> Option<Vec<f64>> {
    let losses = match objective {
        Some(objective) => {
            let (value, direction) = (trial.values.get(objective)?, directions.get(objective)?);
            vec![if *direction == Direction::Minimize { *value } else { -*value }]
        }
        None => pareto::losses(trial, directions)?,
    };
    (!losses.is_empty() && losses.iter().all(|loss| loss.is_finite())).then_some(losses)
}

/// Which points are the best of that share: of one objective with all that equal the last of them, of several by fronts.
fn quantile(points: &[Vec<f64>], quantile: f64) -> Vec<bool> {
    if quantile >= 1.0 {
        return vec![true; points.len()];
    }
    let count = (quantile * points.len() as f64).ceil() as usize;
    if points.first().is_some_and(|point| point.len() == 1) {
        let mut losses: Vec<f64> = points.iter().map(|point| point[0]).collect();
        losses.sort_by(f64::total_cmp);
        let cutoff = losses[count.clamp(1, losses.len()) - 1];
        return points.iter().map(|point| point[0] <= cutoff).collect();
    }
    pareto::leading(points, count)
}
