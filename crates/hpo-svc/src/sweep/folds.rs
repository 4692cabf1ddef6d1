//! Cross-validation inside of a trial: what its folds have brought so far, kept with the trial so that a restart goes on.

use std::collections::BTreeMap;

use super::Goals;
use crate::{
    pyjson::{PyValue, float_repr},
    storage::{Attributes, Edit},
    study::Trial,
};

/// User attribute of a trial: its folds that have ended, a JSON list of objects with `job` and `metrics`.
pub const ATTR_FOLDS: &str = "quintet:folds";

/// Metrics by name.
pub type Metrics = BTreeMap<String, f64>;

/// A fold that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Fold {
    /// Name of its job.
    pub job: String,
    /// What it reported.
    pub metrics: Metrics,
}

/// The folds of a trial that have ended, in order.
pub fn folds(trial: &Trial) -> Vec<Fold> {
    let Some(Ok(PyValue::List(folds))) = trial.user_attrs.get(ATTR_FOLDS).map(|json| PyValue::parse(json)) else {
        return Vec::new();
    };
    let read = |fold: &PyValue| {
        let (Some(PyValue::Text(job)), Some(PyValue::Object(metrics))) = (fold.get("job"), fold.get("metrics")) else {
            return None;
        };
        let metrics = metrics.iter().filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)));
        Some(Fold { job: job.clone(), metrics: metrics.collect() })
    };
    folds.iter().map_while(read).collect()
}

/// What is to be stored with a trial when another fold has ended: the fold, the spread of those so far, and with one objective its
/// value at the fold's index.
pub(super) fn record(before: &[Fold], fold: Fold, goals: &Goals) -> Edit {
    let index = before.len();
    let folds: Vec<Fold> = before.iter().cloned().chain([fold]).collect();
    let object = |fold: &Fold| {
        let metrics = PyValue::Object(fold.metrics.iter().map(|(k, v)| (k.clone(), PyValue::Float(*v))).collect());
        PyValue::Object(vec![("job".to_owned(), PyValue::Text(fold.job.clone())), ("metrics".to_owned(), metrics)])
    };
    let mut edit = Edit::user_attr(ATTR_FOLDS, PyValue::List(folds.iter().map(object).collect()).dump());
    edit.user_attrs.extend(spread(&folds, goals));
    if let [objective] = &goals.objectives[..] {
        let value = folds[index].metrics.get(&objective.metric);
        edit.reports.extend(value.map(|value| (i64::try_from(index).unwrap_or(i64::MAX), *value)));
    }
    edit
}

/// The means over the folds, of the metrics that all of them have.
pub(super) fn means(folds: &[Fold]) -> Metrics {
    let Some((first, others)) = folds.split_first() else { return Metrics::new() };
    let mean = |(name, value): (&String, &f64)| {
        let sum: f64 = others.iter().try_fold(*value, |sum, fold| Some(sum + fold.metrics.get(name)?))?;
        Some((name.clone(), sum / folds.len() as f64))
    };
    first.metrics.iter().filter_map(mean).collect()
}

/// The first objective over the folds, as user attributes: mean, standard deviation of the population, and each value.
fn spread(folds: &[Fold], goals: &Goals) -> Attributes {
    let Some(objective) = goals.objectives.first() else { return Attributes::new() };
    let values: Vec<f64> = folds.iter().filter_map(|fold| fold.metrics.get(&objective.metric).copied()).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
    let list: Vec<String> = values.iter().map(|value| float_repr(*value)).collect();
    Attributes::from([
        ("cv_mean".to_owned(), float_repr(mean)),
        ("cv_std".to_owned(), float_repr(variance.sqrt())),
        ("cv_fold_metrics".to_owned(), format!("[{}]", list.join(", "))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        objective::Objective,
        study::{Direction, State, tests::trial},
    };

    #[test]
    fn folds_come_back_from_their_trial() {
        let objectives = vec![Objective { metric: "f1".into(), direction: Direction::Maximize }];
        let goals = Goals { objectives, constraints: Vec::new(), cost_metric: None };
        let mut trial = trial(0, State::Running, None);
        assert_eq!(folds(&trial), []);
        for (index, f1) in [0.5, 0.7].into_iter().enumerate() {
            let metrics = Metrics::from([("f1".to_owned(), f1), ("loss".to_owned(), f64::NAN)]);
            let fold = Fold { job: format!("jobs/{index}"), metrics };
            let edit = record(&folds(&trial), fold, &goals);
            assert_eq!(edit.reports, [(index as i64, f1)]);
            trial.user_attrs.extend(edit.user_attrs);
        }
        let all = folds(&trial);
        assert_eq!((all.len(), all[1].job.as_str(), all[1].metrics["f1"]), (2, "jobs/1", 0.7));
        assert!(all[0].metrics["loss"].is_nan());
        assert_eq!(means(&all)["f1"], 0.6);
        let spread = &trial.user_attrs;
        assert_eq!((spread["cv_mean"].as_str(), spread["cv_fold_metrics"].as_str()), ("0.6", "[0.5, 0.7]"));
        assert!((spread["cv_std"].parse::<f64>().unwrap() - 0.1).abs() < 1e-12);
    }

    #[test]
    fn a_metric_that_one_fold_lacks_has_no_mean() {
        let fold = |names: &[&str]| Fold {
            job: String::new(),
            metrics: names.iter().map(|name| ((*name).to_owned(), 1.0)).collect(),
        };
        assert_eq!(means(&[fold(&["a", "b"]), fold(&["a"])]), Metrics::from([("a".to_owned(), 1.0)]));
        assert_eq!(means(&[]), Metrics::new());
    }
}
