//! Writing studies and trials into Optuna's tables, under Optuna's rules.

use std::collections::BTreeMap;

use jiff::Timestamp;
use runtime_core::db::{self, Dialect, Tx, Value};

use super::{Attributes, Error, NewTrial, Owner, Past, check_compatible, read};
use crate::study::{Direction, Param, State, Study, Trial};

/// Parameter `n` as a value of an enumeration: a type of its own on PostgreSQL, text on SQLite.
fn enumeration(tx: &dyn Tx, n: usize, name: &str) -> String {
    match tx.dialect() {
        Dialect::Sqlite => format!("${n}"),
        Dialect::Postgres => format!("CAST(CAST(${n} AS TEXT) AS {name})"),
    }
}

/// Parameter `n` as a time.
fn moment(tx: &dyn Tx, n: usize) -> String {
    enumeration(tx, n, "TIMESTAMP")
}

/// A time as it can be stored.
fn stored_time(at: Timestamp) -> Timestamp {
    // What was a time stays one without its nanoseconds.
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// Naive UTC with microseconds: what SQLAlchemy writes.
fn time(at: Timestamp) -> Value {
    at.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string().into()
}

pub(super) fn create_study(
    tx: &mut dyn Tx,
    name: String,
    directions: Vec<Direction>,
    user_attrs: Attributes,
    system_attrs: Attributes,
) -> Result<Study, Error> {
    let rows = tx.query(
        "INSERT INTO studies (study_name) VALUES ($1) ON CONFLICT (study_name) DO NOTHING RETURNING study_id",
        &[name.as_str().into()],
    )?;
    let Some(row) = rows.first() else { return Err(Error::StudyExists(name)) };
    let id = row.int(0)?;
    let sql = format!(
        "INSERT INTO study_directions (study_id, objective, direction) VALUES ($1, $2, {})",
        enumeration(tx, 3, "studydirection")
    );
    for (objective, direction) in (0_i64..).zip(&directions) {
        tx.execute(&sql, &[id.into(), objective.into(), direction.as_str().into()])?;
    }
    upsert_attributes(tx, Owner::StudyUser(id), &user_attrs)?;
    upsert_attributes(tx, Owner::StudySystem(id), &system_attrs)?;
    Ok(Study { id, name, directions, user_attrs, system_attrs })
}

pub(super) fn create_trial(tx: &mut dyn Tx, study: i64, new: NewTrial, now: Timestamp) -> Result<Trial, Error> {
    // PostgreSQL: one writer at a time gives out a number, as Optuna's own code does it.
    let lock = match tx.dialect() {
        Dialect::Sqlite => "",
        Dialect::Postgres => " FOR UPDATE",
    };
    let sql = format!("SELECT study_id FROM studies WHERE study_id = $1{lock}");
    if tx.query(&sql, &[study.into()])?.is_empty() {
        return Err(Error::NoStudy(study.to_string()));
    }
    for param in &new.params {
        check_param(tx, study, param)?;
    }
    let rows = tx.query("SELECT COALESCE(MAX(number), -1) + 1 FROM trials WHERE study_id = $1", &[study.into()])?;
    let number = rows.first().map_or(Ok(0), |row| row.int(0))?;
    let NewTrial { params, user_attrs, system_attrs, past } = new;
    let past = past.unwrap_or_else(|| Past {
        state: State::Running,
        values: Vec::new(),
        intermediate: BTreeMap::new(),
        start: Some(now),
        complete: None,
    });
    let [start, complete] = [past.start, past.complete].map(|at| at.map(stored_time));
    let sql = format!(
        "INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete) VALUES ($1, $2, {}, {}, {}) \
         RETURNING trial_id",
        enumeration(tx, 3, "trialstate"),
        moment(tx, 4),
        moment(tx, 5)
    );
    let state = past.state.as_str();
    let [stored_start, stored_complete] = [start, complete].map(|at| at.map_or(Value::Null, time));
    let rows = tx.query(&sql, &[number.into(), study.into(), state.into(), stored_start, stored_complete])?;
    let id = rows.first().map_or(Err(db::Error::Statement("no id for the new trial".into())), |row| row.int(0))?;
    for param in &params {
        insert_param(tx, id, param)?;
    }
    put_values(tx, id, &past.values)?;
    put_reports(tx, id, &past.intermediate)?;
    upsert_attributes(tx, Owner::TrialUser(id), &user_attrs)?;
    upsert_attributes(tx, Owner::TrialSystem(id), &system_attrs)?;
    let Past { state, values, intermediate, .. } = past;
    Ok(Trial { id, number, state, values, params, intermediate, user_attrs, system_attrs, start, complete })
}

pub(super) fn delete_study(tx: &mut dyn Tx, study: i64) -> Result<(), Error> {
    read::check_study(tx, study)?;
    for table in [
        "trial_user_attributes",
        "trial_system_attributes",
        "trial_params",
        "trial_values",
        "trial_intermediate_values",
        "trial_heartbeats",
    ] {
        let sql = format!("DELETE FROM {table} WHERE trial_id IN (SELECT trial_id FROM trials WHERE study_id = $1)");
        tx.execute(&sql, &[study.into()])?;
    }
    for table in ["trials", "study_directions", "study_user_attributes", "study_system_attributes", "studies"] {
        tx.execute(&format!("DELETE FROM {table} WHERE study_id = $1"), &[study.into()])?;
    }
    Ok(())
}

/// The study of a trial that has not ended, with its state; locked until the end of the transaction.
fn unfinished(tx: &mut dyn Tx, trial: i64) -> Result<(i64, State), Error> {
    let lock = match tx.dialect() {
        Dialect::Sqlite => "",
        Dialect::Postgres => " FOR UPDATE",
    };
    let sql = format!("SELECT study_id, number, CAST(state AS TEXT) FROM trials WHERE trial_id = $1{lock}");
    let rows = tx.query(&sql, &[trial.into()])?;
    let row = rows.first().ok_or(Error::NoTrial(trial))?;
    let state = read::state(row.text(2)?)?;
    if state.finished() {
        return Err(Error::TrialFinished { number: row.int(1)?, state });
    }
    Ok((row.int(0)?, state))
}

/// The reference is the distribution of the study's first trial that has the name.
fn check_param(tx: &mut dyn Tx, study: i64, param: &Param) -> Result<(), Error> {
    let rows = tx.query(
        "SELECT p.distribution_json FROM trial_params p JOIN trials t ON t.trial_id = p.trial_id \
         WHERE t.study_id = $1 AND p.param_name = $2 ORDER BY t.number LIMIT 1",
        &[study.into(), param.name.as_str().into()],
    )?;
    match rows.first() {
        Some(row) => check_compatible(&param.name, &param.distribution, row.text(0)?),
        None => Ok(()),
    }
}

fn insert_param(tx: &mut dyn Tx, trial: i64, param: &Param) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (trial_id, param_name) DO UPDATE SET param_value = excluded.param_value, \
         distribution_json = excluded.distribution_json",
        &[trial.into(), param.name.as_str().into(), param.value.into(), param.distribution.to_json().into()],
    )?;
    Ok(())
}

pub(super) fn set_param(tx: &mut dyn Tx, trial: i64, param: &Param) -> Result<(), Error> {
    let (study, _) = unfinished(tx, trial)?;
    check_param(tx, study, param)?;
    insert_param(tx, trial, param)
}

/// A number and the kind that stands beside it: what is not finite has no number.
fn stored(value: f64) -> (Value, &'static str) {
    if value.is_nan() {
        (Value::Null, "NAN")
    } else if value.is_infinite() {
        (Value::Null, if value > 0.0 { "INF_POS" } else { "INF_NEG" })
    } else {
        (value.into(), "FINITE")
    }
}

pub(super) fn report(tx: &mut dyn Tx, trial: i64, values: &[(i64, f64)]) -> Result<(), Error> {
    unfinished(tx, trial)?;
    put_reports(tx, trial, values.iter().map(|(step, value)| (step, value)))
}

fn put_reports<'a>(
    tx: &mut dyn Tx,
    trial: i64,
    values: impl IntoIterator<Item = (&'a i64, &'a f64)>,
) -> Result<(), Error> {
    let sql = format!(
        "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type) \
         VALUES ($1, $2, $3, {}) ON CONFLICT (trial_id, step) DO UPDATE SET \
         intermediate_value = excluded.intermediate_value, \
         intermediate_value_type = excluded.intermediate_value_type",
        enumeration(tx, 4, "trialintermediatevaluetype")
    );
    for (step, value) in values {
        let (value, kind) = stored(*value);
        tx.execute(&sql, &[trial.into(), (*step).into(), value, kind.into()])?;
    }
    Ok(())
}

fn put_values(tx: &mut dyn Tx, trial: i64, values: &[f64]) -> Result<(), Error> {
    if values.iter().any(|value| value.is_nan()) {
        return Err(Error::NotANumber);
    }
    let sql = format!(
        "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES ($1, $2, $3, {}) \
         ON CONFLICT (trial_id, objective) DO UPDATE SET value = excluded.value, value_type = excluded.value_type",
        enumeration(tx, 4, "trialvaluetype")
    );
    for (objective, value) in (0_i64..).zip(values) {
        let (value, kind) = stored(*value);
        tx.execute(&sql, &[trial.into(), objective.into(), value, kind.into()])?;
    }
    Ok(())
}

pub(super) fn set_state(
    tx: &mut dyn Tx,
    trial: i64,
    state: State,
    values: Option<&[f64]>,
    now: Timestamp,
) -> Result<bool, Error> {
    let (_, old) = unfinished(tx, trial)?;
    if state == State::Running && old != State::Waiting {
        return Ok(false);
    }
    put_values(tx, trial, values.unwrap_or_default())?;
    let column = match state {
        State::Running => Some("datetime_start"),
        State::Complete | State::Pruned | State::Fail => Some("datetime_complete"),
        State::Waiting => None,
    };
    let state_value = enumeration(tx, 2, "trialstate");
    match column {
        Some(column) => {
            let sql =
                format!("UPDATE trials SET state = {state_value}, {column} = {} WHERE trial_id = $1", moment(tx, 3));
            tx.execute(&sql, &[trial.into(), state.as_str().into(), time(now)])?;
        }
        None => {
            let sql = format!("UPDATE trials SET state = {state_value} WHERE trial_id = $1");
            tx.execute(&sql, &[trial.into(), state.as_str().into()])?;
        }
    }
    Ok(true)
}

pub(super) fn set_attributes(tx: &mut dyn Tx, owner: Owner, attributes: &Attributes) -> Result<(), Error> {
    match owner {
        Owner::TrialUser(trial) | Owner::TrialSystem(trial) => {
            unfinished(tx, trial)?;
        }
        Owner::StudyUser(study) | Owner::StudySystem(study) => {
            read::check_study(tx, study)?;
        }
    }
    upsert_attributes(tx, owner, attributes)
}

fn upsert_attributes(tx: &mut dyn Tx, owner: Owner, attributes: &Attributes) -> Result<(), Error> {
    let (table, column, id) = match owner {
        Owner::StudyUser(id) => ("study_user_attributes", "study_id", id),
        Owner::StudySystem(id) => ("study_system_attributes", "study_id", id),
        Owner::TrialUser(id) => ("trial_user_attributes", "trial_id", id),
        Owner::TrialSystem(id) => ("trial_system_attributes", "trial_id", id),
    };
    let sql = format!(
        "INSERT INTO {table} ({column}, \"key\", value_json) VALUES ($1, $2, $3) \
         ON CONFLICT ({column}, \"key\") DO UPDATE SET value_json = excluded.value_json"
    );
    for (key, json) in attributes {
        tx.execute(&sql, &[id.into(), key.as_str().into(), json.as_str().into()])?;
    }
    Ok(())
}
