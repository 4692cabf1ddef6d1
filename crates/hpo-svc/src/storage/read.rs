//! Reading studies, and what is to know of their trials, out of Optuna's tables.

use std::collections::BTreeMap;

use runtime_core::db::{self, Row, Tx, Value};

use super::{Attributes, Error, schema};
use crate::{
    space::Distribution,
    study::{Direction, State, Study},
};

pub(super) fn check_revision(tx: &mut dyn Tx) -> Result<(), Error> {
    for row in tx.query("SELECT version_num FROM alembic_version", &[])? {
        let revision = row.text(0)?;
        if revision != schema::REVISION {
            return Err(Error::Revision(revision.to_owned()));
        }
    }
    Ok(())
}

pub(super) fn find_study(tx: &mut dyn Tx, name: &str) -> Result<Option<Study>, Error> {
    let rows = tx.query("SELECT study_id, study_name FROM studies WHERE study_name = $1", &[name.into()])?;
    rows.first().map(|row| study(tx, row)).transpose()
}

pub(super) fn studies(tx: &mut dyn Tx, after: i64, limit: usize) -> Result<Vec<Study>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = tx.query(
        "SELECT study_id, study_name FROM studies WHERE study_id > $1 ORDER BY study_id LIMIT $2",
        &[after.into(), limit.into()],
    )?;
    rows.iter().map(|row| study(tx, row)).collect()
}

pub(super) fn existing_study(tx: &mut dyn Tx, id: i64) -> Result<Study, Error> {
    let rows = tx.query("SELECT study_id, study_name FROM studies WHERE study_id = $1", &[id.into()])?;
    let row = rows.first().ok_or_else(|| Error::NoStudy(id.to_string()))?;
    study(tx, row)
}

pub(super) fn check_study(tx: &mut dyn Tx, id: i64) -> Result<(), Error> {
    let rows = tx.query("SELECT study_id FROM studies WHERE study_id = $1", &[id.into()])?;
    rows.first().map(|_| ()).ok_or_else(|| Error::NoStudy(id.to_string()))
}

/// The study of a trial.
pub(super) fn study_of(tx: &mut dyn Tx, trial: i64) -> Result<i64, Error> {
    let rows = tx.query("SELECT study_id FROM trials WHERE trial_id = $1", &[trial.into()])?;
    Ok(rows.first().ok_or(Error::NoTrial(trial))?.int(0)?)
}

/// Running trials with a user attribute of that key, and its JSON text; without those that clients of the storage proxy work on.
pub(super) fn running_with(tx: &mut dyn Tx, key: &str, study: Option<i64>) -> Result<Vec<(i64, String)>, Error> {
    let one = if study.is_some() { "AND t.study_id = $2" } else { "" };
    let sql = format!(
        "SELECT t.trial_id, a.value_json FROM trials t JOIN trial_user_attributes a ON a.trial_id = t.trial_id \
         WHERE t.state = 'RUNNING' AND a.\"key\" = $1 {one} \
         AND t.trial_id NOT IN (SELECT trial_id FROM quintet_leases) ORDER BY t.trial_id"
    );
    let values: Vec<Value> = [key.into()].into_iter().chain(study.map(Value::from)).collect();
    let rows = tx.query(&sql, &values)?;
    Ok(rows.iter().map(|row| Ok((row.int(0)?, row.text(1)?.to_owned()))).collect::<Result<_, db::Error>>()?)
}

/// Trials of a study whose id is not above `last`.
pub(super) fn count(tx: &mut dyn Tx, study: i64, last: i64) -> Result<usize, Error> {
    let sql = "SELECT COUNT(*) FROM trials WHERE study_id = $1 AND trial_id <= $2";
    let rows = tx.query(sql, &[study.into(), last.into()])?;
    let count = rows.first().map_or(Ok(0), |row| row.int(0))?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// The distribution of the study's first trial that has a parameter of that name.
pub(super) fn reference(tx: &mut dyn Tx, study: i64, name: &str) -> Result<Option<Distribution>, Error> {
    let rows = tx.query(
        "SELECT p.distribution_json FROM trial_params p JOIN trials t ON t.trial_id = p.trial_id \
         WHERE t.study_id = $1 AND p.param_name = $2 ORDER BY t.number LIMIT 1",
        &[study.into(), name.into()],
    )?;
    rows.first().map(|row| Distribution::from_json(row.text(0)?).map_err(Error::Corrupt)).transpose()
}

fn study(tx: &mut dyn Tx, row: &Row) -> Result<Study, Error> {
    let id = row.int(0)?;
    let directions = tx
        .query(
            "SELECT CAST(direction AS TEXT) FROM study_directions WHERE study_id = $1 ORDER BY objective",
            &[id.into()],
        )?
        .iter()
        .map(|row| match row.text(0)? {
            "MINIMIZE" | "NOT_SET" => Ok(Direction::Minimize),
            "MAXIMIZE" => Ok(Direction::Maximize),
            other => Err(Error::Corrupt(format!("study {id} has the direction {other:?}"))),
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let mut attributes = |table: &str| -> Result<Attributes, Error> {
        let sql = format!("SELECT \"key\", value_json FROM {table} WHERE study_id = $1");
        tx.query(&sql, &[id.into()])?
            .iter()
            .map(|row| Ok((row.text(0)?.to_owned(), row.opt_text(1)?.unwrap_or("null").to_owned())))
            .collect()
    };
    Ok(Study {
        id,
        name: row.text(1)?.to_owned(),
        directions,
        user_attrs: attributes("study_user_attributes")?,
        system_attrs: attributes("study_system_attributes")?,
    })
}

pub(super) fn counts(tx: &mut dyn Tx, study: i64) -> Result<BTreeMap<State, i64>, Error> {
    tx.query("SELECT CAST(state AS TEXT), COUNT(*) FROM trials WHERE study_id = $1 GROUP BY state", &[study.into()])?
        .iter()
        .map(|row| Ok((state(row.text(0)?)?, row.int(1)?)))
        .collect()
}

pub(super) fn state(text: &str) -> Result<State, Error> {
    State::parse(text).ok_or_else(|| Error::Corrupt(format!("unknown trial state {text:?}")))
}
