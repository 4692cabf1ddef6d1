//! The study model: trials with their states, values and attributes, as Optuna has them, and the selection of the best one.

use std::{borrow::Borrow, collections::BTreeMap, fmt};

use jiff::Timestamp;
use quintet_proto::v1;

use crate::{
    pyjson::PyValue,
    space::{Distribution, ParamValue},
};

/// Which way the objective improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smaller is better.
    Minimize,
    /// Larger is better.
    Maximize,
}

/// Optuna's trial states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Queued with fixed parameters; nobody runs it yet.
    Waiting,
    /// Somebody runs it.
    Running,
    /// It has a value.
    Complete,
    /// It was stopped early.
    Pruned,
    /// It failed.
    Fail,
}

/// A parameter of a trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Unique in the trial.
    pub name: String,
    /// Internal value: the number, or the index of the choice.
    pub value: f64,
    /// What it was drawn from.
    pub distribution: Distribution,
}

impl Param {
    /// The user's value.
    pub fn external(&self) -> ParamValue {
        self.distribution.external(self.value)
    }
}

/// A trial of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Unique in the store; grows.
    pub id: i64,
    /// Dense from 0 in the study.
    pub number: i64,
    /// How far it is.
    pub state: State,
    /// One a direction; empty until there are any.
    pub values: Vec<f64>,
    /// In the order in which they were set.
    pub params: Vec<Param>,
    /// Step to value; NaN is allowed.
    pub intermediate: BTreeMap<i64, f64>,
    /// Key to JSON text.
    pub user_attrs: BTreeMap<String, String>,
    /// Key to JSON text.
    pub system_attrs: BTreeMap<String, String>,
    /// When it went to RUNNING.
    pub start: Option<Timestamp>,
    /// When it ended.
    pub complete: Option<Timestamp>,
}

/// A study without its trials.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// Unique in the store; never used again.
    pub id: i64,
    /// Unique in the store.
    pub name: String,
    /// One an objective.
    pub directions: Vec<Direction>,
    /// Key to JSON text.
    pub user_attrs: BTreeMap<String, String>,
    /// Key to JSON text.
    pub system_attrs: BTreeMap<String, String>,
}

impl Direction {
    /// Whether `a` is strictly better than `b`.
    pub fn better(self, a: f64, b: f64) -> bool {
        match self {
            Self::Minimize => a < b,
            Self::Maximize => a > b,
        }
    }

    /// Optuna's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minimize => "MINIMIZE",
            Self::Maximize => "MAXIMIZE",
        }
    }

    /// The direction of an objective; unspecified means maximize.
    pub fn from_proto(direction: v1::Direction) -> Self {
        match direction {
            v1::Direction::Minimize => Self::Minimize,
            v1::Direction::Maximize | v1::Direction::Unspecified => Self::Maximize,
        }
    }

    /// The direction on the wire.
    pub fn to_proto(self) -> v1::Direction {
        match self {
            Self::Minimize => v1::Direction::Minimize,
            Self::Maximize => v1::Direction::Maximize,
        }
    }
}

impl State {
    /// Optuna's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Running => "RUNNING",
            Self::Complete => "COMPLETE",
            Self::Pruned => "PRUNED",
            Self::Fail => "FAIL",
        }
    }

    /// The state of that word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Waiting, Self::Running, Self::Complete, Self::Pruned, Self::Fail]
            .into_iter()
            .find(|state| state.as_str() == text)
    }

    /// Whether the trial has ended.
    pub fn finished(self) -> bool {
        matches!(self, Self::Complete | Self::Pruned | Self::Fail)
    }

    /// The state on the wire.
    pub fn to_proto(self) -> v1::TrialState {
        match self {
            Self::Waiting => v1::TrialState::TrialWaiting,
            Self::Running => v1::TrialState::TrialRunning,
            Self::Complete => v1::TrialState::TrialComplete,
            Self::Pruned => v1::TrialState::TrialPruned,
            Self::Fail => v1::TrialState::TrialFail,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Trial {
    /// The first value.
    pub fn value(&self) -> Option<f64> {
        self.values.first().copied()
    }

    /// The parameter of that name.
    pub fn param(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|param| param.name == name)
    }

    /// The place of the parameter of that name, looked for at `near` first: trials of a study have theirs in the same order.
    pub fn param_place(&self, name: &str, near: usize) -> Option<usize> {
        let is = |param: &Param| param.name == name;
        if self.params.get(near).is_some_and(is) { Some(near) } else { self.params.iter().position(is) }
    }

    /// The largest step that was reported, with its value.
    pub fn last_report(&self) -> Option<(i64, f64)> {
        self.intermediate.last_key_value().map(|(step, value)| (*step, *value))
    }

    /// Optuna's value of a pruned trial: that of its largest step, unless it is NaN.
    pub fn pruned_value(&self) -> Option<f64> {
        self.last_report().map(|(_, value)| value).filter(|value| !value.is_nan())
    }

    /// Seconds from start to end.
    pub fn seconds(&self) -> Option<f64> {
        let (start, complete) = (self.start?, self.complete?);
        Some(complete.duration_since(start).as_secs_f64())
    }

    /// The trial's constraints by name; 0 or less is feasible.
    ///
    /// They are where Optuna keeps them: `constraints:NAME` each, up to 4.x a list under `constraints`, named by their indices.
    pub fn constraints(&self) -> BTreeMap<String, f64> {
        if self.system_attrs.is_empty() {
            return BTreeMap::new();
        }
        let number = |json: &String| PyValue::parse(json).ok()?.as_f64();
        let mut all: BTreeMap<String, f64> = BTreeMap::new();
        if let Some(Ok(PyValue::List(values))) = self.system_attrs.get("constraints").map(|json| PyValue::parse(json)) {
            let values = values.iter().enumerate().filter_map(|(i, value)| Some((i.to_string(), value.as_f64()?)));
            all.extend(values);
        }
        let named = self.system_attrs.range("constraints:".to_owned()..);
        let named = named.map_while(|(key, json)| Some((key.strip_prefix("constraints:")?, json)));
        all.extend(named.filter_map(|(name, json)| Some((name.to_owned(), number(json)?))));
        all
    }

    /// By how much the trial breaks its constraints, in all: the sum of those that are above 0. `None` when it has none.
    pub fn violation(&self) -> Option<f64> {
        let all = self.constraints();
        (!all.is_empty()).then(|| all.values().filter(|value| **value > 0.0).sum())
    }

    /// Whether the trial breaks no constraint.
    pub fn feasible(&self) -> bool {
        self.violation().is_none_or(|violation| violation <= 0.0)
    }

    /// A user attribute that is a JSON string.
    pub fn user_text(&self, key: &str) -> Option<String> {
        serde_json::from_str(self.user_attrs.get(key)?).ok()
    }
}

/// The best COMPLETE trial that breaks no constraint; among equals the one of the smallest number.
pub fn best<T: Borrow<Trial>>(trials: &[T], direction: Direction) -> Option<&Trial> {
    let mut best: Option<(&Trial, f64)> = None;
    for trial in trials.iter().map(T::borrow).filter(|trial| trial.state == State::Complete && trial.feasible()) {
        let Some(value) = trial.value().filter(|value| !value.is_nan()) else { continue };
        let wins = best.is_none_or(|(other, other_value)| {
            direction.better(value, other_value) || (value == other_value && trial.number < other.number)
        });
        if wins {
            best = Some((trial, value));
        }
    }
    best.map(|(trial, _)| trial)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A trial with that number, state and value.
    pub(crate) fn trial(number: i64, state: State, value: Option<f64>) -> Trial {
        Trial {
            id: number + 1,
            number,
            state,
            values: value.into_iter().collect(),
            params: Vec::new(),
            intermediate: BTreeMap::new(),
            user_attrs: BTreeMap::new(),
            system_attrs: BTreeMap::new(),
            start: None,
            complete: None,
        }
    }

    #[test]
    fn the_best_is_complete_finite_or_infinite_and_first_among_equals() {
        let trials = [
            trial(0, State::Pruned, Some(9.0)),
            trial(1, State::Fail, None),
            trial(2, State::Complete, Some(f64::NAN)),
            trial(3, State::Complete, Some(1.0)),
            trial(4, State::Complete, Some(2.0)),
            trial(5, State::Complete, Some(2.0)),
            trial(6, State::Complete, Some(1.0)),
            trial(7, State::Running, Some(5.0)),
        ];
        assert_eq!(best(&trials, Direction::Maximize).unwrap().number, 4);
        assert_eq!(best(&trials, Direction::Minimize).unwrap().number, 3);
        assert!(best(&trials[..3], Direction::Maximize).is_none());
        let infinite = [trial(0, State::Complete, Some(f64::INFINITY)), trial(1, State::Complete, Some(3.0))];
        assert_eq!(best(&infinite, Direction::Minimize).unwrap().number, 1);
        assert_eq!(best(&infinite, Direction::Maximize).unwrap().number, 0);
    }

    #[test]
    fn constraints_are_read_where_optuna_keeps_them() {
        let mut constrained = trial(0, State::Complete, Some(1.0));
        assert_eq!((constrained.violation(), constrained.feasible()), (None, true));
        constrained.system_attrs.insert("constraints".into(), "[-1.0, 0.5]".into());
        assert_eq!((constrained.violation(), constrained.feasible()), (Some(0.5), false));
        constrained.system_attrs.insert("constraints:1".into(), "0.0".into());
        assert_eq!((constrained.violation(), constrained.feasible()), (Some(0.0), true));
        constrained.system_attrs.insert("constraints:latency".into(), "Infinity".into());
        constrained.system_attrs.insert("constraintz".into(), "7".into());
        assert_eq!(constrained.violation(), Some(f64::INFINITY));
        let trials = [constrained, trial(1, State::Complete, Some(2.0))];
        assert_eq!(best(&trials, Direction::Minimize).unwrap().number, 1);
    }

    #[test]
    fn a_pruned_trial_has_the_value_of_its_largest_step() {
        let mut pruned = trial(0, State::Running, None);
        assert_eq!(pruned.pruned_value(), None);
        pruned.intermediate.extend([(5, 0.5), (1, 0.9), (3, f64::NAN)]);
        assert_eq!(pruned.pruned_value(), Some(0.5));
        pruned.intermediate.insert(7, f64::NAN);
        assert_eq!(pruned.pruned_value(), None);
    }
}
