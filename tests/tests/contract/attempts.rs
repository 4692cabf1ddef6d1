//! Attempts as workers see them: claims, leases and failures.

use std::{sync::Arc, time::Duration};

use quintet_proto::v1::{Job, JobError, JobState, Outputs, RetryPolicy, Timeouts, finish_job_request::Outcome};
use quintet_tests::history::History;
use runtime_core::jobs::{
    Jobs, SystemClock,
    engine::{self, ClaimFilter, Report},
    model::{proto_duration, uid_for_request},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::house::{job, on_both, succeeded};

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_lease_ran_out_is_fenced_off_and_the_job_tried_again() {
    on_both(async |house| {
        let timeouts = Timeouts { heartbeat: Some(proto_duration(150)), ..Timeouts::default() };
        let short = RetryPolicy { max_attempts: 2, initial_backoff: Some(proto_duration(1)), max_backoff: None };
        let made = house.create(Job { timeouts: Some(timeouts), retry: Some(short), ..job("lease") }).await;
        let stale = house.claim_one().await;
        // It does not report; the store calls it unreachable, then gives it up.
        house.until(&made.name, |job| job.unreachable_since.is_some()).await;
        let current = house.claim_one().await;
        assert_eq!((current.name.as_str(), current.attempt), (made.name.as_str(), 2));
        assert_eq!(current.attempt_errors[0].reason, "HEARTBEAT_TIMEOUT");
        let refused = house.finish(&stale, succeeded()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Aborted, "{refused:?}");
        assert_eq!(house.beat(&stale, b"late", 0).await.unwrap_err().code(), Code::Aborted);
        let ended = house.finish(&current, succeeded()).await.unwrap();
        assert_eq!((ended.state(), ended.attempt), (JobState::Succeeded, 2));
        // The answer to the first call was lost: the same outcome again is answered the same.
        assert_eq!(house.finish(&current, succeeded()).await.unwrap(), ended);
        assert_eq!(house.finish(&stale, succeeded()).await.unwrap_err().code(), Code::Aborted);
        assert_eq!(house.get(&made.name).await, ended);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_repeated_by_their_class() {
    on_both(async |house| {
        let failed = |class: quintet_proto::v1::ErrorClass| {
            Outcome::Failed(JobError { reason: "TEST".into(), class: class.into(), ..JobError::default() })
        };
        use quintet_proto::v1::ErrorClass::{Infrastructure, Preemption, User};
        let fast = RetryPolicy { max_attempts: 2, initial_backoff: Some(proto_duration(1)), max_backoff: None };
        let retried = house.create(Job { retry: Some(fast), ..job("retried") }).await;
        for (class, expected) in
            [(Preemption, JobState::Queued), (Infrastructure, JobState::RetryWait), (Infrastructure, JobState::Failed)]
        {
            let claimed = house.claim_one().await;
            assert_eq!(house.finish(&claimed, failed(class)).await.unwrap().state(), expected);
        }
        let ended = house.get(&retried.name).await;
        assert_eq!((ended.attempt, ended.attempt_errors.len()), (3, 2));
        house.create(job("user")).await;
        let claimed = house.claim_one().await;
        assert_eq!(house.finish(&claimed, failed(User)).await.unwrap().state(), JobState::Failed);
        let limits = Timeouts { queued_to_start: Some(proto_duration(20)), ..Timeouts::default() };
        let late = house.create(Job { timeouts: Some(limits), ..job("late") }).await;
        let late = house.until(&late.name, |job| job.end_time.is_some()).await;
        assert_eq!((late.state(), late.error.unwrap().reason.as_str()), (JobState::Failed, "QUEUE_TIMEOUT"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_without_jobs_ends_at_its_limit_and_one_whose_caller_left_takes_nothing() {
    on_both(async |house| {
        assert!(house.claim(1, 5).await.is_empty());
        let left = tokio::time::timeout(Duration::from_millis(50), house.claim(1, 60_000)).await;
        assert!(left.is_err(), "there was nothing to claim");
        let made = house.create(job("kept")).await;
        let claimed = house.claim_one().await;
        assert_eq!(claimed.name, made.name);
    })
    .await;
}

/// Drops claims at every moment of their lives: before, during and after the commit that answers them.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_dropped_gives_back_what_it_was_given() {
    const JOBS: usize = 300;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("jobs.db").display());
    let jobs = Jobs::open(&url, Arc::new(SystemClock), CancellationToken::new()).await.unwrap();
    let filter = ClaimFilter { worker: "w".into(), max: 1, ..ClaimFilter::default() };
    let finish = async |claimed: Vec<Job>| {
        for job in &claimed {
            let report = Report { uid: job.uid.clone(), attempt: job.attempt, ..Report::default() };
            let outcome = engine::Outcome::Succeeded(Outputs::default());
            jobs.run(move |engine, now| engine.finish(report, outcome, now)).await.unwrap().unwrap();
        }
        claimed.len()
    };
    let (mut finished, mut dropped) = (0, 0);
    for number in 0..JOBS {
        let made = Job { uid: uid_for_request(&number.to_string()), ..job("dropped") };
        jobs.run(move |engine, now| engine.create(made, String::new(), false, now)).await.unwrap().unwrap();
        let pause = Duration::from_micros(5 * (number as u64 % 100));
        tokio::select! {
            claimed = jobs.claim(filter.clone(), Duration::from_secs(10)) => finished += finish(claimed.unwrap()).await,
            () = async { std::thread::sleep(pause); tokio::task::yield_now().await } => dropped += 1,
        }
    }
    assert!(dropped > 0, "no claim was dropped");
    while finished < JOBS {
        let claimed = jobs.claim(filter.clone(), Duration::from_secs(20)).await.unwrap();
        assert!(!claimed.is_empty(), "{} jobs are held by nobody", JOBS - finished);
        finished += finish(claimed).await;
    }
    let history = History::check(&url).await.unwrap();
    history.all_ended().unwrap();
}
