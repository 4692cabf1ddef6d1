//! The choice: a pure function from completed trials and a rule to the best of them.
//!
//! Trials are first left out for what they lack: feasibility, values, a place on the Pareto front of several objectives, a latency.
//! Of the others, those that are accurate enough and worth their time compete, and an order on them decides. Each step keeps, with
//! any trial, every one that is as accurate, as fast and better in one of both, and the order puts that one first: what is chosen is
//! never dominated. The order of the input has no influence.

use std::{cmp::Ordering, collections::BTreeSet, sync::Arc};

use super::{Rule, Speed, reasons};
use crate::{pareto, study::Direction};

/// A completed trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Name of its study.
    pub study: Arc<str>,
    /// Its number there.
    pub number: i64,
    /// What decides.
    pub metric: Option<f64>,
    /// Milliseconds.
    pub latency: Option<f64>,
    /// Its objectives, smaller is better; empty when there is only one.
    pub losses: Vec<f64>,
    /// The constraints that it breaks, in words.
    pub broken: Vec<String>,
}

/// Why a trial could not be chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum Excluded {
    /// It breaks these constraints.
    Infeasible(String),
    /// It has no such metric.
    NoMetric,
    /// Its metric, or one of its objectives, is not a number, or infinite where that has no meaning.
    NotFinite,
    /// Another trial is better in all objectives.
    Dominated,
    /// It has no latency, or none that could be.
    NoLatency,
    /// It is too far below the best metric.
    BelowFloor,
    /// It gains too little over the faster candidate of this index.
    NotWorth(usize),
}

/// A candidate that was judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Index of the candidate.
    pub at: usize,
    /// What decides; larger is better.
    pub goodness: f64,
    /// Milliseconds; 0 when speed does not count.
    pub latency: f64,
    /// The score, when one decides.
    pub score: Option<f64>,
    /// Whether no other one is better.
    pub front: bool,
    /// Whether it is the best of its study.
    pub champion: bool,
    /// Why it could not be chosen.
    pub excluded: Option<Excluded>,
}

/// What was chosen, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// All candidates; the first one is chosen, those that could not be are at the end.
    pub ranked: Vec<Judged>,
    /// Sentences.
    pub reasons: Vec<String>,
}

/// Why nothing can be chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum Nothing {
    /// There is no completed trial.
    Completed,
    /// None has a latency; the indices of those that could be chosen otherwise.
    NoLatency(Vec<usize>),
    /// All are left out, each for its reason.
    Excluded(Vec<Judged>),
}

/// Sums of doubles are off by so much of the best value.
const ROUNDING: f64 = 1e-12;

/// Chooses.
///
/// # Errors
/// No candidate is left.
pub fn choose(candidates: &[Candidate], rule: &Rule) -> Result<Choice, Nothing> {
    if candidates.is_empty() {
        return Err(Nothing::Completed);
    }
    let mut judged: Vec<Judged> = (0..candidates.len()).map(|at| first_look(candidates, at, rule)).collect();
    let several = candidates.iter().any(|candidate| !candidate.losses.is_empty());
    if several {
        keep_the_front(candidates, &mut judged);
    }
    if let Some(weights) = &rule.objective_weights {
        weigh(candidates, weights, &mut judged);
    }
    for one in judged.iter_mut().filter(|one| one.excluded.is_none()) {
        let metric = candidates[one.at].metric;
        one.excluded = match rule.objective_weights.is_none() {
            true if metric.is_none() => Some(Excluded::NoMetric),
            true if one.goodness.is_nan() => Some(Excluded::NotFinite),
            _ => None,
        };
    }
    let before = left(&judged);
    if let Some(speed) = &rule.speed {
        judge_speed(candidates, speed, several, &mut judged);
    } else if !several {
        let best = judged.iter().filter(|one| one.excluded.is_none()).map(|one| one.goodness).fold(f64::NAN, f64::max);
        judged.iter_mut().for_each(|one| one.front = one.excluded.is_none() && one.goodness == best);
    }
    if left(&judged).is_empty() {
        let unmeasured = |at: &usize| judged[*at].excluded == Some(Excluded::NoLatency);
        let slow = !before.is_empty() && before.iter().all(unmeasured);
        return Err(if slow { Nothing::NoLatency(before) } else { Nothing::Excluded(judged) });
    }
    judged.sort_by(|a, b| order(candidates, rule, a, b));
    let mut known = BTreeSet::new();
    for one in &mut judged {
        // The best of a study may lose against that of another one.
        let competed = matches!(one.excluded, None | Some(Excluded::BelowFloor | Excluded::NotWorth(_)));
        one.champion = competed && known.insert(&candidates[one.at].study);
    }
    let reasons = reasons::of(candidates, rule, &judged);
    Ok(Choice { ranked: judged, reasons })
}

/// Indices of the candidates that are still in.
fn left(judged: &[Judged]) -> Vec<usize> {
    judged.iter().filter(|one| one.excluded.is_none()).map(|one| one.at).collect()
}

fn first_look(candidates: &[Candidate], at: usize, rule: &Rule) -> Judged {
    let candidate = &candidates[at];
    let metric = candidate.metric.unwrap_or(f64::NAN);
    // -0.0 + 0.0 is 0.0.
    let goodness = 0.0 + if rule.direction == Direction::Maximize { metric } else { -metric };
    let excluded = if !candidate.broken.is_empty() {
        Some(Excluded::Infeasible(candidate.broken.join(" and ")))
    } else if candidate.losses.iter().any(|loss| loss.is_nan()) {
        Some(Excluded::NotFinite)
    } else {
        None
    };
    Judged { at, goodness, latency: 0.0, score: None, front: false, champion: false, excluded }
}

/// Leaves out what is dominated in several objectives.
fn keep_the_front(candidates: &[Candidate], judged: &mut [Judged]) {
    let inside: Vec<usize> = (0..judged.len()).filter(|index| judged[*index].excluded.is_none()).collect();
    let points: Vec<Vec<f64>> = inside.iter().map(|index| candidates[judged[*index].at].losses.clone()).collect();
    for (index, on_front) in inside.into_iter().zip(pareto::front(&points)) {
        judged[index].front = on_front;
        judged[index].excluded = (!on_front).then_some(Excluded::Dominated);
    }
}

/// Takes the weighted mean of the objectives, each scaled over the front, as what decides.
fn weigh(candidates: &[Candidate], weights: &[f64], judged: &mut [Judged]) {
    let inside = left(judged);
    let span = |objective: usize| Span::of(inside.iter().map(|at| candidates[*at].losses[objective]));
    let spans: Vec<Span> = (0..weights.len()).map(span).collect();
    let sum: f64 = weights.iter().sum();
    for one in judged.iter_mut().filter(|one| one.excluded.is_none()) {
        let terms = weights.iter().zip(&spans).zip(&candidates[one.at].losses);
        one.goodness = terms.map(|((weight, span), loss)| weight / sum * (1.0 - scaled(*loss, span))).sum();
    }
}

/// The least and the largest of some values.
struct Span {
    low: f64,
    high: f64,
}

impl Span {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let empty = Self { low: f64::INFINITY, high: f64::NEG_INFINITY };
        values.fold(empty, |span, value| Self { low: span.low.min(value), high: span.high.max(value) })
    }
}

/// 0 at the low end, 1 at the high one; 0 when both are the same.
fn scaled(value: f64, span: &Span) -> f64 {
    match (value - span.low) / (span.high - span.low) {
        // An end that is infinite leaves two values: that end, and the rest.
        share if share.is_nan() => f64::from(u8::from(value == span.high && span.low < span.high)),
        share => share,
    }
}

fn judge_speed(candidates: &[Candidate], speed: &Speed, several: bool, judged: &mut [Judged]) {
    for one in judged.iter_mut().filter(|one| one.excluded.is_none()) {
        match candidates[one.at].latency.filter(|latency| latency.is_finite() && *latency >= 0.0) {
            None => one.excluded = Some(Excluded::NoLatency),
            Some(_) if !one.goodness.is_finite() => one.excluded = Some(Excluded::NotFinite),
            Some(latency) => one.latency = latency + 0.0,
        }
    }
    let mut inside: Vec<&mut Judged> = judged.iter_mut().filter(|one| one.excluded.is_none()).collect();
    if !several {
        let points: Vec<Vec<f64>> = inside.iter().map(|one| vec![-one.goodness, one.latency]).collect();
        inside.iter_mut().zip(pareto::front(&points)).for_each(|(one, front)| one.front = front);
    }
    if let Some([metric_weight, latency_weight]) = speed.weights {
        let metrics = Span::of(inside.iter().map(|one| one.goodness));
        let latencies = Span::of(inside.iter().map(|one| one.latency));
        for one in &mut inside {
            let fast = 1.0 - scaled(one.latency, &latencies);
            one.score = Some(metric_weight * scaled(one.goodness, &metrics) + latency_weight * fast);
        }
    }
    let best = inside.iter().map(|one| one.goodness).fold(f64::NEG_INFINITY, f64::max);
    let unit = if speed.relative { best.abs() } else { 1.0 };
    let slack = ROUNDING * best.abs();
    if let Some(threshold) = speed.threshold {
        for one in &mut inside {
            one.excluded = (best - one.goodness > threshold * unit + slack).then_some(Excluded::BelowFloor);
        }
    }
    if let Some(gain) = speed.min_gain {
        inside.retain(|one| one.excluded.is_none());
        let place = |one: &Judged| (candidates[one.at].number, candidates[one.at].study.clone());
        inside.sort_by(|a, b| {
            let by_speed = a.latency.total_cmp(&b.latency).then(b.goodness.total_cmp(&a.goodness));
            by_speed.then_with(|| place(a).cmp(&place(b)))
        });
        // The best of those that are faster than the one that is looked at, and the best of those that are as fast.
        let mut faster: Option<(f64, usize)> = None;
        let mut even: Option<(f64, usize, f64)> = None;
        for one in inside {
            if let Some((goodness, at, _)) = even.take_if(|even| even.2 < one.latency) {
                faster = faster.filter(|faster| faster.0 >= goodness).or(Some((goodness, at)));
            }
            even = even.or(Some((one.goodness, one.at, one.latency)));
            if let Some((_, at)) = faster.filter(|(goodness, _)| one.goodness - goodness < gain * unit - slack) {
                one.excluded = Some(Excluded::NotWorth(at));
            }
        }
    }
}

/// The order of candidates, the best first; those that are left out come last.
fn order(candidates: &[Candidate], rule: &Rule, a: &Judged, b: &Judged) -> Ordering {
    // NaN is worst.
    let larger = |a: f64, b: f64| a.is_nan().cmp(&b.is_nan()).then(b.total_cmp(&a));
    let better = || larger(a.goodness, b.goodness);
    let faster = || a.latency.total_cmp(&b.latency);
    let by_rule = || match &rule.speed {
        Some(Speed { weights: Some(_), .. }) => {
            let score = |one: &Judged| one.score.unwrap_or(f64::NAN);
            larger(score(a), score(b)).then_with(better).then_with(faster)
        }
        Some(Speed { threshold: Some(_), min_gain: None, .. }) => faster().then_with(better),
        _ => better().then_with(faster),
    };
    let place = |one: &Judged| (candidates[one.at].number, candidates[one.at].study.clone());
    let out = a.excluded.is_some();
    out.cmp(&b.excluded.is_some())
        .then_with(|| if out { better() } else { by_rule() })
        .then_with(|| place(a).cmp(&place(b)))
}
