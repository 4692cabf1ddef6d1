//! The server under load: the job services alone, as `quintet serve` has them, in a process of their own.

use std::{path::Path, process::Command};

use anyhow::Context as _;
use quintet_tests::sandbox::Process;
use runtime_core::{
    config::{Config, Database, SecretUrl, Worker},
    db, host,
};

/// Set for the process that serves: the folder and, after a line feed, the URL of a database that is not a file in it.
pub(crate) const VARIABLE: &str = "QUINTET_BENCH_SERVE";

/// Starts the server.
pub(crate) fn start(folder: &Path, database: Option<&str>) -> anyhow::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(VARIABLE, format!("{}\n{}", folder.display(), database.unwrap_or_default()));
    Process::start(&mut command, &folder.join("ready"), &folder.join("log"))
}

/// The URL of its job store.
pub(crate) fn store(folder: &Path, database: Option<&str>) -> String {
    match database {
        Some(url) => db::with_schema(url, "jobs"),
        None => format!("sqlite://{}", folder.join("jobs.db").display()),
    }
}

/// Serves until it is killed.
pub(crate) fn serve(target: &str) -> anyhow::Result<()> {
    let (folder, database) = target.split_once('\n').context("no folder to serve")?;
    let url = Some(database).filter(|url| !url.is_empty()).map(SecretUrl::new);
    let config = Config {
        data_dir: folder.into(),
        listen: "127.0.0.1:0".into(),
        ready_file: Some(Path::new(folder).join("ready")),
        services: Vec::new(),
        database: Database { url },
        // The load's own workers claim over gRPC.
        worker: Worker { enabled: false, ..Worker::default() },
        ..Config::default()
    };
    host::serve(config, async |host| Ok(host))?;
    Ok(())
}
