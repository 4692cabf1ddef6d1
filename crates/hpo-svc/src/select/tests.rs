//! The choice: what may never be chosen, what always is, and whole requests.

use std::sync::Arc;

use proptest::prelude::*;
use quintet_proto::v1::{self, GetBestConfigRequest, GetBestConfigResponse};
use runtime_core::status::violations_of;
use tonic::{Code, Status};

pub(crate) use super::measure::tests::study;
use super::*;
use crate::study::{Direction, State, Trial, tests::trial};

const F1: &[(&str, Direction)] = &[("f1", Direction::Maximize)];

/// Completed trials with a value and a latency each, by number.
fn trials(values: &[(f64, f64)]) -> Vec<Arc<Trial>> {
    let made = (0..).zip(values).map(|(number, (value, latency))| {
        let mut made = trial(number, State::Complete, Some(*value));
        if !latency.is_nan() {
            made.user_attrs.insert("latency_ms".into(), latency.to_string());
        }
        Arc::new(made)
    });
    made.collect()
}

fn ask(request: GetBestConfigRequest, studies: &[Whole]) -> Result<((usize, i64), GetBestConfigResponse), Status> {
    let request = Request::new(GetBestConfigRequest { study: "studies/a".into(), ..request });
    answer(&request.map_err(runtime_core::status::invalid_argument)?, studies)
}

fn by_latency() -> GetBestConfigRequest {
    GetBestConfigRequest { latency_metric: "latency_ms".into(), ..Default::default() }
}

/// Three trials: accurate and slow, a little less accurate and fast, inaccurate and fastest; and one dominated by the first.
fn three() -> Vec<Whole> {
    vec![(study("a", F1), trials(&[(0.90, 40.0), (0.89, 12.0), (0.70, 10.0), (0.90, 41.0)]))]
}

#[test]
fn the_metric_alone_decides_without_latencies() {
    let (chosen, answer) = ask(GetBestConfigRequest::default(), &three()).unwrap();
    assert_eq!((chosen, answer.strategy.as_str(), answer.metric.as_str()), ((0, 0), "metric", "f1"));
    assert_eq!((answer.candidate_count, answer.candidates.len()), (4, 4));
    assert!(answer.candidates[0].chosen && answer.candidates[0].champion && !answer.candidates[1].champion);
    let told = answer.reasons.join(" ");
    assert!(told.contains("Chosen is trial 0, the best of 4 candidates: f1 0.9. 1 other has the same"), "{told}");
    let few = ask(GetBestConfigRequest { max_candidates: 2, ..Default::default() }, &three()).unwrap().1;
    assert_eq!((few.candidate_count, few.candidates.len()), (4, 2));
    let minimized =
        vec![(study("a", &[("loss", Direction::Minimize)]), trials(&[(0.3, 1.0), (0.2, 1.0), (0.25, 1.0)]))];
    let (chosen, answer) = ask(GetBestConfigRequest::default(), &minimized).unwrap();
    assert_eq!(chosen, (0, 1));
    assert!(
        answer
            .reasons
            .join(" ")
            .contains("Chosen is trial 1, the best of 3 candidates: loss 0.2. Next is trial 2 with 0.25")
    );
}

#[test]
fn within_the_floor_the_fastest_wins_and_a_slower_one_by_its_gain_alone() {
    let number = |request: GetBestConfigRequest| ask(request, &three()).unwrap().0.1;
    let floor = |threshold: f64| GetBestConfigRequest { accuracy_threshold: Some(threshold), ..by_latency() };
    assert_eq!(number(floor(0.0)), 0);
    assert_eq!(number(floor(0.02)), 1, "0.89 is within 2 % of 0.90");
    assert_eq!(number(floor(0.011)), 0, "0.8901 is the floor");
    assert_eq!(number(GetBestConfigRequest { use_relative_threshold: Some(false), ..floor(0.011) }), 1);
    assert_eq!(number(floor(0.5)), 2);
    // The seed's own values, where a faster trial could never win.
    let seeds = GetBestConfigRequest { min_accuracy_gain: Some(0.02), ..floor(0.015) };
    let (chosen, answer) = ask(seeds, &three()).unwrap();
    assert_eq!((chosen.1, answer.strategy.as_str()), (1, "accuracy_first"));
    let told = answer.reasons.join("\n");
    assert!(told.contains("The best f1 of 4 with a latency has trial 0: f1 0.9 in 40 ms."), "{told}");
    assert!(
        told.contains("up to 1.5 % (0.0135) worse, so f1 at least 0.8865 is accurate enough: 3 of 4 are."),
        "{told}"
    );
    assert!(
        told.contains("gain at least 2 % (0.018) over each faster one that is accurate enough: 2 fail to."),
        "{told}"
    );
    assert!(told.contains("f1 0.89 in 12 ms, 3.33 times as fast as trial 0 for 0.01 of f1."), "{told}");
    let why = |number: i64| {
        let name = format!("studies/a/trials/{number}");
        answer.candidates.iter().find(|candidate| candidate.trial == name).unwrap().excluded.clone()
    };
    assert_eq!(
        (why(0).as_str(), why(2).as_str()),
        ("gains too little over the faster trial 1 of a", "f1 is too far below the best")
    );
    let gain = |gain: f64| GetBestConfigRequest { min_accuracy_gain: Some(gain), ..by_latency() };
    assert_eq!(number(gain(0.0)), 0, "any gain is worth it");
    assert_eq!(number(gain(0.2)), 1, "0.19 of 0.9 is more than 20 %, 0.01 is less");
    assert_eq!(number(gain(0.3)), 2);
}

#[test]
fn a_score_weighs_both() {
    let weighted = |latency_weight: f64| {
        let scoring = Some(v1::Scoring { latency_weight: Some(latency_weight), ..Default::default() });
        ask(GetBestConfigRequest { scoring, ..by_latency() }, &three()).unwrap()
    };
    assert_eq!(weighted(0.0).0.1, 0);
    let (chosen, answer) = weighted(0.3);
    assert_eq!((chosen.1, answer.strategy.as_str()), (1, "composite"));
    // 0.7 * (0.89 - 0.70) / 0.20 + 0.3 * (1 - (12 - 10) / 31)
    let score = answer.candidates[0].score.unwrap();
    assert!((score - (0.7 * 0.95 + 0.3 * (1.0 - 2.0 / 31.0))).abs() < 1e-12, "{score}");
    assert_eq!(weighted(1.0).0.1, 2);
    let front: Vec<bool> = answer.candidates.iter().map(|candidate| candidate.pareto_front).collect();
    assert_eq!(front.iter().filter(|on_front| **on_front).count(), 3, "{answer:?}");
    // A floor keeps the score from paying speed with too much accuracy.
    let scoring = Some(v1::Scoring { latency_weight: Some(1.0), ..Default::default() });
    let floored = GetBestConfigRequest { scoring, accuracy_threshold: Some(0.05), ..by_latency() };
    assert_eq!(ask(floored, &three()).unwrap().0.1, 1);
}

#[test]
fn what_lacks_something_is_never_chosen_and_not_passed_over_in_silence() {
    let mut all = three();
    let infeasible = Arc::make_mut(&mut all[0].1[0]);
    infeasible.system_attrs.insert("constraints:size".into(), "2.5".into());
    all[0].1.push(Arc::new(trial(4, State::Pruned, Some(0.99))));
    all[0].1.extend(
        trials(&[(0.95, f64::NAN)])
            .into_iter()
            .map(|unmeasured| Arc::new(Trial { number: 5, ..Trial::clone(&unmeasured) })),
    );
    let (chosen, answer) = ask(GetBestConfigRequest { accuracy_threshold: Some(0.0), ..by_latency() }, &all).unwrap();
    assert_eq!(chosen, (0, 3));
    assert_eq!(answer.candidate_count, 5, "the pruned one has no result");
    assert_eq!(answer.reasons[0], "Of 5 completed trials, 1 breaks a constraint, 1 has no latency.");
    assert_eq!(answer.reasons[1], "Without a latency could not be considered: trial 5, with the better f1 0.95.");
    let excluded: Vec<&str> = answer.candidates.iter().map(|candidate| candidate.excluded.as_str()).collect();
    assert!(
        excluded.contains(&"breaks the constraint size by 2.5") && excluded.contains(&"has no latency"),
        "{excluded:?}"
    );
    assert_eq!(ask(GetBestConfigRequest::default(), &all).unwrap().0.1, 5);
}

#[test]
fn latencies_may_be_measured_elsewhere() {
    let latencies = |pairs: &[(&str, f64)]| GetBestConfigRequest {
        latencies_ms: pairs.iter().map(|(key, latency)| ((*key).to_owned(), *latency)).collect(),
        accuracy_threshold: Some(0.3),
        ..Default::default()
    };
    let all = three();
    assert_eq!(ask(latencies(&[("0", 5.0), ("studies/a/trials/1", 6.0)]), &all).unwrap().0.1, 0);
    // They win over what the trials have.
    let both = GetBestConfigRequest { latency_metric: "latency_ms".into(), ..latencies(&[("2", 100.0), ("3", 1.0)]) };
    assert_eq!(ask(both, &all).unwrap().0.1, 3);
    let refused = ask(latencies(&[("7", 1.0), ("b/trials/0", 1.0), ("x", 1.0)]), &all).unwrap_err();
    let fields: Vec<String> = violations_of(&refused).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["latencies_ms[\"7\"]", "latencies_ms[\"b/trials/0\"]", "latencies_ms[\"x\"]"]);
}

#[test]
fn nothing_to_choose_is_told_with_its_reason() {
    let failed = |count: i64| (0..count).map(|number| Arc::new(trial(number, State::Fail, None))).collect();
    for (count, message) in [
        (0, "study `a`: there is no trial yet"),
        (1, "study `a`: the only trial has not completed"),
        (4, "study `a`: none of the 4 trials has completed"),
    ] {
        let refused = ask(GetBestConfigRequest::default(), &[(study("a", F1), failed(count))]).unwrap_err();
        // The study exists: that nothing is found would be the wrong complaint.
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, message));
    }
    let none = GetBestConfigRequest { latency_metric: "seconds".into(), ..Default::default() };
    let refused = ask(none, &three()).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("studies/a/trials/0, studies/a/trials/1"), "{}", refused.message());
    assert!(refused.message().contains("their metrics are f1, latency_ms"), "{}", refused.message());
    let mut broken = trial(0, State::Complete, Some(1.0));
    broken.system_attrs.insert("constraints:size".into(), "1.0".into());
    let refused = ask(GetBestConfigRequest::default(), &[(study("a", F1), vec![Arc::new(broken)])]).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("studies/a/trials/0 breaks the constraint size by 1"), "{}", refused.message());
    let missing = GetBestConfigRequest { metric: "recall".into(), ..Default::default() };
    let refused = ask(missing, &three()).unwrap_err();
    assert_eq!(violations_of(&refused)[0].0, "metric");
    assert!(refused.message().contains("no completed trial has `recall`; they have f1, latency_ms"));
    let minimized =
        GetBestConfigRequest { metric: "f1".into(), direction: v1::Direction::Minimize.into(), ..Default::default() };
    assert_eq!(violations_of(&ask(minimized, &three()).unwrap_err())[0].0, "direction");
    let other = GetBestConfigRequest {
        metric: "latency_ms".into(),
        direction: v1::Direction::Minimize.into(),
        ..Default::default()
    };
    assert_eq!(ask(other, &three()).unwrap().0.1, 2, "any metric of the trials may decide");
}

#[test]
fn of_several_objectives_one_of_the_front_is_chosen_by_a_rule() {
    let objectives = [("f1", Direction::Maximize), ("ms", Direction::Minimize), ("mb", Direction::Minimize)];
    let values = [[0.9, 40.0, 9.0], [0.8, 20.0, 8.0], [0.9, 50.0, 9.0], [0.7, 30.0, 1.0]];
    let made = (0..)
        .zip(values)
        .map(|(number, values)| Arc::new(Trial { values: values.to_vec(), ..trial(number, State::Complete, None) }));
    let all = vec![(study("a", &objectives), made.collect::<Vec<_>>())];
    let refused = ask(GetBestConfigRequest::default(), &all).unwrap_err();
    assert_eq!(violations_of(&refused)[0].0, "metric");
    assert!(refused.message().contains("f1 (MAXIMIZE), ms (MINIMIZE), mb (MINIMIZE)"), "{}", refused.message());
    let named = |metric: &str| GetBestConfigRequest { metric: metric.into(), ..Default::default() };
    let (chosen, answer) = ask(named("f1"), &all).unwrap();
    assert_eq!(chosen.1, 0);
    let dominated = answer.candidates.iter().find(|candidate| candidate.trial.ends_with("/2")).unwrap();
    assert_eq!((dominated.excluded.as_str(), dominated.pareto_front), ("is not on the Pareto front", false));
    assert_eq!(ask(named("mb"), &all).unwrap().0.1, 3);
    let weights = |pairs: &[(&str, f64)]| GetBestConfigRequest {
        objective_weights: pairs.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect(),
        ..Default::default()
    };
    let (chosen, answer) = ask(weights(&[("f1", 1.0), ("ms", 1.5)]), &all).unwrap();
    assert_eq!((chosen.1, answer.strategy.as_str()), (1, "objective_weights"));
    // 0.4 * (0.8 - 0.7) / 0.2 + 0.6 * 1
    assert!((answer.candidates[0].metric.unwrap() - 0.8).abs() < 1e-9, "{answer:?}");
    assert_eq!(violations_of(&ask(weights(&[("f2", 1.0)]), &all).unwrap_err())[0].0, "objective_weights[\"f2\"]");
    // One objective is the latency.
    let fast = GetBestConfigRequest { accuracy_threshold: Some(0.2), latency_metric: "ms".into(), ..named("f1") };
    assert_eq!(ask(fast, &all).unwrap().0.1, 1);
    let maximized = GetBestConfigRequest { latency_metric: "f1".into(), ..named("ms") };
    assert_eq!(violations_of(&ask(maximized, &all).unwrap_err())[0].0, "latency_metric");
    let two = vec![(
        study("a", &objectives[..2]),
        all[0].1.iter().map(|t| Arc::new(Trial { values: t.values[..2].to_vec(), ..Trial::clone(t) })).collect(),
    )];
    let fast =
        GetBestConfigRequest { accuracy_threshold: Some(0.2), latency_metric: "ms".into(), ..Default::default() };
    assert_eq!(ask(fast, &two).unwrap().1.metric, "f1", "the other one of two decides");
}

#[test]
fn the_best_of_several_studies_is_the_best_of_their_champions() {
    let request = GetBestConfigRequest {
        studies: vec!["b".into(), "studies/c".into()],
        accuracy_threshold: Some(0.1),
        ..by_latency()
    };
    let mut all = three();
    all.push((study("b", F1), trials(&[(0.5, 1.0), (0.85, 5.0), (0.8, 5.0)])));
    all.push((study("c", F1), Vec::new()));
    let (chosen, answer) = ask(request.clone(), &all).unwrap();
    assert_eq!(chosen, (1, 1));
    let champions: Vec<&str> =
        answer.candidates.iter().filter(|candidate| candidate.champion).map(|candidate| &*candidate.trial).collect();
    assert_eq!(champions, ["studies/b/trials/1", "studies/a/trials/1"]);
    assert!(answer.reasons.last().unwrap().contains("trial 1 of b, trial 1 of a"), "{:?}", answer.reasons);
    all[2].0 = study("c", &[("loss", Direction::Minimize)]);
    let refused = ask(request, &all).unwrap_err();
    assert!(
        refused.message().contains("the objective of `c` is loss MINIMIZE, that of `a` f1 MAXIMIZE"),
        "{}",
        refused.message()
    );
    let twice = GetBestConfigRequest { studies: vec!["a".into()], ..Default::default() };
    assert_eq!(violations_of(&ask(twice, &all).unwrap_err())[0].0, "studies[0]");
}

/// Few different values, so that there are ties.
fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let value = prop_oneof![8 => (0..6_i32).prop_map(|v| Some(f64::from(v) / 10.0)), 1 => Just(None), 1 => Just(Some(f64::NAN))];
    let latency =
        prop_oneof![8 => (0..6_i32).prop_map(|v| Some(f64::from(v))), 1 => Just(None), 1 => Just(Some(f64::INFINITY))];
    let one = (value, latency, 0..8_u8, 0..3_u8, 0..4_i32, 0..4_i32);
    prop::collection::vec(one, 1..25).prop_map(|all| {
        let candidate = |(at, (metric, latency, broken, study, a, b)): (usize, (_, _, u8, u8, i32, i32))| Candidate {
            study: format!("s{study}").into(),
            number: at as i64,
            metric,
            latency,
            losses: vec![f64::from(a), f64::from(b)],
            broken: if broken == 0 { vec!["the constraint c by 1".into()] } else { Vec::new() },
        };
        all.into_iter().enumerate().map(candidate).collect()
    })
}

fn rules() -> impl Strategy<Value = Rule> {
    let share = || prop_oneof![1 => Just(None), 2 => (0..6_i32).prop_map(|v| Some(f64::from(v) / 10.0))];
    let weights = prop_oneof![Just(None), (0..4_i32, 1..4_i32).prop_map(|(a, b)| Some([f64::from(a), f64::from(b)]))];
    let speed = (share(), share(), any::<bool>(), weights).prop_map(|(threshold, min_gain, relative, weights)| Speed {
        threshold,
        min_gain,
        relative,
        weights,
    });
    (prop::option::of(speed), any::<bool>()).prop_map(|(speed, maximize)| Rule {
        metric: "m".into(),
        direction: if maximize { Direction::Maximize } else { Direction::Minimize },
        objective_weights: None,
        speed,
    })
}

proptest! {
    #[test]
    fn what_is_chosen_is_feasible_accurate_enough_worth_its_time_and_not_dominated(
        mut all in candidates(),
        rule in rules(),
        several: bool,
        seed: u64,
    ) {
        if !several {
            all.iter_mut().for_each(|candidate| candidate.losses.clear());
        }
        let choice = choose(&all, &rule);
        let identity = |candidates: &[Candidate], choice: &Result<Choice, Nothing>| {
            choice.as_ref().ok().map(|choice| (candidates[choice.ranked[0].at].number, choice.reasons.clone()))
        };
        // The order of the candidates has no influence.
        let mut mixed = all.clone();
        let count = mixed.len();
        (0..count).for_each(|at| mixed.swap(at, ((seed >> (at % 48)) as usize).wrapping_add(at * 7) % count));
        prop_assert_eq!(identity(&mixed, &choose(&mixed, &rule)), identity(&all, &choice));

        let good = |candidate: &Candidate| {
            let metric = candidate.metric.unwrap_or(f64::NAN);
            if rule.direction == Direction::Maximize { metric } else { -metric }
        };
        let on_front = |candidate: &Candidate| {
            let feasible = |other: &&Candidate| other.broken.is_empty();
            !all.iter().filter(feasible).any(|other| crate::pareto::dominates(&other.losses, &candidate.losses))
        };
        let counts = |candidate: &&Candidate| {
            let fast = candidate.latency.is_some_and(f64::is_finite) || rule.speed.is_none();
            candidate.broken.is_empty() && !good(candidate).is_nan() && fast && on_front(candidate)
        };
        let inside: Vec<&Candidate> = all.iter().filter(counts).collect();
        let Ok(choice) = choice else {
            prop_assert!(inside.is_empty());
            return Ok(());
        };
        let chosen = &all[choice.ranked[0].at];
        prop_assert!(inside.contains(&chosen));
        let best = inside.iter().map(|candidate| good(candidate)).fold(f64::NEG_INFINITY, f64::max);
        let Some(speed) = &rule.speed else {
            prop_assert_eq!(good(chosen), best);
            let equal = inside.iter().filter(|candidate| good(candidate) == best);
            prop_assert_eq!(equal.map(|candidate| candidate.number).min(), Some(chosen.number));
            return Ok(());
        };
        let latency = |candidate: &Candidate| candidate.latency.unwrap_or(f64::NAN);
        let dominates = |other: &&&Candidate| {
            let (a, b) = (good(other) - good(chosen), latency(chosen) - latency(other));
            a >= 0.0 && b >= 0.0 && a + b > 0.0
        };
        prop_assert!(!inside.iter().any(|other| dominates(&other)), "{:?} is dominated in {:?}", chosen, all);
        let unit = if speed.relative { best.abs() } else { 1.0 };
        let gap = speed.threshold.map_or(f64::INFINITY, |threshold| threshold * unit) + 1e-9;
        prop_assert!(best - good(chosen) <= gap);
        let enough = |other: &&&Candidate| best - good(other) <= gap - 2e-9;
        let mut faster = inside.iter().filter(enough).filter(|other| latency(other) < latency(chosen));
        if let Some(gain) = speed.min_gain {
            prop_assert!(faster.all(|other| good(chosen) - good(other) >= gain * unit - 1e-9));
        } else if speed.weights.is_none() && speed.threshold.is_some() {
            prop_assert_eq!(faster.count(), 0, "the fastest that is accurate enough");
        }
    }
}
