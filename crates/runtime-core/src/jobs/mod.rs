//! Durable jobs: the state machine, its store, and the services that speak for it.

pub mod engine;
pub mod model;
mod runtime;
pub mod store;

pub use runtime::{Clock, Jobs, LOCAL_WORKER, SystemClock};
