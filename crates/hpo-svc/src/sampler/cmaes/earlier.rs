//! Where earlier studies were good, as the distribution that CMA-ES begins with.
//!
//! Nomura, Watanabe, Akimoto, Ozaki and Onishi, "Warm Starting CMA-ES for Hyperparameter Optimization" (AAAI 2021,
//! arXiv:2012.06932), as in the Python package `cmaes`, to which Optuna gives its `source_trials`. Values of different tasks cannot be
//! compared, so that of several studies the best of each count.

use nalgebra::{DMatrix, DVector};
use serde_json::{Value, json};

use super::{super::Request, Axis, Kind, order};
use crate::{
    space::{Distribution, Parameter, Space},
    study::{Direction, State, Trial},
};

/// System attribute of trials that were taken over from earlier studies: the distribution of the good ones, as JSON.
pub(crate) const ATTR_PROMISING: &str = "quintet:promising";

/// The share of a study's trials that is good.
const GAMMA: f64 = 0.1;
/// The least deviation, as a share of a domain's width.
const ALPHA: f64 = 0.1;

/// A normal distribution over the unit cube of some parameters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Promising {
    parameters: Vec<String>,
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
}

/// The distribution of the good trials of earlier studies, as text that is kept at a trial of the new one; `None` when no trial of
/// theirs has all parameters that are modelled. `margin` is for CMA-ES with margin.
pub(crate) fn promising(space: &Space, sources: &[(Direction, Vec<&Trial>)], margin: bool) -> Option<String> {
    let kind = if margin { Kind::Margin } else { Kind::Full { adapt: false } };
    let modelled = |parameter: &&Parameter| {
        let distribution = &parameter.distribution;
        let number = !matches!(distribution, Distribution::Categorical { .. });
        number && parameter.condition.is_none() && !distribution.single()
    };
    let parameters: Vec<&Parameter> = space.parameters().iter().filter(modelled).collect();
    let axes: Vec<Axis<'_>> = parameters.iter().map(|parameter| kind.axis(&parameter.distribution)).collect();
    let point = |trial: &Trial| -> Option<Vec<f64>> {
        let coordinate = |(parameter, axis): (&&Parameter, &Axis<'_>)| {
            let value = parameter.distribution.internal(&trial.param(&parameter.name)?.external())?;
            axis.coordinate(value).filter(|_| parameter.distribution.contains(value))
        };
        parameters.iter().zip(&axes).map(coordinate).collect()
    };
    let solutions = sources.iter().map(|(direction, trials)| {
        let complete = trials.iter().filter(|trial| trial.state == State::Complete && trial.feasible());
        let sign = if *direction == Direction::Minimize { 1.0 } else { -1.0 };
        let valued = complete.filter_map(|trial| Some((*trial, sign * trial.value().filter(|value| !value.is_nan())?)));
        valued.filter_map(|(trial, value)| Some((point(trial)?, value))).collect()
    });
    let (mean, covariance) = distribution(solutions.collect(), parameters.len())?;
    let rows: Vec<Vec<f64>> = covariance.row_iter().map(|row| row.iter().copied().collect()).collect();
    let names: Vec<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    Some(json!({"parameters": names, "mean": mean.as_slice(), "covariance": rows}).to_string())
}

/// Mean and covariance of the best of each study's points, which have a value each that is to be small.
fn distribution(studies: Vec<Vec<(Vec<f64>, f64)>>, dimensions: usize) -> Option<(DVector<f64>, DMatrix<f64>)> {
    let mut good: Vec<DVector<f64>> = Vec::new();
    for mut solutions in studies {
        solutions.sort_by(|a, b| order(a.1, b.1));
        // Where the package gives up, with fewer than ten, the best one still says something.
        let count = ((solutions.len() as f64 * GAMMA).floor() as usize).max(1);
        good.extend(solutions.into_iter().take(count).map(|(x, _)| DVector::from_vec(x)));
    }
    if good.is_empty() || dimensions == 0 {
        return None;
    }
    let n = good.len() as f64;
    let mean = good.iter().fold(DVector::<f64>::zeros(dimensions), |sum, x| sum + x) / n;
    let mut covariance = DMatrix::<f64>::identity(dimensions, dimensions) * (ALPHA * ALPHA);
    for x in &good {
        let from_mean = x - &mean;
        covariance.ger(1.0 / n, &from_mean, &from_mean, 1.0);
    }
    Some((mean, covariance))
}

impl Promising {
    /// What the trials of a study know of earlier ones.
    pub(super) fn of(request: &Request<'_>) -> Option<Self> {
        request.trials.iter().find_map(|trial| Self::parse(trial.system_attrs.get(ATTR_PROMISING)?))
    }

    fn parse(text: &str) -> Option<Self> {
        let document: Value = serde_json::from_str(text).ok()?;
        let names = document.get("parameters")?.as_array()?.iter();
        let parameters = names.map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()?;
        let numbers = |value: &Value| value.as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>();
        let mean = numbers(document.get("mean")?)?;
        let rows = document.get("covariance")?.as_array()?.iter().map(numbers).collect::<Option<Vec<_>>>()?;
        let n = parameters.len();
        let square = mean.len() == n && rows.len() == n && rows.iter().all(|row| row.len() == n);
        square.then(|| Self {
            parameters,
            mean: DVector::from_vec(mean),
            covariance: DMatrix::from_row_iterator(n, n, rows.into_iter().flatten()),
        })
    }

    /// The mean, the step size and the covariance over these parameters alone; `None` when it does not know all of them, or is no
    /// distribution.
    pub(super) fn start(&self, names: &[&str]) -> Option<(Vec<f64>, f64, DMatrix<f64>)> {
        let place = |name: &&str| self.parameters.iter().position(|known| known == name);
        let places = names.iter().map(place).collect::<Option<Vec<usize>>>()?;
        let n = places.len();
        let covariance = DMatrix::from_fn(n, n, |row, column| self.covariance[(places[row], places[column])]);
        // The determinant itself may be too small for a double.
        let root = covariance.clone().cholesky()?;
        let log_determinant = 2.0 * root.l_dirty().diagonal().iter().map(|x| x.ln()).sum::<f64>();
        let scale = (log_determinant / n as f64).exp();
        let mean = places.iter().map(|place| self.mean[*place].clamp(0.0, 1.0)).collect();
        (scale.is_normal() && scale > 0.0).then(|| (mean, scale.sqrt(), covariance / scale))
    }
}

#[cfg(test)]
mod tests;
