//! A study's trials in one piece, as samplers, pruners and planners read them, brought up to date by what has changed.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    pruner::Pruner,
    sampler::{Columns, Request, Sampler, Suggestion, seen, suggest_from},
    space::Space,
    storage::{Error, Store},
    study::{State, Trial},
};

/// The trials of one study. It costs a second copy of them, and little to keep up.
#[derive(Debug, Clone)]
pub struct History {
    study: i64,
    /// In order of id, which is that of their numbers.
    trials: Vec<Trial>,
    /// Those that had not ended by id, as the store gave them: what is the same still has not changed.
    open: BTreeMap<i64, Arc<Trial>>,
    /// What is sampled: trials share its distributions, so that they are compared at a glance.
    space: Space,
    /// Of the trials, for samplers.
    columns: Columns,
}

impl History {
    /// Of the study of that id, whose parameters are sampled from a space; knows nothing yet.
    pub fn new(study: i64, space: Space) -> Self {
        let columns = Columns::new(&space);
        Self { study, trials: Vec::new(), open: BTreeMap::new(), space, columns }
    }

    /// Takes over what has changed since the last time.
    ///
    /// # Errors
    /// As [`Store::trials_since`].
    pub async fn update(&mut self, store: &Store) -> Result<(), Error> {
        let last = self.trials.last().map_or(i64::MIN, |trial| trial.id);
        let changed = store.trials_since(self.study, last, self.open.keys().copied().collect()).await?;
        self.merge(&changed);
        Ok(())
    }

    /// Takes over a trial that was just made, and what others have made before it since the last time.
    ///
    /// # Errors
    /// As [`Store::trials_since`].
    pub async fn learn(&mut self, made: &Arc<Trial>, store: &Store) -> Result<(), Error> {
        // Only what has a higher id than the last is looked for.
        if made.number > self.next_number() {
            return self.update(store).await;
        }
        self.merge(std::slice::from_ref(made));
        Ok(())
    }

    /// Takes over trials that are known to have changed.
    pub fn merge(&mut self, changed: &[Arc<Trial>]) {
        for trial in changed {
            let known = match trial.state.finished() {
                true => self.open.remove(&trial.id),
                false => self.open.insert(trial.id, trial.clone()),
            };
            if known.is_some_and(|known| Arc::ptr_eq(&known, trial)) {
                continue;
            }
            let mut own = Trial::clone(trial);
            for param in &mut own.params {
                if let Some(known) = self.space.get(&param.name).filter(|known| **known == param.distribution) {
                    param.distribution = known.clone();
                }
            }
            match self.trials.binary_search_by_key(&trial.id, |known| known.id) {
                Ok(place) => self.replace(place, own),
                Err(place) => {
                    self.trials.insert(place, own);
                    if place + 1 == self.trials.len() {
                        self.columns.note(&self.space, place, &self.trials[place]);
                    } else {
                        self.note_all();
                    }
                }
            }
        }
    }

    fn replace(&mut self, place: usize, new: Trial) {
        let old = std::mem::replace(&mut self.trials[place], new);
        if !old.state.finished() {
            self.columns.note(&self.space, place, &self.trials[place]);
        } else if old != self.trials[place] {
            // Nobody who keeps the rules changes an ended trial.
            self.note_all();
        }
    }

    fn note_all(&mut self) {
        self.columns = Columns::new(&self.space);
        for (place, trial) in self.trials.iter().enumerate() {
            self.columns.note(&self.space, place, trial);
        }
    }

    /// The columns of the trials, for [`crate::sampler::suggest_from`] with a request that has all of them.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The queued trial that comes first.
    pub fn waiting(&self) -> Option<&Trial> {
        self.open().find(|trial| trial.state == State::Waiting)
    }

    /// The trials in order of their number, as of the last update.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// The number that the next trial gets, unless somebody else makes one before.
    pub fn next_number(&self) -> i64 {
        self.trials.last().map_or(0, |trial| trial.number + 1)
    }

    /// Those that had not ended.
    pub fn open(&self) -> impl Iterator<Item = &Trial> {
        let place = |id: &i64| self.trials.binary_search_by_key(id, |known| known.id).ok();
        self.open.keys().filter_map(move |id| self.trials.get(place(id)?))
    }

    /// Suggests a trial of the study of that name: [`crate::sampler::suggest`] from those of the request's trials that the sampler
    /// sees, and by the columns when these are the history's own.
    pub fn suggest(
        &self,
        sampler: &dyn Sampler,
        pruner: &dyn Pruner,
        study: &str,
        request: &Request<'_>,
        fixed: &[Option<f64>],
    ) -> Suggestion {
        let trials = seen(sampler, pruner, study, request.trials, request.number);
        let columns = std::ptr::eq(&*trials, self.trials()).then_some(&self.columns);
        suggest_from(sampler, &Request { trials: &trials, ..*request }, columns, fixed)
    }

    /// Whether a suggestion for so many objectives takes so little that other calls may wait for it.
    pub fn quick(&self, sampler: &dyn Sampler, pruner: &dyn Pruner, objectives: usize) -> bool {
        let columns = sampler.every_trial() || pruner.compares_all();
        objectives == 1 && sampler.quick(self.trials.len(), columns)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        pruner::{Hyperband, Nop},
        sampler::{Random, Tpe, suggest},
        space::Distribution,
        storage::{Attributes, Edit, NewTrial, Past},
        study::{Direction, Param, tests::trial},
    };

    fn space() -> Space {
        Space::of([("x", Distribution::float(0.0, 1.0, false, None).unwrap())])
    }

    #[test]
    fn a_suggestion_is_that_from_the_trials_that_the_sampler_sees() {
        let space = space();
        let mut history = History::new(1, space.clone());
        let distribution = &space.parameters()[0].distribution;
        let ended = |number: i64| {
            let value = (number as f64 * 0.37).fract();
            let mut ended = trial(number, State::Complete, Some(value));
            ended.params = vec![Param { name: "x".into(), value, distribution: distribution.clone() }];
            Arc::new(ended)
        };
        history.merge(&(0..200).map(ended).collect::<Vec<_>>());
        let hyperband = Hyperband { max_resource: Some(27), ..Hyperband::default() };
        let tpe = Tpe::default();
        for pruner in [&Nop as &dyn Pruner, &hyperband] {
            let request = Request {
                space: &space,
                directions: &[Direction::Minimize],
                trials: history.trials(),
                number: 200,
                seed: 3,
            };
            let shown = seen(&tpe, pruner, "s", request.trials, request.number);
            let expected = suggest(&tpe, &Request { trials: &shown, ..request }, &[]);
            assert_eq!(history.suggest(&tpe, pruner, "s", &request, &[]), expected);
        }
        history.merge(&(200..1200).map(ended).collect::<Vec<_>>());
        assert!(history.quick(&tpe, &Nop, 1) && !history.quick(&tpe, &Nop, 2));
        assert!(!history.quick(&tpe, &hyperband, 1) && !history.quick(&Random, &Nop, 1));
    }

    #[tokio::test]
    async fn an_open_trial_is_followed_through_its_changes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}", folder.path().join("studies.db").display())).unwrap();
        let none = Attributes::new;
        let study = store.create_study("s", &[Direction::Minimize], none(), none()).await.unwrap().id;
        let mut history = History::new(study, space());
        let open = store.create_trial(study, NewTrial::default(), Timestamp::UNIX_EPOCH).await.unwrap();
        history.learn(&open, &store).await.unwrap();
        for step in 0..3 {
            let report = Edit::reports(vec![(step, 0.5)]);
            store.edit(open.id, report, Timestamp::UNIX_EPOCH).await.unwrap();
            for _ in 0..2 {
                history.update(&store).await.unwrap();
                assert_eq!(history.trials(), [Trial::clone(&*store.trial(open.id).await.unwrap())]);
            }
        }
        let end = Edit::state(State::Complete, vec![1.0]);
        store.edit(open.id, end, Timestamp::UNIX_EPOCH).await.unwrap();
        history.update(&store).await.unwrap();
        assert_eq!((history.trials()[0].state, history.open().count()), (State::Complete, 0));
    }

    #[tokio::test]
    async fn a_trial_that_others_made_meanwhile_is_not_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}", folder.path().join("studies.db").display())).unwrap();
        let none = Attributes::new;
        let study = store.create_study("s", &[Direction::Minimize], none(), none()).await.unwrap().id;
        let mut history = History::new(study, space());
        history.update(&store).await.unwrap();
        let waiting = NewTrial { past: Some(Past::of(State::Waiting)), ..NewTrial::default() };
        let theirs = store.create_trial(study, waiting, Timestamp::UNIX_EPOCH).await.unwrap();
        let ours = store.create_trial(study, NewTrial::default(), Timestamp::UNIX_EPOCH).await.unwrap();
        history.learn(&ours, &store).await.unwrap();
        assert_eq!(history.waiting(), Some(&*theirs));
        assert_eq!((history.trials().len(), history.next_number()), (2, 2));
        let next = store.create_trial(study, NewTrial::default(), Timestamp::UNIX_EPOCH).await.unwrap();
        history.learn(&next, &store).await.unwrap();
        history.update(&store).await.unwrap();
        let all = store.trials(study).await.unwrap();
        assert!(history.trials().iter().eq(all.iter().map(|trial| &**trial)));
    }
}
