//! What every Quintet service shares: the durable job runtime, workers, artifacts, backup, configuration, telemetry and the server.

pub mod db;
pub mod status;
