//! The things that are tracked, as MLflow names them; serialised they are the JSON objects of its REST API.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use crate::error::Error;

/// The tag that holds a run's name; kept equal to [`RunInfo::run_name`].
pub const RUN_NAME_TAG: &str = "mlflow.runName";

/// The tag by which [`crate::Store::find_run`] finds a run.
pub const RUN_KEY_TAG: &str = "quintet.run_key";

/// Whether something is in use or in the bin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// In use.
    Active,
    /// Deleted, and can be restored.
    Deleted,
}

impl Lifecycle {
    /// The number in the database.
    pub(crate) fn code(self) -> i64 {
        match self {
            Self::Active => 0,
            Self::Deleted => 1,
        }
    }

    pub(crate) fn from_code(code: i64) -> Self {
        if code == 0 { Self::Active } else { Self::Deleted }
    }
}

/// Which lifecycle stages a search looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ViewType {
    /// Active ones.
    #[default]
    ActiveOnly,
    /// Deleted ones.
    DeletedOnly,
    /// Both.
    All,
}

impl FromStr for ViewType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "ACTIVE_ONLY" | "1" => Self::ActiveOnly,
            "DELETED_ONLY" | "2" => Self::DeletedOnly,
            "ALL" | "3" => Self::All,
            other => {
                let reason = format!("`{other}` is not one of ACTIVE_ONLY, DELETED_ONLY, ALL");
                return Err(Error::invalid("view_type", reason));
            }
        })
    }
}

/// The state of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RunStatus {
    /// It runs.
    Running,
    /// It will run.
    Scheduled,
    /// It ended well.
    Finished,
    /// It failed.
    Failed,
    /// Somebody ended it.
    Killed,
}

impl RunStatus {
    /// MLflow's name, which is also what the database holds.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Scheduled => "SCHEDULED",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Killed => "KILLED",
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RunStatus {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "RUNNING" | "1" => Self::Running,
            "SCHEDULED" | "2" => Self::Scheduled,
            "FINISHED" | "3" => Self::Finished,
            "FAILED" | "4" => Self::Failed,
            "KILLED" | "5" => Self::Killed,
            other => {
                let reason = format!("`{other}` is not one of RUNNING, SCHEDULED, FINISHED, FAILED, KILLED");
                return Err(Error::invalid("status", reason));
            }
        })
    }
}

/// A parameter or a tag. Names are shared, since few of them stand for many values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// Its name.
    #[serde(serialize_with = "as_str")]
    pub key: Arc<str>,
    /// Its value.
    pub value: String,
}

impl Pair {
    /// A pair of texts.
    pub fn new(key: impl Into<Arc<str>>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

/// One point of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// The metric's name.
    pub key: Arc<str>,
    /// The value; may be NaN, never infinite once stored.
    pub value: f64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The training step; may be negative.
    pub step: i64,
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Metric", 4)?;
        object.serialize_field("key", &*self.key)?;
        if self.value.is_nan() {
            object.serialize_field("value", "NaN")?;
        } else {
            object.serialize_field("value", &self.value)?;
        }
        object.serialize_field("timestamp", &self.timestamp)?;
        object.serialize_field("step", &self.step)?;
        object.end()
    }
}

fn as_str<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn as_text<S: Serializer>(id: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// A group of runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Experiment {
    /// Its number; 0 is the experiment `Default`.
    #[serde(serialize_with = "as_text")]
    pub experiment_id: i64,
    /// Unique, among deleted experiments too.
    pub name: String,
    /// The URI below which its runs keep their artifacts.
    pub artifact_location: String,
    /// Active or deleted.
    pub lifecycle_stage: Lifecycle,
    /// Milliseconds since 1970.
    pub creation_time: i64,
    /// Milliseconds since 1970.
    pub last_update_time: i64,
    /// Sorted by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Pair>,
}

/// What a run is, without what it logged.
#[derive(Clone, Debug, PartialEq)]
pub struct RunInfo {
    /// 32 hexadecimal digits, or what the caller chose.
    pub run_id: String,
    /// A name for people; not unique.
    pub run_name: String,
    /// The experiment that it belongs to.
    pub experiment_id: i64,
    /// Who started it; may be empty.
    pub user_id: String,
    /// Its state.
    pub status: RunStatus,
    /// Milliseconds since 1970.
    pub start_time: i64,
    /// Milliseconds since 1970.
    pub end_time: Option<i64>,
    /// The URI of its artifacts.
    pub artifact_uri: String,
    /// Active or deleted.
    pub lifecycle_stage: Lifecycle,
}

impl Serialize for RunInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("RunInfo", 10)?;
        object.serialize_field("run_uuid", &self.run_id)?;
        object.serialize_field("run_id", &self.run_id)?;
        object.serialize_field("run_name", &self.run_name)?;
        object.serialize_field("experiment_id", &self.experiment_id.to_string())?;
        object.serialize_field("user_id", &self.user_id)?;
        object.serialize_field("status", &self.status)?;
        object.serialize_field("start_time", &self.start_time)?;
        match self.end_time {
            Some(time) => object.serialize_field("end_time", &time)?,
            None => object.skip_field("end_time")?,
        }
        object.serialize_field("artifact_uri", &self.artifact_uri)?;
        object.serialize_field("lifecycle_stage", &self.lifecycle_stage)?;
        object.end()
    }
}

/// What a run logged.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunData {
    /// The latest point of each metric: the one of greatest (step, timestamp, value).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// Parameters; written once each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Pair>,
    /// Tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Pair>,
}

/// A logged model that a run made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelOutput {
    /// The logged model.
    pub model_id: String,
    /// The step at which it was made.
    pub step: i64,
}

/// What a run made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunOutputs {
    /// Logged models, in the order of their making.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub model_outputs: Vec<ModelOutput>,
}

/// What a run was given. Data sets are not kept yet, so this is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunInputs {}

/// A run with what it logged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// What it is.
    pub info: RunInfo,
    /// What it logged.
    pub data: RunData,
    /// What it was given.
    pub inputs: RunInputs,
    /// What it made.
    pub outputs: RunOutputs,
}

impl Run {
    /// The value of a tag.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.data.tags.iter().find(|pair| &*pair.key == key).map(|pair| pair.value.as_str())
    }
}

/// One page of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where to go on; `None` at the end.
    pub next: Option<String>,
}

/// The current time in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
