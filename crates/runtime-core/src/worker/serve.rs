//! Workers inside a service's process: claim jobs of light kinds and run each as an async task.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use quintet_proto::v1::{ClaimJobsRequest, Directive, Lease, worker_service_client::WorkerServiceClient};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    context::{Context, Failure, Folders, WorkResult},
    inputs::Inputs,
    keeper::{Keeper, describe},
};
use crate::{
    artifacts::ArtifactStore,
    client::{self, Backoff, Connection, JobClient},
    jobs::{
        LOCAL_WORKER,
        model::{duration_ms, proto_duration},
    },
    server::Drain,
    status::ErrorReason,
};

/// What a worker inside a service needs.
#[derive(Clone)]
pub struct ServeOptions {
    /// Connection to the server of the jobs.
    pub connection: Connection,
    /// Kinds to claim.
    pub kinds: Vec<String>,
    /// Folder under which each attempt works.
    pub data_dir: PathBuf,
    /// How long a child job's server may stay away.
    pub patience: Duration,
}

/// Claims and runs jobs until the drain begins; then asks those that run to stop and gives them back.
pub async fn serve<F, W>(options: ServeOptions, drain: Drain, work: F)
where
    F: Fn(Context) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = WorkResult> + Send + 'static,
{
    let client = WorkerServiceClient::new(options.connection.clone())
        .max_decoding_message_size(client::MAX_MESSAGE)
        .max_encoding_message_size(client::MAX_MESSAGE);
    let tasks = TaskTracker::new();
    let mut backoff = Backoff::default();
    let request = ClaimJobsRequest {
        worker: format!("{LOCAL_WORKER}{}", options.kinds.join("+")),
        kinds: options.kinds.clone(),
        max_jobs: 8,
        wait: Some(proto_duration(30_000)),
        ..ClaimJobsRequest::default()
    };
    loop {
        let mut caller = client.clone();
        let answer = tokio::select! {
            answer = caller.claim_jobs(request.clone()) => answer,
            () = drain.begun() => break,
        };
        match answer {
            Ok(answer) => {
                backoff.reset();
                for lease in answer.into_inner().leases {
                    tasks.spawn(attempt(client.clone(), options.clone(), lease, drain.clone(), work.clone()));
                }
            }
            Err(status) => {
                tracing::debug!(%status, "claiming failed");
                tokio::select! {
                    () = backoff.pause() => {}
                    () = drain.begun() => break,
                }
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn attempt<F, W>(
    client: WorkerServiceClient<Connection>,
    options: ServeOptions,
    lease: Lease,
    drain: Drain,
    work: F,
) where
    F: Fn(Context) -> W,
    W: Future<Output = WorkResult> + Send + 'static,
{
    let job = lease.job.unwrap_or_default();
    let store = match ArtifactStore::open(&lease.artifact_store) {
        Ok(store) => store,
        Err(error) => {
            // Without a store nothing can be published; the lease runs out and another worker tries.
            tracing::error!(error = describe(&error), "cannot open the artifact store");
            return;
        }
    };
    let job_dir = options.data_dir.join("work").join(&job.uid);
    let folders = Folders { work_dir: job_dir.join(format!("attempt-{}", job.attempt)), job_dir };
    let inputs =
        Inputs::new(JobClient::new(options.connection, options.patience), store, options.data_dir.join("cache"));
    let term = Duration::from_millis(lease.term.as_ref().map_or(30_000, duration_ms).max(1).unsigned_abs());
    let context = Context::new(job, 1, lease.tracking_uri, folders, inputs);
    let keeper = Arc::new(Keeper::new(client, context.clone(), term));
    let done = CancellationToken::new();
    let beats = tokio::spawn({
        let (keeper, done) = (keeper.clone(), done.clone());
        async move { keeper.keep(done).await }
    });
    let mut running = tokio::spawn(work(context.clone()));
    let result = tokio::select! {
        result = &mut running => Some(result),
        () = drain.begun() => {
            context.set_directive(Directive::Cancel);
            tokio::time::timeout(Duration::from_secs(5), running).await.ok()
        }
    };
    let result = result
        .map(|result| result.unwrap_or_else(|panic| Err(Failure::infrastructure(ErrorReason::WorkerCrashed, panic))));
    if let Some(result) = result {
        keeper.finish(result).await;
    }
    done.cancel();
    let _ = beats.await;
}
