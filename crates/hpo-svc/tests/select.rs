//! Choosing, validating and creating sweeps over a real socket on a real database.
#![allow(clippy::unwrap_used)] // Helpers of tests panic like the tests themselves.

mod support;

use std::{collections::BTreeMap, path::Path};

use hpo_svc::{
    space::{Distribution, Space},
    storage::{Attributes, NewTrial, Past, Store},
    study::{Direction, Param, State},
    sweep::{ATTR_METRICS, ATTR_SPACE, ATTR_TRIAL_METRICS},
};
use jiff::Timestamp;
use quintet_proto::v1::{
    CreateSweepRequest, GetBestConfigRequest, GetJobRequest, GetStudyRequest, Scoring, SweepSpec, ValidateSweepRequest,
    hpo_service_client::HpoServiceClient, job_service_client::JobServiceClient, job_spec::Kind,
};
use runtime_core::{
    client::{Connection, connect},
    host::Host,
    server::ServerHandle,
    status::violations_of,
};
use serde_json::json;
use tonic::Code;

struct House {
    server: ServerHandle,
    connection: Connection,
    client: HpoServiceClient<Connection>,
    store: Store,
}

impl House {
    async fn open(folder: &Path) -> Self {
        let host = hpo_svc::mount(Host::open(support::config(folder)).await.unwrap()).await.unwrap();
        let server = host.start().await.unwrap();
        let connection = connect(&server.url(), None).unwrap();
        let store = Store::open(&format!("sqlite://{}", folder.join("data/hpo.db").display())).unwrap();
        Self { server, client: HpoServiceClient::new(connection.clone()), connection, store }
    }

    /// A study of a learning rate with completed trials of an f1 and a latency each.
    async fn study(&self, name: &str, trials: &[(f64, f64)]) {
        let rate = Distribution::float(1e-5, 1e-3, true, None).unwrap();
        let space = Space::of([("learning_rate", rate.clone())]);
        let user = Attributes::from([(ATTR_SPACE.to_owned(), space.to_json())]);
        let system = Attributes::from([(ATTR_METRICS.to_owned(), "[\"f1\"]".to_owned())]);
        let study = self.store.create_study(name, &[Direction::Maximize], user, system).await.unwrap();
        for (f1, latency) in trials {
            let past = Past {
                state: State::Complete,
                values: vec![*f1],
                intermediate: BTreeMap::new(),
                start: None,
                complete: Some(Timestamp::now()),
            };
            let metrics = format!("{{\"latency_ms\": {latency}, \"loss\": NaN}}");
            let new = NewTrial {
                params: vec![Param { name: "learning_rate".into(), value: 1e-4, distribution: rate.clone() }],
                user_attrs: Attributes::from([(ATTR_TRIAL_METRICS.to_owned(), metrics)]),
                past: Some(past),
                ..NewTrial::default()
            };
            self.store.create_trial(study.id, new, Timestamp::now()).await.unwrap();
        }
    }
}

fn spec() -> SweepSpec {
    let spec = json!({
        "study_name": "hpo_{backbone}",
        "search_space": [{"name": "learning_rate", "float": {"low": 1e-5, "high": 1e-3, "log": true}}],
        "objective": {"metric": "f1"},
        "max_trials": 6,
        "command": {
            "command": "true ${{search_space.learning_rate}} ${{search_space.model}}",
            "parameters": {"model": "{backbone}"},
        },
    });
    serde_json::from_value(spec).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_of_two_backbones_is_chosen_by_metric_and_latency() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path()).await;
    house.study("big", &[(0.90, 40.0), (0.91, 42.0)]).await;
    house.study("small", &[(0.85, 10.0), (0.905, 11.0), (0.905, 11.0)]).await;
    let request = GetBestConfigRequest {
        study: "studies/big".into(),
        studies: vec!["studies/small".into()],
        ..GetBestConfigRequest::default()
    };
    let answer = house.client.get_best_config(request.clone()).await.unwrap().into_inner();
    assert_eq!((answer.strategy.as_str(), answer.trial.unwrap().name.as_str()), ("metric", "studies/big/trials/1"));
    let request = GetBestConfigRequest {
        latency_metric: "latency_ms".into(),
        accuracy_threshold: Some(0.015),
        min_accuracy_gain: Some(0.02),
        ..request
    };
    let answer = house.client.get_best_config(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.trial.as_ref().unwrap().name, "studies/small/trials/1", "the smaller number of equals");
    let config = serde_json::to_value(answer.best_config.as_ref().unwrap()).unwrap();
    assert_eq!((&config["study"], &config["trial"]), (&json!("small"), &json!(1.0)));
    assert_eq!(config["hyperparameters"]["learning_rate"], 1e-4);
    assert_eq!((answer.strategy.as_str(), answer.candidate_count), ("accuracy_first", 5));
    assert!(answer.reasons.iter().any(|reason| reason.contains("3.82 times as fast as trial 1 of big")), "{answer:?}");
    assert_eq!(answer.candidates.iter().filter(|candidate| candidate.champion).count(), 2, "{answer:?}");

    let weightless = Some(Scoring { metric_weight: Some(0.0), latency_weight: Some(0.0), ..Scoring::default() });
    let refused = house.client.get_best_config(GetBestConfigRequest { scoring: weightless, ..request.clone() }).await;
    assert_eq!(violations_of(&refused.unwrap_err())[0].0, "scoring");
    let unmeasured = GetBestConfigRequest { latency_metric: "seconds".into(), ..request.clone() };
    let refused = house.client.get_best_config(unmeasured).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("studies/big/trials/0"), "{refused}");
    let missing = GetBestConfigRequest { studies: vec!["none".into()], ..request };
    assert_eq!(house.client.get_best_config(missing).await.unwrap_err().code(), Code::NotFound);
    house.study("empty", &[]).await;
    let empty = GetBestConfigRequest { study: "empty".into(), ..GetBestConfigRequest::default() };
    assert_eq!(house.client.get_best_config(empty).await.unwrap_err().code(), Code::FailedPrecondition);
    house.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_is_validated_with_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path()).await;
    house.study("s", &[(0.5, 1.0), (f64::INFINITY, 2.0)]).await;
    let request = ValidateSweepRequest { study: "studies/s".into(), metric: "latency_ms".into(), ..Default::default() };
    let answer = house.client.validate_sweep(request.clone()).await.unwrap().into_inner();
    assert_eq!((answer.valid, answer.problems), (false, vec!["f1 is not a finite number in trial 1".to_owned()]));
    assert_eq!((answer.trials_by_state["COMPLETE"], answer.best_trials.len()), (2, 1));
    let more = ValidateSweepRequest { min_completed_trials: 3, metric: "loss".into(), ..request.clone() };
    let problems = house.client.validate_sweep(more).await.unwrap().into_inner().problems;
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert_eq!(problems[2], "loss is not a finite number in trials 0, 1");
    let wrong = ValidateSweepRequest { min_completed_trials: -1, ..request.clone() };
    let refused = house.client.validate_sweep(wrong).await.unwrap_err();
    assert_eq!(violations_of(&refused)[0].0, "min_completed_trials");
    let missing = ValidateSweepRequest { job: format!("jobs/{}", "0".repeat(32)), ..request };
    assert_eq!(house.client.validate_sweep(missing).await.unwrap_err().code(), Code::NotFound);
    house.server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_of_a_backbone_is_planned_and_created_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path()).await;
    let request = CreateSweepRequest {
        spec: Some(spec()),
        backbone: "hub/distilbert-base".into(),
        request_id: "first".into(),
        validate_only: true,
        experiment: "addresses".into(),
        labels: [("stage".to_owned(), "smoke".to_owned())].into(),
        ..CreateSweepRequest::default()
    };
    let planned = house.client.create_sweep(request.clone()).await.unwrap().into_inner();
    let plan = planned.plan.unwrap();
    assert_eq!((plan.study.as_str(), plan.continued, plan.trials_to_run), ("studies/hpo_distilbert", false, 6));
    assert!(plan.warnings[0].contains("the sampler tpe is random"), "{plan:?}");
    let mut jobs = JobServiceClient::new(house.connection.clone());
    let get = GetJobRequest { name: planned.job.clone() };
    assert_eq!(jobs.get_job(get.clone()).await.unwrap_err().code(), Code::NotFound, "nothing was created");
    let named = GetStudyRequest { name: plan.study };
    assert_eq!(house.client.get_study(named).await.unwrap_err().code(), Code::NotFound);

    let create = CreateSweepRequest { validate_only: false, ..request.clone() };
    let created = house.client.create_sweep(create.clone()).await.unwrap().into_inner();
    assert_eq!(created.job, planned.job, "one id, one job");
    let job = jobs.get_job(get).await.unwrap().into_inner();
    let Some(Kind::Sweep(sweep)) = job.spec.unwrap().kind else { panic!("no sweep") };
    assert_eq!(sweep.study_name, "hpo_distilbert");
    assert_eq!((job.labels["backbone"].as_str(), job.labels["stage"].as_str()), ("hub/distilbert-base", "smoke"));
    assert_eq!((job.display_name.as_str(), job.experiment.as_str()), ("hpo-sweep-distilbert", "addresses"));
    assert_eq!(house.client.create_sweep(create).await.unwrap().into_inner().job, created.job);

    let mut wrong = request.clone();
    wrong.spec.as_mut().unwrap().max_trials = 0;
    let refused = house.client.create_sweep(wrong).await.unwrap_err();
    assert_eq!(violations_of(&refused)[0].0, "spec.max_trials");
    // A study of another space is not to be mixed with this one; one of the same goes on.
    house.study("hpo_bert", &[(0.5, 1.0)]).await;
    let other = CreateSweepRequest { backbone: "bert-base".into(), request_id: String::new(), ..request };
    let plan = house.client.create_sweep(other.clone()).await.unwrap().into_inner().plan.unwrap();
    assert_eq!((plan.continued, plan.finished_trials, plan.trials_to_run), (true, 1, 5));
    let mut other = other;
    other.spec.as_mut().unwrap().search_space[0].domain = serde_json::from_value::<SweepSpec>(
        json!({"search_space": [{"name": "x", "float": {"low": 0.0, "high": 1.0}}]}),
    )
    .unwrap()
    .search_space[0]
        .domain
        .clone();
    let refused = house.client.create_sweep(other).await.unwrap_err();
    assert_eq!(violations_of(&refused)[0].0, "spec.study_name");
    assert!(refused.message().contains("its search space is"), "{refused}");
    house.server.shutdown().await.unwrap();
}
