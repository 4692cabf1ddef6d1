//! `ConversionService`: the checkpoint of a training job, and the check of conversions before they become jobs.

use std::{path::PathBuf, sync::Arc};

use quintet_proto::v1::{
    GetCheckpointFromTrainingJobRequest, GetCheckpointFromTrainingJobResponse, Job, JobState,
    conversion_service_server::{ConversionService, ConversionServiceServer},
    job_spec::Kind,
};
use runtime_core::{
    client::JobClient,
    config::Service,
    host::{Error as HostError, Host, PATIENCE},
    jobs::{
        Validator,
        model::{is_terminal, job_kind, uid_of},
    },
    limited,
    status::{self, ErrorReason, violation},
};
use tonic::{Request, Response, Status};

use crate::{Error, Request as Conversion};

/// `ConversionService` over the jobs of a server.
#[derive(Clone)]
pub struct ConversionApi {
    jobs: JobClient,
}

impl ConversionApi {
    /// A service that reads jobs through a client.
    pub fn new(jobs: JobClient) -> Self {
        Self { jobs }
    }
}

#[tonic::async_trait]
impl ConversionService for ConversionApi {
    async fn get_checkpoint_from_training_job(
        &self,
        request: Request<GetCheckpointFromTrainingJobRequest>,
    ) -> Result<Response<GetCheckpointFromTrainingJobResponse>, Status> {
        let name = request.into_inner().job;
        if uid_of(&name).is_none() {
            return Err(status::invalid_field("job", format!("{name:?} is not of the form jobs/{{uid}}")));
        }
        checkpoint_of(self.jobs.get(&name).await?).map(Response::new)
    }
}

/// What a conversion of this job's checkpoint takes; an error when the job has none to give.
fn checkpoint_of(job: Job) -> Result<GetCheckpointFromTrainingJobResponse, Status> {
    let name = job.name.clone();
    let refuse = |reason, message: String| {
        let state = job.state().as_str_name();
        Err(status::failed_precondition(reason, &name, message, [("job", name.as_str()), ("state", state)]))
    };
    let kind = job_kind(&job);
    // A user's own program may train too.
    if !matches!(kind, "train" | "command") {
        return refuse(ErrorReason::IllegalState, format!("{name} is a {kind} job, not a training"));
    }
    match job.state() {
        JobState::Succeeded => {}
        state if is_terminal(state) => {
            let why = job.error.as_ref().map(|error| format!(": {}", error.message)).unwrap_or_default();
            return refuse(ErrorReason::JobFailed, format!("{name} is {}{why}", state.as_str_name()));
        }
        state => return refuse(ErrorReason::JobNotTerminal, format!("{name} is {}", state.as_str_name())),
    }
    let artifacts = job.outputs.as_ref().map(|outputs| &outputs.artifacts);
    let find = |output: &str| artifacts.and_then(|artifacts| artifacts.get(output));
    let Some(checkpoint) = find("checkpoint") else {
        return refuse(ErrorReason::OutputMissing, format!("{name} has no output `checkpoint`"));
    };
    Ok(GetCheckpointFromTrainingJobResponse {
        checkpoint: format!("{name}/outputs/checkpoint"),
        evaluation: find("evaluation").map(|_| format!("{name}/outputs/evaluation")).unwrap_or_default(),
        uri: checkpoint.uri.clone(),
        digest: checkpoint.digest.clone(),
    })
}

/// The check of `convert` jobs before they are created; fields are told as `spec.convert.FIELD`.
pub fn validator() -> Validator {
    Arc::new(|spec, _| {
        let Some(Kind::Convert(convert)) = &spec.kind else { return vec![violation("spec", "is no conversion")] };
        let mut wrong = Vec::new();
        for (field, value) in [("checkpoint", &convert.checkpoint), ("evaluation", &convert.evaluation)] {
            if value.is_empty() {
                let text = "is missing; a path, a URL or jobs/{uid}/outputs/{output}";
                wrong.push(violation(format!("spec.convert.{field}"), text));
            }
        }
        match Conversion::from_spec(convert, PathBuf::new(), PathBuf::new(), PathBuf::new()) {
            Err(Error::Argument { field, problem }) => wrong.push(violation(format!("spec.convert.{field}"), problem)),
            Err(error) => wrong.push(violation("spec.convert", error.to_string())),
            Ok(_) => {}
        }
        wrong
    })
}

/// Mounts the service on a host.
///
/// # Errors
/// A malformed address of the training service.
pub fn mount(host: Host) -> Result<Host, HostError> {
    let api = ConversionApi::new(JobClient::new(host.connection(Service::Train)?, PATIENCE));
    let options = host.config().server_options()?;
    Ok(host
        .kind("convert", validator())
        .worker("convert", "convert-svc", &["worker"], "build it with `cargo build -p convert-svc`")
        .service(limited!(ConversionServiceServer::new(api), options)))
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::{
        Artifact, CommandSpec, ConvertSpec, JobError, JobSpec, Outputs, SweepSpec, TrainSpec, job_spec::Kind,
    };
    use tonic::Code;

    use super::*;

    fn job(kind: Kind, state: JobState, outputs: &[&str]) -> Job {
        let artifact = |name: &&str| {
            let artifact =
                Artifact { uri: format!("file:///store/{name}"), digest: "d1".into(), ..Artifact::default() };
            ((*name).to_owned(), artifact)
        };
        let outputs = Outputs { artifacts: outputs.iter().map(artifact).collect(), ..Outputs::default() };
        Job {
            name: "jobs/00000000000000000000000000000001".into(),
            spec: Some(JobSpec { kind: Some(kind) }),
            state: state.into(),
            outputs: Some(outputs),
            ..Job::default()
        }
    }

    #[test]
    fn a_training_that_succeeded_has_a_checkpoint() {
        let found =
            checkpoint_of(job(Kind::Train(TrainSpec::default()), JobState::Succeeded, &["checkpoint", "evaluation"]))
                .unwrap();
        assert_eq!(found.checkpoint, "jobs/00000000000000000000000000000001/outputs/checkpoint");
        assert_eq!(found.evaluation, "jobs/00000000000000000000000000000001/outputs/evaluation");
        assert_eq!((found.uri.as_str(), found.digest.as_str()), ("file:///store/checkpoint", "d1"));
        let command = job(Kind::Command(CommandSpec::default()), JobState::Succeeded, &["checkpoint"]);
        assert_eq!(checkpoint_of(command).unwrap().evaluation, "");
    }

    #[test]
    fn other_jobs_are_refused_with_the_reason() {
        let train = || Kind::Train(TrainSpec::default());
        let mut failed = job(train(), JobState::Failed, &[]);
        failed.error = Some(JobError { message: "no memory".into(), ..JobError::default() });
        for (job, reason, text) in [
            (job(train(), JobState::Running, &[]), ErrorReason::JobNotTerminal, "RUNNING"),
            (failed, ErrorReason::JobFailed, "is FAILED: no memory"),
            (job(train(), JobState::Succeeded, &["other"]), ErrorReason::OutputMissing, "no output `checkpoint`"),
            (job(Kind::Sweep(SweepSpec::default()), JobState::Succeeded, &[]), ErrorReason::IllegalState, "sweep job"),
        ] {
            let status = checkpoint_of(job).unwrap_err();
            assert_eq!((status.code(), status::reason_of(&status)), (Code::FailedPrecondition, Some(reason)));
            assert!(status.message().contains(text), "{status}");
        }
    }

    #[test]
    fn violations_name_their_fields() {
        let convert = ConvertSpec { opset: 5, ..ConvertSpec::default() };
        let wrong =
            validator()(&JobSpec { kind: Some(Kind::Convert(convert)) }, &runtime_core::jobs::Checks::default());
        let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["spec.convert.checkpoint", "spec.convert.evaluation", "spec.convert.opset"]);
    }
}
