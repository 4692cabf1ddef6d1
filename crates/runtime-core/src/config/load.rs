//! Reading the configuration: where each value came from is remembered, so that an error names the file or variable and the key.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format as _, Toml},
    value::{Dict, Map, Value},
};
use tracing_subscriber::EnvFilter;

use super::{Config, Secret};
use crate::server::{ServerOptions, TlsOptions};

/// Prefix of every variable.
const PREFIX: &str = "QUINTET_";
/// The file that is read when none is named and it is there.
const FILE: &str = "quintet.toml";
/// Variables with the prefix that are no settings: what a worker is told by its supervisor, what tests are told, and where the
/// configuration itself or the server is. One that ends in an underscore stands for all that begin so.
pub const RESERVED: &[&str] = &[
    "QUINTET_CONFIG",
    "QUINTET_SERVER",
    "QUINTET_JOB",
    "QUINTET_ATTEMPT",
    "QUINTET_WORKER",
    "QUINTET_WORK_DIR",
    "QUINTET_CACHE_DIR",
    "QUINTET_CPUS",
    "QUINTET_JOB_",
    "QUINTET_RUN_",
    "QUINTET_TEST_",
    "QUINTET_WORKER_",
    "QUINTET_DEMO_",
    "QUINTET_BENCH_",
];

/// What is wrong with the configuration. The exit status for it is 78 (`EX_CONFIG`).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("configuration file {}: {source}", .path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A value, key or file is not understood.
    #[error("{origin}: {problem}")]
    Value {
        /// The file or variable, and the key.
        origin: String,
        /// What is wrong with it, and what is allowed.
        problem: String,
    },
}

impl Error {
    /// The exit status for a wrong configuration, after `sysexits.h`.
    pub fn exit_code(&self) -> u8 {
        78
    }
}

/// Collects the layers of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Loader {
    file: Option<PathBuf>,
    environment: BTreeMap<String, String>,
    flags: BTreeMap<String, String>,
}

impl Loader {
    /// No layer but the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads this file; it must be there.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Reads the file that `QUINTET_CONFIG` names, or `quintet.toml` here if it is there, unless a file was named already; then the
    /// process' variables.
    #[must_use]
    pub fn environment(mut self) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        self = self.variables(std::env::vars_os().filter_map(text));
        if self.file.is_none() && Path::new(FILE).is_file() {
            self.file = Some(FILE.into());
        }
        self
    }

    /// As [`Loader::environment`], from variables that are given.
    #[must_use]
    pub fn variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        for (name, value) in variables {
            if name == "QUINTET_CONFIG" && self.file.is_none() {
                self.file = Some(value.into());
            } else if is_setting(&name) {
                self.environment.insert(name, value);
            }
        }
        self
    }

    /// Sets `key` (with dots between the levels), as a flag does; the last word.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.flags.insert(key.into(), value.into());
        self
    }

    /// Puts the layers together and checks the result.
    ///
    /// # Errors
    /// [`Error::File`] when the file cannot be read, [`Error::Value`] for what is not understood.
    pub fn load(self) -> Result<Config, Error> {
        let mut figment = Figment::new();
        if let Some(path) = &self.file {
            // Read here, because a file that is not there is no error to the library.
            let text = fs::read_to_string(path).map_err(|source| Error::File { path: path.clone(), source })?;
            figment = figment
                .merge(Named { name: format!("configuration file {}", path.display()), inner: Toml::string(&text) });
        }
        figment = figment.merge(Layer::environment(&self.environment)).merge(Layer::flags(&self.flags));
        let config: Config = figment.extract().map_err(|error| explain(&error))?;
        check(&config).map_err(|(key, problem)| {
            let source =
                figment.find_metadata(key).map_or_else(|| format!("`{key}`"), |metadata| origin(metadata, key));
            Error::Value { origin: source, problem }
        })?;
        Ok(config)
    }
}

fn is_setting(name: &str) -> bool {
    let reserved = RESERVED.iter().any(|reserved| match reserved.strip_suffix('_') {
        // `QUINTET_WORKER__CPUS` is a setting of the section `worker`, `QUINTET_WORKER_ID` is not.
        Some(stem) => name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('_') && !rest.starts_with("__")),
        None => name == *reserved,
    });
    name.starts_with(PREFIX) && !reserved
}

/// A provider under another name.
struct Named<P> {
    name: String,
    inner: P,
}

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        self.inner.data()
    }
}

/// Text values by key: what variables and flags hold.
struct Layer {
    name: &'static str,
    values: Vec<(Vec<String>, String)>,
}

/// Names of the two layers, by which errors tell them apart.
const ENVIRONMENT: &str = "environment";
const FLAGS: &str = "flags";

impl Layer {
    fn environment(variables: &BTreeMap<String, String>) -> Self {
        let key = |name: &str| name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
        Self { name: ENVIRONMENT, values: variables.iter().map(|(name, value)| (key(name), value.clone())).collect() }
    }

    fn flags(flags: &BTreeMap<String, String>) -> Self {
        let key = |name: &str| name.split('.').map(str::to_owned).collect();
        Self { name: FLAGS, values: flags.iter().map(|(name, value)| (key(name), value.clone())).collect() }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        for (key, value) in &self.values {
            insert(&mut root, key, value);
        }
        Ok(Map::from([(Profile::Default, root)]))
    }
}

fn insert(dict: &mut Dict, key: &[String], value: &str) {
    let Some((first, rest)) = key.split_first() else { return };
    if rest.is_empty() {
        dict.insert(first.clone(), Value::from(value));
        return;
    }
    let inner = dict.entry(first.clone()).or_insert_with(|| Value::from(Dict::new()));
    if let Value::Dict(_, inner) = inner {
        insert(inner, rest, value);
    } else {
        // `QUINTET_LOG` and `QUINTET_LOG__LEVEL` at once: the deeper one tells more.
        let mut fresh = Dict::new();
        insert(&mut fresh, rest, value);
        *inner = Value::from(fresh);
    }
}

fn origin(metadata: &Metadata, key: &str) -> String {
    match metadata.name.as_ref() {
        ENVIRONMENT => format!("environment variable {PREFIX}{}", key.to_ascii_uppercase().replace('.', "__")),
        FLAGS => format!("flag for `{key}`"),
        name => format!("{name}, `{key}`"),
    }
}

/// The library's error in our words: where, which key, what, and what is allowed.
fn explain(error: &figment::Error) -> Error {
    use figment::error::Kind;
    let mut path: Vec<String> = error.path.clone();
    let problem = match &error.kind {
        Kind::UnknownField(name, known) => {
            if path.last() != Some(name) {
                path.push(name.clone());
            }
            format!("unknown key; known here: {}", known.join(", "))
        }
        Kind::UnknownVariant(name, known) => format!("`{name}` is not one of {}", known.join(", ")),
        kind => kind.to_string(),
    };
    let key = path.join(".");
    let origin = match &error.metadata {
        Some(metadata) if key.is_empty() => metadata.name.clone().into_owned(),
        Some(metadata) => origin(metadata, &key),
        None => format!("configuration, `{key}`"),
    };
    Error::Value { origin, problem }
}

/// Rules that no single field can tell; gives the key and what is wrong.
fn check(config: &Config) -> Result<(), (&'static str, String)> {
    if !config.listen.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Err(("listen", format!("`{}` is not HOST:PORT, such as 127.0.0.1:7700", config.listen)));
    }
    if config.services.is_empty() {
        return Err(("services", "is empty; name at least one of hpo, train, convert, bench, tracking".into()));
    }
    if let Some(level) = &config.log.level
        && let Err(error) = EnvFilter::builder().parse(level)
    {
        return Err(("log.level", format!("`{level}`: {error}")));
    }
    match (&config.tls.cert, &config.tls.key) {
        (Some(_), None) => return Err(("tls.cert", "needs `tls.key` beside it".into())),
        (None, Some(_)) => return Err(("tls.key", "needs `tls.cert` beside it".into())),
        (None, None) if config.tls.client_ca.is_some() => {
            return Err(("tls.client_ca", "needs `tls.cert` and `tls.key`".into()));
        }
        _ => {}
    }
    if config.backup.enabled && config.backup.location.is_none() {
        return Err(("backup.enabled", "needs `backup.location`".into()));
    }
    if config.lease.term.0 < std::time::Duration::from_secs(1) {
        return Err(("lease.term", format!("{} is below 1s", config.lease.term)));
    }
    if config.lease.check_interval.0.is_zero() {
        return Err(("lease.check_interval", "must be above 0s".into()));
    }
    if config.limits.message.0 == 0 {
        return Err(("limits.message", "must be above 0".into()));
    }
    let endpoints = &config.endpoints;
    for (key, url) in [
        ("endpoints.hpo", &endpoints.hpo),
        ("endpoints.train", &endpoints.train),
        ("endpoints.convert", &endpoints.convert),
        ("endpoints.bench", &endpoints.bench),
        ("endpoints.tracking", &endpoints.tracking),
        ("telemetry.otlp_endpoint", &config.telemetry.otlp_endpoint),
    ] {
        let usable = |url: &String| {
            url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        };
        if let Some(url) = url.as_ref().filter(|url| !usable(url)) {
            return Err((key, format!("`{url}` is not a URL such as http://host:7700")));
        }
    }
    Ok(())
}

impl Config {
    /// The effective configuration as TOML, without secrets.
    pub fn dump(&self) -> String {
        // Every field has a TOML form; were one added that has none, the text says so instead.
        toml::to_string(self).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }

    /// The tokens that the server accepts: those given and those of the file.
    ///
    /// # Errors
    /// When the file cannot be read or holds no token.
    pub fn tokens(&self) -> Result<Vec<Secret>, Error> {
        let mut tokens = self.auth.tokens.clone();
        if let Some(path) = &self.auth.token_file {
            let text = fs::read_to_string(path).map_err(|source| Error::File { path: path.clone(), source })?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            let before = tokens.len();
            tokens.extend(lines.map(Secret::new));
            // An empty file must not open the server to everybody.
            if tokens.len() == before {
                return Err(Error::Value {
                    origin: format!("auth.token_file {}", path.display()),
                    problem: "holds no token".into(),
                });
            }
        }
        Ok(tokens)
    }

    /// What the server needs of all this.
    ///
    /// # Errors
    /// As [`Config::tokens`].
    pub fn server_options(&self) -> Result<ServerOptions, Error> {
        let tls = match (&self.tls.cert, &self.tls.key) {
            (Some(cert), Some(key)) => {
                Some(TlsOptions { cert: cert.clone(), key: key.clone(), client_ca: self.tls.client_ca.clone() })
            }
            _ => None,
        };
        Ok(ServerOptions {
            listen: self.listen.clone(),
            ready_file: self.ready_file.clone(),
            tls,
            tokens: self.tokens()?,
            message_bytes: usize::try_from(self.limits.message.0).unwrap_or(usize::MAX),
            upload_bytes: self.limits.upload.0,
            max_connection_age: self.limits.connection_age.map(Into::into),
            max_connection_age_grace: self.limits.connection_age_grace.into(),
            drain_delay: self.shutdown.delay.into(),
            stream_grace: self.shutdown.stream_grace.into(),
            shutdown_deadline: self.shutdown.deadline.into(),
        })
    }

    /// The database of a service: the configured URL, or `<name>.db` in the data folder.
    ///
    /// # Errors
    /// When the data folder has no absolute path.
    pub fn database_url(&self, name: &str) -> Result<String, Error> {
        match &self.database.url {
            Some(url) => Ok(url.expose().to_owned()),
            None => Ok(format!("sqlite://{}", self.data_path(&format!("{name}.db"))?.display())),
        }
    }

    /// Where artifacts are kept: the configured URL, or `artifacts` in the data folder.
    ///
    /// # Errors
    /// When the data folder has no absolute path.
    pub fn artifacts_url(&self) -> Result<String, Error> {
        match &self.artifacts.url {
            Some(url) => Ok(url.expose().to_owned()),
            None => Ok(self.data_path("artifacts")?.display().to_string()),
        }
    }

    /// A file or folder in the data folder, as an absolute path.
    ///
    /// # Errors
    /// When the data folder has no absolute path (the current folder is gone).
    pub fn data_path(&self, name: &str) -> Result<PathBuf, Error> {
        let root = std::path::absolute(&self.data_dir)
            .map_err(|source| Error::File { path: self.data_dir.clone(), source })?;
        Ok(root.join(name))
    }
}
