//! The durable store of studies: Optuna's RDB schema on SQLite or PostgreSQL, so that `optuna.load_study` opens it.
//!
//! Every write is one transaction and answered after the commit. What ends a trial and what belongs to a study is on the disk then;
//! what is written to a trial that still runs or waits survives the end of the process, and is synced soon after. Times are UTC, as
//! in Optuna 5.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use runtime_core::db::{self, Db, Durability, Tx, WriteOptions};

use crate::study::{Direction, Param, State, Study, Trial};

mod compatible;
mod edit;
mod ids;
mod mirror;
mod read;
mod schema;
mod summary;
mod trials;
mod url;
mod write;

pub use edit::Edit;
use mirror::Mirror;

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
    /// A queued trial belongs to whoever takes it first.
    #[error("trial {number} is WAITING: it has to be suggested first")]
    NotSuggested {
        /// Its number in the study.
        number: i64,
    },
    /// A parameter's distribution does not go with the one that the study has under that name.
    #[error("parameter `{name}` is incompatible with the study's first one of that name: {difference}")]
    Incompatible {
        /// The parameter.
        name: String,
        /// The first thing in which its distribution differs from the first one that the study stored.
        difference: String,
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
    /// Whoever makes it is a client of the storage proxy, and works on it if it runs.
    pub leased: bool,
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

/// A trial from elsewhere; it gets another id and number.
impl From<Trial> for NewTrial {
    fn from(trial: Trial) -> Self {
        let Trial { state, values, params, intermediate, user_attrs, system_attrs, start, complete, .. } = trial;
        let past = Some(Past { state, values, intermediate, start, complete });
        Self { params, user_attrs, system_attrs, past, leased: false }
    }
}

impl Past {
    /// A state and nothing else.
    pub fn of(state: State) -> Self {
        Self { state, values: Vec::new(), intermediate: BTreeMap::new(), start: None, complete: None }
    }
}

/// Which attributes of a study, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StudyAttributes {
    /// Those of the user.
    User(i64),
    /// Those of the system.
    System(i64),
}

/// A handle on an open store; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    db: Db,
    url: String,
    /// Of whoever writes, who is alone.
    mirror: Arc<Mutex<Mirror>>,
    /// What is written to trials that have not ended.
    open_trials: Durability,
}

impl Store {
    /// Opens or makes the store at `sqlite:///PATH` or `postgresql://...`. Blocks.
    ///
    /// # Errors
    /// The database cannot be opened, or has another revision of Optuna's schema.
    pub fn open(url: &str) -> Result<Self, Error> {
        // Whoever closes the database last takes its log away.
        let log = url.strip_prefix("sqlite://").map(|path| format!("{path}-wal"));
        let crashed = log.is_some_and(|log| std::fs::metadata(log).is_ok_and(|log| log.len() > 0));
        let db = Db::open(url, schema::MIGRATIONS)?;
        let mirror = Arc::new(Mutex::new(Mirror::new(crashed)));
        Ok(Self { db, url: url::for_optuna(url), mirror, open_trials: Durability::Committed })
    }

    /// With `all`, also what is written to trials that have not ended is on the disk before it is answered. Without, a power cut may
    /// take the last moment of it ([`Durability::Committed`]).
    #[must_use]
    pub fn synced(mut self, all: bool) -> Self {
        self.open_trials = if all { Durability::Synced } else { Durability::Committed };
        self
    }

    /// What a trial's change survives, by the state that it brings.
    fn durability(&self, state: Option<State>) -> Durability {
        match state {
            Some(state) if state.finished() => Durability::Synced,
            _ => self.open_trials,
        }
    }

    /// Leaves out the ids that clients may know from after the backup from which the store was restored.
    ///
    /// # Errors
    /// The database's.
    pub async fn skip_ids(&self) -> Result<(), Error> {
        self.db.write(ids::skip_after_backup).await
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

    /// How many characters names of studies and parameters and keys of attributes may have: as many as Optuna's columns hold. SQLite
    /// sets no limit.
    pub fn longest_name(&self) -> Option<usize> {
        match self.db.dialect() {
            db::Dialect::Sqlite => None,
            db::Dialect::Postgres => Some(512),
        }
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
        self.with_trials(Durability::Synced, move |trials, tx| {
            write::delete_study(tx, study)?;
            trials.forget(study);
            Ok(())
        })
        .await
    }

    /// Runs `f` on the trials, alone.
    async fn with_trials<T: Send + 'static>(
        &self,
        durability: Durability,
        f: impl FnOnce(&mut Mirror, &mut dyn Tx) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (mirror, failed) = (self.mirror.clone(), self.mirror.clone());
        let run = move |tx: &mut dyn Tx| {
            let mut mirror = mirror.lock().unwrap_or_else(|poisoned| {
                // A request has panicked in the middle of its change.
                mirror.clear_poison();
                let mut mirror = poisoned.into_inner();
                mirror.clear();
                mirror
            });
            f(&mut mirror, tx)
        };
        let undo = move || failed.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.db.write_with(WriteOptions { durability, quick: true, undo: Some(Box::new(undo)) }, run).await
    }

    /// Looks at the trials.
    async fn look<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Mirror, &mut dyn Tx) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        // There is nothing to sync.
        self.with_trials(Durability::Committed, f).await
    }

    /// Creates a study with its trials, which get their numbers in the order given; all of it or nothing.
    ///
    /// # Errors
    /// As [`Store::create_study`] and [`Store::create_trial`].
    pub async fn import<T>(&self, study: Study, trials: Vec<T>) -> Result<Study, Error>
    where
        T: Into<NewTrial> + Send + 'static,
    {
        self.with_trials(Durability::Synced, move |mirror, tx| {
            tx.begin()?;
            let Study { name, directions, user_attrs, system_attrs, .. } = study;
            let made = write::create_study(tx, name, directions, user_attrs, system_attrs)?;
            let filled = trials.into_iter().try_for_each(|trial| {
                let trial: NewTrial = trial.into();
                let start = trial.past.as_ref().and_then(|past| past.start);
                mirror.create(tx, made.id, trial, start.unwrap_or_default()).map(drop)
            });
            match filled {
                // Should the transaction fail as a whole, nobody has seen it.
                Ok(()) => mirror.forget(made.id),
                // The next study gets its id.
                Err(_) => mirror.unmake(made.id),
            }
            filled.map(|()| made)
        })
        .await
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
    pub async fn create_trial(&self, study: i64, new: NewTrial, now: Timestamp) -> Result<Arc<Trial>, Error> {
        let durability = self.durability(new.past.as_ref().map(|past| past.state));
        self.with_trials(durability, move |trials, tx| trials.create(tx, study, new, now)).await
    }

    /// All trials of a study in order of id, which is that of their numbers.
    ///
    /// # Errors
    /// [`Error::NoStudy`], the database's, or [`Error::Corrupt`].
    pub async fn trials(&self, study: i64) -> Result<Vec<Arc<Trial>>, Error> {
        self.look(move |trials, tx| trials.trials(tx, study)).await
    }

    /// The trials of a study with an id above `after`, and those of the ids in `also`, in order of id.
    ///
    /// # Errors
    /// [`Error::NoStudy`], the database's, or [`Error::Corrupt`].
    pub async fn trials_since(&self, study: i64, after: i64, also: BTreeSet<i64>) -> Result<Vec<Arc<Trial>>, Error> {
        self.look(move |trials, tx| trials.since(tx, study, after, &also)).await
    }

    /// The trial of that number.
    ///
    /// # Errors
    /// [`Error::NoStudy`], [`Error::NoTrialNumber`], or the database's.
    pub async fn numbered_trial(&self, study: i64, number: i64) -> Result<Arc<Trial>, Error> {
        self.look(move |trials, tx| trials.numbered(tx, study, number)).await
    }

    /// One trial.
    ///
    /// # Errors
    /// [`Error::NoTrial`], or the database's.
    pub async fn trial(&self, trial: i64) -> Result<Arc<Trial>, Error> {
        self.look(move |trials, tx| trials.trial(tx, trial)).await
    }

    /// Number of trials of a study by state.
    ///
    /// # Errors
    /// The database's; [`Error::Corrupt`].
    pub async fn counts(&self, study: i64) -> Result<BTreeMap<State, i64>, Error> {
        self.db.read(move |tx| read::counts(tx, study)).await
    }

    /// Changes a trial that has not ended, all of it or nothing. To RUNNING only from WAITING: `false` says that somebody else was
    /// first.
    ///
    /// # Errors
    /// [`Error::NoTrial`], [`Error::TrialFinished`], [`Error::Incompatible`], [`Error::NotANumber`], in this order; or the database's.
    pub async fn edit(&self, trial: i64, edit: Edit, now: Timestamp) -> Result<bool, Error> {
        Ok(self.edit_state(trial, edit, now).await?.is_some())
    }

    /// Like [`Store::edit`], and gives the state that the trial has then; `None` when nothing has changed.
    ///
    /// # Errors
    /// As [`Store::edit`].
    pub async fn edit_state(&self, trial: i64, edit: Edit, now: Timestamp) -> Result<Option<State>, Error> {
        let durability = self.durability(edit.state);
        self.with_trials(durability, move |trials, tx| trials.edit(tx, trial, &edit, now)).await
    }

    /// Changes the trial of that number by what `change` makes of it, which brings `state` if any, and gives it as it is then.
    ///
    /// # Errors
    /// As [`Store::edit`]; [`Error::NoTrialNumber`], and [`Error::NotSuggested`] for a trial that waits.
    pub async fn edit_numbered(
        &self,
        study: i64,
        number: i64,
        state: Option<State>,
        change: impl FnOnce(&Trial) -> Edit + Send + 'static,
        now: Timestamp,
    ) -> Result<Arc<Trial>, Error> {
        self.with_trials(self.durability(state), move |trials, tx| {
            tx.begin()?;
            let trial = trials.numbered(tx, study, number)?;
            if trial.state == State::Waiting {
                return Err(Error::NotSuggested { number });
            }
            trials.edit(tx, trial.id, &Edit { state, ..change(&trial) }, now)?;
            trials.trial(tx, trial.id)
        })
        .await
    }

    /// The running trials that have a user attribute with a text of that key, and the text, of one study or of all; without those that
    /// clients of the storage proxy work on.
    ///
    /// # Errors
    /// The database's.
    pub async fn running_of(&self, key: &'static str, study: Option<i64>) -> Result<Vec<(i64, String)>, Error> {
        let found = self.db.read(move |tx| read::running_with(tx, key, study)).await?;
        let text = |(trial, json): (i64, String)| Some((trial, serde_json::from_str(&json).ok()?));
        Ok(found.into_iter().filter_map(text).collect())
    }

    /// The running trials that clients of the storage proxy have begun.
    ///
    /// # Errors
    /// The database's.
    pub async fn leased(&self) -> Result<Vec<i64>, Error> {
        let options = WriteOptions { durability: Durability::Committed, ..WriteOptions::default() };
        self.db.write_with(options, write::leased).await
    }

    /// Sets attributes of a study to JSON texts; those that are there are overwritten.
    ///
    /// # Errors
    /// [`Error::NoStudy`], or the database's.
    pub async fn set_study_attributes(&self, which: StudyAttributes, attributes: Attributes) -> Result<(), Error> {
        self.db.write(move |tx| write::set_study_attributes(tx, which, &attributes)).await
    }
}

#[cfg(test)]
mod tests;
