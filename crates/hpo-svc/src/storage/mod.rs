//! The durable store of studies: Optuna's RDB schema on SQLite or PostgreSQL, so that `optuna.load_study` opens it.
//!
//! Every write is one group-committed transaction and answered after the commit. Times are UTC, as in Optuna 5.

use std::{collections::BTreeMap, path::Path};

use jiff::Timestamp;
use runtime_core::db::{self, Db};

use crate::{
    space::Distribution,
    study::{Direction, Param, State, Study, Trial},
};

mod read;
mod schema;
mod url;
mod write;

/// Why a study could not be read or written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
    /// There is no study of that name or id.
    #[error("study `{0}` does not exist")]
    NoStudy(String),
    /// The name is taken.
    #[error("study `{0}` already exists")]
    StudyExists(String),
    /// There is no trial of that id.
    #[error("trial with id {0} does not exist")]
    NoTrial(i64),
    /// There is no trial of that number in the study.
    #[error("study {study} has no trial {number}")]
    NoTrialNumber {
        /// The id of the study.
        study: i64,
        /// What was asked for.
        number: i64,
    },
    /// A trial that has ended is never changed.
    #[error("trial {number} is {state} and cannot be changed any more")]
    TrialFinished {
        /// Its number in the study.
        number: i64,
        /// How it ended.
        state: State,
    },
    /// A parameter's distribution does not go with the one that the study has under that name.
    #[error("parameter `{name}`: {new} is incompatible with the study's {old}")]
    Incompatible {
        /// The parameter.
        name: String,
        /// The new distribution's JSON.
        new: String,
        /// The first one that the study stored.
        old: String,
    },
    /// A trial's value is never NaN.
    #[error("a value of a trial is not a number")]
    NotANumber,
    /// The database has another revision of Optuna's schema.
    #[error("the study database has schema revision {0:?}; only `{revision}` is known (run `optuna storage upgrade`)", revision = schema::REVISION)]
    Revision(String),
    /// A row holds what Optuna never writes.
    #[error("the study database is damaged: {0}")]
    Corrupt(String),
}

/// Attributes: key to JSON text.
pub type Attributes = BTreeMap<String, String>;

/// A trial to create.
#[derive(Debug, Clone, Default)]
pub struct NewTrial {
    /// In the order in which they are stored.
    pub params: Vec<Param>,
    /// Key to JSON text.
    pub user_attrs: Attributes,
    /// Key to JSON text.
    pub system_attrs: Attributes,
    /// What it has behind it; a trial without is RUNNING and starts now.
    pub past: Option<Past>,
}

/// What a new trial has behind it: of a queued one nothing, of one from elsewhere all.
#[derive(Debug, Clone)]
pub struct Past {
    /// How far it is.
    pub state: State,
    /// One a direction, or none.
    pub values: Vec<f64>,
    /// Step to value.
    pub intermediate: BTreeMap<i64, f64>,
    /// When it went to RUNNING.
    pub start: Option<Timestamp>,
    /// When it ended.
    pub complete: Option<Timestamp>,
}

/// Which attributes of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// User attributes of the study of that id.
    StudyUser(i64),
    /// System attributes of the study of that id.
    StudySystem(i64),
    /// User attributes of the trial of that id.
    TrialUser(i64),
    /// System attributes of the trial of that id.
    TrialSystem(i64),
}

/// A handle on an open store; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    db: Db,
    url: String,
}

impl Store {
    /// Opens or makes the store at `sqlite:///PATH` or `postgresql://...`. Blocks.
    ///
    /// # Errors
    /// The database cannot be opened, or has another revision of Optuna's schema.
    pub fn open(url: &str) -> Result<Self, Error> {
        let db = Db::open(url, schema::MIGRATIONS)?;
        Ok(Self { db, url: url::for_optuna(url) })
    }

    /// Refuses a schema of another revision; to be called once before the first use.
    ///
    /// # Errors
    /// [`Error::Revision`].
    pub async fn check_revision(&self) -> Result<(), Error> {
        self.db.read(read::check_revision).await
    }

    /// The URL that `optuna.load_study(storage=...)` takes, without a password.
    pub fn optuna_url(&self) -> &str {
        &self.url
    }

    /// Writes a consistent copy of a SQLite store to `path`.
    ///
    /// # Errors
    /// As [`Db::snapshot`].
    pub async fn snapshot(&self, path: &Path) -> Result<(), Error> {
        Ok(self.db.snapshot(path).await?)
    }

    /// The database itself, for the snapshots of backups.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Creates a study.
    ///
    /// # Errors
    /// [`Error::StudyExists`], or the database's.
    pub async fn create_study(
        &self,
        name: &str,
        directions: &[Direction],
        user_attrs: Attributes,
        system_attrs: Attributes,
    ) -> Result<Study, Error> {
        let (name, directions) = (name.to_owned(), directions.to_vec());
        self.db.write(move |tx| write::create_study(tx, name, directions, user_attrs, system_attrs)).await
    }

    /// Deletes a study with its trials.
    ///
    /// # Errors
    /// [`Error::NoStudy`], or the database's.
    pub async fn delete_study(&self, study: i64) -> Result<(), Error> {
        self.db.write(move |tx| write::delete_study(tx, study)).await
    }

    /// The study of that id.
    ///
    /// # Errors
    /// [`Error::NoStudy`], or the database's.
    pub async fn study(&self, study: i64) -> Result<Study, Error> {
        self.db.read(move |tx| read::existing_study(tx, study)).await
    }

    /// The study of that name.
    ///
    /// # Errors
    /// The database's.
    pub async fn find_study(&self, name: &str) -> Result<Option<Study>, Error> {
        let name = name.to_owned();
        self.db.read(move |tx| read::find_study(tx, &name)).await
    }

    /// At most `limit` studies whose id is above `after`, in order of id.
    ///
    /// # Errors
    /// The database's.
    pub async fn studies(&self, after: i64, limit: usize) -> Result<Vec<Study>, Error> {
        self.db.read(move |tx| read::studies(tx, after, limit)).await
    }

    /// Creates a trial with the study's next number.
    ///
    /// # Errors
    /// [`Error::NoStudy`], [`Error::Incompatible`], [`Error::NotANumber`], or the database's.
    pub async fn create_trial(&self, study: i64, new: NewTrial, now: Timestamp) -> Result<Trial, Error> {
        self.db.write(move |tx| write::create_trial(tx, study, new, now)).await
    }

    /// All trials of a study in order of number.
    ///
    /// # Errors
    /// The database's; [`Error::Corrupt`].
    pub async fn trials(&self, study: i64) -> Result<Vec<Trial>, Error> {
        self.db.read(move |tx| read::trials(tx, read::Which::Study(study))).await
    }

    /// The trials of a study with an id above `after`, and those of the ids in `also`, in order of number.
    ///
    /// # Errors
    /// [`Error::NoStudy`], the database's, or [`Error::Corrupt`].
    pub async fn trials_since(&self, study: i64, after: i64, also: Vec<i64>) -> Result<Vec<Trial>, Error> {
        self.db.read(move |tx| read::trials_since(tx, study, after, also)).await
    }

    /// The id of the trial of that number.
    ///
    /// # Errors
    /// [`Error::NoStudy`], [`Error::NoTrialNumber`], or the database's.
    pub async fn trial_id(&self, study: i64, number: i64) -> Result<i64, Error> {
        self.db.read(move |tx| read::trial_id(tx, study, number)).await
    }

    /// One trial.
    ///
    /// # Errors
    /// [`Error::NoTrial`], or the database's.
    pub async fn trial(&self, trial: i64) -> Result<Trial, Error> {
        self.db.read(move |tx| read::trials(tx, read::Which::Trial(trial))).await?.pop().ok_or(Error::NoTrial(trial))
    }

    /// Number of trials of a study by state.
    ///
    /// # Errors
    /// The database's; [`Error::Corrupt`].
    pub async fn counts(&self, study: i64) -> Result<BTreeMap<State, i64>, Error> {
        self.db.read(move |tx| read::counts(tx, study)).await
    }

    /// Sets a parameter of an unfinished trial.
    ///
    /// # Errors
    /// [`Error::NoTrial`], [`Error::TrialFinished`], [`Error::Incompatible`], in this order; or the database's.
    pub async fn set_param(&self, trial: i64, param: Param) -> Result<(), Error> {
        self.db.write(move |tx| write::set_param(tx, trial, &param)).await
    }

    /// Records intermediate values of an unfinished trial by step; a value that is there is overwritten.
    ///
    /// # Errors
    /// [`Error::NoTrial`], [`Error::TrialFinished`], or the database's.
    pub async fn report(&self, trial: i64, values: Vec<(i64, f64)>) -> Result<(), Error> {
        self.db.write(move |tx| write::report(tx, trial, &values)).await
    }

    /// Changes the state of an unfinished trial. To RUNNING only from WAITING: `false` says that somebody else was first.
    ///
    /// # Errors
    /// [`Error::NoTrial`], [`Error::TrialFinished`], or the database's.
    pub async fn set_state(
        &self,
        trial: i64,
        state: State,
        values: Option<Vec<f64>>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        self.db.write(move |tx| write::set_state(tx, trial, state, values.as_deref(), now)).await
    }

    /// Takes a WAITING trial: it is RUNNING from `now` on, with these parameters and attributes, those of the user and of the
    /// system, beside what it has. `false` says that somebody else was first.
    ///
    /// # Errors
    /// [`Error::NoTrial`], [`Error::TrialFinished`], [`Error::Incompatible`], or the database's.
    pub async fn claim(
        &self,
        trial: i64,
        params: Vec<Param>,
        [user_attrs, system_attrs]: [Attributes; 2],
        now: Timestamp,
    ) -> Result<bool, Error> {
        self.db
            .write(move |tx| {
                if !write::set_state(tx, trial, State::Running, None, now)? {
                    return Ok(false);
                }
                for param in &params {
                    write::set_param(tx, trial, param)?;
                }
                write::set_attributes(tx, Owner::TrialUser(trial), &user_attrs)?;
                write::set_attributes(tx, Owner::TrialSystem(trial), &system_attrs).map(|()| true)
            })
            .await
    }

    /// Ends an unfinished trial: last reports, attributes, values and state in one transaction.
    ///
    /// # Errors
    /// [`Error::NoTrial`], [`Error::TrialFinished`], or the database's.
    pub async fn finish(&self, trial: i64, end: TrialEnd, now: Timestamp) -> Result<(), Error> {
        self.db
            .write(move |tx| {
                write::report(tx, trial, &end.reports)?;
                write::set_attributes(tx, Owner::TrialUser(trial), &end.user_attrs)?;
                write::set_state(tx, trial, end.state, end.value.as_ref().map(std::slice::from_ref), now).map(|_| ())
            })
            .await
    }

    /// Sets attributes to JSON texts; those that are there are overwritten.
    ///
    /// # Errors
    /// [`Error::NoTrial`] or [`Error::NoStudy`], [`Error::TrialFinished`], or the database's.
    pub async fn set_attributes(&self, owner: Owner, attributes: Attributes) -> Result<(), Error> {
        self.db.write(move |tx| write::set_attributes(tx, owner, &attributes)).await
    }
}

/// How a trial ends.
#[derive(Debug, Clone)]
pub struct TrialEnd {
    /// COMPLETE, PRUNED or FAIL.
    pub state: State,
    /// The objective's value.
    pub value: Option<f64>,
    /// Reports that were not stored yet.
    pub reports: Vec<(i64, f64)>,
    /// Key to JSON text.
    pub user_attrs: Attributes,
}

/// The compatibility rule of parameters that share a name.
fn check_compatible(name: &str, new: &Distribution, old: &str) -> Result<(), Error> {
    let known = Distribution::from_json(old).map_err(Error::Corrupt)?;
    if known.compatible(new) {
        return Ok(());
    }
    Err(Error::Incompatible { name: name.to_owned(), new: new.to_json(), old: old.to_owned() })
}

#[cfg(test)]
mod tests;
