//! Which configurations are taken over, in which order, and that it happens once.

use quintet_proto::v1::{CmaEsSampler, TpeSampler};

use super::*;
use crate::{
    space::{Condition, ParamValue},
    storage::{Edit, Past},
    study::{Param, tests::trial},
};

fn space() -> Space {
    let text = |text: &str| ParamValue::Text(text.into());
    let mut space = Space::of([
        ("opt", Distribution::categorical(vec![text("sgd"), text("adam")]).unwrap()),
        ("lr", Distribution::float(1e-5, 1e-1, true, None).unwrap()),
        ("momentum", Distribution::float(0.0, 1.0, false, None).unwrap()),
        ("layers", Distribution::int(1, 4, false, 1).unwrap()),
    ]);
    space.set_condition(2, Condition { parameter: 0, values: vec![0.0] });
    space
}

fn param(name: &str, value: f64, distribution: Distribution) -> Param {
    Param { name: name.into(), value, distribution }
}

/// A trial of a study with wider bounds and the choices the other way around.
fn tried(number: i64, value: f64, opt: &str, lr: f64, momentum: Option<f64>) -> Trial {
    let choices = ["adam", "sgd", "lion"].map(|name| ParamValue::Text(name.into())).to_vec();
    let at = choices.iter().position(|choice| *choice == ParamValue::Text(opt.into())).unwrap() as f64;
    let mut trial = trial(number, State::Complete, Some(value));
    trial.params = vec![
        param("opt", at, Distribution::categorical(choices).unwrap()),
        param("lr", lr, Distribution::float(1e-9, 1.0, true, None).unwrap()),
        param("other", 3.0, Distribution::int(1, 5, false, 1).unwrap()),
    ];
    trial.params.extend(momentum.map(|m| param("momentum", m, Distribution::float(0.0, 1.0, false, None).unwrap())));
    trial
}

fn planned(sources: &[Source<'_, Trial>], n_trials: usize) -> Vec<(String, i64)> {
    plan(&space(), sources, n_trials)
        .into_iter()
        .map(|configuration| (configuration.study, configuration.number))
        .collect()
}

fn names(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
    expected.iter().map(|(study, number)| ((*study).to_owned(), *number)).collect()
}

#[test]
fn the_best_of_each_study_come_in_turn_without_what_does_not_fit_or_is_nearly_the_same() {
    let mut broken = tried(5, 99.0, "sgd", 1e-3, None);
    broken.system_attrs.insert("constraints:latency".into(), "1.0".into());
    let mut pruned = tried(6, 98.0, "sgd", 1e-3, None);
    pruned.state = State::Pruned;
    let large = [
        tried(0, 80.0, "adam", 1e-3, None),
        tried(1, 90.0, "sgd", 1e-2, Some(0.9)),
        // Almost trial 1.
        tried(2, 89.0, "sgd", 1.1e-2, Some(0.91)),
        // Not in the new space.
        tried(3, 95.0, "lion", 1e-3, None),
        tried(4, 94.0, "adam", 0.5, None),
        broken,
        pruned,
    ];
    let small = [
        tried(0, 0.2, "adam", 1e-4, None),
        tried(1, 0.1, "adam", 1.02e-3, Some(0.5)),
        tried(2, 0.3, "adam", 1e-5, None),
    ];
    let sources = [
        Source { study: "large", directions: &[Direction::Maximize], trials: &large },
        Source { study: "small", directions: &[Direction::Minimize], trials: &small },
    ];
    // Both scales count alike; trial 0 of the large one is nearly trial 1 of the small one.
    let all = names(&[("large", 1), ("small", 1), ("small", 0), ("small", 2)]);
    assert_eq!(planned(&sources, 10), all);
    assert_eq!(planned(&sources, 2), all[..2]);
    assert!(planned(&[], 3).is_empty());
    let first = &plan(&space(), &sources, 1)[0];
    assert_eq!(first.values, [Some(0.0), Some(1e-2), Some(0.9), None], "by value, not by index; what it lacks is open");
    let second = &plan(&space(), &sources, 2)[1];
    assert_eq!(second.values[2], None, "adam has no momentum");
}

#[test]
fn several_objectives_rank_by_fronts() {
    let of = |number, values: [f64; 2], lr| {
        let mut trial = tried(number, 0.0, "adam", lr, None);
        trial.values = values.to_vec();
        trial
    };
    let trials = [of(0, [1.0, 1.0], 1e-2), of(1, [2.0, 0.0], 1e-3), of(2, [2.0, 2.0], 1e-4), of(3, [0.0, 3.0], 1e-5)];
    let source = Source { study: "s", directions: &[Direction::Minimize, Direction::Minimize], trials: &trials };
    assert_eq!(planned(&[source], 10), names(&[("s", 0), ("s", 1), ("s", 3), ("s", 2)]));
}

fn checked(transfer: &v1::Transfer, sampler: Option<Kind>) -> Result<Transfer, Vec<String>> {
    let mut wrong = Vec::new();
    let checked =
        Transfer::from_proto(Some(transfer), sampler.map(|kind| Sampler { kind: Some(kind) }).as_ref(), &mut wrong);
    if wrong.is_empty() {
        return Ok(checked.unwrap());
    }
    Err(wrong.iter().map(|v| format!("{}: {}", v.field, v.description)).collect())
}

fn wish(studies: &[&str], n_trials: Option<i32>) -> v1::Transfer {
    v1::Transfer { studies: studies.iter().map(|name| (*name).to_owned()).collect(), n_trials }
}

#[test]
fn wishes_are_checked_and_have_a_default_by_the_sampler() {
    let n_trials = |sampler| checked(&wish(&["a"], None), sampler).unwrap().n_trials;
    let tpe = |n| Kind::Tpe(TpeSampler { n_startup_trials: n, ..TpeSampler::default() });
    let cmaes = Kind::Cmaes(CmaEsSampler::default());
    assert_eq!(
        [n_trials(None), n_trials(Some(tpe(None))), n_trials(Some(tpe(Some(3)))), n_trials(Some(cmaes))],
        [5, 5, 3, 1]
    );
    assert_eq!(checked(&wish(&["a"], Some(7)), None).unwrap().at_most(6).n_trials, 6);
    assert_eq!(
        checked(&wish(&["a", "", "a"], Some(0)), None).unwrap_err(),
        [
            "transfer.studies[1]: is empty; name an earlier study",
            "transfer.studies[2]: `a` is there twice",
            "transfer.n_trials: 0 is not within 1 to 1000",
        ]
    );
    assert_eq!(checked(&wish(&[], None), None).unwrap_err(), ["transfer.studies: is empty; name the earlier studies"]);
    assert_eq!(Transfer::from_proto(None, None, &mut Vec::new()), None);
}

async fn study(store: &Store, name: &str, trials: Vec<Trial>) -> Study {
    let study = Study {
        id: 0,
        name: name.into(),
        directions: vec![Direction::Minimize],
        user_attrs: Attributes::new(),
        system_attrs: Attributes::new(),
    };
    store.import(study, trials).await.unwrap()
}

#[tokio::test]
async fn a_study_gets_them_once_also_when_it_was_cut_off_in_the_middle() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite://{}", folder.path().join("hpo.db").display())).unwrap();
    let trials = [1e-5, 1e-4, 1e-3, 1e-2].into_iter().zip(0..);
    let trials = trials.map(|(lr, number)| tried(number, number as f64, "adam", lr, None)).collect();
    study(&store, "old \"1\"", trials).await;
    let new = study(&store, "new", Vec::<Trial>::new()).await;
    let transfer = checked(&wish(&["old \"1\""], Some(3)), None).unwrap();
    let none: &[Trial] = &[];
    let first = transfer.trials(&store, "new", &space(), none).await.unwrap().unwrap();
    assert_eq!(first.len(), 3);
    // Cut off after the first of three; meanwhile it has been run.
    let made = store.create_trial(new.id, first[0].clone(), Timestamp::now()).await.unwrap();
    assert_eq!(made.user_attrs[ATTR_TRANSFER], r#"{"study": "old \"1\"", "trial": 0}"#);
    assert_eq!(queued::fixed(&made, &space()).unwrap(), [Some(1.0), Some(1e-5), None, None]);
    store.edit(made.id, Edit::state(State::Running, Vec::new()), Timestamp::now()).await.unwrap();
    assert_eq!(transfer.queue(&store, &new, &space()).await.unwrap().unwrap(), 2);
    let again = store.find_study("new").await.unwrap().unwrap();
    // The earlier study may be gone by now.
    let old = store.find_study("old \"1\"").await.unwrap().unwrap();
    store.delete_study(old.id).await.unwrap();
    assert_eq!(transfer.queue(&store, &again, &space()).await.unwrap().unwrap(), 0);
    let trials = store.trials(new.id).await.unwrap();
    let from: Vec<&str> = trials.iter().map(|trial| trial.user_attrs[ATTR_TRANSFER].as_str()).collect();
    assert_eq!(from, [0, 1, 2].map(|n| format!(r#"{{"study": "old \"1\"", "trial": {n}}}"#)));
    assert_eq!(trials[2].state, State::Waiting);
}

#[tokio::test]
async fn studies_that_do_not_exist_or_share_nothing_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite://{}", folder.path().join("hpo.db").display())).unwrap();
    let other = NewTrial {
        params: vec![param("z", 1.0, Distribution::float(0.0, 1.0, false, None).unwrap())],
        past: Some(Past { values: vec![1.0], ..Past::of(State::Complete) }),
        ..NewTrial::default()
    };
    let made = study(&store, "other", Vec::<Trial>::new()).await;
    store.create_trial(made.id, other, Timestamp::now()).await.unwrap();
    let transfer = checked(&wish(&["nothing", "other", "me"], None), None).unwrap();
    let none: &[Trial] = &[];
    let wrong = transfer.trials(&store, "me", &space(), none).await.unwrap().unwrap_err();
    let told: Vec<String> = wrong.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
    assert_eq!(
        told,
        [
            "transfer.studies[0]: study `nothing` does not exist",
            "transfer.studies[1]: no trial of `other` has a parameter of this search space: opt, lr, momentum, layers",
            "transfer.studies[2]: `me` is the study itself; name earlier ones",
        ]
    );
}

#[tokio::test]
async fn cma_es_is_told_where_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite://{}", folder.path().join("hpo.db").display())).unwrap();
    let trials = (0..30).map(|number| tried(number, number as f64, "adam", 1e-3, None)).collect();
    study(&store, "old", trials).await;
    let cmaes = Sampler { kind: Some(Kind::Cmaes(CmaEsSampler::default())) };
    let narrow = Space::of([("lr", Distribution::float(1e-5, 1e-1, true, None).unwrap())]);
    let none: &[Trial] = &[];
    for (sampler, known) in [(None, false), (Some(&cmaes), true)] {
        let wished = wish(&["old"], Some(1));
        let transfer = Transfer::from_proto(Some(&wished), sampler, &mut Vec::new()).unwrap();
        let first = transfer.trials(&store, "new", &narrow, none).await.unwrap().unwrap();
        assert_eq!(first[0].system_attrs.contains_key(ATTR_PROMISING), known);
    }
}
