//! The worker's side: claims an attempt, keeps its lease, hands the engine what it needs and publishes what it leaves.
//!
//! A worker program calls [`run_launched`] with its engine, a blocking function over a [`Context`]; a service that works in
//! its own process calls [`serve`] with an async one. The lease, its heartbeats and the outcome are the same for both.

mod context;
mod hub;
mod inputs;
mod keeper;
mod launched;
mod serve;

pub use context::{Context, Done, Failure, WorkResult};
pub use launched::{LaunchOptions, run_launched};
pub use serve::{ServeOptions, serve};

/// Environment variables that a supervisor sets for the worker programs it starts.
pub mod environment {
    /// Address of the server.
    pub const SERVER: &str = "QUINTET_SERVER";
    /// Name of the job.
    pub const JOB: &str = "QUINTET_JOB";
    /// Attempt to claim.
    pub const ATTEMPT: &str = "QUINTET_ATTEMPT";
    /// Name of the worker.
    pub const WORKER: &str = "QUINTET_WORKER";
    /// Folder of the attempt.
    pub const WORK_DIR: &str = "QUINTET_WORK_DIR";
    /// Folder of the job that its attempts share.
    pub const JOB_DIR: &str = "QUINTET_JOB_DIR";
    /// Folder of fetched inputs that workers of this machine share.
    pub const CACHE_DIR: &str = "QUINTET_CACHE_DIR";
    /// CPUs that the attempt may use.
    pub const CPUS: &str = "QUINTET_CPUS";
    /// Token to show to the server.
    pub const TOKEN: &str = "QUINTET_TOKEN";
}
