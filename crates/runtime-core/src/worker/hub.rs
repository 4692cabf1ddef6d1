//! A worker's encoder from the Hugging Face Hub: downloaded into the cache of the machine, with its progress told.

use std::path::PathBuf;

use quintet_hub::{Error, Hub, Origin, Repo};
use quintet_proto::v1::Progress;

use super::{Failure, context::Context};
use crate::status::ErrorReason;

/// Brings a repository's checkpoint to this machine; ends early when the attempt is asked to stop.
pub(super) async fn fetch(context: &Context, field: &str, repo: &Repo) -> Result<PathBuf, Failure> {
    let fail = |error: Error| failure(field, &error);
    let hub = Hub::from_env().map_err(fail)?;
    let message = format!("downloading {repo}");
    let progress = |now: quintet_hub::Progress| {
        context.progress(Progress {
            done: now.done as f64,
            total: now.total as f64,
            unit: "bytes".into(),
            message: message.clone(),
            best: None,
            phase: "download".into(),
        });
    };
    let snapshot = tokio::select! {
        snapshot = hub.snapshot(repo, &progress) => snapshot.map_err(fail)?,
        directive = context.stop_requested() => {
            let text = format!("{field}: stopped while downloading {repo} ({})", directive.as_str_name());
            return Err(Failure::user(ErrorReason::Cancelled, text));
        }
    };
    let origin = match &snapshot.origin {
        Origin::Hub => "of the Hub".to_owned(),
        Origin::Cache => "of the cache".to_owned(),
        Origin::Stale(reason) => format!("of the cache, which may be old: {reason}"),
    };
    context.log(format!("{field}: {} {origin}, in {}", snapshot.pinned.uri(), snapshot.path.display()));
    context.resolved(field, snapshot.pinned.uri());
    Ok(snapshot.path)
}

fn failure(field: &str, error: &Error) -> Failure {
    let text = format!("{field}: {error}");
    match error {
        Error::Io { source, .. } => Failure::infrastructure(ErrorReason::of_io(source), text),
        error if error.is_transient() => Failure::infrastructure(ErrorReason::Unavailable, text),
        _ => Failure::user(ErrorReason::BadInput, text),
    }
}
