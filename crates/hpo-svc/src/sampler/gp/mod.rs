//! Bayesian optimisation with Gaussian processes, for studies of few and costly trials.
//!
//! A process is fitted to the scores so far, and the next trial goes where the improvement that it promises is largest. Rules and
//! constants are those of Optuna 5.0.0's `GPSampler`: running trials count by samples of what they may bring, constraints by the
//! probability to keep them, several objectives by the hypervolume that they gain. Three things differ. Every fit begins at the same
//! parameters, not at those of the trial before, so that a suggestion depends on the history alone. The next trial is searched for
//! more closely. And a constraint may be missing in some trials: its model knows the others, and those trials do not count as feasible.
//!
//! The cost grows with the cube of the number of trials, some seconds at a thousand; with more than four objectives the cells of
//! the hypervolume become too many.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use nalgebra::DMatrix;
use rand::RngExt as _;

use self::{
    acquisition::{Acquisition, Hope},
    domain::Dimension,
    model::{Model, Points},
    sampled::{Gain, Imagined, SAMPLES, Sampled},
};
use super::{Generator, Joint, Request, Sampler, intersection, tpe::observation};
use crate::{
    space::Parameter,
    study::{Direction, State, Trial},
};

mod acquisition;
mod boxes;
mod brent;
mod domain;
mod fit;
mod lbfgs;
mod linalg;
mod model;
mod sampled;
mod search;
#[cfg(test)]
mod tests;

/// The sampler's settings; the defaults are Optuna's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gp {
    /// Complete trials before the model is used; sampling is uniform until then.
    pub n_startup_trials: usize,
    /// The objective has no noise: the same parameters give the same values.
    pub deterministic_objective: bool,
}

impl Default for Gp {
    fn default() -> Self {
        Self { n_startup_trials: 10, deterministic_objective: false }
    }
}

/// Where Optuna's `GPSampler` announces parameters.
const ANNOUNCED: &str = "gp:relative_params";

/// Standard deviations below this count as this.
const LEAST_DEVIATION: f64 = 1e-10;

impl Sampler for Gp {
    fn quick(&self, _: usize, _: bool) -> bool {
        false
    }

    fn joint(&self, request: &Request<'_>, generator: &mut Generator) -> Joint {
        let complete = request.trials.iter().filter(|trial| trial.state == State::Complete);
        if complete.count() < self.n_startup_trials {
            return Joint::default();
        }
        let indices = intersection(request);
        let parameters: Vec<&Parameter> = indices.iter().map(|index| &request.space.parameters()[*index]).collect();
        let history = History::new(&parameters, request);
        if indices.is_empty() || history.rows.is_empty() {
            return Joint::default();
        }
        let Some(acquisition) = self.acquisition(&history, generator) else { return Joint::default() };
        let given = history.best(generator);
        let point = search::maximize(&acquisition, &history.space, given, generator);
        let mut values = vec![None; request.space.parameters().len()];
        for ((index, dimension), x) in indices.iter().zip(&history.space).zip(point) {
            values[*index] = Some(dimension.internal(x));
        }
        Joint { values, ..Joint::default() }
    }
}

/// What the models are made from.
#[derive(Debug)]
struct History {
    space: Vec<Dimension>,
    /// A scaled point for each complete trial.
    rows: Vec<Vec<f64>>,
    /// Standardised scores, to be large: one list an objective.
    scores: Vec<Vec<f64>>,
    /// Whether a trial keeps all constraints.
    feasible: Vec<bool>,
    constraints: Vec<Constraint>,
    /// Points of the running trials.
    pending: Vec<Vec<f64>>,
}

/// A constraint and what is known of it.
#[derive(Debug)]
struct Constraint {
    /// Which of the rows have it.
    rows: Vec<usize>,
    /// Standardised, to be large.
    scores: Vec<f64>,
    /// What has to be reached.
    threshold: f64,
}

impl History {
    fn new(parameters: &[&Parameter], request: &Request<'_>) -> Self {
        let space: Vec<Dimension> = parameters.iter().map(|p| Dimension::new(&p.distribution)).collect();
        let row = |trial: &Trial| -> Option<Vec<f64>> {
            let values = observation(parameters, trial, ANNOUNCED)?;
            let row: Vec<f64> = space.iter().zip(values).map(|(dimension, value)| dimension.scaled(value)).collect();
            row.iter().all(|x| x.is_finite()).then_some(row)
        };
        let (mut rows, mut trials, mut pending) = (Vec::new(), Vec::new(), Vec::new());
        for trial in request.trials.iter().filter(|trial| trial.number != request.number) {
            let Some(row) = row(trial) else { continue };
            let known = trial.values.len() == request.directions.len() && !trial.values.iter().any(|v| v.is_nan());
            match trial.state {
                State::Complete if known => {
                    rows.push(row);
                    trials.push(trial);
                }
                State::Running => pending.push(row),
                _ => {}
            }
        }
        let sign = |direction: &Direction| if *direction == Direction::Minimize { -1.0 } else { 1.0 };
        let scores = request.directions.iter().enumerate().map(|(i, direction)| {
            let values: Vec<f64> = trials.iter().map(|trial| sign(direction) * trial.values[i]).collect();
            standardized(&values).0
        });
        let scores = scores.collect();
        let limits: Vec<_> = trials.iter().map(|trial| trial.constraints()).collect();
        let names: BTreeSet<&String> = limits.iter().flat_map(|limits| limits.keys()).collect();
        let constraint = |name: &String| {
            let known = |(index, limits): (usize, &BTreeMap<String, f64>)| {
                let value = limits.get(name).copied().filter(|value| !value.is_nan())?;
                Some((index, -value))
            };
            let (rows, values): (Vec<usize>, Vec<f64>) = limits.iter().enumerate().filter_map(known).unzip();
            let (scores, threshold) = standardized(&values);
            Constraint { rows, scores, threshold }
        };
        let constraints =
            names.iter().copied().map(constraint).filter(|constraint| !constraint.rows.is_empty()).collect();
        // Where there are constraints, a trial that lacks one is not known to be feasible.
        let all = |limits: &BTreeMap<String, f64>| limits.len() == names.len() && limits.values().all(|v| *v <= 0.0);
        let feasible = limits.iter().map(all).collect();
        Self { space, rows, scores, feasible, constraints, pending }
    }

    fn feasible_rows(&self) -> Vec<usize> {
        (0..self.rows.len()).filter(|row| self.feasible[*row]).collect()
    }

    /// The scores of the feasible trials, a row each.
    fn feasible_scores(&self) -> Vec<Vec<f64>> {
        self.feasible_rows().into_iter().map(|row| self.scores.iter().map(|scores| scores[row]).collect()).collect()
    }

    /// Points of feasible trials that the search should start from: the first best one, or a few of the front.
    fn best(&self, generator: &mut Generator) -> Vec<Vec<f64>> {
        let rows = self.feasible_rows();
        let scores = self.feasible_scores();
        let mut front = boxes::front(&scores);
        let size = if self.scores.len() == 1 { 1 } else { search::LOCAL / 2 };
        if self.scores.len() == 1 {
            front.truncate(1);
        }
        let mut chosen = Vec::new();
        while !front.is_empty() && chosen.len() < size {
            let index = front.swap_remove(generator.random_range(0..front.len()));
            // A queued trial may lie outside of the domain.
            let inside = |(x, dimension): (&f64, &Dimension)| dimension.inside(*x);
            chosen.push(self.rows[rows[index]].iter().zip(&self.space).map(inside).collect());
        }
        chosen
    }
}

/// Values with mean 0 and deviation 1, and where 0 lies among them. Infinite ones count as the largest or smallest that are finite.
fn standardized(values: &[f64]) -> (Vec<f64>, f64) {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 0.0) };
    // Sums of huge numbers overflow; the result is the same in other units.
    let largest = low.abs().max(high.abs());
    let unit = if largest > 1e100 { largest } else { 1.0 };
    let clipped: Vec<f64> = values.iter().map(|value| value.max(low).min(high) / unit).collect();
    let n = clipped.len().max(1) as f64;
    let mean = clipped.iter().sum::<f64>() / n;
    let deviation = (clipped.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt().max(LEAST_DEVIATION);
    (clipped.iter().map(|value| (value - mean) / deviation).collect(), -mean / deviation)
}

impl Gp {
    /// The function to maximise; `None` if no model can be fitted.
    fn acquisition(&self, history: &History, generator: &mut Generator) -> Option<Acquisition> {
        let dimensions = history.space.len();
        let points = Arc::new(Points::new(&history.space, &history.rows));
        let fit =
            |points: &Arc<Points>, scores: &[f64]| fit::fit(points, scores, dimensions, self.deterministic_objective);
        let objectives = history.scores.iter().map(|scores| fit(&points, scores)).collect::<Option<Vec<_>>>()?;
        let constraint = |constraint: &Constraint| {
            let rows: Vec<Vec<f64>> = constraint.rows.iter().map(|row| history.rows[*row].clone()).collect();
            let all = rows.len() == points.len();
            let points = if all { Arc::clone(&points) } else { Arc::new(Points::new(&history.space, &rows)) };
            Some((fit(&points, &constraint.scores)?, constraint.threshold))
        };
        let constraints = history.constraints.iter().map(constraint).collect::<Option<Vec<_>>>()?;
        let seed: u32 = generator.random();
        let normals =
            |offset: usize, dimensions| sampled::normals(SAMPLES, dimensions, seed.wrapping_add(offset as u32));
        acquisition(objectives, constraints, history, &normals)
    }
}

/// The function to maximise, from fitted models. `normals` answers rows of normal numbers: which sequence, and how many columns.
fn acquisition(
    mut objectives: Vec<Model>,
    mut constraints: Vec<(Model, f64)>,
    history: &History,
    normals: &dyn Fn(usize, usize) -> Vec<Vec<f64>>,
) -> Option<Acquisition> {
    let scores = history.feasible_scores();
    let best = scores.iter().map(|row| row[0]).reduce(f64::max);
    let (several, waiting) = (objectives.len() > 1, !history.pending.is_empty());
    if (several && scores.is_empty()) || !(several || waiting) {
        return Some(Acquisition { objectives, constraints, hope: Hope::Improvement(best) });
    }
    // Without running trials the objectives share a sequence, a column each.
    let shared = if waiting { Vec::new() } else { normals(0, objectives.len()) };
    let imagine = |(index, model): (usize, &mut Model)| {
        if !waiting {
            let column: Vec<Vec<f64>> = shared.iter().map(|row| row[index..=index].to_vec()).collect();
            return Imagined::new(&[], &DMatrix::zeros(0, 0), &column);
        }
        let (means, covariance) = model.await_points(Points::new(&history.space, &history.pending));
        Imagined::new(&means, &covariance, &normals(index, history.pending.len() + 1))
    };
    let imagined = objectives.iter_mut().enumerate().map(imagine).collect::<Option<Vec<_>>>()?;
    let limits = if waiting {
        let models = constraints.iter_mut().enumerate();
        models.map(|(i, (model, _))| imagine((imagined.len() + i, model))).collect::<Option<_>>()?
    } else {
        Vec::new()
    };
    let thresholds = constraints.iter().map(|(_, threshold)| *threshold);
    let limited: Vec<(&Imagined, f64)> = limits.iter().zip(thresholds).collect();
    let gain = if several {
        Gain::hypervolume(&scores, &imagined, &limited)
    } else {
        Gain::improvement(best, imagined.first()?, &limited)
    };
    Some(Acquisition {
        objectives,
        constraints,
        hope: Hope::Sampled(Sampled { objectives: imagined, constraints: limits, gain }),
    })
}
