//! What every Quintet service shares: the durable job runtime, workers, artifacts, backup, configuration, telemetry and the server.

pub mod artifacts;
pub mod backup;
pub mod client;
pub mod command;
pub mod config;
pub mod db;
pub mod hashing;
pub mod host;
pub use quintet_hub as hub;
pub mod jobs;
mod kept;
pub mod server;
pub mod status;
pub mod supervisor;
pub mod telemetry;
pub mod tracker;
pub mod worker;
