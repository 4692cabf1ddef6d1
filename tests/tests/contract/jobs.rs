//! Jobs as their submitters see them: made once, watched, listed, cancelled.

use std::collections::HashSet;

use futures::future::join_all;
use quintet_proto::v1::{
    CreateJobRequest, DeleteJobRequest, Directive, GetJobRequest, HeartbeatRequest, Job, JobState, ListJobsRequest,
    Metric, Stopped, StreamLogsRequest, SubmitAndWaitRequest, WaitJobRequest, WatchJobRequest,
    finish_job_request::Outcome,
};
use runtime_core::jobs::model::proto_duration;
use tonic::Code;

use crate::house::{job, on_both, states, succeeded};

#[tokio::test(flavor = "multi_thread")]
async fn creating_is_idempotent_by_request_and_reuses_equal_work() {
    on_both(async |house| {
        let mut client = house.jobs.clone();
        let request = |job: Job, id: &str| CreateJobRequest {
            job: Some(job),
            request_id: id.into(),
            ..CreateJobRequest::default()
        };
        // The same request at once from many sides makes one job.
        let made = join_all((0..20).map(|_| {
            let (mut client, request) = (house.jobs.clone(), request(job("a"), "same"));
            async move { client.create_job(request).await.unwrap().into_inner() }
        }))
        .await;
        assert!(made.iter().all(|one| one.name == made[0].name));
        let other = client.create_job(request(job("b"), "same")).await.unwrap_err();
        assert_eq!(other.code(), Code::AlreadyExists, "{other:?}");
        // Equal work attaches to the job that is under way, and is answered from it once it has succeeded.
        let attached = client.create_job(request(job("a"), "attached")).await.unwrap().into_inner();
        assert_eq!(attached.name, made[0].name);
        let claimed = house.claim_one().await;
        assert_eq!((claimed.name.as_str(), claimed.attempt), (made[0].name.as_str(), 1));
        let finished = house.finish(&claimed, succeeded()).await.unwrap();
        assert_eq!(finished.state(), JobState::Succeeded);
        let reused = client.create_job(request(job("a"), "reused")).await.unwrap().into_inner();
        assert_eq!((reused.state(), reused.reused_from.as_str()), (JobState::Succeeded, made[0].name.as_str()));
        assert_eq!(reused.outputs, finished.outputs);
        let forced = CreateJobRequest { force: true, ..request(job("a"), "forced") };
        let forced = client.create_job(forced).await.unwrap().into_inner();
        assert_eq!((forced.state(), forced.reused_from.as_str()), (JobState::Queued, ""));
        // Also after its end: the request answers, another body is refused.
        assert_eq!(client.create_job(request(job("a"), "same")).await.unwrap().into_inner().name, made[0].name);
        let other = client.create_job(request(job("b"), "same")).await.unwrap_err();
        assert_eq!(other.code(), Code::AlreadyExists);
        let dry = CreateJobRequest { validate_only: true, ..request(job("dry"), "dry") };
        let dry = client.create_job(dry).await.unwrap().into_inner();
        assert_eq!(client.get_job(GetJobRequest { name: dry.name }).await.unwrap_err().code(), Code::NotFound);
        let wrong = client.create_job(request(Job::default(), "wrong")).await.unwrap_err();
        assert_eq!(wrong.code(), Code::InvalidArgument);
        // What is live cannot be deleted; what has ended can.
        let delete = |name: &str| DeleteJobRequest { name: name.into() };
        let refused = client.delete_job(delete(&forced.name)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        house.cancel(&forced, false).await;
        assert_eq!(house.get(&forced.name).await.state(), JobState::Cancelled);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_from_any_revision_without_a_gap_under_concurrent_writers() {
    on_both(async |house| {
        let watched = house.create(job("watched")).await;
        let live = tokio::spawn({
            let (mut client, name) = (house.jobs.clone(), watched.name.clone());
            async move {
                let mut stream =
                    client.watch_job(WatchJobRequest { name, after_revision: 0 }).await.unwrap().into_inner();
                let mut events = Vec::new();
                while let Some(event) = stream.message().await.unwrap() {
                    events.push(event);
                }
                events
            }
        });
        let claimed = house.claim_one().await;
        // Others write all the while.
        let noise = join_all((0..8).map(async |writer| {
            for number in 0..25 {
                let other = house.create(job(&format!("noise-{writer}-{number}"))).await;
                house.cancel(&other, false).await;
            }
        }));
        let reports = async {
            for step in 0..100 {
                let metric = Metric { key: "loss".into(), value: f64::from(step), step: step.into(), time: None };
                let request = HeartbeatRequest {
                    job: claimed.name.clone(),
                    attempt: 1,
                    metrics: vec![metric],
                    ..HeartbeatRequest::default()
                };
                house.workers.clone().heartbeat(request).await.unwrap();
            }
        };
        futures::join!(noise, reports);
        house.finish(&claimed, succeeded()).await.unwrap();
        let events = live.await.unwrap();
        assert_eq!(events.len(), 103);
        assert_eq!(states(&events), [JobState::Queued, JobState::Running, JobState::Succeeded]);
        assert!(events.is_sorted_by(|a, b| a.revision < b.revision));
        for cut in [0, 1, 50, 101, 102] {
            let after = events[cut].revision;
            assert_eq!(house.watch(&watched.name, after).await, events[cut + 1..], "after event {cut}");
        }
        assert_eq!(house.watch(&watched.name, 0).await, events);
        let stream = SubmitAndWaitRequest {
            create: Some(CreateJobRequest {
                job: Some(job("watched")),
                request_id: "watched".into(),
                ..CreateJobRequest::default()
            }),
            after_revision: events[100].revision,
        };
        let mut stream = house.jobs.clone().submit_and_wait(stream).await.unwrap().into_inner();
        assert_eq!(stream.message().await.unwrap().as_ref(), Some(&events[101]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_resume_by_offset_and_repeated_pieces_are_stored_once() {
    on_both(async |house| {
        house.create(job("logs")).await;
        let claimed = house.claim_one().await;
        let name = claimed.name.clone();
        let read = async |offset: i64, follow: bool| {
            let request = StreamLogsRequest { name: name.clone(), offset, follow, attempt: 0 };
            let mut stream = house.jobs.clone().stream_logs(request).await.unwrap().into_inner();
            let (mut text, mut at) = (Vec::new(), None);
            while let Some(chunk) = stream.message().await.unwrap() {
                assert!(at.is_none_or(|at| at == chunk.offset), "a gap before {}", chunk.offset);
                at = Some(chunk.offset + chunk.data.len() as i64);
                text.extend(chunk.data);
            }
            String::from_utf8(text).unwrap()
        };
        house.beat(&claimed, b"one\n", 0).await.unwrap();
        // The answer was lost, so the worker sends it again with what came since.
        house.beat(&claimed, b"one\ntwo\n", 0).await.unwrap();
        house.beat(&claimed, b"two\nthree\n", 4).await.unwrap();
        assert_eq!(read(0, false).await, "one\ntwo\nthree\n");
        assert_eq!(read(5, false).await, "wo\nthree\n");
        assert_eq!(read(-6, false).await, "three\n");
        assert_eq!(read(14, false).await, "");
        let following = read(4, true);
        let ending = async {
            house.beat(&claimed, b"four\n", 14).await.unwrap();
            house.finish(&claimed, succeeded()).await.unwrap();
        };
        assert_eq!(futures::join!(following, ending).0, "two\nthree\nfour\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_every_job_once_while_others_are_made() {
    on_both(async |house| {
        let mut made = HashSet::new();
        for number in 0..25 {
            made.insert(house.create(job(&format!("page-{number}"))).await.name);
        }
        let (mut seen, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let request = ListJobsRequest { page_size: 10, page_token: token, ..ListJobsRequest::default() };
            let page = house.jobs.clone().list_jobs(request).await.unwrap().into_inner();
            assert!(page.jobs.len() <= 10);
            seen.extend(page.jobs.into_iter().map(|job| job.name));
            token = page.next_page_token;
            pages += 1;
            if token.is_empty() {
                break;
            }
            house.create(job(&format!("between-{pages}"))).await;
        }
        assert_eq!((seen.len(), pages), (25, 3));
        assert_eq!(seen.into_iter().collect::<HashSet<_>>(), made);
        for wrong in [
            ListJobsRequest { page_size: -1, ..ListJobsRequest::default() },
            ListJobsRequest { page_token: "?".into(), ..ListJobsRequest::default() },
            ListJobsRequest { parent: "x".into(), ..ListJobsRequest::default() },
        ] {
            let status = house.jobs.clone().list_jobs(wrong).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_answers_at_the_end_or_at_the_limit() {
    on_both(async |house| {
        let made = house.create(job("wait")).await;
        let wait = async |ms: i64| {
            let request = WaitJobRequest { name: made.name.clone(), timeout: Some(proto_duration(ms)) };
            house.jobs.clone().wait_job(request).await.unwrap().into_inner()
        };
        assert_eq!(wait(1).await.state(), JobState::Queued);
        let ending = async {
            let claimed = house.claim_one().await;
            house.finish(&claimed, succeeded()).await.unwrap();
        };
        let (ended, ()) = futures::join!(wait(60_000), ending);
        assert_eq!(ended.state(), JobState::Succeeded);
        assert_eq!(wait(60_000).await.state(), JobState::Succeeded);
        // A claim that waits is answered by the job that comes.
        let (lease, made) = futures::join!(house.claim_one(), house.create(job("later")));
        assert_eq!(lease.name, made.name);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_reaches_children_and_a_success_that_races_it_stays() {
    on_both(async |house| {
        let parent = house.create(job("parent")).await;
        let running_parent = house.claim_one().await;
        let child = |name: &str| Job { parent: parent.name.clone(), ..job(name) };
        let first = house.create(child("first")).await;
        let second = house.create(child("second")).await;
        let third = house.create(child("third")).await;
        let (first, second) = (house.claim_next(&first).await, house.claim_next(&second).await);
        // To prune asks one attempt alone.
        house.cancel(&second, true).await;
        assert_eq!(house.beat(&second, b"", 0).await.unwrap(), Directive::Prune);
        let pruned = house.finish(&second, Outcome::Stopped(Stopped::default())).await.unwrap();
        assert_eq!((pruned.state(), pruned.error.unwrap().reason.as_str()), (JobState::Cancelled, "PRUNED"));
        let cancelled = house.cancel(&parent, false).await;
        assert_eq!(cancelled.state(), JobState::Cancelling);
        assert_eq!(house.cancel(&parent, false).await.revision, cancelled.revision, "asking again changes nothing");
        assert_eq!(house.get(&third.name).await.state(), JobState::Cancelled);
        assert_eq!(house.beat(&first, b"", 0).await.unwrap(), Directive::Cancel);
        let won = house.finish(&first, succeeded()).await.unwrap();
        assert_eq!(won.state(), JobState::Succeeded);
        let late = CreateJobRequest { job: Some(child("late")), request_id: "late".into(), ..Default::default() };
        assert_eq!(house.jobs.clone().create_job(late).await.unwrap_err().code(), Code::FailedPrecondition);
        let ended = house.finish(&running_parent, Outcome::Stopped(Stopped::default())).await.unwrap();
        assert_eq!((ended.state(), ended.error.unwrap().reason.as_str()), (JobState::Cancelled, "CANCELLED"));
        assert_eq!(house.cancel(&parent, false).await.state(), JobState::Cancelled, "a terminal state stays");
        let children = ListJobsRequest { parent: parent.name.clone(), ..ListJobsRequest::default() };
        assert_eq!(house.jobs.clone().list_jobs(children).await.unwrap().into_inner().jobs.len(), 3);
    })
    .await;
}
