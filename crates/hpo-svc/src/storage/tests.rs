//! The contract of the store, checked on SQLite and on PostgreSQL.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use runtime_core::db::testing::PostgresServer;

use super::*;
use crate::space::{Distribution, ParamValue};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_microsecond(1_790_000_000_000_000 + seconds * 1_000_000 + 5).unwrap()
}

async fn edit(store: &Store, trial: i64, edit: Edit, seconds: i64) -> Result<bool, Error> {
    store.edit(trial, edit, at(seconds)).await
}

fn param(name: &str, value: f64, distribution: Distribution) -> Param {
    Param { name: name.into(), value, distribution }
}

fn params() -> Vec<Param> {
    vec![
        param("z_lr", 1e-4, Distribution::float(1e-5, 1e-3, true, None).unwrap()),
        param("batch", 16.0, Distribution::int(8, 64, false, 8).unwrap()),
        param("act", 1.0, Distribution::categorical(vec![ParamValue::Null, ParamValue::Text("é".into())]).unwrap()),
        // Of Optuna, and none of our search spaces.
        param("open", 1e300, Distribution::from_json(r#"{"type": "float", "low": 0, "high": Infinity}"#).unwrap()),
        param(
            "wide",
            1e19,
            Distribution::from_json(r#"{"type": "int", "low": 0, "high": 18446744073709551616}"#).unwrap(),
        ),
        param(
            "seed",
            0.0,
            Distribution::from_json(r#"{"type": "categorical", "choices": [18446744073709551615]}"#).unwrap(),
        ),
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
        ..NewTrial::default()
    };
    let trial = store.create_trial(study.id, new, at(0)).await.unwrap();
    assert_eq!((trial.number, trial.state, trial.start), (0, State::Running, Some(at(0))));
    assert_eq!(trial.params, params());
    edit(store, trial.id, Edit::reports(vec![(1, 0.5), (-3, f64::NAN), (i64::from(i32::MAX) + 1, f64::INFINITY)]), 1)
        .await
        .unwrap();
    edit(store, trial.id, Edit::reports(vec![(1, 0.25)]), 1).await.unwrap();
    edit(store, trial.id, Edit::user_attr("job", "\"jobs/2\"".into()), 1).await.unwrap();
    let end = Edit {
        reports: vec![(9, 0.75)],
        user_attrs: attributes(&[("done", "true")]),
        ..Edit::state(State::Complete, vec![f64::NEG_INFINITY])
    };
    assert!(edit(store, trial.id, end, 7).await.unwrap());
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
    let clash = edit(store, trial.id, Edit::param(param("act", 0.0, other.clone())), 1).await;
    assert!(matches!(clash, Err(Error::Incompatible { .. })), "{clash:?}");
    // A trial with a clash is not created at all.
    let new = NewTrial { params: vec![param("act", 0.0, other)], ..NewTrial::default() };
    assert!(matches!(store.create_trial(study.id, new, at(1)).await, Err(Error::Incompatible { .. })));
    assert_eq!(store.trials(study.id).await.unwrap().len(), 1);
    // Another range under the same name is fine, and parameters can be added later.
    edit(store, trial.id, Edit::param(param("batch", 128.0, Distribution::int(128, 256, false, 1).unwrap())), 1)
        .await
        .unwrap();
    edit(store, trial.id, Edit::param(param("new", 0.5, Distribution::float(0.0, 1.0, false, None).unwrap())), 1)
        .await
        .unwrap();
    assert_eq!(store.trial(trial.id).await.unwrap().params.len(), params().len() + 1);

    assert!(!edit(store, trial.id, Edit::state(State::Running, vec![]), 1).await.unwrap());
    let nan = edit(store, trial.id, Edit::state(State::Complete, vec![f64::NAN]), 1).await;
    assert_eq!(nan, Err(Error::NotANumber));
    assert!(edit(store, trial.id, Edit::state(State::Fail, vec![]), 1).await.unwrap());
    let finished = Error::TrialFinished { number: 0, state: State::Fail };
    assert_eq!(edit(store, trial.id, Edit::state(State::Complete, vec![]), 2).await, Err(finished.clone()));
    assert_eq!(edit(store, trial.id, Edit::reports(vec![(1, 1.0)]), 1).await, Err(finished.clone()));
    let attribute = attributes(&[("a", "1")]);
    assert_eq!(edit(store, trial.id, Edit::user_attr("k", "1".into()), 1).await, Err(finished.clone()));
    assert_eq!(edit(store, trial.id, Edit::param(params().remove(0)), 1).await, Err(finished));
    let stored = store.trial(trial.id).await.unwrap();
    assert!(stored.intermediate.is_empty() && stored.user_attrs.is_empty() && stored.values.is_empty());
    assert_eq!(
        store.set_study_attributes(StudyAttributes::User(99), attribute).await,
        Err(Error::NoStudy("99".into()))
    );
    assert_eq!(store.trial(999).await.unwrap_err(), Error::NoTrial(999));
    assert_eq!(edit(store, 999, Edit::reports(vec![]), 1).await, Err(Error::NoTrial(999)));
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

/// Two stores on one database, as two programs have them: each sees at once what the other has done, and refuses what it may not.
async fn others_write_too(url: &str) {
    let stores = [Store::open(url).unwrap(), Store::open(url).unwrap()];
    let study = stores[0].create_study("shared", &[Direction::Minimize], Attributes::new(), Attributes::new()).await;
    let study = study.unwrap().id;
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut refused = 0;
    for step in 0..300 {
        let store = &stores[random.random_range(0..2)];
        let known = store.trials(study).await.unwrap();
        let some = (!known.is_empty()).then(|| known[random.random_range(0..known.len())].clone());
        let edit = match (random.random_range(0..8), some) {
            (0..3, _) | (_, None) => {
                let state = if random.random_bool(0.5) { State::Waiting } else { State::Running };
                let new = NewTrial { past: Some(Past::of(state)), ..NewTrial::default() };
                let trial = store.create_trial(study, new, at(step)).await.unwrap();
                assert_eq!(trial.number, known.len() as i64);
                continue;
            }
            (3, Some(trial)) => (trial, Edit::state(State::Running, vec![])),
            (4, Some(trial)) => (trial, Edit::state(State::Complete, vec![random.random()])),
            (5, Some(trial)) => (trial, Edit::reports(vec![(random.random_range(0..5), random.random())])),
            (6, Some(trial)) => (trial, Edit::system_attr("k", step.to_string())),
            (_, Some(trial)) => (trial, Edit::param(params().remove(random.random_range(0..3)))),
        };
        let (trial, edit) = edit;
        // The other one has done something to it meanwhile.
        let other = &stores[usize::from(std::ptr::eq(store, &raw const stores[0]))];
        if random.random_bool(0.3) {
            let _ = other.edit(trial.id, Edit::state(State::Fail, vec![]), at(step)).await;
        }
        let before = other.trial(trial.id).await.unwrap();
        let outcome = store.edit(trial.id, edit.clone(), at(step)).await;
        match before.state.finished() {
            true => assert_eq!(outcome, Err(Error::TrialFinished { number: trial.number, state: before.state })),
            false => assert_eq!(outcome, Ok(edit.state != Some(State::Running) || before.state == State::Waiting)),
        }
        refused += usize::from(!matches!(outcome, Ok(true)));
        let [ours, theirs] = [store.trials(study).await.unwrap(), other.trials(study).await.unwrap()];
        assert_eq!(ours, theirs, "after step {step}: {edit:?}");
    }
    assert!((20..250).contains(&refused), "{refused}");
    let fresh = Store::open(url).unwrap();
    assert_eq!(fresh.trials(study).await.unwrap(), stores[0].trials(study).await.unwrap());
    let last = fresh.trials(study).await.unwrap()[9].id;
    let since = stores[1].trials_since(study, last, BTreeSet::from([last - 1, last + 5, 999])).await.unwrap();
    assert_eq!(since[..2].iter().map(|trial| trial.id).collect::<Vec<_>>(), [last - 1, last + 1]);
    stores[0].delete_study(study).await.unwrap();
    assert_eq!(stores[1].trials(study).await, Err(Error::NoStudy(study.to_string())));
    assert_eq!(stores[1].trial(last).await, Err(Error::NoTrial(last)));
}

/// Neither sees less of the other's trials for having made one itself before it looked.
async fn others_make_trials_between_ours(url: &str) {
    let stores = [Store::open(url).unwrap(), Store::open(url).unwrap()];
    let none = Attributes::new;
    let study = stores[0].create_study("between", &[Direction::Minimize], none(), none()).await.unwrap().id;
    let make = async |store: &Store| store.create_trial(study, NewTrial::default(), at(0)).await.unwrap();
    for round in 1..4 {
        for store in &stores {
            assert_eq!(store.trials(study).await.unwrap().len(), 4 * (round - 1));
        }
        let mut made = Vec::new();
        for store in [&stores[0], &stores[1], &stores[0], &stores[1]] {
            made.push(make(store).await);
        }
        assert!(made.is_sorted_by_key(|trial| (trial.id, trial.number)));
        for store in &stores {
            let seen = store.trials(study).await.unwrap();
            assert_eq!(seen[4 * (round - 1)..], made);
            assert!(seen.iter().map(|trial| trial.number).eq(0..4 * round as i64));
        }
        // An ended trial is not read again by itself.
        edit(&stores[1], made[1].id, Edit::state(State::Complete, vec![1.0]), 1).await.unwrap();
    }
    stores[0].delete_study(study).await.unwrap();
}

async fn a_failed_import_leaves_nothing(store: &Store) {
    let past = |values| Past { values, ..Past::of(State::Complete) };
    let trials = |last: f64| {
        let values = [0.5, last];
        let new = values.map(|value| NewTrial { past: Some(past(vec![value])), ..NewTrial::default() });
        new.to_vec()
    };
    let study = |name: &str| Study {
        id: 0,
        name: name.into(),
        directions: vec![Direction::Minimize],
        user_attrs: Attributes::new(),
        system_attrs: Attributes::new(),
    };
    assert_eq!(store.import(study("imported"), trials(f64::NAN)).await, Err(Error::NotANumber));
    assert_eq!(store.find_study("imported").await.unwrap(), None);
    let next = store.create_study("next", &[Direction::Minimize], Attributes::new(), Attributes::new()).await.unwrap();
    assert_eq!(store.trials(next.id).await.unwrap(), []);
    let trial = store.create_trial(next.id, NewTrial::default(), at(0)).await.unwrap();
    assert_eq!(trial.number, 0);
    assert_eq!(store.trials(next.id).await.unwrap(), [trial]);
    let imported = store.import(study("imported"), trials(0.25)).await.unwrap();
    let values: Vec<_> = store.trials(imported.id).await.unwrap().iter().map(|trial| trial.value()).collect();
    assert_eq!(values, [Some(0.5), Some(0.25)]);
    for study in [next, imported] {
        store.delete_study(study.id).await.unwrap();
    }
}

async fn what_clients_of_the_proxy_have_begun_is_known(store: &Store) {
    let none = Attributes::new;
    let study = store.create_study("leased", &[Direction::Minimize], none(), none()).await.unwrap().id;
    let make = async |leased, state| {
        let new = NewTrial { leased, past: Some(Past::of(state)), ..NewTrial::default() };
        store.create_trial(study, new, at(0)).await.unwrap().id
    };
    let [first, ended, other] =
        [make(true, State::Running).await, make(true, State::Running).await, make(false, State::Running).await];
    let [queued, claimed] = [make(true, State::Waiting).await, make(false, State::Waiting).await];
    let claim = Edit { leased: true, ..Edit::state(State::Running, vec![]) };
    for trial in [claimed, first, other] {
        assert_eq!(edit(store, trial, claim.clone(), 1).await, Ok(trial == claimed));
    }
    edit(store, ended, Edit::state(State::Fail, vec![]), 1).await.unwrap();
    assert_eq!(store.leased().await.unwrap(), [first, claimed]);
    // Whoever takes one that was given back works on it, and need not be a client of the proxy.
    edit(store, first, Edit::state(State::Waiting, vec![]), 1).await.unwrap();
    for trial in [first, queued] {
        edit(store, trial, Edit::state(State::Running, vec![]), 2).await.unwrap();
    }
    assert_eq!(store.leased().await.unwrap(), [claimed]);
    store.delete_study(study).await.unwrap();
    assert!(store.leased().await.unwrap().is_empty());
}

/// The syncs that a change takes: one or none.
async fn syncs<T>(store: &Store, change: impl Future<Output = Result<T, Error>>) -> (T, u64) {
    let before = store.db().commits();
    let result = change.await.unwrap();
    let after = store.db().commits();
    assert_eq!(after.synced + after.committed, before.synced + before.committed + 1);
    (result, after.synced - before.synced)
}

async fn what_ends_a_trial_and_what_belongs_to_a_study_is_synced(store: &Store, every: u64) {
    let none = Attributes::new;
    let (study, created) = syncs(store, store.create_study("durable", &[Direction::Minimize], none(), none())).await;
    let attribute = store.set_study_attributes(StudyAttributes::User(study.id), attributes(&[("a", "1")]));
    assert_eq!((created, syncs(store, attribute).await.1), (1, 1));
    let waiting = NewTrial { past: Some(Past::of(State::Waiting)), ..NewTrial::default() };
    let (trial, queued) = syncs(store, store.create_trial(study.id, waiting, at(0))).await;
    assert_eq!(queued, every);
    let changes = [
        (Edit::state(State::Running, vec![]), every),
        (Edit { params: params(), ..Edit::default() }, every),
        (Edit::reports(vec![(1, 0.5)]), every),
        (Edit::user_attr("a", "1".into()), every),
        (Edit { reports: vec![(2, 0.5)], ..Edit::state(State::Complete, vec![1.0]) }, 1),
    ];
    for (change, expected) in changes {
        assert_eq!(syncs(store, edit(store, trial.id, change.clone(), 1)).await, (true, expected), "{change:?}");
    }
    let (_, begun) = syncs(store, store.create_trial(study.id, NewTrial::default(), at(2))).await;
    let report = |_: &Trial| Edit::reports(vec![(1, 0.5)]);
    let (_, reported) = syncs(store, store.edit_numbered(study.id, 1, None, report, at(3))).await;
    let end = |_: &Trial| Edit { values: vec![0.5], ..Edit::default() };
    let (told, ended) = syncs(store, store.edit_numbered(study.id, 1, Some(State::Complete), end, at(4))).await;
    assert_eq!((begun, reported, ended, told.state), (every, every, 1, State::Complete));
    let past = Past { values: vec![1.0], ..Past::of(State::Complete) };
    let (_, added) =
        syncs(store, store.create_trial(study.id, NewTrial { past: Some(past), ..NewTrial::default() }, at(0))).await;
    let ((), deleted) = syncs(store, store.delete_study(study.id)).await;
    assert_eq!((added, deleted), (1, 1));
}

/// One study is most of the database, the other is not: they are read in different ways.
async fn long_and_short_studies_are_read_alike(url: &str) {
    let store = Store::open(url).unwrap();
    let both = [("long", 200), ("short", 2)];
    let mut written = Vec::new();
    for (name, count) in both {
        let directions = [Direction::Minimize, Direction::Maximize];
        let study = store.create_study(name, &directions, Attributes::new(), Attributes::new()).await.unwrap().id;
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(store.create_trial(study, NewTrial::default(), at(0)).await.unwrap().id);
        }
        // The rows of one trial stand between those of others, and not in the order of its parameters' names.
        for new in params() {
            for id in ids.iter().rev() {
                edit(&store, *id, Edit::param(Param { value: new.value - (*id % 2) as f64, ..new.clone() }), 1)
                    .await
                    .unwrap();
            }
        }
        for id in ids.iter().filter(|id| *id % 3 != 0) {
            let end = Edit {
                params: vec![param("act", 0.0, params()[2].distribution.clone())],
                reports: vec![(2, 0.5), (1, *id as f64)],
                user_attrs: attributes(&[("u", "1")]),
                system_attrs: attributes(&[("s", "2"), ("t", "[]")]),
                ..Edit::state(State::Complete, vec![*id as f64, f64::INFINITY])
            };
            edit(&store, *id, end, 2).await.unwrap();
        }
        written.push((study, store.trials(study).await.unwrap()));
    }
    drop(store);
    let store = Store::open(url).unwrap();
    for (study, trials) in written {
        assert_eq!(store.trials(study).await.unwrap(), trials);
    }
}

async fn contract(url: &str) {
    let store = Store::open(url).unwrap();
    everything_comes_back(&store).await;
    what_ends_a_trial_and_what_belongs_to_a_study_is_synced(&store, 0).await;
    what_ends_a_trial_and_what_belongs_to_a_study_is_synced(&store.clone().synced(true), 1).await;
    what_is_not_allowed_changes_nothing(&store).await;
    numbers_are_dense_and_ids_grow_under_concurrency(&store).await;
    others_write_too(url).await;
    others_make_trials_between_ours(url).await;
    a_failed_import_leaves_nothing(&store).await;
    what_clients_of_the_proxy_have_begun_is_known(&store).await;
    // What was answered is there for the next process.
    drop(store);
    let store = Store::open(url).unwrap();
    assert_eq!(store.studies(0, 10).await.unwrap().len(), 4);
    drop(store);
    long_and_short_studies_are_read_alike(url).await;
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

/// Makes the tables of a file as Optuna makes them: without AUTOINCREMENT.
pub(super) fn tables_of_optuna(path: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).unwrap();
    let tables = schema::MIGRATIONS[0].sqlite.replace(" AUTOINCREMENT", "");
    connection.execute_batch(&tables).unwrap();
    connection
}

#[tokio::test]
async fn ids_are_never_used_again_in_a_file_that_optuna_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("studies.db");
    let url = format!("sqlite://{}", path.display());
    let optuna = tables_of_optuna(&path);
    let newest = async |store: &Store| {
        let none = Attributes::new;
        let study = store.create_study("newest", &[Direction::Minimize], none(), none()).await.unwrap().id;
        let first = store.create_trial(study, NewTrial::default(), at(0)).await.unwrap();
        let second = store.create_trial(study, NewTrial::default(), at(0)).await.unwrap();
        assert_eq!((first.number, second.number, second.id), (0, 1, first.id + 1));
        assert_eq!(store.trials(study).await.unwrap(), [first, second.clone()]);
        (study, second.id)
    };
    let store = Store::open(&url).unwrap();
    let mut last = newest(&store).await;
    assert_eq!(last, (1, 2), "as Optuna counts");
    for round in 0..3 {
        // Deleted by us, with a trial of Optuna's own; by Optuna; by us before the file is opened again.
        let made = "INSERT INTO trials (number, study_id, state) VALUES (2, ?1, 'WAITING')";
        optuna.execute(made, [last.0]).unwrap();
        last.1 = optuna.last_insert_rowid();
        match round {
            1 => {
                last.1 -= 1;
                for table in ["trials", "study_directions", "studies"] {
                    optuna.execute(&format!("DELETE FROM {table} WHERE study_id = ?1"), [last.0]).unwrap();
                }
            }
            _ => store.delete_study(last.0).await.unwrap(),
        }
        let store = if round == 2 { Store::open(&url).unwrap() } else { store.clone() };
        let next = newest(&store).await;
        assert!(next.0 > last.0 && next.1 > last.1 + 1, "round {round}: {last:?}, then {next:?}");
        last = next;
    }
}

#[tokio::test]
async fn ids_that_a_power_cut_may_have_taken_are_left_out() {
    left_out_after_a_power_cut(false).await;
    left_out_after_a_power_cut(true).await;
}

async fn left_out_after_a_power_cut(made_by_optuna: bool) {
    let folder = tempfile::tempdir().unwrap();
    let [path, after] = ["studies.db", "after.db"].map(|name| folder.path().join(name));
    let url = |path: &Path| format!("sqlite://{}", path.display());
    if made_by_optuna {
        tables_of_optuna(&path);
    }
    let store = Store::open(&url(&path)).unwrap();
    let study = store.create_study("s", &[Direction::Minimize], Attributes::new(), Attributes::new()).await.unwrap().id;
    let kept = store.create_trial(study, NewTrial::default(), at(0)).await.unwrap();
    edit(&store, kept.id, Edit::state(State::Complete, vec![1.0]), 1).await.unwrap();
    let log = |path: &Path| format!("{}-wal", path.display());
    std::fs::copy(&path, &after).unwrap();
    std::fs::copy(log(&path), log(&after)).unwrap();
    let lost = store.create_trial(study, NewTrial::default(), at(2)).await.unwrap();
    let restarted = Store::open(&url(&after)).unwrap();
    let [next, other] = [at(3), at(4)].map(|now| restarted.create_trial(study, NewTrial::default(), now));
    let (next, other) = (next.await.unwrap(), other.await.unwrap());
    assert!(next.id > lost.id && next.number == lost.number && other.id == next.id + 1, "{next:?} {lost:?}");
    assert_eq!(restarted.trial(lost.id).await, Err(Error::NoTrial(lost.id)));
}
