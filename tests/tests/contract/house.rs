//! A server of jobs with its clients, on either database.

use std::path::Path;

use quintet_proto::v1::{
    CancelJobRequest, ClaimJobsRequest, CommandSpec, CreateJobRequest, Directive, FinishJobRequest, GetJobRequest,
    HeartbeatRequest, Job, JobEvent, JobSpec, JobState, Lease, Outputs, WatchJobRequest, finish_job_request::Outcome,
    job_event::Event, job_service_client::JobServiceClient, job_spec::Kind, worker_service_client::WorkerServiceClient,
};
use quintet_tests::history::History;
use runtime_core::{
    client::{Connection, connect},
    config::{Config, Database, SecretUrl, Worker},
    db::{self, testing::PostgresServer},
    host::Host,
    jobs::model::proto_duration,
    server::ServerHandle,
};

/// A server of jobs alone, in this process.
pub(crate) struct House {
    pub(crate) handle: ServerHandle,
    pub(crate) jobs: JobServiceClient<Connection>,
    pub(crate) workers: WorkerServiceClient<Connection>,
    pub(crate) store: String,
}

impl House {
    pub(crate) async fn open(folder: &Path, database: Option<&str>) -> Self {
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

    pub(crate) async fn create(&self, job: Job) -> Job {
        let request_id = job.display_name.clone();
        let request = CreateJobRequest { job: Some(job), request_id, ..CreateJobRequest::default() };
        self.jobs.clone().create_job(request).await.unwrap().into_inner()
    }

    pub(crate) async fn get(&self, name: &str) -> Job {
        self.jobs.clone().get_job(GetJobRequest { name: name.into() }).await.unwrap().into_inner()
    }

    pub(crate) async fn claim(&self, max_jobs: i32, wait_ms: i64) -> Vec<Lease> {
        let wait = Some(proto_duration(wait_ms));
        let request = ClaimJobsRequest { worker: "w".into(), max_jobs, wait, ..ClaimJobsRequest::default() };
        self.workers.clone().claim_jobs(request).await.unwrap().into_inner().leases
    }

    pub(crate) async fn claim_one(&self) -> Job {
        let lease = self.claim(1, 10_000).await.pop().expect("a job is there or comes");
        lease.job.unwrap()
    }

    pub(crate) async fn claim_next(&self, expected: &Job) -> Job {
        let claimed = self.claim_one().await;
        assert_eq!(claimed.name, expected.name, "the oldest comes first");
        claimed
    }

    pub(crate) async fn finish(&self, job: &Job, outcome: Outcome) -> Result<Job, tonic::Status> {
        let outcome = Some(outcome);
        let request =
            FinishJobRequest { job: job.name.clone(), attempt: job.attempt, outcome, ..FinishJobRequest::default() };
        Ok(self.workers.clone().finish_job(request).await?.into_inner().job.unwrap())
    }

    pub(crate) async fn beat(&self, job: &Job, log: &[u8], log_offset: i64) -> Result<Directive, tonic::Status> {
        let request = HeartbeatRequest {
            job: job.name.clone(),
            attempt: job.attempt,
            log: log.into(),
            log_offset,
            ..HeartbeatRequest::default()
        };
        Ok(self.workers.clone().heartbeat(request).await?.into_inner().directive())
    }

    pub(crate) async fn cancel(&self, job: &Job, prune: bool) -> Job {
        let request = CancelJobRequest { name: job.name.clone(), prune, reason: "test".into() };
        self.jobs.clone().cancel_job(request).await.unwrap().into_inner()
    }

    /// All events after a revision, up to the terminal one.
    pub(crate) async fn watch(&self, name: &str, after_revision: i64) -> Vec<JobEvent> {
        let request = WatchJobRequest { name: name.into(), after_revision };
        let mut stream = self.jobs.clone().watch_job(request).await.unwrap().into_inner();
        let mut events = Vec::new();
        while let Some(event) = stream.message().await.unwrap() {
            events.push(event);
        }
        events
    }

    /// Waits for a transition that is as asked.
    pub(crate) async fn until(&self, name: &str, reached: impl Fn(&Job) -> bool) -> Job {
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

pub(crate) fn job(name: &str) -> Job {
    let command = CommandSpec { command: format!("echo {name}"), ..CommandSpec::default() };
    let spec = Some(JobSpec { kind: Some(Kind::Command(command)) });
    Job { display_name: name.into(), spec, ..Job::default() }
}

pub(crate) fn succeeded() -> Outcome {
    Outcome::Succeeded(Outputs { metrics: [("loss".to_owned(), 0.5)].into(), ..Outputs::default() })
}

pub(crate) fn states(events: &[JobEvent]) -> Vec<JobState> {
    let state = |event: &JobEvent| match &event.event {
        Some(Event::Transition(job)) => Some(job.state()),
        _ => None,
    };
    events.iter().filter_map(state).collect()
}

/// Runs a suite on a fresh store of each kind and checks the history that it leaves.
pub(crate) async fn on_both(suite: impl AsyncFn(&House)) {
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
