//! Samplers: pure functions from a search space, the history of its study and a seed to the parameters of the next trial.
//!
//! [`suggest`] is what callers use. It asks a [`Sampler`] for the parameters that it models together, then for each of the others
//! by itself, and leaves out those whose condition does not hold.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;

use crate::{
    pruner::Pruner,
    space::Space,
    study::{Direction, Param, State, Trial},
};

mod cmaes;
mod columns;
mod cube;
mod gp;
mod grid;
mod kernels;
mod nsga2;
mod qmc;
mod random;
mod settings;
mod tpe;
mod truncnorm;
mod widths;

pub use cmaes::CmaEs;
pub(crate) use cmaes::{ATTR_PROMISING, promising};
pub use columns::Columns;
pub use gp::Gp;
pub use grid::Grid;
pub use nsga2::{Crossover, Mutation, NsgaII};
pub use qmc::{Qmc, QmcType};
pub use random::Random;
pub use settings::from_proto;
pub use tpe::Tpe;
#[cfg(test)]
pub(crate) use {
    nsga2::generations,
    tpe::{mixture, partition, split},
};

/// What a sampler decides from.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What to sample.
    pub space: &'a Space,
    /// Which way each objective improves; at least one.
    pub directions: &'a [Direction],
    /// The study's trials in order of their number; the one to sample is not among them, or ignored by its number.
    pub trials: &'a [Trial],
    /// Number of the trial to sample.
    pub number: i64,
    /// Seed of the study.
    pub seed: u64,
}

/// The random numbers of one trial.
pub type Generator = ChaCha12Rng;

/// What a sampler proposes for the parameters that it models together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Joint {
    /// Internal values in the order of the space, each inside of its domain; `None`, or a list that is too short, for parameters
    /// that are sampled one by one.
    pub values: Vec<Option<f64>>,
    /// What the sampler wants to find at the trial again: system attributes, key to JSON text.
    pub system_attrs: BTreeMap<String, String>,
}

/// Suggests the parameters of a trial. The same request and generator give the same answer.
pub trait Sampler: Send + Sync + fmt::Debug {
    /// The parameters that are modelled together.
    fn joint(&self, request: &Request<'_>, generator: &mut Generator) -> Joint;

    /// What [`Sampler::joint`] gives, by a sampler that need not look at every trial when it has the columns of the history.
    fn joint_from(&self, request: &Request<'_>, columns: &Columns, generator: &mut Generator) -> Joint {
        let _ = columns;
        self.joint(request, generator)
    }

    /// The internal value of one more parameter, given by its index in the space, that [`Sampler::joint`] left open.
    fn alone(&self, request: &Request<'_>, parameter: usize, generator: &mut Generator) -> f64 {
        random::uniform(&request.space.parameters()[parameter].distribution, generator)
    }

    /// What [`Sampler::alone`] gives, with the columns of the history.
    fn alone_from(&self, request: &Request<'_>, columns: &Columns, parameter: usize, generator: &mut Generator) -> f64 {
        let _ = columns;
        self.alone(request, parameter, generator)
    }

    /// Whether a suggestion after so many trials, with the columns of the history or without, takes so little, less than a few
    /// milliseconds, that other calls may wait for it.
    fn quick(&self, trials: usize, columns: bool) -> bool {
        let _ = columns;
        trials < 1000
    }

    /// Whether it wants every trial of the study, not only those that the pruner takes for comparable.
    fn every_trial(&self) -> bool {
        false
    }

    /// How many more trials are of any use; `None` when there is no end.
    fn remaining(&self, request: &Request<'_>) -> Option<usize> {
        let _ = request;
        None
    }
}

/// The trials of a study that the sampler sees when it suggests the one of this number: those that the pruner takes for comparable
/// with it, unless the sampler wants all.
pub fn seen<'a>(
    sampler: &dyn Sampler,
    pruner: &dyn Pruner,
    study: &str,
    trials: &'a [Trial],
    number: i64,
) -> Cow<'a, [Trial]> {
    if sampler.every_trial() { Cow::Borrowed(trials) } else { pruner.comparable(study, trials, number) }
}

/// The parameters of a trial to be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Suggestion {
    /// In the order of the space; without those whose condition does not hold.
    pub params: Vec<Param>,
    /// System attributes of the trial, key to JSON text.
    pub system_attrs: BTreeMap<String, String>,
}

/// Suggests a trial. `fixed` are internal values that were decided before, in the order of the space; it may be shorter.
pub fn suggest(sampler: &dyn Sampler, request: &Request<'_>, fixed: &[Option<f64>]) -> Suggestion {
    suggest_from(sampler, request, None, fixed)
}

/// What [`suggest`] gives, sooner where there are the columns of the very trials that the request has.
pub fn suggest_from(
    sampler: &dyn Sampler,
    request: &Request<'_>,
    columns: Option<&Columns>,
    fixed: &[Option<f64>],
) -> Suggestion {
    let parameters = request.space.parameters();
    // A stream of its own for each trial: it does not depend on the order in which trials are asked for.
    let mut generator = ChaCha12Rng::seed_from_u64(request.seed);
    generator.set_stream(request.number.unsigned_abs());
    // Also when all values are fixed: the sampler may want its attributes at the trial.
    let joint = match columns {
        Some(columns) => sampler.joint_from(request, columns, &mut generator),
        None => sampler.joint(request, &mut generator),
    };
    let at = |values: &[Option<f64>], index: usize| values.get(index).copied().flatten();
    let mut values: Vec<Option<f64>> = Vec::with_capacity(parameters.len());
    for (index, parameter) in parameters.iter().enumerate() {
        let value = request.space.active(index, &values).then(|| {
            at(fixed, index)
                .or_else(|| parameter.distribution.single().then(|| parameter.distribution.first()))
                .or_else(|| at(&joint.values, index))
                .unwrap_or_else(|| match columns {
                    Some(columns) => sampler.alone_from(request, columns, index, &mut generator),
                    None => sampler.alone(request, index, &mut generator),
                })
        });
        values.push(value);
    }
    let param = |(parameter, value): (&crate::space::Parameter, Option<f64>)| {
        Some(Param { name: parameter.name.clone(), value: value?, distribution: parameter.distribution.clone() })
    };
    Suggestion { params: parameters.iter().zip(values).filter_map(param).collect(), system_attrs: joint.system_attrs }
}

/// Indices of the parameters, sorted by name, that every COMPLETE trial has with the same distribution, and that have more than one
/// value: Optuna's intersection search space. Empty while no trial has completed.
///
/// A trial that was pruned may have been stopped before its script came to the other parameters.
fn intersection(request: &Request<'_>) -> Vec<usize> {
    common(request, |state| state == State::Complete)
}

/// [`intersection`] of the PRUNED trials too, which only TPE wants in Optuna.
fn intersection_with_pruned(request: &Request<'_>) -> Vec<usize> {
    common(request, |state| matches!(state, State::Complete | State::Pruned))
}

/// [`intersection`] of the trials in those states.
fn common(request: &Request<'_>, counts: impl Fn(State) -> bool) -> Vec<usize> {
    let mut joint: Vec<usize> = Vec::new();
    let mut none_ended = true;
    for trial in request.trials.iter().filter(|trial| counts(trial.state)) {
        if std::mem::take(&mut none_ended) {
            let parameters = request.space.parameters();
            joint = (0..parameters.len()).filter(|index| !parameters[*index].distribution.single()).collect();
        }
        let mut near = 0;
        joint.retain(|index| {
            let parameter = &request.space.parameters()[*index];
            let place = trial.param_place(&parameter.name, near);
            near = place.map_or(near, |place| place + 1);
            place.is_some_and(|place| trial.params[place].distribution == parameter.distribution)
        });
        if joint.is_empty() {
            break;
        }
    }
    joint.sort_by(|a, b| request.space.parameters()[*a].name.cmp(&request.space.parameters()[*b].name));
    joint
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::{Condition, Distribution, ParamValue};

    /// `momentum` for sgd, `nesterov` when the momentum is 1 or 2.
    fn conditional() -> Space {
        let choices = ["sgd", "adam"].map(|name| ParamValue::Text(name.into()));
        let mut space = Space::of([
            ("optimizer", Distribution::categorical(choices.to_vec()).unwrap()),
            ("momentum", Distribution::int(0, 3, false, 1).unwrap()),
            ("nesterov", Distribution::categorical(vec![ParamValue::Bool(true), ParamValue::Bool(false)]).unwrap()),
            ("lr", Distribution::float(0.0, 1.0, false, None).unwrap()),
        ]);
        space.set_condition(1, Condition { parameter: 0, values: vec![0.0] });
        space.set_condition(2, Condition { parameter: 1, values: vec![1.0, 2.0] });
        space
    }

    #[test]
    fn parameters_exist_where_their_condition_holds_for_every_sampler() {
        let space = conditional();
        let univariate = Tpe { multivariate: false, ..Tpe::default() };
        let grouped = Tpe { group: true, ..Tpe::default() };
        let genetic = NsgaII { population_size: 10, ..NsgaII::default() };
        for sampler in [&Random as &dyn Sampler, &Tpe::default(), &univariate, &grouped, &genetic] {
            let mut trials: Vec<Trial> = Vec::new();
            let mut seen = std::collections::BTreeSet::new();
            for number in 0..60 {
                let request =
                    Request { space: &space, directions: &[Direction::Minimize], trials: &trials, number, seed: 1 };
                let Suggestion { params, .. } = suggest(sampler, &request, &[]);
                let value = |name: &str| params.iter().find(|p| p.name == name).map(|p| p.value);
                assert_eq!(value("momentum").is_some(), value("optimizer") == Some(0.0));
                assert_eq!(value("nesterov").is_some(), matches!(value("momentum"), Some(1.0 | 2.0)));
                seen.insert(params.len());
                let mut trial = crate::study::tests::trial(number, State::Complete, value("lr"));
                trial.params = params;
                trials.push(trial);
            }
            assert_eq!(Vec::from_iter(seen), [2, 3, 4], "{sampler:?}");
        }
    }

    #[test]
    fn a_condition_holds_at_every_point_of_a_grid_of_floats() {
        let mut space = Space::of([
            ("x", Distribution::float(0.0, 1.0, false, Some(0.1)).unwrap()),
            ("y", Distribution::float(0.0, 1.0, false, Some(0.5)).unwrap()),
        ]);
        // As somebody writes them: k * 0.1 has other last digits for some.
        let written = ["0.1", "0.2", "0.3", "0.6", "0.7", "0.9"].map(|point| point.parse().unwrap());
        assert_ne!(3.0 * 0.1, written[2]);
        space.set_condition(1, Condition { parameter: 0, values: written.to_vec() });
        let grid = Grid::default();
        assert_eq!(grid.size(&space), Ok(5 + 6 * 3));
        let given = Grid { points: [("x".to_owned(), vec![0.3, 3.0 * 0.1, 0.4])].into() };
        assert_eq!(given.size(&space), Ok(1 + 3), "0.3 once");
        for sampler in [&Random as &dyn Sampler, &Tpe::default(), &grid, &given, &Qmc::default(), &CmaEs::default()] {
            let mut trials: Vec<Trial> = Vec::new();
            for number in 0..40 {
                let request =
                    Request { space: &space, directions: &[Direction::Minimize], trials: &trials, number, seed: 1 };
                let params = suggest(sampler, &request, &[]).params;
                let tenth = (params[0].value * 10.0).round();
                assert_eq!(
                    params.len() == 2,
                    [1.0, 2.0, 3.0, 6.0, 7.0, 9.0].contains(&tenth),
                    "{sampler:?} {params:?}"
                );
                let mut ended = crate::study::tests::trial(number, State::Complete, Some(params[0].value));
                ended.params = params;
                trials.push(ended);
            }
        }
    }

    #[test]
    fn a_pruned_trial_without_a_parameter_takes_it_from_no_sampler_but_tpe() {
        let float = || Distribution::float(0.0, 1.0, false, None).unwrap();
        let space = Space::of([("x", float()), ("y", float())]);
        let mut trials: Vec<Trial> = Vec::new();
        for number in 0..12 {
            let mut ended = crate::study::tests::trial(number, State::Complete, Some(number as f64));
            let param = |(name, value): (&str, f64)| Param { name: name.into(), value, distribution: float() };
            ended.params = [("x", 0.1), ("y", 0.9)].map(param).to_vec();
            ended.system_attrs.insert("cma:generation".into(), "0".into());
            if number == 11 {
                ended.state = State::Pruned;
                ended.intermediate.insert(1, -9.0);
                ended.params.pop();
            }
            trials.push(ended);
        }
        let request =
            Request { space: &space, directions: &[Direction::Minimize], trials: &trials, number: 12, seed: 1 };
        let modelled = |sampler: &dyn Sampler| {
            let joint = sampler.joint(&request, &mut Generator::seed_from_u64(1));
            joint.values.iter().filter(|value| value.is_some()).count()
        };
        let considers = CmaEs { consider_pruned_trials: true, ..CmaEs::default() };
        for sampler in [&Gp::default() as &dyn Sampler, &CmaEs::default(), &considers] {
            assert_eq!(modelled(sampler), 2, "{sampler:?}");
        }
        assert_eq!(modelled(&Tpe::default()), 1);
    }

    #[test]
    fn what_is_fixed_stays_and_decides_about_what_depends_on_it() {
        let space = conditional();
        let request = Request { space: &space, directions: &[Direction::Minimize], trials: &[], number: 0, seed: 1 };
        let names = |fixed: &[Option<f64>]| -> Vec<(String, f64)> {
            suggest(&Random, &request, fixed).params.into_iter().map(|p| (p.name, p.value)).collect()
        };
        let given = names(&[Some(0.0), Some(2.0), Some(1.0), Some(0.5)]);
        assert_eq!(
            given,
            [("optimizer", 0.0), ("momentum", 2.0), ("nesterov", 1.0), ("lr", 0.5)].map(|(n, v)| (n.into(), v))
        );
        let adam = names(&[Some(1.0), Some(2.0)]);
        assert_eq!(adam.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["optimizer", "lr"]);
    }
}
