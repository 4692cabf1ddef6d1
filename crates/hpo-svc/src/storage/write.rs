//! Writing studies and trials into Optuna's tables, under Optuna's rules.

use jiff::Timestamp;
use runtime_core::db::{self, Dialect, Tx, Value};

use super::{Attributes, Edit, Error, StudyAttributes, ids::Table, read};
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
pub(super) fn stored_time(at: Timestamp) -> Timestamp {
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
    let id = if Table::Studies.is_ours_to_count(tx)? { Some(Table::Studies.next(tx)?) } else { None };
    let (column, value) = if id.is_some() { ("study_id, ", "$2, ") } else { ("", "") };
    let sql = format!(
        "INSERT INTO studies ({column}study_name) VALUES ({value}$1) \
         ON CONFLICT (study_name) DO NOTHING RETURNING study_id"
    );
    let row: Vec<Value> = [name.as_str().into()].into_iter().chain(id.map(Value::from)).collect();
    let rows = tx.query(&sql, &row)?;
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

/// The study's next number; nobody else gives it out until the end of the transaction, as in Optuna's own code.
pub(super) fn lock_next_number(tx: &mut dyn Tx, study: i64) -> Result<i64, Error> {
    if tx.query("SELECT study_id FROM studies WHERE study_id = $1 FOR UPDATE", &[study.into()])?.is_empty() {
        return Err(Error::NoStudy(study.to_string()));
    }
    let rows = tx.query("SELECT COALESCE(MAX(number), -1) + 1 FROM trials WHERE study_id = $1", &[study.into()])?;
    Ok(rows.first().map_or(Ok(0), |row| row.int(0))?)
}

/// Writes a trial and returns its id: the given one, or that of the database. `json` gives the texts of distributions.
pub(super) fn insert_trial(
    tx: &mut dyn Tx,
    study: i64,
    trial: &Trial,
    id: Option<i64>,
    json: impl Fn(&Param) -> String,
) -> Result<i64, Error> {
    let (column, value) = if id.is_some() { ("trial_id, ", "$6, ") } else { ("", "") };
    let sql = format!(
        "INSERT INTO trials ({column}number, study_id, state, datetime_start, datetime_complete) \
         VALUES ({value}$1, $2, {}, {}, {}) RETURNING trial_id",
        enumeration(tx, 3, "trialstate"),
        moment(tx, 4),
        moment(tx, 5)
    );
    let [start, complete] = [trial.start, trial.complete].map(|at| at.map_or(Value::Null, time));
    let row: [Value; 5] = [trial.number.into(), study.into(), trial.state.as_str().into(), start, complete];
    let row: Vec<Value> = row.into_iter().chain(id.map(Value::from)).collect();
    let rows = tx.query(&sql, &row)?;
    let id = rows.first().map_or(Err(db::Error::Statement("no id for the new trial".into())), |row| row.int(0))?;
    put_params(tx, id, &trial.params, json)?;
    put_values(tx, id, &trial.values)?;
    put_reports(tx, id, trial.intermediate.iter().map(|(step, value)| (*step, *value)))?;
    upsert_attributes(tx, Owner::TrialUser(id), &trial.user_attrs)?;
    upsert_attributes(tx, Owner::TrialSystem(id), &trial.system_attrs)?;
    Ok(id)
}

pub(super) fn delete_study(tx: &mut dyn Tx, study: i64) -> Result<(), Error> {
    read::check_study(tx, study)?;
    Table::Studies.keep(tx)?;
    Table::Trials.keep(tx)?;
    for table in [
        "trial_user_attributes",
        "trial_system_attributes",
        "trial_params",
        "trial_values",
        "trial_intermediate_values",
        "trial_heartbeats",
        "quintet_leases",
    ] {
        let sql = format!("DELETE FROM {table} WHERE trial_id IN (SELECT trial_id FROM trials WHERE study_id = $1)");
        tx.execute(&sql, &[study.into()])?;
    }
    for table in ["trials", "study_directions", "study_user_attributes", "study_system_attributes", "studies"] {
        tx.execute(&format!("DELETE FROM {table} WHERE study_id = $1"), &[study.into()])?;
    }
    Ok(())
}

/// The study, number and state of a trial; nobody else changes them until the end of the transaction.
pub(super) fn lock_trial(tx: &mut dyn Tx, trial: i64) -> Result<(i64, i64, State), Error> {
    let sql = "SELECT study_id, number, CAST(state AS TEXT) FROM trials WHERE trial_id = $1 FOR UPDATE";
    let rows = tx.query(sql, &[trial.into()])?;
    let row = rows.first().ok_or(Error::NoTrial(trial))?;
    Ok((row.int(0)?, row.int(1)?, read::state(row.text(2)?)?))
}

fn put_params(tx: &mut dyn Tx, trial: i64, params: &[Param], json: impl Fn(&Param) -> String) -> Result<(), Error> {
    if params.is_empty() {
        return Ok(());
    }
    let row = |param: &Param| -> Vec<Value> {
        vec![trial.into(), param.name.as_str().into(), param.value.into(), json(param).into()]
    };
    tx.execute_many(
        "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (trial_id, param_name) DO UPDATE SET param_value = excluded.param_value, \
         distribution_json = excluded.distribution_json",
        &params.iter().map(row).collect::<Vec<_>>(),
    )?;
    Ok(())
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

fn put_reports(tx: &mut dyn Tx, trial: i64, values: impl ExactSizeIterator<Item = (i64, f64)>) -> Result<(), Error> {
    if values.len() == 0 {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type) \
         VALUES ($1, $2, $3, {}) ON CONFLICT (trial_id, step) DO UPDATE SET \
         intermediate_value = excluded.intermediate_value, \
         intermediate_value_type = excluded.intermediate_value_type",
        enumeration(tx, 4, "trialintermediatevaluetype")
    );
    for (step, value) in values {
        let (value, kind) = stored(value);
        tx.execute(&sql, &[trial.into(), step.into(), value, kind.into()])?;
    }
    Ok(())
}

/// Refuses what no trial may have for a value.
pub(super) fn check_values(values: &[f64]) -> Result<(), Error> {
    if values.iter().any(|value| value.is_nan()) { Err(Error::NotANumber) } else { Ok(()) }
}

fn put_values(tx: &mut dyn Tx, trial: i64, values: &[f64]) -> Result<(), Error> {
    if values.is_empty() {
        return Ok(());
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

/// Writes the change of a trial that was found to be open, and to fit. `json` gives the texts of distributions.
pub(super) fn edit(
    tx: &mut dyn Tx,
    trial: i64,
    edit: &Edit,
    now: Timestamp,
    json: impl Fn(&Param) -> String,
) -> Result<(), Error> {
    put_params(tx, trial, &edit.params, json)?;
    put_reports(tx, trial, edit.reports.iter().copied())?;
    upsert_attributes(tx, Owner::TrialUser(trial), &edit.user_attrs)?;
    upsert_attributes(tx, Owner::TrialSystem(trial), &edit.system_attrs)?;
    put_values(tx, trial, &edit.values)?;
    let Some(state) = edit.state else { return Ok(()) };
    let state_value = enumeration(tx, 2, "trialstate");
    let column = match state {
        State::Running => "datetime_start",
        State::Complete | State::Pruned | State::Fail => "datetime_complete",
        State::Waiting => {
            let sql = format!("UPDATE trials SET state = {state_value} WHERE trial_id = $1");
            tx.execute(&sql, &[trial.into(), state.as_str().into()])?;
            // Whoever takes it next need not be a client of the proxy.
            tx.execute("DELETE FROM quintet_leases WHERE trial_id = $1", &[trial.into()])?;
            return Ok(());
        }
    };
    let sql = format!("UPDATE trials SET state = {state_value}, {column} = {} WHERE trial_id = $1", moment(tx, 3));
    tx.execute(&sql, &[trial.into(), state.as_str().into(), time(now)])?;
    Ok(())
}

/// Remembers that a client of the storage proxy works on a trial.
pub(super) fn lease(tx: &mut dyn Tx, trial: i64) -> Result<(), Error> {
    tx.execute("INSERT INTO quintet_leases (trial_id) VALUES ($1) ON CONFLICT (trial_id) DO NOTHING", &[trial.into()])?;
    Ok(())
}

/// The running trials that clients of the storage proxy have begun; the others are forgotten.
pub(super) fn leased(tx: &mut dyn Tx) -> Result<Vec<i64>, Error> {
    let ended =
        "DELETE FROM quintet_leases WHERE trial_id NOT IN (SELECT trial_id FROM trials WHERE state = 'RUNNING')";
    tx.execute(ended, &[])?;
    let rows = tx.query("SELECT trial_id FROM quintet_leases ORDER BY trial_id", &[])?;
    Ok(rows.iter().map(|row| row.int(0)).collect::<Result<_, _>>()?)
}

pub(super) fn set_study_attributes(
    tx: &mut dyn Tx,
    owner: StudyAttributes,
    attributes: &Attributes,
) -> Result<(), Error> {
    let owner = match owner {
        StudyAttributes::User(study) => {
            read::check_study(tx, study)?;
            Owner::StudyUser(study)
        }
        StudyAttributes::System(study) => {
            read::check_study(tx, study)?;
            Owner::StudySystem(study)
        }
    };
    upsert_attributes(tx, owner, attributes)
}

/// Which attributes of what.
#[derive(Clone, Copy)]
enum Owner {
    StudyUser(i64),
    StudySystem(i64),
    TrialUser(i64),
    TrialSystem(i64),
}

fn upsert_attributes(tx: &mut dyn Tx, owner: Owner, attributes: &Attributes) -> Result<(), Error> {
    let (table, column, id) = match owner {
        Owner::StudyUser(id) => ("study_user_attributes", "study_id", id),
        Owner::StudySystem(id) => ("study_system_attributes", "study_id", id),
        Owner::TrialUser(id) => ("trial_user_attributes", "trial_id", id),
        Owner::TrialSystem(id) => ("trial_system_attributes", "trial_id", id),
    };
    if attributes.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO {table} ({column}, \"key\", value_json) VALUES ($1, $2, $3) \
         ON CONFLICT ({column}, \"key\") DO UPDATE SET value_json = excluded.value_json"
    );
    for (key, json) in attributes {
        tx.execute(&sql, &[id.into(), key.as_str().into(), json.as_str().into()])?;
    }
    Ok(())
}
