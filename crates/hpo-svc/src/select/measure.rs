//! What trials measured: values by name, wherever a sweep, a client or an Optuna program keeps them.

use std::{borrow::Borrow, collections::BTreeSet};

use crate::{
    pyjson::PyValue,
    study::{Direction, State, Study, Trial},
    sweep::{ATTR_METRICS, ATTR_TRIAL_METRICS},
};

/// Completed trials that are looked at to tell which metrics there are.
const LOOKED_AT: usize = 100;

/// One value of each trial of a study.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measure {
    /// The objective of this index.
    Objective(usize),
    /// A metric of the trial's job, or a user attribute that is a number.
    Metric(String),
}

impl Measure {
    /// The measure of that name: an objective first.
    pub fn of(study: &Study, name: &str) -> Self {
        match objective_names(study).iter().position(|objective| objective == name) {
            Some(index) => Self::Objective(index),
            None => Self::Metric(name.to_owned()),
        }
    }

    /// The direction of an objective.
    pub fn direction(&self, study: &Study) -> Option<Direction> {
        match self {
            Self::Objective(index) => study.directions.get(*index).copied(),
            Self::Metric(_) => None,
        }
    }

    /// The trial's value; `None` when it has none.
    pub fn value(&self, trial: &Trial) -> Option<f64> {
        match self {
            Self::Objective(index) => trial.values.get(*index).copied(),
            Self::Metric(name) => {
                let number = |json: &String| PyValue::parse(json).ok()?.as_f64();
                let metrics = trial.user_attrs.get(ATTR_TRIAL_METRICS).and_then(|json| PyValue::parse(json).ok());
                let metric = metrics.and_then(|metrics| metrics.get(name)?.as_f64());
                metric.or_else(|| trial.user_attrs.get(name).and_then(number))
            }
        }
    }
}

/// Names of a study's objectives. Those that Optuna was not told are called as in its data frames: `value`, or `values_0` and so on.
pub fn objective_names(study: &Study) -> Vec<String> {
    let count = study.directions.len();
    let unnamed = |index: usize| if count == 1 { "value".to_owned() } else { format!("values_{index}") };
    let named = match study.system_attrs.get(ATTR_METRICS).map(|json| PyValue::parse(json)) {
        Some(Ok(PyValue::List(names))) => names,
        _ => Vec::new(),
    };
    let name = |index: usize| match named.get(index) {
        Some(PyValue::Text(name)) => name.clone(),
        _ => unnamed(index),
    };
    (0..count).map(name).collect()
}

/// Names of what the completed trials measured, objectives included; of long studies the first trials are looked at.
pub fn known<T: Borrow<Trial>>(study: &Study, trials: &[T]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = objective_names(study).into_iter().collect();
    let complete = trials.iter().map(T::borrow).filter(|trial| trial.state == State::Complete);
    for (key, json) in complete.take(LOOKED_AT).flat_map(|trial| &trial.user_attrs) {
        match PyValue::parse(json) {
            Ok(PyValue::Object(entries)) if key == ATTR_TRIAL_METRICS => {
                names.extend(entries.into_iter().filter(|(_, value)| value.as_f64().is_some()).map(|(name, _)| name));
            }
            Ok(PyValue::Int(_) | PyValue::Big(_) | PyValue::Float(_)) => drop(names.insert(key.clone())),
            _ => {}
        }
    }
    names
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::study::tests::trial;

    /// A study with these objectives.
    pub(crate) fn study(name: &str, objectives: &[(&str, Direction)]) -> Study {
        let names: Vec<String> = objectives.iter().map(|(name, _)| format!("{name:?}")).collect();
        let system_attrs = match objectives.iter().all(|(name, _)| name.is_empty()) {
            true => [].into(),
            false => [(ATTR_METRICS.to_owned(), format!("[{}]", names.join(", ")))].into(),
        };
        Study {
            id: 1,
            name: name.into(),
            directions: objectives.iter().map(|(_, direction)| *direction).collect(),
            user_attrs: [].into(),
            system_attrs,
        }
    }

    #[test]
    fn values_are_found_wherever_they_are_kept() {
        let named = study("s", &[("f1", Direction::Maximize), ("loss", Direction::Minimize)]);
        let mut one = trial(0, State::Complete, Some(0.5));
        one.values.push(2.0);
        let attributes = [
            (ATTR_TRIAL_METRICS, r#"{"f1": 0.1, "latency": 12, "broken": NaN, "note": "x"}"#),
            ("latency", "99.0"),
            ("size_mb", "5"),
            ("kind", "\"a\""),
            ("flag", "true"),
        ];
        one.user_attrs = attributes.map(|(key, json)| (key.to_owned(), json.to_owned())).into();
        let value = |name: &str| Measure::of(&named, name).value(&one);
        assert_eq!((value("f1"), value("loss")), (Some(0.5), Some(2.0)), "objectives come first");
        assert_eq!((value("latency"), value("size_mb")), (Some(12.0), Some(5.0)), "then the job's metrics");
        assert!(value("broken").unwrap().is_nan());
        assert_eq!((value("kind"), value("flag"), value("note"), value("none")), (None, None, None, None));
        let names: Vec<String> = known(&named, &[one]).into_iter().collect();
        assert_eq!(names, ["broken", "f1", "latency", "loss", "size_mb"]);
        assert_eq!(objective_names(&study("s", &[("", Direction::Minimize)])), ["value"]);
        let two = [("", Direction::Minimize), ("", Direction::Maximize)];
        assert_eq!(objective_names(&study("s", &two)), ["values_0", "values_1"]);
    }
}
