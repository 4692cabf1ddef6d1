//! Joins what a server is made of: configuration, jobs, artifacts, workers, and the services mounted on one port.
//!
//! `quintet serve` mounts every service on one host, a service's own program mounts itself: both are
//! `Host::open(config)`, a `mount` for each service, `Host::start`.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use quintet_proto::v1::{job_service_server::JobServiceServer, worker_service_server::WorkerServiceServer};

use crate::{
    artifacts::{self, ArtifactStore},
    backup::{self, BackupPolicy, OutputBackup},
    client::{self, Connection},
    command,
    config::{self, Config, Secret},
    db,
    jobs::{JobApi, Jobs, Surroundings, SystemClock, Validator, WorkerApi, follow::follow},
    limited,
    server::{self, Drain, GrpcService, Listener, Server, ServerHandle},
    supervisor::{self, Program},
    telemetry,
    tracker::{RunWriter, Tracker},
};

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The address cannot be served.
    #[error(transparent)]
    Server(#[from] server::Error),
    /// A database cannot be opened.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// The artifact store cannot be opened.
    #[error(transparent)]
    Artifacts(#[from] artifacts::Error),
    /// The backup location cannot be opened.
    #[error(transparent)]
    Backup(#[from] backup::Error),
    /// An address of another service is wrong.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// Logs or traces cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    /// A service cannot be built.
    #[error("{service}: {message}")]
    Mount {
        /// Its name.
        service: &'static str,
        /// What failed.
        message: String,
    },
}

impl Error {
    /// The exit code of a program that could not start: 2 for wrong input, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(error) => error.exit_code(),
            Self::Client(_) | Self::Server(server::Error::Address { .. }) => 2,
            _ => 1,
        }
    }
}

/// A server under construction.
pub struct Host {
    config: Arc<Config>,
    server: Server,
    listener: Listener,
    drain: Drain,
    jobs: Jobs,
    api: JobApi,
    artifacts: ArtifactStore,
    surroundings: Surroundings,
    programs: BTreeMap<&'static str, Program>,
    url: String,
    token: Option<Secret>,
}

impl Host {
    /// Binds the port and opens the job store and the artifact store.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open(config: Config) -> Result<Self, Error> {
        let options = config.server_options()?;
        let listener = Listener::bind(&options.listen).await?;
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let mut address = listener.local_addr();
        if address.ip().is_unspecified() {
            // Workers of this machine call the loopback address.
            address.set_ip(if address.is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            });
        }
        let url = format!("{scheme}://{address}");
        let drain = Drain::new();
        let token = config.token.clone().or_else(|| options.tokens.first().cloned());
        let server = Server::builder(options).with_drain(drain.clone());
        // The job runtime outlives the drain: what is under way is still answered and stored.
        let store = Self::url_of(&config, "jobs")?;
        let jobs = Jobs::open(&store, Arc::new(SystemClock), tokio_util::sync::CancellationToken::new()).await?;
        let artifact_url = config.artifacts_url()?;
        let options: BTreeMap<String, String> =
            config.artifacts.options.iter().map(|(key, value)| (key.clone(), value.expose().to_owned())).collect();
        let artifacts = ArtifactStore::open_with(&artifact_url, &options)?;
        let api = JobApi::new(jobs.clone(), artifacts.clone(), drain.clone());
        let surroundings = Surroundings { artifact_store: artifact_url, ..Surroundings::default() };
        let config = Arc::new(config);
        let programs = BTreeMap::new();
        Ok(Self { config, server, listener, drain, jobs, api, artifacts, surroundings, programs, url, token })
    }

    fn url_of(config: &Config, name: &str) -> Result<String, config::Error> {
        Ok(db::with_schema(&config.database_url(name)?, name))
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The drain of the server.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// The job runtime, for followers of its events.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// The artifact store.
    pub fn artifacts(&self) -> &ArtifactStore {
        &self.artifacts
    }

    /// The database of a service: a file, or a schema of the shared database.
    ///
    /// # Errors
    /// As [`Config::database_url`].
    pub fn database_url(&self, name: &str) -> Result<String, Error> {
        Ok(Self::url_of(&self.config, name)?)
    }

    /// Address of this server for programs of this machine.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection to the server that runs a service: the configured endpoint, else this one.
    ///
    /// # Errors
    /// A malformed endpoint.
    pub fn connection(&self, service: config::Service) -> Result<Connection, Error> {
        let address = self.config.endpoints.get(service).unwrap_or(&self.url);
        Ok(client::connect(address, self.token.as_ref())?)
    }

    /// Takes jobs of a kind that pass a check.
    #[must_use]
    pub fn kind(mut self, kind: &'static str, validator: Validator) -> Self {
        self.api = self.api.kind(kind, validator);
        self
    }

    /// Runs jobs of a kind by a worker program that lies beside this one.
    #[must_use]
    pub fn worker(mut self, kind: &'static str, program: &str, args: &[&str], remedy: &str) -> Self {
        let folder = self.config.worker.program_dir.clone().or_else(own_folder).unwrap_or_default();
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.programs.insert(kind, Program { path: folder.join(program), args, remedy: remedy.into() });
        self
    }

    /// Mounts a gRPC service.
    #[must_use]
    pub fn service(mut self, service: impl GrpcService) -> Self {
        self.server = self.server.service(service);
        self
    }

    /// Mounts HTTP routes.
    #[must_use]
    pub fn http(mut self, routes: Router) -> Self {
        self.server = self.server.http(routes);
        self
    }

    /// Tells `/metrics` what to answer.
    #[must_use]
    pub fn metrics(mut self, render: server::RenderMetrics) -> Self {
        self.server = self.server.metrics(render);
        self
    }

    /// Runs something beside the services until the drain begins.
    #[must_use]
    pub fn task(mut self, name: &str, task: impl Future<Output = ()> + Send + 'static) -> Self {
        self.server = self.server.task(name, async move {
            task.await;
            Ok(())
        });
        self
    }

    /// Serves: jobs and workers, command jobs, the supervisor, and tracking of every job.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn start(self) -> Result<ServerHandle, Error> {
        let mut host = self.kind("command", command_validator()).worker(
            "command",
            "quintet",
            &["worker"],
            "build it with `cargo build -p quintet`, or install the whole distribution",
        );
        let tracked = host.config.services.contains(&config::Service::Tracking)
            || host.config.endpoints.get(config::Service::Tracking).is_some();
        let tracking_uri = host.config.endpoints.get(config::Service::Tracking).unwrap_or(&host.url).to_owned();
        // Set once, here.
        let _ = host.surroundings.tracking_uri.set(tracking_uri);
        if tracked {
            let writer = RunWriter::new(host.connection(config::Service::Tracking)?);
            let following = follow(host.jobs.clone(), Tracker::new(writer), host.drain.clone());
            host = host.task("tracking of jobs", following);
        }
        let policy = BackupPolicy::from_config(&host.config)?;
        if policy.is_enabled() {
            let copying = OutputBackup::new(policy, host.artifacts.clone());
            let following = follow(host.jobs.clone(), copying, host.drain.clone());
            host = host.task("backup of outputs", following);
        }
        let worker = &host.config.worker;
        if worker.enabled {
            let cpus = worker.cpus.map_or_else(available_cpus, |cpus| i32::try_from(cpus).unwrap_or(i32::MAX));
            let mut gpus = supervisor::detect_gpus();
            gpus.truncate(worker.gpus.map_or(usize::MAX, |most| most as usize));
            let options = supervisor::Options {
                programs: std::mem::take(&mut host.programs),
                cpus,
                gpus,
                data_dir: host.config.data_path("")?,
                server: host.url.clone(),
                token: host.token.clone(),
            };
            let supervising = supervisor::run(host.jobs.clone(), options, host.drain.clone());
            host = host.task("supervisor", supervising);
        }
        let workers = WorkerApi::new(host.jobs.clone(), host.surroundings.clone(), host.drain.clone());
        let options = host.server.options().clone();
        let server = host
            .server
            .service(limited!(JobServiceServer::new(host.api), options))
            .service(limited!(WorkerServiceServer::new(workers), options));
        Ok(server.listener(host.listener).start().await?)
    }
}

/// How long a service keeps calling another one that has gone.
pub const PATIENCE: Duration = Duration::from_secs(300);

fn command_validator() -> Validator {
    use quintet_proto::v1::job_spec::Kind;
    Arc::new(|spec, _| match &spec.kind {
        Some(Kind::Command(spec)) => command::validate("spec.command", spec, &Default::default()),
        _ => Vec::new(),
    })
}

fn own_folder() -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.parent()?.to_owned())
}

fn available_cpus() -> i32 {
    std::thread::available_parallelism().map_or(1, |cpus| i32::try_from(cpus.get()).unwrap_or(i32::MAX))
}

/// The program of one service: configuration, telemetry, bind, mount, serve, drain.
///
/// Exit codes: 0 after an ordered shutdown, 1 when it could not start or failed, 2 for wrong flags or configuration.
pub fn main(service: config::Service, mount: impl AsyncFnOnce(Host) -> Result<Host, Error>) -> std::process::ExitCode {
    /// One of Quintet's services.
    #[derive(clap::Parser)]
    #[command(version)]
    struct Cli {
        #[command(flatten)]
        config: config::ConfigArgs,
    }
    run(service, &<Cli as clap::Parser>::parse().config, mount)
}

/// [`main`] for programs that parse their own command line: serves one service by these flags.
pub fn run(
    service: config::Service,
    args: &config::ConfigArgs,
    mount: impl AsyncFnOnce(Host) -> Result<Host, Error>,
) -> std::process::ExitCode {
    let result = args.load().map_err(Error::from).and_then(|mut config| {
        if args.dump_config {
            print!("{}", config.dump());
            return Ok(());
        }
        config.services = vec![service];
        serve(config, mount)
    });
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{service}-svc: {error}");
            error.exit_code().into()
        }
    }
}

/// Serves what `mount` adds to a host until a signal ends it. Blocks.
///
/// # Errors
/// See [`Error`].
pub fn serve(config: Config, mount: impl AsyncFnOnce(Host) -> Result<Host, Error>) -> Result<(), Error> {
    // Half of the cores: the stores' writing threads and the workers' processes have use for the others, and threads
    // that wake each other for every call cost more than they bring.
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| Error::Mount { service: "runtime", message: error.to_string() })?;
    runtime.block_on(async {
        // Flushes what was traced when it is dropped.
        let _telemetry = telemetry::init(&config, "quintet")?;
        let host = mount(Host::open(config).await?.metrics(telemetry::render_metrics())).await?;
        let signals = server::signals::install(host.drain());
        signals.map_err(|error| Error::Mount { service: "signals", message: error.to_string() })?;
        let handle = host.start().await?;
        Ok(handle.wait().await?)
    })
}
