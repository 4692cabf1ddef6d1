//! `CreateFinalTraining`: looks for the earlier trainings of the same content, decides, and creates the job if one is needed.

use quintet_proto::v1::{
    CreateFinalTrainingRequest, CreateFinalTrainingResponse, CreateJobRequest, FinalTrainingAction, Job, JobSpec,
    JobState, ListJobsRequest, SourceCheckpoint, TrainSpec, job_spec::Kind, source_checkpoint::Source,
};
use runtime_core::{
    jobs::{
        inputs::Location,
        model::{RESUME_FROM, is_terminal, job_kind, job_name, millis, uid_for_request, uid_of},
    },
    status::{self, ErrorReason, in_fields_of_kind, violation},
};
use serde_json::Value;
use tonic::{Code, Status};

use crate::{
    data,
    final_training::{Action, Decision, Earlier, Standing, VARIANT, decide, lineage},
    request::LAST_GOOD,
    service::TrainingApi,
};

impl TrainingApi {
    /// Creates a final training, or finds the one that takes its place.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` by field, `FAILED_PRECONDITION` when the source cannot be used, and the job service's.
    pub(crate) async fn create_final(
        &self,
        request: CreateFinalTrainingRequest,
        best_config: Value,
    ) -> Result<CreateFinalTrainingResponse, Status> {
        let mode = request.mode();
        let variant = u32::try_from(request.variant)
            .map_err(|_| status::invalid_field("variant", format!("found {}, expected 0 or more", request.variant)))?;
        let mut spec = request.spec.unwrap_or_default();
        let source = self.put_source(request.source, &mut spec).await?;
        if spec.metrics_only {
            return Err(status::invalid_field("spec.metrics_only", "a final training leaves a checkpoint"));
        }
        let held_out = {
            let spec = spec.clone();
            tokio::task::spawn_blocking(move || data::holds_out(&spec)).await.ok().flatten()
        };
        let mut own = lineage(source.as_ref(), &best_config, &request.sweep, held_out);
        let mut labels = request.labels;
        labels.extend(own.clone());
        let display_name = match request.display_name.as_str() {
            "" => "final-training".to_owned(),
            name => name.to_owned(),
        };
        let mut job = Job {
            display_name,
            spec: Some(JobSpec { kind: Some(Kind::Train(spec)) }),
            labels,
            experiment: request.experiment,
            ..Job::default()
        };
        if let Some(answer) = self.answered(&request.request_id).await? {
            return Ok(answer);
        }
        // The server of the jobs checks the specification and knows the digests of its inputs.
        let check = |job: &Job| CreateJobRequest {
            job: Some(job.clone()),
            request_id: format!("{:032x}", u128::MAX),
            validate_only: true,
            force: true,
        };
        let hash = Box::pin(self.jobs.create(check(&job)))
            .await
            .map_err(|refused| in_fields_of_kind(refused, "train"))?
            .content_hash;
        let earlier = self.earlier(&hash).await?;
        let (decision, count) = self.decided(mode, (variant > 0).then_some(variant), earlier).await?;
        let Decision { action, variant, reason } = decision;
        let (done, name) = match action {
            Action::Reuse(name) => (FinalTrainingAction::Reused, name),
            Action::Follow(name) => (FinalTrainingAction::Followed, name),
            Action::Create | Action::Resume(_) => {
                own.insert(VARIANT.into(), variant.to_string());
                let mut done = FinalTrainingAction::Created;
                if let Action::Resume(from) = action {
                    // One that was never at work left nothing: what it was to go on with is still where it was.
                    let job = self.jobs.get(&from).await?;
                    let before = job.labels.get(RESUME_FROM).filter(|_| job.attempt == 0).cloned();
                    own.insert(RESUME_FROM.into(), before.unwrap_or(from));
                    done = FinalTrainingAction::Resumed;
                }
                job.labels.extend(own.clone());
                // Two callers that decide the same at once get the same job.
                let request_id = match request.request_id.as_str() {
                    "" => format!("final-training/{hash}/{variant}/{count}"),
                    given => given.to_owned(),
                };
                let validate_only = request.validate_only;
                let create = CreateJobRequest { job: Some(job), request_id, validate_only, force: true };
                (
                    done,
                    Box::pin(self.jobs.create(create))
                        .await
                        .map_err(|refused| in_fields_of_kind(refused, "train"))?
                        .name,
                )
            }
        };
        let variant = i32::try_from(variant).unwrap_or(i32::MAX);
        Ok(CreateFinalTrainingResponse { action: done.into(), job: name, variant, reason, labels: own })
    }

    /// The answer to a request that was answered before.
    async fn answered(&self, request_id: &str) -> Result<Option<CreateFinalTrainingResponse>, Status> {
        if request_id.is_empty() {
            return Ok(None);
        }
        match self.jobs.get(&job_name(&uid_for_request(request_id))).await {
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
            Ok(job) => {
                let resumed = job.labels.contains_key(RESUME_FROM);
                let action = if resumed { FinalTrainingAction::Resumed } else { FinalTrainingAction::Created };
                Ok(Some(CreateFinalTrainingResponse {
                    action: action.into(),
                    variant: i32::try_from(variant_of(&job)).unwrap_or(i32::MAX),
                    job: job.name,
                    reason: "the same request created it before".into(),
                    labels: job.labels,
                }))
            }
        }
    }

    /// Puts the checkpoint that a source names into the specification, when that job's outputs can be used. A checkpoint that is
    /// another job's output names its source by itself.
    async fn put_source(
        &self,
        source: Option<SourceCheckpoint>,
        spec: &mut TrainSpec,
    ) -> Result<Option<SourceCheckpoint>, Status> {
        let (field, job) = match source.as_ref().and_then(|source| source.source.as_ref()) {
            None => return self.source_of(&spec.checkpoint).await,
            Some(Source::Scratch(_)) => {
                return match Location::parse(&spec.checkpoint) {
                    Ok(Location::Output { .. }) => {
                        let problem =
                            format!("found beside spec.checkpoint `{}`, which a job has trained", spec.checkpoint);
                        Err(status::invalid_field("source.scratch", problem))
                    }
                    _ => Ok(source),
                };
            }
            Some(Source::BestSelected(job)) => ("source.best_selected", job),
            Some(Source::FinalTraining(job)) => ("source.final_training", job),
        };
        for (own, value) in [("checkpoint", &spec.checkpoint), ("backbone", &spec.backbone)] {
            if !value.is_empty() {
                let problem = format!("found `{value}`, but {field} names the weights to begin with; give one of them");
                return Err(status::invalid_field(format!("spec.{own}"), problem));
            }
        }
        if uid_of(job).is_none() {
            return Err(status::invalid_field(field, format!("{job:?} is not of the form jobs/{{uid}}")));
        }
        self.usable(field, job).await?;
        spec.checkpoint = format!("{job}/outputs/checkpoint");
        Ok(source)
    }

    async fn source_of(&self, checkpoint: &str) -> Result<Option<SourceCheckpoint>, Status> {
        let Ok(Location::Output { uid, output, .. }) = Location::parse(checkpoint) else { return Ok(None) };
        if !["checkpoint", LAST_GOOD].contains(&output.as_str()) {
            return Ok(None);
        }
        let job = self.jobs.get(&job_name(&uid)).await?;
        // The training that left the other one has failed, so there is nothing whole to look at.
        if output == "checkpoint" {
            self.usable("spec.checkpoint", &job.name).await?;
        }
        let source = match job_kind(&job) {
            "sweep" => Source::BestSelected(job.name),
            _ => Source::FinalTraining(job.name),
        };
        Ok(Some(SourceCheckpoint { source: Some(source) }))
    }

    async fn usable(&self, field: &str, job: &str) -> Result<(), Status> {
        match self.validated(job).await?.problems.first() {
            None => Ok(()),
            Some(problem) => {
                let text = format!("{field}: the checkpoint of {job} cannot be used: {problem}");
                Err(status::failed_precondition(ErrorReason::OutputMissing, job, text, [("field", field)]))
            }
        }
    }

    /// Trainings of that content which are no part of a sweep and did their work themselves.
    async fn earlier(&self, hash: &str) -> Result<Vec<Earlier>, Status> {
        let mut found = Vec::new();
        let mut request = ListJobsRequest { kind: "train".into(), page_size: 1000, ..ListJobsRequest::default() };
        loop {
            let page = self.jobs.raw().list_jobs(request.clone()).await?.into_inner();
            let own = page
                .jobs
                .iter()
                .filter(|job| job.content_hash == hash && job.parent.is_empty() && job.reused_from.is_empty());
            found.extend(own.map(|job| Earlier {
                job: job.name.clone(),
                variant: variant_of(job),
                created: job.create_time.as_ref().map_or(0, millis),
                standing: match job.state() {
                    JobState::Succeeded => Standing::Complete,
                    state if is_terminal(state) => Standing::Incomplete,
                    _ => Standing::Live,
                },
            }));
            if page.next_page_token.is_empty() {
                // The newest come first; of two of the same millisecond the newer one is to come last.
                found.reverse();
                return Ok(found);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// The decision, and how many trainings the number chosen has already. What would be reused is looked at first.
    async fn decided(
        &self,
        mode: quintet_proto::v1::FinalTrainingMode,
        variant: Option<u32>,
        mut earlier: Vec<Earlier>,
    ) -> Result<(Decision, usize), Status> {
        loop {
            let decision = decide(mode, variant, &earlier)
                .map_err(|error| status::invalid_argument([violation(error.field, error.problem)]))?;
            if let Action::Reuse(name) = &decision.action
                && let Some(problem) = self.validated(name).await?.problems.into_iter().next()
                && let Some(one) = earlier.iter_mut().find(|one| one.job == *name)
            {
                one.standing = Standing::Broken(problem);
                continue;
            }
            let count = earlier.iter().filter(|one| one.variant == decision.variant).count();
            return Ok((decision, count));
        }
    }
}

fn variant_of(job: &Job) -> u32 {
    job.labels.get(VARIANT).and_then(|text| text.parse().ok()).unwrap_or_default()
}
