//! The covariance matrix adaptation evolution strategy, as Optuna's `CmaEsSampler` uses it.
//!
//! Trials carry their generation as a system attribute. The state of the strategy is nowhere stored: it is computed anew from the
//! history, generation by generation, which costs less than reading it back would.

use std::collections::BTreeMap;

use nalgebra::DMatrix;
use rand::RngExt as _;

use super::{Generator, Joint, Request, Sampler, cube::Axis, intersection};
use crate::study::{Direction, State, Trial};

mod earlier;
mod full;
mod learning;
mod margin;
mod separable;

use earlier::Promising;
pub(crate) use earlier::{ATTR_PROMISING, promising};
use full::Full;
use margin::Margin;
use separable::Separable;

/// The sampler's settings; names are Optuna's.
///
/// Modelled together are the parameters without a condition that are not categorical and that every COMPLETE trial has; the others
/// are sampled uniformly, and so is everything in a study of several objectives. A generation ends when as many of its trials
/// are COMPLETE as a population has; failed and pruned trials are replaced by the trials after them, and those that end later
/// are not used.
///
/// A study that takes over trials of earlier ones begins with the distribution of their good trials, which Optuna calls
/// `source_trials`; not with `x0` or `sigma0`, nor with `use_separable_cma`.
#[derive(Debug, Clone, PartialEq)]
pub struct CmaEs {
    /// Internal values by name where the search begins; the middle of the domain for others.
    pub x0: BTreeMap<String, f64>,
    /// The first step size as a share of a domain's width; Optuna's default of a sixth when `None`.
    pub sigma0: Option<f64>,
    /// Trials before the strategy is used; sampling is uniform until then. At least one, to know what trials have in common.
    pub n_startup_trials: usize,
    /// Use the last value of pruned trials as theirs, of those that have all parameters which are modelled.
    pub consider_pruned_trials: bool,
    /// Trials of a generation, 2 to 100,000; `4 + floor(3 ln n)` for n parameters when `None`.
    pub popsize: Option<usize>,
    /// Adapt the variance of each parameter alone: for many parameters that depend little on each other. Ignored for a single
    /// parameter. At most one of this, `with_margin` and `lr_adapt`; of several this one counts, and then `lr_adapt`.
    pub use_separable_cma: bool,
    /// Keep integers and grids from settling on a point too early. It pays in long searches; in 150 trials on integers it is no
    /// better than rounding, and on parameters of two values slower.
    pub with_margin: bool,
    /// Adapt the learning rates to noise and to many local optima.
    pub lr_adapt: bool,
}

impl Default for CmaEs {
    fn default() -> Self {
        Self {
            x0: BTreeMap::new(),
            sigma0: None,
            n_startup_trials: 1,
            consider_pruned_trials: false,
            popsize: None,
            use_separable_cma: false,
            with_margin: false,
            lr_adapt: false,
        }
    }
}

/// Trials of a generation at most: a strategy holds all of them at once.
const MOST_TRIALS: usize = 100_000;

/// A smaller first step size is none.
const LEAST_SIGMA: f64 = 1e-10;

/// A point of a generation with its value, smaller is better.
type Member = (Vec<f64>, f64);

/// Where a strategy begins.
#[derive(Debug, Clone)]
struct Start {
    /// Inside of the unit cube; not empty.
    mean: Vec<f64>,
    /// Above 0.
    sigma: f64,
    /// At least 2.
    population: usize,
    /// The identity when `None`.
    covariance: Option<DMatrix<f64>>,
}

/// An evolution strategy over the unit cube.
trait Strategy {
    /// How many members a generation has.
    fn population(&self) -> usize;

    /// A point of the next generation, as [`Strategy::tell`] wants it.
    fn ask(&self, generator: &mut Generator) -> Vec<f64>;

    /// The coordinates to be tried for a point: other ones when the strategy models grids.
    fn encode(&self, x: &[f64]) -> Vec<f64> {
        x.to_vec()
    }

    /// Adapts to a generation of [`Strategy::population`] members.
    fn tell(&mut self, members: Vec<Member>);
}

/// The first of ten points for each dimension that lies in the cube; the last one moved there. `bounded` says which coordinates count.
fn resampled(dimensions: usize, bounded: impl Fn(usize) -> bool, mut sample: impl FnMut() -> Vec<f64>) -> Vec<f64> {
    for _ in 0..10 * dimensions {
        let x = sample();
        if x.iter().enumerate().all(|(index, x)| !bounded(index) || (0.0..=1.0).contains(x)) {
            return x;
        }
    }
    let inside = |(index, x): (usize, f64)| if bounded(index) { x.clamp(0.0, 1.0) } else { x };
    sample().into_iter().enumerate().map(inside).collect()
}

/// A standard normal number (Box and Muller, 1958).
fn normal(generator: &mut Generator) -> f64 {
    let (length, angle) = (1.0 - generator.random::<f64>(), generator.random::<f64>());
    (-2.0 * length.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// The order of values that are not NaN; equal ones stay in the order of their trials.
fn order(a: f64, b: f64) -> std::cmp::Ordering {
    a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal)
}

impl Sampler for CmaEs {
    fn joint(&self, request: &Request<'_>, generator: &mut Generator) -> Joint {
        let parameters = request.space.parameters();
        let usable = |index: &usize| {
            let parameter = &parameters[*index];
            // What is there by chance only would make the dimension change later.
            parameter.condition.is_none()
                && !matches!(parameter.distribution, crate::space::Distribution::Categorical { .. })
        };
        let joint: Vec<usize> = intersection(request).into_iter().filter(usable).collect();
        let ended = request.trials.iter().filter(|trial| self.value(trial, request.directions[0]).is_some());
        if joint.is_empty() || request.directions.len() > 1 || ended.count() < self.n_startup_trials {
            return Joint::default();
        }
        let kind = self.kind(joint.len());
        let distributions = joint.iter().map(|index| &parameters[*index].distribution);
        let axes: Vec<Axis<'_>> = distributions.map(|d| kind.axis(d)).collect();
        let names: Vec<&str> = joint.iter().map(|index| parameters[*index].name.as_str()).collect();
        let history = History::new(self, kind, request, &names, &axes);
        let (strategy, told) = history.replay(self.strategy(kind, &names, &axes, Promising::of(request)), &axes);

        let x = strategy.ask(generator);
        let mut values = vec![None; parameters.len()];
        for ((index, axis), coordinate) in joint.iter().zip(&axes).zip(strategy.encode(&x)) {
            values[*index] = Some(axis.at(coordinate));
        }
        let mut system_attrs = BTreeMap::from([(kind.key("generation"), told.len().to_string())]);
        if let Some(numbers) = told.last() {
            system_attrs.insert(kind.key("told"), serde_json::json!(numbers).to_string());
        }
        if kind == Kind::Margin {
            system_attrs.insert(X_FOR_TELL.to_owned(), serde_json::json!(x).to_string());
        }
        Joint { values, system_attrs }
    }
}

/// Where a point is kept that is not the one to be tried, under Optuna's name: a list of numbers.
const X_FOR_TELL: &str = "x_for_tell";

/// Which strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full { adapt: bool },
    Separable,
    Margin,
}

impl Kind {
    /// A system attribute's key. `generation` is a number, as in Optuna; `told` is the list of those trials of the generation before
    /// that made this one, so that it stays what it was when others of them end later.
    fn key(self, name: &str) -> String {
        let prefix = match self {
            Self::Full { .. } => "cma",
            Self::Separable => "sepcma",
            Self::Margin => "cmawm",
        };
        format!("{prefix}:{name}")
    }

    fn axis(self, distribution: &crate::space::Distribution) -> Axis<'_> {
        if self == Self::Margin { Axis::of_points(distribution) } else { Axis::new(distribution) }
    }
}

impl CmaEs {
    /// Whether the settings make sense.
    ///
    /// # Errors
    /// Names the setting, and says what is allowed.
    pub fn check(&self) -> Result<(), String> {
        if let Some(sigma0) = self.sigma0.filter(|sigma0| !(*sigma0 > 0.0 && sigma0.is_finite())) {
            return Err(format!("sigma0 is {sigma0}; it must be a number above 0, a share of a domain's width"));
        }
        if let Some(popsize) = self.popsize.filter(|popsize| !(2..=MOST_TRIALS).contains(popsize)) {
            return Err(format!("popsize is {popsize}; a generation has 2 to {MOST_TRIALS} trials"));
        }
        let strategies = [
            ("use_separable_cma", self.use_separable_cma),
            ("with_margin", self.with_margin),
            ("lr_adapt", self.lr_adapt),
        ];
        let asked: Vec<&str> = strategies.into_iter().filter_map(|(name, asked)| asked.then_some(name)).collect();
        match asked.len() {
            0 | 1 => Ok(()),
            _ => Err(format!("{} exclude each other; at most one may be true", asked.join(" and "))),
        }
    }

    fn kind(&self, dimensions: usize) -> Kind {
        if self.use_separable_cma && dimensions > 1 {
            Kind::Separable
        } else if self.with_margin && !self.lr_adapt {
            Kind::Margin
        } else {
            Kind::Full { adapt: self.lr_adapt }
        }
    }

    /// The strategy before the first generation; what is known of earlier studies counts unless the settings say where to begin.
    fn strategy(
        &self,
        kind: Kind,
        names: &[&str],
        axes: &[Axis<'_>],
        promising: Option<Promising>,
    ) -> Box<dyn Strategy> {
        let middle = |(name, axis): (&&str, &Axis<'_>)| {
            self.x0.get(*name).and_then(|value| axis.coordinate(*value)).map_or(0.5, |mean| mean.clamp(0.0, 1.0))
        };
        let sigma = self.sigma0.filter(|sigma0| *sigma0 > LEAST_SIGMA && sigma0.is_finite());
        let population = self.popsize.unwrap_or_else(|| 4 + (3.0 * (axes.len() as f64).ln()).floor() as usize);
        let mean = names.iter().zip(axes).map(middle).collect();
        let given = !self.x0.is_empty() || self.sigma0.is_some() || kind == Kind::Separable;
        let promising = promising.filter(|_| !given).and_then(|promising| promising.start(names));
        let (mean, sigma, covariance) = match promising {
            Some((mean, sigma, covariance)) => (mean, sigma.max(LEAST_SIGMA), Some(covariance)),
            None => (mean, sigma.unwrap_or(1.0 / 6.0), None),
        };
        let start = Start { mean, sigma, population: population.max(2), covariance };
        match kind {
            Kind::Full { adapt } => Box::new(Full::new(start, adapt)),
            Kind::Separable => Box::new(Separable::new(start)),
            Kind::Margin => {
                let steps: Vec<_> = axes.iter().map(Axis::step).collect();
                Box::new(Margin::new(start, &steps))
            }
        }
    }

    /// What the trial counts with, smaller is better; `None` when it does not count.
    fn value(&self, trial: &Trial, direction: Direction) -> Option<f64> {
        let value = match trial.state {
            State::Complete => trial.value()?,
            State::Pruned if self.consider_pruned_trials => trial.last_report()?.1,
            _ => return None,
        };
        let value = if direction == Direction::Minimize { value } else { -value };
        Some(if value.is_nan() { f64::INFINITY } else { value })
    }
}

/// One trial that counts.
struct Sample {
    number: i64,
    /// What was tried: internal values, and their coordinates.
    tried: Vec<f64>,
    x: Vec<f64>,
    /// What the strategy asked for, where that is not the same.
    raw: Option<Vec<f64>>,
    value: f64,
}

/// What the trials say about the generations.
struct History {
    /// Those that count by generation, in the order of their numbers.
    samples: BTreeMap<u64, Vec<Sample>>,
    /// By generation: those of the generation before that made it.
    told: BTreeMap<u64, Vec<i64>>,
}

impl History {
    fn new(sampler: &CmaEs, kind: Kind, request: &Request<'_>, names: &[&str], axes: &[Axis<'_>]) -> Self {
        let mut history = Self { samples: BTreeMap::new(), told: BTreeMap::new() };
        let keys = [kind.key("generation"), kind.key("told")];
        for trial in request.trials.iter().filter(|trial| trial.number != request.number) {
            let attribute = |key: &str| trial.system_attrs.get(key);
            let Some(generation) = attribute(&keys[0]).and_then(|text| text.parse::<u64>().ok()) else { continue };
            if let Some(numbers) = attribute(&keys[1]).and_then(|text| serde_json::from_str(text).ok()) {
                // The first one decides when others saw less.
                history.told.entry(generation).or_insert(numbers);
            }
            let Some(value) = sampler.value(trial, request.directions[0]) else { continue };
            let tried: Vec<f64> = names.iter().filter_map(|name| Some(trial.param(name)?.value)).collect();
            let x: Vec<f64> = tried.iter().zip(axes).filter_map(|(value, axis)| axis.coordinate(*value)).collect();
            if x.len() < axes.len() {
                continue;
            }
            let raw = attribute(X_FOR_TELL).filter(|_| kind == Kind::Margin);
            let raw = raw.and_then(|text| serde_json::from_str::<Vec<f64>>(text).ok());
            let raw = raw.filter(|raw| raw.len() == x.len() && raw.iter().all(|value| value.is_finite()));
            history.samples.entry(generation).or_default().push(Sample { number: trial.number, tried, x, raw, value });
        }
        history
    }

    /// The strategy after all complete generations, and the numbers of the trials that made each of them.
    fn replay(&self, mut strategy: Box<dyn Strategy>, axes: &[Axis<'_>]) -> (Box<dyn Strategy>, Vec<Vec<i64>>) {
        let mut told: Vec<Vec<i64>> = Vec::new();
        while let Some(members) = self.members(told.len() as u64, strategy.population()) {
            let points = members.iter().map(|sample| (sample.point(&*strategy, axes), sample.value)).collect();
            told.push(members.iter().map(|sample| sample.number).collect());
            strategy.tell(points);
        }
        (strategy, told)
    }

    /// The members of a generation; `None` while it is not complete.
    fn members(&self, generation: u64, population: usize) -> Option<Vec<&Sample>> {
        let samples = self.samples.get(&generation)?;
        let known = self.told.get(&(generation + 1)).and_then(|numbers| {
            let named: Vec<&Sample> = samples.iter().filter(|sample| numbers.contains(&sample.number)).collect();
            (named.len() == population).then_some(named)
        });
        known.or_else(|| Some(samples.get(..population)?.iter().collect()))
    }
}

impl Sample {
    /// The point that the strategy learns from. Coordinates that were not tried as it asked, because somebody gave them, are
    /// those that were tried.
    fn point(&self, strategy: &dyn Strategy, axes: &[Axis<'_>]) -> Vec<f64> {
        let Some(raw) = &self.raw else { return self.x.clone() };
        let asked = strategy.encode(raw).into_iter().zip(axes).map(|(coordinate, axis)| axis.at(coordinate));
        let agrees = asked.zip(&self.tried).map(|(asked, tried)| asked == *tried);
        agrees.zip(raw.iter().zip(&self.x)).map(|(agrees, (raw, x))| if agrees { *raw } else { *x }).collect()
    }
}

#[cfg(test)]
mod tests;
