//! Histories of metrics: all points in time order, and new points in the order of their arrival.

use runtime_core::db::Row;

use super::{Store, keys::KeyCache, page_offset, page_token, runs::metric_value, values};
use crate::{
    error::Error,
    model::{Metric, Page},
};

/// Points that [`Store::read_metrics`] gives at most in one answer.
const TAIL_LIMIT: i64 = 10_000;

/// New points of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Tail {
    /// In the order of their arrival.
    pub metrics: Vec<Metric>,
    /// Where to go on reading.
    pub position: i64,
}

fn point(row: &Row, key: std::sync::Arc<str>) -> Result<Metric, Error> {
    let value = metric_value(row.real(2)?, row.int(3)?);
    Ok(Metric { key, step: row.int(0)?, timestamp: row.int(1)?, value })
}

impl Store {
    /// The history of one metric in the order (timestamp, step, value), at most `limit` points (all of them without one).
    ///
    /// A run or metric that does not exist has an empty history, as in MLflow.
    ///
    /// # Errors
    /// A page token of another make.
    pub async fn metric_history(
        &self,
        uid: String,
        key: String,
        limit: Option<i64>,
        token: Option<String>,
    ) -> Result<Page<Metric>, Error> {
        let offset = page_offset(token.as_deref())?;
        let limit = limit.unwrap_or(i64::MAX / 4);
        self.read(move |tx, keys: &KeyCache| {
            let empty = Page { items: Vec::new(), next: None };
            let Some(key_id) = keys.find(tx, &key)? else { return Ok(empty) };
            let runs = tx.query("SELECT id FROM runs WHERE uid = $1", values![uid.as_str()])?;
            let Some(run) = runs.first().map(|row| row.int(0)).transpose()? else { return Ok(empty) };
            let name = keys.name(tx, key_id)?;
            let columns = "SELECT step, ts, value, nan FROM metrics WHERE run = $1 AND key = $2";
            if offset == 0 {
                // A history that fits is read in the table's own order and sorted here, where it mostly is sorted already.
                let rows = tx.query(&format!("{columns} LIMIT $3"), values![run, key_id, limit + 1])?;
                if rows.len() as i64 <= limit {
                    let mut items: Vec<Metric> =
                        rows.iter().map(|row| point(row, name.clone())).collect::<Result<_, _>>()?;
                    items.sort_by(|a, b| {
                        (a.timestamp, a.step).cmp(&(b.timestamp, b.step)).then(a.value.total_cmp(&b.value))
                    });
                    return Ok(Page { items, next: None });
                }
            }
            let sql = format!("{columns} ORDER BY ts, step, value, nan LIMIT $3 OFFSET $4");
            let rows = tx.query(&sql, values![run, key_id, limit + 1, offset])?;
            let more = rows.len() as i64 > limit;
            let items = rows.iter().take(usize::try_from(limit).unwrap_or(usize::MAX));
            let items = items.map(|row| point(row, name.clone())).collect::<Result<_, _>>()?;
            Ok(Page { items, next: more.then(|| page_token(offset + limit)) })
        })
        .await
    }

    /// Points of a run that arrived after a position (0 is the beginning), of one metric or of all.
    ///
    /// Cheap for a run that was made with [`super::NewRun::followed`]: new points alone are read.
    ///
    /// # Errors
    /// There is no such run; a negative position.
    pub async fn read_metrics(&self, uid: String, key: Option<String>, after: i64) -> Result<Tail, Error> {
        if after < 0 {
            return Err(Error::invalid("after", format!("{after} is negative; 0 means the beginning")));
        }
        self.read(move |tx, keys: &KeyCache| {
            let rows = tx.query("SELECT id, points, followed FROM runs WHERE uid = $1", values![uid.as_str()])?;
            let row = rows.first().ok_or_else(|| Error::not_found("run", uid))?;
            let (run, end, followed) = (row.int(0)?, row.int(1)?, row.int(2)? == 1);
            let key_id = match &key {
                Some(key) => keys.find(tx, key)?,
                None => Some(0),
            };
            let (Some(key_id), true) = (key_id, after < end) else {
                return Ok(Tail { metrics: Vec::new(), position: end.max(after) });
            };
            // `+key` keeps the database from taking the primary key, which would read the metric's whole history.
            let arrived = match (followed, key_id) {
                (true, 0) => "run = $1 AND followed = 1 AND key <> $4",
                (true, _) => "run = $1 AND followed = 1 AND +key = $4",
                (false, 0) => "run = $1 AND key <> $4",
                (false, _) => "run = $1 AND key = $4",
            };
            let sql = format!(
                "SELECT step, ts, value, nan, key, pos FROM metrics \
                 WHERE {arrived} AND pos > $2 AND pos <= $3 ORDER BY pos LIMIT {TAIL_LIMIT}"
            );
            let rows = tx.query(&sql, values![run, after, end, key_id])?;
            let mut metrics = Vec::with_capacity(rows.len());
            for row in &rows {
                let name = keys.name(tx, row.int(4)?)?;
                metrics.push(point(row, name)?);
            }
            let full = rows.len() as i64 == TAIL_LIMIT;
            let position = match rows.last() {
                Some(last) if full => last.int(5)?,
                _ => end,
            };
            Ok(Tail { metrics, position })
        })
        .await
    }
}
