//! `quintet run`: submits the stages of a pipeline and brings back their results.

mod best;
mod check;
mod final_training;
pub(crate) mod follow;
mod interrupt;
mod plan;
pub(crate) mod view;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use quintet_proto::v1::{
    CreateJobRequest, EnsureExperimentRequest, FinalTrainingMode, Job, JobState,
    tracking_service_client::TrackingServiceClient,
};
use runtime_core::{client::JobClient, jobs::model::uid_for_request};
use tonic::Code;

pub(crate) use interrupt::Interrupts;

use self::{
    follow::Followed,
    interrupt::Signal,
    view::{StageView, View},
};
use crate::{
    cli::RunArgs,
    connect::Server,
    failure::Failure,
    pipeline::{self, Pipeline, Stage},
    report::{
        assemble,
        document::{self, Document},
        table,
    },
};

/// Runs a pipeline.
///
/// # Errors
/// The failure with its exit code; results so far are written all the same.
pub(crate) async fn run(args: RunArgs) -> Result<(), Failure> {
    let pipeline = pipeline::load(&args.pipeline, &args.set).map_err(Failure::usage)?;
    for note in &pipeline.notes {
        eprintln!("note: {}", note.text(&pipeline.file));
    }
    if let Some(folder) = args.json.as_deref().and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty()) {
        let context = |error| Failure::usage(format!("--json: {}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(context)?;
    }
    let mut interrupts = Interrupts::new()?;
    let server = tokio::select! {
        server = Box::pin(Server::open(&args.target, true)) => server?,
        signal = interrupts.next() => return Err(stopped(signal)),
    };
    let result = Box::pin(on(&server, &pipeline, &args, &mut interrupts)).await;
    server.close().await;
    result
}

fn stopped(signal: Signal) -> Failure {
    let message = match signal {
        Signal::Interrupt => "interrupted",
        Signal::Terminate => "terminated; run the same command again to go on",
    };
    Failure { code: signal.code(), message: message.into() }
}

async fn on(server: &Server, pipeline: &Pipeline, args: &RunArgs, interrupts: &mut Interrupts) -> Result<(), Failure> {
    let client = server.jobs();
    let checked = async {
        Box::pin(check::check(&client, pipeline)).await?;
        Box::pin(plan::check(&server.connection, pipeline, args.check)).await
    };
    tokio::select! {
        checked = checked => checked?,
        signal = interrupts.next() => return Err(stopped(signal)),
    }
    if args.check {
        eprintln!("{}: {} stages, no problems", pipeline.file, pipeline.stages.len());
        return Ok(());
    }
    let start = (Instant::now(), jiff::Timestamp::now());
    let mut runner = Runner { server, client, pipeline, force: args.force, done: Vec::new() };
    let result = Box::pin(runner.stages(interrupts)).await;
    let document = runner.document(start, &result);
    let written = document.and_then(|document| {
        println!("\n{}", table::summary(&document));
        if let Some(path) = &args.json {
            let context =
                |error| Failure::failed(format!("the results cannot be written to {}: {error}", path.display()));
            document.write(path).map_err(context)?;
        }
        Ok(document)
    });
    // What went wrong first is what is told; of two failures the stage's.
    result?;
    further(server, &written?).await;
    Ok(())
}

/// A stage whose job has ended.
struct Done {
    stage: String,
    job: Job,
    /// The job that did the work: another one when that was reused.
    worked: Job,
}

struct Runner<'a> {
    server: &'a Server,
    client: JobClient,
    pipeline: &'a Pipeline,
    force: bool,
    done: Vec<Done>,
}

impl Runner<'_> {
    async fn stages(&mut self, interrupts: &mut Interrupts) -> Result<(), Failure> {
        let view = View::new();
        let width = self.pipeline.stages.iter().map(|stage| stage.name.chars().count()).max().unwrap_or_default();
        let shown: Vec<_> = self.pipeline.stages.iter().map(|stage| (stage, view.stage(&stage.name, width))).collect();
        for (stage, view) in &shown {
            let job = tokio::select! {
                job = Box::pin(self.submit(stage, view)) => job?,
                signal = interrupts.next() => return Err(stopped(signal)),
            };
            let (job, signal) = match Box::pin(follow::follow(&self.client, &job, view, interrupts)).await? {
                Followed::Ended(job) => (job, None),
                Followed::Stopped(signal, Some(job)) => (job, Some(signal)),
                Followed::Stopped(signal, None) => return Err(stopped(signal)),
            };
            view.ended(&job);
            let failed = (job.state() != JobState::Succeeded).then(|| follow::explained(&job));
            self.keep(stage, job).await?;
            match (signal, failed) {
                (Some(signal), _) => return Err(stopped(signal)),
                (None, Some(explained)) => return Err(Failure::failed(format!("stage `{}`: {explained}", stage.name))),
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Creates the job of a stage, or finds the one that does or did the same work.
    async fn submit(&self, stage: &Stage, view: &StageView) -> Result<Job, Failure> {
        // Named by the job that did the work: names stand in specifications, and so in the hash that finds equal work.
        let jobs: BTreeMap<String, String> =
            self.done.iter().map(|done| (done.stage.clone(), done.worked.name.clone())).collect();
        let mut job = stage.job(self.pipeline, &jobs).map_err(|error| Failure::failed(error.to_string()))?;
        let mut origin = final_training::Origin::default();
        if let Some(from) = &stage.config_from {
            let request = from.request(&self.study(&from.sweep)?);
            let context =
                |failure: Failure| failure.context(format!("stage `{}`: config_from: {}", stage.name, from.sweep));
            let applied = best::apply(&self.server.connection, request, &mut job).await.map_err(context)?;
            applied.reasons.iter().for_each(|reason| view.note(reason));
            let sweep = self.done.iter().find(|done| done.stage == from.sweep).map(|done| done.worked.name.clone());
            origin = final_training::Origin { best_config: applied.best_config, sweep: sweep.unwrap_or_default() };
        }
        if let Ok(plan) = Box::pin(plan::of(&self.server.connection, &job)).await {
            plan::brief(&plan).iter().for_each(|line| view.note(line));
        }
        let mut force = self.force;
        if let Some(mut wanted) = stage.final_training {
            if self.force && wanted.variant == 0 {
                wanted.mode = FinalTrainingMode::ForceNew;
            }
            let decided = final_training::decide(&self.server.connection, wanted, origin, &mut job).await;
            let decided = decided.map_err(|status| final_training::told(self.pipeline, stage, &status))?;
            view.note(&decided.reason);
            if let Some(found) = decided.found {
                return Ok(self.client.get(&found).await?);
            }
            force = true;
        }
        // One id for all repetitions of this call: a lost answer does not make a second job.
        let request_id = uuid::Uuid::new_v4().to_string();
        let own = uid_for_request(&request_id);
        let request = CreateJobRequest { job: Some(job), request_id, validate_only: false, force };
        match Box::pin(self.client.create(request)).await {
            Ok(job) => {
                if job.uid != own {
                    eprintln!("{}: {} does the same work already; following it", stage.name, job.name);
                }
                Ok(job)
            }
            Err(status) if status.code() == Code::InvalidArgument => {
                Err(Failure::usage(check::located(self.pipeline, stage, &status, false).join("\n")))
            }
            Err(status) => Err(Failure::from(status).context(format!("stage `{}`", stage.name))),
        }
    }

    fn study(&self, sweep: &str) -> Result<String, Failure> {
        let done = self.done.iter().find(|done| done.stage == sweep);
        let report = done.and_then(|done| done.job.outputs.as_ref()).and_then(|outputs| outputs.report.clone());
        let report = serde_json::to_value(report.unwrap_or_default()).unwrap_or_default();
        match report.get("study").and_then(|study| study.as_str()) {
            Some(study) => Ok(study.to_owned()),
            None => Err(Failure::failed(format!("the report of stage `{sweep}` names no study"))),
        }
    }

    /// Remembers an ended job, and the one that did its work.
    async fn keep(&mut self, stage: &Stage, job: Job) -> Result<(), Failure> {
        let mut worked = job.clone();
        while !worked.reused_from.is_empty() {
            match self.client.get(&worked.reused_from).await {
                Ok(earlier) => worked = earlier,
                // It may have been deleted; its outputs are still those of this job.
                Err(status) if status.code() == Code::NotFound => break,
                Err(status) => return Err(status.into()),
            }
        }
        self.done.push(Done { stage: stage.name.clone(), job, worked });
        Ok(())
    }

    fn document(&self, start: (Instant, jiff::Timestamp), result: &Result<(), Failure>) -> Result<Document, Failure> {
        let stages = self.done.iter().map(|done| assemble::stage(&done.stage, &done.job, &done.worked));
        let last = self.done.last().map(|done| done.job.state());
        let state = match (result, last) {
            (Ok(()), _) => "SUCCEEDED",
            (Err(failure), _) if failure.code >= crate::failure::INTERRUPTED => "INTERRUPTED",
            (Err(_), Some(JobState::Cancelled)) => "CANCELLED",
            (Err(_), _) => "FAILED",
        };
        Ok(Document {
            schema: document::SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pipeline: self.pipeline.name.clone(),
            file: self.pipeline.file.clone(),
            params: self.pipeline.params.clone(),
            experiment: self.pipeline.experiment.clone(),
            server: self.server.url.clone(),
            state: state.to_owned(),
            start_time: start.1.to_string(),
            seconds: start.0.elapsed().as_secs_f64(),
            stages: stages.collect::<Result<_, _>>().map_err(|error| Failure::failed(error.to_string()))?,
        })
    }
}

/// What to type next.
async fn further(server: &Server, document: &Document) {
    let address = "127.0.0.1:7700";
    let (flag, url) = match &server.data_dir {
        Some(folder) => (format!("--data-dir {}", folder.display()), format!("http://{address}")),
        None => (format!("--server {}", server.url), server.url.clone()),
    };
    let program = program();
    eprintln!("To look further:");
    eprintln!("  {program} jobs list {flag}");
    if server.data_dir.is_some() {
        eprintln!("  {program} serve {flag} --listen {address}    # then:");
    }
    // A server without tracking has no runs to show.
    let request = EnsureExperimentRequest { name: document.experiment.clone() };
    if let Ok(found) = TrackingServiceClient::new(server.connection.clone()).ensure_experiment(request).await {
        let id = found.into_inner().experiment_id;
        eprintln!("  MLFLOW_TRACKING_URI={url} mlflow runs list --experiment-id {id}");
    }
    let sweeps = document.stages.iter().filter_map(|stage| stage.sweep.as_ref());
    for sweep in sweeps {
        eprintln!("  {program} hpo show {} {flag}", sweep.study);
        if sweep.storage.is_empty() {
            continue;
        }
        eprintln!("  optuna trials --study-name {} --storage {}", sweep.study, sweep.storage);
    }
    for stage in &document.stages {
        for (name, artifact) in &stage.outputs {
            eprintln!("  {name} of {}: {}", stage.name, artifact.path.as_ref().unwrap_or(&artifact.uri));
        }
    }
}

/// This program as the user called it, shorter where it lies below the working folder.
fn program() -> String {
    let called = std::env::args_os().next().map_or_else(|| PathBuf::from("quintet"), PathBuf::from);
    let below = std::env::current_dir().ok().and_then(|folder| called.strip_prefix(folder).ok().map(Path::to_owned));
    below.unwrap_or(called).display().to_string()
}
