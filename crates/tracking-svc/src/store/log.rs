//! What runs log: points of metrics, parameters and tags, a whole call in one transaction.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use runtime_core::db::{Tx, Value};

use super::{Store, keys::Interner, runs, values};
use crate::{
    error::Error,
    model::{Lifecycle, Metric, Pair, RUN_NAME_TAG},
    validate::{self, Batch},
};

const INSERT_METRIC: &str = "INSERT INTO metrics (run, key, step, ts, value, nan, pos, followed) \
                             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING";
const UPSERT_LATEST: &str = "INSERT INTO latest (run, key, step, ts, value, nan) VALUES ($1, $2, $3, $4, $5, $6) \
                             ON CONFLICT (run, key) DO UPDATE \
                             SET step = excluded.step, ts = excluded.ts, value = excluded.value, nan = excluded.nan \
                             WHERE (excluded.step, excluded.ts, excluded.value) > (latest.step, latest.ts, latest.value)";
const UPSERT_TAG: &str = "INSERT INTO tags (run, key, value) VALUES ($1, $2, $3) \
                          ON CONFLICT (run, key) DO UPDATE SET value = excluded.value";
const INSERT_PARAM: &str = "INSERT INTO params (run, key, value) VALUES ($1, $2, $3)";

/// A run that may be written to.
struct Target {
    id: i64,
    points: i64,
    followed: i64,
}

fn target(tx: &mut dyn Tx, uid: &str) -> Result<Target, Error> {
    let rows = tx.query("SELECT id, lifecycle, points, followed FROM runs WHERE uid = $1", values![uid])?;
    let row = rows.first().ok_or_else(|| Error::not_found("run", uid))?;
    if Lifecycle::from_code(row.int(1)?) == Lifecycle::Deleted {
        return Err(runs::deleted(uid));
    }
    Ok(Target { id: row.int(0)?, points: row.int(2)?, followed: row.int(3)? })
}

/// Of tags given twice the last one counts.
pub(super) fn last_of_each(tags: Vec<Pair>) -> Vec<Pair> {
    let mut places: HashMap<Arc<str>, usize> = HashMap::new();
    let mut result: Vec<Pair> = Vec::with_capacity(tags.len());
    for tag in tags {
        match places.get(&tag.key) {
            Some(&place) => result[place] = tag,
            None => {
                places.insert(tag.key.clone(), result.len());
                result.push(tag);
            }
        }
    }
    result
}

/// Writes tags whose names differ.
pub(super) fn put_tags(tx: &mut dyn Tx, interner: &mut Interner, run: i64, tags: &[Pair]) -> Result<(), Error> {
    let mut rows: Vec<Vec<Value>> = Vec::with_capacity(tags.len());
    for tag in tags {
        rows.push(values![run, interner.id(tx, &tag.key)?, tag.value.as_str()].to_vec());
    }
    tx.execute_many(UPSERT_TAG, &rows)?;
    Ok(())
}

fn put_params(tx: &mut dyn Tx, interner: &mut Interner, run: i64, params: Vec<Pair>) -> Result<(), Error> {
    let mut known: HashMap<i64, String> = HashMap::new();
    if params.len() > 1 {
        for row in tx.query("SELECT key, value FROM params WHERE run = $1", values![run])? {
            known.insert(row.int(0)?, row.text(1)?.to_owned());
        }
    }
    let single = params.len() == 1;
    let mut rows: Vec<Vec<Value>> = Vec::with_capacity(params.len());
    for param in params {
        let key = interner.id(tx, &param.key)?;
        if single {
            for row in tx.query("SELECT value FROM params WHERE run = $1 AND key = $2", values![run, key])? {
                known.insert(key, row.text(0)?.to_owned());
            }
        }
        match known.get(&key) {
            None => rows.push(values![run, key, param.value].to_vec()),
            Some(value) if *value == param.value => {}
            Some(value) => {
                let reason =
                    format!("`{}` was logged as `{value}` and cannot be changed to `{}`", param.key, param.value);
                return Err(Error::invalid("params", reason));
            }
        }
    }
    tx.execute_many(INSERT_PARAM, &rows)?;
    Ok(())
}

/// MLflow's order of points: the greatest is a metric's latest. NaN counts as 0, as it is stored.
fn later(a: &Metric, b: &Metric) -> Ordering {
    let value = |metric: &Metric| if metric.value.is_nan() { 0.0 } else { metric.value };
    (a.step, a.timestamp).cmp(&(b.step, b.timestamp)).then(value(a).total_cmp(&value(b)))
}

fn put_metrics(tx: &mut dyn Tx, interner: &mut Interner, run: &Target, metrics: &[Metric]) -> Result<(), Error> {
    let mut rows: Vec<Vec<Value>> = Vec::with_capacity(metrics.len());
    let mut greatest: Vec<(i64, &Metric)> = Vec::new();
    let mut places: HashMap<i64, usize> = HashMap::new();
    for (metric, pos) in metrics.iter().zip(run.points + 1..) {
        let key = interner.id(tx, &metric.key)?;
        let (value, nan) = if metric.value.is_nan() { (0.0, true) } else { (metric.value, false) };
        rows.push(values![run.id, key, metric.step, metric.timestamp, value, nan, pos, run.followed].to_vec());
        match places.get(&key) {
            None => {
                places.insert(key, greatest.len());
                greatest.push((key, metric));
            }
            Some(&place) if later(metric, greatest[place].1) == Ordering::Greater => greatest[place].1 = metric,
            Some(_) => {}
        }
    }
    tx.execute_many(INSERT_METRIC, &rows)?;
    let latest: Vec<Vec<Value>> = greatest
        .into_iter()
        .map(|(key, metric)| {
            let (value, nan) = if metric.value.is_nan() { (0.0, true) } else { (metric.value, false) };
            values![run.id, key, metric.step, metric.timestamp, value, nan].to_vec()
        })
        .collect();
    tx.execute_many(UPSERT_LATEST, &latest)?;
    let points = run.points + rows.len() as i64;
    tx.execute("UPDATE runs SET points = $2 WHERE id = $1", values![run.id, points])?;
    Ok(())
}

impl Store {
    /// Writes metrics, parameters and tags of a run, all or nothing. `limited` applies the batch sizes of MLflow's REST API.
    ///
    /// Exact repetitions of a point are ignored; of tags given twice the last one counts.
    ///
    /// # Errors
    /// A bad item, a parameter that has another value already, a run that does not exist or is deleted.
    pub async fn log_batch(&self, uid: String, batch: Batch, limited: bool) -> Result<(), Error> {
        let batch = batch.check(limited)?;
        let tags = last_of_each(batch.tags);
        self.write(move |tx, interner| {
            let run = target(tx, &uid)?;
            if !batch.params.is_empty() {
                put_params(tx, interner, run.id, batch.params)?;
            }
            if !batch.metrics.is_empty() {
                put_metrics(tx, interner, &run, &batch.metrics)?;
            }
            if !tags.is_empty() {
                if let Some(name) = tags.iter().find(|tag| &*tag.key == RUN_NAME_TAG) {
                    validate::run_name(&name.value)?;
                    tx.execute("UPDATE runs SET name = $2 WHERE id = $1", values![run.id, name.value.as_str()])?;
                }
                put_tags(tx, interner, run.id, &tags)?;
            }
            Ok(())
        })
        .await
    }

    /// Removes a tag of a run.
    ///
    /// # Errors
    /// There is no such run or tag, or the run is deleted.
    pub async fn delete_tag(&self, uid: String, key: String) -> Result<(), Error> {
        self.write(move |tx, interner| {
            let run = target(tx, &uid)?;
            let removed = match interner.find(tx, &key)? {
                Some(key) => tx.execute("DELETE FROM tags WHERE run = $1 AND key = $2", values![run.id, key])?,
                None => 0,
            };
            if removed == 0 { Err(Error::not_found("tag", key)) } else { Ok(()) }
        })
        .await
    }
}
