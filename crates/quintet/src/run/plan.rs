//! What the sweeps of a pipeline will do, shown before they start.

use quintet_proto::{
    types::Duration,
    v1::{
        CreateSweepRequest, Direction, Job, Objective, PlannedPart, SweepPlan, SweepSpec,
        hpo_service_client::HpoServiceClient, job_spec::Kind,
    },
};
use runtime_core::{client::Connection, status::violations_of};
use serde_json::Value;
use tonic::Status;

use super::check::not_yet;
use crate::{
    failure::Failure,
    pipeline::{Pipeline, Problem, Stage},
    report::table,
};

/// The plan of a sweep job.
///
/// # Errors
/// The job is no sweep, or the server does not plan it: inputs that another stage makes may be missing, or it is an older one.
pub(super) async fn of(connection: &Connection, job: &Job) -> Result<SweepPlan, Status> {
    let Some(spec) = sweep_of(job) else { return Err(Status::unimplemented("no sweep")) };
    let request = CreateSweepRequest { spec: Some(spec.clone()), validate_only: true, ..CreateSweepRequest::default() };
    let planned = HpoServiceClient::new(connection.clone()).create_sweep(request).await?.into_inner();
    planned.plan.ok_or_else(|| Status::internal("the server has sent no plan"))
}

/// Plans each sweep of a pipeline that has been checked, and with `show` shows the plans.
///
/// # Errors
/// Usage, when a sweep cannot do what it is to: its study is there with another search space.
pub(super) async fn check(connection: &Connection, pipeline: &Pipeline, show: bool) -> Result<(), Failure> {
    let jobs = not_yet(pipeline);
    let (mut problems, mut earlier) = (Vec::new(), Vec::new());
    for stage in pipeline.stages.iter().filter(|stage| stage.kind() == "sweep") {
        let job = stage.job(pipeline, &jobs).map_err(|error| Failure::usage(error.to_string()))?;
        match of(connection, &job).await {
            Ok(plan) if show => eprint!("{}: {}", stage.name, whole(&plan)),
            Ok(_) => {}
            Err(status) => {
                let found = violations_of(&status).into_iter().filter(|(field, _)| !is_to_come(&job, field, &earlier));
                let located = located(pipeline, stage, found);
                if show && located.is_empty() {
                    eprintln!("{}: there is no plan yet: {}", stage.name, status.message());
                }
                problems.extend(located);
            }
        }
        earlier.extend(sweep_of(&job).map(|spec| spec.study_name.clone()));
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::usage(problems.join("\n"))) }
}

fn sweep_of(job: &Job) -> Option<&SweepSpec> {
    match job.spec.as_ref()?.kind.as_ref()? {
        Kind::Sweep(spec) => Some(spec),
        _ => None,
    }
}

/// Whether a field of a sweep names a study that an earlier stage will make.
fn is_to_come(job: &Job, field: &str, earlier: &[String]) -> bool {
    let index = field.strip_prefix("spec.transfer.studies[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
    let transfer = sweep_of(job).and_then(|spec| spec.transfer.as_ref());
    let study = transfer.zip(index).and_then(|(transfer, index): (_, usize)| transfer.studies.get(index));
    study.is_some_and(|study| earlier.contains(study))
}

/// What a refusal names, with its place in the file.
fn located(pipeline: &Pipeline, stage: &Stage, violations: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let problem = |(field, description): (String, String)| {
        let below = field.strip_prefix("spec.").unwrap_or(&field);
        let (place, path) = stage.locate(&format!("sweep.{below}"));
        Problem::new(place, path, description).text(&pipeline.file)
    };
    violations.map(problem).collect()
}

fn bare(study: &str) -> &str {
    study.strip_prefix("studies/").unwrap_or(study)
}

fn size(plan: &SweepPlan) -> String {
    plan.combinations.map_or_else(|| "a continuous space".into(), |size| format!("{size} combinations"))
}

fn study(plan: &SweepPlan) -> String {
    match plan.continued {
        true => format!("study {} goes on after {} trials", bare(&plan.study), plan.finished_trials),
        false => format!("new study {}", bare(&plan.study)),
    }
}

fn name(part: Option<&PlannedPart>) -> &str {
    part.map_or("", |part| part.name.as_str())
}

fn objectives(plan: &SweepPlan) -> String {
    let objective = |objective: &Objective| {
        let minimized = objective.direction() == Direction::Minimize;
        format!("{} ({})", objective.metric, if minimized { "minimized" } else { "maximized" })
    };
    plan.objectives.iter().map(objective).collect::<Vec<_>>().join(", ")
}

/// One line for the plan, and one for what is to be known about it.
pub(super) fn brief(plan: &SweepPlan) -> Vec<String> {
    let pruner = match name(plan.pruner.as_ref()) {
        "nop" | "" => String::new(),
        pruner => format!(", pruner {pruner}"),
    };
    let first = format!(
        "{}: {}, {} trials to run, {} at a time, over {} of {}, sampler {}{pruner}",
        study(plan),
        objectives(plan),
        plan.trials_to_run,
        plan.max_parallel_trials,
        size(plan),
        plan.parameters.join(", "),
        name(plan.sampler.as_ref())
    );
    let warnings = (!plan.warnings.is_empty()).then(|| format!("note: {}", plan.warnings.join("; ")));
    [Some(first), warnings].into_iter().flatten().collect()
}

fn seconds(duration: Option<&Duration>) -> String {
    let length = duration.and_then(|duration| std::time::Duration::try_from(*duration).ok());
    length.map_or_else(|| "none".into(), |length| table::duration(length.as_secs_f64()))
}

fn part(part: Option<&PlannedPart>) -> String {
    let Some(part) = part else { return String::new() };
    let parameters = part.parameters.as_ref().and_then(|all| serde_json::to_value(all).ok());
    match parameters {
        Some(Value::Object(all)) if !all.is_empty() => {
            let text = |value: &Value| match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.as_f64().map_or_else(String::new, |number| number.to_string()),
                other => other.to_string(),
            };
            let mut all: Vec<String> = all.iter().map(|(name, value)| format!("{name} {}", text(value))).collect();
            // The message's map has no order.
            all.sort_unstable();
            format!("{} ({})", part.name, all.join(", "))
        }
        _ => part.name.clone(),
    }
}

/// Everything, a line each.
fn whole(plan: &SweepPlan) -> String {
    let kind = if plan.dry_run { ", a dry run" } else { "" };
    let mut rows = vec![
        ("trials", format!("{} to run, {} at a time{kind}", plan.trials_to_run, plan.max_parallel_trials)),
        ("space", format!("{}: {}", size(plan), plan.parameters.join(", "))),
        ("objective", objectives(plan)),
        ("sampler", part(plan.sampler.as_ref())),
        ("pruner", part(plan.pruner.as_ref())),
        (
            "time",
            format!("in all {}, a trial {}", seconds(plan.timeout.as_ref()), seconds(plan.trial_timeout.as_ref())),
        ),
        ("failures", plan.failures.clone()),
    ];
    if plan.folds > 0 {
        rows.push(("folds", plan.folds.to_string()));
    }
    if !plan.backbone.is_empty() {
        rows.push(("backbone", plan.backbone.clone()));
    }
    rows.extend(plan.warnings.iter().map(|warning| ("note", warning.clone())));
    let rows = rows.into_iter().map(|(name, text)| format!("  {name:9}  {text}\n"));
    format!("{}\n{}", study(plan), rows.collect::<String>())
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::{JobSpec, Transfer};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_study_of_an_earlier_stage_is_to_come() {
        let transfer = Transfer { studies: vec!["old".into(), "first".into()], n_trials: None };
        let spec = SweepSpec { transfer: Some(transfer), ..SweepSpec::default() };
        let job = Job { spec: Some(JobSpec { kind: Some(Kind::Sweep(spec)) }), ..Job::default() };
        let earlier = ["first".to_owned()];
        assert!(is_to_come(&job, "spec.transfer.studies[1]", &earlier));
        for other in ["spec.transfer.studies[0]", "spec.transfer.studies[2]", "spec.transfer", "spec.study_name"] {
            assert!(!is_to_come(&job, other, &earlier), "{other}");
        }
        assert!(!is_to_come(&Job::default(), "spec.transfer.studies[1]", &earlier));
    }

    #[test]
    fn a_plan_is_told_in_two_lines_or_as_a_whole() {
        let parameters = serde_json::from_value(json!({"n_startup_trials": 10.0, "group": false})).unwrap();
        let plan = SweepPlan {
            study: "studies/s".into(),
            continued: true,
            finished_trials: 3,
            trials_to_run: 5,
            max_parallel_trials: 2,
            combinations: Some(6),
            parameters: vec!["x".into(), "y".into()],
            sampler: Some(PlannedPart { name: "tpe".into(), parameters: Some(parameters) }),
            pruner: Some(PlannedPart { name: "nop".into(), parameters: None }),
            trial_timeout: Some(Duration { seconds: 90, nanos: 0 }),
            failures: "it fails when 2 trials fail".into(),
            warnings: vec!["a".into(), "b".into()],
            objectives: vec![Objective { metric: "f1".into(), direction: 0 }],
            ..SweepPlan::default()
        };
        let first = "study s goes on after 3 trials: f1 (maximized), 5 trials to run, 2 at a time, over 6 combinations of x, y, sampler tpe";
        assert_eq!(brief(&plan), [first, "note: a; b"]);
        let text = whole(&plan);
        assert!(text.starts_with("study s goes on after 3 trials\n  trials     5 to run, 2 at a time\n"), "{text}");
        assert!(text.contains("  sampler    tpe (group false, n_startup_trials 10)\n"), "{text}");
        assert!(text.contains("  objective  f1 (maximized)\n") && text.contains("  note       b\n"), "{text}");
        assert!(text.contains("in all none, a trial 1 min 30 s"), "{text}");
        let new = SweepPlan { combinations: None, continued: false, warnings: Vec::new(), ..plan };
        assert_eq!(brief(&new)[0][..11], *"new study s");
        assert_eq!(brief(&new).len(), 1);
    }
}
