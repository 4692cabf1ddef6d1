//! `WorkerService`: the leases of attempts over gRPC.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use quintet_proto::v1::{
    ClaimJobsRequest, ClaimJobsResponse, FinishJobRequest, FinishJobResponse, HeartbeatRequest, HeartbeatResponse, Job,
    Lease, finish_job_request::Outcome as WireOutcome, worker_service_server::WorkerService,
};
use tonic::{Request, Response, Status};

use super::{
    Jobs,
    engine::{ClaimFilter, Outcome, Rejection, Report},
    model::{KINDS, duration_ms, heartbeat_ms, is_terminal, proto_duration, timestamp, uid_of},
    service::{reject, store_status},
    store,
};
use crate::{
    server::Drain,
    status::{self},
};

/// What workers are told of their surroundings.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// URL of the artifact store.
    pub artifact_store: String,
    /// Address of the tracking server; set once the server listens.
    pub tracking_uri: Arc<OnceLock<String>>,
}

/// `WorkerService` over the jobs of one server.
#[derive(Clone)]
pub struct WorkerApi {
    jobs: Jobs,
    surroundings: Surroundings,
    drain: Drain,
}

/// A claim waits no longer than this, whatever it asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Jobs that one claim gets at most.
const LARGEST_CLAIM: usize = 256;

impl WorkerApi {
    /// A service over jobs.
    pub fn new(jobs: Jobs, surroundings: Surroundings, drain: Drain) -> Self {
        Self { jobs, surroundings, drain }
    }

    fn lease(&self, job: Job) -> Lease {
        let term = heartbeat_ms(&job);
        Lease {
            expire_time: Some(timestamp(super::Clock::now(&super::SystemClock) + term)),
            term: Some(proto_duration(term)),
            artifact_store: self.surroundings.artifact_store.clone(),
            tracking_uri: self.surroundings.tracking_uri.get().cloned().unwrap_or_default(),
            job: Some(job),
        }
    }
}

fn uid(name: &str) -> Result<String, Status> {
    let uid = uid_of(name)
        .ok_or_else(|| status::invalid_field("job", format!("{name:?} is not of the form jobs/{{uid}}")))?;
    Ok(uid.to_owned())
}

#[tonic::async_trait]
impl WorkerService for WorkerApi {
    async fn claim_jobs(&self, request: Request<ClaimJobsRequest>) -> Result<Response<ClaimJobsResponse>, Status> {
        let request = request.into_inner();
        if request.worker.is_empty() || request.worker.len() > 200 {
            return Err(status::invalid_field("worker", "has to be a name of 1 to 200 bytes"));
        }
        if let Some(unknown) = request.kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
            return Err(status::invalid_field("kinds", format!("{unknown:?} is none of {}", KINDS.join(", "))));
        }
        if !request.job.is_empty() {
            let (uid, attempt, worker) = (uid(&request.job)?, request.attempt, request.worker);
            let claimed = self.jobs.run(move |engine, now| engine.claim_launched(&uid, attempt, &worker, now)).await;
            let job = claimed.map_err(store_status)?.map_err(|rejection| reject(&rejection))?;
            return Ok(Response::new(ClaimJobsResponse { leases: vec![self.lease(job)] }));
        }
        let max = super::service::page_size(request.max_jobs, 1, LARGEST_CLAIM)?;
        let wait = request.wait.as_ref().map_or(0, duration_ms).max(0).unsigned_abs();
        let filter = ClaimFilter { worker: request.worker, kinds: request.kinds, max, launch: false, slots: None };
        let claim = self.jobs.claim(filter, Duration::from_millis(wait).min(LONGEST_WAIT));
        let jobs = tokio::select! {
            jobs = claim => jobs.map_err(store_status)?,
            () = self.drain.begun() => return Err(status::shutting_down()),
        };
        Ok(Response::new(ClaimJobsResponse { leases: jobs.into_iter().map(|job| self.lease(job)).collect() }))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        let request = request.into_inner();
        let report = Report {
            uid: uid(&request.job)?,
            attempt: request.attempt,
            progress: request.progress,
            metrics: request.metrics,
            log: request.log,
            log_offset: request.log_offset.max(0),
            finalizing: request.finalizing,
            ..Report::default()
        };
        let kept = self.jobs.run(move |engine, now| engine.heartbeat(report, now)).await.map_err(store_status)?;
        let (directive, expires) = kept.map_err(|rejection| reject(&rejection))?;
        Ok(Response::new(HeartbeatResponse { directive: directive.into(), expire_time: Some(timestamp(expires)) }))
    }

    async fn finish_job(&self, request: Request<FinishJobRequest>) -> Result<Response<FinishJobResponse>, Status> {
        let request = request.into_inner();
        let uid = uid(&request.job)?;
        let outcome = match request.outcome {
            Some(WireOutcome::Succeeded(outputs)) => Outcome::Succeeded(outputs),
            Some(WireOutcome::Failed(error)) => Outcome::Failed(error),
            Some(WireOutcome::Stopped(stopped)) => Outcome::Stopped(stopped.outputs.unwrap_or_default()),
            None => return Err(status::invalid_field("outcome", "is missing; one of succeeded, failed, stopped")),
        };
        let report = Report {
            uid: uid.clone(),
            attempt: request.attempt,
            metrics: request.metrics,
            left: request.left,
            log: request.log,
            log_offset: request.log_offset.max(0),
            ..Report::default()
        };
        let finished =
            self.jobs.run(move |engine, now| engine.finish(report, outcome, now)).await.map_err(store_status)?;
        let job = match finished {
            Ok(job) => job,
            Err(rejection @ (Rejection::NotLive(_) | Rejection::Ended(_))) => {
                // The answer to the first call was lost.
                let stored = store::get(self.jobs.db(), &uid).await.map_err(store_status)?;
                stored
                    .map(|(job, _)| job)
                    .filter(|job| is_terminal(job.state()) && job.attempt == request.attempt)
                    .ok_or_else(|| reject(&rejection))?
            }
            Err(rejection) => return Err(reject(&rejection)),
        };
        Ok(Response::new(FinishJobResponse { job: Some(job) }))
    }
}
