//! `final_training`: whether a train stage runs anew, goes on with an earlier training, or has one that takes its place.

use quintet_proto::{
    types::Struct,
    v1::{
        CreateFinalTrainingRequest, FinalTrainingAction, Job, job_spec::Kind,
        training_service_client::TrainingServiceClient,
    },
};
use runtime_core::{client::Connection, status::violations_of};
use tonic::Status;

use super::best::repeat;
use crate::{
    failure::Failure,
    pipeline::{FinalTraining, Pipeline, Problem, Stage},
};

/// Where a stage's hyperparameters come from.
#[derive(Debug, Default)]
pub(super) struct Origin {
    pub(super) best_config: Struct,
    /// Name of the sweep's job.
    pub(super) sweep: String,
}

/// What was decided.
#[derive(Debug)]
pub(super) struct Decided {
    /// The job that takes the place of a new one.
    pub(super) found: Option<String>,
    /// For a person.
    pub(super) reason: String,
}

/// Asks the training service; a job that is to be created gets the labels that say which training it is.
///
/// # Errors
/// The service's status.
pub(super) async fn decide(
    connection: &Connection,
    wanted: FinalTraining,
    origin: Origin,
    job: &mut Job,
) -> Result<Decided, Status> {
    let Some(Kind::Train(spec)) = job.spec.as_ref().and_then(|spec| spec.kind.clone()) else {
        return Err(Status::internal("a final training that is none"));
    };
    let request = CreateFinalTrainingRequest {
        spec: Some(spec),
        mode: wanted.mode.into(),
        variant: wanted.variant,
        best_config: Some(origin.best_config),
        sweep: origin.sweep,
        // The stage has more to say of its job than this call takes.
        validate_only: true,
        ..CreateFinalTrainingRequest::default()
    };
    let call = async || TrainingServiceClient::new(connection.clone()).create_final_training(request.clone()).await;
    let answer = repeat(call).await?;
    let (action, reason) = (answer.action(), answer.reason);
    let found = matches!(action, FinalTrainingAction::Reused | FinalTrainingAction::Followed).then_some(answer.job);
    if found.is_none() {
        job.labels.extend(answer.labels);
    }
    let what = action.as_str_name().to_ascii_lowercase();
    Ok(Decided { found, reason: format!("final training {} {what}: {reason}", answer.variant) })
}

/// A refusal with its places in the file.
pub(super) fn told(pipeline: &Pipeline, stage: &Stage, status: &Status) -> Failure {
    let violations = violations_of(status);
    if violations.is_empty() {
        return Failure::from(status.clone()).context(format!("stage `{}`: final_training", stage.name));
    }
    let problem = |(field, description): (String, String)| {
        let below = match field.strip_prefix("spec.") {
            Some(rest) => format!("train.{rest}"),
            None => format!("final_training.{field}"),
        };
        let (place, path) = stage.locate(&below);
        Problem::new(place, path, description).text(&pipeline.file)
    };
    Failure::usage(violations.into_iter().map(problem).collect::<Vec<_>>().join("\n"))
}
