//! What every Quintet service shares: the durable job runtime, workers, artifacts, backup, configuration, telemetry and the server.

pub mod config;
pub mod db;
pub mod server;
pub mod status;
pub mod telemetry;
