//! What the end of a trial's job means for the trial.

use std::collections::BTreeMap;

use quintet_proto::v1::{Job, JobState};
use runtime_core::status::ErrorReason;

use super::folds::Metrics;
use crate::{
    objective::Objective,
    study::{Direction, State},
};

/// How a trial ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It has a result.
    Complete(Outcome),
    /// It was stopped early, as it was asked to.
    Pruned,
    /// Why it failed.
    Fail(String),
    /// Its sweep was stopped, which says nothing about it: it fails, and counts for none.
    Cancelled(String),
}

/// What a trial has brought.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// One an objective.
    pub values: Vec<f64>,
    /// By metric, how far it is beyond its bound; 0 or less is within.
    pub constraints: BTreeMap<String, f64>,
    /// Everything that was reported.
    pub metrics: Metrics,
}

impl Verdict {
    /// The trial's state.
    pub fn state(&self) -> State {
        match self {
            Self::Complete(_) => State::Complete,
            Self::Pruned => State::Pruned,
            Self::Fail(_) | Self::Cancelled(_) => State::Fail,
        }
    }
}

/// Lines of a failed job's log that a trial's error keeps.
const TAIL_LINES: usize = 20;

/// A bound on a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Constraint {
    /// Name of the metric.
    pub metric: String,
    /// It must not be below.
    pub lower: Option<f64>,
    /// It must not be above.
    pub upper: Option<f64>,
}

impl Constraint {
    /// How far a value is beyond the bounds; 0 or less is within.
    fn excess(&self, value: f64) -> f64 {
        let below = self.lower.map(|lower| lower - value);
        let above = self.upper.map(|upper| value - upper);
        below.into_iter().chain(above).fold(f64::NEG_INFINITY, f64::max)
    }
}

/// What a trial is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Goals {
    /// What is optimized; one at least.
    pub objectives: Vec<Objective>,
    /// What must be kept.
    pub constraints: Vec<Constraint>,
    /// The metric that is a trial's cost: without it the cost would have no limit.
    pub cost_metric: Option<String>,
}

impl Goals {
    /// Which way the objectives improve.
    pub fn directions(&self) -> Vec<Direction> {
        self.objectives.iter().map(|objective| objective.direction).collect()
    }

    /// What these metrics are worth.
    ///
    /// # Errors
    /// One that is needed was not reported, or is not a number.
    pub fn outcome(&self, metrics: &Metrics) -> Result<Outcome, String> {
        let reported = |name: &str| match metrics.get(name) {
            Some(value) if value.is_nan() => Err(format!("metric `{name}` is not a number")),
            Some(value) => Ok(*value),
            None => {
                let logged: Vec<&str> = metrics.keys().map(String::as_str).collect();
                let logged = if logged.is_empty() { "none at all".to_owned() } else { logged.join(", ") };
                Err(format!("metric `{name}` was not reported; it reported {logged}"))
            }
        };
        let values = self.objectives.iter().map(|objective| reported(&objective.metric));
        let excess = |bound: &Constraint| Ok((bound.metric.clone(), bound.excess(reported(&bound.metric)?)));
        let outcome = Outcome {
            values: values.collect::<Result<_, String>>()?,
            constraints: self.constraints.iter().map(excess).collect::<Result<_, String>>()?,
            metrics: metrics.clone(),
        };
        match self.cost_metric.as_deref().map(reported) {
            Some(Err(problem)) => Err(format!("the cost of the trial is not known: {problem}")),
            _ => Ok(outcome),
        }
    }
}

/// What a job has reported in the end.
pub(super) fn metrics_of(job: &Job) -> Metrics {
    job.outputs.as_ref().map(|outputs| outputs.metrics.clone().into_iter().collect()).unwrap_or_default()
}

/// Judges a trial by its job that has ended.
pub fn verdict(job: &Job, goals: &Goals) -> Verdict {
    let error = job.error.clone().unwrap_or_default();
    match job.state() {
        JobState::Succeeded => goals.outcome(&metrics_of(job)).map_or_else(Verdict::Fail, Verdict::Complete),
        JobState::Cancelled if error.reason == ErrorReason::Pruned.as_str() => Verdict::Pruned,
        state => {
            let mut text = if error.reason.is_empty() {
                format!("the job is {}", state.as_str_name())
            } else {
                format!("{}: {}", error.reason, error.message)
            };
            let lines: Vec<&str> = error.log_tail.lines().collect();
            for line in lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)) {
                text.push('\n');
                text.push_str(line);
            }
            let with_sweep = state == JobState::Cancelled && error.reason == ErrorReason::ParentCancelled.as_str();
            if with_sweep { Verdict::Cancelled(text) } else { Verdict::Fail(text) }
        }
    }
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::{JobError, Outputs};

    use super::*;

    fn job(state: JobState, metrics: &[(&str, f64)], error: Option<JobError>) -> Job {
        let metrics = metrics.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
        let outputs = Some(Outputs { metrics, ..Outputs::default() });
        Job { state: state.into(), outputs, error, ..Job::default() }
    }

    fn error(reason: &str, log_tail: &str) -> Option<JobError> {
        Some(JobError { reason: reason.into(), message: "m".into(), log_tail: log_tail.into(), ..JobError::default() })
    }

    fn goals(metric: &str, constraints: Vec<Constraint>) -> Goals {
        Goals {
            objectives: vec![Objective { metric: metric.into(), direction: Direction::Maximize }],
            constraints,
            cost_metric: None,
        }
    }

    fn judge(job: &Job, metric: &str) -> Verdict {
        verdict(job, &goals(metric, Vec::new()))
    }

    #[test]
    fn each_end_of_a_job_has_its_verdict() {
        let ok = job(JobState::Succeeded, &[("f1", 0.5), ("loss", f64::NAN)], None);
        let Verdict::Complete(outcome) = judge(&ok, "f1") else { panic!("not complete") };
        assert_eq!((outcome.values, outcome.metrics.len()), (vec![0.5], 2));
        assert_eq!(judge(&ok, "loss"), Verdict::Fail("metric `loss` is not a number".into()));
        assert_eq!(judge(&ok, "F1"), Verdict::Fail("metric `F1` was not reported; it reported f1, loss".into()));
        let none = job(JobState::Succeeded, &[], None);
        assert_eq!(judge(&none, "f1"), Verdict::Fail("metric `f1` was not reported; it reported none at all".into()));
        assert_eq!(judge(&job(JobState::Cancelled, &[], error("PRUNED", "")), "f1"), Verdict::Pruned);
        let cancelled = job(JobState::Cancelled, &[], error("CANCELLED", ""));
        assert_eq!(judge(&cancelled, "f1"), Verdict::Fail("CANCELLED: m".into()));
        let with_sweep = job(JobState::Cancelled, &[], error("PARENT_CANCELLED", ""));
        assert_eq!(judge(&with_sweep, "f1"), Verdict::Cancelled("PARENT_CANCELLED: m".into()));
        let crashed = job(JobState::Failed, &[("f1", 1.0)], error("COMMAND_FAILED", &"line\n".repeat(30)));
        let Verdict::Fail(text) = judge(&crashed, "f1") else { panic!("not failed") };
        assert!(text.starts_with("COMMAND_FAILED: m\nline") && text.lines().count() == 1 + TAIL_LINES);
    }

    #[test]
    fn values_follow_the_objectives_and_bounds_tell_by_how_far_they_are_broken() {
        let ok = job(JobState::Succeeded, &[("f1", 0.5), ("latency", 12.0), ("size", 3.0)], None);
        let bound = |metric: &str, lower, upper| Constraint { metric: metric.into(), lower, upper };
        let bounds = vec![bound("latency", None, Some(10.0)), bound("size", Some(1.0), Some(4.0))];
        let mut goals = goals("f1", bounds);
        goals.objectives.insert(0, Objective { metric: "size".into(), direction: Direction::Minimize });
        let Verdict::Complete(outcome) = verdict(&ok, &goals) else { panic!("not complete") };
        assert_eq!(outcome.values, [3.0, 0.5]);
        assert_eq!(outcome.constraints, [("latency".to_owned(), 2.0), ("size".to_owned(), -1.0)].into());
        goals.cost_metric = Some("usd".into());
        let problem = goals.outcome(&metrics_of(&ok)).unwrap_err();
        assert!(
            problem.contains("cost of the trial") && problem.contains("metric `usd` was not reported"),
            "{problem}"
        );
        goals.cost_metric = Some("size".into());
        assert_eq!(goals.outcome(&metrics_of(&ok)).unwrap(), outcome);
        goals.constraints.push(bound("memory", None, Some(1.0)));
        let missing = verdict(&ok, &goals);
        assert!(matches!(missing, Verdict::Fail(problem) if problem.starts_with("metric `memory` was not reported")));
    }
}
