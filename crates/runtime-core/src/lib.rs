//! What every Quintet service shares: the durable job runtime, workers, artifacts, backup, configuration, telemetry and the server.

pub mod artifacts;
pub mod config;
pub mod db;
pub mod hashing;
pub mod jobs;
pub mod server;
pub mod status;
pub mod telemetry;
pub mod client;
pub mod worker;
pub mod tracker;
pub mod supervisor;
pub mod command;
