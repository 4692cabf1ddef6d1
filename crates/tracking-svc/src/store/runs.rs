//! Runs: made, read whole, updated, deleted, restored and found by their key.

use std::collections::HashMap;

use runtime_core::db::{Row, Tx, Value};

use super::{
    Store, experiments,
    keys::{Interner, KeyCache},
    log,
    schema::RUN_KEY_ID,
    values,
};
use crate::{
    error::Error,
    model::{
        Lifecycle, Metric, ModelOutput, Pair, RUN_NAME_TAG, Run, RunData, RunInfo, RunInputs, RunOutputs, RunStatus,
        now,
    },
    names, validate,
};

pub(super) const COLUMNS: &str =
    "r.id, r.uid, r.name, r.experiment, r.user_id, r.status, r.start_time, r.end_time, r.artifact_uri, r.lifecycle";

/// A run to be made.
#[derive(Clone, Debug, Default)]
pub struct NewRun {
    /// The caller's id; without one the store chooses. The same id again gives the same run.
    pub run_id: Option<String>,
    /// The experiment.
    pub experiment_id: i64,
    /// A name; without one the tag `mlflow.runName` or a random one.
    pub run_name: Option<String>,
    /// Who starts it; may be empty.
    pub user_id: String,
    /// Milliseconds since 1970.
    pub start_time: i64,
    /// Tags.
    pub tags: Vec<Pair>,
    /// Where its artifacts lie; without it `<experiment's location>/<run id>/artifacts`.
    pub artifact_uri: Option<String>,
    /// Somebody will follow its metrics as they arrive ([`Store::read_metrics`]).
    pub followed: bool,
}

/// What changes of a run; absent fields stay.
#[derive(Clone, Debug, Default)]
pub struct RunUpdate {
    /// The new state.
    pub status: Option<RunStatus>,
    /// Milliseconds since 1970.
    pub end_time: Option<i64>,
    /// The new name, also written to the tag `mlflow.runName`.
    pub run_name: Option<String>,
}

/// The run's row id and what it is.
pub(super) fn from_row(row: &Row) -> Result<(i64, RunInfo), Error> {
    let info = RunInfo {
        run_id: row.text(1)?.to_owned(),
        run_name: row.text(2)?.to_owned(),
        experiment_id: row.int(3)?,
        user_id: row.text(4)?.to_owned(),
        status: row.text(5)?.parse()?,
        start_time: row.int(6)?,
        end_time: row.opt_int(7)?,
        artifact_uri: row.text(8)?.to_owned(),
        lifecycle_stage: Lifecycle::from_code(row.int(9)?),
    };
    Ok((row.int(0)?, info))
}

pub(super) fn find(tx: &mut dyn Tx, uid: &str) -> Result<Option<(i64, RunInfo)>, Error> {
    let rows = tx.query(&format!("SELECT {COLUMNS} FROM runs r WHERE r.uid = $1"), values![uid])?;
    rows.first().map(from_row).transpose()
}

pub(super) fn find_existing(tx: &mut dyn Tx, uid: &str) -> Result<(i64, RunInfo), Error> {
    find(tx, uid)?.ok_or_else(|| Error::not_found("run", uid))
}

/// The refusal of a write to a deleted run.
pub(super) fn deleted(uid: &str) -> Error {
    Error::IllegalState { subject: format!("run `{uid}`"), reason: "is deleted; restore it first" }
}

/// The value column of a metric row as a number.
pub(super) fn metric_value(value: f64, nan: i64) -> f64 {
    if nan == 0 { value } else { f64::NAN }
}

/// Adds what the runs logged, everything sorted by name.
pub(super) fn with_data(tx: &mut dyn Tx, keys: &KeyCache, runs: Vec<(i64, RunInfo)>) -> Result<Vec<Run>, Error> {
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    // One run is asked for by its id, so that the statement is the cheapest possible.
    let (condition, parameter) = match runs.as_slice() {
        [(id, _)] => ("= $1".to_owned(), values![*id].to_vec()),
        many => (format!("IN {}", tx.dialect().id_set(1)), vec![Value::id_list(many.iter().map(|(id, _)| *id))]),
    };
    let places: HashMap<i64, usize> = runs.iter().enumerate().map(|(place, (id, _))| (*id, place)).collect();
    let mut result: Vec<Run> = runs
        .into_iter()
        .map(|(_, info)| Run { info, data: RunData::default(), inputs: RunInputs {}, outputs: RunOutputs::default() })
        .collect();
    let place = |row: &Row| -> Result<usize, Error> { Ok(places.get(&row.int(0)?).copied().unwrap_or(0)) };
    for row in
        tx.query(&format!("SELECT run, key, step, ts, value, nan FROM latest WHERE run {condition}"), &parameter)?
    {
        let metric = Metric {
            key: keys.name(tx, row.int(1)?)?,
            step: row.int(2)?,
            timestamp: row.int(3)?,
            value: metric_value(row.real(4)?, row.int(5)?),
        };
        result[place(&row)?].data.metrics.push(metric);
    }
    for row in tx.query(&format!("SELECT run, key, value FROM params WHERE run {condition}"), &parameter)? {
        let pair = Pair::new(keys.name(tx, row.int(1)?)?, row.text(2)?);
        result[place(&row)?].data.params.push(pair);
    }
    for row in tx.query(&format!("SELECT run, key, value FROM tags WHERE run {condition}"), &parameter)? {
        let pair = Pair::new(keys.name(tx, row.int(1)?)?, row.text(2)?);
        result[place(&row)?].data.tags.push(pair);
    }
    for row in tx.query(&format!("SELECT run, model, step FROM run_outputs WHERE run {condition}"), &parameter)? {
        let output = ModelOutput { model_id: row.text(1)?.to_owned(), step: row.int(2)? };
        result[place(&row)?].outputs.model_outputs.push(output);
    }
    for run in &mut result {
        run.data.metrics.sort_by(|a, b| a.key.cmp(&b.key));
        run.data.params.sort_by(|a, b| a.key.cmp(&b.key));
        run.data.tags.sort_by(|a, b| a.key.cmp(&b.key));
        run.outputs.model_outputs.sort_by(|a, b| (a.step, &a.model_id).cmp(&(b.step, &b.model_id)));
    }
    Ok(result)
}

/// The name that the run gets, also as its tag.
fn settle_name(name: Option<String>, tags: &mut Vec<Pair>) -> Result<String, Error> {
    let given = name.filter(|name| !name.trim().is_empty());
    let tagged = tags.iter().find(|tag| &*tag.key == RUN_NAME_TAG).map(|tag| tag.value.clone());
    let name = match (given, tagged) {
        (Some(given), Some(tagged)) if given != tagged => {
            let reason = format!("`{given}` differs from the tag {RUN_NAME_TAG} `{tagged}`");
            return Err(Error::invalid("run_name", reason));
        }
        (_, Some(tagged)) => return validate::run_name(&tagged).map(|()| tagged),
        (Some(given), None) => given,
        (None, None) => names::random(),
    };
    validate::run_name(&name)?;
    tags.push(Pair::new(RUN_NAME_TAG, name.as_str()));
    Ok(name)
}

fn create(tx: &mut dyn Tx, interner: &mut Interner, uid: String, name: String, run: NewRun) -> Result<Run, Error> {
    let experiment = experiments::find_active(tx, run.experiment_id)?;
    let artifact_uri = run
        .artifact_uri
        .unwrap_or_else(|| format!("{}/{uid}/artifacts", experiment.artifact_location.trim_end_matches('/')));
    let info = RunInfo {
        run_id: uid,
        run_name: name,
        experiment_id: run.experiment_id,
        user_id: run.user_id,
        status: RunStatus::Running,
        start_time: run.start_time,
        end_time: None,
        artifact_uri,
        lifecycle_stage: Lifecycle::Active,
    };
    let sql = "INSERT INTO runs (uid, experiment, name, user_id, status, start_time, artifact_uri, lifecycle, points, followed) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, $8) RETURNING id";
    let rows = tx.query(
        sql,
        values![
            info.run_id.as_str(),
            info.experiment_id,
            info.run_name.as_str(),
            info.user_id.as_str(),
            info.status.as_str(),
            info.start_time,
            info.artifact_uri.as_str(),
            run.followed,
        ],
    )?;
    let row = rows.first().ok_or_else(|| Error::not_found("run", info.run_id.as_str()))?;
    let mut tags = run.tags;
    log::put_tags(tx, interner, row.int(0)?, &tags)?;
    tags.sort_by(|a, b| a.key.cmp(&b.key));
    let data = RunData { tags, ..RunData::default() };
    Ok(Run { info, data, inputs: RunInputs {}, outputs: RunOutputs::default() })
}

impl Store {
    /// Makes a run, or gives the one that has the caller's id.
    ///
    /// # Errors
    /// A bad id, name or tag; there is no such experiment, or it is deleted; the id belongs to a run of another experiment.
    pub async fn create_run(&self, mut run: NewRun) -> Result<Run, Error> {
        let uid = match run.run_id.take() {
            Some(uid) => {
                validate::run_id(&uid)?;
                uid
            }
            None => uuid::Uuid::new_v4().simple().to_string(),
        };
        validate::text("user_id", &run.user_id)?;
        run.artifact_uri.as_deref().map_or(Ok(()), validate::artifact_location)?;
        let mut tags = log::last_of_each(run.tags).into_iter().map(validate::tag).collect::<Result<Vec<_>, _>>()?;
        let name = settle_name(run.run_name.take(), &mut tags)?;
        run.tags = tags;
        let id = uid.clone();
        let made = self
            .write(move |tx, interner| match find(tx, &uid)? {
                None => create(tx, interner, uid, name, run).map(Some),
                Some((_, info)) if info.experiment_id == run.experiment_id => Ok(None),
                Some(_) => {
                    Err(Error::AlreadyExists { kind: "run", name: uid, detail: "it belongs to another experiment" })
                }
            })
            .await?;
        match made {
            Some(run) => Ok(run),
            None => self.run(id).await,
        }
    }

    /// A run with what it logged, deleted ones too.
    ///
    /// # Errors
    /// There is none.
    pub async fn run(&self, uid: String) -> Result<Run, Error> {
        self.read(move |tx, keys| {
            let found = find_existing(tx, &uid)?;
            with_data(tx, keys, vec![found])?.pop().ok_or_else(|| Error::not_found("run", uid))
        })
        .await
    }

    /// What a run is, without what it logged.
    ///
    /// # Errors
    /// There is none.
    pub async fn run_info(&self, uid: String) -> Result<RunInfo, Error> {
        self.read(move |tx, _| find_existing(tx, &uid).map(|(_, info)| info)).await
    }

    /// Changes state, end or name of a run.
    ///
    /// # Errors
    /// A bad name; there is no such run, or it is deleted.
    pub async fn update_run(&self, uid: String, update: RunUpdate) -> Result<RunInfo, Error> {
        let name = update.run_name.filter(|name| !name.is_empty());
        name.as_deref().map_or(Ok(()), validate::run_name)?;
        self.write(move |tx, interner| {
            let (id, mut info) = find_existing(tx, &uid)?;
            if info.lifecycle_stage == Lifecycle::Deleted {
                return Err(deleted(&uid));
            }
            info.status = update.status.unwrap_or(info.status);
            info.end_time = update.end_time.or(info.end_time);
            if let Some(name) = name {
                log::put_tags(tx, interner, id, &[Pair::new(RUN_NAME_TAG, name.as_str())])?;
                info.run_name = name;
            }
            let sql = "UPDATE runs SET status = $2, end_time = $3, name = $4 WHERE id = $1";
            tx.execute(sql, values![id, info.status.as_str(), info.end_time, info.run_name.as_str()])?;
            Ok(info)
        })
        .await
    }

    /// Deletes or restores a run; again is no error.
    ///
    /// # Errors
    /// There is none.
    pub async fn set_run_lifecycle(&self, uid: String, to: Lifecycle) -> Result<(), Error> {
        self.write(move |tx, _| {
            let (id, info) = find_existing(tx, &uid)?;
            if info.lifecycle_stage != to {
                let time = (to == Lifecycle::Deleted).then(now);
                let sql = "UPDATE runs SET lifecycle = $2, deleted_time = $3 WHERE id = $1";
                tx.execute(sql, values![id, to.code(), time])?;
            }
            Ok(())
        })
        .await
    }

    /// The newest active run whose tag `quintet.run_key` has this value, in one experiment or in all.
    ///
    /// # Errors
    /// There is none.
    pub async fn find_run(&self, run_key: String, experiment: Option<i64>) -> Result<Run, Error> {
        self.read(move |tx, keys| {
            // The number stands in the text: the partial index is for this one name.
            let sql = format!(
                "SELECT {COLUMNS} FROM runs r JOIN tags t ON t.run = r.id \
                 WHERE t.key = {RUN_KEY_ID} AND t.value = $1 AND r.lifecycle = 0 AND (r.experiment = $2 OR $2 < 0) \
                 ORDER BY r.start_time DESC, r.id DESC LIMIT 1"
            );
            let rows = tx.query(&sql, values![run_key.as_str(), experiment.unwrap_or(-1)])?;
            let found = rows.first().map(from_row).transpose()?;
            with_data(tx, keys, found.into_iter().collect())?
                .pop()
                .ok_or_else(|| Error::not_found("run with key", run_key))
        })
        .await
    }

    /// Notes logged models that a run made; the same again changes its step.
    ///
    /// # Errors
    /// There is no such run, or it is deleted.
    pub async fn log_outputs(&self, uid: String, outputs: Vec<ModelOutput>) -> Result<(), Error> {
        outputs.iter().try_for_each(|output| validate::text("model_id", &output.model_id))?;
        self.write(move |tx, _| {
            let (id, info) = find_existing(tx, &uid)?;
            if info.lifecycle_stage == Lifecycle::Deleted {
                return Err(deleted(&uid));
            }
            let sql = "INSERT INTO run_outputs (run, model, step) VALUES ($1, $2, $3) \
                       ON CONFLICT (run, model) DO UPDATE SET step = excluded.step";
            for output in outputs {
                tx.execute(sql, values![id, output.model_id, output.step])?;
            }
            Ok(())
        })
        .await
    }
}
