//! What was best in earlier studies of the same space, as the first trials of a new one.
//!
//! Feurer, Springenberg and Hutter, "Initializing Bayesian Hyperparameter Optimization via Meta-Learning" (AAAI 2015): a search that
//! begins with the best configurations of similar tasks needs fewer trials than one that begins at random. Values of different tasks
//! cannot be compared, so that each study ranks its own trials: first the best of each study, then the second best of each, and so on.

use std::borrow::Borrow;

use jiff::Timestamp;
use quintet_proto::v1::{self, Sampler, sampler::Kind};
use runtime_core::status::{FieldViolation, violation};

use crate::{
    pareto,
    pyjson::{PyValue, dump_text},
    queued,
    sampler::{ATTR_PROMISING, promising},
    space::{Distribution, Space},
    storage::{self, Attributes, NewTrial, Store, StudyAttributes},
    study::{Direction, State, Study, Trial},
};

/// User attribute of a queued trial: the study and the number of the trial that its values come from, as JSON. System attribute of a
/// study: what was asked for and is done.
pub const ATTR_TRANSFER: &str = "quintet:transfer";

/// Trials at most when the specification does not say.
const DEFAULT_TRIALS: usize = 5;
/// The most that can be asked for.
const MOST_TRIALS: i32 = 1000;
/// Two configurations are nearly the same when all numbers are this close, as a share of the domain's width, and all choices equal.
const NEAR: f64 = 0.05;

/// A checked wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    studies: Vec<String>,
    n_trials: usize,
    /// CMA-ES learns where to begin; whether it is the one with margin.
    cmaes_margin: Option<bool>,
}

/// A study to learn from.
#[derive(Debug)]
pub struct Source<'a, T> {
    /// Its name.
    pub study: &'a str,
    /// One an objective.
    pub directions: &'a [Direction],
    /// All of them.
    pub trials: &'a [T],
}

/// A configuration to try.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// Where it comes from.
    pub study: String,
    /// The number of its trial there.
    pub number: i64,
    /// Internal values in the order of the space; `None` is left to the sampler.
    values: Vec<Option<f64>>,
}

impl Transfer {
    /// Checks the field `transfer` of a specification without looking at the studies; `None` when it is not given.
    pub fn from_proto(
        transfer: Option<&v1::Transfer>,
        sampler: Option<&Sampler>,
        wrong: &mut Vec<FieldViolation>,
    ) -> Option<Self> {
        let transfer = transfer?;
        if transfer.studies.is_empty() {
            wrong.push(violation("transfer.studies", "is empty; name the earlier studies"));
        }
        for (index, name) in transfer.studies.iter().enumerate() {
            let problem = match name.as_str() {
                "" => "is empty; name an earlier study".to_owned(),
                _ if transfer.studies[..index].contains(name) => format!("`{name}` is there twice"),
                _ => continue,
            };
            wrong.push(violation(format!("transfer.studies[{index}]"), problem));
        }
        let n_trials = match transfer.n_trials {
            Some(n_trials) if !(1..=MOST_TRIALS).contains(&n_trials) => {
                wrong.push(violation("transfer.n_trials", format!("{n_trials} is not within 1 to {MOST_TRIALS}")));
                0
            }
            Some(n_trials) => usize::try_from(n_trials).unwrap_or_default(),
            None => startup_trials(sampler).clamp(1, DEFAULT_TRIALS),
        };
        let cmaes_margin = match sampler.and_then(|sampler| sampler.kind.as_ref()) {
            Some(Kind::Cmaes(cmaes)) => Some(cmaes.with_margin && !cmaes.lr_adapt),
            _ => None,
        };
        Some(Self { studies: transfer.studies.clone(), n_trials, cmaes_margin })
    }

    /// Asks for fewer trials.
    #[must_use]
    pub fn at_most(self, trials: usize) -> Self {
        Self { n_trials: self.n_trials.min(trials), ..self }
    }

    /// The study's attribute that says that this is done.
    pub fn mark(&self) -> (String, String) {
        let studies: Vec<String> = self.studies.iter().map(|study| dump_text(study)).collect();
        let text = format!("{{\"studies\": [{}], \"n_trials\": {}}}", studies.join(", "), self.n_trials);
        (ATTR_TRANSFER.to_owned(), text)
    }

    /// Queues the trials in a study that exists, unless that is done; returns their number. Whoever was cut off in the middle goes on.
    ///
    /// # Errors
    /// As [`Transfer::trials`].
    pub async fn queue(
        &self,
        store: &Store,
        study: &Study,
        space: &Space,
    ) -> Result<Result<usize, Vec<FieldViolation>>, storage::Error> {
        let there = store.trials(study.id).await?;
        let new = match self.left(store, study, space, &there).await? {
            Ok(Some(new)) => new,
            Ok(None) => return Ok(Ok(0)),
            Err(wrong) => return Ok(Err(wrong)),
        };
        let count = new.len();
        for trial in new {
            store.create_trial(study.id, trial, Timestamp::now()).await?;
        }
        store.set_study_attributes(StudyAttributes::System(study.id), Attributes::from([self.mark()])).await?;
        Ok(Ok(count))
    }

    /// The trials that are still to be queued in a study that exists and has these; none when that is done.
    ///
    /// # Errors
    /// As [`Transfer::trials`].
    pub async fn left(
        &self,
        store: &Store,
        study: &Study,
        space: &Space,
        there: &[impl Borrow<Trial>],
    ) -> Result<Result<Option<Vec<NewTrial>>, Vec<FieldViolation>>, storage::Error> {
        let (key, mark) = self.mark();
        if study.system_attrs.get(&key) == Some(&mark) {
            return Ok(Ok(None));
        }
        Ok(self.trials(store, &study.name, space, there).await?.map(Some))
    }

    /// The trials to queue in a study of that name, but for those that are `there` already.
    ///
    /// # Errors
    /// Studies that do not exist or have no parameter in common with the space, by field; the store's.
    pub async fn trials(
        &self,
        store: &Store,
        name: &str,
        space: &Space,
        there: &[impl Borrow<Trial>],
    ) -> Result<Result<Vec<NewTrial>, Vec<FieldViolation>>, storage::Error> {
        let queued: Vec<&str> =
            there.iter().filter_map(|trial| Some(of(trial).user_attrs.get(ATTR_TRANSFER)?.as_str())).collect();
        let missing = self.n_trials.saturating_sub(queued.len());
        if missing == 0 {
            return Ok(Ok(Vec::new()));
        }
        let mut wrong = Vec::new();
        let mut found = Vec::with_capacity(self.studies.len());
        for (index, source) in self.studies.iter().enumerate() {
            let mut say = |problem: String| wrong.push(violation(format!("transfer.studies[{index}]"), problem));
            if source == name {
                say(format!("`{source}` is the study itself; name earlier ones"));
                continue;
            }
            let Some(study) = store.find_study(source).await? else {
                say(format!("study `{source}` does not exist"));
                continue;
            };
            let trials = store.trials(study.id).await?;
            let names = |trial: &Trial| trial.params.iter().any(|param| space.get(&param.name).is_some());
            if !trials.iter().any(|trial| names(trial)) {
                let names: Vec<&str> = space.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
                say(format!("no trial of `{source}` has a parameter of this search space: {}", names.join(", ")));
            }
            found.push((study, trials));
        }
        if !wrong.is_empty() {
            return Ok(Err(wrong));
        }
        let sources: Vec<Source<'_, _>> = found
            .iter()
            .map(|(study, trials)| Source {
                study: &study.name,
                directions: &study.directions,
                trials: trials.as_slice(),
            })
            .collect();
        let planned = plan(space, &sources, self.n_trials);
        let trials = planned.iter().map(|configuration| (configuration.attribute(), configuration));
        let new = trials.filter(|(attribute, _)| !queued.contains(&attribute.as_str())).take(missing);
        let mut new: Vec<NewTrial> =
            new.map(|(attribute, configuration)| configuration.trial(space, attribute)).collect();
        if let Some(text) = self.cmaes_margin.and_then(|margin| good(space, &sources, margin)) {
            // At some of them, since a pruner with brackets hides trials of others.
            for trial in new.iter_mut().take(DEFAULT_TRIALS) {
                trial.system_attrs.insert(ATTR_PROMISING.to_owned(), text.clone());
            }
        }
        Ok(Ok(new))
    }
}

/// Where CMA-ES is to begin.
fn good<T: Borrow<Trial>>(space: &Space, sources: &[Source<'_, T>], margin: bool) -> Option<String> {
    let sources: Vec<(Direction, Vec<&Trial>)> = sources
        .iter()
        .filter_map(|source| match source.directions {
            [direction] => Some((*direction, source.trials.iter().map(of).collect())),
            _ => None,
        })
        .collect();
    promising(space, &sources, margin)
}

fn of<T: Borrow<Trial>>(trial: &T) -> &Trial {
    trial.borrow()
}

/// Trials that a sampler draws at random before it learns.
fn startup_trials(sampler: Option<&Sampler>) -> usize {
    let given = match sampler.and_then(|sampler| sampler.kind.as_ref()) {
        Some(Kind::Tpe(tpe)) => tpe.n_startup_trials,
        Some(Kind::Gp(gp)) => gp.n_startup_trials,
        Some(Kind::Cmaes(cmaes)) => Some(cmaes.n_startup_trials.unwrap_or(1)),
        _ => None,
    };
    given.map_or(DEFAULT_TRIALS, |given| usize::try_from(given).unwrap_or_default())
}

impl Configuration {
    fn attribute(&self) -> String {
        format!("{{\"study\": {}, \"trial\": {}}}", dump_text(&self.study), self.number)
    }

    fn trial(&self, space: &Space, attribute: String) -> NewTrial {
        let given = space.parameters().iter().zip(&self.values);
        let values = given.filter_map(|(parameter, value)| {
            Some((parameter.name.clone(), parameter.distribution.external((*value)?).to_py()))
        });
        let user_attrs = Attributes::from([(ATTR_TRANSFER.to_owned(), attribute)]);
        NewTrial { user_attrs, ..queued::new_trial(values.collect::<Vec<(String, PyValue)>>()) }
    }
}

/// The configurations to try first: the best of each study in turn, without those that do not fit the space, and without those that
/// are nearly the same as one before. Fewer than asked for when there are no more.
pub fn plan<T: Borrow<Trial>>(space: &Space, sources: &[Source<'_, T>], n_trials: usize) -> Vec<Configuration> {
    let ranked: Vec<Vec<Configuration>> = sources.iter().map(|source| fitting(space, source)).collect();
    let longest = ranked.iter().map(Vec::len).max().unwrap_or_default();
    let in_turn = (0..longest).flat_map(|rank| ranked.iter().filter_map(move |study| study.get(rank)));
    let mut chosen: Vec<Configuration> = Vec::new();
    for candidate in in_turn {
        if chosen.len() >= n_trials {
            break;
        }
        if !chosen.iter().any(|other| near(space, &other.values, &candidate.values)) {
            chosen.push(candidate.clone());
        }
    }
    chosen
}

/// The completed trials of a study that keep its constraints and fit the space, the best first.
fn fitting<T: Borrow<Trial>>(space: &Space, source: &Source<'_, T>) -> Vec<Configuration> {
    let complete = source.trials.iter().map(of).filter(|trial| {
        trial.state == State::Complete && trial.feasible() && trial.values.iter().all(|value| value.is_finite())
    });
    let (trials, points): (Vec<&Trial>, Vec<Vec<f64>>) =
        complete.filter_map(|trial| Some((trial, pareto::losses(trial, source.directions)?))).unzip();
    // With one objective the rank of each value, with several that of its front.
    let ranks = pareto::ranks(&points, points.len());
    let mut order: Vec<usize> = (0..trials.len()).collect();
    order.sort_by_key(|index| (ranks[*index], trials[*index].number));
    let configuration = |index: usize| {
        let trial = trials[index];
        let values = values(space, trial)?;
        Some(Configuration { study: source.study.to_owned(), number: trial.number, values })
    };
    order.into_iter().filter_map(configuration).collect()
}

/// The values of a trial in the space; `None` when it has none of the parameters, or a value that is not in its domain. What depends on
/// a parameter is left out where the other value forbids it or is not known.
fn values(space: &Space, trial: &Trial) -> Option<Vec<Option<f64>>> {
    let mut values: Vec<Option<f64>> = Vec::with_capacity(space.parameters().len());
    for (index, parameter) in space.parameters().iter().enumerate() {
        let value = match trial.param(&parameter.name).filter(|_| space.active(index, &values)) {
            Some(param) => {
                let internal = parameter.distribution.internal(&param.external());
                Some(internal.filter(|internal| parameter.distribution.contains(*internal))?)
            }
            None => None,
        };
        values.push(value);
    }
    values.iter().any(Option::is_some).then_some(values)
}

/// Whether two configurations hardly differ.
fn near(space: &Space, a: &[Option<f64>], b: &[Option<f64>]) -> bool {
    space.parameters().iter().zip(a.iter().zip(b)).all(|(parameter, pair)| match pair {
        (Some(a), Some(b)) => distance(&parameter.distribution, *a, *b) <= NEAR,
        (a, b) => a == b,
    })
}

/// How far two values lie apart, as a share of the domain's width on its own scale; 0 or 1 for choices.
fn distance(distribution: &Distribution, a: f64, b: f64) -> f64 {
    let (low, high, log) = match distribution {
        Distribution::Categorical { .. } => return if a == b { 0.0 } else { 1.0 },
        Distribution::Float { low, high, log, .. } => (*low, *high, *log),
        Distribution::Int { low, high, log, .. } => (*low as f64, *high as f64, *log),
    };
    let scale = |value: f64| if log { value.ln() } else { value };
    let width = scale(high) - scale(low);
    if width > 0.0 { (scale(a) - scale(b)).abs() / width } else { 0.0 }
}

#[cfg(test)]
mod tests;
