//! Expectations over quasi-random samples, for what has no closed form: improvements while other trials are running, and gains of
//! hypervolume in several objectives.
//!
//! Each sample imagines the scores of the running trials, then, given them, that of the candidate. Samples are fixed, so the
//! expectation is a smooth function of the candidate. Balandat et al., "BoTorch" (2020); Daulton et al., "Differentiable expected
//! hypervolume improvement" (2020); as Optuna's `qLogEI`, `qLogCEI`, `LogEHVI`, `qLogEHVI` and their constrained forms.

use std::sync::Arc;

use nalgebra::DMatrix;
use sobol_burley::{NUM_DIMENSIONS, sample};

use super::{
    acquisition::STABILIZER,
    boxes::{Cell, front, reference, undominated},
    linalg::{dot, inverse_factor, lower_times, lower_transposed_times},
    model::{Belief, Slopes},
};
use crate::sampler::truncnorm::{log_sum_exp, quantile};

/// Samples of an expectation.
pub(super) const SAMPLES: u32 = 128;
/// Gains are not below this.
const LEAST: f64 = 1e-12;
/// How wide the edge of a constraint is.
const EDGE: f64 = 1e-2;

/// What is expected, over all samples.
#[derive(Debug)]
pub(super) struct Sampled {
    /// One an objective.
    pub(super) objectives: Vec<Imagined>,
    /// One a constraint, or none where constraints are counted apart.
    pub(super) constraints: Vec<Imagined>,
    pub(super) gain: Gain,
}

/// What a sample gains.
#[derive(Debug)]
pub(super) enum Gain {
    /// What is above the best score; `None` while no trial is feasible.
    Improvement {
        best: Option<f64>,
        /// The log of what the running trials gain already, one a sample.
        floors: Vec<f64>,
    },
    /// The part of these cells, one list a sample, that the scores dominate.
    Hypervolume(Vec<Arc<Vec<Cell>>>),
}

/// One model's samples: scores of the running trials, and where the candidate's score lies given them.
#[derive(Debug)]
pub(super) struct Imagined {
    /// A row of scores of the running trials for each sample.
    pub(super) scores: Vec<Vec<f64>>,
    /// By how much the candidate's mean moves with its covariances, a row for each sample.
    shifts: Vec<Vec<f64>>,
    /// A standard normal number of the candidate for each sample.
    normals: Vec<f64>,
    /// Inverse Cholesky factor of the running trials' covariance.
    factor: DMatrix<f64>,
}

/// Rows of standard normal numbers.
pub(super) fn normals(samples: u32, dimensions: usize, seed: u32) -> Vec<Vec<f64>> {
    let number = |index: u32, dimension: usize| {
        let (round, column) = (dimension as u32 / NUM_DIMENSIONS, dimension as u32 % NUM_DIMENSIONS);
        // In the middle of its cell: 0 would be minus infinity.
        let share = f64::from(sample(index, column, seed.wrapping_add(round))) + 0.5 / f64::from(1 << 24);
        quantile(share, -38.0, 38.0)
    };
    (0..samples).map(|index| (0..dimensions).map(|dimension| number(index, dimension)).collect()).collect()
}

impl Imagined {
    /// From means and covariances of the running trials, and a row of one normal number more than those for each sample.
    pub(super) fn new(means: &[f64], covariance: &DMatrix<f64>, normals: &[Vec<f64>]) -> Option<Self> {
        let n = means.len();
        // Running trials at one point have one score: more is added to the diagonal until their covariance has a factor.
        let attempts = (0..10).map(|power| STABILIZER * 10_f64.powi(power));
        let stable = |noise: f64| covariance + DMatrix::from_diagonal_element(n, n, noise);
        let (covariance, factor) = attempts.map(stable).find_map(|covariance| {
            let factor = inverse_factor(&covariance)?;
            Some((covariance, factor))
        })?;
        // Lower triangle of the covariance is what counts; the factor itself is covariance times transposed inverse.
        let lower = covariance * factor.transpose();
        let own = |row: &Vec<f64>| row.iter().take(n).copied().collect::<Vec<f64>>();
        let score = |row: &Vec<f64>| {
            let moved = lower_times(&lower, &own(row));
            means.iter().zip(moved).map(|(mean, moved)| mean + moved).collect()
        };
        Some(Self {
            scores: normals.iter().map(score).collect(),
            shifts: normals.iter().map(|row| lower_transposed_times(&factor, &own(row))).collect(),
            normals: normals.iter().map(|row| row.get(n).copied().unwrap_or(0.0)).collect(),
            factor,
        })
    }

    /// Standard deviation of the candidate's score given those of the running trials, with the solution that its slope needs.
    fn deviation(&self, belief: &Belief) -> (f64, Vec<f64>) {
        let whitened = lower_times(&self.factor, &belief.cross);
        let variance = belief.variance + STABILIZER - dot(&whitened, &whitened);
        (variance.max(0.0).sqrt(), lower_transposed_times(&self.factor, &whitened))
    }

    /// The candidate's score in each sample.
    fn candidate(&self, belief: &Belief, deviation: f64) -> Vec<f64> {
        let samples = self.shifts.iter().zip(&self.normals);
        samples.map(|(shift, normal)| belief.mean + dot(shift, &belief.cross) + deviation * normal).collect()
    }

    /// Slopes by the belief from those by the candidate's score in each sample.
    fn slopes(&self, by_score: &[f64], deviation: f64, solved: &[f64]) -> Slopes {
        let by_deviation = dot(by_score, &self.normals);
        let variance = if deviation > 0.0 { by_deviation / (2.0 * deviation) } else { 0.0 };
        let mut cross: Vec<f64> = solved.iter().map(|solved| -2.0 * variance * solved).collect();
        for (slope, shift) in by_score.iter().zip(&self.shifts) {
            cross.iter_mut().zip(shift).for_each(|(cross, shift)| *cross += slope * shift);
        }
        Slopes { mean: by_score.iter().sum(), variance, cross }
    }
}

impl Gain {
    /// An improvement of the only objective, given what is imagined of it and, with their thresholds, of the constraints.
    pub(super) fn improvement(best: Option<f64>, objective: &Imagined, constraints: &[(&Imagined, f64)]) -> Self {
        let log_gain = |sample: usize, trial: usize| {
            let feasible =
                constraints.iter().map(|(imagined, threshold)| log_kept(imagined.scores[sample][trial], *threshold).0);
            feasible.sum::<f64>() + log_improvement(objective.scores[sample][trial], best).0
        };
        let floor = |sample: usize| {
            (0..objective.scores[sample].len()).map(|trial| log_gain(sample, trial)).fold(f64::NEG_INFINITY, f64::max)
        };
        Self::Improvement { best, floors: (0..objective.scores.len()).map(floor).collect() }
    }

    /// A gain of hypervolume over these scores, given what is imagined of the objectives and, with their thresholds, of the
    /// constraints: in each sample the running trials count that keep them there.
    pub(super) fn hypervolume(scores: &[Vec<f64>], objectives: &[Imagined], constraints: &[(&Imagined, f64)]) -> Self {
        let reference = reference(scores);
        let known: Vec<Vec<f64>> = front(scores).into_iter().map(|index| scores[index].clone()).collect();
        let without = Arc::new(undominated(&known, &reference));
        let samples = objectives.first().map_or(0, |imagined| imagined.scores.len());
        let cells = |sample: usize| {
            let kept = |trial: &usize| {
                constraints.iter().all(|(imagined, threshold)| imagined.scores[sample][*trial] >= *threshold)
            };
            let trials: Vec<usize> = (0..objectives[0].scores[sample].len()).filter(kept).collect();
            if trials.is_empty() {
                return Arc::clone(&without);
            }
            let score = |trial: usize| objectives.iter().map(|imagined| imagined.scores[sample][trial]).collect();
            let mut all = known.clone();
            all.extend(trials.into_iter().map(score));
            Arc::new(undominated(&all, &reference))
        };
        Self::Hypervolume((0..samples).map(cells).collect())
    }

    /// The log of the gain with these scores in a sample, and its slopes by them.
    fn log(&self, sample: usize, scores: &[f64]) -> (f64, Vec<f64>) {
        match self {
            Self::Improvement { best, .. } => {
                let (log, slope) = scores.first().map_or((0.0, 0.0), |score| log_improvement(*score, *best));
                (log, vec![slope; scores.len()])
            }
            Self::Hypervolume(cells) => {
                let (mut volume, mut slopes) = (0.0, vec![0.0; scores.len()]);
                for cell in cells.get(sample).into_iter().flat_map(|cells| cells.iter()) {
                    let edge = |(score, (low, width)): (&f64, &(f64, f64))| (score - low).max(LEAST).min(*width);
                    let part: f64 = scores.iter().zip(cell).map(edge).product();
                    volume += part;
                    for ((slope, score), (low, width)) in slopes.iter_mut().zip(scores).zip(cell) {
                        let reach = score - low;
                        if reach > LEAST && reach < *width {
                            *slope += part / reach;
                        }
                    }
                }
                let volume = volume.max(f64::MIN_POSITIVE);
                slopes.iter_mut().for_each(|slope| *slope /= volume);
                (volume.ln(), slopes)
            }
        }
    }

    /// The log of what a sample gains without the candidate.
    fn floor(&self, sample: usize) -> f64 {
        match self {
            Self::Improvement { floors, .. } => floors.get(sample).copied().unwrap_or(f64::NEG_INFINITY),
            // It is counted in the cells.
            Self::Hypervolume(_) => f64::NEG_INFINITY,
        }
    }
}

/// The log of what a score is above the best, and its slope; 0 while there is no best.
fn log_improvement(score: f64, best: Option<f64>) -> (f64, f64) {
    let Some(best) = best else { return (0.0, 0.0) };
    let gain = score - best;
    if gain > LEAST { (gain.ln(), 1.0 / gain) } else { (LEAST.ln(), 0.0) }
}

/// The log of how well a constraint is kept, between 0 and 1 with a soft edge, and its slope.
fn log_kept(score: f64, threshold: f64) -> (f64, f64) {
    let z = (score - threshold) / EDGE;
    // log of the logistic function, by the form that does not overflow.
    let log = z.min(0.0) - (-z.abs()).exp().ln_1p();
    let broken = if z > 0.0 { (-z).exp() / (1.0 + (-z).exp()) } else { 1.0 / (1.0 + z.exp()) };
    (log, broken / EDGE)
}

impl Sampled {
    /// Whether constraints are counted in each sample.
    pub(super) fn constrained(&self) -> bool {
        !self.constraints.is_empty()
    }

    /// The log of the gain that is expected, with its slopes by the beliefs: objectives, then constraints.
    pub(super) fn judge(&self, objectives: &[Belief], constraints: &[(&Belief, f64)]) -> (f64, Vec<Slopes>) {
        let beliefs = objectives.iter().chain(constraints.iter().map(|(belief, _)| *belief));
        let imagined = || self.objectives.iter().chain(&self.constraints);
        let deviations: Vec<(f64, Vec<f64>)> =
            imagined().zip(beliefs.clone()).map(|(imagined, belief)| imagined.deviation(belief)).collect();
        let candidates: Vec<Vec<f64>> = imagined()
            .zip(beliefs)
            .zip(&deviations)
            .map(|((imagined, belief), (deviation, _))| imagined.candidate(belief, *deviation))
            .collect();
        let samples = candidates.first().map_or(0, Vec::len);
        let mut logs = Vec::with_capacity(samples);
        let mut by_score = vec![vec![0.0; samples]; candidates.len()];
        for sample in 0..samples {
            let scores: Vec<f64> = candidates[..objectives.len()].iter().map(|scores| scores[sample]).collect();
            let (mut log, mut slopes) = self.gain.log(sample, &scores);
            for (scores, (_, threshold)) in candidates[objectives.len()..].iter().zip(constraints) {
                let (kept, slope) = log_kept(scores[sample], *threshold);
                log += kept;
                slopes.push(slope);
            }
            let floor = self.gain.floor(sample);
            if log > floor {
                by_score.iter_mut().zip(slopes).for_each(|(by_score, slope)| by_score[sample] = slope);
            }
            logs.push(log.max(floor));
        }
        let total = log_sum_exp(&logs);
        for by_score in &mut by_score {
            by_score.iter_mut().zip(&logs).for_each(|(slope, log)| *slope *= (log - total).exp());
        }
        let slopes = imagined().zip(&by_score).zip(&deviations);
        let slopes =
            slopes.map(|((imagined, by_score), (deviation, solved))| imagined.slopes(by_score, *deviation, solved));
        (total - (samples as f64).ln(), slopes.collect())
    }
}
