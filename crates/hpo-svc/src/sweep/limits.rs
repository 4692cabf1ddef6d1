//! When a sweep starts no more trials: so many of them, so much time or cost, or nothing new for too long.

use std::{borrow::Borrow, time::Duration};

use jiff::Timestamp;

use super::{Goals, folds::folds};
use crate::{
    pareto::{dominates, losses},
    select::Measure,
    study::{State, Trial, best},
};

/// When a sweep ends and how wide it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Trials of the study in all; those that were repeated, or stopped with their sweep, do not count.
    pub max_trials: usize,
    /// Trials at the same time; at least 1.
    pub max_parallel: usize,
    /// No trial is started after this time.
    pub timeout: Option<Duration>,
    /// No trial is started once those that have ended cost so much.
    pub max_cost: Option<Cost>,
    /// No trial is started once so many brought nothing new.
    pub no_progress: Option<NoProgress>,
    /// Failed trials of this sweep after which it fails; `None`: all of the first 3 that end, or half of `max_trials`.
    pub max_failed: Option<usize>,
    /// How often a failed trial is repeated.
    pub max_retries: usize,
}

/// What trials may cost together.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// The metric that is a trial's cost; `None`: the seconds that it ran.
    pub metric: Option<String>,
    /// How much.
    pub max: f64,
}

impl Cost {
    /// What the trials that have ended cost, with all of their folds. A job that has failed or was pruned without the metric costs nothing.
    pub fn spent<T: Borrow<Trial>>(&self, trials: &[T]) -> f64 {
        let ended = trials.iter().map(T::borrow).filter(|trial| trial.state.finished());
        ended.flat_map(|trial| self.of(trial)).filter(|cost| !cost.is_nan()).sum()
    }

    /// What the jobs of a trial cost, as far as that is known.
    fn of(&self, trial: &Trial) -> Vec<f64> {
        let Some(metric) = &self.metric else { return trial.seconds().into_iter().collect() };
        let folds = folds(trial);
        // Of a complete trial with folds that is their mean, of another one what the fold cost that has ended it.
        let own = trial.state != State::Complete || folds.is_empty();
        let last = own.then(|| Measure::Metric(metric.clone()).value(trial)).flatten();
        folds.iter().filter_map(|fold| fold.metrics.get(metric).copied()).chain(last).collect()
    }
}

/// For how long a search may get nowhere.
#[derive(Debug, Clone, PartialEq)]
pub struct NoProgress {
    /// Trials in a row.
    pub max_stagnation_trials: usize,
    /// With one objective, how much better than those before counts.
    pub min_delta: f64,
    /// Those that ended earlier do not count: the sweep was extended then.
    pub since: Option<Timestamp>,
}

impl NoProgress {
    /// How many trials have ended since the last one that brought something new, in the order in which they ended, and since the sweep
    /// was extended.
    pub fn stagnation(&self, trials: &[Trial], goals: &Goals) -> usize {
        let directions = goals.directions();
        let mut ended: Vec<&Trial> =
            trials.iter().filter(|trial| matches!(trial.state, State::Complete | State::Pruned)).collect();
        ended.sort_by_key(|trial| (trial.complete, trial.number));
        let mut front: Vec<Vec<f64>> = Vec::new();
        let mut since = 0;
        for trial in ended {
            since += usize::from(self.since.is_none_or(|start| trial.complete.is_some_and(|at| at > start)));
            let counts = trial.state == State::Complete && trial.feasible();
            let Some(point) = counts.then(|| losses(trial, &directions)).flatten() else { continue };
            let beaten = front.iter().any(|known| known == &point || dominates(known, &point));
            let new = match (&point[..], &front[..]) {
                ([loss], [best, ..]) => *loss < best[0] - self.min_delta,
                _ => !beaten,
            };
            if new {
                since = 0;
            }
            // Also what is too little better to count: the next one is measured by the best.
            if !beaten {
                front.retain(|known| !dominates(&point, known));
                front.push(point);
            }
        }
        since
    }
}

impl Goals {
    /// The best trial by the objective; `None` with several.
    pub fn best<'a>(&self, trials: &'a [Trial]) -> Option<&'a Trial> {
        match &self.objectives[..] {
            [objective] => best(trials, objective.direction),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        objective::Objective,
        study::{Direction, tests::trial},
    };

    fn ended(number: i64, state: State, values: &[f64]) -> Trial {
        let mut trial = trial(number, state, None);
        trial.values = values.to_vec();
        trial.start = Some(Timestamp::from_second(10 * number).unwrap());
        trial.complete = Some(Timestamp::from_second(10 * number + 4).unwrap());
        trial
    }

    fn goals(directions: &[Direction]) -> Goals {
        let objective = |(n, d): (usize, &Direction)| Objective { metric: format!("m{n}"), direction: *d };
        Goals {
            objectives: directions.iter().enumerate().map(objective).collect(),
            constraints: Vec::new(),
            cost_metric: None,
        }
    }

    #[test]
    fn what_is_new_starts_the_count_again() {
        use State::{Complete, Fail, Pruned};
        let mut rule = NoProgress { max_stagnation_trials: 3, min_delta: 0.1, since: None };
        let one = goals(&[Direction::Maximize]);
        let mut trials = vec![ended(0, Complete, &[0.5]), ended(1, Complete, &[0.55]), ended(2, Pruned, &[0.9])];
        assert_eq!(rule.stagnation(&trials, &one), 2, "0.55 is too little, a pruned trial is never the best");
        trials.push(ended(3, Fail, &[]));
        assert_eq!(rule.stagnation(&trials, &one), 2, "failures say nothing");
        trials.push(ended(4, Complete, &[0.63]));
        assert_eq!(rule.stagnation(&trials, &one), 3, "0.63 is too little above 0.55, the best so far");
        trials.push(ended(5, Complete, &[0.8]));
        assert_eq!(rule.stagnation(&trials, &one), 0);
        assert_eq!(rule.stagnation(&[], &one), 0);
        let minimized = goals(&[Direction::Minimize]);
        assert_eq!(rule.stagnation(&trials, &minimized), 4, "the first one is the best");
        rule.since = trials[2].complete;
        assert_eq!(rule.stagnation(&trials, &minimized), 2, "what was before the extension is forgiven");
        assert_eq!(rule.stagnation(&trials, &one), 0);
    }

    #[test]
    fn a_point_on_the_front_is_progress() {
        let rule = NoProgress { max_stagnation_trials: 3, min_delta: 0.0, since: None };
        let two = goals(&[Direction::Maximize, Direction::Minimize]);
        let point = |number, a, b| ended(number, State::Complete, &[a, b]);
        let mut trials = vec![point(0, 0.5, 10.0), point(1, 0.4, 12.0), point(2, 0.5, 10.0)];
        assert_eq!(rule.stagnation(&trials, &two), 2);
        trials.push(point(3, 0.1, 1.0));
        assert_eq!(rule.stagnation(&trials, &two), 0);
    }

    #[test]
    fn cost_is_time_or_a_metric() {
        let mut trials = vec![ended(0, State::Complete, &[1.0]), ended(1, State::Fail, &[])];
        trials.push(trial(2, State::Running, None));
        assert_eq!(Cost { metric: None, max: 1.0 }.spent(&trials), 8.0);
        trials[0].user_attrs.insert(crate::sweep::ATTR_TRIAL_METRICS.into(), r#"{"usd": 2.5, "x": NaN}"#.into());
        let cost = |metric: &str| Cost { metric: Some(metric.into()), max: 1.0 }.spent(&trials);
        assert_eq!((cost("usd"), cost("x"), cost("y")), (2.5, 0.0, 0.0));
        // A pruned or failed one has cost something as well.
        trials[1].user_attrs.insert(crate::sweep::ATTR_TRIAL_METRICS.into(), r#"{"usd": 1.5}"#.into());
        assert_eq!(Cost { metric: Some("usd".into()), max: 1.0 }.spent(&trials), 4.0);
    }

    #[test]
    fn every_fold_of_a_trial_costs() {
        let folds = r#"[{"job": "jobs/1", "metrics": {"usd": 2.0}}, {"job": "jobs/2", "metrics": {"usd": 4.0}}]"#;
        let mut trials = [ended(0, State::Complete, &[1.0]), ended(1, State::Fail, &[]), ended(2, State::Pruned, &[])];
        for (trial, metrics) in trials.iter_mut().zip([Some(r#"{"usd": 3.0}"#), Some(r#"{"usd": 0.5}"#), None]) {
            trial.user_attrs.insert(crate::sweep::ATTR_FOLDS.into(), folds.into());
            trial.user_attrs.extend(metrics.map(|json| (crate::sweep::ATTR_TRIAL_METRICS.to_owned(), json.to_owned())));
        }
        let cost = Cost { metric: Some("usd".into()), max: 1.0 };
        assert_eq!(cost.spent(&trials[..1]), 6.0, "their sum, not their mean");
        assert_eq!(cost.spent(&trials[1..2]), 6.5, "and the fold that failed");
        assert_eq!(cost.spent(&trials[2..]), 6.0);
    }
}
