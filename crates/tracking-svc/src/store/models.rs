//! Logged models: what `log_model` of MLflow 3 makes beside the artifacts themselves.

use std::{collections::HashMap, str::FromStr};

use runtime_core::db::{Row, Tx, Value};
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::{
    Store, experiments,
    keys::{Interner, KeyCache},
    log::last_of_each,
    values,
};
use crate::{
    error::Error,
    model::{Lifecycle, Pair, now},
    validate,
};

pub(super) const COLUMNS: &str = "m.id, m.uid, m.experiment, m.name, m.model_type, m.source_run, m.status, m.created, m.updated, m.artifact_uri, m.lifecycle";

/// The state of a logged model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelStatus {
    /// Its files are being uploaded.
    Pending,
    /// Complete.
    Ready,
    /// The upload failed.
    UploadFailed,
}

impl ModelStatus {
    /// MLflow's name without its prefix, which is what filters compare.
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Ready => "READY",
            Self::UploadFailed => "UPLOAD_FAILED",
        }
    }
}

impl FromStr for ModelStatus {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(match text.strip_prefix("LOGGED_MODEL_").unwrap_or(text) {
            "PENDING" | "1" => Self::Pending,
            "READY" | "2" => Self::Ready,
            "UPLOAD_FAILED" | "3" => Self::UploadFailed,
            other => {
                let allowed = "LOGGED_MODEL_PENDING, LOGGED_MODEL_READY, LOGGED_MODEL_UPLOAD_FAILED";
                return Err(Error::invalid("status", format!("`{other}` is not one of {allowed}")));
            }
        })
    }
}

/// A logged model to be made.
#[derive(Clone, Debug, Default)]
pub struct NewModel {
    /// The experiment.
    pub experiment_id: i64,
    /// A name; without one a random one.
    pub name: Option<String>,
    /// Such as `agent`; may be empty.
    pub model_type: String,
    /// The run that makes it; may be empty.
    pub source_run_id: String,
    /// Parameters.
    pub params: Vec<Pair>,
    /// Tags.
    pub tags: Vec<Pair>,
}

/// A logged model; serialised it is MLflow's JSON object.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedModel {
    row: i64,
    /// `m-` and 32 hexadecimal digits.
    pub model_id: String,
    /// The experiment.
    pub experiment_id: i64,
    /// Its name; not unique.
    pub name: String,
    /// May be empty.
    pub model_type: String,
    /// The run that made it; may be empty.
    pub source_run_id: String,
    /// Its state.
    pub status: ModelStatus,
    /// Milliseconds since 1970.
    pub creation_timestamp_ms: i64,
    /// Milliseconds since 1970.
    pub last_updated_timestamp_ms: i64,
    /// Where its files lie.
    pub artifact_uri: String,
    /// Active or deleted.
    pub lifecycle: Lifecycle,
    /// Parameters, sorted by name.
    pub params: Vec<Pair>,
    /// Tags, sorted by name.
    pub tags: Vec<Pair>,
}

impl Serialize for LoggedModel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Info<'a> {
            model_id: &'a str,
            experiment_id: String,
            name: &'a str,
            creation_timestamp_ms: i64,
            last_updated_timestamp_ms: i64,
            artifact_uri: &'a str,
            status: String,
            #[serde(skip_serializing_if = "str::is_empty")]
            model_type: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            source_run_id: &'a str,
            #[serde(skip_serializing_if = "<[Pair]>::is_empty")]
            tags: &'a [Pair],
        }
        #[derive(Serialize)]
        struct Data<'a> {
            #[serde(skip_serializing_if = "<[Pair]>::is_empty")]
            params: &'a [Pair],
        }
        let info = Info {
            model_id: &self.model_id,
            experiment_id: self.experiment_id.to_string(),
            name: &self.name,
            creation_timestamp_ms: self.creation_timestamp_ms,
            last_updated_timestamp_ms: self.last_updated_timestamp_ms,
            artifact_uri: &self.artifact_uri,
            status: format!("LOGGED_MODEL_{}", self.status.as_str()),
            model_type: &self.model_type,
            source_run_id: &self.source_run_id,
            tags: &self.tags,
        };
        let mut object = serializer.serialize_struct("LoggedModel", 2)?;
        object.serialize_field("info", &info)?;
        object.serialize_field("data", &Data { params: &self.params })?;
        object.end()
    }
}

pub(super) fn from_row(row: &Row) -> Result<LoggedModel, Error> {
    Ok(LoggedModel {
        row: row.int(0)?,
        model_id: row.text(1)?.to_owned(),
        experiment_id: row.int(2)?,
        name: row.text(3)?.to_owned(),
        model_type: row.text(4)?.to_owned(),
        source_run_id: row.text(5)?.to_owned(),
        status: row.text(6)?.parse()?,
        creation_timestamp_ms: row.int(7)?,
        last_updated_timestamp_ms: row.int(8)?,
        artifact_uri: row.text(9)?.to_owned(),
        lifecycle: Lifecycle::from_code(row.int(10)?),
        params: Vec::new(),
        tags: Vec::new(),
    })
}

/// Adds parameters and tags, in the order of their names.
pub(super) fn with_data(
    tx: &mut dyn Tx,
    keys: &KeyCache,
    mut models: Vec<LoggedModel>,
) -> Result<Vec<LoggedModel>, Error> {
    let places: HashMap<i64, usize> = models.iter().enumerate().map(|(place, model)| (model.row, place)).collect();
    let (ids, set) = (Value::id_list(models.iter().map(|model| model.row)), tx.dialect().id_set(1));
    for table in ["model_params", "model_tags"] {
        let sql = format!("SELECT model, key, value FROM {table} WHERE model IN {set}");
        for row in tx.query(&sql, std::slice::from_ref(&ids))? {
            let pair = Pair::new(keys.name(tx, row.int(1)?)?, row.text(2)?);
            if let Some(model) = places.get(&row.int(0)?).and_then(|&place| models.get_mut(place)) {
                if table == "model_tags" { model.tags.push(pair) } else { model.params.push(pair) }
            }
        }
    }
    for model in &mut models {
        model.params.sort_by(|a, b| a.key.cmp(&b.key));
        model.tags.sort_by(|a, b| a.key.cmp(&b.key));
    }
    Ok(models)
}

fn find(tx: &mut dyn Tx, uid: &str) -> Result<LoggedModel, Error> {
    let sql = format!("SELECT {COLUMNS} FROM models m WHERE m.uid = $1 AND m.lifecycle = 0");
    let rows = tx.query(&sql, values![uid])?;
    rows.first().map(from_row).transpose()?.ok_or_else(|| Error::not_found("logged model", uid))
}

fn put(tx: &mut dyn Tx, interner: &mut Interner, table: &str, model: i64, pairs: &[Pair]) -> Result<(), Error> {
    let sql = format!(
        "INSERT INTO {table} (model, key, value) VALUES ($1, $2, $3) ON CONFLICT (model, key) DO UPDATE SET value = excluded.value"
    );
    for pair in pairs {
        let key = interner.id(tx, &pair.key)?;
        tx.execute(&sql, values![model, key, pair.value.as_str()])?;
    }
    Ok(())
}

impl Store {
    /// Makes a logged model in the state PENDING.
    ///
    /// # Errors
    /// A bad name, parameter or tag; there is no such experiment, or it is deleted.
    pub async fn create_model(&self, model: NewModel) -> Result<LoggedModel, Error> {
        let name = model.name.filter(|name| !name.is_empty()).unwrap_or_else(crate::names::random);
        if name.contains(['/', ':', '.', '%', '"', '\'']) || name.trim().is_empty() {
            return Err(Error::invalid("name", format!("`{name}` is blank or holds one of / : . % \" '")));
        }
        validate::text("name", &name)?;
        validate::text("model_type", &model.model_type)?;
        validate::text("source_run_id", &model.source_run_id)?;
        let mut params = last_of_each(model.params).into_iter().map(validate::param).collect::<Result<Vec<_>, _>>()?;
        let mut tags = last_of_each(model.tags).into_iter().map(validate::tag).collect::<Result<Vec<_>, _>>()?;
        params.sort_by(|a, b| a.key.cmp(&b.key));
        tags.sort_by(|a, b| a.key.cmp(&b.key));
        let uid = format!("m-{}", uuid::Uuid::new_v4().simple());
        self.write(move |tx, interner| {
            let experiment = experiments::find_active(tx, model.experiment_id)?;
            let location = experiment.artifact_location.trim_end_matches('/');
            let (time, artifact_uri) = (now(), format!("{location}/models/{uid}/artifacts"));
            let sql = "INSERT INTO models (uid, experiment, name, model_type, source_run, status, created, updated, artifact_uri, lifecycle) \
                       VALUES ($1, $2, $3, $4, $5, 'PENDING', $6, $6, $7, 0) RETURNING id";
            let rows = tx.query(
                sql,
                values![
                    uid.as_str(),
                    model.experiment_id,
                    name.as_str(),
                    model.model_type.as_str(),
                    model.source_run_id.as_str(),
                    time,
                    artifact_uri.as_str()
                ],
            )?;
            let row = rows.first().ok_or_else(|| Error::not_found("logged model", uid.as_str()))?.int(0)?;
            put(tx, interner, "model_params", row, &params)?;
            put(tx, interner, "model_tags", row, &tags)?;
            Ok(LoggedModel {
                row,
                model_id: uid,
                experiment_id: model.experiment_id,
                name,
                model_type: model.model_type,
                source_run_id: model.source_run_id,
                status: ModelStatus::Pending,
                creation_timestamp_ms: time,
                last_updated_timestamp_ms: time,
                artifact_uri,
                lifecycle: Lifecycle::Active,
                params,
                tags,
            })
        })
        .await
    }

    /// A logged model.
    ///
    /// # Errors
    /// There is none, or it is deleted.
    pub async fn model(&self, uid: String) -> Result<LoggedModel, Error> {
        self.read(move |tx, keys| {
            let found = find(tx, &uid)?;
            with_data(tx, keys, vec![found])?.pop().ok_or_else(|| Error::not_found("logged model", uid))
        })
        .await
    }

    /// Sets the state of a logged model.
    ///
    /// # Errors
    /// There is none, or it is deleted.
    pub async fn finalize_model(&self, uid: String, status: ModelStatus) -> Result<LoggedModel, Error> {
        let id = uid.clone();
        self.write(move |tx, _| {
            let model = find(tx, &uid)?;
            let sql = "UPDATE models SET status = $2, updated = $3 WHERE id = $1";
            tx.execute(sql, values![model.row, status.as_str(), now()])?;
            Ok(())
        })
        .await?;
        self.model(id).await
    }

    /// Deletes a logged model; its files stay.
    ///
    /// # Errors
    /// There is none, or it is deleted already.
    pub async fn delete_model(&self, uid: String) -> Result<(), Error> {
        self.write(move |tx, _| {
            let model = find(tx, &uid)?;
            tx.execute("UPDATE models SET lifecycle = 1, updated = $2 WHERE id = $1", values![model.row, now()])?;
            Ok(())
        })
        .await
    }

    /// Sets tags of a logged model.
    ///
    /// # Errors
    /// A bad tag; there is no such model.
    pub async fn set_model_tags(&self, uid: String, tags: Vec<Pair>) -> Result<LoggedModel, Error> {
        let tags = last_of_each(tags).into_iter().map(validate::tag).collect::<Result<Vec<_>, _>>()?;
        let id = uid.clone();
        self.write(move |tx, interner| {
            let model = find(tx, &uid)?;
            put(tx, interner, "model_tags", model.row, &tags)
        })
        .await?;
        self.model(id).await
    }

    /// Removes a tag of a logged model.
    ///
    /// # Errors
    /// There is no such model or tag.
    pub async fn delete_model_tag(&self, uid: String, key: String) -> Result<(), Error> {
        self.write(move |tx, interner| {
            let model = find(tx, &uid)?;
            let removed = match interner.find(tx, &key)? {
                Some(id) => {
                    tx.execute("DELETE FROM model_tags WHERE model = $1 AND key = $2", values![model.row, id])?
                }
                None => 0,
            };
            if removed == 0 { Err(Error::not_found("tag", key)) } else { Ok(()) }
        })
        .await
    }

    /// Writes parameters of a logged model.
    ///
    /// # Errors
    /// A bad parameter; there is no such model.
    pub async fn log_model_params(&self, uid: String, params: Vec<Pair>) -> Result<(), Error> {
        let params = last_of_each(params).into_iter().map(validate::param).collect::<Result<Vec<_>, _>>()?;
        self.write(move |tx, interner| {
            let model = find(tx, &uid)?;
            put(tx, interner, "model_params", model.row, &params)
        })
        .await
    }
}
