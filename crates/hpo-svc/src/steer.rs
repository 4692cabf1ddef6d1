//! Steering sweeps from outside: pause, go on, try more trials. What is asked is kept with the study, where the runner finds it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use quintet_proto::v1::{CreateJobRequest, Job, SweepControl, job_spec::Kind};
use runtime_core::{
    client::JobClient,
    jobs::model::{is_terminal, job_name, uid_for_request},
    status::{self, ErrorReason},
};
use tokio::time::Instant;
use tonic::Status;

use crate::{
    storage::{Attributes, Store, StudyAttributes},
    study::{Study, Trial},
    sweep::{ATTR_MAX_TRIALS, ATTR_PAUSES, ATTR_SWEEP, Control, Extension, MAX_TRIALS, Sweep, counted},
};

/// How long a sweep that is about to end may take to do so, its outputs being published.
const ENDING_PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const ENDING_LOOK: Duration = Duration::from_millis(50);

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
/// `INVALID_ARGUMENT` when that is no more than there are, `FAILED_PRECONDITION` when no sweep has made any or the latest one has spent
/// what it may, `UNAVAILABLE` when it is just ending for too long, the job service's and the store's.
pub(crate) async fn extend(
    store: &Store,
    jobs: &JobClient,
    study: &Study,
    max_trials: i32,
) -> Result<SweepControl, Status> {
    let trials = store.trials(study.id).await?;
    let there = counted(&trials);
    let most = usize::try_from(max_trials).unwrap_or_default();
    if max_trials > MAX_TRIALS || most <= there {
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
    let mut job = Box::pin(jobs.get(&job_name(&sweep))).await?;
    let again = again(&job, study, max_trials).map_err(refused)?;
    if let Some(problem) = spent(&job, study, &trials) {
        return Err(refused(problem));
    }
    let extend = async |sweep: String| {
        let extension = Extension { sweep: Some(sweep), max_trials: most, at: Some(Timestamp::now()) };
        let extended = Attributes::from([(ATTR_MAX_TRIALS.to_owned(), extension.to_json())]);
        store.set_study_attributes(StudyAttributes::User(study.id), extended).await
    };
    extend(job.uid.clone()).await?;
    // It may have ended meanwhile.
    job = Box::pin(not_ending(store, jobs, study, &job.name)).await?;
    if is_terminal(job.state()) {
        let request_id = format!("{}/extensions/{max_trials}", job.uid);
        let mut request = CreateJobRequest { job: Some(again), request_id, validate_only: false, force: true };
        // Before the job is there: it reads that first.
        extend(uid_for_request(&request.request_id)).await?;
        job = Box::pin(jobs.create(request.clone())).await?;
        if is_terminal(job.state()) {
            // The same was asked before, and came to nothing: there would be as many trials else.
            request.request_id += &format!("/{:016x}", rand::random::<u64>());
            extend(uid_for_request(&request.request_id)).await?;
            job = Box::pin(jobs.create(request)).await?;
        }
    }
    let study = store.study(study.id).await?;
    let asked = answer(store, &study, &Control::of(&study)).await?;
    Ok(SweepControl { job: job.name, max_trials, ..asked })
}

/// The sweep as it is, once it is clear whether it goes on: one that was just about to end has either seen what is stored by now, or
/// ends.
async fn not_ending(store: &Store, jobs: &JobClient, study: &Study, name: &str) -> Result<Job, Status> {
    let give_up = Instant::now() + ENDING_PATIENCE;
    loop {
        let job = Box::pin(jobs.get(name)).await?;
        if is_terminal(job.state()) || !Control::of(&store.study(study.id).await?).closing(&job.uid) {
            return Ok(job);
        }
        if Instant::now() > give_up {
            return Err(status::unavailable(format!("{name} is just ending; ask again when it has"), ENDING_PATIENCE));
        }
        tokio::time::sleep(ENDING_LOOK).await;
    }
}

/// Why a sweep would start no trial however many it may have.
fn spent(job: &Job, study: &Study, trials: &[Arc<Trial>]) -> Option<String> {
    let Some(Kind::Sweep(spec)) = job.spec.as_ref().and_then(|spec| spec.kind.as_ref()) else { return None };
    let cost = Sweep::new(spec).ok()?.limits.max_cost?;
    let spent = cost.spent(trials);
    (spent >= cost.max).then(|| {
        let Study { name, .. } = study;
        let most = cost.max;
        format!(
            "max_cost of {} is {most}, and its trials have cost {spent}: create a sweep with study_name `{name}` and a larger max_cost instead",
            job.name
        )
    })
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

/// The uid of the sweep that has made the study's latest trial.
async fn latest_sweep(store: &Store, study: &Study) -> Result<Option<String>, Status> {
    let trials = store.trials(study.id).await?;
    Ok(trials.iter().rev().find_map(|trial| trial.user_text(ATTR_SWEEP)))
}

async fn answer(store: &Store, study: &Study, control: &Control) -> Result<SweepControl, Status> {
    let sweep = latest_sweep(store, study).await?;
    let extended = sweep.as_deref().map_or(0, |sweep| control.max_trials(sweep, 0));
    Ok(SweepControl {
        study: format!("studies/{}", study.name),
        paused: control.paused(),
        max_trials: i32::try_from(extended).unwrap_or(i32::MAX),
        job: sweep.as_deref().map(job_name).unwrap_or_default(),
    })
}
