//! What the store knows without asking the database: the trials of the studies in use, kept by whoever writes to the database.
//!
//! Everything that reads or changes trials does so as the writer, one after the other, and is answered after its commit: the mirror
//! may change before the commit, because nobody sees it, and is thrown away when a commit fails.
//!
//! Others may write to the same tables, a script with Optuna for example. SQLite tells when somebody else has committed, and its
//! writer excludes everybody else: what the mirror holds is then exact. PostgreSQL has nothing as cheap: there rules are checked
//! by statements that lock what they read, and the mirror is brought up to date before each reading. An ended trial never changes,
//! so that is a matter of trials that are new or have not ended, however long the history is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use runtime_core::db::{Dialect, Tx, may_block};

use super::{
    Edit, Error, NewTrial, Past,
    compatible::check_compatible,
    ids::{self, Table},
    read,
    trials::{self, Which},
    write,
};
use crate::{
    space::Distribution,
    study::{Param, State, Trial},
};

/// Trials that are kept at most, unless one study alone has more; the study that was used least recently is dropped first.
const MOST_TRIALS: usize = 400_000;

/// The trials of the studies in use.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    studies: HashMap<i64, Mirrored>,
    /// Trials to their study.
    owners: HashMap<i64, i64>,
    /// [`Tx::commits_of_others`] when the mirror was exact.
    version: Option<i64>,
    /// Counts uses.
    clock: u64,
    /// Ids are to be left out, because a power cut may have taken trials that had them: their clients still know them.
    skip_ids: bool,
    /// They were.
    skipped: bool,
    /// Whether the ids of new trials are ours to count, once that is known.
    count_ids: Option<bool>,
}

#[derive(Debug, Default)]
struct Mirrored {
    /// By id; numbers grow with ids.
    trials: BTreeMap<i64, Arc<Trial>>,
    /// Ids by number.
    ids: BTreeMap<i64, i64>,
    /// Ids of trials that have not ended, and of those to read again.
    open: BTreeSet<i64>,
    /// Of the first trial that has a parameter, by its name.
    references: HashMap<String, Reference>,
    /// Somebody else has written since this was read.
    stale: bool,
    used: u64,
}

/// The distribution of a parameter that those of later trials have to go with.
#[derive(Debug)]
struct Reference {
    /// Of the trial.
    number: i64,
    distribution: Distribution,
    /// As it is stored: as a rule all trials have the same.
    json: String,
}

impl Reference {
    fn new(number: i64, distribution: &Distribution) -> Self {
        Self { number, distribution: distribution.clone(), json: distribution.to_json() }
    }
}

impl Mirrored {
    fn put(&mut self, trial: Trial) {
        match trial.state.finished() {
            true => self.open.remove(&trial.id),
            false => self.open.insert(trial.id),
        };
        for param in &trial.params {
            self.refer(trial.number, param);
        }
        self.ids.insert(trial.number, trial.id);
        self.trials.insert(trial.id, Arc::new(trial));
    }

    fn refer(&mut self, number: i64, param: &Param) {
        match self.references.get_mut(&param.name) {
            Some(first) if first.number <= number => {}
            Some(first) => *first = Reference::new(number, &param.distribution),
            None => drop(self.references.insert(param.name.clone(), Reference::new(number, &param.distribution))),
        }
    }

    /// The text of a parameter's distribution, if it is known.
    fn json(&self, param: &Param) -> Option<String> {
        let known = self.references.get(&param.name)?;
        known.distribution.same_text(&param.distribution).then(|| known.json.clone())
    }

    fn next_number(&self) -> i64 {
        self.trials.last_key_value().map_or(0, |(_, trial)| trial.number + 1)
    }
}

/// A trial that may be changed.
struct Open {
    study: i64,
    state: State,
}

impl Mirror {
    /// Of a database that was closed, or of one that was not since somebody has `crashed`.
    pub(super) fn new(crashed: bool) -> Self {
        Self { skip_ids: crashed, ..Self::default() }
    }

    /// Forgets everything: a commit has failed.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.skip_ids);
    }

    /// Forgets a study whose making is undone, and what was done for it.
    pub(super) fn unmake(&mut self, study: i64) {
        self.forget(study);
        self.skipped = false;
    }

    /// Forgets a study.
    pub(super) fn forget(&mut self, study: i64) {
        self.studies.remove(&study);
        self.owners.retain(|_, owner| *owner != study);
    }

    /// The study as it is now; read as a whole only when it is not known yet.
    fn study(&mut self, tx: &mut dyn Tx, study: i64) -> Result<&mut Mirrored, Error> {
        let version = tx.commits_of_others()?;
        if version.is_none() || version != self.version {
            // Whoever has written: their next use finds out what.
            self.studies.values_mut().for_each(|mirrored| mirrored.stale = true);
            self.version = version;
        }
        self.clock += 1;
        if !self.studies.contains_key(&study) {
            may_block(|| self.load(tx, study))?;
        } else if self.studies.get(&study).is_some_and(|mirrored| mirrored.stale) {
            may_block(|| self.refresh(tx, study))?;
        }
        let mirrored = self.studies.entry(study).or_default();
        mirrored.used = self.clock;
        Ok(mirrored)
    }

    fn load(&mut self, tx: &mut dyn Tx, study: i64) -> Result<(), Error> {
        read::check_study(tx, study)?;
        let trials = trials::read(tx, Which::Study(study))?;
        self.make_room(trials.len());
        self.owners.extend(trials.iter().map(|trial| (trial.id, study)));
        let mut mirrored = Mirrored::default();
        trials.into_iter().for_each(|trial| mirrored.put(trial));
        self.studies.insert(study, mirrored);
        Ok(())
    }

    /// Reads what may have changed: trials that are new and those that had not ended.
    fn refresh(&mut self, tx: &mut dyn Tx, study: i64) -> Result<(), Error> {
        if let Err(error) = read::check_study(tx, study) {
            self.forget(study);
            return Err(error);
        }
        let Some(mirrored) = self.studies.get_mut(&study) else { return Ok(()) };
        let last = mirrored.trials.last_key_value().map_or(i64::MIN, |(id, _)| *id);
        if tx.dialect() == Dialect::Sqlite && read::count(tx, study, last)? != mirrored.trials.len() {
            // Optuna deletes no trials, but a user with a SQL client may.
            self.forget(study);
            return self.load(tx, study);
        }
        let open: Vec<i64> = mirrored.open.iter().copied().collect();
        for trial in trials::read(tx, Which::Since(study, last, &open))? {
            self.owners.insert(trial.id, study);
            mirrored.put(trial);
        }
        mirrored.stale = false;
        Ok(())
    }

    /// Drops studies that were not used for long until so many more trials fit in.
    fn make_room(&mut self, more: usize) {
        let mut held: usize = self.owners.len();
        let mut by_use: Vec<(u64, i64, usize)> =
            self.studies.iter().map(|(id, mirrored)| (mirrored.used, *id, mirrored.trials.len())).collect();
        by_use.sort_unstable();
        for (_, study, trials) in by_use {
            if held + more <= MOST_TRIALS {
                break;
            }
            self.forget(study);
            held -= trials.min(held);
        }
    }

    /// All trials of a study in order of id.
    pub(super) fn trials(&mut self, tx: &mut dyn Tx, study: i64) -> Result<Vec<Arc<Trial>>, Error> {
        Ok(self.study(tx, study)?.trials.values().cloned().collect())
    }

    /// The trials of a study with an id above `after`, and those of the ids in `also`, in order of id.
    pub(super) fn since(
        &mut self,
        tx: &mut dyn Tx,
        study: i64,
        after: i64,
        also: &BTreeSet<i64>,
    ) -> Result<Vec<Arc<Trial>>, Error> {
        let mirrored = self.study(tx, study)?;
        let before = also.range(..=after).filter_map(|id| mirrored.trials.get(id));
        let since = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        Ok(before.chain(mirrored.trials.range(since).map(|(_, trial)| trial)).cloned().collect())
    }

    /// One trial.
    pub(super) fn trial(&mut self, tx: &mut dyn Tx, trial: i64) -> Result<Arc<Trial>, Error> {
        let study = self.owner(tx, trial)?;
        self.study(tx, study)?.trials.get(&trial).cloned().ok_or(Error::NoTrial(trial))
    }

    /// The trial of that number.
    pub(super) fn numbered(&mut self, tx: &mut dyn Tx, study: i64, number: i64) -> Result<Arc<Trial>, Error> {
        let mirrored = self.study(tx, study)?;
        let trial = mirrored.ids.get(&number).and_then(|id| mirrored.trials.get(id));
        trial.cloned().ok_or(Error::NoTrialNumber { study, number })
    }

    fn owner(&self, tx: &mut dyn Tx, trial: i64) -> Result<i64, Error> {
        self.owners.get(&trial).map_or_else(|| read::study_of(tx, trial), |study| Ok(*study))
    }

    /// Makes a trial with the study's next number.
    pub(super) fn create(
        &mut self,
        tx: &mut dyn Tx,
        study: i64,
        new: NewTrial,
        now: Timestamp,
    ) -> Result<Arc<Trial>, Error> {
        tx.begin()?;
        let number = match tx.dialect() {
            Dialect::Sqlite => self.study(tx, study)?.next_number(),
            Dialect::Postgres => write::lock_next_number(tx, study)?,
        };
        for param in &new.params {
            self.check_param(tx, study, param)?;
        }
        let NewTrial { params, user_attrs, system_attrs, past, leased } = new;
        let past = past.unwrap_or_else(|| Past { start: Some(now), ..Past::of(State::Running) });
        write::check_values(&past.values)?;
        let [start, complete] = [past.start, past.complete].map(|at| at.map(write::stored_time));
        let Past { state, values, intermediate, .. } = past;
        let mut trial =
            Trial { id: 0, number, state, values, params, intermediate, user_attrs, system_attrs, start, complete };
        if self.skip_ids && !self.skipped {
            ids::skip(tx)?;
        }
        let count = match self.count_ids {
            Some(count) => count,
            None => *self.count_ids.insert(Table::Trials.is_ours_to_count(tx)?),
        };
        let id = if count { Some(Table::Trials.next(tx)?) } else { None };
        trial.id = write::insert_trial(tx, study, &trial, id, self.jsons(study))?;
        if leased && trial.state == State::Running {
            write::lease(tx, trial.id)?;
        }
        self.skipped = self.skip_ids;
        // Behind trials of others that are not read yet it would hide them: only what has a higher id is looked for.
        if let Some(mirrored) = self.studies.get_mut(&study).filter(|mirrored| mirrored.next_number() == number) {
            self.owners.insert(trial.id, study);
            mirrored.put(trial.clone());
        }
        Ok(Arc::new(trial))
    }

    /// Changes a trial that has not ended, and gives its state then. `None` when it was to go to RUNNING and is not WAITING, or is in
    /// another state than the edit is for: then nothing has changed.
    pub(super) fn edit(
        &mut self,
        tx: &mut dyn Tx,
        trial: i64,
        edit: &Edit,
        now: Timestamp,
    ) -> Result<Option<State>, Error> {
        let open = self.open(tx, trial)?;
        let taken = edit.state == Some(State::Running) && open.state != State::Waiting;
        if taken || edit.only.is_some_and(|only| only != open.state) {
            return Ok(None);
        }
        let state = Some(edit.state.unwrap_or(open.state));
        for param in &edit.params {
            self.check_param(tx, open.study, param)?;
        }
        write::check_values(&edit.values)?;
        let now = write::stored_time(now);
        write::edit(tx, trial, edit, now, self.jsons(open.study))?;
        if edit.leased && state == Some(State::Running) {
            write::lease(tx, trial)?;
        }
        let Some(mirrored) = self.studies.get_mut(&open.study) else { return Ok(state) };
        if tx.dialect() == Dialect::Postgres {
            // What else somebody has changed is not known: it is read again.
            mirrored.open.insert(trial);
        } else if let Some(known) = mirrored.trials.get_mut(&trial) {
            let known = Arc::make_mut(known);
            edit.apply(known, now);
            if known.state.finished() {
                mirrored.open.remove(&trial);
            }
            let number = known.number;
            edit.params.iter().for_each(|param| mirrored.refer(number, param));
        }
        Ok(state)
    }

    /// The trial, when it has not ended; nobody else changes it until the end of the transaction.
    fn open(&mut self, tx: &mut dyn Tx, trial: i64) -> Result<Open, Error> {
        tx.begin()?;
        let (study, number, state) = match tx.dialect() {
            Dialect::Sqlite => {
                let known = self.trial(tx, trial)?;
                let study = self.owner(tx, trial)?;
                (study, known.number, known.state)
            }
            Dialect::Postgres => write::lock_trial(tx, trial)?,
        };
        match state.finished() {
            true => Err(Error::TrialFinished { number, state }),
            false => Ok(Open { study, state }),
        }
    }

    /// Gives the texts of the distributions of a study's parameters.
    fn jsons(&self, study: i64) -> impl Fn(&Param) -> String {
        let known = self.studies.get(&study);
        move |param| known.and_then(|known| known.json(param)).unwrap_or_else(|| param.distribution.to_json())
    }

    /// The reference is the distribution of the study's first trial that has the name.
    fn check_param(&mut self, tx: &mut dyn Tx, study: i64, param: &Param) -> Result<(), Error> {
        let known = self.studies.get(&study).and_then(|mirrored| mirrored.references.get(&param.name));
        match (known, tx.dialect()) {
            (Some(known), _) => check_compatible(&param.name, &param.distribution, &known.distribution),
            (None, Dialect::Sqlite) => Ok(()),
            (None, Dialect::Postgres) => match read::reference(tx, study, &param.name)? {
                Some(known) => check_compatible(&param.name, &param.distribution, &known),
                None => Ok(()),
            },
        }
    }
}
