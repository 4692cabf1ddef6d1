//! The tree-structured Parzen estimator of Optuna 5.0: multivariate, with constant liar, constraints and several objectives.
//!
//! Good and bad trials are modelled apart, l(x) and g(x); of candidates drawn from l the one with the largest l(x) / g(x) is taken.
//! Bergstra et al., "Algorithms for hyper-parameter optimization" (2011), and for several objectives Ozaki et al., "Multiobjective
//! tree-structured Parzen estimator" (2022); constants and rules are those of Optuna 5.0.0.

use super::{
    Generator, Joint, Request, Sampler, columns::Columns, intersection_with_pruned, kernels::Mixture, random::uniform,
};
use crate::{
    pyjson::PyValue,
    space::{Distribution, ParamValue, Parameter},
    study::{Direction, Param, State, Trial},
};

mod kept;
mod split;

pub(crate) use kept::Kept;
pub(crate) use split::split;
pub(super) use split::{better, loss};

/// The sampler's settings; the defaults are Optuna's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tpe {
    /// Finished trials before the model is used; sampling is uniform until then.
    pub n_startup_trials: usize,
    /// Candidates drawn for each suggestion.
    pub n_ei_candidates: usize,
    /// Model the parameters together rather than one by one. Optuna leaves this to the number of objectives: [`Tpe::for_objectives`].
    pub multivariate: bool,
    /// Model together what always occurs together: not only the parameters that every trial has, but each part of a partition of
    /// them that no trial has in half. For spaces with conditions; has no effect without `multivariate`.
    pub group: bool,
    /// Count running trials as bad, so that parallel trials keep apart.
    pub constant_liar: bool,
}

impl Default for Tpe {
    fn default() -> Self {
        Self { n_startup_trials: 10, n_ei_candidates: 24, multivariate: true, group: false, constant_liar: true }
    }
}

/// Where Optuna's `TPESampler` announces parameters.
const ANNOUNCED: &str = "tpe:relative_params";
/// Scores that differ by less are the same: kernels are added up in the order of their trials, which differs from choice to choice.
const SAME_SCORE: f64 = 1e-12;

impl Sampler for Tpe {
    fn joint(&self, request: &Request<'_>, generator: &mut Generator) -> Joint {
        if self.starting(request) {
            return Joint::default();
        }
        let model = self.split(request);
        let mut values = vec![None; request.space.parameters().len()];
        for part in self.parts(request) {
            let point = self.suggest(&part, &model, request, generator);
            for (index, value) in part.into_iter().zip(point) {
                values[index] = Some(value);
            }
        }
        Joint { values, ..Joint::default() }
    }

    fn quick(&self, trials: usize, columns: bool) -> bool {
        let kept = columns && self.multivariate && !self.group;
        let usual = Self::default().n_ei_candidates;
        let work = trials.saturating_mul(self.n_ei_candidates.max(usual));
        work < usual * if kept { 10_000 } else { 1000 }
    }

    fn joint_from(&self, request: &Request<'_>, columns: &Columns, generator: &mut Generator) -> Joint {
        self.joint_of_columns(request, columns, generator).unwrap_or_else(|| self.joint(request, generator))
    }

    fn alone_from(&self, request: &Request<'_>, columns: &Columns, parameter: usize, generator: &mut Generator) -> f64 {
        let below = match request.directions.len() < 2 && columns.ended().len() >= self.n_startup_trials {
            true => columns.below(first_direction(request)),
            false => None,
        };
        match below {
            Some(below) => {
                let point = self.suggest_from(&[parameter], &below, request, columns, generator);
                point.first().copied().unwrap_or_else(|| request.space.parameters()[parameter].distribution.first())
            }
            None => self.alone(request, parameter, generator),
        }
    }

    fn alone(&self, request: &Request<'_>, parameter: usize, generator: &mut Generator) -> f64 {
        let distribution = &request.space.parameters()[parameter].distribution;
        if self.starting(request) {
            return uniform(distribution, generator);
        }
        let point = self.suggest(&[parameter], &self.split(request), request, generator);
        point.first().copied().unwrap_or_else(|| distribution.first())
    }
}

impl Tpe {
    /// Optuna's defaults for a study of that many objectives: with several the parameters are modelled one by one.
    pub fn for_objectives(objectives: usize) -> Self {
        Self { multivariate: objectives < 2, ..Self::default() }
    }

    /// What [`Sampler::joint`] does for one objective, where the columns say which trials are good; otherwise `None`.
    fn joint_of_columns(&self, request: &Request<'_>, columns: &Columns, generator: &mut Generator) -> Option<Joint> {
        if (self.multivariate && self.group) || request.directions.len() > 1 {
            return None;
        }
        if columns.ended().len() < self.n_startup_trials {
            return Some(Joint::default());
        }
        let parameters = request.space.parameters();
        let several = (0..parameters.len()).filter(|index| !parameters[*index].distribution.single());
        let parts = if self.multivariate {
            let mut common: Vec<usize> = several.filter(|index| columns.common(*index)).collect();
            common.sort_by(|a, b| parameters[*a].name.cmp(&parameters[*b].name));
            Some(common).filter(|common| !common.is_empty() && !columns.ended().is_empty()).into_iter().collect()
        } else {
            several.map(|index| vec![index]).collect::<Vec<_>>()
        };
        let below = columns.below(first_direction(request))?;
        let mut values = vec![None; parameters.len()];
        for part in parts {
            let point = self.suggest_from(&part, &below, request, columns, generator);
            part.into_iter().zip(point).for_each(|(index, value)| values[index] = Some(value));
        }
        Some(Joint { values, ..Joint::default() })
    }

    /// What [`Tpe::suggest`] gives, with the model of the bad trials that is kept; the good ones are at the places `below`.
    fn suggest_from(
        &self,
        indices: &[usize],
        below: &[usize],
        request: &Request<'_>,
        columns: &Columns,
        generator: &mut Generator,
    ) -> Vec<f64> {
        let mut observations = vec![Vec::with_capacity(below.len()); indices.len()];
        for row in below.iter().filter_map(|place| columns.row(indices, *place)) {
            observations.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        }
        let distributions: Vec<&Distribution> =
            indices.iter().map(|index| &request.space.parameters()[*index].distribution).collect();
        let good = Mixture::new(&distributions, observations, true);
        let mut models = columns.kept();
        let bad = Kept::update(&mut models, self, request, columns, indices, below);
        self.choose(&good, bad, generator)
    }

    /// The parameters to model, as lists of those that go together; what is in none is left to [`Sampler::alone`].
    fn parts(&self, request: &Request<'_>) -> Vec<Vec<usize>> {
        let parameters = request.space.parameters();
        match (self.multivariate, self.group) {
            // Here rather than alone, so that the trials are split once for all of them.
            (false, _) => (0..parameters.len())
                .filter(|index| !parameters[*index].distribution.single())
                .map(|i| vec![i])
                .collect(),
            (true, false) => {
                Some(intersection_with_pruned(request)).filter(|joint| !joint.is_empty()).into_iter().collect()
            }
            (true, true) => partition(request),
        }
    }

    /// Whether there are too few trials for a model.
    fn starting(&self, request: &Request<'_>) -> bool {
        let ended = |trial: &&Trial| matches!(trial.state, State::Complete | State::Pruned);
        request.trials.iter().filter(ended).take(self.n_startup_trials).count() < self.n_startup_trials
    }

    fn split<'a>(&self, request: &Request<'a>) -> Split<'a> {
        let counts = |trial: &Trial| match trial.state {
            State::Complete | State::Pruned => true,
            State::Running => self.constant_liar && trial.number != request.number,
            State::Waiting | State::Fail => false,
        };
        split(request.trials.iter().filter(|trial| counts(trial)), request.directions)
    }

    /// The best of the candidates in the space of the parameters at `indices`, in their order.
    fn suggest(
        &self,
        indices: &[usize],
        (below, above): &Split<'_>,
        request: &Request<'_>,
        generator: &mut Generator,
    ) -> Vec<f64> {
        let space: Vec<&Parameter> = indices.iter().map(|index| &request.space.parameters()[*index]).collect();
        // With several objectives the good ones are a front, of which the old end is worth as much as the new one.
        let good = mixture(&space, below, request.directions.len() < 2);
        let bad = mixture(&space, above, true);
        self.choose(&good, &bad, generator)
    }

    /// Of candidates drawn from the good the one that is the least likely among the bad; the first one of those that are so alike.
    fn choose(&self, good: &Mixture, bad: &Mixture, generator: &mut Generator) -> Vec<f64> {
        let points: Vec<Vec<f64>> = (0..self.n_ei_candidates.max(1)).map(|_| good.sample(generator)).collect();
        let (good, bad) = (good.log_densities(&points), bad.log_densities(&points));
        let mut best: Option<(f64, Vec<f64>)> = None;
        for ((good, bad), point) in good.into_iter().zip(bad).zip(points) {
            let score = good - bad;
            if best.as_ref().is_none_or(|(other, _)| score > *other + SAME_SCORE) {
                best = Some((score, point));
            }
        }
        best.map(|(_, point)| point).unwrap_or_default()
    }
}

fn first_direction(request: &Request<'_>) -> Direction {
    request.directions.first().copied().unwrap_or(Direction::Minimize)
}

/// The good and the bad trials.
type Split<'a> = (Vec<&'a Trial>, Vec<&'a Trial>);

/// The parameters of the space that some ended trial has, divided so that every ended trial has a part as a whole or not at all;
/// single-valued ones left out. Optuna's `_GroupDecomposedSearchSpace`.
pub(crate) fn partition(request: &Request<'_>) -> Vec<Vec<usize>> {
    let parameters = request.space.parameters();
    let mut sorted: Vec<usize> =
        (0..parameters.len()).filter(|index| !parameters[*index].distribution.single()).collect();
    sorted.sort_by(|a, b| parameters[*a].name.cmp(&parameters[*b].name));
    // The last part is what no trial has had yet.
    let (mut parts, mut unseen) = (Vec::<Vec<usize>>::new(), sorted);
    for trial in request.trials.iter().filter(|trial| matches!(trial.state, State::Complete | State::Pruned)) {
        let has = |index: &usize| trial.param(&parameters[*index].name).is_some();
        let divided = parts.into_iter().flat_map(|part| {
            let (inside, outside): (Vec<usize>, Vec<usize>) = part.into_iter().partition(has);
            [inside, outside]
        });
        let mut next: Vec<Vec<usize>> = divided.collect();
        let (new, still): (Vec<usize>, Vec<usize>) = unseen.into_iter().partition(has);
        next.push(new);
        unseen = still;
        next.retain(|part| !part.is_empty());
        parts = next;
    }
    parts
}

/// The Parzen estimator of those of the trials that have all of the parameters; `ageing` lets the older of many weigh less.
pub(crate) fn mixture(space: &[&Parameter], trials: &[&Trial], ageing: bool) -> Mixture {
    let mut columns = vec![Vec::with_capacity(trials.len()); space.len()];
    let mut row = Vec::with_capacity(space.len());
    for trial in trials {
        row.clear();
        if observe(space, trial, ANNOUNCED, &mut row).is_some() {
            columns.iter_mut().zip(&row).for_each(|(column, value)| column.push(*value));
        }
    }
    let distributions: Vec<&Distribution> = space.iter().map(|parameter| &parameter.distribution).collect();
    Mixture::new(&distributions, columns, ageing)
}

/// The trial's internal values in the space; `None` unless it has all of them, a running one's announced ones under `key` included.
pub(super) fn observation(space: &[&Parameter], trial: &Trial, key: &str) -> Option<Vec<f64>> {
    let mut row = Vec::with_capacity(space.len());
    observe(space, trial, key, &mut row).map(|()| row)
}

/// Adds what [`observation`] gives to `row`.
fn observe(space: &[&Parameter], trial: &Trial, key: &str, row: &mut Vec<f64>) -> Option<()> {
    let announced = if trial.state == State::Running { announced(trial, key) } else { None };
    let mut near = 0;
    for parameter in space {
        let place = trial.param_place(&parameter.name, near);
        near = place.map_or(near, |place| place + 1);
        let value = match place.map(|place| &trial.params[place]) {
            None => {
                let external = announced.as_ref()?.get(&parameter.name).and_then(ParamValue::from_py)?;
                usable(parameter, parameter.distribution.internal(&external)?)?
            }
            param => observed(parameter, param)?,
        };
        row.push(value);
    }
    Some(())
}

/// The internal value of a trial's parameter in the domain of `parameter`, if it has one there.
pub(super) fn observed(parameter: &Parameter, param: Option<&Param>) -> Option<f64> {
    let param = param?;
    let value = match param.distribution == parameter.distribution {
        true => param.value,
        // The index of a choice means nothing in another list of choices.
        false => parameter.distribution.internal(&param.external())?,
    };
    usable(parameter, value)
}

/// A value that a kernel can stand on.
fn usable(parameter: &Parameter, value: f64) -> Option<f64> {
    let log = match parameter.distribution {
        Distribution::Float { log, .. } | Distribution::Int { log, .. } => log,
        Distribution::Categorical { .. } => false,
    };
    // A logarithm of it is needed. An infinite value, which Optuna lets users set, is near nothing.
    (value.is_finite() && (!log || value > 0.0)).then_some(value)
}

/// The parameters that a running trial of an Optuna worker has announced before it set them one by one.
fn announced(trial: &Trial, key: &str) -> Option<PyValue> {
    let mut text = String::new();
    for chunk in 0.. {
        let Some(json) = trial.system_attrs.get(&format!("{key}:{chunk}")) else { break };
        let Ok(PyValue::Text(part)) = PyValue::parse(json) else { return None };
        text.push_str(&part);
    }
    PyValue::parse(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sampler::suggest,
        space::{Condition, Space},
        study::{Direction, tests::trial},
    };

    #[test]
    fn of_choices_that_are_as_good_each_is_taken() {
        let choices = ["a", "b", "c"].map(|name| ParamValue::Text(name.into())).to_vec();
        let space = Space::of([("x", Distribution::categorical(choices).unwrap())]);
        // One of the good and eight of the bad each; in which order, rounding would tell.
        let bad = [0, 0, 0, 0, 1, 0, 0, 2, 2, 1, 0, 1, 1, 2, 0, 1, 2, 2, 1, 1, 2, 2, 1, 2];
        let trials = [0, 1, 2].into_iter().chain(bad).enumerate().map(|(number, choice)| {
            let mut trial = trial(number as i64, State::Complete, Some(number as f64));
            let distribution = space.parameters()[0].distribution.clone();
            trial.params = vec![Param { name: "x".into(), value: f64::from(choice), distribution }];
            trial
        });
        let trials: Vec<Trial> = trials.collect();
        let mut taken = [0; 3];
        for seed in 0..300 {
            let request =
                Request { space: &space, directions: &[Direction::Minimize], trials: &trials, number: 27, seed };
            taken[suggest(&Tpe::default(), &request, &[]).params[0].value as usize] += 1;
        }
        assert!(taken.iter().all(|count| *count > 60), "{taken:?}");
    }

    #[test]
    fn a_group_is_modelled_together_where_it_exists() {
        let float = || Distribution::float(0.0, 1.0, false, None).unwrap();
        let choices = ["a", "b"].map(|name| ParamValue::Text(name.into())).to_vec();
        let mut space = Space::of([
            ("kind", Distribution::categorical(choices).unwrap()),
            ("z", float()),
            ("x", float()),
            ("y", float()),
            ("one", Distribution::int(3, 3, false, 1).unwrap()),
        ]);
        [(1, 0.0), (2, 1.0), (3, 1.0)]
            .into_iter()
            .for_each(|(index, value)| space.set_condition(index, Condition { parameter: 0, values: vec![value] }));
        let tpe = Tpe { group: true, ..Tpe::default() };
        let mut trials: Vec<Trial> = Vec::new();
        for number in 0..80 {
            let directions = &[Direction::Minimize];
            let request = Request { space: &space, directions, trials: &trials, number, seed: 4 };
            let params = suggest(&tpe, &request, &[]).params;
            let value = |name: &str| params.iter().find(|param| param.name == name).map(|param| param.value);
            // Best along a line of x and y: no parameter alone tells.
            let loss = value("x").zip(value("y")).map_or(1.0, |(x, y)| (x - y).abs() + (x - 0.7).abs());
            let mut ended = trial(number, State::Complete, Some(loss));
            ended.params = params;
            trials.push(ended);
        }
        let directions = &[Direction::Minimize];
        let request = Request { space: &space, directions, trials: &trials, number: 80, seed: 4 };
        let mut parts = partition(&request);
        parts.sort();
        assert_eq!(parts, [vec![0], vec![1], vec![2, 3]]);
        assert!(partition(&Request { trials: &[], ..request }).is_empty());
        let best = crate::study::best(&trials, Direction::Minimize).and_then(Trial::value).unwrap();
        assert!(best < 0.1, "{best}");
    }

    #[test]
    fn values_of_a_domain_that_was_wider_before_are_learned_from() {
        let space = Space::of([("n", Distribution::int(1, 4, false, 1).unwrap())]);
        // No space of ours has it, but Optuna does.
        let text = r#"{"name": "FloatDistribution", "attributes": {"step": null, "low": -Infinity, "high": 1e300, "log": false}}"#;
        let before = Distribution::from_json(text).unwrap();
        let far = [1e6, -1e6, 1e18, f64::NEG_INFINITY, 2.0, 3.0];
        let old = |number: i64| {
            let mut old = trial(number, State::Complete, Some(number as f64));
            let value = far[number as usize % far.len()];
            old.params = vec![Param { name: "n".into(), value, distribution: before.clone() }];
            old
        };
        let trials: Vec<Trial> = (0..300).map(old).collect();
        for number in 300..330 {
            let directions = &[Direction::Minimize];
            let request = Request { space: &space, directions, trials: &trials, number, seed: 4 };
            let params = suggest(&Tpe { multivariate: false, ..Tpe::default() }, &request, &[]).params;
            assert!(space.parameters()[0].distribution.contains(params[0].value), "{params:?}");
        }
    }

    #[test]
    fn what_takes_long_is_not_quick() {
        let tpe = Tpe::default();
        assert_eq!([9_999, 10_000].map(|trials| tpe.quick(trials, true)), [true, false]);
        assert_eq!([999, 1000].map(|trials| tpe.quick(trials, false)), [true, false]);
        let careful = Tpe { n_ei_candidates: 24_000, ..tpe };
        assert_eq!([9, 10].map(|trials| careful.quick(trials, true)), [true, false]);
    }
}
