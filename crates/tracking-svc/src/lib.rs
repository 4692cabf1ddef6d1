//! The tracking service: runs, parameters, metrics with history, tags and artifacts, over gRPC and the MLflow REST API.
//!
//! Both faces are of one store: a run made over gRPC is resumed by an unmodified `mlflow` client, and what that client logs is read back
//! over gRPC. Every Quintet job has such a run; its id is the job's uid, and its artifact URI `mlflow-artifacts:/jobs/<uid>`, so that the
//! job's outputs list and download through the client (the mapping of paths is told in `artifacts::path`).

mod artifacts;
mod error;
mod filter;
mod model;
mod names;
mod rest;
mod service;
mod store;
mod validate;

use std::fmt;

use quintet_proto::v1::tracking_service_server::TrackingServiceServer;
use runtime_core::{
    artifacts::ArtifactStore,
    host::{self, Host},
    limited,
};

pub use artifacts::{Artifacts, FileInfo};
pub use error::Error;
pub use model::{
    Experiment, Lifecycle, Metric, ModelOutput, Page, Pair, RUN_KEY_TAG, RUN_NAME_TAG, Run, RunData, RunInfo,
    RunInputs, RunOutputs, RunStatus, ViewType,
};
pub use rest::router;
pub use store::{
    ExperimentSearch, LoggedModel, ModelSearch, ModelStatus, NewModel, NewRun, RunSearch, RunUpdate, Store, Tail,
};
pub use validate::Batch;

/// The version of MLflow whose protocol is spoken.
pub const MLFLOW_VERSION: &str = "3.18.0";

/// What the service is built from.
#[derive(Clone)]
pub struct Options {
    /// The database: `sqlite:///PATH` or `postgresql://...` (with `schema=NAME` for a schema of its own).
    pub database: String,
    /// The artifact store, the same as that of the jobs.
    pub artifacts: ArtifactStore,
    /// Size in bytes that one artifact may have.
    pub max_artifact_bytes: u64,
}

impl Options {
    /// Options with the default limit of 64 GiB for an artifact.
    pub fn new(database: impl Into<String>, artifacts: ArtifactStore) -> Self {
        Self { database: database.into(), artifacts, max_artifact_bytes: 64 << 30 }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("database", &runtime_core::db::redact(&self.database))
            .field("artifacts", &self.artifacts)
            .field("max_artifact_bytes", &self.max_artifact_bytes)
            .finish()
    }
}

/// The service; clones share the store.
#[derive(Clone, Debug)]
pub struct Tracking {
    store: Store,
    artifacts: Artifacts,
}

/// Opens the store and builds the service. Blocks.
///
/// # Errors
/// The database cannot be opened, or a newer version made it.
pub fn build(options: Options) -> Result<Tracking, Error> {
    let store = Store::open(&options.database)?;
    Ok(Tracking { store, artifacts: Artifacts::new(options.artifacts, options.max_artifact_bytes) })
}

impl Tracking {
    /// The store behind both faces.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The artifacts behind the REST API.
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// The MLflow REST API, to be merged into a server's routes.
    pub fn router(&self) -> axum::Router {
        rest::router(self.clone())
    }

    /// The gRPC service, to be added to a server.
    pub fn grpc_service(&self) -> TrackingServiceServer<Tracking> {
        TrackingServiceServer::new(self.clone())
    }
}

/// Mounts both faces on a host; the store is the host's database `tracking`, the artifacts are the host's own.
///
/// # Errors
/// The database cannot be opened, or a newer version made it; the host's options are wrong.
pub async fn mount(host: Host) -> Result<Host, host::Error> {
    let server = host.config().server_options()?;
    let mut options = Options::new(host.database_url("tracking")?, host.artifacts().clone());
    options.max_artifact_bytes = server.upload_bytes;
    let failed = |message: String| host::Error::Mount { service: "tracking", message };
    let built = tokio::task::spawn_blocking(move || build(options)).await;
    let built = built.map_err(|error| failed(error.to_string()))?;
    let tracking = built.map_err(|error| failed(runtime_core::status::chain(&error)))?;
    Ok(host.service(limited!(tracking.grpc_service(), server)).http(tracking.router()))
}
