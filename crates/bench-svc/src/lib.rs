//! Measures ONNX models: latency percentiles, throughput, processor time, load time and memory over batch sizes and
//! sequence lengths, in processes of their own, with the environment they ran in.
//!
//! [`benchmark`] measures and writes `benchmark.json` ([`report::Report`]) and `benchmark.md`. It starts one process for
//! each model by re-executing a program with the arguments of [`measure::Arguments`], whose `main` calls [`measure::run`]. [`service::mount`]
//! puts the service on a host, which starts without ONNX Runtime; [`worker::run`] is the job that `bench-svc worker` runs.

mod child;
mod clock;
mod engine;
mod environment;
mod error;
mod inputs;
mod markdown;
pub mod measure;
mod models;
mod protocol;
pub mod report;
pub mod service;
mod settings;
mod statistics;
pub mod worker;

pub use engine::{Observer, Request, benchmark};
pub use error::Error;
pub use models::Source;
pub use service::mount;
pub use settings::Settings;
