//! `TrainingService`: final-training configuration and the validation of training jobs.

use quintet_proto::{
    types::Struct,
    v1::{
        BuildFinalTrainingConfigRequest, BuildFinalTrainingConfigResponse, CreateFinalTrainingRequest,
        CreateFinalTrainingResponse, JobState, ValidateTrainingJobRequest, ValidateTrainingJobResponse,
        training_service_server::TrainingService,
    },
};
use runtime_core::{artifacts::ArtifactStore, client::JobClient, jobs::model::job_kind, status};
use tonic::{Request, Response, Status};

use crate::{checks, merge::merge};

/// `TrainingService` over the jobs of a server.
#[derive(Clone)]
pub struct TrainingApi {
    pub(crate) jobs: JobClient,
    artifacts: ArtifactStore,
}

/// What was found out about a training job.
#[derive(Debug, Default)]
pub(crate) struct Validated {
    pub(crate) checkpoint: String,
    pub(crate) labels: Vec<String>,
    /// Empty when the result can be used.
    pub(crate) problems: Vec<String>,
}

impl TrainingApi {
    /// A service that reads jobs through a client and their outputs from a store.
    pub fn new(jobs: JobClient, artifacts: ArtifactStore) -> Self {
        Self { jobs, artifacts }
    }

    /// Whether a training job has succeeded and its outputs can be used: every file has its digest, the configuration parses, the
    /// weights are whole and have a head for the labels, and the metrics are finite numbers. A sweep's refit is a training too.
    pub(crate) async fn validated(&self, name: &str) -> Result<Validated, Status> {
        let job = self.jobs.get(name).await?;
        let kind = job_kind(&job).to_owned();
        let mut found = Validated::default();
        if !matches!(kind.as_str(), "train" | "command" | "sweep") {
            found.problems.push(format!("{name} is a {kind} job, not a training"));
            return Ok(found);
        }
        if job.state() != JobState::Succeeded {
            let why = job.error.map(|error| format!(": {}: {}", error.reason, error.message)).unwrap_or_default();
            let state = JobState::try_from(job.state).unwrap_or_default().as_str_name();
            found.problems.push(format!("{name} is {state}, not SUCCEEDED{why}"));
            return Ok(found);
        }
        let outputs = job.outputs.unwrap_or_default();
        let Some(checkpoint) = outputs.artifacts.get("checkpoint") else {
            found.problems.push(format!("{name} has no output `checkpoint`"));
            return Ok(found);
        };
        found.checkpoint.clone_from(&checkpoint.uri);
        let report = serde_json::to_value(outputs.report.unwrap_or_default()).unwrap_or_default();
        let reported = labels_of(&report).filter(|_| kind == "train");
        match self.look_into(&checkpoint.uri, reported).await {
            Ok(checked) => {
                found.labels = checked.labels;
                found.problems.extend(checked.problems.into_iter().map(|problem| format!("checkpoint: {problem}")));
            }
            Err(problem) => found.problems.push(format!("checkpoint: {problem}")),
        }
        if kind == "train" {
            if outputs.metrics.is_empty() {
                found.problems.push("the job reported no metrics".into());
            }
            // Conversion verifies against these rows.
            match outputs.artifacts.get("evaluation") {
                None => found.problems.push(format!("{name} has no output `evaluation`")),
                Some(rows) => {
                    if let Err(error) = self.artifacts.verify(&rows.uri).await {
                        found.problems.push(format!("evaluation: {error}"));
                    }
                }
            }
        }
        let bad = outputs.metrics.iter().filter(|(_, value)| !value.is_finite());
        found.problems.extend(bad.map(|(key, value)| format!("metric {key} is {value}")));
        Ok(found)
    }

    /// Brings a checkpoint here, which compares every file with its digest, and looks into it.
    async fn look_into(&self, uri: &str, reported: Option<Vec<String>>) -> Result<checks::Checked, String> {
        let folder = tempfile::tempdir().map_err(|error| format!("no room to look into it: {error}"))?;
        let copy = folder.path().join("checkpoint");
        self.artifacts.fetch(uri, &copy).await.map_err(|error| error.to_string())?;
        let looked = tokio::task::spawn_blocking(move || checks::checkpoint(&copy, reported.as_deref()));
        looked.await.map_err(|error| format!("it cannot be looked into: {error}"))
    }
}

/// The labels that a training reports.
fn labels_of(report: &serde_json::Value) -> Option<Vec<String>> {
    report.get("labels")?.as_array()?.iter().map(|label| label.as_str().map(str::to_owned)).collect()
}

fn json(field: &str, config: Option<Struct>) -> Result<serde_json::Value, Status> {
    let converted = config.map(serde_json::to_value).transpose();
    converted.map(Option::unwrap_or_default).map_err(|error| status::invalid_field(field, error.to_string()))
}

#[tonic::async_trait]
impl TrainingService for TrainingApi {
    async fn build_final_training_config(
        &self,
        request: Request<BuildFinalTrainingConfigRequest>,
    ) -> Result<Response<BuildFinalTrainingConfigResponse>, Status> {
        let request = request.into_inner();
        let policy = request.policy();
        let best = json("best_config", request.best_config)?;
        let train = json("train_config", request.train_config)?;
        let own = json("final_training", request.final_training)?;
        merge(&best, &train, &own, policy, request.random_seed).map(Response::new).map_err(status::invalid_argument)
    }

    async fn validate_training_job(
        &self,
        request: Request<ValidateTrainingJobRequest>,
    ) -> Result<Response<ValidateTrainingJobResponse>, Status> {
        let Validated { checkpoint, labels, problems } = self.validated(&request.get_ref().job).await?;
        let valid = problems.is_empty();
        Ok(Response::new(ValidateTrainingJobResponse { valid, problems, checkpoint, labels }))
    }

    async fn create_final_training(
        &self,
        request: Request<CreateFinalTrainingRequest>,
    ) -> Result<Response<CreateFinalTrainingResponse>, Status> {
        let mut request = request.into_inner();
        let best_config = json("best_config", request.best_config.take())?;
        Box::pin(self.create_final(request, best_config)).await.map(Response::new)
    }
}
