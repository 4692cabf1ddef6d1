//! Repeating failed trials: a new trial with the parameters of the failed one, remembered as Optuna's retries are.

use std::{borrow::Borrow, collections::BTreeSet};

use super::ATTR_CANCELLED;
use crate::{
    pyjson::PyValue,
    queued,
    storage::NewTrial,
    study::{State, Trial},
};

/// System attribute of a repeated trial, Optuna's own: number of the first one that failed.
const FAILED_TRIAL: &str = "failed_trial";
/// System attribute of a repeated trial, Optuna's own: numbers of those that failed before it, a JSON list.
const RETRY_HISTORY: &str = "retry_history";

/// Numbers of the trials that this one repeats, in order; empty for a trial of its own.
fn history(trial: &Trial) -> Vec<i64> {
    let Some(Ok(PyValue::List(numbers))) = trial.system_attrs.get(RETRY_HISTORY).map(|json| PyValue::parse(json))
    else {
        return Vec::new();
    };
    let number = |number: &PyValue| match number {
        PyValue::Int(number) => Some(*number),
        _ => None,
    };
    numbers.iter().filter_map(number).collect()
}

/// Numbers of the trials that others repeat.
pub(super) fn repeated<T: Borrow<Trial>>(trials: &[T]) -> BTreeSet<i64> {
    trials.iter().flat_map(|trial| history(trial.borrow())).collect()
}

/// The trials that have ended, were not repeated and were not stopped with their sweep: those that count.
pub(super) fn counting<T: Borrow<Trial>>(trials: &[T]) -> impl Iterator<Item = &Trial> {
    let repeated = repeated(trials);
    let cancelled = |trial: &Trial| trial.state == State::Fail && trial.user_attrs.contains_key(ATTR_CANCELLED);
    let counts = move |trial: &&Trial| trial.state.finished() && !repeated.contains(&trial.number) && !cancelled(trial);
    trials.iter().map(T::borrow).filter(counts)
}

/// How many trials count.
pub(crate) fn counted<T: Borrow<Trial>>(trials: &[T]) -> usize {
    counting(trials).count()
}

/// Numbers of the failed trials that are to be repeated now; `own` says which ones the sweep has made.
pub(super) fn due(trials: &[Trial], max_retries: usize, own: impl Fn(&Trial) -> bool) -> Vec<i64> {
    if max_retries == 0 {
        return Vec::new();
    }
    let repeated = repeated(trials);
    let failed = trials.iter().filter(|trial| trial.state == State::Fail && own(trial));
    let due = failed.filter(|trial| !repeated.contains(&trial.number) && history(trial).len() < max_retries);
    due.map(|trial| trial.number).collect()
}

/// The trial that repeats a failed one.
pub(super) fn repeat(failed: &Trial) -> NewTrial {
    let values = failed.params.iter().map(|param| (param.name.clone(), param.external().to_py()));
    let mut new = queued::new_trial(values.collect());
    let mut history = history(failed);
    let first = history.first().copied().unwrap_or(failed.number);
    history.push(failed.number);
    let list = PyValue::List(history.into_iter().map(PyValue::Int).collect());
    new.system_attrs.insert(FAILED_TRIAL.to_owned(), PyValue::Int(first).dump());
    new.system_attrs.insert(RETRY_HISTORY.to_owned(), list.dump());
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        space::Distribution,
        study::{Param, tests::trial},
    };

    #[test]
    fn a_trial_is_repeated_so_often_and_remembers_those_before() {
        let mut trials = vec![trial(0, State::Fail, None), trial(1, State::Complete, Some(1.0))];
        let distribution = Distribution::float(0.0, 1.0, false, None).unwrap();
        trials[0].params.push(Param { name: "x".into(), value: 0.25, distribution });
        assert_eq!(due(&trials, 0, |_| true), Vec::<i64>::new());
        assert_eq!(due(&trials, 2, |_| false), Vec::<i64>::new());
        for number in 2..4 {
            let failed = due(&trials, 2, |_| true);
            assert_eq!(failed.len(), 1);
            let failed = trials.iter().find(|trial| trial.number == failed[0]).unwrap();
            let new = repeat(failed);
            assert_eq!(new.system_attrs["fixed_params"], r#"{"x": 0.25}"#);
            assert_eq!(new.system_attrs["failed_trial"], "0");
            let mut next = trial(number, State::Waiting, None);
            next.system_attrs = new.system_attrs;
            next.params = failed.params.clone();
            trials.push(next);
            assert_eq!(due(&trials, 2, |_| true), Vec::<i64>::new(), "one at a time");
            trials.last_mut().unwrap().state = State::Fail;
        }
        assert_eq!(trials[3].system_attrs["retry_history"], "[0, 2]");
        assert_eq!(due(&trials, 2, |_| true), Vec::<i64>::new());
        assert_eq!(repeated(&trials), BTreeSet::from([0, 2]));
        assert_eq!(counted(&trials), 2);
        trials[3].user_attrs.insert(ATTR_CANCELLED.into(), "true".into());
        assert_eq!(counted(&trials), 1);
    }
}
