//! The order in which a keeper's reports arrive.

use std::sync::Arc;

use quintet_proto::v1::{
    ClaimJobsRequest, ClaimJobsResponse, FinishJobResponse, HeartbeatResponse, Job,
    worker_service_server::{WorkerService, WorkerServiceServer},
};
use tokio::{net::TcpListener, sync::Notify};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, transport::Server};

use super::*;
use crate::{
    artifacts::ArtifactStore,
    client::{self, JobClient},
    worker::context::{Failure, Folders},
};

/// Answers the first heartbeat only when it has waited long for an outcome to overtake it.
#[derive(Clone, Default)]
struct SlowToHear {
    heard: Arc<Notify>,
    finished: Arc<Notify>,
    log: Arc<std::sync::Mutex<Vec<u8>>>,
}

#[tonic::async_trait]
impl WorkerService for SlowToHear {
    async fn claim_jobs(&self, _: Request<ClaimJobsRequest>) -> Result<Response<ClaimJobsResponse>, Status> {
        Err(Status::unimplemented("nothing to claim"))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        self.heard.notify_one();
        if tokio::time::timeout(Duration::from_millis(300), self.finished.notified()).await.is_ok() {
            return Err(Status::aborted("the attempt has ended"));
        }
        self.log.lock().unwrap().extend(request.into_inner().log);
        Ok(Response::new(HeartbeatResponse::default()))
    }

    async fn finish_job(&self, request: Request<FinishJobRequest>) -> Result<Response<FinishJobResponse>, Status> {
        self.finished.notify_one();
        self.log.lock().unwrap().extend(request.into_inner().log);
        Ok(Response::new(FinishJobResponse::default()))
    }
}

#[tokio::test]
async fn the_outcome_does_not_overtake_a_report() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = SlowToHear::default();
    let serving = Server::builder().add_service(WorkerServiceServer::new(service.clone()));
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    let connection = client::connect(&address.to_string(), None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(&format!("file://{}", folder.path().display())).unwrap();
    let jobs = JobClient::new(connection.clone(), Duration::ZERO);
    let inputs = Inputs::new(jobs, store, folder.path().join("cache"));
    let folders = Folders { work_dir: folder.path().join("work"), job_dir: folder.path().join("job") };
    let job = Job { name: "jobs/a".into(), attempt: 1, ..Job::default() };
    let context = Context::new(job, 1, String::new(), folders, inputs);
    let keeper = Arc::new(Keeper::new(WorkerServiceClient::new(connection), context.clone(), Duration::from_secs(30)));
    let done = CancellationToken::new();
    let beats = tokio::spawn({
        let (keeper, done) = (keeper.clone(), done.clone());
        async move { keeper.keep(done).await }
    });

    context.log("the first line");
    context.0.wake.notify_one();
    service.heard.notified().await;
    keeper.finish(Err(Failure::user(crate::status::ErrorReason::BadInput, "of no use"))).await;
    done.cancel();
    beats.await.unwrap();

    let log = String::from_utf8(service.log.lock().unwrap().clone()).unwrap();
    assert_eq!(log, "the first line\nfailed: of no use\n");
}
