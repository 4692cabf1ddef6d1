//! A study's history column by column, kept up with its trials: what a sampler would have to gather from all of them each time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::tpe::{self, Kept};
use crate::{
    space::Space,
    study::{Direction, State, Trial},
};

/// What is kept of the trials of one study, for the parameters of one space. Trials are named by their places in the history.
#[derive(Debug)]
pub struct Columns {
    /// For each parameter of the space, the internal value in each trial that has ended; NaN where it has none there.
    values: Vec<Vec<f64>>,
    /// For each parameter, how many ended trials lack it, or have another distribution under its name.
    lacking: Vec<usize>,
    /// The ended trials, COMPLETE or PRUNED, in the order in which they were noted.
    ended: Vec<usize>,
    /// Those that run.
    running: BTreeSet<usize>,
    /// The best of the COMPLETE ones that break no constraint, by loss and place, for both directions: never more than [`MOST_GOOD`].
    best: [Vec<(f64, usize)>; 2],
    /// How many are COMPLETE and break no constraint.
    feasible: usize,
    /// What TPE computes from all this.
    kept: Keep,
}

/// So many good trials TPE knows at most.
const MOST_GOOD: usize = 25;
const DIRECTIONS: [Direction; 2] = [Direction::Minimize, Direction::Maximize];

/// TPE's models by the parameters that they model.
pub(super) type Models = BTreeMap<Vec<usize>, Kept>;

/// A place for what is computed from the columns; a clone starts with none.
#[derive(Debug, Default)]
struct Keep(Mutex<Models>);

impl Clone for Columns {
    fn clone(&self) -> Self {
        let Self { values, lacking, ended, running, best, feasible, .. } = self;
        Self {
            values: values.clone(),
            lacking: lacking.clone(),
            ended: ended.clone(),
            running: running.clone(),
            best: best.clone(),
            feasible: *feasible,
            kept: Keep::default(),
        }
    }
}

impl Columns {
    /// Of no trials yet.
    pub fn new(space: &Space) -> Self {
        let n = space.parameters().len();
        Self {
            values: vec![Vec::new(); n],
            lacking: vec![0; n],
            ended: Vec::new(),
            running: BTreeSet::new(),
            best: Default::default(),
            feasible: 0,
            kept: Keep::default(),
        }
    }

    /// Takes note of the trial at a place, which is new there or had not ended before; places are filled from the first on.
    pub fn note(&mut self, space: &Space, place: usize, trial: &Trial) {
        for column in &mut self.values {
            if column.len() <= place {
                column.resize(place + 1, f64::NAN);
            }
        }
        self.running.remove(&place);
        match trial.state {
            State::Running => drop(self.running.insert(place)),
            State::Complete | State::Pruned => self.end(space, place, trial),
            State::Waiting | State::Fail => {}
        }
    }

    fn end(&mut self, space: &Space, place: usize, trial: &Trial) {
        self.ended.push(place);
        let mut near = 0;
        for (index, parameter) in space.parameters().iter().enumerate() {
            let found = trial.param_place(&parameter.name, near);
            near = found.map_or(near, |found| found + 1);
            let param = found.map(|found| &trial.params[found]);
            if param.is_none_or(|param| param.distribution != parameter.distribution) {
                self.lacking[index] += 1;
            }
            self.values[index][place] = tpe::observed(parameter, param).unwrap_or(f64::NAN);
        }
        if trial.state != State::Complete || !trial.feasible() {
            return;
        }
        self.feasible += 1;
        for (best, direction) in self.best.iter_mut().zip(DIRECTIONS) {
            let new = (tpe::loss(trial.value(), direction), place);
            let rank = best.partition_point(|old| tpe::better(*old, new));
            if rank < MOST_GOOD {
                best.insert(rank, new);
                best.truncate(MOST_GOOD);
            }
        }
    }

    /// The trials that ended with a result, in the order in which they were noted.
    pub(super) fn ended(&self) -> &[usize] {
        &self.ended
    }

    /// Those that run.
    pub(super) fn running(&self) -> &BTreeSet<usize> {
        &self.running
    }

    /// Whether every ended trial has the parameter, with the distribution of the space.
    pub(super) fn common(&self, parameter: usize) -> bool {
        self.lacking[parameter] == 0
    }

    /// The internal values of these parameters in an ended trial; `None` unless it has all of them.
    pub(super) fn row(&self, parameters: &[usize], place: usize) -> Option<Vec<f64>> {
        let value = |index: &usize| self.values[*index].get(place).copied().filter(|value| !value.is_nan());
        parameters.iter().map(value).collect()
    }

    /// The trials that TPE takes for good, in order of place; `None` when that takes more than the best COMPLETE ones.
    pub(super) fn below(&self, direction: Direction) -> Option<Vec<usize>> {
        let n = self.ended.len().div_ceil(10).min(MOST_GOOD);
        if self.feasible < n {
            return None;
        }
        let best = &self.best[usize::from(direction == Direction::Maximize)];
        let mut places: Vec<usize> = best.iter().take(n).map(|(_, place)| *place).collect();
        places.sort_unstable();
        Some(places)
    }

    /// What TPE keeps.
    pub(super) fn kept(&self) -> MutexGuard<'_, Models> {
        let mut kept = self.kept.0.lock().unwrap_or_else(|poisoned| {
            // Somebody has panicked in the middle of a change.
            let mut kept = PoisonError::into_inner(poisoned);
            kept.clear();
            kept
        });
        // What is modelled together changes with the trials: one of all, and one of each are in use at a time.
        if kept.len() > self.values.len() + 1 {
            kept.clear();
        }
        kept
    }
}
