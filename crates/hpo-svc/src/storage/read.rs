//! Reading studies and trials out of Optuna's tables.

use std::collections::{BTreeMap, HashMap};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use runtime_core::db::{Row, Tx, Value};

use super::{Attributes, Error, schema};
use crate::{
    space::Distribution,
    study::{Direction, Param, State, Study, Trial},
};

/// Which trials to load.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    /// All of a study.
    Study(i64),
    /// Those of a study whose id is above another, or one of these.
    Since(i64, i64, &'a [i64]),
}

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

pub(super) fn trials(tx: &mut dyn Tx, which: Which<'_>) -> Result<Vec<Trial>, Error> {
    let (condition, params) = match which {
        Which::Study(id) => ("t.study_id = $1".to_owned(), vec![id.into()]),
        Which::Since(id, after, trials) => (
            format!("t.study_id = $1 AND (t.trial_id > $2 OR t.trial_id IN {})", tx.dialect().id_set(3)),
            vec![id.into(), after.into(), Value::id_list(trials.iter().copied())],
        ),
    };
    let sql = format!(
        "SELECT t.trial_id, t.number, CAST(t.state AS TEXT), CAST(t.datetime_start AS TEXT), \
         CAST(t.datetime_complete AS TEXT) FROM trials t WHERE {condition} ORDER BY t.number, t.trial_id"
    );
    let mut trials = tx.query(&sql, &params)?.iter().map(bare_trial).collect::<Result<Vec<_>, _>>()?;
    let places: HashMap<i64, usize> = trials.iter().enumerate().map(|(place, trial)| (trial.id, place)).collect();
    // The rows come in any order: to sort so many of them costs a database more than all the rest.
    let mut each = |columns: &str, table: &str, add: &mut dyn FnMut(&mut Trial, &Row) -> Result<(), Error>| {
        let sql = format!(
            "SELECT x.trial_id, {columns} FROM {table} x JOIN trials t ON t.trial_id = x.trial_id WHERE {condition}"
        );
        for row in tx.query(&sql, &params)? {
            if let Some(trial) = places.get(&row.int(0)?).and_then(|place| trials.get_mut(*place)) {
                add(trial, &row)?;
            }
        }
        Ok::<(), Error>(())
    };
    // A study has few distributions in many rows.
    let mut distributions: HashMap<String, Distribution> = HashMap::new();
    let mut set: Vec<Vec<i64>> = vec![Vec::new(); places.len()];
    each("x.param_name, x.param_value, x.distribution_json, x.param_id", "trial_params", &mut |trial, row| {
        let json = row.text(3)?;
        let distribution = match distributions.get(json) {
            Some(known) => known.clone(),
            None => {
                let new = Distribution::from_json(json)
                    .map_err(|problem| Error::Corrupt(format!("distribution of trial {}: {problem}", trial.number)))?;
                distributions.insert(json.to_owned(), new.clone());
                new
            }
        };
        // In the order in which they were set; those of a trial are few.
        let (id, ids) = (row.int(4)?, &mut set[places[&trial.id]]);
        let place = ids.partition_point(|other| *other < id);
        ids.insert(place, id);
        trial.params.insert(place, Param { name: row.text(1)?.to_owned(), value: row.real(2)?, distribution });
        Ok(())
    })?;
    let mut values: Vec<(i64, i64, f64)> = Vec::new();
    each("x.value, CAST(x.value_type AS TEXT), x.objective", "trial_values", &mut |trial, row| {
        values.push((trial.id, row.int(3)?, number(row, 1)?));
        Ok(())
    })?;
    each(
        "x.intermediate_value, CAST(x.intermediate_value_type AS TEXT), x.step",
        "trial_intermediate_values",
        &mut |trial, row| {
            trial.intermediate.insert(row.int(3)?, number(row, 1)?);
            Ok(())
        },
    )?;
    let attribute = |attributes: &mut Attributes, row: &Row| -> Result<(), Error> {
        attributes.insert(row.text(1)?.to_owned(), row.opt_text(2)?.unwrap_or("null").to_owned());
        Ok(())
    };
    each("x.\"key\", x.value_json", "trial_user_attributes", &mut |trial, row| attribute(&mut trial.user_attrs, row))?;
    each("x.\"key\", x.value_json", "trial_system_attributes", &mut |trial, row| {
        attribute(&mut trial.system_attrs, row)
    })?;
    values.sort_by_key(|(trial, objective, _)| (*trial, *objective));
    for (trial, _, value) in values {
        trials[places[&trial]].values.push(value);
    }
    Ok(trials)
}

fn bare_trial(row: &Row) -> Result<Trial, Error> {
    Ok(Trial {
        id: row.int(0)?,
        number: row.int(1)?,
        state: state(row.text(2)?)?,
        values: Vec::new(),
        params: Vec::new(),
        intermediate: BTreeMap::new(),
        user_attrs: BTreeMap::new(),
        system_attrs: BTreeMap::new(),
        start: row.opt_text(3)?.map(time).transpose()?,
        complete: row.opt_text(4)?.map(time).transpose()?,
    })
}

/// A number whose kind stands in the column after it.
fn number(row: &Row, index: usize) -> Result<f64, Error> {
    Ok(match row.text(index + 1)? {
        "FINITE" => row.real(index)?,
        "INF_POS" => f64::INFINITY,
        "INF_NEG" => f64::NEG_INFINITY,
        "NAN" => f64::NAN,
        other => return Err(Error::Corrupt(format!("unknown kind of value {other:?}"))),
    })
}

/// UTC without a zone, with or without fraction.
fn time(text: &str) -> Result<Timestamp, Error> {
    let civil: DateTime = text.parse().map_err(|_| Error::Corrupt(format!("{text:?} is not a time")))?;
    TimeZone::UTC.to_timestamp(civil).map_err(|_| Error::Corrupt(format!("{text:?} is not a time")))
}
