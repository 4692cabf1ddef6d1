//! The service on real sockets: the REST API as bytes, the gRPC service, and the unmodified mlflow client against both.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests

mod grpc;
mod mlflow_client;
mod rest;

use std::{future::IntoFuture as _, net::SocketAddr};

use runtime_core::artifacts::ArtifactStore;
use tracking_svc::{Options, Tracking};

/// A served tracking service on a folder of its own.
struct Service {
    tracking: Tracking,
    artifacts: ArtifactStore,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

/// Starts the REST API with this limit for an artifact.
async fn serve(max_artifact_bytes: u64) -> Service {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = ArtifactStore::open(&folder.path().join("artifacts").display().to_string()).unwrap();
    let database = format!("sqlite://{}/tracking.db", folder.path().display());
    let options = Options { max_artifact_bytes, ..Options::new(database, artifacts.clone()) };
    let tracking = tracking_svc::build(options).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, tracking.router()).into_future());
    Service { tracking, artifacts, address, _folder: folder }
}
