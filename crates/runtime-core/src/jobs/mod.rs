//! Durable jobs: the state machine, its store, and the services that speak for it.

mod checks;
mod core;
pub mod engine;
pub mod follow;
mod hub;
pub mod inputs;
pub mod model;
mod runtime;
pub mod service;
pub mod store;
mod watch;
pub mod worker_service;

pub use checks::{Checks, Validator};
pub use runtime::{Clock, Jobs, LOCAL_WORKER, SystemClock};
pub use service::JobApi;
pub use worker_service::{Surroundings, WorkerApi};
