//! What a sweep can be asked for beyond that: several objectives, folds, repetition, limits, steering.

use std::{sync::Arc, time::Duration};

use hpo_svc::{
    pruner::ATTR_STOPPED_AT,
    space::Distribution,
    storage::{Attributes, Edit, NewTrial},
    study::{Direction, Param, State},
    sweep::ATTR_SWEEP,
};
use jiff::Timestamp;
use quintet_proto::v1::{
    self, CreateJobRequest, Job, JobSpec, JobState, hpo_service_client::HpoServiceClient, job_spec::Kind,
    sweep_spec::Trial,
};
use runtime_core::jobs::model::uid_for_request;

use crate::house::{House, Runs, process, report, sweep, with_parameter};

fn objective(metric: &str, direction: v1::Direction) -> v1::Objective {
    v1::Objective { metric: metric.into(), direction: direction.into() }
}

/// Waits for a trial, or whatever else comes to be in a study.
pub(crate) async fn eventually(
    house: &House,
    study: &str,
    mut reached: impl FnMut(&[Arc<hpo_svc::study::Trial>]) -> bool,
) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(study) = house.store.find_study(study).await.unwrap()
            && reached(&house.store.trials(study.id).await.unwrap())
        {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "the study `{study}` does not get there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_objectives_end_in_a_front() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let mut spec = sweep("front", 0.0, 0.8, 12);
    spec.objective = None;
    spec.objectives = vec![objective("loss", v1::Direction::Minimize), objective("ms", v1::Direction::Minimize)];
    spec.sampler = Some(v1::Sampler { kind: Some(v1::sampler::Kind::Nsga2(v1::NsgaiiSampler::default())) });
    let job = house.run(spec, "front").await;
    assert_eq!(job.state(), JobState::Succeeded, "{:?}", job.error);
    let report = report(&job);
    assert_eq!(report["best"], serde_json::Value::Null);
    assert_eq!(report["objectives"][1]["metric"], "ms");
    let front: Vec<usize> =
        report["pareto_front"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as usize).collect();
    let values = |trial: usize| -> Vec<f64> {
        report["trials"][trial]["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
    };
    // Right of 0.3 the loss grows with x while ms falls: all of those are on the front, and of the others those closest to it.
    for trial in 0..12 {
        let beaten = (0..12).any(|other| {
            let (a, b) = (values(other), values(trial));
            a != b && a[0] <= b[0] && a[1] <= b[1]
        });
        assert_eq!(front.contains(&trial), !beaten, "trial {trial}: {report}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folds_run_one_after_the_other_and_hopeless_trials_stop_between_them() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let mut spec = sweep("folds", 0.0, 0.8, 10);
    spec.k_fold = Some(v1::KFold { n_splits: 4, ..v1::KFold::default() });
    spec.refit = true;
    spec.max_parallel_trials = 2;
    spec.sampler = Some(v1::Sampler { kind: Some(v1::sampler::Kind::Random(v1::RandomSampler {})) });
    let median = v1::MedianPruner { n_startup_trials: Some(3), ..v1::MedianPruner::default() };
    spec.pruner = Some(v1::Pruner { kind: Some(v1::pruner::Kind::Median(median)) });
    let blind = Job { spec: Some(JobSpec { kind: Some(Kind::Sweep(spec.clone())) }), ..Job::default() };
    let request = CreateJobRequest { job: Some(blind), request_id: "blind".into(), ..Default::default() };
    let refused = Box::pin(house.jobs().create(request)).await.unwrap_err();
    assert!(refused.message().contains("\"fold\" is not used"), "{refused}");
    let Some(Trial::Command(command)) = &mut spec.trial else { panic!("not a command") };
    command.command += " --fold ${{search_space.fold}}";
    let job = house.run(spec, "folds").await;
    assert_eq!(job.state(), JobState::Succeeded, "{:?}", job.error);
    let report = report(&job);
    let study = house.store.find_study("folds").await.unwrap().unwrap();
    let trials = house.store.trials(study.id).await.unwrap();
    let mut jobs = 0;
    for trial in &trials {
        let folds = hpo_svc::sweep::folds(trial);
        jobs += folds.len();
        let x = trial.params[0].value;
        let expected = |fold: usize| (x - 0.3) * (x - 0.3) + fold as f64 * if x > 0.5 { 0.5 } else { 0.01 };
        for (index, fold) in folds.iter().enumerate() {
            assert!((fold.metrics["loss"] - expected(index)).abs() < 1e-12);
            assert_eq!(trial.intermediate[&(index as i64)], fold.metrics["loss"]);
        }
        let mean = folds.iter().map(|fold| fold.metrics["loss"]).sum::<f64>() / folds.len() as f64;
        match trial.state {
            State::Complete => {
                assert!(folds.len() == 4 && (trial.values[0] - mean).abs() < 1e-12, "{trial:?}");
                assert!((trial.user_attrs["cv_mean"].parse::<f64>().unwrap() - mean).abs() < 1e-12);
            }
            state => assert!(state == State::Pruned && folds.len() < 4, "{trial:?}"),
        }
    }
    assert!(trials.iter().any(|trial| trial.state == State::Pruned), "{report}");
    let children = house.children(&job).await;
    assert_eq!(children.len(), jobs + 1, "one job a fold, and the refit");
    let refit = &report["refit"];
    assert_eq!(refit["trial"], report["best"]["number"]);
    let refit = children.iter().find(|child| child.name == refit["job"].as_str().unwrap()).unwrap();
    let Some(Kind::Command(command)) = refit.spec.clone().unwrap().kind else { panic!("not a command") };
    assert_eq!(command.parameters["fold"], "");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_that_was_to_stop_when_the_runner_ended_is_stopped_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let none = Attributes::new;
    let study = house.store.create_study("condemned", &[Direction::Minimize], none(), none()).await.unwrap();
    let attribute = |key: &str, json: &str| (key.to_owned(), json.to_owned());
    let own = format!("\"{}\"", uid_for_request("condemned"));
    let x = Distribution::float(0.0, 0.8, false, None).unwrap();
    let left = NewTrial {
        params: vec![Param { name: "x".into(), value: 0.5, distribution: x }],
        user_attrs: Attributes::from([attribute(ATTR_SWEEP, &own)]),
        system_attrs: Attributes::from([attribute("completed_rung_0", "9.0"), attribute(ATTR_STOPPED_AT, "1")]),
        ..NewTrial::default()
    };
    let left = house.store.create_trial(study.id, left, Timestamp::now()).await.unwrap();
    house.store.edit(left.id, Edit::reports(vec![(1, 9.0)]), Timestamp::now()).await.unwrap();

    let mut spec = sweep("condemned", 0.0, 0.8, 2);
    spec.max_parallel_trials = 1;
    // No further rung is ever reached.
    let halving =
        v1::SuccessiveHalvingPruner { min_resource: Some(1), reduction_factor: Some(1000), ..Default::default() };
    spec.pruner = Some(v1::Pruner { kind: Some(v1::pruner::Kind::SuccessiveHalving(halving)) });
    with_parameter(&mut spec, "slow");
    let job = house.run(spec, "condemned").await;
    assert_eq!(job.state(), JobState::Succeeded, "{:?}", job.error);
    let trials = house.store.trials(study.id).await.unwrap();
    let states: Vec<State> = trials.iter().map(|trial| trial.state).collect();
    assert_eq!(states, [State::Pruned, State::Complete]);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_trials_are_repeated_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let mut spec = sweep("flaky", 0.0, 0.8, 3);
    with_parameter(&mut spec, "flaky");
    spec.failed_trials = Some(v1::FailedTrials { max_retries: 2 });
    let job = house.run(spec, "flaky").await;
    assert_eq!(job.state(), JobState::Succeeded, "{:?}", job.error);
    let study = house.store.find_study("flaky").await.unwrap().unwrap();
    let trials = house.store.trials(study.id).await.unwrap();
    assert_eq!(trials.len(), 6, "three trials, each with one that failed before it");
    for trial in trials.iter().filter(|trial| trial.state == State::Complete) {
        let first: usize = trial.system_attrs["failed_trial"].parse().unwrap();
        assert_eq!((trials[first].state, &trials[first].params), (State::Fail, &trial.params));
    }
    assert_eq!(trials.iter().filter(|trial| trial.state == State::Complete).count(), 3);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_gets_nowhere_ends() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let mut spec = sweep("stuck", 0.0, 0.8, 200);
    spec.no_progress = Some(v1::NoProgress { max_stagnation_trials: Some(4), min_delta: 10.0 });
    let job = house.run(spec, "stuck").await;
    assert_eq!(job.state(), JobState::Succeeded, "{:?}", job.error);
    let trials = report(&job)["trials"].as_array().unwrap().len();
    assert!((5..=8).contains(&trials), "the first one, four without progress, those that ran meanwhile: {trials}");

    let mut spec = sweep("dear", 0.0, 0.8, 200);
    spec.max_cost = 1.0;
    spec.cost_metric = "ms".into();
    spec.max_parallel_trials = 1;
    let job = house.run(spec, "dear").await;
    let report = report(&job);
    let trials = report["trials"].as_array().unwrap();
    let cost = |trial: &serde_json::Value| 1.0 - trial["parameters"]["x"].as_f64().unwrap();
    let (last, before) = trials.split_last().unwrap();
    let spent: f64 = before.iter().map(cost).sum();
    assert!(spent < 1.0 && spent + cost(last) >= 1.0, "{report}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let mut spec = sweep("dry", 0.0, 0.8, 9);
    spec.dry_run = true;
    for (times, id) in [(1, "first"), (2, "second")] {
        let request = CreateJobRequest {
            job: Some(Job { spec: Some(JobSpec { kind: Some(Kind::Sweep(spec.clone())) }), ..Job::default() }),
            request_id: id.into(),
            force: true,
            ..Default::default()
        };
        let job = Box::pin(house.jobs().create(request)).await.unwrap();
        let job = Box::pin(house.jobs().watch(&job.name, 0, |_| {}, |_| {})).await.unwrap();
        assert_eq!((job.state(), house.children(&job).await.len()), (JobState::Succeeded, 2), "{:?}", job.error);
        assert_eq!(report(&job)["trials"].as_array().unwrap().len(), 2 * times);
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_is_paused_resumed_and_extended() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let mut client = HpoServiceClient::new(house.connection.clone());
    let job = house.submit(sweep("steered", 0.0, 0.8, 40), "steered").await;
    eventually(&house, "steered", |trials| trials.len() >= 4).await;
    let request = v1::PauseSweepRequest { study: "studies/steered".into() };
    let paused = client.pause_sweep(request.clone()).await.unwrap().into_inner();
    assert_eq!((paused.paused, paused.job.as_str()), (true, job.name.as_str()));
    assert_eq!(client.pause_sweep(request).await.unwrap().into_inner(), paused, "once more changes nothing");
    // Until the runner has seen it, and nothing runs any more.
    let message = |job: &Job| job.progress.clone().unwrap_or_default().message;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !message(&house.jobs().get(&job.name).await.unwrap()).contains("paused, 0 running") {
        assert!(tokio::time::Instant::now() < deadline, "the sweep does not pause");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let study = house.store.find_study("steered").await.unwrap().unwrap();
    let there = house.store.trials(study.id).await.unwrap().len();
    assert!(there < 40);

    let resumed = client.resume_sweep(v1::ResumeSweepRequest { study: "steered".into() }).await.unwrap().into_inner();
    assert!(!resumed.paused);
    let extend = |max_trials| v1::ExtendSweepRequest { study: "studies/steered".into(), max_trials };
    let extended = client.extend_sweep(extend(42)).await.unwrap().into_inner();
    assert_eq!((extended.max_trials, extended.job.as_str()), (42, job.name.as_str()), "it is still at work");
    let ended = Box::pin(house.jobs().watch(&job.name, 0, |_| {}, |_| {})).await.unwrap();
    assert_eq!(ended.state(), JobState::Succeeded, "{:?}", ended.error);
    assert_eq!(house.store.trials(study.id).await.unwrap().len(), 42);

    let refused = client.extend_sweep(extend(42)).await.unwrap_err();
    assert!(refused.message().contains("42 is not within 43 to"), "{refused}");
    let again = client.extend_sweep(extend(45)).await.unwrap().into_inner();
    assert_ne!(again.job, job.name, "a sweep that has ended is run again");
    let ended = Box::pin(house.jobs().watch(&again.job, 0, |_| {}, |_| {})).await.unwrap();
    assert_eq!(ended.state(), JobState::Succeeded, "{:?}", ended.error);
    assert_eq!((house.store.trials(study.id).await.unwrap().len(), house.children(&ended).await.len()), (45, 3));
    house.close().await;
}

#[test]
fn restarts_repeat_no_fold() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Runs::default();
    let mut spec = sweep("fold-restart", 0.0, 0.8, 5);
    spec.k_fold = Some(v1::KFold { n_splits: 3, ..v1::KFold::default() });
    spec.refit = true;
    spec.max_parallel_trials = 2;
    let Some(Trial::Command(command)) = &mut spec.trial else { panic!("not a command") };
    command.command += " --fold ${{search_space.fold}}";
    for round in 0..5 {
        let process = process();
        process.block_on(async {
            let house = House::open(folder.path(), &runs).await;
            let job = house.submit(spec.clone(), "restart").await;
            let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
            while house.children(&job).await.len() < 3 * round + 2 {
                assert!(tokio::time::Instant::now() < deadline, "the sweep does not go on");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        process.shutdown_timeout(Duration::from_secs(5));
    }
    process().block_on(async {
        let house = House::open(folder.path(), &runs).await;
        let job = house.submit(spec, "restart").await;
        let job = Box::pin(house.jobs().watch(&job.name, 0, |_| {}, |_| {})).await.unwrap();
        assert_eq!(job.state(), JobState::Succeeded, "{:?}", job.error);
        assert_eq!(house.children(&job).await.len(), 16, "five trials of three folds, and one refit");
        house.close().await;
    });
}
