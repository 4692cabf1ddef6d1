//! Load on the job runtime over gRPC: clients that submit and workers that drain, each with a connection of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use quintet_proto::v1::{
    ClaimJobsRequest, CommandSpec, CreateJobRequest, FinishJobRequest, Job, JobSpec, JobState, Outputs,
    finish_job_request::Outcome, job_service_client::JobServiceClient, job_spec::Kind,
    worker_service_client::WorkerServiceClient,
};
use runtime_core::{
    client::{Connection, connect},
    jobs::model::proto_duration,
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::history::History;

/// Submitting clients, and as many workers.
pub const SIDE: usize = 8;
/// A claim waits this long for a job.
const WAIT_MS: i64 = 2_000;

/// What to do to a server.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Jobs in all.
    pub jobs: usize,
    /// Jobs that a claim asks for at most.
    pub claim: i32,
    /// Submissions a second in all, planned beforehand; without it each client submits as soon as it is answered.
    pub pace: Option<f64>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcomes {
    /// From the first submission to the last answer to an outcome.
    pub elapsed: Duration,
    /// From the planned moment of each submission to its job's arrival at a worker, sorted.
    pub starts: Vec<Duration>,
}

impl Outcomes {
    /// Jobs a second.
    pub fn rate(&self) -> f64 {
        self.starts.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Time within which this share of the jobs had started.
    pub fn start_quantile(&self, share: f64) -> Duration {
        let index = (self.starts.len() as f64 * share) as usize;
        self.starts.get(index.min(self.starts.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// Submits and drains jobs, and checks that each arrived once.
///
/// # Errors
/// A call failed, or a job came twice or never.
pub async fn run(server: &str, load: Load) -> anyhow::Result<Outcomes> {
    let clients = try_join_all((0..SIDE).map(|_| warm(server))).await?;
    let workers = try_join_all((0..SIDE).map(|_| warm(server))).await?;
    // Planned moments travel with the jobs as microseconds since this one.
    let origin = Instant::now();
    let left = Arc::new(AtomicUsize::new(load.jobs));
    let mut draining = JoinSet::new();
    for (number, connection) in workers.into_iter().enumerate() {
        draining.spawn(drain(connection, number, load.claim, left.clone(), origin));
    }
    let begin = origin.elapsed();
    match load.pace {
        Some(rate) => submit_paced(clients, load.jobs, rate, origin).await?,
        None => {
            let submitting = clients.into_iter().enumerate().map(|(client, connection)| {
                tokio::spawn(async move {
                    for number in (client..load.jobs).step_by(SIDE) {
                        submit(connection.clone(), number, origin.elapsed()).await?;
                    }
                    anyhow::Ok(())
                })
            });
            for submitted in try_join_all(submitting).await? {
                submitted?;
            }
        }
    }
    let mut arrivals = Vec::with_capacity(load.jobs);
    let mut end = begin;
    while let Some(drained) = draining.join_next().await {
        let (arrived, ended) = drained??;
        arrivals.extend(arrived);
        end = end.max(ended);
    }
    let mut numbers: Vec<usize> = arrivals.iter().map(|(number, _)| *number).collect();
    numbers.sort_unstable();
    ensure!(numbers.iter().copied().eq(0..load.jobs), "{} jobs arrived, of {}", numbers.len(), load.jobs);
    let mut starts: Vec<Duration> = arrivals.into_iter().map(|(_, wait)| wait).collect();
    starts.sort_unstable();
    Ok(Outcomes { elapsed: end.saturating_sub(begin), starts })
}

/// Three transitions a job, each stored, and nothing else.
///
/// # Errors
/// What the store holds instead.
pub async fn check_store(database: &str, jobs: usize) -> anyhow::Result<()> {
    use JobState::{Queued, Running, Succeeded};
    let history = History::check(database).await?;
    ensure!(history.jobs.len() == jobs, "the store holds {} jobs of {jobs}", history.jobs.len());
    ensure!(history.events == 3 * jobs, "the store holds {} transitions of {}", history.events, 3 * jobs);
    let odd = history.states.iter().find(|(_, states)| **states != [Queued, Running, Succeeded]);
    ensure!(odd.is_none(), "a job went another way: {odd:?}");
    Ok(())
}

/// A connection that is made, so that making it is not measured.
async fn warm(server: &str) -> anyhow::Result<Connection> {
    let connection = connect(server, None)?;
    let missing = quintet_proto::v1::GetJobRequest { name: format!("jobs/{:032x}", 0) };
    let answer = JobServiceClient::new(connection.clone()).get_job(missing).await;
    match answer {
        Err(status) if status.code() == tonic::Code::NotFound => Ok(connection),
        other => anyhow::bail!("{server} does not answer as a job server: {other:?}"),
    }
}

async fn submit(connection: Connection, number: usize, planned: Duration) -> anyhow::Result<()> {
    let parameters = [("number", number.to_string()), ("planned", planned.as_micros().to_string())];
    // Every job differs, so that the server looks for an equal one that has succeeded and finds none.
    let command = CommandSpec {
        command: "true".into(),
        parameters: parameters.map(|(name, value)| (name.to_owned(), value)).into(),
        ..CommandSpec::default()
    };
    let job = Job { spec: Some(JobSpec { kind: Some(Kind::Command(command)) }), ..Job::default() };
    let request_id = format!("load-{number}");
    let request = CreateJobRequest { job: Some(job), request_id, ..CreateJobRequest::default() };
    JobServiceClient::new(connection).create_job(request).await?;
    Ok(())
}

/// Open loop: a submission leaves at its moment, whether or not those before it were answered.
async fn submit_paced(clients: Vec<Connection>, jobs: usize, rate: f64, origin: Instant) -> anyhow::Result<()> {
    let (due, mut now) = mpsc::unbounded_channel();
    let begin = origin.elapsed() + Duration::from_millis(100);
    // The runtime's timers count milliseconds; a thread sleeps more exactly.
    let pacing = std::thread::spawn(move || {
        for number in 0..jobs {
            let planned = begin + Duration::from_secs_f64(number as f64 / rate);
            std::thread::sleep(planned.saturating_sub(origin.elapsed()));
            if due.send((number, planned)).is_err() {
                return;
            }
        }
    });
    let mut submitting = JoinSet::new();
    while let Some((number, planned)) = now.recv().await {
        let connection = clients[number % clients.len()].clone();
        submitting.spawn(submit(connection, number, planned));
    }
    while let Some(submitted) = submitting.join_next().await {
        submitted??;
    }
    pacing.join().map_err(|_| anyhow::anyhow!("the pacing thread panicked"))
}

type Drained = (Vec<(usize, Duration)>, Duration);

/// Claims and finishes until no job is left; returns each job's number and its time to start, and when it ended.
async fn drain(
    connection: Connection,
    number: usize,
    max_jobs: i32,
    left: Arc<AtomicUsize>,
    origin: Instant,
) -> anyhow::Result<Drained> {
    let client = WorkerServiceClient::new(connection);
    let request = ClaimJobsRequest {
        worker: format!("load/{number}"),
        kinds: vec!["command".into()],
        max_jobs,
        wait: Some(proto_duration(WAIT_MS)),
        ..ClaimJobsRequest::default()
    };
    let (mut arrivals, mut ended) = (Vec::new(), origin.elapsed());
    while left.load(Ordering::Relaxed) > 0 {
        let leases = client.clone().claim_jobs(request.clone()).await?.into_inner().leases;
        let now = origin.elapsed();
        let jobs: Vec<Job> = leases.into_iter().filter_map(|lease| lease.job).collect();
        for job in &jobs {
            let Some(Kind::Command(command)) = job.spec.as_ref().and_then(|spec| spec.kind.as_ref()) else { continue };
            let read = |name: &str| command.parameters.get(name).with_context(|| format!("{} has no {name}", job.name));
            let planned = Duration::from_micros(read("planned")?.parse()?);
            arrivals.push((read("number")?.parse()?, now.saturating_sub(planned)));
        }
        let count = jobs.len();
        try_join_all(jobs.into_iter().map(|job| {
            let mut client = client.clone();
            async move {
                let outcome = Some(Outcome::Succeeded(Outputs::default()));
                let request = FinishJobRequest { job: job.name, attempt: job.attempt, outcome, ..Default::default() };
                client.finish_job(request).await
            }
        }))
        .await?;
        if count > 0 {
            ended = origin.elapsed();
            left.fetch_sub(count, Ordering::Relaxed);
        }
    }
    Ok((arrivals, ended))
}
