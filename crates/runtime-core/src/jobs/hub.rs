//! Encoders of the Hugging Face Hub in specifications: when a job is created names become addresses, and branches and tags the
//! commits that they are at, so that the job, its attempts and a sweep's trials have the same weights, and equal jobs equal hashes.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use quintet_hub::{Error, Hub, Patience, Repo, Settings};
use quintet_proto::v1::JobSpec;
use tonic::Status;

use super::inputs::{Location, backbone_uri, each_input, trainings_of};
use crate::status::{invalid_argument, invalid_field, violation};

/// Label with the encoder as it was asked for, before its revision became a commit.
const ASKED: &str = "quintet.backbone";

/// What pinning a specification has found out.
#[derive(Debug, Default)]
pub(super) struct Pinned {
    /// Labels that say what was asked for.
    pub(super) labels: BTreeMap<String, String>,
    /// The checkpoint was given as `backbone`.
    by_backbone: bool,
}

impl Pinned {
    /// The field of the request that an input of the specification came from.
    pub(super) fn field(&self, input: &str) -> String {
        match input.strip_suffix(".checkpoint") {
            Some(prefix) if self.by_backbone => format!("job.{prefix}.backbone"),
            _ => format!("job.{input}"),
        }
    }
}

/// Finds the commits of names; the settings are those of the server's environment.
#[derive(Debug, Default)]
pub(super) struct HubNames(OnceLock<Result<Hub, String>>);

impl HubNames {
    /// Replaces names in a specification.
    ///
    /// A Hub that cannot be reached does not keep a job from being created: its worker may reach it, and asks then.
    pub(super) async fn pin(&self, spec: &mut JobSpec) -> Result<Pinned, Status> {
        let mut told = Pinned::default();
        let mut encoder = String::new();
        if let Some((prefix, train)) = trainings_of(spec) {
            encoder = format!("{prefix}.checkpoint");
            if !train.backbone.is_empty() {
                let field = format!("job.{prefix}.backbone");
                let uri = backbone_uri(&train.backbone).map_err(|error| invalid_field(&field, error.to_string()))?;
                train.checkpoint = uri;
                train.backbone.clear();
                told.by_backbone = true;
            }
        }
        let mut names: Vec<(String, Repo)> = Vec::new();
        each_input(spec, |field, uri| {
            if let Ok(Location::Hub(repo)) = Location::parse(uri) {
                names.push((field, repo));
            }
        });
        let mut pinned = BTreeMap::new();
        for (field, repo) in names {
            let found = match self.hub() {
                Ok(hub) => hub.resolve(&repo).await,
                Err(text) => return Err(invalid_field(told.field(&field), text)),
            };
            match found {
                Ok(resolved) => {
                    if field == encoder && !repo.is_pinned() {
                        told.labels.insert(ASKED.to_owned(), repo.to_string());
                    }
                    pinned.insert(field, resolved.pinned.uri());
                }
                Err(Error::Io { path, source }) => {
                    tracing::warn!(path = %path.display(), %source, %repo, "not pinned to a commit");
                }
                Err(error) if error.is_transient() => tracing::warn!(%error, %repo, "not pinned to a commit"),
                Err(error) => {
                    return Err(invalid_argument([violation(told.field(&field), error.to_string())]));
                }
            }
        }
        each_input(spec, |field, uri| {
            if let Some(address) = pinned.remove(&field) {
                *uri = address;
            }
        });
        Ok(told)
    }

    fn hub(&self) -> Result<&Hub, &str> {
        let made = self.0.get_or_init(|| {
            let settings = Settings::from_env().map_err(|error| error.to_string())?;
            // Somebody waits for the answer, and the worker has more patience.
            let patience = Patience { tries: 2, longest_wait: Duration::from_secs(5), ..settings.patience };
            Hub::new(Settings { patience, ..settings }).map_err(|error| error.to_string())
        });
        made.as_ref().map_err(String::as_str)
    }
}
