//! `TrainingService`: final-training configuration and the validation of training jobs.

use quintet_proto::{
    types::Struct,
    v1::{
        BuildFinalTrainingConfigRequest, BuildFinalTrainingConfigResponse, JobState, ValidateTrainingJobRequest,
        ValidateTrainingJobResponse, training_service_server::TrainingService,
    },
};
use runtime_core::{artifacts::ArtifactStore, client::JobClient, jobs::model::job_kind, status};
use tonic::{Request, Response, Status};

use crate::merge::merge;

/// `TrainingService` over the jobs of a server.
#[derive(Clone)]
pub struct TrainingApi {
    jobs: JobClient,
    artifacts: ArtifactStore,
}

/// Files without which a checkpoint is none.
const CHECKPOINT_FILES: [&str; 3] = ["config.json", "model.safetensors", "tokenizer.json"];

impl TrainingApi {
    /// A service that reads jobs through a client and their outputs from a store.
    pub fn new(jobs: JobClient, artifacts: ArtifactStore) -> Self {
        Self { jobs, artifacts }
    }

    /// What is wrong with a training job's result; empty when it can be used.
    async fn problems(&self, name: &str) -> Result<Vec<String>, Status> {
        let job = self.jobs.get(name).await?;
        let kind = job_kind(&job);
        if !matches!(kind, "train" | "command") {
            return Ok(vec![format!("{name} is a {kind} job, not a training")]);
        }
        if job.state() != JobState::Succeeded {
            let why = job.error.map(|error| format!(": {}: {}", error.reason, error.message)).unwrap_or_default();
            return Ok(vec![format!(
                "{name} is {}, not SUCCEEDED{why}",
                JobState::try_from(job.state).unwrap_or_default().as_str_name()
            )]);
        }
        let outputs = job.outputs.unwrap_or_default();
        let Some(checkpoint) = outputs.artifacts.get("checkpoint") else {
            return Ok(vec![format!("{name} has no output `checkpoint`")]);
        };
        let mut problems = Vec::new();
        match self.artifacts.verify(&checkpoint.uri).await {
            Err(error) => problems.push(format!("checkpoint: {error}")),
            Ok(manifest) => {
                let missing = CHECKPOINT_FILES.iter().filter(|file| !manifest.files.iter().any(|f| f.path == **file));
                problems.extend(missing.map(|file| format!("checkpoint: {file} is missing")));
            }
        }
        if kind == "train" && outputs.metrics.is_empty() {
            problems.push("the job reported no metrics".into());
        }
        let bad = outputs.metrics.iter().filter(|(_, value)| !value.is_finite());
        problems.extend(bad.map(|(key, value)| format!("metric {key} is {value}")));
        Ok(problems)
    }
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
        merge(&best, &train, policy, request.random_seed).map(Response::new).map_err(status::invalid_argument)
    }

    async fn validate_training_job(
        &self,
        request: Request<ValidateTrainingJobRequest>,
    ) -> Result<Response<ValidateTrainingJobResponse>, Status> {
        let problems = self.problems(&request.get_ref().job).await?;
        Ok(Response::new(ValidateTrainingJobResponse { valid: problems.is_empty(), problems }))
    }
}
