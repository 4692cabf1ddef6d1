//! The flags that every program shares; each sets one key of the configuration.
use std::path::PathBuf;

use super::{Config, Error, Loader};

/// Flags of a server. They win over the environment, which wins over the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file (TOML). Default: $QUINTET_CONFIG, else ./quintet.toml if it is there
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder for databases, artifacts, logs and caches
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// File that gets the address once every service answers
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Services to run, with commas between them: hpo, train, convert, bench, tracking
    #[arg(long, value_name = "LIST")]
    pub services: Option<String>,
    /// Log level or directives
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Sets any key of the configuration, such as --set limits.upload=2GiB
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Prints the effective configuration without secrets, and ends
    #[arg(long)]
    pub dump_config: bool,
}

impl ConfigArgs {
    /// Loads the configuration with these flags on top.
    ///
    /// # Errors
    /// As [`Loader::load`]; a `--set` without `=` is an error of its own.
    pub fn load(&self) -> Result<Config, Error> {
        self.apply(Loader::new())?.load()
    }

    fn apply(&self, mut loader: Loader) -> Result<Loader, Error> {
        if let Some(file) = &self.config {
            loader = loader.file(file);
        }
        loader = loader.environment();
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        for (key, value) in [
            ("data_dir", self.data_dir.as_ref().map(text)),
            ("listen", self.listen.clone()),
            ("ready_file", self.ready_file.as_ref().map(text)),
            ("services", self.services.clone()),
            ("log.level", self.log_level.clone()),
        ] {
            if let Some(value) = value {
                loader = loader.set(key, value);
            }
        }
        for pair in &self.set {
            let (key, value) = pair.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| Error::Value {
                origin: format!("--set {pair}"),
                problem: "is not KEY=VALUE, such as limits.upload=2GiB".into(),
            })?;
            loader = loader.set(key, value);
        }
        Ok(loader)
    }
}
