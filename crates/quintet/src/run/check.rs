//! The server's own check of every stage, before the first one is submitted.

use std::collections::BTreeMap;

use quintet_proto::v1::{CreateJobRequest, job_spec::Kind};
use runtime_core::{client::JobClient, status::violations_of};
use tonic::{Code, Status};

use crate::{
    failure::{Failure, UNREACHABLE},
    pipeline::{Pipeline, Problem, Stage},
};

/// Stands for a job that does not exist yet.
const NOT_YET: &str = "jobs/00000000000000000000000000000000";

/// Names of jobs that stand for those to come, by stage.
pub(super) fn not_yet(pipeline: &Pipeline) -> BTreeMap<String, String> {
    pipeline.stages.iter().map(|stage| (stage.name.clone(), NOT_YET.to_owned())).collect()
}

/// Asks the server about each stage without creating anything; every problem is told with its line in the file.
///
/// # Errors
/// Usage with all problems, or unreachable.
pub(crate) async fn check(client: &JobClient, pipeline: &Pipeline) -> Result<(), Failure> {
    let jobs = not_yet(pipeline);
    let mut problems = Vec::new();
    for stage in &pipeline.stages {
        let mut job = stage.job(pipeline, &jobs).map_err(|error| Failure::usage(error.to_string()))?;
        let sweep = stage.config_from.as_ref().and_then(|from| pipeline.stage(&from.sweep));
        if let (Some(sweep), Some(Kind::Command(command))) =
            (sweep, job.spec.as_mut().and_then(|spec| spec.kind.as_mut()))
        {
            // The names are known; the values are not, and nobody checks them.
            command.parameters.extend(sweep.tuned().into_iter().map(|name| (name, String::new())));
        }
        let request_id = uuid::Uuid::new_v4().to_string();
        let request = CreateJobRequest { job: Some(job), request_id, validate_only: true, force: false };
        match Box::pin(client.create(request)).await {
            Ok(_) => {}
            Err(status) if status.code() == Code::Unavailable => {
                return Err(Failure { code: UNREACHABLE, message: status.message().to_owned() });
            }
            Err(status) => problems.extend(located(pipeline, stage, &status, true)),
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Failure::usage(problems.join("\n"))),
    }
}

/// The problems that a refusal names, with their places in the file. With `early` what depends on jobs that are not there yet is left out.
pub(crate) fn located(pipeline: &Pipeline, stage: &Stage, status: &Status, early: bool) -> Vec<String> {
    let depends = early && stage.needs().next().is_some();
    let violations = violations_of(status);
    if violations.is_empty() {
        if depends && status.code() != Code::Internal {
            return Vec::new();
        }
        let path = format!("stages.{}", stage.name);
        return vec![Problem::new(stage.place, path, status.message()).text(&pipeline.file)];
    }
    let told = violations.into_iter().filter(|(field, _)| !(depends && stage.is_open(field)));
    told.map(|(field, description)| {
        let (place, path) = stage.locate(&field);
        Problem::new(place, path, description).text(&pipeline.file)
    })
    .collect()
}
