//! Why a trial was chosen, in sentences for a person.

use std::collections::BTreeSet;

use super::{Candidate, Excluded, Judged, Rule, Speed};
use crate::study::Direction;

/// A number with six digits at most.
pub(crate) fn short(value: f64) -> String {
    let rounded = format!("{value:.5e}").parse().unwrap_or(value);
    if rounded != 0.0 && (rounded.abs() < 1e-4 || rounded.abs() >= 1e9) {
        return format!("{rounded:e}");
    }
    rounded.to_string()
}

fn percent(share: f64) -> String {
    format!("{} %", short(share * 100.0))
}

/// What to say of one or of several.
fn count(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// What is needed to speak of candidates.
struct Speaker<'a> {
    candidates: &'a [Candidate],
    rule: &'a Rule,
    several_studies: bool,
}

impl Speaker<'_> {
    fn name(&self, at: usize) -> String {
        let candidate = &self.candidates[at];
        let of = if self.several_studies { format!(" of {}", candidate.study) } else { String::new() };
        format!("trial {}{of}", candidate.number)
    }

    /// The value as the user knows it.
    fn value(&self, goodness: f64) -> String {
        short(if self.rule.direction == Direction::Maximize { goodness } else { 0.0 - goodness })
    }

    fn named_value(&self, one: &Judged) -> String {
        format!("{} {}", self.rule.metric, self.value(one.goodness))
    }

    fn with_speed(&self, one: &Judged) -> String {
        format!("{} in {} ms", self.named_value(one), short(one.latency))
    }
}

/// The reasons of a choice; the first of the ranked ones is chosen.
pub(super) fn of(candidates: &[Candidate], rule: &Rule, ranked: &[Judged]) -> Vec<String> {
    let studies: BTreeSet<&str> = candidates.iter().map(|candidate| &*candidate.study).collect();
    let speaker = Speaker { candidates, rule, several_studies: studies.len() > 1 };
    let inside: Vec<&Judged> = ranked.iter().filter(|one| one.excluded.is_none()).collect();
    let mut reasons = left_out(&speaker, ranked);
    match &rule.speed {
        None => by_metric(&speaker, &inside, &mut reasons),
        Some(speed) => by_speed(&speaker, speed, ranked, &mut reasons),
    }
    if speaker.several_studies {
        let champions = ranked.iter().filter(|one| one.champion);
        let champions: Vec<String> = champions.map(|one| speaker.name(one.at)).collect();
        reasons.push(format!("The best of each study: {}.", champions.join(", ")));
    }
    reasons
}

fn left_out(speaker: &Speaker<'_>, ranked: &[Judged]) -> Vec<String> {
    let number = |is: fn(&Excluded) -> bool| ranked.iter().filter(|one| one.excluded.as_ref().is_some_and(is)).count();
    let metric = &speaker.rule.metric;
    let kinds = [
        (number(|why| matches!(why, Excluded::Infeasible(_))), "breaks a constraint", "break a constraint"),
        (number(|why| *why == Excluded::Dominated), "is not on the Pareto front", "are not on the Pareto front"),
        (number(|why| *why == Excluded::NoMetric), "lacks the metric", "lack the metric"),
        (number(|why| *why == Excluded::NotFinite), "has no finite value", "have no finite value"),
        (number(|why| *why == Excluded::NoLatency), "has no latency", "have no latency"),
    ];
    let told = kinds.iter().filter(|(number, ..)| *number > 0);
    let told: Vec<String> = told.map(|(number, one, more)| count(*number, one, more)).collect();
    if told.is_empty() {
        return Vec::new();
    }
    let all = count(ranked.len(), "completed trial", "completed trials");
    let mut reasons = vec![format!("Of {all}, {}.", told.join(", "))];
    // A trial that would have decided must not be passed over in silence.
    let best = ranked.first().map_or(f64::NAN, |chosen| chosen.goodness);
    let unmeasured = ranked.iter().filter(|one| one.excluded == Some(Excluded::NoLatency) && one.goodness > best);
    if let Some(better) = unmeasured.max_by(|a, b| a.goodness.total_cmp(&b.goodness)) {
        let (name, value) = (speaker.name(better.at), speaker.value(better.goodness));
        reasons.push(format!("Without a latency could not be considered: {name}, with the better {metric} {value}."));
    }
    reasons
}

fn by_metric(speaker: &Speaker<'_>, inside: &[&Judged], reasons: &mut Vec<String>) {
    let Some((chosen, others)) = inside.split_first() else { return };
    let metric = &speaker.rule.metric;
    match speaker.rule.direction {
        _ if speaker.rule.objective_weights.is_some() => {
            reasons.push(format!("The {metric} decides, each objective scaled to 0 to 1 over the Pareto front."));
        }
        Direction::Maximize => reasons.push(format!("{metric} decides; larger is better.")),
        Direction::Minimize => reasons.push(format!("{metric} decides; smaller is better.")),
    }
    let name = speaker.name(chosen.at);
    let value = speaker.named_value(chosen);
    let all = count(inside.len(), "candidate", "candidates");
    let equals = others.iter().filter(|other| other.goodness == chosen.goodness).count();
    reasons.push(match (equals, others.first()) {
        (0, Some(next)) => {
            let (second, other) = (speaker.name(next.at), speaker.value(next.goodness));
            format!("Chosen is {name}, the best of {all}: {value}. Next is {second} with {other}.")
        }
        (0, None) => format!("Chosen is {name}, the only candidate: {value}."),
        (equals, _) => {
            let others = count(equals, "other has", "others have");
            format!("Chosen is {name}, the best of {all}: {value}. {others} the same; the smallest number wins.")
        }
    });
}

fn by_speed(speaker: &Speaker<'_>, speed: &Speed, ranked: &[Judged], reasons: &mut Vec<String>) {
    let metric = &speaker.rule.metric;
    let competing = |one: &&Judged| matches!(one.excluded, None | Some(Excluded::BelowFloor | Excluded::NotWorth(_)));
    let all: Vec<&Judged> = ranked.iter().filter(competing).collect();
    let Some((chosen, best)) = ranked.first().zip(all.iter().copied().reduce(|best, one| {
        // The first in rank of equals, which is the faster one unless speed comes first anyway.
        if one.goodness > best.goodness || (one.goodness == best.goodness && one.latency < best.latency) {
            one
        } else {
            best
        }
    })) else {
        return;
    };
    let (name, first) = (speaker.name(chosen.at), speaker.name(best.at));
    reasons.push(format!(
        "The best {metric} of {} with a latency has {first}: {}.",
        all.len(),
        speaker.with_speed(best)
    ));
    let unit = if speed.relative { best.goodness.abs() } else { 1.0 };
    let amount = |value: f64| {
        if speed.relative { format!("{} ({})", percent(value), short(value * unit)) } else { short(value) }
    };
    if let Some(threshold) = speed.threshold {
        let inside = all.iter().filter(|one| one.excluded != Some(Excluded::BelowFloor)).count();
        let (floor, bound) = match speaker.rule.direction {
            Direction::Maximize => (best.goodness - threshold * unit, "at least"),
            Direction::Minimize => (best.goodness - threshold * unit, "at most"),
        };
        let floor = speaker.value(floor);
        let (given, all) = (amount(threshold), all.len());
        reasons.push(format!(
            "A faster one may be up to {given} worse, so {metric} {bound} {floor} is accurate enough: {inside} of {all} are."
        ));
    }
    if let Some(gain) = speed.min_gain {
        let refused = all.iter().filter(|one| matches!(one.excluded, Some(Excluded::NotWorth(_)))).count();
        let refused = if refused == 0 { "none fails to".to_owned() } else { count(refused, "fails to", "fail to") };
        let gain = amount(gain);
        reasons.push(format!(
            "A slower one has to gain at least {gain} over each faster one that is accurate enough: {refused}."
        ));
    }
    if let Some([metric_weight, latency_weight]) = speed.weights {
        let (of_metric, of_latency) = (short(metric_weight), short(latency_weight));
        reasons.push(format!(
            "The score is {of_metric} * {metric} + {of_latency} * (1 - latency), both scaled to 0 to 1 over the candidates with a latency."
        ));
    }
    let by = match (speed.weights.and(chosen.score), speed.min_gain) {
        (Some(score), _) => format!("with the best score, {}", short(score)),
        (None, None) => "the fastest that is accurate enough".into(),
        (None, Some(_)) => "the most accurate that is worth its time".into(),
    };
    let compared = if chosen.at == best.at { String::new() } else { against(speaker, chosen, best) };
    reasons.push(format!("Chosen is {name}, {by}: {}{compared}.", speaker.with_speed(chosen)));
}

/// What the chosen one gives up and gets, against the most accurate one.
fn against(speaker: &Speaker<'_>, chosen: &Judged, best: &Judged) -> String {
    let lost = short(best.goodness - chosen.goodness);
    let (metric, first) = (&speaker.rule.metric, speaker.name(best.at));
    if chosen.latency > 0.0 && chosen.latency < best.latency {
        let times = format!("{:.2}", best.latency / chosen.latency);
        return format!(", {times} times as fast as {first} for {lost} of {metric}");
    }
    format!(", {lost} of {metric} behind {first}")
}

/// Why a candidate could not be chosen, in words.
pub(crate) fn why(candidates: &[Candidate], rule: &Rule, excluded: &Excluded) -> String {
    let metric = &rule.metric;
    match excluded {
        Excluded::Infeasible(broken) => format!("breaks {broken}"),
        Excluded::NoMetric => format!("has no {metric}"),
        Excluded::NotFinite => format!("{metric} is not a finite number"),
        Excluded::Dominated => "is not on the Pareto front".into(),
        Excluded::NoLatency => "has no latency".into(),
        Excluded::BelowFloor => format!("{metric} is too far below the best"),
        Excluded::NotWorth(at) => {
            let Candidate { study, number, .. } = &candidates[*at];
            format!("gains too little over the faster trial {number} of {study}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [(0.9123456789, "0.912346"), (12.0, "12"), (0.0, "0"), (1.5e-7, "1.5e-7"), (123456.7, "123457")];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
        assert_eq!(percent(0.015), "1.5 %");
        assert_eq!(short(f64::INFINITY), "inf");
    }
}
