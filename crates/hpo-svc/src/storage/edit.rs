//! A change of a trial that has not ended: what is told of it at once is written at once.

use jiff::Timestamp;

use super::Attributes;
use crate::study::{Param, State, Trial};

/// What changes; by default nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edit {
    /// Replace parameters of the same name.
    pub params: Vec<Param>,
    /// Intermediate values by step; they replace those of the same step.
    pub reports: Vec<(i64, f64)>,
    /// Key to JSON text.
    pub user_attrs: Attributes,
    /// Key to JSON text.
    pub system_attrs: Attributes,
    /// Replace earlier ones; empty: they stay.
    pub values: Vec<f64>,
    /// The new state; RUNNING only from WAITING.
    pub state: Option<State>,
    /// Nothing changes unless the trial is in this state.
    pub only: Option<State>,
    /// Whoever brings it is a client of the storage proxy, and works on the trial if that runs then.
    pub leased: bool,
}

impl Edit {
    /// One parameter.
    pub fn param(param: Param) -> Self {
        Self { params: vec![param], ..Self::default() }
    }

    /// Intermediate values.
    pub fn reports(reports: Vec<(i64, f64)>) -> Self {
        Self { reports, ..Self::default() }
    }

    /// One user attribute, given as JSON text.
    pub fn user_attr(key: &str, json: String) -> Self {
        Self { user_attrs: Attributes::from([(key.to_owned(), json)]), ..Self::default() }
    }

    /// One system attribute, given as JSON text.
    pub fn system_attr(key: &str, json: String) -> Self {
        Self { system_attrs: Attributes::from([(key.to_owned(), json)]), ..Self::default() }
    }

    /// A state, with the values of the objectives if there are any.
    pub fn state(state: State, values: Vec<f64>) -> Self {
        Self { values, state: Some(state), ..Self::default() }
    }

    /// Changes a trial in memory as it is changed in the database.
    pub(super) fn apply(&self, trial: &mut Trial, now: Timestamp) {
        for param in &self.params {
            match trial.params.iter_mut().find(|known| known.name == param.name) {
                Some(known) => *known = param.clone(),
                None => trial.params.push(param.clone()),
            }
        }
        trial.intermediate.extend(self.reports.iter().copied());
        trial.user_attrs.extend(self.user_attrs.clone());
        trial.system_attrs.extend(self.system_attrs.clone());
        // Each objective's value is a row of its own.
        let kept = trial.values.split_off(self.values.len().min(trial.values.len()));
        trial.values.clone_from(&self.values);
        trial.values.extend(kept);
        let Some(state) = self.state else { return };
        trial.state = state;
        match state {
            State::Running => trial.start = Some(now),
            State::Complete | State::Pruned | State::Fail => trial.complete = Some(now),
            State::Waiting => {}
        }
    }
}
