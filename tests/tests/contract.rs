//! The contract of `JobService` and `WorkerService` over gRPC, the same on SQLite and on PostgreSQL.
// Helpers of tests fail by panicking, like the tests; each test has a stack of its own for its future.
#![allow(clippy::unwrap_used, clippy::large_futures)]

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use futures::future::join_all;
use prost::Message as _;
use quintet_proto::v1::{
    CancelJobRequest, ClaimJobsRequest, CommandSpec, CreateJobRequest, DeleteJobRequest, Directive, FinishJobRequest,
    GetJobRequest, HeartbeatRequest, Job, JobError, JobEvent, JobSpec, JobState, Lease, ListJobsRequest, Metric,
    Outputs, RetryPolicy, Stopped, StreamLogsRequest, SubmitAndWaitRequest, Timeouts, WaitJobRequest, WatchJobRequest,
    finish_job_request::Outcome, job_event::Event, job_service_client::JobServiceClient, job_spec::Kind,
    worker_service_client::WorkerServiceClient,
};
use quintet_tests::{
    history::History,
    load::{self, Load},
};
use runtime_core::{
    client::{Connection, connect},
    config::{Config, Database, SecretUrl, Worker},
    db::{self, Db, testing::PostgresServer},
    host::Host,
    jobs::{
        Jobs, SystemClock,
        engine::{self, ClaimFilter, Report},
        model::{proto_duration, uid_for_request},
        store,
    },
    server::ServerHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// A server of jobs alone, in this process.
struct House {
    handle: ServerHandle,
    jobs: JobServiceClient<Connection>,
    workers: WorkerServiceClient<Connection>,
    store: String,
}

impl House {
    async fn open(folder: &Path, database: Option<&str>) -> Self {
        let config = Config {
            data_dir: folder.into(),
            listen: "127.0.0.1:0".into(),
            services: Vec::new(),
            database: Database { url: database.map(SecretUrl::new) },
            worker: Worker { enabled: false, ..Worker::default() },
            ..Config::default()
        };
        let host = Host::open(config).await.unwrap();
        let store = db::with_schema(&host.config().database_url("jobs").unwrap(), "jobs");
        let handle = host.start().await.unwrap();
        let connection = connect(&handle.url(), None).unwrap();
        let (jobs, workers) = (JobServiceClient::new(connection.clone()), WorkerServiceClient::new(connection));
        Self { handle, jobs, workers, store }
    }

    async fn create(&self, job: Job) -> Job {
        let request_id = job.display_name.clone();
        let request = CreateJobRequest { job: Some(job), request_id, ..CreateJobRequest::default() };
        self.jobs.clone().create_job(request).await.unwrap().into_inner()
    }

    async fn get(&self, name: &str) -> Job {
        self.jobs.clone().get_job(GetJobRequest { name: name.into() }).await.unwrap().into_inner()
    }

    async fn claim(&self, max_jobs: i32, wait_ms: i64) -> Vec<Lease> {
        let wait = Some(proto_duration(wait_ms));
        let request = ClaimJobsRequest { worker: "w".into(), max_jobs, wait, ..ClaimJobsRequest::default() };
        self.workers.clone().claim_jobs(request).await.unwrap().into_inner().leases
    }

    async fn claim_one(&self) -> Job {
        let lease = self.claim(1, 10_000).await.pop().expect("a job is there or comes");
        lease.job.unwrap()
    }

    async fn finish(&self, job: &Job, outcome: Outcome) -> Result<Job, tonic::Status> {
        let outcome = Some(outcome);
        let request =
            FinishJobRequest { job: job.name.clone(), attempt: job.attempt, outcome, ..FinishJobRequest::default() };
        Ok(self.workers.clone().finish_job(request).await?.into_inner().job.unwrap())
    }

    async fn beat(&self, job: &Job, log: &[u8], log_offset: i64) -> Result<Directive, tonic::Status> {
        let request = HeartbeatRequest {
            job: job.name.clone(),
            attempt: job.attempt,
            log: log.into(),
            log_offset,
            ..HeartbeatRequest::default()
        };
        Ok(self.workers.clone().heartbeat(request).await?.into_inner().directive())
    }

    async fn cancel(&self, job: &Job, prune: bool) -> Job {
        let request = CancelJobRequest { name: job.name.clone(), prune, reason: "test".into() };
        self.jobs.clone().cancel_job(request).await.unwrap().into_inner()
    }

    /// All events after a revision, up to the terminal one.
    async fn watch(&self, name: &str, after_revision: i64) -> Vec<JobEvent> {
        let request = WatchJobRequest { name: name.into(), after_revision };
        let mut stream = self.jobs.clone().watch_job(request).await.unwrap().into_inner();
        let mut events = Vec::new();
        while let Some(event) = stream.message().await.unwrap() {
            events.push(event);
        }
        events
    }

    /// Waits for a transition that is as asked.
    async fn until(&self, name: &str, reached: impl Fn(&Job) -> bool) -> Job {
        let request = WatchJobRequest { name: name.into(), after_revision: 0 };
        let mut stream = self.jobs.clone().watch_job(request).await.unwrap().into_inner();
        while let Some(event) = stream.message().await.unwrap() {
            if let Some(Event::Transition(job)) = event.event
                && reached(&job)
            {
                return job;
            }
        }
        panic!("{name} ended otherwise: {:?}", self.get(name).await)
    }
}

fn job(name: &str) -> Job {
    let command = CommandSpec { command: format!("echo {name}"), ..CommandSpec::default() };
    let spec = Some(JobSpec { kind: Some(Kind::Command(command)) });
    Job { display_name: name.into(), spec, ..Job::default() }
}

fn succeeded() -> Outcome {
    Outcome::Succeeded(Outputs { metrics: [("loss".to_owned(), 0.5)].into(), ..Outputs::default() })
}

fn states(events: &[JobEvent]) -> Vec<JobState> {
    let state = |event: &JobEvent| match &event.event {
        Some(Event::Transition(job)) => Some(job.state()),
        _ => None,
    };
    events.iter().filter_map(state).collect()
}

/// Runs a suite on a fresh store of each kind and checks the history that it leaves.
async fn on_both(suite: impl AsyncFn(&House)) {
    let server = tokio::task::block_in_place(PostgresServer::start).unwrap();
    for database in [None, Some(server.database().unwrap())] {
        let folder = tempfile::tempdir().unwrap();
        let house = House::open(folder.path(), database.as_deref()).await;
        suite(&house).await;
        let store = house.store.clone();
        house.handle.shutdown().await.unwrap();
        History::check(&store).await.unwrap();
    }
}

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
        let (first, second) = (claimed(house, &first).await, claimed(house, &second).await);
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

async fn claimed(house: &House, job: &Job) -> Job {
    let claimed = house.claim_one().await;
    assert_eq!(claimed.name, job.name, "the oldest comes first");
    claimed
}

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
async fn eight_clients_and_eight_workers_lose_and_double_nothing() {
    let server = tokio::task::block_in_place(PostgresServer::start).unwrap();
    for (database, load) in [
        (None, Load { jobs: 400, claim: 1, pace: None }),
        (None, Load { jobs: 300, claim: 16, pace: Some(600.0) }),
        (Some(server.database().unwrap()), Load { jobs: 400, claim: 16, pace: None }),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let house = House::open(folder.path(), database.as_deref()).await;
        let outcomes = load::run(&house.handle.url(), load).await.unwrap();
        assert_eq!(outcomes.starts.len(), load.jobs);
        house.handle.shutdown().await.unwrap();
        load::check_store(&house.store, load.jobs).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_again_goes_on_where_it_was() {
    let server = tokio::task::block_in_place(PostgresServer::start).unwrap();
    for database in [None, Some(server.database().unwrap())] {
        let folder = tempfile::tempdir().unwrap();
        let house = House::open(folder.path(), database.as_deref()).await;
        let queued = house.create(job("queued")).await;
        let running = house.claim_one().await;
        let waiting = house.create(job("waiting")).await;
        assert_eq!(running.name, queued.name);
        house.beat(&running, b"before", 0).await.unwrap();
        house.handle.shutdown().await.unwrap();

        let house = House::open(folder.path(), database.as_deref()).await;
        // The lease of a worker that is elsewhere goes on, and so does its log.
        house.beat(&running, b" and after", 6).await.unwrap();
        assert_eq!(house.finish(&running, succeeded()).await.unwrap().state(), JobState::Succeeded);
        assert_eq!(house.claim_one().await.name, waiting.name);
        let events = house.watch(&queued.name, queued.revision).await;
        assert_eq!(states(&events), [JobState::Running, JobState::Succeeded]);
        let request = StreamLogsRequest { name: queued.name, ..StreamLogsRequest::default() };
        let mut stream = house.jobs.clone().stream_logs(request).await.unwrap().into_inner();
        let mut text = Vec::new();
        while let Some(chunk) = stream.message().await.unwrap() {
            text.extend(chunk.data);
        }
        assert_eq!(String::from_utf8(text).unwrap(), "before and after");
        house.handle.shutdown().await.unwrap();
        History::check(&house.store).await.unwrap();
    }
}

/// A store with one job that was created, claimed and finished, and a handle on its database.
async fn finished_store(folder: &Path) -> (String, Db) {
    let house = House::open(folder, None).await;
    house.create(job("checked")).await;
    let claimed = house.claim_one().await;
    house.finish(&claimed, succeeded()).await.unwrap();
    house.handle.shutdown().await.unwrap();
    History::check(&house.store).await.unwrap();
    let db = Db::open(&house.store, store::MIGRATIONS).unwrap();
    (house.store, db)
}

/// The checker itself: a history that cannot have happened is found.
#[tokio::test(flavor = "multi_thread")]
async fn the_checker_of_histories_finds_what_cannot_be() {
    for (damage, told) in [
        ("DELETE FROM events WHERE revision = 2", "revision 3 follows 1"),
        ("UPDATE jobs SET state = 6", "the row says state 6"),
        ("DELETE FROM jobs", "has no row"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (url, db) = finished_store(folder.path()).await;
        db.write(move |tx| tx.execute(damage, &[])).await.unwrap_or_else(|e: db::Error| panic!("{e}"));
        let error = format!("{:#}", History::check(&url).await.unwrap_err());
        assert!(error.contains(told), "{damage}: {error}");
    }
    type Change = fn(&mut Job);
    let changes: [(i64, Change, &str); 4] = [
        (2, |job| job.set_state(JobState::Succeeded), "SUCCEEDED after QUEUED"),
        (2, |job| job.set_state(JobState::Finalizing), "FINALIZING after QUEUED"),
        (3, |job| job.attempt = 2, "attempt 2 where 1 was due"),
        (3, |job| job.revision = 2, "the job says revision 2"),
    ];
    for (revision, change, told) in changes {
        let folder = tempfile::tempdir().unwrap();
        let (url, db) = finished_store(folder.path()).await;
        let mut event = store::events(&db, None, revision - 1, 1).await.unwrap().remove(0);
        if let Some(Event::Transition(job)) = &mut event.event {
            change(job);
        }
        let body = event.encode_to_vec();
        let changed = db.write(move |tx| {
            tx.execute("UPDATE events SET body = $1 WHERE revision = $2", &[body.into(), revision.into()])
        });
        changed.await.unwrap_or_else(|e: db::Error| panic!("{e}"));
        let error = format!("{:#}", History::check(&url).await.unwrap_err());
        assert!(error.contains(told), "{told}: {error}");
    }
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
