//! When a sweep starts no more trials: so many of them, so much time or cost, or nothing new for too long.

use std::time::Duration;

use super::Goals;
use crate::{
    pareto::{dominates, losses},
    select::Measure,
    study::{State, Trial, best},
};

/// When a sweep ends and how wide it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Trials of the study in all; those that were repeated do not count.
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
    /// What the trials that have ended cost. A trial without the metric costs nothing.
    pub fn spent(&self, trials: &[Trial]) -> f64 {
        let cost = |trial: &Trial| match &self.metric {
            None => trial.seconds(),
            Some(metric) => Measure::Metric(metric.clone()).value(trial),
        };
        trials.iter().filter(|trial| trial.state.finished()).filter_map(cost).filter(|cost| !cost.is_nan()).sum()
    }
}

/// For how long a search may get nowhere.
#[derive(Debug, Clone, PartialEq)]
pub struct NoProgress {
    /// Trials in a row.
    pub max_stagnation_trials: usize,
    /// With one objective, how much better than those before counts.
    pub min_delta: f64,
}

impl NoProgress {
    /// How many trials have ended since the last one that brought something new, in the order in which they ended.
    pub fn stagnation(&self, trials: &[Trial], goals: &Goals) -> usize {
        let directions = goals.directions();
        let mut ended: Vec<&Trial> =
            trials.iter().filter(|trial| matches!(trial.state, State::Complete | State::Pruned)).collect();
        ended.sort_by_key(|trial| (trial.complete, trial.number));
        let mut front: Vec<Vec<f64>> = Vec::new();
        let mut since = 0;
        for trial in ended {
            since += 1;
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
    use jiff::Timestamp;

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
        Goals { objectives: directions.iter().enumerate().map(objective).collect(), constraints: Vec::new() }
    }

    #[test]
    fn what_is_new_starts_the_count_again() {
        use State::{Complete, Fail, Pruned};
        let rule = NoProgress { max_stagnation_trials: 3, min_delta: 0.1 };
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
    }

    #[test]
    fn a_point_on_the_front_is_progress() {
        let rule = NoProgress { max_stagnation_trials: 3, min_delta: 0.0 };
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
    }
}
