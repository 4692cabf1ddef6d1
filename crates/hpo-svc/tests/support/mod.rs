//! What the tests over a real server share.

use std::path::Path;

use runtime_core::config::{Config, Service};

/// The sweep service on a folder and a free port, as `quintet serve --services hpo` has it; without workers and backup.
pub(crate) fn config(folder: &Path) -> Config {
    let mut config = Config {
        data_dir: folder.join("data"),
        listen: "127.0.0.1:0".into(),
        services: vec![Service::Hpo],
        ..Config::default()
    };
    config.worker.enabled = false;
    config.backup.enabled = false;
    config
}
