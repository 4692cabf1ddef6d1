//! From a request and the trials of its studies to the rule and the candidates of a choice.

use std::{collections::BTreeMap, sync::Arc};

use quintet_proto::v1::{self, GetBestConfigRequest};
use runtime_core::status::{FieldViolation, violation};

use super::{
    Candidate, Measure, Rule, Speed, known, objective_names,
    reasons::short,
    rule::{most_candidates, speed},
};
use crate::{
    pareto::losses,
    study::{Direction, State, Study, Trial},
};

/// A study with its trials.
pub type Whole = (Study, Vec<Arc<Trial>>);

/// A request whose own fields are in order.
#[derive(Debug, Clone)]
pub struct Request {
    /// The studies to choose from, by name; at least one.
    pub studies: Vec<String>,
    /// Candidates in the answer at most.
    pub most_candidates: usize,
    speed: Option<Speed>,
    message: GetBestConfigRequest,
}

impl Request {
    /// Checks what can be checked without the studies.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub fn new(message: GetBestConfigRequest) -> Result<Self, Vec<FieldViolation>> {
        let mut wrong = Vec::new();
        let first =
            (!message.study.is_empty() || message.studies.is_empty()).then(|| ("study".to_owned(), &message.study));
        let further = message.studies.iter().enumerate().map(|(index, name)| (format!("studies[{index}]"), name));
        let mut studies: Vec<String> = Vec::new();
        for (field, name) in first.into_iter().chain(further) {
            let bare = name.strip_prefix("studies/").unwrap_or(name);
            if bare.is_empty() {
                wrong.push(violation(field, format!("`{name}` is not of the form studies/{{study}}")));
            } else if studies.iter().any(|known| known == bare) {
                wrong.push(violation(field, format!("`{name}` is there twice")));
            } else {
                studies.push(bare.to_owned());
            }
        }
        let speed = speed(&message, &mut wrong);
        let most_candidates = most_candidates(&message, &mut wrong);
        for (name, weight) in &message.objective_weights {
            if !(weight.is_finite() && *weight >= 0.0) {
                wrong.push(violation(weight_field(name), format!("{weight} is not a number of at least 0")));
            }
        }
        if !message.objective_weights.is_empty() && !message.metric.is_empty() {
            wrong.push(violation("metric", "is given together with objective_weights; only one of them can decide"));
        }
        if v1::Direction::try_from(message.direction).is_err() {
            let problem = format!("{} is unknown; MINIMIZE and MAXIMIZE are allowed", message.direction);
            wrong.push(violation("direction", problem));
        }
        if wrong.is_empty() { Ok(Self { studies, most_candidates, speed, message }) } else { Err(wrong) }
    }
}

fn weight_field(name: &str) -> String {
    format!("objective_weights[{name:?}]")
}

fn completed(trials: &[Arc<Trial>]) -> impl Iterator<Item = &Trial> {
    trials.iter().map(|trial| &**trial).filter(|trial| trial.state == State::Complete)
}

/// What decides among the completed trials, and these.
///
/// # Errors
/// Every field that does not fit to the studies.
pub fn gather(request: &Request, studies: &[Whole]) -> Result<(Rule, Vec<Candidate>), Vec<FieldViolation>> {
    let mut wrong = Vec::new();
    let Some(((first, _), others)) = studies.split_first() else {
        return Err(vec![violation("study", "there is none")]);
    };
    for (other, _) in others {
        wrong.extend(difference(first, other));
    }
    let metric = deciding(request, first, &mut wrong);
    let latency = (!request.message.latency_metric.is_empty()).then_some(&request.message.latency_metric);
    let latency = latency.map(|name| latency_measure(request, first, name, &metric, &mut wrong));
    let any_completed = studies.iter().any(|(_, trials)| completed(trials).next().is_some());
    if let (Measure::Metric(name), true) = (&metric.measure, any_completed) {
        let missing =
            || studies.iter().flat_map(|(_, trials)| completed(trials)).all(|t| metric.measure.value(t).is_none());
        if metric.weights.is_none() && missing() {
            let there: Vec<String> = studies.iter().flat_map(|(study, trials)| known(study, trials)).collect();
            let problem = format!("no completed trial has `{name}`; they have {}", listed(there));
            wrong.push(violation("metric", problem));
        }
    }
    let measured = elsewhere(request, studies, &mut wrong);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let mut candidates = Vec::new();
    for (index, (study, trials)) in studies.iter().enumerate() {
        let name: Arc<str> = study.name.as_str().into();
        for trial in completed(trials) {
            let own = || latency.as_ref().and_then(|measure| measure.value(trial));
            candidates.push(Candidate {
                study: name.clone(),
                number: trial.number,
                metric: metric.measure.value(trial),
                latency: measured.get(&(index, trial.number)).copied().or_else(own),
                losses: objective_losses(study, trial),
                broken: broken(trial),
            });
        }
    }
    let Deciding { name, direction, weights, .. } = metric;
    Ok((Rule { metric: name, direction, objective_weights: weights, speed: request.speed.clone() }, candidates))
}

/// Names in one text, each once.
fn listed(mut names: Vec<String>) -> String {
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// Why trials of two studies cannot be compared.
fn difference(first: &Study, other: &Study) -> Option<FieldViolation> {
    let objectives = |study: &Study| {
        let names = objective_names(study).into_iter().zip(&study.directions);
        names.map(|(name, direction)| format!("{name} {direction}")).collect::<Vec<_>>().join(", ")
    };
    let (here, there) = (objectives(first), objectives(other));
    let problem = || format!("the objective of `{}` is {there}, that of `{}` {here}", other.name, first.name);
    (here != there).then(|| violation("studies", problem()))
}

/// What decides.
struct Deciding {
    measure: Measure,
    name: String,
    direction: Direction,
    weights: Option<Vec<f64>>,
}

fn deciding(request: &Request, study: &Study, wrong: &mut Vec<FieldViolation>) -> Deciding {
    let names = objective_names(study);
    let message = &request.message;
    let direction = |index: usize| study.directions.get(index).copied().unwrap_or(Direction::Minimize);
    let objective = |index: usize| Deciding {
        measure: Measure::Objective(index),
        name: names.get(index).cloned().unwrap_or_default(),
        direction: direction(index),
        weights: None,
    };
    if !message.objective_weights.is_empty() {
        for name in message.objective_weights.keys().filter(|name| !names.contains(name)) {
            let problem = format!("is no objective of `{}`; it has {}", study.name, names.join(", "));
            wrong.push(violation(weight_field(name), problem));
        }
        let weight = |name: &String| message.objective_weights.get(name).copied().unwrap_or_default();
        let weights: Vec<f64> = names.iter().map(weight).collect();
        if weights.iter().sum::<f64>() <= 0.0 {
            wrong.push(violation("objective_weights", "are all 0; one of them has to be above"));
        }
        if names.len() == 1 {
            wrong.push(violation("objective_weights", format!("`{}` has one objective: {}", study.name, names[0])));
        }
        let name = "weighted mean of the objectives".to_owned();
        let measure = Measure::Metric(name.clone());
        return Deciding { measure, name, direction: Direction::Maximize, weights: Some(weights) };
    }
    if message.metric.is_empty() {
        // Of two objectives one of which is the latency, the other one decides.
        let others: Vec<usize> = (0..names.len()).filter(|index| names[*index] != message.latency_metric).collect();
        if let [only] = others[..] {
            return objective(only);
        }
        let shown: Vec<String> =
            names.iter().enumerate().map(|(index, name)| format!("{name} ({})", direction(index))).collect();
        let problem = format!(
            "is empty; study `{}` has several objectives, {}: name the one that decides, or give objective_weights",
            study.name,
            shown.join(", ")
        );
        wrong.push(violation("metric", problem));
        return objective(0);
    }
    let measure = Measure::of(study, &message.metric);
    match (measure.direction(study), message.direction()) {
        (None, given) => {
            Deciding { measure, name: message.metric.clone(), direction: Direction::from_proto(given), weights: None }
        }
        (Some(own), given) => {
            if given != v1::Direction::Unspecified && given != own.to_proto() {
                let (given, metric) = (given.as_str_name(), &message.metric);
                wrong.push(violation("direction", format!("is {given}, but the objective {metric} is to {own}")));
            }
            Deciding { measure, name: message.metric.clone(), direction: own, weights: None }
        }
    }
}

fn latency_measure(
    request: &Request,
    study: &Study,
    name: &str,
    metric: &Deciding,
    wrong: &mut Vec<FieldViolation>,
) -> Measure {
    let measure = Measure::of(study, name);
    if measure == metric.measure && request.message.objective_weights.is_empty() {
        wrong.push(violation(
            "latency_metric",
            format!("`{name}` decides already; the latency has to be another metric"),
        ));
    }
    if measure.direction(study) == Some(Direction::Maximize) {
        wrong.push(violation("latency_metric", format!("`{name}` is maximized; of a latency less is better")));
    }
    measure
}

/// The latencies of the request, by the index of the study and the number of the trial.
fn elsewhere(request: &Request, studies: &[Whole], wrong: &mut Vec<FieldViolation>) -> BTreeMap<(usize, i64), f64> {
    let mut found = BTreeMap::new();
    for (key, latency) in &request.message.latencies_ms {
        let field = || format!("latencies_ms[{key:?}]");
        let (study, number) = match key.rsplit_once("/trials/") {
            Some((study, number)) => (Some(study.strip_prefix("studies/").unwrap_or(study)), number),
            None => (None, key.as_str()),
        };
        let Ok(number) = number.parse::<i64>() else {
            wrong.push(violation(field(), "is neither studies/{study}/trials/{number} nor a number"));
            continue;
        };
        let index = match study {
            None if studies.len() > 1 => {
                wrong.push(violation(field(), "may be of any of the studies; write studies/{study}/trials/{number}"));
                continue;
            }
            None => Some(0),
            Some(name) => studies.iter().position(|(study, _)| study.name == name),
        };
        let index = index.filter(|index| completed(&studies[*index].1).any(|trial| trial.number == number));
        match index {
            Some(index) => drop(found.insert((index, number), *latency)),
            None => wrong.push(violation(field(), "is no completed trial of the studies")),
        }
    }
    found
}

/// The losses of several objectives; NaN where a value is missing.
fn objective_losses(study: &Study, trial: &Trial) -> Vec<f64> {
    if study.directions.len() < 2 {
        return Vec::new();
    }
    match losses(trial, &study.directions) {
        Some(losses) if !trial.values.iter().any(|value| value.is_nan()) => losses,
        _ => vec![f64::NAN; study.directions.len()],
    }
}

/// The constraints that the trial breaks, in words.
pub fn broken(trial: &Trial) -> Vec<String> {
    let constraints = trial.constraints().into_iter().filter(|(_, excess)| *excess > 0.0);
    constraints.map(|(name, excess)| format!("the constraint {name} by {}", short(excess))).collect()
}
