//! The configuration of every program: one typed tree, from defaults, a file, the environment and flags, later ones winning.
//!
//! The file is TOML (`quintet.toml`, or what `--config` or `QUINTET_CONFIG` names). A variable is `QUINTET_` and the key in capitals, with two
//! underscores between the levels: `QUINTET_LIMITS__UPLOAD=2GiB` is `limits.upload`. Lists may be written with commas. The documentation
//! of each field here is its manual.

mod args;
mod load;
mod secret;
#[cfg(test)]
mod tests;
mod tree;
mod units;

pub use args::ConfigArgs;
pub use load::{Error, Loader, RESERVED};
pub use secret::{MASK, Secret, SecretUrl};
pub use tree::{
    Artifacts, Auth, Backup, Config, Database, Endpoints, Hpo, Lease, Limits, Log, LogFormat, Service, Shutdown,
    StudySync, Telemetry, Tls, Worker,
};
pub use units::{ByteSize, Duration};
