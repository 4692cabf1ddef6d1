//! The model of the bad trials, kept between suggestions: of thousands of kernels a new trial changes few.

use std::collections::{BTreeMap, BTreeSet};

use super::{ANNOUNCED, Tpe, observation};
use crate::{
    sampler::{
        Request,
        columns::{Columns, Models},
        kernels::Mixture,
    },
    space::{Distribution, Parameter},
    study::{Direction, State},
};

/// The estimator of what is not good, and what it was made of.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The parameters that it models.
    parameters: Vec<usize>,
    constant_liar: bool,
    direction: Direction,
    /// How many of [`Columns::ended`] it knows.
    ended: usize,
    /// The good trials, by place.
    below: Vec<usize>,
    /// The places of the trials that have a kernel, ascending; one for each observation of the mixture.
    members: Vec<usize>,
    /// The values of those that ran when they were added.
    running: BTreeMap<usize, Vec<f64>>,
    above: Mixture,
}

/// With so many changes it is as quick to begin anew.
const MANY: usize = 64;

impl Kept {
    /// The model for these parameters, brought up to date.
    pub(super) fn update<'a>(
        models: &'a mut Models,
        tpe: &Tpe,
        request: &Request<'_>,
        columns: &Columns,
        parameters: &[usize],
        below: &[usize],
    ) -> &'a Mixture {
        let direction = request.directions.first().copied().unwrap_or(Direction::Minimize);
        let fits = |kept: &Self| {
            kept.direction == direction
                && kept.constant_liar == tpe.constant_liar
                && kept.ended + MANY >= columns.ended().len()
        };
        let mut current = match models.remove(parameters).filter(fits) {
            Some(mut current) => {
                current.follow(request, columns, below);
                current
            }
            None => Self::new(tpe, request, columns, parameters, below),
        };
        current.ended = columns.ended().len();
        current.below = below.to_vec();
        &models.entry(parameters.to_vec()).or_insert(current).above
    }

    fn new(tpe: &Tpe, request: &Request<'_>, columns: &Columns, parameters: &[usize], below: &[usize]) -> Self {
        let mut new = Self {
            parameters: parameters.to_vec(),
            direction: request.directions.first().copied().unwrap_or(Direction::Minimize),
            constant_liar: tpe.constant_liar,
            ended: 0,
            below: Vec::new(),
            members: Vec::new(),
            running: BTreeMap::new(),
            above: Mixture::new(&[], Vec::new(), true),
        };
        let places: BTreeSet<usize> = columns.ended().iter().chain(columns.running()).copied().collect();
        let mut values = vec![Vec::with_capacity(places.len()); parameters.len()];
        for place in places {
            let Some(row) = new.wanted(request, columns, below, place) else { continue };
            values.iter_mut().zip(&row).for_each(|(column, value)| column.push(*value));
            new.members.push(place);
            if columns.running().contains(&place) {
                new.running.insert(place, row);
            }
        }
        let distributions: Vec<&Distribution> =
            parameters.iter().map(|index| &request.space.parameters()[*index].distribution).collect();
        new.above = Mixture::new(&distributions, values, true);
        new
    }

    /// Adds and takes away what differs.
    fn follow(&mut self, request: &Request<'_>, columns: &Columns, below: &[usize]) {
        let fresh = columns.ended().get(self.ended..).unwrap_or_default();
        let mut touched: BTreeSet<usize> = self.running.keys().copied().collect();
        touched.extend(fresh.iter().chain(columns.running()).chain(&self.below).chain(below));
        for place in touched {
            let wanted = self.wanted(request, columns, below, place);
            let member = self.members.binary_search(&place);
            let current = member.ok().and_then(|_| match self.running.remove(&place) {
                Some(row) => Some(row),
                None => columns.row(&self.parameters, place),
            });
            let runs = columns.running().contains(&place);
            if wanted != current {
                if let Ok(index) = member {
                    self.members.remove(index);
                    self.above.remove(index);
                }
                if let Some(row) = &wanted {
                    let index = self.members.partition_point(|other| *other < place);
                    self.members.insert(index, place);
                    self.above.insert(index, row);
                }
            }
            if let Some(row) = wanted.filter(|_| runs) {
                self.running.insert(place, row);
            }
        }
    }

    /// The observation that the trial at a place should be in the model, if any.
    fn wanted(&self, request: &Request<'_>, columns: &Columns, below: &[usize], place: usize) -> Option<Vec<f64>> {
        let trial = request.trials.get(place)?;
        match trial.state {
            State::Complete | State::Pruned if below.binary_search(&place).is_err() => {
                columns.row(&self.parameters, place)
            }
            State::Running if self.constant_liar && trial.number != request.number => {
                let space: Vec<&Parameter> =
                    self.parameters.iter().map(|index| &request.space.parameters()[*index]).collect();
                observation(&space, trial, ANNOUNCED)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::{
        history::History,
        sampler::{suggest, suggest_from},
        space::{Condition, ParamValue, Space},
        study::{Param, Trial, tests::trial},
    };

    fn space() -> Space {
        let choices = ["a", "b", "c"].map(|name| ParamValue::Text(name.into())).to_vec();
        let mut space = Space::of([
            ("kind", Distribution::categorical(choices).unwrap()),
            ("x", Distribution::float(-1.0, 1.0, false, None).unwrap()),
            ("lr", Distribution::float(1e-5, 1e-1, true, None).unwrap()),
            ("layers", Distribution::int(1, 9, false, 2).unwrap()),
            ("width", Distribution::int(1, 4096, true, 1).unwrap()),
            ("deep", Distribution::float(0.0, 1.0, false, None).unwrap()),
        ]);
        space.set_condition(5, Condition { parameter: 0, values: vec![0.0] });
        space
    }

    /// What happens in a study: trials begin, end in another order in all ways, and come from elsewhere.
    fn happens(history: &mut History, space: &Space, random: &mut ChaCha8Rng) {
        let open: Vec<Trial> = history.open().cloned().collect();
        let number = history.next_number();
        let mut changed = match open.len() {
            1.. if random.random_bool(0.5) => open[random.random_range(0..open.len())].clone(),
            _ => {
                let directions = &[Direction::Minimize];
                let request = Request { space, directions, trials: history.trials(), number, seed: 7 };
                let mut new = trial(number, State::Running, None);
                new.params = suggest(&crate::sampler::Random, &request, &[]).params;
                if random.random_bool(0.02) {
                    // Somebody else's idea of the space.
                    let other = Distribution::float(-2.0, 2.0, false, None).unwrap();
                    new.params.retain(|param| param.name != "x");
                    new.params.push(Param {
                        name: "x".into(),
                        value: random.random_range(-2.0..2.0),
                        distribution: other,
                    });
                }
                new
            }
        };
        let ends = changed.number < number || random.random_bool(0.3);
        if ends {
            changed.state = match random.random_range(0..10) {
                0..8 => State::Complete,
                8 => State::Pruned,
                _ => State::Fail,
            };
            let values = [0.0, -0.0, f64::INFINITY, random.random(), random.random(), random.random()];
            if changed.state == State::Complete {
                changed.values = vec![values[random.random_range(0..values.len())]];
            }
            if random.random_bool(0.1) {
                changed.system_attrs.insert("constraints:c".into(), "0.5".into());
            }
        } else if random.random_bool(0.1) {
            changed.params.truncate(2);
        }
        history.merge(&[Arc::new(changed)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]
        #[test]
        fn what_is_kept_changes_no_suggestion(seed: u64, liar: bool, maximize: bool, multivariate: bool) {
            let space = space();
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut history = History::new(1, space.clone());
            let tpe = Tpe { constant_liar: liar, multivariate, ..Tpe::default() };
            let directions = &[if maximize { Direction::Maximize } else { Direction::Minimize }];
            let mut compared = 0;
            for step in 0..260 {
                happens(&mut history, &space, &mut random);
                // Not every change is followed by a suggestion.
                if step % 4 == 0 || step > 230 {
                    let number = match history.open().next() {
                        Some(open) if step % 7 == 0 => open.number,
                        _ => history.next_number(),
                    };
                    let request = Request { space: &space, directions, trials: history.trials(), number, seed };
                    let ours = suggest_from(&tpe, &request, Some(history.columns()), &[]);
                    prop_assert_eq!(ours, suggest(&tpe, &request, &[]), "step {}", step);
                    compared += usize::from(!history.columns().kept().is_empty());
                }
            }
            prop_assert!(compared > 50, "the kept model was used {} times", compared);
        }
    }
}
