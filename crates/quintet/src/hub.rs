//! `quintet hub`: encoders of the Hugging Face Hub, brought into the cache or found there.

use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quintet_hub::{Error, Hub, Origin, Repo};

use crate::{
    failure::{Failure, UNREACHABLE},
    jobs::write,
};

/// `quintet hub ...`.
#[derive(Debug, Subcommand)]
#[command(after_help = VARIABLES)]
pub(crate) enum HubCommand {
    /// Downloads what training needs of a model, as far as it is not there, and prints its folder
    Download(Named),
    /// Prints the folder of a model that is in the cache, without the network
    Path(Named),
}

const VARIABLES: &str = "\
Examples:
  quintet hub download distilbert-base-uncased
  quintet hub download org/name --revision refs/pr/7
  quintet hub path org/name@12040accade4e8a0f71eabdb258fecc2e7e948be

Only configuration, safetensors and tokenizer are downloaded, into the cache of Python's huggingface_hub. The variables are its own too: \
HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN (or the file that `hf auth login` writes), HF_HUB_OFFLINE, HF_HUB_ETAG_TIMEOUT and \
HF_HUB_DOWNLOAD_TIMEOUT.";

/// A model at a revision.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// `name` or `org/name`, with `@revision` if wanted
    #[arg(value_name = "MODEL")]
    model: String,
    /// Branch, tag or commit [default: main]
    #[arg(long)]
    revision: Option<String>,
}

/// Runs one of the commands.
///
/// # Errors
/// The failure with its exit code: 2 for a wrong name, variable or model, 3 when the Hub cannot be reached.
pub(crate) async fn hub(command: HubCommand) -> Result<(), Failure> {
    let hub = Hub::from_env().map_err(failure)?;
    match command {
        HubCommand::Path(named) => {
            let snapshot = hub.cached(&repo(&named)?).map_err(failure)?;
            write(&format!("{}\n", snapshot.path.display()))
        }
        HubCommand::Download(named) => {
            let repo = repo(&named)?;
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
            if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes} {eta}") {
                bar.set_style(style);
            }
            bar.set_message(repo.to_string());
            bar.enable_steady_tick(Duration::from_millis(500));
            let progress = |now: quintet_hub::Progress| {
                bar.set_length(now.total);
                bar.set_position(now.done);
            };
            let snapshot = tokio::select! {
                snapshot = hub.snapshot(&repo, &progress) => snapshot,
                // What has come is kept, and the same command goes on there.
                _ = tokio::signal::ctrl_c() => {
                    bar.finish_and_clear();
                    return Err(Failure { code: crate::failure::INTERRUPTED, message: "interrupted".into() });
                }
            };
            bar.finish_and_clear();
            let snapshot = snapshot.map_err(failure)?;
            match &snapshot.origin {
                Origin::Stale(reason) => {
                    eprintln!("warning: {} is of the cache and may be old: {reason}", snapshot.pinned)
                }
                Origin::Hub | Origin::Cache => eprintln!("{}", snapshot.pinned),
            }
            write(&format!("{}\n", snapshot.path.display()))
        }
    }
}

fn repo(named: &Named) -> Result<Repo, Failure> {
    let repo: Repo = named.model.parse().map_err(failure)?;
    match &named.revision {
        None => Ok(repo),
        Some(_) if named.model.contains('@') => {
            Err(Failure::usage(format!("`{}` has a revision already; leave --revision out", named.model)))
        }
        Some(revision) => repo.at(revision).map_err(failure),
    }
}

fn failure(error: Error) -> Failure {
    match &error {
        Error::Unavailable { .. } | Error::RateLimited { .. } => {
            Failure { code: UNREACHABLE, message: error.to_string() }
        }
        Error::Io { .. } | Error::Corrupt { .. } | Error::Protocol { .. } => Failure::failed(error.to_string()),
        _ => Failure::usage(error.to_string()),
    }
}
