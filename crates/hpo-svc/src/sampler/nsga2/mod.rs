//! NSGA-II, an elitist genetic algorithm for several objectives and constraints, as Optuna 5.0.0's NSGAIISampler has it.
//!
//! Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II" (2002). A trial notes its generation in its system
//! attributes, under Optuna's key. From these the parents of a generation are computed again each time: the elite of those of the
//! generation before and of its trials. Optuna keeps what it has selected once in the study's attributes, so that a trial that ends
//! after the next generation has begun is lost to it; here it may still become a parent.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;

use super::{Generator, Joint, Request, Sampler, intersection};
use crate::{
    pareto,
    pyjson::PyValue,
    space::Distribution,
    study::{State, Trial},
};

mod axis;
mod crossover;

use axis::Axis;
pub use crossover::{Crossover, Mutation};

/// Where a trial keeps its generation.
const GENERATION: &str = "NSGAIISampler:generation";
/// How often parents are selected anew because their child lies outside of the domain.
const ATTEMPTS: usize = 1000;

/// The sampler's settings; the defaults are Optuna's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NsgaII {
    /// Trials of a generation, and parents of the next one; at least 2, and as many as the crossover takes.
    pub population_size: usize,
    /// How a parameter mutates; without it, and for choices, by a uniform draw.
    pub mutation: Option<Mutation>,
    /// How likely a parameter of a child is to mutate; 1 / (number of parameters) when not given.
    pub mutation_prob: Option<f64>,
    /// How numeric parameters of parents are combined; choices are always swapped.
    pub crossover: Crossover,
    /// How likely a child has several parents rather than one.
    pub crossover_prob: f64,
    /// How likely a parameter comes from the first parent, where parameters are swapped.
    pub swapping_prob: f64,
}

impl Default for NsgaII {
    fn default() -> Self {
        Self {
            population_size: 50,
            mutation: None,
            mutation_prob: None,
            crossover: Crossover::Uniform,
            crossover_prob: 0.9,
            swapping_prob: 0.5,
        }
    }
}

impl Sampler for NsgaII {
    fn joint(&self, request: &Request<'_>, generator: &mut Generator) -> Joint {
        let generations = generations(request);
        let own = request.trials.iter().find(|trial| trial.number == request.number).and_then(generation_of);
        let generation = own.unwrap_or_else(|| self.next_generation(&generations));
        let system_attrs = BTreeMap::from([(GENERATION.to_owned(), PyValue::Int(generation).dump())]);
        let parents = self.parents(&generations, generation);
        let mut values = Vec::new();
        if !parents.is_empty() {
            values = vec![None; request.space.parameters().len()];
            let joint = intersection(request);
            for (index, value) in joint.iter().zip(self.child(&joint, &parents, request, generator)) {
                values[*index] = value;
            }
        }
        Joint { values, system_attrs }
    }
}

/// A COMPLETE trial of a generation.
#[derive(Debug)]
pub(crate) struct Individual<'a> {
    pub(crate) trial: &'a Trial,
    losses: Vec<f64>,
    violation: f64,
}

fn generation_of(trial: &Trial) -> Option<i64> {
    match PyValue::parse(trial.system_attrs.get(GENERATION)?) {
        Ok(PyValue::Int(generation)) => Some(generation).filter(|generation| *generation >= 0),
        _ => None,
    }
}

/// The COMPLETE trials by their generation; trials of other samplers have none.
pub(crate) fn generations<'a>(request: &Request<'a>) -> BTreeMap<i64, Vec<Individual<'a>>> {
    let mut generations: BTreeMap<i64, Vec<Individual<'a>>> = BTreeMap::new();
    for trial in request.trials.iter().filter(|trial| trial.state == State::Complete) {
        let Some(generation) = generation_of(trial) else { continue };
        let Some(losses) = pareto::losses(trial, request.directions) else { continue };
        let violation = trial.violation().unwrap_or(0.0);
        generations.entry(generation).or_default().push(Individual { trial, losses, violation });
    }
    generations
}

impl Individual<'_> {
    /// Constrained domination: what breaks no constraint goes before what does, and of the latter what breaks them less.
    fn dominates(&self, other: &Self) -> bool {
        match (self.violation > 0.0, other.violation > 0.0) {
            (false, false) => pareto::dominates(&self.losses, &other.losses),
            (false, true) => true,
            (true, false) => false,
            (true, true) => self.violation < other.violation,
        }
    }
}

impl NsgaII {
    fn size(&self) -> usize {
        self.population_size.max(self.crossover.n_parents())
    }

    /// The last generation until it is full, then the next one.
    pub(crate) fn next_generation(&self, generations: &BTreeMap<i64, Vec<Individual<'_>>>) -> i64 {
        match generations.last_key_value() {
            Some((last, members)) if members.len() >= self.size() => last.saturating_add(1),
            Some((last, _)) => *last,
            None => 0,
        }
    }

    /// The parents of a generation, by number; none for the first one.
    pub(crate) fn parents<'a, 'b>(
        &self,
        generations: &'b BTreeMap<i64, Vec<Individual<'a>>>,
        generation: i64,
    ) -> Vec<&'b Individual<'a>> {
        let mut parents: Vec<&Individual<'a>> = Vec::new();
        // A generation of which there is nobody leaves the elite as it is.
        for (_, members) in generations.range(..generation) {
            let mut population: Vec<&Individual<'a>> = members.iter().collect();
            population.append(&mut parents);
            parents = self.elite(population);
            parents.sort_by_key(|parent| parent.trial.number);
        }
        parents
    }

    /// Those who survive: whole ranks of non-domination as long as there is room, of the next one the loneliest.
    fn elite<'a, 'b>(&self, population: Vec<&'b Individual<'a>>) -> Vec<&'b Individual<'a>> {
        let points: Vec<Vec<f64>> = population.iter().map(|individual| individual.losses.clone()).collect();
        let penalties: Vec<f64> = population.iter().map(|individual| individual.violation).collect();
        let ranks = pareto::constrained_ranks(&points, &penalties, self.size());
        let mut elite: Vec<&Individual<'a>> = Vec::new();
        for rank in ranks.iter().collect::<BTreeSet<_>>() {
            let mut members: Vec<&Individual<'a>> = Vec::new();
            members
                .extend(population.iter().zip(&ranks).filter(|(_, other)| *other == rank).map(|(member, _)| *member));
            let room = self.size() - elite.len();
            if members.len() < room {
                elite.append(&mut members);
                continue;
            }
            // The values, not the losses: the direction decides among equal distances.
            let values: Vec<Vec<f64>> = members.iter().map(|member| member.trial.values.clone()).collect();
            elite.extend(pareto::by_crowding(&values).into_iter().take(room).map(|index| members[index]));
            break;
        }
        elite
    }

    /// A child's values of the parameters at the indices; `None` for those that mutate to a uniform draw.
    fn child(
        &self,
        joint: &[usize],
        parents: &[&Individual<'_>],
        request: &Request<'_>,
        generator: &mut Generator,
    ) -> Vec<Option<f64>> {
        let distributions: Vec<&Distribution> =
            joint.iter().map(|index| &request.space.parameters()[*index].distribution).collect();
        let names: Vec<&str> = joint.iter().map(|index| request.space.parameters()[*index].name.as_str()).collect();
        let genes = |parent: &Individual<'_>| -> Vec<f64> {
            let pairs = names.iter().zip(&distributions);
            // Each COMPLETE trial has all of them.
            pairs.map(|(name, d)| parent.trial.param(name).map_or_else(|| d.first(), |param| param.value)).collect()
        };
        let child = if generator.random::<f64>() < self.crossover_prob {
            self.crossed(&distributions, parents, &genes, request.directions.len() > 1, generator)
        } else {
            genes(parents[generator.random_range(0..parents.len())])
        };
        let mutation_prob = self.mutation_prob.unwrap_or(1.0 / child.len().max(1) as f64);
        let mutated = child.into_iter().zip(&distributions).map(|(value, distribution)| {
            if generator.random::<f64>() >= mutation_prob {
                return Some(value);
            }
            let axis = Axis::new(distribution)?;
            let mutated = self.mutation?.mutate(axis.scaled(value), axis.bounds(), generator);
            Some(axis.value(mutated))
        });
        mutated.collect()
    }

    /// A child of several parents.
    fn crossed(
        &self,
        distributions: &[&Distribution],
        population: &[&Individual<'_>],
        genes: &dyn Fn(&Individual<'_>) -> Vec<f64>,
        several: bool,
        generator: &mut Generator,
    ) -> Vec<f64> {
        let axes: Vec<Option<Axis<'_>>> = distributions.iter().map(|distribution| Axis::new(distribution)).collect();
        let bounds: Vec<(f64, f64)> = axes.iter().flatten().map(Axis::bounds).collect();
        let mut child = Vec::new();
        for _ in 0..ATTEMPTS {
            let parents: Vec<Vec<f64>> = self.select_parents(population, generator).into_iter().map(genes).collect();
            let scaled = |parent: &Vec<f64>| -> Vec<f64> {
                axes.iter().zip(parent).filter_map(|(axis, gene)| Some(axis.as_ref()?.scaled(*gene))).collect()
            };
            // Choices have two parents, whatever the crossover.
            let (first, last) = (&parents[0], &parents[parents.len() - 1]);
            child = first.iter().zip(last).map(|(a, b)| self.swapped(*a, *b, generator)).collect::<Vec<f64>>();
            let numeric: Vec<Vec<f64>> = parents.iter().map(scaled).collect();
            let crossed = self.crossover.cross(&numeric, &bounds, self.swapping_prob, several, generator);
            let genes = axes.iter().zip(&mut child).filter_map(|(axis, gene)| Some((axis.as_ref()?, gene)));
            for ((axis, gene), scaled) in genes.zip(crossed) {
                *gene = axis.value(scaled);
            }
            if child.iter().zip(distributions).all(|(gene, distribution)| distribution.contains(*gene)) {
                return child;
            }
        }
        let within = |(gene, axis): (f64, &Option<Axis<'_>>)| axis.as_ref().map_or(gene, |axis| axis.clamped(gene));
        child.into_iter().zip(&axes).map(within).collect()
    }

    fn swapped(&self, first: f64, last: f64, generator: &mut Generator) -> f64 {
        if generator.random::<f64>() >= self.swapping_prob { last } else { first }
    }

    /// Different parents, each the winner of a tournament of two.
    fn select_parents<'a, 'b>(
        &self,
        population: &[&'b Individual<'a>],
        generator: &mut Generator,
    ) -> Vec<&'b Individual<'a>> {
        let mut left = population.to_vec();
        let mut parents = Vec::new();
        for _ in 0..self.crossover.n_parents() {
            if left.is_empty() {
                left = population.to_vec();
            }
            let mut pick = || generator.random_range(0..left.len());
            let (one, two) = (pick(), pick());
            parents.push(left.remove(if left[one].dominates(left[two]) { one } else { two }));
        }
        parents
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sampler::{Random, suggest},
        space::{ParamValue, Space},
        study::{Direction, Param, tests::trial},
    };

    const BOTH: [Direction; 2] = [Direction::Minimize, Direction::Maximize];

    fn space() -> Space {
        let choices = ["a", "b", "c"].map(|name| ParamValue::Text(name.into())).to_vec();
        Space::of([
            ("x", Distribution::float(-1.0, 2.0, false, None).unwrap()),
            ("log", Distribution::float(1e-5, 1e-1, true, None).unwrap()),
            ("grid", Distribution::float(0.0, 1.0, false, Some(0.3)).unwrap()),
            ("int", Distribution::int(-3, 9, false, 4).unwrap()),
            ("intlog", Distribution::int(1, 1000, true, 1).unwrap()),
            ("choice", Distribution::categorical(choices).unwrap()),
        ])
    }

    /// Runs a study; the objective gives the values and by how much the constraint is broken.
    fn run(
        sampler: &dyn Sampler,
        space: &Space,
        n: i64,
        seed: u64,
        objective: impl Fn(&[Param]) -> ([f64; 2], f64),
    ) -> Vec<Trial> {
        let mut trials: Vec<Trial> = Vec::new();
        for number in 0..n {
            let request = Request { space, directions: &BOTH, trials: &trials, number, seed };
            let suggestion = suggest(sampler, &request, &[]);
            assert_eq!(suggestion, suggest(sampler, &request, &[]));
            assert!(suggestion.params.iter().all(|param| param.distribution.contains(param.value)), "{suggestion:?}");
            let (values, broken) = objective(&suggestion.params);
            let mut ended = trial(number, State::Complete, None);
            ended.values = values.to_vec();
            ended.params = suggestion.params;
            ended.system_attrs = suggestion.system_attrs;
            ended.system_attrs.insert("constraints:c".into(), broken.to_string());
            trials.push(ended);
        }
        trials
    }

    #[test]
    fn every_crossover_stays_in_the_domain_and_generations_follow() {
        let mutation = Some(Mutation::Polynomial { eta: 20.0 });
        for (name, crossover) in Crossover::ALL {
            assert_eq!(Crossover::parse(name), Some(crossover));
            for (mutation, mutation_prob) in [(None, None), (mutation, Some(1.0))] {
                let sampler = NsgaII { population_size: 8, crossover, mutation, mutation_prob, ..NsgaII::default() };
                let trials = run(&sampler, &space(), 30, 3, |params| {
                    ([params[0].value, params[3].value], params[2].value - 0.5)
                });
                let generations: Vec<i64> = trials.iter().filter_map(generation_of).collect();
                assert_eq!(generations, (0..30).map(|number| number / 8).collect::<Vec<_>>(), "{name}");
            }
        }
    }

    #[test]
    fn it_beats_random_sampling_under_a_constraint() {
        let space = Space::of(["a", "b", "c"].map(|n| (n, Distribution::float(0.0, 1.0, false, None).unwrap())));
        // The second one is maximized.
        let objective = |params: &[Param]| {
            let (a, b, c) = (params[0].value, params[1].value, params[2].value);
            let g = 1.0 + 4.5 * (b + c);
            ([a, g * ((a / g).sqrt() - 1.0)], 0.2 - a)
        };
        let sampler = NsgaII { population_size: 20, ..NsgaII::default() };
        let reached = |sampler: &dyn Sampler, seed| {
            let trials = run(sampler, &space, 150, seed, objective);
            let best = pareto::best_trials(&trials, &BOTH);
            assert!(best.iter().all(|trial| trial.feasible()));
            let points: Vec<Vec<f64>> = best.iter().filter_map(|trial| pareto::losses(trial, &BOTH)).collect();
            pareto::hypervolume(&points, &[1.0, 4.0])
        };
        let wins = (0..10).filter(|seed| reached(&sampler, *seed) > reached(&Random, *seed)).count();
        assert!(wins >= 9, "{wins} of 10");
    }

    #[test]
    fn odd_histories_are_survived() {
        let space = space();
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, 0.0];
        for population_size in [0, 1, 2, 5] {
            for crossover in Crossover::ALL.map(|(_, crossover)| crossover) {
                let sampler = NsgaII { population_size, crossover, ..NsgaII::default() };
                run(&sampler, &space, 25, 1, |params| {
                    let at = (params[0].value.to_bits() % 5) as usize;
                    ([odd[at], odd[4 - at]], odd[at])
                });
            }
        }
        // One trial, far ahead; a generation that is none; values of another study.
        let mut trials = run(&Random, &space, 3, 1, |_| ([1.0, 1.0], 0.0));
        trials[0].system_attrs.insert(GENERATION.into(), i64::MAX.to_string());
        trials[1].system_attrs.insert(GENERATION.into(), "\"two\"".into());
        trials[2].system_attrs.insert(GENERATION.into(), "1".into());
        trials[2].values.pop();
        let sampler = NsgaII { population_size: 1, ..NsgaII::default() };
        let request = Request { space: &space, directions: &BOTH, trials: &trials, number: 3, seed: 1 };
        let suggestion = suggest(&sampler, &request, &[]);
        assert_eq!(suggestion.params.len(), 6);
        assert_eq!(suggestion.system_attrs[GENERATION], i64::MAX.to_string());
        trials[0].system_attrs.insert(GENERATION.into(), "7".into());
        let sampler = NsgaII { population_size: 2, ..NsgaII::default() };
        let request = Request { space: &space, directions: &BOTH, trials: &trials, number: 3, seed: 1 };
        assert_eq!(suggest(&sampler, &request, &[]).system_attrs[GENERATION], "7");
    }

    #[test]
    fn a_trial_keeps_its_generation_and_fixed_ones_get_one() {
        let space = space();
        let trials = run(&NsgaII::default(), &space, 60, 1, |params| ([params[0].value, params[1].value], 0.0));
        let fixed: Vec<Option<f64>> = trials[0].params.iter().map(|param| Some(param.value)).collect();
        let attribute = |number: i64| {
            let request = Request { space: &space, directions: &BOTH, trials: &trials, number, seed: 1 };
            suggest(&NsgaII::default(), &request, &fixed).system_attrs[GENERATION].clone()
        };
        assert_eq!((attribute(3).as_str(), attribute(60).as_str()), ("0", "1"));
    }
}
