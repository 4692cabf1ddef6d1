//! Sweeps that end otherwise than planned, or are extended when they are about to end: nothing is lost and nothing runs on.

use std::time::Duration;

use hpo_svc::{
    storage::{Attributes, NewTrial},
    study::State,
    sweep::{ATTR_SWEEP, ended_early},
};
use jiff::Timestamp;
use quintet_proto::v1::{self, DeleteStudyRequest, ExtendSweepRequest, JobState, hpo_service_client::HpoServiceClient};
use tokio::time::Instant;

use crate::{
    house::{House, Runs, report, sweep, with_parameter},
    policies::eventually,
};

fn extend(study: &str, max_trials: i32) -> ExtendSweepRequest {
    ExtendSweepRequest { study: format!("studies/{study}"), max_trials }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_on_for_a_study_that_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let mut spec = sweep("gone", 0.0, 0.8, 50);
    with_parameter(&mut spec, "slow");
    let job = house.submit(spec, "gone").await;
    eventually(&house, "gone", |trials| trials.len() >= 3).await;
    let mut client = HpoServiceClient::new(house.connection.clone());
    client.delete_study(DeleteStudyRequest { name: "studies/gone".into() }).await.unwrap();
    let ended = Box::pin(house.jobs().watch(&job.name, 0, |_| {}, |_| {})).await.unwrap();
    assert_eq!(ended.state(), JobState::Failed);
    let deadline = Instant::now() + Duration::from_secs(60);
    while house.children(&job).await.iter().any(|child| child.end_time.is_none()) {
        assert!(Instant::now() < deadline, "its trials' jobs run on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(house.children(&job).await.len() < 50);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trials_that_their_sweep_has_left_behind_fail() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let job = house.run(sweep("left", 0.0, 0.8, 2), "left").await;
    let study = house.store.find_study("left").await.unwrap().unwrap().id;
    let user_attrs = Attributes::from([(ATTR_SWEEP.to_owned(), format!("{:?}", job.uid))]);
    let running = || NewTrial { user_attrs: user_attrs.clone(), ..NewTrial::default() };
    let left = house.store.create_trial(study, running(), Timestamp::now()).await.unwrap();
    // One that a client of the storage proxy has taken since, and one that no sweep has made.
    let taken = NewTrial { leased: true, ..running() };
    let taken = house.store.create_trial(study, taken, Timestamp::now()).await.unwrap();
    let other = house.store.create_trial(study, NewTrial::default(), Timestamp::now()).await.unwrap();
    house.close().await;

    let house = House::open(folder.path(), &Runs::default()).await;
    let at = usize::try_from(left.number).unwrap();
    eventually(&house, "left", |trials| trials[at].state == State::Fail).await;
    let [left, taken, other] = [left.id, taken.id, other.id].map(|trial| house.store.trial(trial));
    let error = left.await.unwrap().user_text("quintet:error").unwrap();
    assert_eq!(error, format!("its sweep {} has ended", job.name));
    assert_eq!((taken.await.unwrap().state, other.await.unwrap().state), (State::Running, State::Running));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_is_extended_while_its_refit_runs() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let mut spec = sweep("refit", 0.0, 0.8, 2);
    spec.refit = true;
    with_parameter(&mut spec, "slow");
    let job = house.submit(spec, "refit").await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !house.children(&job).await.iter().any(|child| child.display_name.ends_with(" refit")) {
        assert!(Instant::now() < deadline, "there is no refit");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut client = HpoServiceClient::new(house.connection.clone());
    let extended = client.extend_sweep(extend("refit", 5)).await.unwrap().into_inner();
    assert_eq!((extended.max_trials, &extended.job), (5, &job.name), "it has not ended");
    let ended = Box::pin(house.jobs().watch(&job.name, 0, |_| {}, |_| {})).await.unwrap();
    assert_eq!(ended.state(), JobState::Succeeded, "{:?}", ended.error);
    let report = report(&ended);
    assert_eq!(report["trials"].as_array().unwrap().len(), 5);
    assert_eq!(report["refit"]["trial"], report["best"]["number"]);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_a_sweep_does_not_end_its_extension_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path(), &Runs::default()).await;
    let mut client = HpoServiceClient::new(house.connection.clone());
    let mut spec = sweep("stuck", 0.0, 0.8, 200);
    spec.no_progress = Some(v1::NoProgress { max_stagnation_trials: Some(4), min_delta: 10.0 });
    spec.max_parallel_trials = 1;
    house.run(spec, "stuck").await;
    let again = client.extend_sweep(extend("stuck", 100)).await.unwrap().into_inner();
    let ended = Box::pin(house.jobs().watch(&again.job, 0, |_| {}, |_| {})).await.unwrap();
    assert_eq!((ended.state(), house.children(&ended).await.len()), (JobState::Succeeded, 4), "{:?}", ended.error);

    let mut spec = sweep("dear", 0.0, 0.8, 200);
    spec.max_cost = 1.0;
    spec.cost_metric = "ms".into();
    house.run(spec, "dear").await;
    let study = house.store.find_study("dear").await.unwrap().unwrap();
    let ended = ended_early(&study, &house.store.trials(study.id).await.unwrap());
    assert_eq!(ended.unwrap().why, "max_cost is spent");
    let refused = client.extend_sweep(extend("dear", 100)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("max_cost of jobs/") && refused.message().contains("`dear`"), "{refused}");
    house.close().await;
}
