//! A worker process that was launched for one attempt.

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use quintet_proto::v1::{ClaimJobsRequest, Directive, worker_service_client::WorkerServiceClient};
use tokio_util::sync::CancellationToken;

use super::{
    context::{Context, Failure, Folders, WorkResult, io_failure},
    environment,
    inputs::Inputs,
    keeper::{Keeper, describe},
};
use crate::{
    artifacts::ArtifactStore,
    client::{self, JobClient},
    config::Secret,
    jobs::model::duration_ms,
    status::ErrorReason,
};

/// How a supervisor tells a worker program what to do.
#[derive(Args, Clone, Debug)]
pub struct LaunchOptions {
    /// Address of the server that launched this worker
    #[arg(long, env = environment::SERVER)]
    pub server: String,
    /// Job to run, `jobs/{uid}`
    #[arg(long, env = environment::JOB)]
    pub job: String,
    /// Attempt to claim
    #[arg(long, env = environment::ATTEMPT)]
    pub attempt: i32,
    /// Name under which to claim it
    #[arg(long, env = environment::WORKER)]
    pub worker: String,
    /// Folder of the attempt
    #[arg(long, env = environment::WORK_DIR)]
    pub work_dir: PathBuf,
    /// Folder of the job that its attempts share
    #[arg(long, env = environment::JOB_DIR)]
    pub job_dir: PathBuf,
    /// Folder of fetched inputs that workers of this machine share
    #[arg(long, env = environment::CACHE_DIR)]
    pub cache_dir: PathBuf,
    /// CPUs that the attempt may use
    #[arg(long, env = environment::CPUS, default_value_t = 1)]
    pub cpus: usize,
    /// Token to show to the server
    #[arg(long, env = environment::TOKEN, hide_env_values = true)]
    pub token: Option<String>,
}

/// A server that was just started may take a moment; one that has gone stays away.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time that an engine has to stop after SIGTERM or a lost lease before the process ends anyway.
const STOP_GRACE: Duration = Duration::from_secs(20);

/// Claims the attempt, runs the engine on a thread of its own, publishes and reports; returns the exit code of the process.
///
/// SIGTERM asks the engine to stop, and the attempt is given back.
pub fn run_launched(options: LaunchOptions, engine: impl FnOnce(&Context) -> WorkResult + Send + 'static) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start the worker: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(attempt(options, engine)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("worker: {failure}");
            ExitCode::FAILURE
        }
    };
    // An engine that does not obey must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn attempt(
    options: LaunchOptions,
    engine: impl FnOnce(&Context) -> WorkResult + Send + 'static,
) -> Result<(), Failure> {
    let token = options.token.map(Secret::new);
    let wrong = |error: &(dyn std::error::Error + 'static)| Failure::user(ErrorReason::InvalidField, describe(error));
    let connection = client::connect(&options.server, token.as_ref()).map_err(|error| wrong(&error))?;
    let client = WorkerServiceClient::new(connection.clone())
        .max_decoding_message_size(client::MAX_MESSAGE)
        .max_encoding_message_size(client::MAX_MESSAGE);
    let lease = claim(&client, &options.job, options.attempt, &options.worker).await?;
    let job = lease.job.unwrap_or_default();
    let term = Duration::from_millis(lease.term.as_ref().map_or(30_000, duration_ms).max(1).unsigned_abs());
    let store = ArtifactStore::open(&lease.artifact_store).map_err(|error| wrong(&error))?;
    fs::create_dir_all(&options.work_dir).map_err(|error| io_failure(&options.work_dir, &error))?;
    let inputs = Inputs::new(JobClient::new(connection, PATIENCE), store, options.cache_dir);
    let folders = Folders { work_dir: options.work_dir, job_dir: options.job_dir };
    let context = Context::new(job, options.cpus.max(1), lease.tracking_uri, folders, inputs);
    let keeper = std::sync::Arc::new(Keeper::new(client, context.clone(), term));
    let done = CancellationToken::new();
    let beats = tokio::spawn({
        let (keeper, done) = (keeper.clone(), done.clone());
        async move { keeper.keep(done).await }
    });
    let result = run_engine(&context, engine).await;
    if let Some(result) = result {
        keeper.finish(result).await;
    }
    done.cancel();
    let _ = beats.await;
    Ok(())
}

async fn claim(
    client: &WorkerServiceClient<client::Connection>,
    job: &str,
    attempt: i32,
    worker: &str,
) -> Result<quintet_proto::v1::Lease, Failure> {
    let request = ClaimJobsRequest { worker: worker.into(), job: job.into(), attempt, ..ClaimJobsRequest::default() };
    let start = Instant::now();
    let mut backoff = client::Backoff::default();
    loop {
        match client.clone().claim_jobs(request.clone()).await {
            Ok(answer) => {
                let lease = answer.into_inner().leases.into_iter().next();
                return lease
                    .ok_or_else(|| Failure::infrastructure(ErrorReason::LeaseLost, "the server gave no lease"));
            }
            Err(status) if client::is_transient(&status) && start.elapsed() < PATIENCE => backoff.pause().await,
            Err(status) => {
                return Err(Failure::infrastructure(ErrorReason::LeaseLost, format!("claiming {job}: {status}")));
            }
        }
    }
}

/// The engine's result; none when it did not stop although the lease is lost or the process has to end.
async fn run_engine(
    context: &Context,
    engine: impl FnOnce(&Context) -> WorkResult + Send + 'static,
) -> Option<WorkResult> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let engine_context = context.clone();
    let spawned = std::thread::Builder::new().name("engine".into()).stack_size(16 << 20).spawn(move || {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| engine(&engine_context)));
        let result = caught.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
            Err(Failure::infrastructure(ErrorReason::WorkerCrashed, format!("the engine panicked: {text}")))
        });
        // The process may be ending.
        let _ = sender.send(result);
    });
    if let Err(error) = spawned {
        return Some(Err(Failure::infrastructure(ErrorReason::Unavailable, format!("cannot start a thread: {error}"))));
    }
    let mut receiver = receiver;
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(signal) => signal,
        Err(error) => return Some(Err(Failure::infrastructure(ErrorReason::Unavailable, error))),
    };
    tokio::select! {
        result = &mut receiver => return Some(flatten(result)),
        _ = terminate.recv() => context.set_directive(Directive::Cancel),
        () = abandoned(context) => {}
    }
    tokio::time::timeout(STOP_GRACE, receiver).await.ok().map(flatten)
}

async fn abandoned(context: &Context) {
    while context.stop_requested().await != Directive::Abandon {
        // CANCEL and PRUNE are the engine's to obey; only a lost lease ends the wait for it.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn flatten(result: Result<WorkResult, tokio::sync::oneshot::error::RecvError>) -> WorkResult {
    result.unwrap_or_else(|_| Err(Failure::infrastructure(ErrorReason::WorkerCrashed, "the engine's thread has gone")))
}
