//! The contract of the store, kept on both databases: each scenario gets a store of its own.

mod logging;
mod searching;

use runtime_core::db::{testing::PostgresServer, with_schema};

use super::*;
use crate::model::{Lifecycle, Metric, ModelOutput, Pair, Run, RunStatus, ViewType};
use crate::validate::Batch;

async fn keep_the_contract(mut fresh: impl FnMut() -> Store) {
    experiments(fresh()).await;
    runs(fresh()).await;
    models(fresh()).await;
    logging::batches(fresh()).await;
    logging::histories(fresh()).await;
    logging::tails(fresh()).await;
    logging::concurrent_writers(fresh()).await;
    searching::filters(fresh()).await;
    searching::orders_and_pages(fresh()).await;
    searching::experiments(fresh()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    keep_the_contract(|| {
        count += 1;
        Store::open(&format!("sqlite://{}/{count}.db", folder.path().display())).unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_the_contract() {
    let server = PostgresServer::start().unwrap();
    keep_the_contract(|| Store::open(&with_schema(&server.database().unwrap(), "tracking")).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_new_opening() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/t.db", folder.path().display());
    let uid = {
        let store = Store::open(&url).unwrap();
        let run = new_run(&store, 0).await;
        log(&store, &run, &[("loss", 0.5, 1)]).await;
        run
    };
    let run = Store::open(&url).unwrap().run(uid).await.unwrap();
    assert_eq!(run.data.metrics[0].value, 0.5);
}

#[test]
fn page_tokens_are_opaque_but_checked() {
    assert_eq!(page_offset(None).unwrap(), 0);
    assert_eq!(page_offset(Some("")).unwrap(), 0);
    assert_eq!(page_offset(Some(&page_token(7))).unwrap(), 7);
    for bad in ["x", "e30=", &page_token(0), &page_token(-1), &page_token(i64::MAX)] {
        assert!(page_offset(Some(bad)).is_err(), "{bad}");
    }
}

#[test]
fn experiment_ids_are_plain_numbers() {
    assert_eq!(experiment_id("012").unwrap(), 12);
    for bad in ["", "-1", "+1", "a", "1.0", "99999999999999999999"] {
        assert!(experiment_id(bad).is_err(), "{bad}");
    }
}

/// Makes a run of an experiment and gives its id.
async fn new_run(store: &Store, experiment_id: i64) -> String {
    let run = NewRun { experiment_id, start_time: 1, ..NewRun::default() };
    store.create_run(run).await.unwrap().info.run_id
}

async fn log(store: &Store, run: &str, points: &[(&str, f64, i64)]) {
    let metrics = points.iter().map(|&(key, value, step)| metric(key, value, step, 1000 + step)).collect();
    store.log_batch(run.to_owned(), Batch { metrics, ..Batch::default() }, true).await.unwrap();
}

async fn tag(store: &Store, run: &str, key: &str, value: &str) {
    let tags = vec![Pair::new(key, value)];
    store.log_batch(run.to_owned(), Batch { tags, ..Batch::default() }, true).await.unwrap();
}

async fn param(store: &Store, run: &str, key: &str, value: &str) -> Result<(), Error> {
    let params = vec![Pair::new(key, value)];
    store.log_batch(run.to_owned(), Batch { params, ..Batch::default() }, true).await
}

fn metric(key: &str, value: f64, step: i64, timestamp: i64) -> Metric {
    Metric { key: key.into(), value, timestamp, step }
}

fn pairs(list: &[(&str, &str)]) -> Vec<Pair> {
    list.iter().map(|(key, value)| Pair::new(*key, *value)).collect()
}

async fn experiments(store: Store) {
    let default = store.experiment(0).await.unwrap();
    assert_eq!((default.name.as_str(), default.artifact_location.as_str()), ("Default", "mlflow-artifacts:/0"));
    let made = store.create_experiment("a".into(), None, pairs(&[("k", "v")])).await.unwrap();
    let id = made.experiment_id;
    assert_eq!(made.artifact_location, format!("mlflow-artifacts:/{id}"));
    assert_eq!(store.experiment_by_name("a".into()).await.unwrap(), made);
    assert_eq!(store.ensure_experiment("a".into()).await.unwrap().experiment_id, id);
    let other = store.ensure_experiment("b".into()).await.unwrap().experiment_id;
    assert_ne!(other, id);
    assert!(matches!(store.create_experiment("a".into(), None, vec![]).await, Err(Error::AlreadyExists { .. })));
    assert!(matches!(store.create_experiment(" ".into(), None, vec![]).await, Err(Error::Invalid { .. })));
    let location = Some("s3://bucket/x#y".to_owned());
    assert!(matches!(store.create_experiment("c".into(), location, vec![]).await, Err(Error::Invalid { .. })));

    store.set_experiment_tag(id, Pair::new("k", "w")).await.unwrap();
    store.set_experiment_tag(id, Pair::new("a/b", "")).await.unwrap();
    assert_eq!(store.experiment(id).await.unwrap().tags, pairs(&[("a/b", ""), ("k", "w")]));
    store.delete_experiment_tag(id, "k".into()).await.unwrap();
    assert!(matches!(store.delete_experiment_tag(id, "k".into()).await, Err(Error::NotFound { kind: "tag", .. })));

    store.rename_experiment(id, "renamed".into()).await.unwrap();
    store.rename_experiment(id, "renamed".into()).await.unwrap();
    assert!(matches!(store.rename_experiment(id, "b".into()).await, Err(Error::AlreadyExists { .. })));

    let run = new_run(&store, id).await;
    store.set_experiment_lifecycle(id, Lifecycle::Deleted).await.unwrap();
    let again = store.set_experiment_lifecycle(id, Lifecycle::Deleted).await;
    assert!(matches!(again, Err(Error::NotFound { .. })));
    assert_eq!(store.experiment(id).await.unwrap().lifecycle_stage, Lifecycle::Deleted);
    assert_eq!(store.run_info(run.clone()).await.unwrap().lifecycle_stage, Lifecycle::Deleted);
    // The name stays taken, and nothing can be done to it but restoring it.
    assert!(matches!(store.create_experiment("renamed".into(), None, vec![]).await, Err(Error::AlreadyExists { .. })));
    assert!(matches!(store.ensure_experiment("renamed".into()).await, Err(Error::IllegalState { .. })));
    assert!(matches!(store.rename_experiment(id, "x".into()).await, Err(Error::IllegalState { .. })));
    let denied = store.create_run(NewRun { experiment_id: id, ..NewRun::default() }).await;
    assert!(matches!(denied, Err(Error::IllegalState { .. })));
    store.set_experiment_lifecycle(id, Lifecycle::Active).await.unwrap();
    assert_eq!(store.run_info(run).await.unwrap().lifecycle_stage, Lifecycle::Active);
    assert!(matches!(store.experiment(404).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.experiment_by_name("404".into()).await, Err(Error::NotFound { .. })));
}

async fn runs(store: Store) {
    let run = NewRun {
        run_name: Some("first".into()),
        user_id: "me".into(),
        start_time: 5,
        tags: pairs(&[("b", "1"), ("a", "1"), ("b", "2")]),
        ..NewRun::default()
    };
    let made = store.create_run(run).await.unwrap();
    let uid = made.info.run_id.clone();
    assert_eq!(uid.len(), 32);
    assert_eq!(made.info.artifact_uri, format!("mlflow-artifacts:/0/{uid}/artifacts"));
    assert_eq!(made.data.tags, pairs(&[("a", "1"), ("b", "2"), ("mlflow.runName", "first")]));
    assert_eq!(store.run(uid.clone()).await.unwrap(), made);
    let unnamed = store.create_run(NewRun::default()).await.unwrap();
    assert_eq!(unnamed.tag("mlflow.runName"), Some(unnamed.info.run_name.as_str()));

    // A caller's own id: the same call gives the same run.
    let own = NewRun {
        run_id: Some("0123456789abcdef0123456789abcdef".into()),
        artifact_uri: Some("mlflow-artifacts:/jobs/0123456789abcdef0123456789abcdef".into()),
        tags: pairs(&[("quintet.run_key", "key-1")]),
        start_time: 10,
        followed: true,
        ..NewRun::default()
    };
    let first = store.create_run(own.clone()).await.unwrap();
    let second = store.create_run(NewRun { run_name: Some("other".into()), ..own.clone() }).await.unwrap();
    assert_eq!(first, second);
    let elsewhere = store.ensure_experiment("elsewhere".into()).await.unwrap().experiment_id;
    let moved = store.create_run(NewRun { experiment_id: elsewhere, ..own.clone() }).await;
    assert!(matches!(moved, Err(Error::AlreadyExists { kind: "run", .. })));
    assert!(store.create_run(NewRun { run_id: Some("../x".into()), ..own.clone() }).await.is_err());

    // Found by its key: the newest active one.
    assert_eq!(store.find_run("key-1".into(), None).await.unwrap(), first);
    let newer = NewRun { run_id: Some("b".repeat(32)), experiment_id: elsewhere, start_time: 11, ..own.clone() };
    let newer = store.create_run(newer).await.unwrap();
    assert_eq!(store.find_run("key-1".into(), None).await.unwrap(), newer);
    assert_eq!(store.find_run("key-1".into(), Some(0)).await.unwrap(), first);
    assert!(matches!(store.find_run("key-2".into(), None).await, Err(Error::NotFound { .. })));
    store.set_run_lifecycle(newer.info.run_id.clone(), Lifecycle::Deleted).await.unwrap();
    assert_eq!(store.find_run("key-1".into(), None).await.unwrap(), first);
    let long = NewRun { tags: vec![Pair::new("quintet.run_key", "x".repeat(501))], ..NewRun::default() };
    assert!(matches!(store.create_run(long).await, Err(Error::Invalid { .. })));

    // State, end and name; the tag of the name follows, and the name follows the tag.
    let update = RunUpdate { status: Some(RunStatus::Finished), end_time: Some(9), run_name: Some("second".into()) };
    let info = store.update_run(uid.clone(), update).await.unwrap();
    assert_eq!((info.status, info.end_time, info.run_name.as_str()), (RunStatus::Finished, Some(9), "second"));
    let info = store.update_run(uid.clone(), RunUpdate::default()).await.unwrap();
    assert_eq!((info.status, info.end_time), (RunStatus::Finished, Some(9)));
    assert_eq!(store.run(uid.clone()).await.unwrap().tag("mlflow.runName"), Some("second"));
    tag(&store, &uid, "mlflow.runName", "third").await;
    assert_eq!(store.run(uid.clone()).await.unwrap().info.run_name, "third");
    let clash = NewRun { run_name: Some("x".into()), tags: pairs(&[("mlflow.runName", "y")]), ..NewRun::default() };
    assert!(matches!(store.create_run(clash).await, Err(Error::Invalid { .. })));

    // Deleted runs are read but not written.
    for _ in 0..2 {
        store.set_run_lifecycle(uid.clone(), Lifecycle::Deleted).await.unwrap();
    }
    assert_eq!(store.run(uid.clone()).await.unwrap().info.lifecycle_stage, Lifecycle::Deleted);
    assert!(matches!(param(&store, &uid, "p", "1").await, Err(Error::IllegalState { .. })));
    assert!(matches!(store.update_run(uid.clone(), RunUpdate::default()).await, Err(Error::IllegalState { .. })));
    assert!(matches!(store.delete_tag(uid.clone(), "a".into()).await, Err(Error::IllegalState { .. })));
    store.set_run_lifecycle(uid.clone(), Lifecycle::Active).await.unwrap();
    store.delete_tag(uid.clone(), "a".into()).await.unwrap();
    assert!(matches!(store.delete_tag(uid.clone(), "a".into()).await, Err(Error::NotFound { kind: "tag", .. })));
    assert!(matches!(store.delete_tag(uid, "never named".into()).await, Err(Error::NotFound { kind: "tag", .. })));
    assert!(matches!(store.run("404".into()).await, Err(Error::NotFound { kind: "run", .. })));
    let unknown = store.create_run(NewRun { experiment_id: 404, ..NewRun::default() }).await;
    assert!(matches!(unknown, Err(Error::NotFound { kind: "experiment", .. })));
}

async fn models(store: Store) {
    let run = new_run(&store, 0).await;
    let model = NewModel {
        name: Some("tagger".into()),
        source_run_id: run.clone(),
        params: pairs(&[("lr", "0.1")]),
        tags: pairs(&[("b", "1"), ("a", "1")]),
        ..NewModel::default()
    };
    let made = store.create_model(model.clone()).await.unwrap();
    let id = made.model_id.clone();
    assert!(id.starts_with("m-") && id.len() == 34);
    assert_eq!(made.artifact_uri, format!("mlflow-artifacts:/0/models/{id}/artifacts"));
    assert_eq!(store.model(id.clone()).await.unwrap(), made);
    let ready = store.finalize_model(id.clone(), ModelStatus::Ready).await.unwrap();
    assert_eq!((ready.status, ready.tags.len()), (ModelStatus::Ready, 2));
    store.set_model_tags(id.clone(), pairs(&[("a", "2")])).await.unwrap();
    store.delete_model_tag(id.clone(), "b".into()).await.unwrap();
    assert!(matches!(store.delete_model_tag(id.clone(), "b".into()).await, Err(Error::NotFound { .. })));
    store.log_model_params(id.clone(), pairs(&[("epochs", "3")])).await.unwrap();
    let read = store.model(id.clone()).await.unwrap();
    assert_eq!((read.tags, read.params), (pairs(&[("a", "2")]), pairs(&[("epochs", "3"), ("lr", "0.1")])));

    let other = store.create_model(NewModel { name: Some("other".into()), ..model.clone() }).await.unwrap().model_id;
    let search = |filter: &str| ModelSearch {
        experiment_ids: vec![0],
        filter: filter.into(),
        max_results: 50,
        order_by: vec!["name DESC".into()],
        page_token: None,
    };
    let found = async |filter: &str| -> Vec<String> {
        let page = store.search_models(search(filter)).await.unwrap();
        page.items.into_iter().map(|model| model.model_id).collect()
    };
    assert_eq!(found("").await, [id.clone(), other.clone()]);
    assert_eq!(found("name = 'tagger'").await, std::slice::from_ref(&id));
    assert_eq!(found("params.lr = '0.1' AND tags.a = '1'").await, std::slice::from_ref(&other));
    assert_eq!(found("status = 'READY'").await, std::slice::from_ref(&id));
    assert!(matches!(store.search_models(search("unknown = 'x'")).await, Err(Error::Invalid { .. })));
    store.delete_model(other.clone()).await.unwrap();
    assert_eq!(found("").await, std::slice::from_ref(&id));
    assert!(matches!(store.model(other).await, Err(Error::NotFound { .. })));

    for step in [1, 2] {
        store.log_outputs(run.clone(), vec![ModelOutput { model_id: id.clone(), step }]).await.unwrap();
    }
    assert_eq!(store.run(run).await.unwrap().outputs.model_outputs, [ModelOutput { model_id: id, step: 2 }]);
    assert!(store.create_model(NewModel { name: Some("a/b".into()), ..model }).await.is_err());
}
