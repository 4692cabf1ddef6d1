//! How jobs, their events and their logs lie in the database.

use std::collections::HashSet;

use prost::Message as _;
use quintet_proto::v1::{Job, JobEvent, JobState, job_event::Event};

use super::{
    engine::{Effects, Entry},
    model::Millis,
};
use crate::db::{Db, Error, Migration, Row, Tx, Value};

/// The schema of the job store.
pub const MIGRATIONS: &[Migration] = &[Migration {
    name: "0001_jobs",
    sqlite: "
        CREATE TABLE jobs (key INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, state INTEGER NOT NULL,
            parent TEXT NOT NULL, content_hash TEXT NOT NULL, request_hash TEXT NOT NULL, revision INTEGER NOT NULL);
        CREATE INDEX jobs_parent ON jobs (parent, key) WHERE parent <> '';
        CREATE INDEX jobs_content ON jobs (content_hash, key) WHERE content_hash <> '';
        CREATE TABLE events (revision INTEGER PRIMARY KEY, key INTEGER NOT NULL, time INTEGER NOT NULL, body BLOB NOT NULL);
        CREATE INDEX events_job ON events (key, revision);
        CREATE TABLE logs (key INTEGER NOT NULL, attempt INTEGER NOT NULL, start INTEGER NOT NULL, data BLOB NOT NULL,
            PRIMARY KEY (key, attempt, start));
        CREATE TABLE cursors (name TEXT PRIMARY KEY, revision INTEGER NOT NULL);",
    postgres: "
        CREATE TABLE jobs (key BIGINT PRIMARY KEY, uid TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, state BIGINT NOT NULL,
            parent TEXT NOT NULL, content_hash TEXT NOT NULL, request_hash TEXT NOT NULL, revision BIGINT NOT NULL);
        CREATE INDEX jobs_parent ON jobs (parent, key) WHERE parent <> '';
        CREATE INDEX jobs_content ON jobs (content_hash, key) WHERE content_hash <> '';
        CREATE TABLE events (revision BIGINT PRIMARY KEY, key BIGINT NOT NULL, time BIGINT NOT NULL, body BYTEA NOT NULL);
        CREATE INDEX events_job ON events (key, revision);
        CREATE TABLE logs (key BIGINT NOT NULL, attempt BIGINT NOT NULL, start BIGINT NOT NULL, data BYTEA NOT NULL,
            PRIMARY KEY (key, attempt, start));
        CREATE TABLE cursors (name TEXT PRIMARY KEY, revision BIGINT NOT NULL);",
}];

const TERMINAL: [JobState; 3] = [JobState::Succeeded, JobState::Failed, JobState::Cancelled];

fn terminal_list() -> String {
    TERMINAL.map(|state| (state as i32).to_string()).join(", ")
}

/// Everything that the engine starts from.
pub struct Loaded {
    /// Jobs that have not ended.
    pub live: Vec<Entry>,
    /// Uids of those that have.
    pub ended: HashSet<String>,
    /// [`content_key`] of each job that has succeeded.
    pub succeeded: HashSet<u64>,
    /// First free key.
    pub next_key: i64,
    /// First free revision.
    pub next_revision: i64,
}

/// Stores the effects of requests.
///
/// # Errors
/// The database's.
pub fn save(tx: &mut dyn Tx, effects: &Effects) -> Result<(), Error> {
    let rows: Vec<Vec<Value>> = effects
        .jobs
        .values()
        .map(|row| {
            vec![
                row.key.into(),
                (&row.uid).into(),
                row.kind.into(),
                (row.state as i32).into(),
                (&row.parent).into(),
                (&row.content_hash).into(),
                (&row.request_hash).into(),
                row.revision.into(),
            ]
        })
        .collect();
    tx.execute_many(
        "INSERT INTO jobs (key, uid, kind, state, parent, content_hash, request_hash, revision)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (key) DO UPDATE SET state = excluded.state, revision = excluded.revision",
        &rows,
    )?;
    let rows: Vec<Vec<Value>> = effects
        .events
        .iter()
        .map(|e| vec![e.event.revision.into(), e.key.into(), e.time.into(), e.event.encode_to_vec().into()])
        .collect();
    tx.execute_many("INSERT INTO events (revision, key, time, body) VALUES ($1, $2, $3, $4)", &rows)?;
    let rows: Vec<Vec<Value>> = effects
        .logs
        .iter()
        .map(|log| vec![log.key.into(), log.attempt.into(), log.offset.into(), log.data.clone().into()])
        .collect();
    tx.execute_many(
        "INSERT INTO logs (key, attempt, start, data) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        &rows,
    )?;
    Ok(())
}

/// Reads what the engine starts from.
///
/// # Errors
/// The database's, or a row that cannot be decoded.
pub fn load(tx: &mut dyn Tx, now: Millis) -> Result<Loaded, Error> {
    let live = tx.query(
        &format!(
            "SELECT j.key, j.request_hash, e.body FROM jobs j JOIN events e ON e.revision = j.revision
             WHERE j.state NOT IN ({}) ORDER BY j.key",
            terminal_list()
        ),
        &[],
    )?;
    let live = live.iter().map(|row| entry(tx, row, now)).collect::<Result<_, _>>()?;
    let ended = tx.query(&format!("SELECT uid FROM jobs WHERE state IN ({})", terminal_list()), &[])?;
    let ended = ended.iter().map(|row| row.text(0).map(str::to_owned)).collect::<Result<_, _>>()?;
    let succeeded = tx.query(
        "SELECT content_hash FROM jobs WHERE state = $1 AND content_hash <> ''",
        &[Value::from(JobState::Succeeded as i32)],
    )?;
    let succeeded = succeeded.iter().map(|row| row.text(0).map(content_key)).collect::<Result<_, _>>()?;
    let next_key = tx.query("SELECT max(key) FROM jobs", &[])?;
    let next_revision = tx.query("SELECT max(revision) FROM events", &[])?;
    let after = |rows: &[Row]| rows.first().map_or(Ok(None), |row| row.opt_int(0)).map(|max| max.unwrap_or(0) + 1);
    Ok(Loaded { live, ended, succeeded, next_key: after(&next_key)?, next_revision: after(&next_revision)? })
}

/// The first 64 bits of a content hash.
pub fn content_key(content_hash: &str) -> u64 {
    content_hash.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

fn entry(tx: &mut dyn Tx, row: &Row, now: Millis) -> Result<Entry, Error> {
    let (key, job) = (row.int(0)?, transition_of(row.blob(2)?)?);
    // Of the current attempt alone: each begins a log of its own.
    let log = tx.query(
        "SELECT max(start + length(data)) FROM logs WHERE key = $1 AND attempt = $2",
        &[key.into(), job.attempt.into()],
    )?;
    let log_len = log.first().map_or(Ok(None), |row| row.opt_int(0))?.unwrap_or(0);
    Ok(Entry::loaded(key, row.text(1)?.to_owned(), job, log_len, now))
}

fn decode(body: &[u8]) -> Result<JobEvent, Error> {
    JobEvent::decode(body).map_err(|error| Error::Statement(format!("a stored event cannot be read: {error}")))
}

fn transition_of(body: &[u8]) -> Result<Job, Error> {
    match decode(body)?.event {
        Some(Event::Transition(job)) => Ok(job),
        _ => Err(Error::Statement("the event of a job's revision is not a transition".into())),
    }
}

/// A stored job and the hash of the request that made it.
///
/// # Errors
/// The database's.
pub async fn get(db: &Db, uid: &str) -> Result<Option<(Job, String)>, Error> {
    let uid = Value::from(uid);
    db.read(move |tx| {
        let rows = tx.query(
            "SELECT e.body, j.request_hash FROM jobs j JOIN events e ON e.revision = j.revision WHERE j.uid = $1",
            &[uid],
        )?;
        rows.first().map(|row| Ok((transition_of(row.blob(0)?)?, row.text(1)?.to_owned()))).transpose()
    })
    .await
}

/// The newest job of this content that has succeeded.
///
/// # Errors
/// The database's.
pub async fn succeeded(db: &Db, content_hash: &str) -> Result<Option<Job>, Error> {
    let params = [Value::from(content_hash), Value::from(JobState::Succeeded as i32)];
    db.read(move |tx| {
        let rows = tx.query(
            "SELECT e.body FROM jobs j JOIN events e ON e.revision = j.revision
             WHERE j.content_hash = $1 AND j.content_hash <> '' AND j.state = $2 ORDER BY j.key DESC LIMIT 1",
            &params,
        )?;
        rows.first().map(|row| transition_of(row.blob(0)?)).transpose()
    })
    .await
}

/// Which jobs to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Uid of the parent; empty means any.
    pub parent: String,
    /// Any of these states; empty means all.
    pub states: Vec<JobState>,
    /// Kind; empty means any.
    pub kind: String,
    /// Only keys below this one: where the last page ended.
    pub before: Option<i64>,
    /// Rows at most.
    pub limit: usize,
}

/// Jobs, newest first, with their keys.
///
/// # Errors
/// The database's.
pub async fn list(db: &Db, filter: Filter) -> Result<Vec<(i64, Job)>, Error> {
    db.read(move |tx| {
        let mut params = vec![Value::from(filter.before.unwrap_or(i64::MAX))];
        let mut conditions = vec!["j.key < $1".to_owned()];
        if !filter.parent.is_empty() {
            params.push(filter.parent.into());
            conditions.push(format!("j.parent = ${} AND j.parent <> ''", params.len()));
        }
        if !filter.kind.is_empty() {
            params.push(filter.kind.into());
            conditions.push(format!("j.kind = ${}", params.len()));
        }
        if !filter.states.is_empty() {
            let states: Vec<String> = filter.states.iter().map(|state| (*state as i32).to_string()).collect();
            conditions.push(format!("j.state IN ({})", states.join(", ")));
        }
        let sql = format!(
            "SELECT j.key, e.body FROM jobs j JOIN events e ON e.revision = j.revision WHERE {} ORDER BY j.key DESC LIMIT {}",
            conditions.join(" AND "),
            filter.limit
        );
        tx.query(&sql, &params)?.iter().map(|row| Ok((row.int(0)?, transition_of(row.blob(1)?)?))).collect()
    })
    .await
}

/// Events of one job, or of all, after a revision, oldest first.
///
/// # Errors
/// The database's.
pub async fn events(db: &Db, uid: Option<&str>, after: i64, limit: usize) -> Result<Vec<JobEvent>, Error> {
    let uid = uid.map(str::to_owned);
    db.read(move |tx| {
        let rows = match uid {
            Some(uid) => tx.query(
                &format!(
                    "SELECT e.body FROM events e JOIN jobs j ON j.key = e.key
                     WHERE j.uid = $1 AND e.revision > $2 ORDER BY e.revision LIMIT {limit}"
                ),
                &[uid.into(), after.into()],
            )?,
            None => tx.query(
                &format!("SELECT body FROM events WHERE revision > $1 ORDER BY revision LIMIT {limit}"),
                &[after.into()],
            )?,
        };
        rows.iter().map(|row| decode(row.blob(0)?)).collect()
    })
    .await
}

/// Pieces of an attempt's log from an offset on, as (offset, bytes).
///
/// # Errors
/// The database's.
pub async fn logs(db: &Db, uid: &str, attempt: i32, offset: i64, limit: usize) -> Result<Vec<(i64, Vec<u8>)>, Error> {
    let params = [Value::from(uid), attempt.into(), offset.into()];
    db.read(move |tx| {
        let rows = tx.query(
            &format!(
                "SELECT l.start, l.data FROM logs l JOIN jobs j ON j.key = l.key
                 WHERE j.uid = $1 AND l.attempt = $2 AND l.start + length(l.data) > $3 ORDER BY l.start LIMIT {limit}"
            ),
            &params,
        )?;
        rows.iter()
            .map(|row| {
                let (start, data) = (row.int(0)?, row.blob(1)?);
                let skip = usize::try_from(offset - start).unwrap_or(0).min(data.len());
                Ok((start + skip as i64, data[skip..].to_vec()))
            })
            .collect()
    })
    .await
}

/// Deletes a job that has ended, with its events and logs; false when there is none.
///
/// # Errors
/// The database's.
pub async fn delete(db: &Db, uid: &str) -> Result<bool, Error> {
    let uid = Value::from(uid);
    db.write(move |tx| {
        let rows =
            tx.query(&format!("SELECT key FROM jobs WHERE uid = $1 AND state IN ({})", terminal_list()), &[uid])?;
        let Some(key) = rows.first().map(|row| row.int(0)).transpose()? else { return Ok(false) };
        for table in ["logs", "events", "jobs"] {
            tx.execute(&format!("DELETE FROM {table} WHERE key = $1"), &[key.into()])?;
        }
        Ok(true)
    })
    .await
}

/// The revision up to which a follower of all events has come.
///
/// # Errors
/// The database's.
pub async fn cursor(db: &Db, name: &'static str) -> Result<i64, Error> {
    db.read(move |tx| {
        let rows = tx.query("SELECT revision FROM cursors WHERE name = $1", &[name.into()])?;
        rows.first().map_or(Ok(0), |row| row.int(0))
    })
    .await
}

/// Keeps the revision up to which a follower of all events has come.
///
/// # Errors
/// The database's.
pub async fn set_cursor(db: &Db, name: &'static str, revision: i64) -> Result<(), Error> {
    db.write(move |tx| {
        tx.execute(
            "INSERT INTO cursors (name, revision) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET revision = excluded.revision",
            &[name.into(), revision.into()],
        )
        .map(drop)
    })
    .await
}
