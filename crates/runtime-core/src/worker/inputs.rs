//! Brings inputs to the worker and its outputs to the artifact store.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use quintet_proto::{
    types::{ListValue, Struct, Value, value::Kind},
    v1::{Artifact, JobState},
};
use tokio::runtime::Handle;
use tonic::Code;

use super::{
    context::{Context, Failure, io_failure},
    keeper::describe,
};
use crate::{
    artifacts::{ArtifactStore, PublishedArtifact},
    client::JobClient,
    jobs::{
        inputs::Location,
        model::{job_name, uid_of},
    },
    status::ErrorReason,
};

/// Reads inputs for one attempt.
#[derive(Clone)]
pub(super) struct Inputs {
    pub(super) jobs: JobClient,
    pub(super) store: ArtifactStore,
    pub(super) cache_dir: PathBuf,
    runtime: Handle,
}

impl Inputs {
    pub(super) fn new(jobs: JobClient, store: ArtifactStore, cache_dir: PathBuf) -> Self {
        Self { jobs, store, cache_dir, runtime: Handle::current() }
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) async fn fetch(&self, field: &str, uri: &str) -> Result<PathBuf, Failure> {
        let bad = |text: String| Failure::user(ErrorReason::BadInput, format!("{field}: {text}"));
        match Location::parse(uri).map_err(|error| bad(error.to_string()))? {
            Location::Local(path) => {
                if path.exists() {
                    Ok(path)
                } else {
                    Err(bad(format!("{} does not exist", path.display())))
                }
            }
            Location::Remote(url) => self.fetch_artifact(field, &url, "").await,
            Location::Hub(repo) => Err(bad(format!("{repo} is of the Hub, not of the store"))),
            Location::Output { uid, output, path } => {
                let job = self.jobs.get(&job_name(&uid)).await;
                let job = job.map_err(|status| Failure::infrastructure(ErrorReason::Unavailable, status))?;
                let artifact = job.outputs.as_ref().and_then(|outputs| outputs.artifacts.get(&output));
                // A failed job has outputs when it left something to be used.
                match artifact.filter(|_| matches!(job.state(), JobState::Succeeded | JobState::Failed)) {
                    Some(artifact) => self.fetch_artifact(field, &artifact.uri, &path).await,
                    None => Err(bad(format!("job {} has no output {output:?}", job.name))),
                }
            }
        }
    }

    async fn fetch_artifact(&self, field: &str, uri: &str, path: &str) -> Result<PathBuf, Failure> {
        let root =
            self.store.fetch_cached(uri, &self.cache_dir).await.map_err(|error| artifact_failure(field, &error))?;
        let local = if path.is_empty() { root } else { root.join(path) };
        if local.exists() {
            Ok(local)
        } else {
            Err(Failure::user(ErrorReason::BadInput, format!("{field}: {uri} holds no {path:?}")))
        }
    }

    /// Publishes every folder that is not empty below `root`, under the attempt's own keys.
    pub(super) async fn publish(context: &Context, root: &Path) -> Result<BTreeMap<String, Artifact>, Failure> {
        let mut artifacts = BTreeMap::new();
        let job = context.job();
        for path in folders(root).map_err(|error| io_failure(root, &error))? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let uid = uid_of(&job.name).unwrap_or(&job.uid);
            // The attempt is part of the key: a fenced attempt cannot touch what another one publishes.
            let key = format!("jobs/{uid}/attempt-{}/{name}", job.attempt);
            let published = context.0.inputs.store.publish(&path, &key).await;
            let PublishedArtifact { uri, digest, size_bytes, file_count } =
                published.map_err(|error| artifact_failure(name, &error))?;
            let size_bytes = i64::try_from(size_bytes).unwrap_or(i64::MAX);
            let file_count = i32::try_from(file_count).unwrap_or(i32::MAX);
            artifacts.insert(name.to_owned(), Artifact { uri, digest, size_bytes, file_count });
        }
        Ok(artifacts)
    }
}

fn folders(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !root.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.is_dir() && fs::read_dir(&path)?.next().is_some() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn artifact_failure(what: &str, error: &crate::artifacts::Error) -> Failure {
    let reason = error.reason();
    let user = matches!(
        reason.code(),
        Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition | Code::DataLoss
    );
    let text = format!("{what}: {}", describe(error));
    if user { Failure::user(reason, text) } else { Failure::infrastructure(reason, text) }
}

/// A JSON object as the messages carry it; anything but an object gives none.
pub(super) fn to_struct(value: &serde_json::Value) -> Option<Struct> {
    match to_value(value).kind {
        Some(Kind::StructValue(value)) => Some(value),
        _ => None,
    }
}

fn to_value(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        Json::String(value) => Kind::StringValue(value.clone()),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(to_value).collect() }),
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields.iter().map(|(key, value)| (key.clone(), to_value(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}
