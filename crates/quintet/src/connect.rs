//! The server that a command uses: one elsewhere, or all services in this process.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use quintet_proto::v1::ListJobsRequest;
use runtime_core::{
    client::{self, Connection, JobClient},
    config::{Config, Loader, Secret},
    host, telemetry,
};

use crate::{cli::Target, failure::Failure, serve};

/// How long a server that was reached before may be away.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long a server may take to be there at first.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);

/// A server that answers.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) connection: Connection,
    /// Folder of the embedded server; none for one elsewhere.
    pub(crate) data_dir: Option<PathBuf>,
    embedded: Option<serve::Embedded>,
    telemetry: Option<telemetry::Guard>,
}

impl Server {
    /// Connects to the server of the flags, or starts one here; that one starts workers only `to_work`.
    ///
    /// # Errors
    /// Usage for a wrong configuration or address, unreachable when nothing answers.
    pub(crate) async fn open(target: &Target, to_work: bool) -> Result<Self, Failure> {
        let server = target.server();
        let config = load_config(target.config.as_deref(), |mut loader| {
            if let Some(folder) = &target.data_dir {
                loader = loader.set("data_dir", folder.to_string_lossy());
            }
            match (&server, to_work) {
                (None, true) => loader.set("listen", "127.0.0.1:0"),
                (None, false) => loader.set("listen", "127.0.0.1:0").set("worker.enabled", "false"),
                _ => loader,
            }
        })?;
        let telemetry = telemetry::init(&config, "quintet").map_err(|error| Failure::usage(error.to_string()))?;
        let token = token(target, &config, server.is_none())?;
        let data_dir = config.data_dir.clone();
        let (url, embedded) = match server {
            Some(url) => (url, None),
            None => {
                let embedded = Box::pin(serve::Embedded::start(config)).await.map_err(|error| {
                    // A service that cannot be built says by itself what to do.
                    let hint = match error.downcast_ref() {
                        Some(host::Error::Mount { .. }) => "",
                        _ => "\nif a server runs on this folder already, name it with --server",
                    };
                    Failure::failed(format!("the services cannot start on {}: {error:#}{hint}", data_dir.display()))
                })?;
                (embedded.url(), Some(embedded))
            }
        };
        let connection = client::connect(&url, token.as_ref()).map_err(|error| Failure::usage(error.to_string()))?;
        let data_dir = embedded.is_some().then_some(data_dir);
        let server = Self { url, connection, data_dir, embedded, telemetry: Some(telemetry) };
        match server.reach().await {
            Ok(()) => Ok(server),
            Err(failure) => {
                let context = format!("server {}", server.url);
                server.close().await;
                Err(failure.context(context))
            }
        }
    }

    async fn reach(&self) -> Result<(), Failure> {
        let client = JobClient::new(self.connection.clone(), FIRST_PATIENCE);
        let mut backoff = client::Backoff::default();
        let start = tokio::time::Instant::now();
        loop {
            match client.raw().list_jobs(ListJobsRequest { page_size: 1, ..ListJobsRequest::default() }).await {
                Ok(_) => return Ok(()),
                Err(status) if client::is_transient(&status) && start.elapsed() < FIRST_PATIENCE => {
                    backoff.pause().await
                }
                Err(status) => return Err(status.into()),
            }
        }
    }

    /// A client of jobs that waits for a server that went away.
    pub(crate) fn jobs(&self) -> JobClient {
        JobClient::new(self.connection.clone(), PATIENCE)
    }

    /// Ends the embedded server, if there is one, and sends what is left of traces.
    pub(crate) async fn close(mut self) {
        if let Some(embedded) = self.embedded.take()
            && let Err(error) = Box::pin(embedded.shutdown()).await
        {
            eprintln!("warning: {error:#}");
        }
        if let Some(telemetry) = self.telemetry.take() {
            telemetry.shutdown().await;
        }
    }
}

/// The configuration of file, environment and `flags`.
///
/// # Errors
/// The configuration's own exit code, naming file or variable and key.
pub(crate) fn load_config(file: Option<&Path>, flags: impl FnOnce(Loader) -> Loader) -> Result<Config, Failure> {
    let mut loader = Loader::new();
    if let Some(file) = file {
        loader = loader.file(file);
    }
    loader = loader.environment();
    // Progress and results are what this program is to show; the services' own news only when asked for.
    if std::env::var_os("QUINTET_LOG__LEVEL").is_none() {
        loader = loader.set("log.level", "warn");
    }
    flags(loader).load().map_err(|error| Failure { code: error.exit_code(), message: error.to_string() })
}

fn token(target: &Target, config: &Config, embedded: bool) -> Result<Option<Secret>, Failure> {
    if let Some(file) = &target.token_file {
        let text =
            std::fs::read_to_string(file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
        return match text.lines().map(str::trim).find(|line| !line.is_empty()) {
            Some(token) => Ok(Some(Secret::new(token))),
            None => Err(Failure::usage(format!("{}: holds no token", file.display()))),
        };
    }
    if let Some(token) = &config.token {
        return Ok(Some(token.clone()));
    }
    // An embedded server asks for its own tokens.
    let tokens = config.tokens().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(if embedded { tokens.into_iter().next() } else { None })
}
