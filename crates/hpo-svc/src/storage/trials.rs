//! Reading trials with all that belongs to them out of Optuna's tables, many at once.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use runtime_core::db::{Row, Tx, Value};

use super::{Attributes, Error, read::state};
use crate::{
    space::Distribution,
    study::{Param, Trial},
};

/// Which trials to load.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    /// All of a study.
    Study(i64),
    /// Those of a study whose id is above another, or one of these.
    Since(i64, i64, &'a [i64]),
}

/// The trials in order of their numbers.
pub(super) fn read(tx: &mut dyn Tx, which: Which<'_>) -> Result<Vec<Trial>, Error> {
    let (condition, values) = match which {
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
    let mut trials = Vec::new();
    each(tx, &sql, &values, |row| {
        trials.push(bare_trial(row)?);
        Ok(())
    })?;
    let most = most_of_all(tx, trials.len())?;
    let places = trials.iter().enumerate().map(|(place, trial)| (trial.id, place)).collect();
    let mut tables = Tables { tx, condition, values, most, places, near: None };
    tables.params(&mut trials)?;
    tables.values(&mut trials)?;
    tables.reports(&mut trials)?;
    tables.attributes("trial_user_attributes", &mut trials, |trial| &mut trial.user_attrs)?;
    tables.attributes("trial_system_attributes", &mut trials, |trial| &mut trial.system_attrs)?;
    Ok(trials)
}

/// The tables of what belongs to the trials.
struct Tables<'a> {
    tx: &'a mut dyn Tx,
    /// Which trials.
    condition: String,
    /// The parameters of the condition.
    values: Vec<Value>,
    /// They are most of the database.
    most: bool,
    /// Places of the trials by their ids.
    places: HashMap<i64, usize>,
    /// The id and place that were looked for last.
    near: Option<(i64, Option<usize>)>,
}

impl Tables<'_> {
    /// Shows the rows of a table with the places of their trials, in any order: to sort so many of them costs a database more than
    /// all the rest.
    fn rows(
        &mut self,
        columns: &str,
        table: &str,
        mut see: impl FnMut(usize, &Row) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Self { tx, condition, values, most, places, near } = self;
        let all = format!("SELECT x.trial_id, {columns} FROM {table} x");
        let see = |row: &Row| {
            let trial = row.int(0)?;
            // The rows of a trial stand together as a rule.
            let place = match *near {
                Some((id, place)) if id == trial => place,
                _ => places.get(&trial).copied(),
            };
            *near = Some((trial, place));
            place.map_or(Ok(()), |place| see(place, row))
        };
        if *most {
            return each(*tx, &all, &[], see);
        }
        each(*tx, &format!("{all} JOIN trials t ON t.trial_id = x.trial_id WHERE {condition}"), values, see)
    }

    fn params(&mut self, trials: &mut [Trial]) -> Result<(), Error> {
        let mut kinds = Kinds::default();
        let mut set: Vec<(usize, i64, usize, f64)> = Vec::new();
        self.rows("x.param_name, x.param_value, x.distribution_json, x.param_id", "trial_params", |place, row| {
            set.push((place, row.int(4)?, kinds.place(row.text(1)?, row.text(3)?)?, row.real(2)?));
            Ok(())
        })?;
        // In the order in which they were set.
        set.sort_unstable_by_key(|(place, id, ..)| (*place, *id));
        for of_one in set.chunk_by(|(place, ..), (other, ..)| place == other) {
            trials[of_one[0].0].params = of_one.iter().map(|(.., kind, value)| kinds.param(*kind, *value)).collect();
        }
        Ok(())
    }

    fn values(&mut self, trials: &mut [Trial]) -> Result<(), Error> {
        let mut values: Vec<(usize, i64, f64)> = Vec::new();
        self.rows("x.value, CAST(x.value_type AS TEXT), x.objective", "trial_values", |place, row| {
            values.push((place, row.int(3)?, number(row, 1)?));
            Ok(())
        })?;
        values.sort_unstable_by_key(|(place, objective, _)| (*place, *objective));
        for of_one in values.chunk_by(|(place, ..), (other, ..)| place == other) {
            trials[of_one[0].0].values = of_one.iter().map(|(.., value)| *value).collect();
        }
        Ok(())
    }

    fn reports(&mut self, trials: &mut [Trial]) -> Result<(), Error> {
        let columns = "x.intermediate_value, CAST(x.intermediate_value_type AS TEXT), x.step";
        self.rows(columns, "trial_intermediate_values", |place, row| {
            trials[place].intermediate.insert(row.int(3)?, number(row, 1)?);
            Ok(())
        })
    }

    fn attributes(
        &mut self,
        table: &str,
        trials: &mut [Trial],
        of: fn(&mut Trial) -> &mut Attributes,
    ) -> Result<(), Error> {
        self.rows("x.\"key\", x.value_json", table, |place, row| {
            let json = row.opt_text(2)?.unwrap_or("null").to_owned();
            of(&mut trials[place]).insert(row.text(1)?.to_owned(), json);
            Ok(())
        })
    }
}

/// Shows the rows of a query until one is wrong.
fn each(
    tx: &mut dyn Tx,
    sql: &str,
    values: &[Value],
    mut see: impl FnMut(&Row) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut result = Ok(());
    tx.query_each(sql, values, &mut |row| {
        result = see(row);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result
}

/// Whether so many trials are at least half of those that the database has: then going through its tables from end to end takes half
/// the time of looking for the rows of each. False when too many have been deleted to say so.
fn most_of_all(tx: &mut dyn Tx, trials: usize) -> Result<bool, Error> {
    let rows = tx.query("SELECT MAX(trial_id) FROM trials", &[])?;
    let last = rows.first().map_or(Ok(None), |row| row.opt_int(0))?.unwrap_or_default();
    Ok(i64::try_from(trials).is_ok_and(|trials| trials.saturating_mul(2) >= last))
}

/// Names and distributions of parameters: of a study few, in many rows.
#[derive(Default)]
struct Kinds {
    all: Vec<(Kind, Distribution)>,
    places: HashMap<Kind, usize>,
    /// Where the next one is, if the trials have theirs in the same order.
    next: usize,
}

/// The name of a parameter and its distribution's JSON.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    name: String,
    json: String,
}

impl Kinds {
    fn place(&mut self, name: &str, json: &str) -> Result<usize, Error> {
        let near = self.all.get(self.next).is_some_and(|(kind, _)| kind.name == name && kind.json == json);
        let place = if near { self.next } else { self.find(name, json)? };
        self.next = if place + 1 < self.all.len() { place + 1 } else { 0 };
        Ok(place)
    }

    fn find(&mut self, name: &str, json: &str) -> Result<usize, Error> {
        let kind = Kind { name: name.to_owned(), json: json.to_owned() };
        if let Some(known) = self.places.get(&kind) {
            return Ok(*known);
        }
        let distribution = Distribution::from_json(json)
            .map_err(|problem| Error::Corrupt(format!("distribution of parameter `{name}`: {problem}")))?;
        let place = self.all.len();
        self.all.push((kind.clone(), distribution));
        self.places.insert(kind, place);
        Ok(place)
    }

    fn param(&self, place: usize, value: f64) -> Param {
        let (kind, distribution) = &self.all[place];
        Param { name: kind.name.clone(), value, distribution: distribution.clone() }
    }
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
