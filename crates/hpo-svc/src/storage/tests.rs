//! The contract of the store, checked on SQLite and on PostgreSQL.

use runtime_core::db::testing::PostgresServer;

use super::*;
use crate::space::ParamValue;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_microsecond(1_790_000_000_000_000 + seconds * 1_000_000 + 5).unwrap()
}

fn param(name: &str, value: f64, distribution: Distribution) -> Param {
    Param { name: name.into(), value, distribution }
}

fn params() -> Vec<Param> {
    vec![
        param("z_lr", 1e-4, Distribution::float(1e-5, 1e-3, true, None).unwrap()),
        param("batch", 16.0, Distribution::int(8, 64, false, 8).unwrap()),
        param("act", 1.0, Distribution::categorical(vec![ParamValue::Null, ParamValue::Text("é".into())]).unwrap()),
    ]
}

fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn everything_comes_back(store: &Store) {
    store.check_revision().await.unwrap();
    let user = attributes(&[("note", "\"x\"")]);
    let system = attributes(&[("study:metric_names", "[\"f1\"]")]);
    let study = store.create_study("s", &[Direction::Maximize], user, system).await.unwrap();
    assert_eq!(store.find_study("s").await.unwrap(), Some(study.clone()));
    assert_eq!(store.find_study("other").await.unwrap(), None);
    let again = store.create_study("s", &[Direction::Minimize], Attributes::new(), Attributes::new()).await;
    assert_eq!(again, Err(Error::StudyExists("s".into())));

    let new = NewTrial {
        params: params(),
        user_attrs: attributes(&[("job", "\"jobs/1\"")]),
        system_attrs: attributes(&[("k", "NaN")]),
        past: None,
    };
    let trial = store.create_trial(study.id, new, at(0)).await.unwrap();
    assert_eq!((trial.number, trial.state, trial.start), (0, State::Running, Some(at(0))));
    assert_eq!(trial.params, params());
    store.report(trial.id, vec![(1, 0.5), (-3, f64::NAN), (i64::from(i32::MAX) + 1, f64::INFINITY)]).await.unwrap();
    store.report(trial.id, vec![(1, 0.25)]).await.unwrap();
    store.set_attributes(Owner::TrialUser(trial.id), attributes(&[("job", "\"jobs/2\"")])).await.unwrap();
    let end = TrialEnd {
        state: State::Complete,
        value: Some(f64::NEG_INFINITY),
        reports: vec![(9, 0.75)],
        user_attrs: attributes(&[("done", "true")]),
    };
    store.finish(trial.id, end, at(7)).await.unwrap();
    let stored = store.trial(trial.id).await.unwrap();
    assert_eq!((stored.state, stored.value(), stored.seconds()), (State::Complete, Some(f64::NEG_INFINITY), Some(7.0)));
    assert_eq!(stored.user_attrs, attributes(&[("done", "true"), ("job", "\"jobs/2\"")]));
    assert_eq!(stored.system_attrs, attributes(&[("k", "NaN")]));
    let steps: Vec<(i64, f64)> = stored.intermediate.iter().map(|(step, value)| (*step, *value)).collect();
    assert!(steps[0].0 == -3 && steps[0].1.is_nan());
    assert_eq!(steps[1..], [(1, 0.25), (9, 0.75), (i64::from(i32::MAX) + 1, f64::INFINITY)]);
    assert_eq!(stored.params, params());
    assert_eq!(store.counts(study.id).await.unwrap(), [(State::Complete, 1)].into());
}

async fn what_is_not_allowed_changes_nothing(store: &Store) {
    let study =
        store.create_study("rules", &[Direction::Minimize], Attributes::new(), Attributes::new()).await.unwrap();
    let trial =
        store.create_trial(study.id, NewTrial { params: params(), ..NewTrial::default() }, at(0)).await.unwrap();
    let other = Distribution::categorical(vec![ParamValue::Null]).unwrap();
    let clash = store.set_param(trial.id, param("act", 0.0, other.clone())).await;
    assert!(matches!(clash, Err(Error::Incompatible { .. })), "{clash:?}");
    // A trial with a clash is not created at all.
    let new = NewTrial { params: vec![param("act", 0.0, other)], ..NewTrial::default() };
    assert!(matches!(store.create_trial(study.id, new, at(1)).await, Err(Error::Incompatible { .. })));
    assert_eq!(store.trials(study.id).await.unwrap().len(), 1);
    // Another range under the same name is fine, and parameters can be added later.
    store.set_param(trial.id, param("batch", 128.0, Distribution::int(128, 256, false, 1).unwrap())).await.unwrap();
    store.set_param(trial.id, param("new", 0.5, Distribution::float(0.0, 1.0, false, None).unwrap())).await.unwrap();
    assert_eq!(store.trial(trial.id).await.unwrap().params.len(), 4);

    assert!(!store.set_state(trial.id, State::Running, None, at(1)).await.unwrap());
    let nan = store.set_state(trial.id, State::Complete, Some(vec![f64::NAN]), at(1)).await;
    assert_eq!(nan, Err(Error::NotANumber));
    assert!(store.set_state(trial.id, State::Fail, None, at(1)).await.unwrap());
    let finished = Error::TrialFinished { number: 0, state: State::Fail };
    assert_eq!(store.set_state(trial.id, State::Complete, None, at(2)).await, Err(finished.clone()));
    assert_eq!(store.report(trial.id, vec![(1, 1.0)]).await, Err(finished.clone()));
    let attribute = attributes(&[("a", "1")]);
    assert_eq!(store.set_attributes(Owner::TrialUser(trial.id), attribute.clone()).await, Err(finished.clone()));
    assert_eq!(store.set_param(trial.id, params().remove(0)).await, Err(finished));
    let stored = store.trial(trial.id).await.unwrap();
    assert!(stored.intermediate.is_empty() && stored.user_attrs.is_empty() && stored.values.is_empty());
    assert_eq!(store.set_attributes(Owner::StudyUser(99), attribute).await, Err(Error::NoStudy("99".into())));
    assert_eq!(store.trial(999).await.unwrap_err(), Error::NoTrial(999));
    assert_eq!(store.report(999, vec![]).await, Err(Error::NoTrial(999)));
    assert!(matches!(store.create_trial(99, NewTrial::default(), at(0)).await, Err(Error::NoStudy(_))));
}

async fn numbers_are_dense_and_ids_grow_under_concurrency(store: &Store) {
    let a = store.create_study("a", &[Direction::Minimize], Attributes::new(), Attributes::new()).await.unwrap();
    let b = store.create_study("b", &[Direction::Minimize], Attributes::new(), Attributes::new()).await.unwrap();
    let tasks = (0..40).map(|index| {
        let (store, study) = (store.clone(), if index % 2 == 0 { a.id } else { b.id });
        tokio::spawn(async move { store.create_trial(study, NewTrial::default(), at(index)).await.unwrap() })
    });
    let made = futures::future::try_join_all(tasks.collect::<Vec<_>>()).await.unwrap();
    let mut ids: Vec<i64> = made.iter().map(|trial| trial.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 40);
    for study in [&a, &b] {
        let trials = store.trials(study.id).await.unwrap();
        assert_eq!(trials.iter().map(|t| t.number).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        assert!(trials.is_sorted_by_key(|trial| trial.id));
    }
    let page = store.studies(a.id - 1, 1).await.unwrap();
    assert_eq!(page.iter().map(|study| study.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(store.studies(b.id, 10).await.unwrap(), []);
}

async fn contract(url: &str) {
    let store = Store::open(url).unwrap();
    everything_comes_back(&store).await;
    what_is_not_allowed_changes_nothing(&store).await;
    numbers_are_dense_and_ids_grow_under_concurrency(&store).await;
    // What was answered is there for the next process.
    drop(store);
    let store = Store::open(url).unwrap();
    assert_eq!(store.studies(0, 10).await.unwrap().len(), 4);
}

#[tokio::test]
async fn contract_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    contract(&format!("sqlite://{}", folder.path().join("studies.db").display())).await;
}

#[tokio::test]
async fn contract_on_postgresql() {
    let server = PostgresServer::start().unwrap();
    contract(&format!("{}?schema=hpo", server.database().unwrap())).await;
}

#[tokio::test]
async fn another_revision_is_refused_and_ids_are_never_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("studies.db");
    let store = Store::open(&format!("sqlite://{}", path.display())).unwrap();
    let study = store.create_study("s", &[Direction::Minimize], Attributes::new(), Attributes::new()).await.unwrap();
    let trial = store.create_trial(study.id, NewTrial::default(), at(0)).await.unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute("DELETE FROM trials", []).unwrap();
    let next = store.create_trial(study.id, NewTrial::default(), at(0)).await.unwrap();
    assert!(next.id > trial.id && next.number == 0);
    other.execute("UPDATE alembic_version SET version_num = 'v2.6.0.a'", []).unwrap();
    assert_eq!(store.check_revision().await, Err(Error::Revision("v2.6.0.a".into())));
    other.execute("UPDATE trials SET state = 'GONE'", []).unwrap();
    assert!(matches!(store.trials(study.id).await, Err(Error::Corrupt(_))));
}
