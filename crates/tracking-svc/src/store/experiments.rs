//! Experiments: made, found by id and name, renamed, tagged, deleted and restored.

use runtime_core::db::{Row, Tx, Value};

use super::{
    Store,
    keys::{Interner, KeyCache},
    values,
};
use crate::{
    error::Error,
    model::{Experiment, Lifecycle, Pair, now},
    validate,
};

pub(super) const COLUMNS: &str = "e.id, e.name, e.artifact_location, e.lifecycle, e.created, e.updated";

pub(super) fn from_row(row: &Row) -> Result<Experiment, Error> {
    Ok(Experiment {
        experiment_id: row.int(0)?,
        name: row.text(1)?.to_owned(),
        artifact_location: row.text(2)?.to_owned(),
        lifecycle_stage: Lifecycle::from_code(row.int(3)?),
        creation_time: row.int(4)?,
        last_update_time: row.int(5)?,
        tags: Vec::new(),
    })
}

/// Adds the tags, in the order of their names.
pub(super) fn with_tags(
    tx: &mut dyn Tx,
    keys: &KeyCache,
    mut experiments: Vec<Experiment>,
) -> Result<Vec<Experiment>, Error> {
    let ids = Value::id_list(experiments.iter().map(|e| e.experiment_id));
    let sql =
        format!("SELECT experiment, key, value FROM experiment_tags WHERE experiment IN {}", tx.dialect().id_set(1));
    for row in tx.query(&sql, &[ids])? {
        let (owner, key) = (row.int(0)?, keys.name(tx, row.int(1)?)?);
        if let Some(experiment) = experiments.iter_mut().find(|e| e.experiment_id == owner) {
            experiment.tags.push(Pair::new(key, row.text(2)?));
        }
    }
    experiments.iter_mut().for_each(|e| e.tags.sort_by(|a, b| a.key.cmp(&b.key)));
    Ok(experiments)
}

fn find(tx: &mut dyn Tx, id: i64) -> Result<Experiment, Error> {
    let rows = tx.query(&format!("SELECT {COLUMNS} FROM experiments e WHERE e.id = $1"), values![id])?;
    rows.first().map(from_row).transpose()?.ok_or_else(|| Error::not_found("experiment", id.to_string()))
}

/// The experiment, if runs may be added to it.
pub(super) fn find_active(tx: &mut dyn Tx, id: i64) -> Result<Experiment, Error> {
    let experiment = find(tx, id)?;
    match experiment.lifecycle_stage {
        Lifecycle::Active => Ok(experiment),
        Lifecycle::Deleted => {
            let subject = format!("experiment `{}` ({id})", experiment.name);
            Err(Error::IllegalState { subject, reason: "is deleted; restore it first" })
        }
    }
}

fn find_by_name(tx: &mut dyn Tx, name: &str) -> Result<Option<Experiment>, Error> {
    let rows = tx.query(&format!("SELECT {COLUMNS} FROM experiments e WHERE e.name = $1"), values![name])?;
    rows.first().map(from_row).transpose()
}

fn put_tags(tx: &mut dyn Tx, interner: &mut Interner, id: i64, tags: &[Pair]) -> Result<(), Error> {
    let sql = "INSERT INTO experiment_tags (experiment, key, value) VALUES ($1, $2, $3) \
               ON CONFLICT (experiment, key) DO UPDATE SET value = excluded.value";
    for tag in tags {
        let key = interner.id(tx, &tag.key)?;
        tx.execute(sql, values![id, key, tag.value.as_str()])?;
    }
    Ok(())
}

fn create(
    tx: &mut dyn Tx,
    interner: &mut Interner,
    name: &str,
    location: Option<&str>,
    tags: Vec<Pair>,
) -> Result<Experiment, Error> {
    let time = now();
    let sql = "INSERT INTO experiments (name, artifact_location, lifecycle, created, updated) VALUES ($1, '', 0, $2, $2) RETURNING id";
    let rows = tx.query(sql, values![name, time])?;
    let row = rows.first().ok_or_else(|| Error::not_found("experiment", name))?;
    let experiment_id = row.int(0)?;
    let artifact_location = location.map_or_else(|| format!("mlflow-artifacts:/{experiment_id}"), str::to_owned);
    let sql = "UPDATE experiments SET artifact_location = $2 WHERE id = $1";
    tx.execute(sql, values![experiment_id, artifact_location.as_str()])?;
    put_tags(tx, interner, experiment_id, &tags)?;
    Ok(Experiment {
        experiment_id,
        name: name.to_owned(),
        artifact_location,
        lifecycle_stage: Lifecycle::Active,
        creation_time: time,
        last_update_time: time,
        tags,
    })
}

impl Store {
    /// Makes an experiment.
    ///
    /// # Errors
    /// A bad name, location or tag; the name is taken, by a deleted experiment too.
    pub async fn create_experiment(
        &self,
        name: String,
        location: Option<String>,
        tags: Vec<Pair>,
    ) -> Result<Experiment, Error> {
        validate::experiment_name(&name)?;
        location.as_deref().map_or(Ok(()), validate::artifact_location)?;
        tags.iter().try_for_each(validate::experiment_tag)?;
        self.write(move |tx, interner| match find_by_name(tx, &name)? {
            None => create(tx, interner, &name, location.as_deref(), tags),
            Some(other) => {
                let detail = match other.lifecycle_stage {
                    Lifecycle::Active => "choose another name",
                    Lifecycle::Deleted => "it is deleted; restore it or choose another name",
                };
                Err(Error::AlreadyExists { kind: "experiment", name, detail })
            }
        })
        .await
    }

    /// The experiment of that name, made if there is none.
    ///
    /// # Errors
    /// A bad name; a deleted experiment has it.
    pub async fn ensure_experiment(&self, name: String) -> Result<Experiment, Error> {
        validate::experiment_name(&name)?;
        self.write(move |tx, interner| match find_by_name(tx, &name)? {
            Some(found) => find_active(tx, found.experiment_id),
            None => create(tx, interner, &name, None, Vec::new()),
        })
        .await
    }

    /// An experiment by its id, deleted ones too.
    ///
    /// # Errors
    /// There is none.
    pub async fn experiment(&self, id: i64) -> Result<Experiment, Error> {
        self.read(move |tx, keys| {
            let found = find(tx, id)?;
            with_tags(tx, keys, vec![found])?.pop().ok_or_else(|| Error::not_found("experiment", id.to_string()))
        })
        .await
    }

    /// An experiment by its name, deleted ones too.
    ///
    /// # Errors
    /// There is none.
    pub async fn experiment_by_name(&self, name: String) -> Result<Experiment, Error> {
        self.read(move |tx, keys| {
            let found = find_by_name(tx, &name)?.into_iter().collect();
            with_tags(tx, keys, found)?.pop().ok_or_else(|| Error::not_found("experiment", name))
        })
        .await
    }

    /// Deletes or restores an experiment and with it its runs.
    ///
    /// # Errors
    /// There is none, or it is in that stage already.
    pub async fn set_experiment_lifecycle(&self, id: i64, to: Lifecycle) -> Result<(), Error> {
        self.write(move |tx, _| {
            if find(tx, id)?.lifecycle_stage == to {
                // MLflow answers 404 here: there is no experiment in the stage that the call is about.
                let kind = if to == Lifecycle::Deleted { "active experiment" } else { "deleted experiment" };
                return Err(Error::not_found(kind, id.to_string()));
            }
            let time = now();
            tx.execute(
                "UPDATE experiments SET lifecycle = $2, updated = $3 WHERE id = $1",
                values![id, to.code(), time],
            )?;
            let deleted = (to == Lifecycle::Deleted).then_some(time);
            let sql = "UPDATE runs SET lifecycle = $2, deleted_time = $3 WHERE experiment = $1 AND lifecycle <> $2";
            tx.execute(sql, values![id, to.code(), deleted])?;
            Ok(())
        })
        .await
    }

    /// Renames an experiment.
    ///
    /// # Errors
    /// A bad name; there is none; it is deleted; the name is taken.
    pub async fn rename_experiment(&self, id: i64, name: String) -> Result<(), Error> {
        validate::experiment_name(&name)?;
        self.write(move |tx, _| {
            find_active(tx, id)?;
            if find_by_name(tx, &name)?.is_some_and(|other| other.experiment_id != id) {
                return Err(Error::AlreadyExists { kind: "experiment", name, detail: "choose another name" });
            }
            tx.execute("UPDATE experiments SET name = $2, updated = $3 WHERE id = $1", values![id, name, now()])?;
            Ok(())
        })
        .await
    }

    /// Sets a tag of an experiment.
    ///
    /// # Errors
    /// A bad tag; there is no such experiment, or it is deleted.
    pub async fn set_experiment_tag(&self, id: i64, tag: Pair) -> Result<(), Error> {
        validate::experiment_tag(&tag)?;
        self.write(move |tx, interner| {
            find_active(tx, id)?;
            put_tags(tx, interner, id, &[tag])?;
            tx.execute("UPDATE experiments SET updated = $2 WHERE id = $1", values![id, now()])?;
            Ok(())
        })
        .await
    }

    /// Removes a tag of an experiment.
    ///
    /// # Errors
    /// There is no such experiment or tag, or the experiment is deleted.
    pub async fn delete_experiment_tag(&self, id: i64, key: String) -> Result<(), Error> {
        self.write(move |tx, interner| {
            find_active(tx, id)?;
            let removed = match interner.find(tx, &key)? {
                Some(key) => {
                    tx.execute("DELETE FROM experiment_tags WHERE experiment = $1 AND key = $2", values![id, key])?
                }
                None => 0,
            };
            if removed == 0 {
                return Err(Error::not_found("tag", key));
            }
            tx.execute("UPDATE experiments SET updated = $2 WHERE id = $1", values![id, now()])?;
            Ok(())
        })
        .await
    }
}
