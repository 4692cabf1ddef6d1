//! The rules of the state machine, one by one and under random commands.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use quintet_proto::v1::{CommandSpec, JobSpec, Outputs, Resources, RetryPolicy, Timeouts, job_spec::Kind};

use super::*;
use crate::jobs::model::{heartbeat_ms, proto_duration, uid_for_request};

fn engine() -> Engine {
    Engine::new(Vec::new(), HashSet::new(), 1, 1, 7)
}

fn command(id: &str) -> Job {
    Job {
        uid: uid_for_request(id),
        spec: Some(JobSpec { kind: Some(Kind::Command(CommandSpec::default())) }),
        ..Job::default()
    }
}

fn create(engine: &mut Engine, id: &str, now: Millis) -> Job {
    engine.create(command(id), id.into(), false, now).unwrap()
}

fn claim(engine: &mut Engine, now: Millis) -> Job {
    engine.claim(ClaimFilter { worker: "w".into(), max: 1, ..ClaimFilter::default() }, now).unwrap().remove(0)
}

fn report(job: &Job) -> Report {
    Report { uid: job.uid.clone(), attempt: job.attempt, ..Report::default() }
}

fn failure(class: ErrorClass) -> Outcome {
    Outcome::Failed(job_error(ErrorReason::WorkerCrashed, "x", class))
}

#[test]
fn a_job_runs_to_success() {
    let mut engine = engine();
    let job = create(&mut engine, "a", 0);
    assert_eq!((job.state(), job.name.as_str()), (JobState::Queued, format!("jobs/{}", job.uid).as_str()));
    let job = claim(&mut engine, 5);
    assert_eq!((job.state(), job.attempt), (JobState::Running, 1));
    let mut beat = report(&job);
    beat.finalizing = true;
    beat.log = b"hello".to_vec();
    assert_eq!(engine.heartbeat(beat.clone(), 6), Ok((Directive::Continue, 6 + heartbeat_ms(&job))));
    // The same bytes again, with two more behind them.
    beat.log = b"hello!!".to_vec();
    engine.heartbeat(beat, 7).unwrap();
    let job = engine.finish(report(&job), Outcome::Succeeded(Outputs::default()), 9).unwrap();
    assert_eq!(job.state(), JobState::Succeeded);
    assert_eq!(engine.live().count(), 0);
    let effects = engine.take_effects();
    let revisions: Vec<i64> = effects.events.iter().map(|e| e.event.revision).collect();
    assert_eq!(revisions, [1, 2, 3, 4]);
    let logs: Vec<(i64, &[u8])> = effects.logs.iter().map(|l| (l.offset, &l.data[..])).collect();
    assert_eq!(logs, [(0, &b"hello"[..]), (5, b"!!")]);
    assert_eq!(engine.finish(report(&job), failure(ErrorClass::User), 10), Err(Rejection::NotLive(job.uid)));
}

#[test]
fn a_request_id_gives_the_same_job_and_no_other() {
    let mut engine = engine();
    let job = create(&mut engine, "a", 0);
    assert_eq!(engine.create(command("a"), "a".into(), false, 3), Ok(job.clone()));
    assert_eq!(engine.create(command("a"), "other".into(), false, 3), Err(Rejection::RequestReused(job.uid.clone())));
    claim(&mut engine, 1);
    engine.cancel(&job.uid, false, "", 2).unwrap();
    engine.finish(Report { attempt: 1, ..report(&job) }, Outcome::Stopped(Outputs::default()), 2).unwrap();
    assert_eq!(engine.create(command("a"), "a".into(), false, 3), Err(Rejection::Ended(job.uid)));
}

#[test]
fn a_live_job_of_the_same_content_is_attached_to() {
    let mut engine = engine();
    let first = engine.create(Job { content_hash: "h".into(), ..command("a") }, "a".into(), true, 0).unwrap();
    let second = engine.create(Job { content_hash: "h".into(), ..command("b") }, "b".into(), true, 0).unwrap();
    assert_eq!(second.uid, first.uid);
    let forced = engine.create(Job { content_hash: "h".into(), ..command("c") }, "c".into(), false, 0).unwrap();
    assert_ne!(forced.uid, first.uid);
}

#[test]
fn a_waiting_claim_is_answered_by_the_creating_commit() {
    let mut engine = engine();
    let filter = ClaimFilter { kinds: vec!["command".into()], ..ClaimFilter::default() };
    let other = ClaimFilter { kinds: vec!["train".into()], ..ClaimFilter::default() };
    let (train, waiter) = (engine.claim(other, 0).unwrap_err(), engine.claim(filter.clone(), 0).unwrap_err());
    create(&mut engine, "a", 0);
    let woken = engine.take_effects().woken;
    assert_eq!((woken.len(), woken[0].0, woken[0].1.len()), (1, waiter, 1));
    engine.stop_waiting(train);
    let stopped = engine.claim(filter, 0).unwrap_err();
    engine.stop_waiting(stopped);
    assert_eq!(create(&mut engine, "b", 0).state(), JobState::Queued);
}

#[test]
fn slots_limit_what_is_launched() {
    let mut engine = engine();
    let need = |cpus, gpus| Some(Resources { cpus, gpus, memory_bytes: 0 });
    engine.create(Job { resources: need(1, 3), ..command("big") }, String::new(), false, 0).unwrap();
    engine.create(Job { resources: need(1, 1), ..command("gpu") }, String::new(), false, 0).unwrap();
    // More CPUs than there are: it gets all of them.
    let small = engine.create(Job { resources: need(9, 0), ..command("small") }, String::new(), false, 0).unwrap();
    let filter = ClaimFilter {
        max: 9,
        launch: true,
        slots: Some(Slots { cpus: 2, gpus: 0, total_cpus: 2 }),
        ..ClaimFilter::default()
    };
    let launched = engine.claim(filter, 0).unwrap();
    assert_eq!(launched.iter().map(|j| &j.uid).collect::<Vec<_>>(), [&small.uid]);
    assert_eq!(launched[0].state(), JobState::Launching);
    let running = engine.claim_launched(&small.uid, 1, "w", 1).unwrap();
    assert_eq!(running.state(), JobState::Running);
    assert_eq!(engine.claim_launched(&small.uid, 1, "w", 1), Ok(running), "a repeated call is answered like the first");
    assert!(matches!(engine.claim_launched(&small.uid, 1, "thief", 1), Err(Rejection::StaleAttempt { .. })));
}

#[test]
fn failures_are_retried_by_class() {
    let mut engine = engine();
    let policy = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
    engine.create(Job { retry: Some(policy), ..command("a") }, String::new(), false, 0).unwrap();
    let mut now = 1;
    for _ in 0..3 {
        let job = claim(&mut engine, now);
        let job = engine.finish(report(&job), failure(ErrorClass::Preemption), now).unwrap();
        assert_eq!(job.state(), JobState::Queued, "pre-emption is free");
    }
    let job = claim(&mut engine, now);
    let waiting = engine.finish(report(&job), failure(ErrorClass::Infrastructure), now).unwrap();
    assert_eq!(waiting.state(), JobState::RetryWait);
    now = engine.next_timer().unwrap();
    engine.fire_timers(now);
    let job = claim(&mut engine, now);
    assert_eq!(job.attempt, 5);
    let failed = engine.finish(report(&job), failure(ErrorClass::Infrastructure), now).unwrap();
    assert_eq!((failed.state(), failed.attempt_errors.len()), (JobState::Failed, 4));
    create(&mut engine, "b", now);
    let job = claim(&mut engine, now);
    assert_eq!(engine.finish(report(&job), failure(ErrorClass::User), now).unwrap().state(), JobState::Failed);
}

#[test]
fn a_lost_attempt_is_unreachable_then_given_up_and_fenced() {
    let mut engine = engine();
    create(&mut engine, "a", 0);
    let first = claim(&mut engine, 0);
    let term = heartbeat_ms(&first);
    engine.fire_timers(term);
    assert!(engine.get(&first.uid).unwrap().unreachable_since.is_some());
    assert_eq!(engine.get(&first.uid).unwrap().state(), JobState::Running, "unreachable is no state and no failure");
    engine.heartbeat(report(&first), term + 1).unwrap();
    assert!(engine.get(&first.uid).unwrap().unreachable_since.is_none());
    engine.fire_timers(3 * term);
    engine.fire_timers(4 * term);
    assert_eq!(engine.get(&first.uid).unwrap().state(), JobState::RetryWait);
    let now = engine.next_timer().unwrap().max(4 * term);
    engine.fire_timers(now);
    let second = claim(&mut engine, now);
    assert_eq!(second.attempt, 2);
    assert!(matches!(engine.heartbeat(report(&first), now), Err(Rejection::StaleAttempt { current: 2, .. })));
    assert!(engine.finish(report(&first), Outcome::Succeeded(Outputs::default()), now).is_err());
    assert_eq!(engine.get(&first.uid).unwrap().state(), JobState::Running);
}

#[test]
fn cancelling_reaches_children_and_converges_without_the_worker() {
    let mut engine = engine();
    let parent = create(&mut engine, "p", 0);
    claim(&mut engine, 0);
    let child = |id: &str| Job { parent: parent.name.clone(), ..command(id) };
    engine.create(child("running"), String::new(), false, 0).unwrap();
    let running = claim(&mut engine, 0);
    let queued = engine.create(child("queued"), String::new(), false, 0).unwrap();
    assert_eq!(engine.cancel(&parent.uid, false, "enough", 1).unwrap().state(), JobState::Cancelling);
    assert!(engine.get(&queued.uid).is_none(), "a queued child ends at once");
    assert_eq!(engine.heartbeat(report(&running), 2).unwrap().0, Directive::Cancel);
    assert_eq!(engine.create(child("late"), String::new(), false, 2), Err(Rejection::ParentEnded(parent.name.clone())));
    engine.fire_timers(CANCEL_GRACE_MS + 10);
    assert_eq!(engine.live().count(), 0, "nobody obeyed, and still all have ended");
}

#[test]
fn no_child_outlives_a_job_that_fails() {
    let ends: [fn(&mut Engine, &Job); 2] = [
        |engine, job| drop(engine.finish(report(job), failure(ErrorClass::User), 1).unwrap()),
        // Its worker is gone, and so are its attempts.
        |engine, _| {
            engine.give_up(|job| job.parent.is_empty(), &job_error(ErrorReason::Internal, "x", ErrorClass::User), 1)
        },
    ];
    for end in ends {
        let mut engine = engine();
        let parent = create(&mut engine, "p", 0);
        let attempt = claim(&mut engine, 0);
        let child = |id: &str| Job { parent: parent.name.clone(), ..command(id) };
        engine.create(child("running"), String::new(), false, 0).unwrap();
        let running = claim(&mut engine, 0);
        let grandchild = Job { parent: running.name.clone(), ..command("grandchild") };
        engine.create(grandchild.clone(), String::new(), false, 0).unwrap();
        end(&mut engine, &attempt);
        assert!(engine.get(&parent.uid).is_none() && engine.get(&grandchild.uid).is_none());
        let told = engine.get(&running.uid).unwrap();
        assert_eq!(
            (told.state(), told.error.as_ref().unwrap().reason.as_str()),
            (JobState::Cancelling, "PARENT_CANCELLED")
        );
        assert_eq!(engine.heartbeat(report(&running), 2).unwrap().0, Directive::Cancel);
    }
}

#[test]
fn a_success_that_races_a_cancellation_stays_one() {
    let mut engine = engine();
    create(&mut engine, "a", 0);
    let job = claim(&mut engine, 0);
    engine.cancel(&job.uid, false, "", 1).unwrap();
    let job = engine.finish(report(&job), Outcome::Succeeded(Outputs::default()), 2).unwrap();
    assert_eq!((job.state(), job.error), (JobState::Succeeded, None));
}

#[test]
fn a_pruned_attempt_ends_as_cancelled_with_that_reason() {
    let mut engine = engine();
    create(&mut engine, "a", 0);
    let job = claim(&mut engine, 0);
    assert_eq!(engine.cancel(&job.uid, true, "hopeless", 1).unwrap().state(), JobState::Running);
    assert_eq!(engine.heartbeat(report(&job), 2).unwrap().0, Directive::Prune);
    let job = engine.finish(report(&job), Outcome::Stopped(Outputs::default()), 3).unwrap();
    assert_eq!((job.state(), job.error.unwrap().reason.as_str()), (JobState::Cancelled, "PRUNED"));
}

#[test]
fn deadlines_fail_the_job() {
    let mut engine = engine();
    let timeouts = Timeouts {
        queued_to_start: Some(proto_duration(50)),
        start_to_finish: Some(proto_duration(100)),
        ..Timeouts::default()
    };
    let late = engine.create(Job { timeouts: Some(timeouts), ..command("late") }, String::new(), false, 0).unwrap();
    engine.fire_timers(50);
    assert!(engine.get(&late.uid).is_none());
    engine.create(Job { timeouts: Some(timeouts), ..command("slow") }, String::new(), false, 60).unwrap();
    let job = claim(&mut engine, 70);
    engine.fire_timers(170);
    assert_eq!(engine.heartbeat(report(&job), 171).unwrap().0, Directive::Cancel);
    let job = engine.finish(report(&job), Outcome::Stopped(Outputs::default()), 172).unwrap();
    assert_eq!((job.state(), job.error.unwrap().reason.as_str()), (JobState::Failed, "RUN_TIMEOUT"));
}

#[derive(Clone, Debug)]
enum Step {
    Create(u8, Option<u8>),
    Claim(bool),
    Enter(u8),
    Beat(u8, i32),
    Finish(u8, i32, u8),
    Cancel(u8, bool),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..12u8, proptest::option::of(0..12u8)).prop_map(|(id, parent)| Step::Create(id, parent)),
        any::<bool>().prop_map(Step::Claim),
        (0..12u8).prop_map(Step::Enter),
        (0..12u8, 0..4i32).prop_map(|(id, attempt)| Step::Beat(id, attempt)),
        (0..12u8, 0..4i32, 0..5u8).prop_map(|(id, attempt, how)| Step::Finish(id, attempt, how)),
        (0..12u8, any::<bool>()).prop_map(|(id, prune)| Step::Cancel(id, prune)),
        (1..50_000u16).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens: revisions have no gap, terminal states never change, attempts only grow, each attempt has one lease,
    /// a stale attempt changes nothing, and all jobs end once everybody is gone.
    #[test]
    fn invariants_hold(steps in proptest::collection::vec(step(), 1..120)) {
        let mut engine = engine();
        let mut now = 0;
        let mut revision = 0;
        let mut last: HashMap<String, (JobState, i32)> = HashMap::new();
        let uid = |id: u8| uid_for_request(&id.to_string());
        for step in steps {
            now += 1;
            match step {
                Step::Create(id, parent) => {
                    let parent = parent.filter(|p| *p != id).map(|p| job_name(&uid(p))).unwrap_or_default();
                    let _ = engine.create(Job { parent, ..command(&id.to_string()) }, String::new(), false, now);
                }
                Step::Claim(launch) => {
                    if let Err(waiter) = engine.claim(ClaimFilter { launch, worker: "w".into(), ..ClaimFilter::default() }, now) {
                        engine.stop_waiting(waiter);
                    }
                }
                Step::Enter(id) => {
                    let attempt = engine.get(&uid(id)).map_or(0, |job| job.attempt);
                    let _ = engine.claim_launched(&uid(id), attempt, "w", now);
                }
                Step::Beat(id, attempt) => {
                    let held = engine.get(&uid(id)).is_some_and(|job| job.attempt == attempt && is_leased(job.state()));
                    let beat = Report { uid: uid(id), attempt, finalizing: attempt == 2, ..Report::default() };
                    prop_assert_eq!(engine.heartbeat(beat, now).is_ok(), held);
                }
                Step::Finish(id, attempt, how) => {
                    let before = engine.get(&uid(id)).cloned();
                    let outcome = match how {
                        0 => Outcome::Succeeded(Outputs::default()),
                        1 => Outcome::Stopped(Outputs::default()),
                        2 => failure(ErrorClass::User),
                        3 => failure(ErrorClass::Infrastructure),
                        _ => failure(ErrorClass::Preemption),
                    };
                    let done = engine.finish(Report { uid: uid(id), attempt, ..Report::default() }, outcome, now);
                    if done.is_err() {
                        prop_assert_eq!(engine.get(&uid(id)), before.as_ref());
                    }
                }
                Step::Cancel(id, prune) => {
                    let _ = engine.cancel(&uid(id), prune, "", now);
                }
                Step::Wait(ms) => {
                    now += i64::from(ms);
                    engine.fire_timers(now);
                }
            }
            for stored in engine.take_effects().events {
                prop_assert_eq!(stored.event.revision, revision + 1);
                revision += 1;
                let Some(Event::Transition(job)) = stored.event.event else { continue };
                let before = last.insert(job.uid.clone(), (job.state(), job.attempt));
                if let Some((state, attempt)) = before {
                    prop_assert!(!is_terminal(state), "{state:?} changed to {:?}", job.state());
                    prop_assert!(job.attempt == attempt || (job.attempt == attempt + 1 && state == JobState::Queued));
                }
            }
        }
        let uids: Vec<String> = engine.live().map(|job| job.uid.clone()).collect();
        for uid in uids {
            let _ = engine.cancel(&uid, false, "", now);
        }
        engine.fire_timers(now + 10 * CANCEL_GRACE_MS);
        prop_assert_eq!(engine.live().count(), 0);
        prop_assert!(engine.next_timer().is_none());
    }
}

#[test]
fn what_a_failed_attempt_leaves_is_kept_when_it_was_the_last() {
    let left = || Some(Outputs { metrics: [("f1".to_owned(), 0.5)].into(), ..Outputs::default() });
    let fail = |engine: &mut Engine, job: &Job, class| {
        engine.finish(Report { left: left(), ..report(job) }, failure(class), 9).unwrap()
    };
    let mut engine = engine();
    create(&mut engine, "a", 0);
    let job = claim(&mut engine, 1);
    let failed = fail(&mut engine, &job, ErrorClass::User);
    assert_eq!((failed.state(), failed.outputs), (JobState::Failed, left()));
    create(&mut engine, "b", 10);
    let job = claim(&mut engine, 11);
    let waiting = fail(&mut engine, &job, ErrorClass::Infrastructure);
    assert_eq!((waiting.state(), waiting.outputs), (JobState::RetryWait, None));
}
