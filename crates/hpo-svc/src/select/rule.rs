//! What decides which trial is the best: the rule of a request, checked before anything is read.

use quintet_proto::v1::{self, GetBestConfigRequest};
use runtime_core::status::{FieldViolation, violation};

use crate::study::Direction;

/// Weights when none is given: those of the system that this one follows.
const METRIC_WEIGHT: f64 = 0.7;
const LATENCY_WEIGHT: f64 = 0.3;
/// Candidates in an answer when the caller names no number, and the most.
const CANDIDATES: usize = 100;
const MOST_CANDIDATES: i32 = 100_000;

/// How a trial is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// What the metric is called.
    pub metric: String,
    /// Which way it improves.
    pub direction: Direction,
    /// Of several objectives: how much each counts. The weighted mean of the scaled objectives is the metric then.
    pub objective_weights: Option<Vec<f64>>,
    /// What speed counts; `None`: nothing.
    pub speed: Option<Speed>,
}

/// What a faster trial may lack of the metric, or what a slower one has to offer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Speed {
    /// How far below the best metric a trial may be.
    pub threshold: Option<f64>,
    /// What a slower trial has to gain over each faster one.
    pub min_gain: Option<f64>,
    /// Both are shares of the best metric.
    pub relative: bool,
    /// Weights of metric and latency in a score that decides.
    pub weights: Option<[f64; 2]>,
}

impl Rule {
    /// The name of the rule in answers.
    pub fn strategy(&self) -> &'static str {
        match &self.speed {
            Some(Speed { weights: Some(_), .. }) => "composite",
            Some(_) => "accuracy_first",
            None if self.objective_weights.is_some() => "objective_weights",
            None => "metric",
        }
    }
}

/// What a request says about speed; what is wrong with it is added to `wrong`.
pub(super) fn speed(request: &GetBestConfigRequest, wrong: &mut Vec<FieldViolation>) -> Option<Speed> {
    let mut positive = |field: &str, value: Option<f64>| {
        if let Some(value) = value.filter(|value| !(value.is_finite() && *value >= 0.0)) {
            wrong.push(violation(field, format!("{value} is not a number of at least 0")));
        }
        value
    };
    let threshold = positive("accuracy_threshold", request.accuracy_threshold);
    let min_gain = positive("min_accuracy_gain", request.min_accuracy_gain);
    for (trial, latency) in &request.latencies_ms {
        positive(&format!("latencies_ms[{trial:?}]"), Some(*latency));
    }
    let scoring = request.scoring.as_ref();
    if let Some(scoring) = scoring {
        positive("scoring.metric_weight", scoring.metric_weight);
        positive("scoring.latency_weight", scoring.latency_weight);
    }
    let measured = !request.latency_metric.is_empty() || !request.latencies_ms.is_empty();
    let given = [
        ("scoring", scoring.is_some()),
        ("accuracy_threshold", threshold.is_some()),
        ("min_accuracy_gain", min_gain.is_some()),
    ];
    if !measured {
        for (field, _) in given.into_iter().filter(|(_, given)| *given) {
            wrong.push(violation(field, "needs latencies; give latency_metric or latencies_ms"));
        }
        return None;
    }
    let weights = match scoring {
        None if threshold.is_none() && min_gain.is_none() => Some(weights(&v1::Scoring::default(), wrong)),
        scoring => scoring.map(|scoring| weights(scoring, wrong)),
    };
    Some(Speed { threshold, min_gain, relative: request.use_relative_threshold.unwrap_or(true), weights })
}

fn weights(scoring: &v1::Scoring, wrong: &mut Vec<FieldViolation>) -> [f64; 2] {
    let [metric, latency] = match (scoring.metric_weight, scoring.latency_weight) {
        (None, None) => [METRIC_WEIGHT, LATENCY_WEIGHT],
        (Some(metric), Some(latency)) => [metric, latency],
        (one, other) => {
            let (field, given) = if one.is_some() { ("metric_weight", one) } else { ("latency_weight", other) };
            let given = given.unwrap_or_default();
            if given > 1.0 {
                wrong.push(violation(
                    format!("scoring.{field}"),
                    format!("{given} alone is above 1; give both weights"),
                ));
            }
            if one.is_some() { [given, 1.0 - given] } else { [1.0 - given, given] }
        }
    };
    let sum = metric + latency;
    if sum == 0.0 {
        wrong.push(violation("scoring", "both weights are 0; one of them has to be above"));
    }
    let normalize = scoring.normalize_weights.unwrap_or(true) && sum > 0.0;
    if normalize { [metric / sum, latency / sum] } else { [metric, latency] }
}

/// How many candidates an answer has at most.
pub(super) fn most_candidates(request: &GetBestConfigRequest, wrong: &mut Vec<FieldViolation>) -> usize {
    let most = request.max_candidates;
    if !(0..=MOST_CANDIDATES).contains(&most) {
        wrong.push(violation("max_candidates", format!("{most} is not within 0 to {MOST_CANDIDATES}")));
    }
    if most == 0 { CANDIDATES } else { usize::try_from(most).unwrap_or(CANDIDATES) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(request: &GetBestConfigRequest) -> (Option<Speed>, Vec<String>) {
        let mut wrong = Vec::new();
        let speed = speed(request, &mut wrong);
        most_candidates(request, &mut wrong);
        (speed, wrong.into_iter().map(|v| format!("{}: {}", v.field, v.description)).collect())
    }

    fn scored(metric_weight: Option<f64>, latency_weight: Option<f64>, normalize: Option<bool>) -> [f64; 2] {
        let scoring = v1::Scoring { metric_weight, latency_weight, normalize_weights: normalize };
        let request =
            GetBestConfigRequest { latency_metric: "ms".into(), scoring: Some(scoring), ..Default::default() };
        let (speed, wrong) = read(&request);
        assert_eq!(wrong, Vec::<String>::new());
        speed.unwrap().weights.unwrap()
    }

    #[test]
    fn weights_complete_each_other() {
        assert_eq!(scored(None, None, None), [0.7, 0.3]);
        assert_eq!(scored(None, Some(0.25), None), [0.75, 0.25]);
        assert_eq!(scored(Some(0.0), None, None), [0.0, 1.0]);
        assert_eq!(scored(Some(3.0), Some(1.0), None), [0.75, 0.25]);
        assert_eq!(scored(Some(3.0), Some(1.0), Some(false)), [3.0, 1.0]);
        let request = GetBestConfigRequest { latency_metric: "ms".into(), ..Default::default() };
        assert_eq!(read(&request).0.unwrap().weights, Some([0.7, 0.3]), "latencies are not asked for in vain");
        let request = GetBestConfigRequest { accuracy_threshold: Some(0.1), ..request };
        let expected = Speed { threshold: Some(0.1), min_gain: None, relative: true, weights: None };
        assert_eq!(read(&request).0, Some(expected));
    }

    #[test]
    fn every_wrong_field_is_named() {
        let request = GetBestConfigRequest {
            accuracy_threshold: Some(-0.1),
            min_accuracy_gain: Some(f64::NAN),
            scoring: Some(v1::Scoring { metric_weight: Some(-1.0), ..Default::default() }),
            max_candidates: -1,
            ..Default::default()
        };
        assert_eq!(
            read(&request).1,
            [
                "accuracy_threshold: -0.1 is not a number of at least 0",
                "min_accuracy_gain: NaN is not a number of at least 0",
                "scoring.metric_weight: -1 is not a number of at least 0",
                "scoring: needs latencies; give latency_metric or latencies_ms",
                "accuracy_threshold: needs latencies; give latency_metric or latencies_ms",
                "min_accuracy_gain: needs latencies; give latency_metric or latencies_ms",
                "max_candidates: -1 is not within 0 to 100000",
            ]
        );
        let zero = v1::Scoring { metric_weight: Some(0.0), latency_weight: Some(0.0), normalize_weights: None };
        let request = GetBestConfigRequest {
            latencies_ms: [("3".to_owned(), f64::INFINITY)].into(),
            scoring: Some(zero),
            ..Default::default()
        };
        assert_eq!(
            read(&request).1,
            [
                "latencies_ms[\"3\"]: inf is not a number of at least 0",
                "scoring: both weights are 0; one of them has to be above"
            ]
        );
        let alone = v1::Scoring { latency_weight: Some(2.0), ..Default::default() };
        let request = GetBestConfigRequest { latency_metric: "ms".into(), scoring: Some(alone), ..Default::default() };
        assert_eq!(read(&request).1, ["scoring.latency_weight: 2 alone is above 1; give both weights"]);
    }
}
