//! `JobService`: creates, reads, watches and cancels jobs over gRPC.

use std::{path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use prost::Message as _;
use quintet_proto::v1::{
    CancelJobRequest, CreateJobRequest, DeleteJobRequest, DeleteJobResponse, GetJobRequest, Job, JobEvent, JobSpec,
    JobState, ListJobsRequest, ListJobsResponse, LogChunk, StreamLogsRequest, SubmitAndWaitRequest, WaitJobRequest,
    WatchJobRequest, job_service_server::JobService,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    Jobs,
    checks::{Checks, Validator},
    engine::Rejection,
    hub::{HubNames, Pinned},
    inputs::{self, Location},
    model::{duration_ms, is_terminal, is_uid, job_name, kind_of, uid_for_request, uid_of},
    store, watch,
};
use crate::{
    artifacts::{ArtifactStore, digest_path},
    db,
    server::Drain,
    status::{self, ErrorReason, violation},
};

/// `JobService` over the jobs of one server.
#[derive(Clone)]
pub struct JobApi {
    jobs: Jobs,
    artifacts: ArtifactStore,
    checks: Checks,
    hub: Arc<HubNames>,
    drain: Drain,
}

impl JobApi {
    /// A service that takes no kind of job yet.
    pub fn new(jobs: Jobs, artifacts: ArtifactStore, drain: Drain) -> Self {
        Self { jobs, artifacts, checks: Checks::default(), hub: Arc::default(), drain }
    }

    /// Takes jobs of a kind that pass a check.
    #[must_use]
    pub fn kind(mut self, kind: &'static str, validator: Validator) -> Self {
        self.checks.insert(kind, validator);
        self
    }

    async fn create(&self, request: CreateJobRequest) -> Result<Job, Status> {
        let mut job = request.job.unwrap_or_default();
        self.validate(&job, &request.request_id)?;
        job = Job {
            display_name: job.display_name,
            spec: job.spec,
            labels: job.labels,
            parent: job.parent,
            retry: job.retry,
            timeouts: job.timeouts,
            resources: job.resources,
            experiment: job.experiment,
            ..Job::default()
        };
        let request_hash = hex::encode(Sha256::digest(job.encode_to_vec()));
        let id = if request.request_id.is_empty() { uuid::Uuid::new_v4().to_string() } else { request.request_id };
        job.uid = uid_for_request(&id);
        if let Some(spec) = &mut job.spec {
            let pinned = self.hub.pin(spec).await?;
            job.content_hash = self.content_hash(spec, &pinned).await?;
            for (key, value) in pinned.labels {
                job.labels.entry(key).or_insert(value);
            }
        }
        if request.validate_only {
            job.name = job_name(&job.uid);
            return Ok(job);
        }
        let reusable = !request.force && job.parent.is_empty();
        if reusable && let Some(done) = self.reusable(&job.content_hash).await? {
            job.reused_from = if done.reused_from.is_empty() { done.name } else { done.reused_from };
            job.outputs = done.outputs;
        }
        let created = self.jobs.run({
            let request_hash = request_hash.clone();
            let job = job.clone();
            move |engine, now| engine.create(job, request_hash, reusable, now)
        });
        match created.await.map_err(store_status)? {
            Err(Rejection::Ended(uid)) => {
                let ended = store::get(self.jobs.db(), &uid).await.map_err(store_status)?;
                let (ended, hash) = ended.ok_or_else(|| status::not_found("job", &job_name(&uid)))?;
                if hash == request_hash { Ok(ended) } else { Err(reject(&Rejection::RequestReused(uid))) }
            }
            other => other.map_err(|rejection| reject(&rejection)),
        }
    }

    fn validate(&self, job: &Job, request_id: &str) -> Result<(), Status> {
        let mut wrong = Vec::new();
        let kind = job.spec.as_ref().map_or("", kind_of);
        match job.spec.as_ref().and_then(|spec| self.checks.check(spec)) {
            Some(found) => {
                wrong.extend(found.into_iter().map(|v| violation(format!("job.{}", v.field), v.description)))
            }
            None => {
                let given = if kind.is_empty() { "nothing" } else { kind };
                let kinds = self.checks.kinds().join(", ");
                wrong.push(violation("job.spec", format!("is {given}; this server takes {kinds}")));
            }
        }
        if request_id.len() > 200 {
            wrong.push(violation("request_id", format!("has {} bytes; at most 200 are allowed", request_id.len())));
        }
        if !job.parent.is_empty() && uid_of(&job.parent).is_none() {
            wrong.push(violation("job.parent", format!("{:?} is not of the form jobs/{{uid}}", job.parent)));
        }
        let resources = job.resources.unwrap_or_default();
        for (field, value) in [("cpus", i64::from(resources.cpus)), ("gpus", resources.gpus.into())] {
            if !(0..=4096).contains(&value) {
                wrong.push(violation(format!("job.resources.{field}"), format!("{value} is not within 0 to 4096")));
            }
        }
        if job.labels.len() > 64 || job.labels.iter().any(|(k, v)| k.is_empty() || k.len() > 250 || v.len() > 5000) {
            wrong.push(violation("job.labels", "at most 64 labels, keys of 1 to 250 bytes, values of at most 5000"));
        }
        let timeouts = job.timeouts.unwrap_or_default();
        let named = [
            ("queued_to_start", &timeouts.queued_to_start),
            ("start_to_finish", &timeouts.start_to_finish),
            ("total", &timeouts.total),
            ("heartbeat", &timeouts.heartbeat),
        ];
        for (field, value) in named {
            if value.as_ref().is_some_and(|duration| duration_ms(duration) <= 0) {
                wrong.push(violation(format!("job.timeouts.{field}"), "is not a positive duration"));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(status::invalid_argument(wrong)) }
    }

    /// SHA-256 over the specification and the digest of each input, so that equal work has an equal hash.
    async fn content_hash(&self, spec: &JobSpec, pinned: &Pinned) -> Result<String, Status> {
        let mut hash = Sha256::new();
        // Prost writes fields in order and the maps are ordered, so equal specifications have equal bytes.
        hash.update(spec.encode_to_vec());
        for input in inputs::inputs_of(spec) {
            let digest = self.input_digest(&input.uri).await.map_err(|problem| match problem {
                Ok(status) => status,
                Err(text) => status::invalid_field(pinned.field(&input.field), text),
            })?;
            hash.update([0]);
            hash.update(digest);
        }
        Ok(hex::encode(hash.finalize()))
    }

    async fn input_digest(&self, uri: &str) -> Result<String, Result<Status, String>> {
        match Location::parse(uri).map_err(|error| Err(error.to_string()))? {
            Location::Remote(url) => Ok(url),
            Location::Hub(repo) if repo.is_pinned() => Ok(repo.uri()),
            // Nobody knows yet which content this will be, so it is no other job's.
            Location::Hub(repo) => Ok(format!("{}#{}", repo.uri(), uuid::Uuid::new_v4())),
            Location::Local(path) => tokio::task::spawn_blocking(move || digest(path))
                .await
                .unwrap_or_else(|_| Err("reading it panicked".into()))
                .map_err(Err),
            Location::Output { uid, output, path } => {
                let job = self.jobs.get(&uid).await.map_err(|error| Ok(store_status(error)))?;
                let job = job.ok_or_else(|| Ok(status::not_found("job", &job_name(&uid))))?;
                let artifact = job.outputs.as_ref().and_then(|outputs| outputs.artifacts.get(&output));
                match (job.state(), artifact) {
                    // A failed job has outputs when it left something to be used.
                    (JobState::Succeeded | JobState::Failed, Some(artifact)) => {
                        Ok(format!("{}/{path}", artifact.digest))
                    }
                    (JobState::Succeeded, None) => Err(Ok(status::failed_precondition(
                        ErrorReason::OutputMissing,
                        &job.name,
                        format!("job {} has no output {output:?}", job.name),
                        [("output", output.as_str())],
                    ))),
                    (state, _) => Err(Ok(status::failed_precondition(
                        ErrorReason::IllegalState,
                        &job.name,
                        format!("job {} is {}, not SUCCEEDED", job.name, state.as_str_name()),
                        [("state", state.as_str_name())],
                    ))),
                }
            }
        }
    }

    /// A job of this content that has succeeded and whose artifacts are still there.
    async fn reusable(&self, content_hash: &str) -> Result<Option<Job>, Status> {
        if !self.jobs.may_have_succeeded(content_hash) {
            return Ok(None);
        }
        let Some(job) = store::succeeded(self.jobs.db(), content_hash).await.map_err(store_status)? else {
            return Ok(None);
        };
        for artifact in job.outputs.iter().flat_map(|outputs| outputs.artifacts.values()) {
            if let Err(error) = self.artifacts.read_manifest(&artifact.uri).await {
                tracing::info!(job = job.name, uri = artifact.uri, %error, "not reused: an artifact cannot be read");
                return Ok(None);
            }
        }
        Ok(Some(job))
    }

    async fn read(&self, name: &str) -> Result<Job, Status> {
        let uid = parse_name(name)?;
        self.jobs.get(uid).await.map_err(store_status)?.ok_or_else(|| status::not_found("job", name))
    }

    fn watch_from(&self, uid: String, after: i64) -> ReceiverStream<Result<JobEvent, Status>> {
        let (to, events) = mpsc::channel(256);
        tokio::spawn(watch::watch(self.jobs.clone(), uid, after, self.drain.clone(), to));
        ReceiverStream::new(events)
    }
}

fn digest(path: PathBuf) -> Result<String, String> {
    digest_path(&path).map_err(|error| error.to_string())
}

fn parse_name(name: &str) -> Result<&str, Status> {
    uid_of(name).ok_or_else(|| status::invalid_field("name", format!("{name:?} is not of the form jobs/{{uid}}")))
}

/// The status of a store that failed.
pub(crate) fn store_status(error: db::Error) -> Status {
    match error {
        db::Error::Closed => status::shutting_down(),
        db::Error::Full(_) => status::resource_exhausted(ErrorReason::StorageFull, "database", error.to_string()),
        _ => {
            tracing::error!(%error, "the job store failed");
            status::unavailable(format!("the job store failed: {error}"), Duration::from_secs(1))
        }
    }
}

/// The status of a refused request.
pub(crate) fn reject(rejection: &Rejection) -> Status {
    let text = rejection.to_string();
    match rejection {
        Rejection::NotLive(uid) | Rejection::Ended(uid) => {
            status::aborted(ErrorReason::LeaseLost, &job_name(uid), text)
        }
        Rejection::StaleAttempt { job, .. } => status::aborted(ErrorReason::LeaseLost, &job_name(job), text),
        Rejection::RequestReused(uid) => {
            status::Error::new(ErrorReason::RequestIdReused, text).with("job", job_name(uid)).into_status()
        }
        Rejection::ParentEnded(parent) => {
            status::failed_precondition(ErrorReason::IllegalState, parent, text, [("field", "job.parent")])
        }
    }
}

#[tonic::async_trait]
impl JobService for JobApi {
    type WatchJobStream = ReceiverStream<Result<JobEvent, Status>>;
    type StreamLogsStream = ReceiverStream<Result<LogChunk, Status>>;
    type SubmitAndWaitStream = ReceiverStream<Result<JobEvent, Status>>;

    async fn create_job(&self, request: Request<CreateJobRequest>) -> Result<Response<Job>, Status> {
        self.create(request.into_inner()).await.map(Response::new)
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Result<Response<Job>, Status> {
        self.read(&request.get_ref().name).await.map(Response::new)
    }

    async fn list_jobs(&self, request: Request<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        let request = request.into_inner();
        let limit = page_size(request.page_size, 100, 1000)?;
        let before = match request.page_token.as_str() {
            "" => None,
            token => Some(read_token(token)?),
        };
        let parent = match request.parent.as_str() {
            "" => String::new(),
            name => uid_of(name)
                .ok_or_else(|| status::invalid_field("parent", format!("{name:?} is not of the form jobs/{{uid}}")))?
                .to_owned(),
        };
        let states = request.states().collect();
        // One more than the page tells whether there is another.
        let filter = store::Filter { parent, states, kind: request.kind, before, limit: limit + 1 };
        let mut found = store::list(self.jobs.db(), filter).await.map_err(store_status)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next_page_token = match found.last() {
            Some((key, _)) if more => BASE64_URL_SAFE_NO_PAD.encode(key.to_be_bytes()),
            _ => String::new(),
        };
        let mut jobs = Vec::with_capacity(found.len());
        for (_, stored) in found {
            // Progress lives in memory alone.
            let live = if is_terminal(stored.state()) {
                None
            } else {
                self.jobs.get(&stored.uid).await.map_err(store_status)?
            };
            jobs.push(live.unwrap_or(stored));
        }
        Ok(Response::new(ListJobsResponse { jobs, next_page_token }))
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Result<Response<Job>, Status> {
        let CancelJobRequest { name, prune, reason } = request.into_inner();
        let uid = parse_name(&name)?.to_owned();
        let reason = if reason.is_empty() { "asked for by a client".to_owned() } else { reason };
        let cancelled = self.jobs.run(move |engine, now| engine.cancel(&uid, prune, &reason, now)).await;
        match cancelled.map_err(store_status)? {
            Ok(job) => Ok(Response::new(job)),
            // It has ended, or there is none.
            Err(_) => self.read(&name).await.map(Response::new),
        }
    }

    async fn delete_job(&self, request: Request<DeleteJobRequest>) -> Result<Response<DeleteJobResponse>, Status> {
        let name = request.into_inner().name;
        let job = self.read(&name).await?;
        if !is_terminal(job.state()) {
            let state = job.state().as_str_name();
            let text = format!("job {name} is {state}; cancel it first");
            return Err(status::failed_precondition(ErrorReason::JobNotTerminal, &name, text, [("state", state)]));
        }
        store::delete(self.jobs.db(), &job.uid).await.map_err(store_status)?;
        self.jobs.run(move |engine, _| engine.forget(&job.uid)).await.map_err(store_status)?;
        Ok(Response::new(DeleteJobResponse {}))
    }

    async fn watch_job(&self, request: Request<WatchJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        let request = request.into_inner();
        let job = self.read(&request.name).await?;
        Ok(Response::new(self.watch_from(job.uid, request.after_revision)))
    }

    async fn stream_logs(
        &self,
        request: Request<StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        let request = request.into_inner();
        let job = self.read(&request.name).await?;
        let (to, chunks) = mpsc::channel(64);
        tokio::spawn(watch::stream_logs(self.jobs.clone(), job.uid, request, self.drain.clone(), to));
        Ok(Response::new(ReceiverStream::new(chunks)))
    }

    async fn wait_job(&self, request: Request<WaitJobRequest>) -> Result<Response<Job>, Status> {
        let request = request.into_inner();
        let job = self.read(&request.name).await?;
        let limit = request.timeout.as_ref().map_or(60_000, duration_ms).clamp(0, 3_600_000).unsigned_abs();
        let mut events = self.watch_from(job.uid.clone(), job.revision);
        let ended = async {
            while let Some(event) = tokio_stream::StreamExt::next(&mut events).await {
                event?;
            }
            Ok::<_, Status>(())
        };
        if !is_terminal(job.state())
            && let Ok(result) = tokio::time::timeout(Duration::from_millis(limit), ended).await
        {
            result?;
        }
        self.read(&request.name).await.map(Response::new)
    }

    async fn submit_and_wait(
        &self,
        request: Request<SubmitAndWaitRequest>,
    ) -> Result<Response<Self::SubmitAndWaitStream>, Status> {
        let request = request.into_inner();
        let create = request.create.ok_or_else(|| status::invalid_field("create", "is missing"))?;
        let job = self.create(create).await?;
        Ok(Response::new(self.watch_from(job.uid, request.after_revision)))
    }
}

/// A page size by AIP-158: 0 is the default, more than the most is the most, negative is refused.
///
/// # Errors
/// `INVALID_ARGUMENT` for a negative size.
pub fn page_size(asked: i32, default: usize, most: usize) -> Result<usize, Status> {
    match usize::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(size) => Ok(size.min(most)),
        Err(_) => Err(status::invalid_field("page_size", format!("{asked} is negative"))),
    }
}

fn read_token(token: &str) -> Result<i64, Status> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    bytes.map(i64::from_be_bytes).ok_or_else(|| status::invalid_field("page_token", "is not one that this server gave"))
}

/// The uid in a job's name or the uid itself.
pub fn uid_in(text: &str) -> Option<&str> {
    uid_of(text).or_else(|| Some(text).filter(|text| is_uid(text)))
}
