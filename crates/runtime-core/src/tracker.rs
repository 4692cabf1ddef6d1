//! Writes every job into tracking: one run a job, followed from the durable events so that nothing is lost or written twice.

use std::collections::BTreeMap;

use quintet_proto::v1::{
    CreateRunRequest, EnsureExperimentRequest, Job, JobEvent, JobState, LogBatchRequest, MetricPoint, RunStatus,
    UpdateRunRequest, job_event::Event, job_spec::Kind, tracking_service_client::TrackingServiceClient,
};
use tonic::{Code, Status};

use crate::{
    client::{self, Connection},
    jobs::{
        follow::{Follower, Handled},
        model::{is_terminal, job_kind, millis, uid_of},
    },
    status::ErrorReason,
};

/// Experiment of jobs that name none.
pub const DEFAULT_EXPERIMENT: &str = "Default";
/// MLflow keeps parameters up to this length.
const LONGEST_PARAM: usize = 6000;
/// Entries of one batch.
const BATCH: usize = 100;

/// A client of a tracking server that knows how a job is written as a run.
#[derive(Clone)]
pub struct RunWriter(TrackingServiceClient<Connection>);

impl RunWriter {
    /// A writer on a connection.
    pub fn new(connection: Connection) -> Self {
        let client = TrackingServiceClient::new(connection);
        Self(client.max_decoding_message_size(client::MAX_MESSAGE).max_encoding_message_size(client::MAX_MESSAGE))
    }

    /// The generated client.
    pub fn client(&self) -> TrackingServiceClient<Connection> {
        self.0.clone()
    }

    /// Makes the job's run if it is not there: its id is the job's uid, its artifacts are the job's outputs.
    ///
    /// # Errors
    /// The tracking server's status.
    pub async fn ensure_run(&self, job: &Job) -> Result<(), Status> {
        let name = if job.experiment.is_empty() { DEFAULT_EXPERIMENT } else { &job.experiment };
        let request = EnsureExperimentRequest { name: name.into() };
        let experiment = self.0.clone().ensure_experiment(request).await?.into_inner();
        let run_name = if job.display_name.is_empty() {
            format!("{}-{}", job_kind(job), job.uid.get(..8).unwrap_or(&job.uid))
        } else {
            job.display_name.clone()
        };
        let request = CreateRunRequest {
            run_id: job.uid.clone(),
            experiment_id: experiment.experiment_id,
            run_name,
            start_time: start_of(job),
            tags: tags(job),
            artifact_uri: format!("mlflow-artifacts:/jobs/{}", job.uid),
            user_id: String::new(),
        };
        self.0.clone().create_run(request).await?;
        Ok(())
    }

    async fn write(&self, event: &JobEvent) -> Result<(), Status> {
        match &event.event {
            Some(Event::Transition(job)) => self.write_transition(job).await,
            Some(Event::Metrics(metrics)) => {
                let Some(uid) = uid_of(&event.job) else { return Ok(()) };
                let metrics = metrics
                    .metrics
                    .iter()
                    .map(|m| MetricPoint {
                        key: m.key.clone(),
                        value: m.value,
                        step: m.step,
                        timestamp: m.time.as_ref().or(event.time.as_ref()).map_or(0, millis),
                    })
                    .collect();
                self.batch(uid, metrics, BTreeMap::new(), BTreeMap::new()).await
            }
            _ => Ok(()),
        }
    }

    async fn write_transition(&self, job: &Job) -> Result<(), Status> {
        let state = job.state();
        let first = matches!(state, JobState::Launching | JobState::Running) && job.unreachable_since.is_none();
        if !(first || is_terminal(state)) {
            return Ok(());
        }
        self.ensure_run(job).await?;
        self.batch(&job.uid, Vec::new(), params(job), tags(job)).await?;
        let mut update = UpdateRunRequest { run_id: job.uid.clone(), ..UpdateRunRequest::default() };
        if is_terminal(state) {
            let end = job.end_time.as_ref().map(millis);
            // What a command logged to its run is there with its steps; only a file brings metrics that are not.
            let kind = job.spec.as_ref().and_then(|spec| spec.kind.as_ref());
            let logged = matches!(kind, Some(Kind::Command(command)) if command.metrics_file.is_empty());
            let outputs = job.outputs.clone().filter(|_| !logged).unwrap_or_default();
            let metrics = outputs
                .metrics
                .into_iter()
                .map(|(key, value)| MetricPoint { key, value, step: 0, timestamp: end.unwrap_or_default() })
                .collect();
            self.batch(&job.uid, metrics, BTreeMap::new(), BTreeMap::new()).await?;
            update.end_time = end;
        }
        update.set_status(match state {
            JobState::Succeeded => RunStatus::RunFinished,
            JobState::Failed => RunStatus::RunFailed,
            JobState::Cancelled => RunStatus::RunKilled,
            _ => RunStatus::RunRunning,
        });
        self.0.clone().update_run(update).await?;
        Ok(())
    }

    async fn batch(
        &self,
        run_id: &str,
        metrics: Vec<MetricPoint>,
        params: BTreeMap<String, String>,
        tags: BTreeMap<String, String>,
    ) -> Result<(), Status> {
        let mut metrics = metrics.into_iter().peekable();
        let mut params = params.into_iter().peekable();
        let mut tags = tags.into_iter().peekable();
        while metrics.peek().is_some() || params.peek().is_some() || tags.peek().is_some() {
            let request = LogBatchRequest {
                run_id: run_id.into(),
                metrics: metrics.by_ref().take(BATCH).collect(),
                params: params.by_ref().take(BATCH).collect(),
                tags: tags.by_ref().take(BATCH).collect(),
            };
            self.0.clone().log_batch(request).await?;
        }
        Ok(())
    }
}

fn start_of(job: &Job) -> i64 {
    job.start_time.as_ref().or(job.create_time.as_ref()).map_or(0, millis)
}

/// Lineage and state, under MLflow's names where it has one.
fn tags(job: &Job) -> BTreeMap<String, String> {
    let mut tags: BTreeMap<String, String> = job.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut tag = |key: &str, value: &str| {
        if !value.is_empty() {
            tags.insert(key.into(), value.into());
        }
    };
    tag("mlflow.parentRunId", job.parent.strip_prefix("jobs/").unwrap_or_default());
    tag("mlflow.source.type", "JOB");
    tag("mlflow.source.name", &format!("quintet {}", job_kind(job)));
    tag("quintet.job", &job.name);
    tag("quintet.kind", job_kind(job));
    tag("quintet.run_key", &job.content_hash);
    tag("quintet.attempt", &job.attempt.to_string());
    tag("quintet.reused_from", &job.reused_from);
    if let Some(error) = job.error.as_ref().filter(|_| is_terminal(job.state())) {
        tag("quintet.error.reason", &error.reason);
        tag("quintet.error.message", &error.message);
        tag("quintet.pruned", if error.reason == ErrorReason::Pruned.as_str() { "true" } else { "" });
    }
    for (name, artifact) in job.outputs.iter().flat_map(|outputs| &outputs.artifacts) {
        tag(&format!("quintet.output.{name}"), &artifact.uri);
        tag(&format!("quintet.output.{name}.digest"), &artifact.digest);
    }
    tags
}

/// The specification, flattened to `train.hyperparameters.learning_rate` and the like.
fn params(job: &Job) -> BTreeMap<String, String> {
    let mut params = BTreeMap::new();
    if let Some(Ok(spec)) = job.spec.as_ref().map(serde_json::to_value) {
        let body = spec.get(job_kind(job)).unwrap_or(&spec);
        flatten(String::new(), body, &mut params);
    }
    params
}

fn flatten(prefix: String, value: &serde_json::Value, params: &mut BTreeMap<String, String>) {
    use serde_json::Value;
    let text = match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(name, value, params);
            }
            return;
        }
        Value::Null => return,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if prefix.len() <= 250 && text.len() <= LONGEST_PARAM {
        // MLflow's names hold no other characters.
        let name = prefix.chars().map(|c| if c.is_alphanumeric() || "_-./: ".contains(c) { c } else { '_' }).collect();
        params.insert(name, text);
    }
}

/// Follows all events of the jobs and writes them to tracking.
pub struct Tracker(RunWriter);

impl Tracker {
    /// A follower that writes with `writer`.
    pub fn new(writer: RunWriter) -> Self {
        Self(writer)
    }
}

impl Follower for Tracker {
    const NAME: &'static str = "tracking";

    async fn handle(&mut self, event: &JobEvent) -> Handled {
        match self.0.write(event).await {
            Ok(()) => Handled::Done,
            Err(status) if is_worth_repeating(&status) => {
                tracing::debug!(%status, "tracking does not answer");
                Handled::Again
            }
            Err(status) => {
                tracing::warn!(%status, job = event.job, revision = event.revision, "tracking refused an event");
                Handled::Done
            }
        }
    }
}

fn is_worth_repeating(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Unknown | Code::Aborted
    )
}
