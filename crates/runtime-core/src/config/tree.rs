//! The tree of settings with its defaults: the one place that says what can be set.
use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};

use super::{ByteSize, Duration, Secret, SecretUrl};

/// Everything that can be configured.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder for the database, artifacts, logs and caches, unless they are set to lie elsewhere. Default `quintet-data`.
    pub data_dir: PathBuf,
    /// Where to listen, `HOST:PORT`; port 0 picks a free one. Default `127.0.0.1:7700`.
    pub listen: String,
    /// File that gets the address once every service answers.
    pub ready_file: Option<PathBuf>,
    /// Services that run in this process. Default all: `hpo`, `train`, `convert`, `bench`, `tracking`.
    #[serde(deserialize_with = "list")]
    pub services: Vec<Service>,
    /// Token that this program shows to the servers that it calls.
    pub token: Option<Secret>,
    /// Where jobs, studies and runs are kept.
    pub database: Database,
    /// Where files are kept.
    pub artifacts: Artifacts,
    /// Second copies of outputs and studies.
    pub backup: Backup,
    /// Worker processes on this machine.
    pub worker: Worker,
    /// How long a silent worker keeps its job.
    pub lease: Lease,
    /// How the studies of searches are kept.
    pub hpo: Hpo,
    /// What is logged.
    pub log: Log,
    /// Where traces go.
    pub telemetry: Telemetry,
    /// TLS of the server.
    pub tls: Tls,
    /// Who may call the server.
    pub auth: Auth,
    /// Sizes and ages that the server allows.
    pub limits: Limits,
    /// How the server ends.
    pub shutdown: Shutdown,
    /// Where the services run that do not run in this process.
    pub endpoints: Endpoints,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "quintet-data".into(),
            listen: "127.0.0.1:7700".into(),
            ready_file: None,
            services: Service::ALL.to_vec(),
            token: None,
            database: Database::default(),
            artifacts: Artifacts::default(),
            backup: Backup::default(),
            worker: Worker::default(),
            lease: Lease::default(),
            hpo: Hpo::default(),
            log: Log::default(),
            telemetry: Telemetry::default(),
            tls: Tls::default(),
            auth: Auth::default(),
            limits: Limits::default(),
            shutdown: Shutdown::default(),
            endpoints: Endpoints::default(),
        }
    }
}

/// One of the five services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Sweeps.
    Hpo,
    /// Training.
    Train,
    /// Conversion.
    Convert,
    /// Benchmarks.
    Bench,
    /// Runs, metrics and models.
    Tracking,
}

impl Service {
    /// All services.
    pub const ALL: [Self; 5] = [Self::Hpo, Self::Train, Self::Convert, Self::Bench, Self::Tracking];

    /// The name as it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hpo => "hpo",
            Self::Train => "train",
            Self::Convert => "convert",
            Self::Bench => "bench",
            Self::Tracking => "tracking",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|service| service.as_str() == text);
        known.ok_or_else(|| format!("`{text}` is no service: hpo, train, convert, bench and tracking are"))
    }
}

/// Where jobs, studies and runs are kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// `sqlite:///absolute/path.db` or `postgresql://user@host/name`. Default: an SQLite file a service in `data_dir`.
    pub url: Option<SecretUrl>,
}

/// Where files are kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Artifacts {
    /// A path, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`. Default: `artifacts` in `data_dir`.
    pub url: Option<SecretUrl>,
    /// Options of the store, such as `endpoint` and `region`; they win over `AWS_*`, `GOOGLE_*` and `AZURE_*`.
    pub options: BTreeMap<String, Secret>,
    /// Folder for downloaded artifacts. Default: `cache` in `data_dir`.
    pub cache_dir: Option<PathBuf>,
}

/// Second copies of outputs and studies.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backup {
    /// Whether copies are made at all. Default false.
    #[serde(deserialize_with = "scalar")]
    pub enabled: bool,
    /// Where to: a path or URL as for artifacts, best on another disk. Needed when enabled.
    pub location: Option<SecretUrl>,
    /// How many copies of one name are kept; older ones go. Default 0: all.
    #[serde(deserialize_with = "scalar")]
    pub keep: u32,
}

/// Worker processes on this machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// Whether this process starts workers. Default true.
    #[serde(deserialize_with = "scalar")]
    pub enabled: bool,
    /// CPUs that jobs may use together. Default: all that this process may use.
    #[serde(deserialize_with = "optional")]
    pub cpus: Option<u32>,
    /// GPUs that jobs may use together. Default: all that are there.
    #[serde(deserialize_with = "optional")]
    pub gpus: Option<u32>,
    /// Folder with the worker programs. Default: where this program lies.
    pub program_dir: Option<PathBuf>,
}

impl Default for Worker {
    fn default() -> Self {
        Self { enabled: true, cpus: None, gpus: None, program_dir: None }
    }
}

/// How long a silent worker keeps its job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lease {
    /// A worker that sends no heartbeat for this long has lost its attempt; it sends one every third of it. Default 30s.
    pub term: Duration,
    /// How often expired leases and passed time limits are looked for. Default 1s.
    pub check_interval: Duration,
    /// A running trial of an Optuna client whose connection has ended fails after this long, unless the client comes back; 0s
    /// leaves it running. Default 1m.
    pub trial: Duration,
    /// The same for a client whose connection ended after 25 minutes without a call: gRPC closes such connections by itself and
    /// connects again for the next call, so the client may be at work. Also for the trials of Optuna clients that ran when the
    /// server was started. 0s leaves them running. Default 12h.
    pub idle_trial: Duration,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            term: Duration::from_secs(30),
            check_interval: Duration::from_secs(1),
            trial: Duration::from_secs(60),
            idle_trial: Duration::from_secs(12 * 60 * 60),
        }
    }
}

/// How the studies of searches are kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hpo {
    /// What is on the disk before a client hears of it: `ends` for all that ends a trial or belongs to a study, `all` for what is
    /// written to running and waiting trials too. Either way a write survives the end of the server, however it ends; with `ends` a
    /// power cut or a crash of the system may take the last 100 ms (PostgreSQL: 600 ms) of trials that still run. Default ends.
    pub sync: StudySync,
}

/// What is on the disk before a client hears of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StudySync {
    /// What ends a trial or belongs to a study.
    #[default]
    Ends,
    /// Everything.
    All,
}

/// What is logged, to standard error.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A level, or directives as in `info,runtime_core::jobs=debug`. Default: `RUST_LOG`, else `info`.
    pub level: Option<String>,
    /// `text` for people or `json` for collectors. Default text.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where traces go.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// OTLP over gRPC, `http://host:4317`. Default: `OTEL_EXPORTER_OTLP_ENDPOINT`; without either nothing is exported.
    pub otlp_endpoint: Option<String>,
}

/// TLS of the server: on when `cert` and `key` are set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// PEM file with the certificate chain.
    pub cert: Option<PathBuf>,
    /// PEM file with its private key.
    pub key: Option<PathBuf>,
    /// PEM file with the authorities whose clients may connect; without it any client may.
    pub client_ca: Option<PathBuf>,
    /// PEM file with the authorities that this program trusts when it calls servers. Default: the system's.
    pub ca: Option<PathBuf>,
}

/// Who may call the server: everybody when no token is set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Tokens that are accepted, as `Authorization: Bearer <token>` or as the password of `Basic`.
    #[serde(deserialize_with = "secrets")]
    pub tokens: Vec<Secret>,
    /// File with further tokens, one a line; empty lines and lines that begin with `#` do not count.
    pub token_file: Option<PathBuf>,
}

/// Sizes and ages that the server allows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest gRPC message and largest JSON body. Default 16MiB. The calls on studies take 256MiB at least, as their clients send them.
    pub message: ByteSize,
    /// Largest uploaded file. Default 64GiB.
    pub upload: ByteSize,
    /// Age at which a connection is asked to be made anew, so that clients spread over replicas. Default: never.
    pub connection_age: Option<Duration>,
    /// How long the calls of such a connection may go on. Default 1m.
    pub connection_age_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: ByteSize(16 << 20),
            upload: ByteSize(64 << 30),
            connection_age: None,
            connection_age_grace: Duration::from_secs(60),
        }
    }
}

/// How the server ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// Pause between "not serving" and the end of accepting, for load balancers. Default 0s; some 5s on Kubernetes.
    pub delay: Duration,
    /// How long streams may end by themselves. Default 500ms.
    pub stream_grace: Duration,
    /// When everything that is left is cut off; keep it below the platform's own limit. Default 25s.
    pub deadline: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { delay: Duration::default(), stream_grace: Duration::from_millis(500), deadline: Duration::from_secs(25) }
    }
}

/// URLs of services that do not run in this process, such as `http://train:7700`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Endpoints {
    /// Of hpo-svc.
    pub hpo: Option<String>,
    /// Of train-svc.
    pub train: Option<String>,
    /// Of convert-svc.
    pub convert: Option<String>,
    /// Of bench-svc.
    pub bench: Option<String>,
    /// Of tracking-svc.
    pub tracking: Option<String>,
}

impl Endpoints {
    /// The URL of a service, if it is set.
    pub fn get(&self, service: Service) -> Option<&str> {
        match service {
            Service::Hpo => self.hpo.as_deref(),
            Service::Train => self.train.as_deref(),
            Service::Convert => self.convert.as_deref(),
            Service::Bench => self.bench.as_deref(),
            Service::Tracking => self.tracking.as_deref(),
        }
    }
}

/// A value as the file has it, or as text, which is all that a variable or flag can hold.
#[derive(Deserialize)]
#[serde(untagged)]
enum Either<T> {
    Typed(T),
    Text(String),
}

fn parse<T: FromStr, E: de::Error>(text: &str) -> Result<T, E>
where
    T::Err: fmt::Display,
{
    text.trim().parse().map_err(|error| E::custom(format_args!("`{text}`: {error}")))
}

fn scalar<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: fmt::Display> + Deserialize<'de>,
    D: Deserializer<'de>,
{
    match Either::deserialize(deserializer)? {
        Either::Typed(value) => Ok(value),
        Either::Text(text) => parse(&text),
    }
}

fn optional<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: fmt::Display> + Deserialize<'de>,
    D: Deserializer<'de>,
{
    scalar(deserializer).map(Some)
}

fn list<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    let parts = match Either::<Vec<String>>::deserialize(deserializer)? {
        Either::Typed(parts) => parts,
        Either::Text(text) => {
            text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
        }
    };
    parts.iter().map(|part| part.parse().map_err(de::Error::custom)).collect()
}

fn secrets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Secret>, D::Error> {
    let parts: Vec<String> = list(deserializer)?;
    Ok(parts.into_iter().map(Secret::new).collect())
}
