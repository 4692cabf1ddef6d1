//! Steering sweeps from outside: pause, go on, try more trials. What is asked is kept with the study, where the runner finds it.

use jiff::Timestamp;
use quintet_proto::v1::{CreateJobRequest, Job, SweepControl, job_spec::Kind};
use runtime_core::{
    client::JobClient,
    jobs::model::{is_terminal, job_name},
    status::{self, ErrorReason},
};
use tonic::Status;

use crate::{
    storage::{Attributes, Store, StudyAttributes},
    study::Study,
    sweep::{ATTR_MAX_TRIALS, ATTR_PAUSES, ATTR_SWEEP, Control, MAX_TRIALS, counted},
};

/// Pauses the sweeps of a study, or lets them go on. Asking for what is so already changes nothing.
///
/// # Errors
/// The store's.
pub(crate) async fn pause(store: &Store, study: &Study, paused: bool, now: Timestamp) -> Result<SweepControl, Status> {
    let mut control = Control::of(study);
    if control.set_paused(paused, now) {
        let pauses = Attributes::from([(ATTR_PAUSES.to_owned(), control.pauses_json())]);
        store.set_study_attributes(StudyAttributes::User(study.id), pauses).await?;
    }
    answer(store, study, &control).await
}

/// Lets the study have so many trials. A sweep that runs finds that by itself; the latest one is run again when it has ended.
///
/// # Errors
/// `INVALID_ARGUMENT` when that is no more than there are, `FAILED_PRECONDITION` when no sweep has made any, the job service's and the store's.
pub(crate) async fn extend(
    store: &Store,
    jobs: &JobClient,
    study: &Study,
    max_trials: i32,
) -> Result<SweepControl, Status> {
    let trials = store.trials(study.id).await?;
    let there = counted(&trials);
    if !(1..=MAX_TRIALS).contains(&max_trials) || usize::try_from(max_trials).is_ok_and(|most| most <= there) {
        let problem = format!("{max_trials} is not within {} to {MAX_TRIALS}; the study has {there} trials", there + 1);
        return Err(status::invalid_field("max_trials", problem));
    }
    let refused = |problem: String| {
        let name = format!("studies/{}", study.name);
        status::failed_precondition(ErrorReason::IllegalState, &name, problem, [("study", name.clone())])
    };
    let Some(sweep) = latest_sweep(store, study).await? else {
        return Err(refused(format!("no sweep has made a trial of study `{}`", study.name)));
    };
    let job = Box::pin(jobs.get(&sweep)).await?;
    let again = again(&job, study, max_trials).map_err(refused)?;
    let extended = Attributes::from([(ATTR_MAX_TRIALS.to_owned(), max_trials.to_string())]);
    store.set_study_attributes(StudyAttributes::User(study.id), extended).await?;
    let mut job = job;
    if is_terminal(job.state()) {
        let request_id = format!("{}/extensions/{max_trials}", job.uid);
        let mut request = CreateJobRequest { job: Some(again), request_id, validate_only: false, force: true };
        job = Box::pin(jobs.create(request.clone())).await?;
        if is_terminal(job.state()) {
            // The same was asked before, and came to nothing: there would be as many trials else.
            request.request_id += &format!("/{:016x}", rand::random::<u64>());
            job = Box::pin(jobs.create(request)).await?;
        }
    }
    let study = store.study(study.id).await?;
    Ok(SweepControl { job: job.name, ..answer(store, &study, &Control::of(&study)).await? })
}

/// The sweep once more, with more trials of the same study.
fn again(job: &Job, study: &Study, max_trials: i32) -> Result<Job, String> {
    let mut spec = job.spec.clone().unwrap_or_default();
    match &mut spec.kind {
        Some(Kind::Sweep(sweep)) if !sweep.dry_run => {
            sweep.max_trials = max_trials;
            sweep.study_name.clone_from(&study.name);
        }
        Some(Kind::Sweep(_)) => return Err(format!("{} was a dry run, which stays short", job.name)),
        _ => return Err(format!("{} is no sweep", job.name)),
    }
    Ok(Job {
        display_name: job.display_name.clone(),
        spec: Some(spec),
        labels: job.labels.clone(),
        retry: job.retry,
        timeouts: job.timeouts,
        resources: job.resources,
        experiment: job.experiment.clone(),
        ..Job::default()
    })
}

/// The name of the sweep that has made the study's latest trial.
async fn latest_sweep(store: &Store, study: &Study) -> Result<Option<String>, Status> {
    let trials = store.trials(study.id).await?;
    let latest = trials.iter().rev().find_map(|trial| trial.user_text(ATTR_SWEEP));
    Ok(latest.map(|uid| job_name(&uid)))
}

async fn answer(store: &Store, study: &Study, control: &Control) -> Result<SweepControl, Status> {
    Ok(SweepControl {
        study: format!("studies/{}", study.name),
        paused: control.paused(),
        max_trials: i32::try_from(control.max_trials(0)).unwrap_or(i32::MAX),
        job: latest_sweep(store, study).await?.unwrap_or_default(),
    })
}
