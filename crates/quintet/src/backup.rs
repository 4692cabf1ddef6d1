//! `quintet backup`: what copies there are, and getting one back. Works on the backup location itself, no server needed.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use runtime_core::backup::{BackupEntry, BackupPolicy};
use serde_json::json;

use crate::{
    cli::Format,
    connect::load_config,
    failure::{FAILED, Failure, USAGE},
    jobs::{print, write},
    report::table,
};

/// `quintet backup ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Lists the copies in the backup location, newest first
    List {
        /// Only names that begin so, such as `outputs/` or `databases/hpo`
        #[arg(default_value = "")]
        prefix: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
        #[command(flatten)]
        location: Location,
    },
    /// Writes a verified copy to a path; whole or not at all
    #[command(after_help = "A server that uses the file must be stopped before a database is restored over it.")]
    Restore {
        /// Name of a copy (`databases/hpo`: the newest; `databases/hpo/20260101T120000000000Z`: exactly this one)
        name: String,
        /// File or folder to write
        #[arg(long, value_name = "PATH")]
        to: PathBuf,
        /// Replaces what is there
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        location: Location,
    },
}

/// Where the copies are.
#[derive(Debug, Args)]
pub(crate) struct Location {
    /// Backup location: a path or a URL such as s3://bucket/prefix [default: backup.location of the configuration]
    #[arg(long, value_name = "URL")]
    location: Option<String>,
    /// Configuration file (TOML) [default: $QUINTET_CONFIG, else ./quintet.toml if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs one of the commands.
///
/// # Errors
/// The failure with its exit code.
pub(crate) async fn backup(command: BackupCommand) -> Result<(), Failure> {
    match command {
        BackupCommand::List { prefix, output, location } => {
            let mut entries = policy(&location)?.list(&prefix).await.map_err(failure)?;
            entries.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.name.cmp(&b.name)));
            match output {
                Format::Table => write(&shown(&entries)),
                other => {
                    let rows: Vec<_> = entries.iter().map(row).collect();
                    print(&rows, other)
                }
            }
        }
        BackupCommand::Restore { name, to, force, location } => {
            let entry = policy(&location)?.restore(&name, &to, force).await.map_err(failure)?;
            let size = table::size(entry.artifact.size_bytes as f64);
            write(&format!("{} ({size}) restored to {}\n", entry.id(), to.display()))
        }
    }
}

fn policy(location: &Location) -> Result<BackupPolicy, Failure> {
    match &location.location {
        Some(url) => BackupPolicy::new(url, 0).map_err(failure),
        None => BackupPolicy::from_config(&load_config(location.config.as_deref(), |loader| loader)?).map_err(failure),
    }
}

fn failure(error: runtime_core::backup::Error) -> Failure {
    use runtime_core::status::ErrorReason::{AlreadyExists, IllegalState, InvalidField, ResourceNotFound};
    let usage = matches!(error.reason(), AlreadyExists | IllegalState | InvalidField | ResourceNotFound);
    Failure { code: if usage { USAGE } else { FAILED }, message: error.to_string() }
}

fn row(entry: &BackupEntry) -> serde_json::Value {
    json!({
        "id": entry.id(),
        "name": entry.name,
        "time": entry.time.to_string(),
        "uri": entry.artifact.uri,
        "digest": entry.artifact.digest,
        "size_bytes": entry.artifact.size_bytes,
        "file_count": entry.artifact.file_count,
    })
}

fn shown(entries: &[BackupEntry]) -> String {
    let mut table = table::plain(["COPY", "FILES", "SIZE"]);
    for entry in entries {
        let size = table::size(entry.artifact.size_bytes as f64);
        table.add_row([entry.id(), entry.artifact.file_count.to_string(), size]);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
