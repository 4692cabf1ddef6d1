//! The specification of a sweep, checked as a whole before anything starts.

use std::time::Duration;

use quintet_proto::{
    types,
    v1::{self, SweepSpec},
};
use runtime_core::status::{FieldViolation, violation};

use super::{
    Constraint, Cost, Goals, Limits, NoProgress, apply,
    trial_checks::{self, CheckJob},
};
use crate::{
    objective::{self, Objective},
    pruner::{self, Pruner},
    sampler::{self, Sampler},
    space::Space,
    warm_start::Transfer,
};

/// A checked sweep.
#[derive(Debug)]
pub struct Sweep {
    /// What is sampled.
    pub space: Space,
    /// What is searched for.
    pub goals: Goals,
    /// How parameters are suggested.
    pub sampler: Box<dyn Sampler>,
    /// Which running trials are stopped early.
    pub pruner: Box<dyn Pruner>,
    /// When it ends.
    pub limits: Limits,
    /// Folds of a trial; `None`: a trial is one job.
    pub n_splits: Option<i32>,
    /// Longest run of one trial, or of one of its folds.
    pub trial_timeout: Option<types::Duration>,
    /// What is tried first.
    pub transfer: Option<Transfer>,
    /// The message itself.
    pub spec: SweepSpec,
}

/// The most trials of one sweep and the most at a time.
pub(crate) const MAX_TRIALS: i32 = 1_000_000;
const MAX_PARALLEL: i32 = 1_000;
const MAX_RETRIES: i32 = 100;
const MAX_FOLDS: i32 = 100;
/// Trials without progress that end a sweep which asks for that: Optuna's default.
const STAGNATION: i32 = 30;
/// A trial run of everything is this short.
const DRY_RUN_TRIALS: i32 = 2;
const DRY_RUN_EPOCHS: i32 = 1;
const DRY_RUN_FOLDS: i32 = 2;
/// What the study of a dry run is called after the sweep's.
const DRY_RUN_SUFFIX: &str = "-dry-run";
/// The longest name of a study that Optuna's tables hold, in characters.
const MAX_STUDY_NAME: usize = 512;

/// Checks a sweep without keeping it, and by `check` the jobs that its trials would be.
///
/// # Errors
/// Every rule that is broken, by field path inside of the specification.
pub fn validate(spec: &SweepSpec, check: CheckJob<'_>) -> Result<(), Vec<FieldViolation>> {
    let wrong = trial_checks::check(&Sweep::new(spec)?, check);
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

impl Sweep {
    /// Checks a sweep.
    ///
    /// # Errors
    /// Every rule that is broken, by field path inside of the specification.
    pub fn new(spec: &SweepSpec) -> Result<Self, Vec<FieldViolation>> {
        let mut spec = spec.clone();
        let mut wrong = Vec::new();
        if spec.dry_run {
            shorten(&mut spec);
        }
        let space = Space::from_proto(&spec.search_space).map_err(|violations| wrong.extend(violations)).ok();
        let name = &spec.study_name;
        let most = MAX_STUDY_NAME - if spec.dry_run { DRY_RUN_SUFFIX.len() } else { 0 };
        if name.chars().count() > most || name.contains(['/', '\0']) {
            let of_what = if spec.dry_run { " in a dry run" } else { "" };
            let problem = format!("{name:?} must have at most {most} characters{of_what}, no slash and no NUL");
            wrong.push(violation("study_name", problem));
        }
        let objectives = objectives(&spec, &mut wrong);
        let sampler =
            sampler::from_proto(spec.sampler.as_ref(), space.as_ref(), objectives.len(), "sampler", &mut wrong);
        let pruner = pruner::from_proto(spec.pruner.as_ref(), "pruner", &mut wrong);
        let limits = limits(&spec, &mut wrong);
        let cost_metric = limits.max_cost.as_ref().and_then(|cost| cost.metric.clone());
        let goals = Goals { objectives, constraints: constraints(&spec, &mut wrong), cost_metric };
        let n_splits = spec.k_fold.map(|folds| folds.n_splits);
        if let Some(count) = n_splits.filter(|count| !(2..=MAX_FOLDS).contains(count)) {
            wrong.push(violation("k_fold.n_splits", format!("{count} is not within 2 to {MAX_FOLDS}")));
        }
        let transfer = Transfer::from_proto(spec.transfer.as_ref(), spec.sampler.as_ref(), &mut wrong);
        match &space {
            Some(space) => wrong.extend(apply::check(&spec, space)),
            None if spec.trial.is_none() => wrong.push(apply::no_trial()),
            None => {}
        }
        match (space, wrong.is_empty()) {
            (Some(space), true) => Ok(Self {
                space,
                goals,
                n_splits,
                sampler,
                pruner,
                transfer: transfer.map(|transfer| transfer.at_most(limits.max_trials)),
                limits,
                trial_timeout: spec.trial_timeout,
                spec,
            }),
            _ => Err(wrong),
        }
    }

    /// The study to write to: the name that was given, else one from the content of the specification. A dry run has its own.
    pub fn study_name(&self, content_hash: &str) -> String {
        let name = match self.spec.study_name.as_str() {
            "" => format!("sweep-{}", content_hash.get(..16).unwrap_or(content_hash)),
            name => name.to_owned(),
        };
        if self.spec.dry_run { name + DRY_RUN_SUFFIX } else { name }
    }
}

/// A dry run has at most 2 trials of one epoch each, which nothing stops early: both are to tell what is wrong with them, if one fails.
fn shorten(spec: &mut SweepSpec) {
    spec.max_trials = spec.max_trials.min(DRY_RUN_TRIALS);
    if spec.max_failed_trials >= 0 {
        spec.max_failed_trials = DRY_RUN_TRIALS + 1;
    }
    spec.pruner = None;
    if let Some(folds) = &mut spec.k_fold {
        folds.n_splits = folds.n_splits.min(DRY_RUN_FOLDS);
    }
    if let Some(v1::sweep_spec::Trial::Train(train)) = &mut spec.trial {
        train.hyperparameters.get_or_insert_default().epochs = Some(DRY_RUN_EPOCHS);
    }
}

/// One objective, or several.
fn objectives(spec: &SweepSpec, wrong: &mut Vec<FieldViolation>) -> Vec<Objective> {
    if spec.objectives.is_empty() {
        let one = [spec.objective.clone().unwrap_or_default()];
        return objective::from_proto(&one, |_| "objective".to_owned(), wrong);
    }
    if spec.objective.is_some() {
        wrong.push(violation("objective", "is given beside objectives; give one of the two"));
    }
    let several = spec.objectives.len() > 1;
    if several && spec.pruner.as_ref().is_some_and(|pruner| pruner.kind.is_some()) {
        wrong.push(violation("pruner", "is for sweeps of one objective"));
    }
    if several && spec.refit {
        wrong.push(violation("refit", "is for sweeps of one objective; with several there is no best trial"));
    }
    objective::from_proto(&spec.objectives, |index| format!("objectives[{index}]"), wrong)
}

fn constraints(spec: &SweepSpec, wrong: &mut Vec<FieldViolation>) -> Vec<Constraint> {
    for (index, bound) in spec.constraints.iter().enumerate() {
        let at = |field: &str| format!("constraints[{index}].{field}");
        if bound.metric.is_empty() {
            wrong.push(violation(at("metric"), "is empty; name a metric that the trials report"));
        }
        if spec.constraints[..index].iter().any(|other| other.metric == bound.metric) {
            wrong.push(violation(at("metric"), format!("`{}` is there twice", bound.metric)));
        }
        match (bound.lower, bound.upper) {
            (None, None) => wrong.push(violation(at("upper"), "neither lower nor upper is given")),
            (lower, upper) if lower.is_some_and(f64::is_nan) || upper.is_some_and(f64::is_nan) => {
                wrong.push(violation(at("upper"), "is NaN"));
            }
            (Some(lower), Some(upper)) if lower > upper => {
                wrong.push(violation(at("lower"), format!("{lower} is above upper ({upper})")));
            }
            _ => {}
        }
    }
    let bounds = spec.constraints.iter();
    bounds.map(|bound| Constraint { metric: bound.metric.clone(), lower: bound.lower, upper: bound.upper }).collect()
}

fn limits(spec: &SweepSpec, wrong: &mut Vec<FieldViolation>) -> Limits {
    let mut range = |field: &str, value: i32, least: i32, most: i32| {
        if !(least..=most).contains(&value) {
            wrong.push(violation(field, format!("{value} is not within {least} to {most}")));
        }
        usize::try_from(value).unwrap_or_default()
    };
    let max_trials = range("max_trials", spec.max_trials, 1, MAX_TRIALS);
    let max_parallel = range("max_parallel_trials", spec.max_parallel_trials, 0, MAX_PARALLEL).max(1);
    let max_failed = range("max_failed_trials", spec.max_failed_trials, 0, MAX_TRIALS);
    let max_retries = spec.failed_trials.map_or(0, |policy| policy.max_retries);
    let max_retries = range("failed_trials.max_retries", max_retries, 0, MAX_RETRIES);
    let stagnation = spec.no_progress.and_then(|rule| rule.max_stagnation_trials).unwrap_or(STAGNATION);
    let max_stagnation_trials = range("no_progress.max_stagnation_trials", stagnation, 1, MAX_TRIALS);
    let mut amount = |field: &str, value: f64| {
        if !(value.is_finite() && value >= 0.0) {
            wrong.push(violation(field, format!("{value} is not a number of 0 or more")));
        }
        value
    };
    let max_cost = amount("max_cost", spec.max_cost);
    let min_delta = amount("no_progress.min_delta", spec.no_progress.map_or(0.0, |rule| rule.min_delta));
    if max_cost == 0.0 && !spec.cost_metric.is_empty() {
        wrong.push(violation("cost_metric", format!("`{}` is given without max_cost", spec.cost_metric)));
    }
    let mut positive = |field: &str, value: &Option<types::Duration>| {
        let value = value.as_ref()?;
        let duration = Duration::try_from(*value).ok().filter(|duration| !duration.is_zero());
        if duration.is_none() {
            wrong.push(violation(field, format!("{}s is not above 0", value.seconds)));
        }
        duration
    };
    positive("trial_timeout", &spec.trial_timeout);
    Limits {
        max_trials,
        max_parallel,
        timeout: positive("timeout", &spec.timeout),
        max_cost: (max_cost > 0.0).then(|| {
            let metric = (!spec.cost_metric.is_empty()).then(|| spec.cost_metric.clone());
            Cost { metric, max: max_cost }
        }),
        no_progress: spec.no_progress.map(|_| NoProgress { max_stagnation_trials, min_delta, since: None }),
        max_failed: (max_failed > 0).then_some(max_failed),
        max_retries,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use quintet_proto::v1::{parameter::Domain, sweep_spec::Trial};

    use super::*;

    /// A sweep of a command over x in [0, 1].
    pub(in crate::sweep) fn command_sweep() -> SweepSpec {
        SweepSpec {
            study_name: "s".into(),
            search_space: vec![v1::Parameter {
                name: "x".into(),
                domain: Some(Domain::Float(v1::FloatDomain { low: 0.0, high: 1.0, log: false, step: None })),
                condition: None,
            }],
            objective: Some(v1::Objective { metric: "loss".into(), direction: v1::Direction::Minimize.into() }),
            max_trials: 4,
            trial: Some(Trial::Command(v1::CommandSpec {
                command: "train --x ${{search_space.x}}".into(),
                ..v1::CommandSpec::default()
            })),
            ..SweepSpec::default()
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let mut spec = command_sweep();
        assert!(Sweep::new(&spec).is_ok());
        spec.study_name = "a/b".into();
        spec.search_space[0].name = String::new();
        spec.objective = Some(v1::Objective { metric: String::new(), direction: 9 });
        spec.sampler = Some(v1::Sampler {
            kind: Some(v1::sampler::Kind::Tpe(v1::TpeSampler { n_ei_candidates: Some(0), ..Default::default() })),
        });
        spec.pruner = Some(v1::Pruner {
            kind: Some(v1::pruner::Kind::Median(v1::MedianPruner { interval_steps: Some(0), ..Default::default() })),
        });
        let bound = |metric: &str, lower, upper| v1::Constraint { metric: metric.into(), lower, upper };
        spec.constraints = vec![bound("a", None, None), bound("a", Some(2.0), Some(1.0))];
        spec.max_trials = 0;
        spec.max_parallel_trials = -1;
        spec.timeout = Some(types::Duration { seconds: 0, nanos: 0 });
        spec.failed_trials = Some(v1::FailedTrials { max_retries: -1 });
        spec.no_progress = Some(v1::NoProgress { max_stagnation_trials: Some(0), min_delta: f64::NAN });
        spec.cost_metric = "usd".into();
        spec.k_fold = Some(v1::KFold { n_splits: 1, ..Default::default() });
        spec.trial = None;
        let fields: Vec<String> = Sweep::new(&spec).unwrap_err().into_iter().map(|v| v.field).collect();
        assert_eq!(
            fields,
            [
                "search_space[0].name",
                "study_name",
                "objective.metric",
                "objective.direction",
                "sampler.tpe.n_ei_candidates",
                "pruner.median.interval_steps",
                "max_trials",
                "max_parallel_trials",
                "failed_trials.max_retries",
                "no_progress.max_stagnation_trials",
                "no_progress.min_delta",
                "cost_metric",
                "timeout",
                "constraints[0].upper",
                "constraints[1].metric",
                "constraints[1].lower",
                "k_fold.n_splits",
                "trial",
            ]
        );
    }

    #[test]
    fn several_objectives_have_a_front_and_no_best() {
        let mut spec = command_sweep();
        let one = spec.objective.take().unwrap();
        spec.objectives = vec![one.clone(), v1::Objective { metric: "ms".into(), direction: 1 }];
        let sweep = Sweep::new(&spec).unwrap();
        assert_eq!(sweep.goals.directions().len(), 2);
        spec.objective = Some(one.clone());
        spec.objectives.push(one);
        spec.refit = true;
        spec.pruner = Some(v1::Pruner { kind: Some(v1::pruner::Kind::Median(v1::MedianPruner::default())) });
        let fields: Vec<String> = Sweep::new(&spec).unwrap_err().into_iter().map(|v| v.field).collect();
        assert_eq!(fields, ["objective", "pruner", "refit", "objectives[2].metric"]);
    }

    #[test]
    fn a_dry_run_is_short_and_writes_to_its_own_study() {
        let mut spec = command_sweep();
        spec.dry_run = true;
        spec.trial = Some(Trial::Train(v1::TrainSpec::default()));
        spec.search_space[0].name = "learning_rate".into();
        let sweep = Sweep::new(&spec).unwrap();
        assert_eq!((sweep.limits.max_trials, sweep.study_name("abc").as_str()), (2, "s-dry-run"));
        let Some(Trial::Train(train)) = &sweep.spec.trial else { panic!("not a train trial") };
        assert_eq!(train.hyperparameters.as_ref().unwrap().epochs, Some(1));
    }

    #[test]
    fn names_are_what_the_tables_hold() {
        let refused = |name: String, dry_run| {
            let spec = SweepSpec { study_name: name, dry_run, ..command_sweep() };
            Sweep::new(&spec).err().map(|wrong| wrong.into_iter().map(|v| v.field).collect::<Vec<_>>())
        };
        let study = Some(vec!["study_name".to_owned()]);
        assert_eq!(
            (refused("\u{4e16}".repeat(512), false), refused("\u{4e16}".repeat(513), false)),
            (None, study.clone())
        );
        assert_eq!((refused("x".repeat(504), true), refused("x".repeat(505), true)), (None, study.clone()));
        assert_eq!(refused("nul \0".into(), false), study);
        let mut spec = command_sweep();
        spec.search_space[0].name = "x\0".into();
        assert_eq!(Sweep::new(&spec).unwrap_err()[0].field, "search_space[0].name");
    }

    #[test]
    fn the_default_study_is_named_by_content() {
        let mut spec = command_sweep();
        spec.study_name = String::new();
        assert_eq!(Sweep::new(&spec).unwrap().study_name("0123456789abcdefff"), "sweep-0123456789abcdef");
    }
}
