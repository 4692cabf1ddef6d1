//! What every sweep does: trials, reports, pruning, limits, restarts.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hpo_svc::{
    space::Distribution,
    storage::{Attributes, NewTrial, Past, Store},
    study::{Direction, Param, State},
    sweep::ATTR_TRIAL_METRICS,
    warm_start::ATTR_TRANSFER,
};
use jiff::Timestamp;
use quintet_proto::{
    types,
    v1::{
        self, CreateJobRequest, GetBestConfigRequest, GetStudyRequest, Job, JobSpec, JobState, ListTrialsRequest,
        SweepSpec, hpo_service_client::HpoServiceClient, job_spec::Kind,
    },
};
use runtime_core::backup::BackupPolicy;

use crate::house::{House, Runs, backup_url, process, report, sweep, with_parameter};

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_runs_reports_and_answers_calls() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let job = house.run(sweep("s", 0.0, 0.8, 14), "first").await;
    assert_eq!(job.state(), JobState::Succeeded, "{:?}", job.error);
    let report = report(&job);
    assert_eq!(report["counts"]["COMPLETE"], 14.0);
    assert_eq!(
        (&report["study"], &report["metric"], &report["direction"]),
        (&"s".into(), &"loss".into(), &"MINIMIZE".into())
    );
    let trials = report["trials"].as_array().unwrap();
    let losses: Vec<f64> = trials.iter().map(|trial| trial["value"].as_f64().unwrap()).collect();
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(report["best"]["value"].as_f64(), Some(best));
    assert_eq!(job.outputs.as_ref().unwrap().metrics["loss"], best);
    for trial in trials {
        assert_eq!(trial["intermediate_values"].as_object().unwrap().len(), 5, "{trial}");
    }
    assert_eq!(house.children(&job).await.len(), 14);

    let mut client = HpoServiceClient::new(house.connection.clone());
    let study = client.get_study(GetStudyRequest { name: "studies/s".into() }).await.unwrap().into_inner();
    assert_eq!((study.trial_count, study.trials_by_state["COMPLETE"]), (14, 14));
    assert!(study.storage.starts_with("sqlite:////"));
    let mut request = ListTrialsRequest { parent: "studies/s".into(), page_size: 10, ..Default::default() };
    let page = client.list_trials(request.clone()).await.unwrap().into_inner();
    assert_eq!((page.trials.len(), page.trials[9].number), (10, 9));
    request.page_token = page.next_page_token;
    let page = client.list_trials(request).await.unwrap().into_inner();
    assert_eq!((page.trials.len(), page.next_page_token.as_str()), (4, ""));
    let best = GetBestConfigRequest { study: "studies/s".into(), ..Default::default() };
    let config = client.get_best_config(best).await.unwrap().into_inner();
    let document = serde_json::to_value(config.best_config.unwrap()).unwrap();
    assert_eq!(document["hyperparameters"], report["best"]["parameters"]);
    let missing = client.get_study(GetStudyRequest { name: "studies/none".into() }).await.unwrap_err();
    assert_eq!(missing.code(), tonic::Code::NotFound);

    // The study goes on under a second sweep of a larger size, and refuses one that is not comparable.
    let more = house.run(sweep("s", 0.0, 0.8, 16), "second").await;
    assert_eq!(more.state(), JobState::Succeeded, "{:?}", more.error);
    assert_eq!(house.children(&more).await.len(), 2);
    let other = house.run(sweep("s", 0.0, 0.7, 20), "third").await;
    assert_eq!(other.state(), JobState::Failed);
    assert!(other.error.unwrap().message.contains("its search space is"));
    let mut of_nothing = sweep("new", 0.0, 0.8, 4);
    of_nothing.transfer = Some(v1::Transfer { studies: vec!["s".into(), "none".into()], n_trials: None });
    let refused = house.run(of_nothing, "fourth").await;
    assert!(refused.error.unwrap().message.contains("transfer.studies[1]: study `none` does not exist"));
    assert!(house.store.find_study("new").await.unwrap().is_none(), "nothing was begun");
    house.close().await;

    // The backup that was made last holds every trial.
    let policy = BackupPolicy::new(&backup_url(folder.path()), 0).unwrap();
    let copies = policy.list("databases/hpo").await.unwrap();
    assert!((1..=16).contains(&copies.len()), "{} copies", copies.len());
    let restored = folder.path().join("restored.db");
    policy.restore("databases/hpo", &restored, false).await.unwrap();
    let copy = Store::open(&format!("sqlite://{}", restored.display())).unwrap();
    let study = copy.find_study("s").await.unwrap().unwrap();
    assert_eq!(copy.trials(study.id).await.unwrap().len(), 16);
}

/// A trial as `study.enqueue_trial` makes it.
fn queued(values: &str) -> NewTrial {
    let past =
        Past { state: State::Waiting, values: Vec::new(), intermediate: BTreeMap::new(), start: None, complete: None };
    let system_attrs = Attributes::from([("fixed_params".to_owned(), values.to_owned())]);
    NewTrial { system_attrs, past: Some(past), ..NewTrial::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_trials_go_first_and_those_outside_of_the_space_fail() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let study =
        house.store.create_study("queue", &[Direction::Minimize], Attributes::new(), Attributes::new()).await.unwrap();
    for values in [r#"{"x": 0.3125}"#, r#"{"x": 5}"#, r#"{"y": 1}"#, r#"{}"#, r#"{"x": 0.5}"#] {
        house.store.create_trial(study.id, queued(values), Timestamp::now()).await.unwrap();
    }
    // One that has its parameters already, as `study.add_trial` makes it.
    let distribution = Distribution::float(0.0, 1.0, false, None).unwrap();
    let params = vec![Param { name: "x".into(), value: 0.625, distribution }];
    house.store.create_trial(study.id, NewTrial { params, ..queued("{}") }, Timestamp::now()).await.unwrap();
    let job = house.run(sweep("queue", 0.0, 0.8, 7), "queue").await;
    assert_eq!(job.state(), JobState::Succeeded, "{:?}", job.error);
    let trials = house.store.trials(study.id).await.unwrap();
    let states: Vec<State> = trials.iter().map(|trial| trial.state).collect();
    use State::{Complete, Fail};
    assert_eq!(states, [Complete, Fail, Fail, Complete, Complete, Complete, Complete], "no trial more than asked for");
    let x = |number: usize| trials[number].params[0].value;
    assert_eq!((x(0), x(4), x(5)), (0.3125, 0.5, 0.625));
    assert!((0.0..=0.8).contains(&x(3)), "what is left open is sampled");
    let error = |number: usize| trials[number].user_text("quintet:error").unwrap();
    assert!(error(1).contains("the queued value 5 of `x` is outside of"), "{}", error(1));
    assert!(error(2).contains("`y` is not in the search space"), "{}", error(2));
    assert_eq!(house.children(&job).await.len(), 5);
    assert!(trials.iter().filter(|trial| trial.state == Complete).all(|trial| trial.start.is_some()));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grid_is_tried_once_and_the_best_keeps_its_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let mut spec = sweep("grid", 0.0, 0.8, 9);
    let values = [0.0, 0.3125, 0.5].map(types::Value::from).to_vec();
    let points = [("x".to_owned(), types::ListValue { values })].into();
    spec.sampler = Some(v1::Sampler { kind: Some(v1::sampler::Kind::Grid(v1::GridSampler { points })) });
    spec.constraints = vec![v1::Constraint { metric: "loss".into(), lower: Some(0.01), upper: None }];
    let job = house.run(spec, "grid").await;
    assert_eq!(job.state(), JobState::Succeeded, "{:?}", job.error);
    let study = house.store.find_study("grid").await.unwrap().unwrap();
    let trials = house.store.trials(study.id).await.unwrap();
    let mut xs: Vec<f64> = trials.iter().map(|trial| trial.params[0].value).collect();
    xs.sort_by(f64::total_cmp);
    assert_eq!(xs, [0.0, 0.3125, 0.5], "each once, and no trial more");
    let nearest = trials.iter().find(|trial| trial.params[0].value == 0.3125).unwrap();
    assert!(nearest.violation().unwrap() > 0.0, "{nearest:?}");
    assert_eq!(report(&job)["best"]["parameters"]["x"], 0.5, "the nearest is out of bounds");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_and_missing_metrics_are_told_and_end_the_sweep_when_they_are_many() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let job = house.run(sweep("crash", 0.95, 1.0, 10), "crash").await;
    assert_eq!(job.state(), JobState::Failed);
    let error = job.error.unwrap();
    assert!(
        error.message.contains("the first 3 trials failed") && error.message.contains("exit status 1"),
        "{error:?}"
    );
    let study = house.store.find_study("crash").await.unwrap().unwrap();
    let trials = house.store.trials(study.id).await.unwrap();
    let errors: Vec<String> = trials.iter().filter_map(|trial| trial.user_text("quintet:error")).collect();
    assert_eq!(errors.len(), trials.len(), "every trial has ended with its error");
    assert!(errors[0].contains("Traceback: boom"), "{errors:?}");

    let mut spec = sweep("missing", 0.81, 0.89, 9);
    spec.max_failed_trials = 2;
    spec.max_parallel_trials = 1;
    let job = house.run(spec, "missing").await;
    let message = job.error.unwrap().message;
    assert!(message.contains("metric `loss` was not reported; it reported los"), "{message}");

    let mut wrong = sweep("wrong", 1.0, 0.0, 9);
    wrong.objective = None;
    let job = Job { spec: Some(JobSpec { kind: Some(Kind::Sweep(wrong)) }), ..Job::default() };
    let request = CreateJobRequest { job: Some(job), request_id: "wrong".into(), ..Default::default() };
    let status = Box::pin(house.jobs().create(request)).await.unwrap_err();
    let fields: Vec<String> =
        runtime_core::status::violations_of(&status).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["job.spec.sweep.search_space[0].float.low", "job.spec.sweep.objective.metric"]);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn successive_halving_keeps_its_rungs_at_the_trials() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let mut spec = sweep("rungs", 0.0, 0.8, 10);
    spec.max_parallel_trials = 1;
    spec.sampler = Some(v1::Sampler { kind: Some(v1::sampler::Kind::Random(v1::RandomSampler {})) });
    let halving =
        v1::SuccessiveHalvingPruner { min_resource: Some(1), reduction_factor: Some(2), ..Default::default() };
    spec.pruner = Some(v1::Pruner { kind: Some(v1::pruner::Kind::SuccessiveHalving(halving)) });
    with_parameter(&mut spec, "slow");
    let job = house.run(spec, "rungs").await;
    assert_eq!(job.state(), JobState::Succeeded, "{:?}", job.error);
    let study = house.store.find_study("rungs").await.unwrap().unwrap();
    let trials = house.store.trials(study.id).await.unwrap();
    assert!(trials.iter().all(|trial| trial.system_attrs.contains_key("completed_rung_0")), "{trials:#?}");
    assert!(trials.iter().any(|trial| trial.state == State::Pruned));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hopeless_trial_is_pruned_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let mut spec = sweep("prune", 0.0, 0.8, 12);
    spec.max_parallel_trials = 1;
    spec.sampler = Some(v1::Sampler { kind: Some(v1::sampler::Kind::Random(v1::RandomSampler {})) });
    spec.pruner = Some(v1::Pruner {
        kind: Some(v1::pruner::Kind::Median(v1::MedianPruner { n_startup_trials: Some(2), ..Default::default() })),
    });
    with_parameter(&mut spec, "slow");
    let job = house.run(spec, "prune").await;
    assert_eq!(job.state(), JobState::Succeeded, "{:?}", job.error);
    let report = report(&job);
    let trials = report["trials"].as_array().unwrap();
    let pruned: Vec<_> = trials.iter().filter(|trial| trial["state"] == "PRUNED").collect();
    assert!(!pruned.is_empty(), "{report}");
    for trial in &pruned {
        let steps = trial["intermediate_values"].as_object().unwrap();
        let last = steps.iter().max_by_key(|(step, _)| step.parse::<i64>().unwrap()).unwrap().1;
        assert_eq!(&trial["value"], last);
        assert!(steps.len() < 5, "it was stopped before its end: {trial}");
    }
    let study = house.store.find_study("prune").await.unwrap().unwrap();
    for trial in house.store.trials(study.id).await.unwrap().iter().filter(|trial| trial.state == State::Pruned) {
        assert!(trial.user_attrs[ATTR_TRIAL_METRICS].starts_with(r#"{"ms": "#), "what it cost: {trial:?}");
    }
    // The best is never a pruned one, and those that were better than the median went on.
    assert_eq!(trials[report["best"]["number"].as_f64().unwrap() as usize]["state"], "COMPLETE");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_sweep_ends_its_trials() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let mut spec = sweep("cancel", 0.0, 0.8, 50);
    with_parameter(&mut spec, "slow");
    let job = house.submit(spec, "cancel").await;
    let client = house.jobs();
    let cancelled = Arc::new(AtomicUsize::new(0));
    let ended = client.watch(
        &job.name,
        0,
        |event| {
            // Cancel once the first trials run.
            let running =
                matches!(&event.event, Some(v1::job_event::Event::Progress(p)) if p.message.contains("running"));
            if running && cancelled.fetch_add(1, Ordering::SeqCst) == 0 {
                let (client, name) = (client.clone(), job.name.clone());
                tokio::spawn(async move { Box::pin(client.cancel(&name, false, "enough")).await });
            }
        },
        |_| {},
    );
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap().unwrap();
    assert_eq!(ended.state(), JobState::Cancelled);
    let study = house.store.find_study("cancel").await.unwrap().unwrap();
    let trials = house.store.trials(study.id).await.unwrap();
    assert!(trials.iter().all(|trial| trial.state.finished()), "{trials:?}");
    assert!(house.children(&ended).await.iter().all(|child| child.end_time.is_some()));

    // Those that it has stopped count for none.
    let tried = trials.iter().filter(|trial| !trial.user_attrs.contains_key("quintet:cancelled")).count();
    assert!(tried < trials.len(), "{trials:?}");
    let more = i32::try_from(tried).unwrap() + 2;
    let again = house.run(sweep("cancel", 0.0, 0.8, more), "again").await;
    assert_eq!((again.state(), house.children(&again).await.len()), (JobState::Succeeded, 2), "{:?}", again.error);
    house.close().await;
}

#[test]
fn restarts_lose_no_trial_and_run_none_twice() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Runs::default();
    let mut spec = sweep("restart", 0.0, 0.8, 20);
    spec.max_parallel_trials = 4;
    spec.transfer = Some(v1::Transfer { studies: vec!["earlier".into()], n_trials: Some(3) });
    for round in 0..8 {
        let process = process();
        process.block_on(async {
            let house = House::open(folder.path(), &runs).await;
            if round == 0 {
                let earlier = house.run(sweep("earlier", 0.0, 0.7, 6), "earlier").await;
                assert_eq!(earlier.state(), JobState::Succeeded, "{:?}", earlier.error);
            }
            let job = house.submit(spec.clone(), "restart").await;
            // Different moments: after so many trials have been created.
            let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
            while house.children(&job).await.len() < 2 * round + 2 {
                assert!(tokio::time::Instant::now() < deadline, "the sweep does not go on");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if round % 2 == 0 {
                house.close().await;
            }
        });
        // Without an ordered end in the odd rounds: everything stops in the middle of what it does.
        process.shutdown_timeout(Duration::from_secs(5));
    }
    process().block_on(end_of_restarts(folder.path(), &runs, spec));
}

async fn end_of_restarts(folder: &Path, runs: &Runs, spec: SweepSpec) {
    let house = House::open(folder, runs).await;
    let job = house.submit(spec, "restart").await;
    let job = Box::pin(house.jobs().watch(&job.name, 0, |_| {}, |_| {})).await.unwrap();
    assert_eq!(job.state(), JobState::Succeeded, "{:?}", job.error);
    let report = report(&job);
    let trials = report["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 20);
    let mut names: Vec<&str> = trials.iter().map(|trial| trial["job"].as_str().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 20, "each trial has a job of its own");
    // What was best in the earlier study came first, and once.
    let mut taken = Vec::new();
    for name in ["earlier", "restart"] {
        let study = house.store.find_study(name).await.unwrap().unwrap();
        taken.push(house.store.trials(study.id).await.unwrap());
    }
    let best = taken[0].iter().min_by(|a, b| a.values[0].total_cmp(&b.values[0])).unwrap();
    assert_eq!(taken[1][0].params[0].value, best.params[0].value);
    let of_earlier = taken[1].iter().map(|trial| trial.user_attrs.contains_key(ATTR_TRANSFER));
    assert!(of_earlier.clone().is_sorted_by(|a, b| a >= b) && (1..=3).contains(&of_earlier.filter(|of| *of).count()));
    let children = house.children(&job).await;
    assert_eq!(children.len(), 20);
    for child in &children {
        assert!(names.contains(&child.name.as_str()));
        assert_eq!(child.state(), JobState::Succeeded, "{:?}", child.error);
        // A restart gives an attempt back; the program runs again for that reason alone.
        let attempts = runs.lock().unwrap()[&child.uid];
        assert!(attempts <= child.attempt_errors.len() + 1, "{} ran {attempts} times", child.name);
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_limits_hold() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let mut spec = sweep("time", 0.0, 0.8, 1000);
    spec.timeout = Some(types::Duration { seconds: 1, nanos: 0 });
    let job = house.run(spec, "time").await;
    assert_eq!(job.state(), JobState::Succeeded, "{:?}", job.error);
    let trials = report(&job)["trials"].as_array().unwrap().len();
    assert!((1..1000).contains(&trials));
    house.close().await;
}
