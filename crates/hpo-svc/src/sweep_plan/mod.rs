//! What a sweep will do, told before it starts: a pure function from its specification and what its study holds.

use std::sync::Arc;

use quintet_proto::v1::{Objective, SweepPlan, SweepSpec, sweep_spec::Trial as Work};

use crate::{
    objective,
    sampler::{Grid, Request},
    study::{State, Trial},
    sweep::{ATTR_SWEEP, Sweep, counted},
};

mod settings;

#[cfg(test)]
mod tests;

use settings::{pruner, sampler, setting};

/// Plans a sweep of a study that has these trials; `None` is a study that does not exist yet.
pub fn sweep_plan(sweep: &Sweep, study: &str, trials: Option<&[Arc<Trial>]>) -> SweepPlan {
    let spec = &sweep.spec;
    let own: Vec<Trial> = trials.unwrap_or_default().iter().map(|trial| Trial::clone(trial)).collect();
    let finished = own.iter().filter(|trial| trial.state.finished()).count();
    let at_work = |trial: &&Trial| trial.state == State::Running && trial.user_attrs.contains_key(ATTR_SWEEP);
    let elsewhere = own.iter().filter(at_work).count();
    let left = match spec.dry_run {
        true => sweep.limits.max_trials,
        false => sweep.limits.max_trials.saturating_sub(counted(&own) + elsewhere),
    };
    let directions = sweep.goals.directions();
    let objective = |one: &objective::Objective| Objective {
        metric: one.metric.clone(),
        direction: one.direction.to_proto().into(),
    };
    let objectives: Vec<Objective> = sweep.goals.objectives.iter().map(objective).collect();
    let request = Request {
        space: &sweep.space,
        directions: &directions,
        trials: &own,
        number: own.last().map_or(0, |trial| trial.number + 1),
        seed: spec.seed.unwrap_or_default(),
    };
    let remaining = sweep.sampler.remaining(&request);
    let first = sweep.sampler.remaining(&Request { trials: &[], number: 0, ..request });
    let size = first.and_then(|size| u64::try_from(size).ok()).or_else(|| Grid::default().size(&sweep.space).ok());
    let to_run = remaining.map_or(left, |remaining| left.min(remaining));
    let mut plan = SweepPlan {
        study: format!("studies/{study}"),
        continued: trials.is_some(),
        finished_trials: shown(finished),
        trials_to_run: shown(to_run),
        max_parallel_trials: spec.max_parallel_trials.max(1),
        combinations: size,
        parameters: sweep.space.parameters().iter().map(|parameter| parameter.name.clone()).collect(),
        sampler: Some(sampler(spec.sampler.as_ref(), objectives.len().max(1))),
        pruner: Some(pruner(spec.pruner.as_ref())),
        timeout: spec.timeout,
        trial_timeout: spec.trial_timeout,
        failures: failures(sweep),
        dry_run: spec.dry_run,
        warnings: sweep.space.notes().to_vec(),
        folds: sweep.n_splits.unwrap_or_default(),
        objectives,
        backbone: match &spec.trial {
            Some(Work::Train(train)) if train.checkpoint.is_empty() => train.backbone.clone(),
            Some(Work::Train(train)) => train.checkpoint.clone(),
            _ => String::new(),
        },
        notes: notes(sweep),
    };
    let warnings = [
        nothing_to_run(&plan, spec),
        random_only(&plan, spec),
        of_the_space(&plan, spec),
        silent_pruner(&plan, sweep),
        wide(&plan),
    ];
    plan.warnings.extend(warnings.into_iter().flatten());
    plan
}

fn shown(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// What else ends the sweep, or comes after it.
fn notes(sweep: &Sweep) -> Vec<String> {
    let cost = sweep.limits.max_cost.as_ref().map(|cost| {
        let unit = cost.metric.as_deref().unwrap_or("seconds of trials");
        format!("no trial starts once those that have ended cost {} {unit}", cost.max)
    });
    let stuck = sweep
        .limits
        .no_progress
        .as_ref()
        .map(|rule| format!("no trial starts after {} in a row without progress", rule.max_stagnation_trials));
    let refit =
        sweep.spec.refit.then(|| "the best trial is run once more, without folds, and its outputs are kept".to_owned());
    [cost, stuck, refit].into_iter().flatten().collect()
}

/// What becomes of failed trials, and when they end the sweep.
fn failures(sweep: &Sweep) -> String {
    let ends = failed(&sweep.spec);
    match sweep.limits.max_retries {
        0 => ends,
        retries => format!("failed trials are repeated up to {retries} times; {ends}"),
    }
}

fn failed(spec: &SweepSpec) -> String {
    match (spec.max_failed_trials, spec.max_trials) {
        (0, most) => {
            let half = most.max(0).unsigned_abs().div_ceil(2);
            format!("it fails when the first 3 trials fail, or {half} in all")
        }
        (most, all) if most > all => "it goes on whatever fails, and fails when no trial completes".into(),
        (most, _) => format!("it fails when {most} trials fail"),
    }
}

fn nothing_to_run(plan: &SweepPlan, spec: &SweepSpec) -> Option<String> {
    (plan.trials_to_run == 0 && plan.continued).then(|| {
        format!(
            "the study has {} finished trials, and max_trials is {}: nothing is left to run",
            plan.finished_trials, spec.max_trials
        )
    })
}

/// A sampler that never gets beyond its random beginning.
fn random_only(plan: &SweepPlan, spec: &SweepSpec) -> Option<String> {
    let sampler = plan.sampler.as_ref().filter(|_| !spec.dry_run)?;
    let name = match sampler.name.as_str() {
        "nsga2" => "population_size",
        _ => "n_startup_trials",
    };
    let startup = setting(sampler, name)?;
    let all = spec.max_trials;
    (startup > 1.0 && startup >= f64::from(all)).then(|| {
        let sampler = &sampler.name;
        format!("the sampler {sampler} is random for its first {startup} trials ({name}), and there are {all}")
    })
}

/// More trials than there are combinations, or a grid of which only a part is seen.
fn of_the_space(plan: &SweepPlan, spec: &SweepSpec) -> Option<String> {
    let size = plan.combinations?;
    let grid = plan.sampler.as_ref().is_some_and(|sampler| sampler.name == "grid");
    let all = u64::try_from(spec.max_trials).unwrap_or_default();
    match (grid, all.cmp(&size)) {
        (true, std::cmp::Ordering::Less) => {
            Some(format!("the grid has {size} combinations, of which {all} trials (max_trials) are a part"))
        }
        (true, std::cmp::Ordering::Greater) => {
            Some(format!("the grid has {size} combinations: the sweep ends with them, before max_trials ({all})"))
        }
        (false, std::cmp::Ordering::Greater) => {
            Some(format!("the space has {size} combinations: of {all} trials (max_trials) some repeat others"))
        }
        _ => None,
    }
}

/// A pruner that will stop nothing.
fn silent_pruner(plan: &SweepPlan, sweep: &Sweep) -> Option<String> {
    let pruner = plan.pruner.as_ref().filter(|pruner| pruner.name != "nop")?;
    let (name, all) = (&pruner.name, sweep.spec.max_trials);
    match &sweep.spec.trial {
        // Folds are reported by the sweep itself.
        _ if sweep.n_splits.is_some() => {}
        Some(Work::Command(command)) if !command.metrics_file.is_empty() => {
            return Some(format!(
                "the pruner {name} sees nothing before the end of a trial: metrics_file is read then; log steps to MLFLOW_TRACKING_URI instead"
            ));
        }
        Some(Work::Train(train)) => {
            let epochs = train.hyperparameters.as_ref().and_then(|values| values.epochs);
            if epochs == Some(1) && sweep.space.get("epochs").is_none() {
                return Some(format!("the pruner {name} stops nothing: a trial of 1 epoch reports once, at its end"));
            }
        }
        _ => {}
    }
    let startup = setting(pruner, "n_startup_trials").filter(|startup| *startup >= f64::from(all))?;
    Some(format!("the pruner {name} stops nothing before {startup} trials (n_startup_trials), and there are {all}"))
}

fn wide(plan: &SweepPlan) -> Option<String> {
    let (parallel, run) = (plan.max_parallel_trials, plan.trials_to_run);
    (run > 0 && parallel > run).then(|| format!("max_parallel_trials is {parallel}, for {run} trials to run"))
}
