//! The tree-structured Parzen estimator of Optuna 5.0: multivariate, with constant liar.
//!
//! Good and bad trials are modelled apart, l(x) and g(x); of candidates drawn from l the one with the largest l(x) / g(x) is taken.
//! Bergstra et al., "Algorithms for hyper-parameter optimization" (2011); constants and rules are those of Optuna 5.0.0.

use super::{Generator, Joint, Request, Sampler, intersection, kernels::Mixture, random::uniform};
use crate::{
    pyjson::PyValue,
    space::{Distribution, ParamValue, Parameter},
    study::{Direction, State, Trial},
};

/// The sampler's settings; the defaults are Optuna's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tpe {
    /// Finished trials before the model is used; sampling is uniform until then.
    pub n_startup_trials: usize,
    /// Candidates drawn for each suggestion.
    pub n_ei_candidates: usize,
    /// Model the parameters together rather than one by one.
    pub multivariate: bool,
    /// Count running trials as bad, so that parallel trials keep apart.
    pub constant_liar: bool,
}

impl Default for Tpe {
    fn default() -> Self {
        Self { n_startup_trials: 10, n_ei_candidates: 24, multivariate: true, constant_liar: true }
    }
}

/// Where Optuna's `TPESampler` announces parameters.
const ANNOUNCED: &str = "tpe:relative_params";

impl Sampler for Tpe {
    fn joint(&self, request: &Request<'_>, generator: &mut Generator) -> Joint {
        if !self.multivariate || self.starting(request) {
            return Joint::default();
        }
        let joint = intersection(request);
        let mut values = vec![None; request.space.parameters().len()];
        if !joint.is_empty() {
            let point = self.suggest(&joint, request, generator);
            for (index, value) in joint.iter().zip(point) {
                values[*index] = Some(value);
            }
        }
        Joint { values, ..Joint::default() }
    }

    fn alone(&self, request: &Request<'_>, parameter: usize, generator: &mut Generator) -> f64 {
        let distribution = &request.space.parameters()[parameter].distribution;
        if self.starting(request) {
            return uniform(distribution, generator);
        }
        let point = self.suggest(&[parameter], request, generator);
        point.first().copied().unwrap_or_else(|| distribution.first())
    }
}

impl Tpe {
    /// Whether there are too few trials for a model.
    fn starting(&self, request: &Request<'_>) -> bool {
        let ended = |trial: &&Trial| matches!(trial.state, State::Complete | State::Pruned);
        request.trials.iter().filter(ended).take(self.n_startup_trials).count() < self.n_startup_trials
    }

    fn split<'a>(&self, request: &Request<'a>) -> (Vec<&'a Trial>, Vec<&'a Trial>) {
        let counts = |trial: &Trial| match trial.state {
            State::Complete | State::Pruned => true,
            State::Running => self.constant_liar && trial.number != request.number,
            State::Waiting | State::Fail => false,
        };
        split(request.trials.iter().filter(|trial| counts(trial)), request.directions[0])
    }

    /// The best of the candidates in the space of the parameters at `indices`, in their order.
    fn suggest(&self, indices: &[usize], request: &Request<'_>, generator: &mut Generator) -> Vec<f64> {
        let (below, above) = self.split(request);
        let space: Vec<&Parameter> = indices.iter().map(|index| &request.space.parameters()[*index]).collect();
        let (good, bad) = (mixture(&space, &below), mixture(&space, &above));
        let mut best: Option<(f64, Vec<f64>)> = None;
        for _ in 0..self.n_ei_candidates.max(1) {
            let point = good.sample(generator);
            let score = good.log_density(&point) - bad.log_density(&point);
            if best.as_ref().is_none_or(|(other, _)| score > *other) {
                best = Some((score, point));
            }
        }
        best.map(|(_, point)| point).unwrap_or_default()
    }
}

pub(crate) fn mixture(space: &[&Parameter], trials: &[&Trial]) -> Mixture {
    let observations: Vec<Vec<f64>> = trials.iter().filter_map(|trial| observation(space, trial, ANNOUNCED)).collect();
    let distributions: Vec<&Distribution> = space.iter().map(|parameter| &parameter.distribution).collect();
    Mixture::new(&distributions, &observations)
}

/// The trial's internal values in the space; `None` unless it has all of them, a running one's announced ones under `key` included.
pub(super) fn observation(space: &[&Parameter], trial: &Trial, key: &str) -> Option<Vec<f64>> {
    let announced = if trial.state == State::Running { announced(trial, key) } else { None };
    space
        .iter()
        .map(|parameter| {
            let external = match trial.param(&parameter.name) {
                // The index of a choice means nothing in another list of choices.
                Some(param) => param.external(),
                None => announced.as_ref()?.get(&parameter.name).and_then(ParamValue::from_py)?,
            };
            let value = parameter.distribution.internal(&external)?;
            let log = match parameter.distribution {
                Distribution::Float { log, .. } | Distribution::Int { log, .. } => log,
                Distribution::Categorical { .. } => false,
            };
            // A logarithm of it is needed.
            (!log || value > 0.0).then_some(value)
        })
        .collect()
}

/// The parameters that a running trial of an Optuna worker has announced before it set them one by one.
fn announced(trial: &Trial, key: &str) -> Option<PyValue> {
    let mut text = String::new();
    for chunk in 0.. {
        let Some(json) = trial.system_attrs.get(&format!("{key}:{chunk}")) else { break };
        let Ok(PyValue::Text(part)) = PyValue::parse(json) else { return None };
        text.push_str(&part);
    }
    PyValue::parse(&text).ok()
}

/// Divides trials into good and bad ones, each by number: the best tenth of those that ended, 25 at most, is good.
///
/// COMPLETE ones come first by value, then PRUNED ones by how far they came and their value there; RUNNING ones are bad.
pub(crate) fn split<'a>(
    trials: impl Iterator<Item = &'a Trial>,
    direction: Direction,
) -> (Vec<&'a Trial>, Vec<&'a Trial>) {
    let signed = |value: f64| if direction == Direction::Minimize { value } else { -value };
    let (mut complete, mut pruned, mut above) = (Vec::new(), Vec::new(), Vec::new());
    for trial in trials {
        match trial.state {
            State::Complete => complete.push(trial),
            State::Pruned => pruned.push(trial),
            _ => above.push(trial),
        }
    }
    let ended = complete.len() + pruned.len();
    let n_below = ended.div_ceil(10).min(25);
    let value = |trial: &Trial| trial.value().map_or(f64::INFINITY, signed);
    complete.sort_by(|a, b| order(value(a), value(b)));
    let progress = |trial: &Trial| match trial.last_report() {
        // As doubles: steps may be any integer.
        Some((step, value)) if value.is_nan() => (-(step as f64), f64::INFINITY),
        Some((step, value)) => (-(step as f64), signed(value)),
        None => (1.0, 0.0),
    };
    pruned.sort_by(|a, b| {
        let (a, b) = (progress(a), progress(b));
        order(a.0, b.0).then(order(a.1, b.1))
    });
    let mut below = complete;
    below.append(&mut pruned);
    above.extend(below.drain(n_below..));
    below.sort_by_key(|trial| trial.number);
    above.sort_by_key(|trial| trial.number);
    (below, above)
}

/// The order of numbers that are not NaN; equal ones, zeros of both signs among them, stay in the order of their trials.
fn order(a: f64, b: f64) -> std::cmp::Ordering {
    a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal)
}
