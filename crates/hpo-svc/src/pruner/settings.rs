//! Pruners from the messages that ask for them, every field checked.

use quintet_proto::v1::{self, pruner::Kind};
use runtime_core::status::{FieldViolation, violation};

use super::{
    Bandit, Hyperband, MedianStopping, Nop, Patient, Percentile, Pruner, Schedule, Slack, SuccessiveHalving, Threshold,
    TruncationSelection, Wilcoxon,
};

/// The pruner that a message asks for; what is wrong with its fields, which are told as `FIELD.KIND.NAME`, is added to `wrong`.
pub fn from_proto(pruner: Option<&v1::Pruner>, field: &str, wrong: &mut Vec<FieldViolation>) -> Box<dyn Pruner> {
    let Some(kind) = pruner.and_then(|pruner| pruner.kind.as_ref()) else { return Box::new(Nop) };
    match kind {
        Kind::Nop(_) => Box::new(Nop),
        Kind::Median(median) => {
            let mut fields = Fields { at: format!("{field}.median"), wrong };
            Box::new(fields.percentile(
                50.0,
                [median.n_startup_trials, median.n_warmup_steps, median.interval_steps, median.n_min_trials],
            ))
        }
        Kind::Percentile(percentile) => {
            let mut fields = Fields { at: format!("{field}.percentile"), wrong };
            let share = fields.required("percentile", percentile.percentile, "0 to 100");
            fields.check("percentile", share, (0.0..=100.0).contains(&share), "is not within 0 to 100");
            Box::new(fields.percentile(
                share,
                [
                    percentile.n_startup_trials,
                    percentile.n_warmup_steps,
                    percentile.interval_steps,
                    percentile.n_min_trials,
                ],
            ))
        }
        Kind::Threshold(threshold) => {
            let mut fields = Fields { at: format!("{field}.threshold"), wrong };
            let lower = threshold.lower.unwrap_or(f64::NEG_INFINITY);
            let upper = threshold.upper.unwrap_or(f64::INFINITY);
            if threshold.lower.is_none() && threshold.upper.is_none() {
                fields.say("lower", "neither lower nor upper is given");
            }
            fields.check("lower", lower, lower <= upper, &format!("is not at most upper ({upper})"));
            Box::new(Threshold {
                lower,
                upper,
                n_warmup_steps: fields.steps("n_warmup_steps", threshold.n_warmup_steps, 0),
                interval_steps: fields.steps("interval_steps", threshold.interval_steps, 1),
            })
        }
        Kind::Patient(patient) => {
            let at = format!("{field}.patient");
            let wrapped =
                patient.wrapped.as_ref().map(|inner| from_proto(Some(inner), &format!("{at}.wrapped"), wrong));
            let mut fields = Fields { at, wrong };
            if patient.patience.is_none() {
                fields.say("patience", "is missing; at least 0 is allowed");
            }
            let min_delta = patient.min_delta.unwrap_or_default();
            fields.check("min_delta", min_delta, min_delta >= 0.0, "is below 0");
            Box::new(Patient { wrapped, patience: fields.count("patience", patient.patience, 0, 0), min_delta })
        }
        Kind::SuccessiveHalving(halving) => {
            let settings = [
                halving.min_resource,
                halving.reduction_factor,
                halving.min_early_stopping_rate,
                halving.bootstrap_count,
            ];
            Box::new(successive_halving(settings, &format!("{field}.successive_halving"), wrong))
        }
        Kind::Hyperband(band) => {
            let settings = [band.min_resource, band.max_resource, band.reduction_factor, band.bootstrap_count];
            Box::new(hyperband(settings, &format!("{field}.hyperband"), wrong))
        }
        Kind::Wilcoxon(test) => {
            Box::new(wilcoxon(test.p_threshold, test.n_startup_steps, &format!("{field}.wilcoxon"), wrong))
        }
        Kind::Bandit(bandit) => {
            let mut fields = Fields { at: format!("{field}.bandit"), wrong };
            let slack = match (bandit.slack_factor, bandit.slack_amount) {
                (Some(factor), None) => Slack::Factor(fields.positive("slack_factor", factor)),
                (None, Some(amount)) => Slack::Amount(fields.positive("slack_amount", amount)),
                _ => {
                    fields.say("slack_factor", "exactly one of slack_factor and slack_amount has to be given");
                    Slack::Amount(0.0)
                }
            };
            Box::new(Bandit { slack, schedule: fields.schedule(bandit.evaluation_interval, bandit.delay_evaluation) })
        }
        Kind::MedianStopping(policy) => {
            let mut fields = Fields { at: format!("{field}.median_stopping"), wrong };
            Box::new(MedianStopping { schedule: fields.schedule(policy.evaluation_interval, policy.delay_evaluation) })
        }
        Kind::TruncationSelection(policy) => {
            let mut fields = Fields { at: format!("{field}.truncation_selection"), wrong };
            let share = policy.truncation_percentage.unwrap_or_default();
            if !(1..=99).contains(&share) {
                fields.say("truncation_percentage", &format!("{share} is not within 1 to 99"));
            }
            Box::new(TruncationSelection {
                truncation_percentage: u32::try_from(share).unwrap_or_default(),
                exclude_finished_jobs: policy.exclude_finished_jobs,
                schedule: fields.schedule(policy.evaluation_interval, policy.delay_evaluation),
            })
        }
    }
}

/// A successive halving of `min_resource` (none: `auto`), `reduction_factor`, `min_early_stopping_rate` and `bootstrap_count`;
/// what is wrong with them, told as `FIELD.NAME`, is added to `wrong`.
fn successive_halving(settings: [Option<i32>; 4], field: &str, wrong: &mut Vec<FieldViolation>) -> SuccessiveHalving {
    let [resource, factor, rate, bootstrap] = settings;
    let mut fields = Fields { at: field.to_owned(), wrong };
    let default = SuccessiveHalving::default();
    SuccessiveHalving {
        min_resource: resource.map(|_| fields.steps("min_resource", resource, 1)),
        reduction_factor: fields.factor(factor, default.reduction_factor),
        min_early_stopping_rate: u32::try_from(fields.count("min_early_stopping_rate", rate, 0, 0)).unwrap_or(u32::MAX),
        bootstrap_count: fields.bootstrap(bootstrap, "min_resource", resource),
    }
}

/// A hyperband of `min_resource`, `max_resource` (none: `auto`), `reduction_factor` and `bootstrap_count`; what is wrong with them,
/// told as `FIELD.NAME`, is added to `wrong`.
fn hyperband(settings: [Option<i32>; 4], field: &str, wrong: &mut Vec<FieldViolation>) -> Hyperband {
    let [least, most, factor, bootstrap] = settings;
    let mut fields = Fields { at: field.to_owned(), wrong };
    let default = Hyperband::default();
    let min_resource = fields.steps("min_resource", least, 1);
    if let Some(most) = most.filter(|most| i64::from(*most) < min_resource) {
        fields.say("max_resource", &format!("{most} is below min_resource ({min_resource})"));
    }
    Hyperband {
        min_resource,
        max_resource: most.map(i64::from),
        reduction_factor: fields.factor(factor, default.reduction_factor),
        bootstrap_count: fields.bootstrap(bootstrap, "max_resource", most),
    }
}

/// A Wilcoxon pruner; what is wrong with its settings, told as `FIELD.NAME`, is added to `wrong`.
fn wilcoxon(
    p_threshold: Option<f64>,
    n_startup_steps: Option<i32>,
    field: &str,
    wrong: &mut Vec<FieldViolation>,
) -> Wilcoxon {
    let mut fields = Fields { at: field.to_owned(), wrong };
    let default = Wilcoxon::default();
    let p_threshold = p_threshold.unwrap_or(default.p_threshold);
    fields.check("p_threshold", p_threshold, (0.0..=1.0).contains(&p_threshold), "is not within 0 to 1");
    Wilcoxon {
        p_threshold,
        n_startup_steps: fields.count("n_startup_steps", n_startup_steps, 0, default.n_startup_steps),
    }
}

/// Reads the fields of one message.
struct Fields<'a> {
    at: String,
    wrong: &'a mut Vec<FieldViolation>,
}

impl Fields<'_> {
    fn say(&mut self, name: &str, problem: &str) {
        self.wrong.push(violation(format!("{}.{name}", self.at), problem.to_owned()));
    }

    fn check(&mut self, name: &str, value: f64, holds: bool, problem: &str) {
        if !holds {
            self.say(name, &format!("{value} {problem}"));
        }
    }

    fn required(&mut self, name: &str, value: Option<f64>, allowed: &str) -> f64 {
        if value.is_none() {
            self.say(name, &format!("is missing; {allowed} is allowed"));
        }
        value.unwrap_or_default()
    }

    fn positive(&mut self, name: &str, value: f64) -> f64 {
        self.check(name, value, value > 0.0 && value.is_finite(), "is not above 0");
        value
    }

    fn count(&mut self, name: &str, value: Option<i32>, least: i32, default: usize) -> usize {
        let Some(value) = value else { return default };
        if value < least {
            self.say(name, &format!("{value} is below {least}"));
        }
        usize::try_from(value).unwrap_or_default()
    }

    /// Steps default to the least that is allowed.
    fn steps(&mut self, name: &str, value: Option<i32>, least: i32) -> i64 {
        let default = usize::try_from(least).unwrap_or_default();
        i64::try_from(self.count(name, value, least, default)).unwrap_or(i64::MAX)
    }

    /// `settings` are n_startup_trials, n_warmup_steps, interval_steps and n_min_trials.
    fn percentile(&mut self, percentile: f64, settings: [Option<i32>; 4]) -> Percentile {
        let [startup, warmup, interval, least] = settings;
        let default = Percentile::median();
        Percentile {
            percentile,
            n_startup_trials: self.count("n_startup_trials", startup, 0, default.n_startup_trials),
            n_warmup_steps: self.steps("n_warmup_steps", warmup, 0),
            interval_steps: self.steps("interval_steps", interval, 1),
            n_min_trials: self.count("n_min_trials", least, 1, default.n_min_trials),
        }
    }

    fn factor(&mut self, value: Option<i32>, default: i64) -> i64 {
        value.map_or(default, |_| self.steps("reduction_factor", value, 2))
    }

    /// The count cannot go together with a resource that is found out while trials run, as in Optuna.
    fn bootstrap(&mut self, value: Option<i32>, resource: &str, given: Option<i32>) -> usize {
        let count = self.count("bootstrap_count", value, 0, 0);
        if count > 0 && given.is_none() {
            self.say(
                "bootstrap_count",
                &format!("{count} needs a {resource} that is given; without, only 0 is allowed"),
            );
        }
        count
    }

    fn schedule(&mut self, evaluation_interval: Option<i32>, delay_evaluation: Option<i32>) -> Schedule {
        Schedule {
            evaluation_interval: self.count("evaluation_interval", evaluation_interval, 1, 1),
            delay_evaluation: self.count("delay_evaluation", delay_evaluation, 0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(pruner: Value) -> (String, Vec<String>) {
        let pruner: v1::Pruner = serde_json::from_value(pruner).unwrap();
        let mut wrong = Vec::new();
        let read = from_proto(Some(&pruner), "pruner", &mut wrong);
        (format!("{read:?}"), wrong.into_iter().map(|v| format!("{}: {}", v.field, v.description)).collect())
    }

    #[test]
    fn each_pruner_can_be_asked_for() {
        for (asked, got) in [
            (json!({"nop": {}}), "Nop"),
            (
                json!({"median": {}}),
                "Percentile { percentile: 50.0, n_startup_trials: 5, n_warmup_steps: 0, interval_steps: 1",
            ),
            (json!({"percentile": {"percentile": 25, "n_min_trials": 3}}), "Percentile { percentile: 25.0"),
            (json!({"threshold": {"upper": 2.5}}), "Threshold { lower: -inf, upper: 2.5, n_warmup_steps: 0"),
            (
                json!({"patient": {"patience": 2, "wrapped": {"threshold": {"lower": 0}}}}),
                "Patient { wrapped: Some(Threshold",
            ),
            (
                json!({"bandit": {"slack_factor": 0.2, "evaluation_interval": 2}}),
                "Bandit { slack: Factor(0.2), schedule",
            ),
            (
                json!({"median_stopping": {"delay_evaluation": 5}}),
                "MedianStopping { schedule: Schedule { evaluation_interval: 1",
            ),
            (
                json!({"truncation_selection": {"truncation_percentage": 20}}),
                "TruncationSelection { truncation_percentage: 20",
            ),
        ] {
            let (read, wrong) = read(asked);
            assert!(read.starts_with(got), "{read}");
            assert_eq!(wrong, Vec::<String>::new());
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_field() {
        for (asked, told) in [
            (json!({"median": {"interval_steps": 0}}), "pruner.median.interval_steps: 0 is below 1"),
            (json!({"percentile": {}}), "pruner.percentile.percentile: is missing; 0 to 100 is allowed"),
            (json!({"percentile": {"percentile": 101}}), "pruner.percentile.percentile: 101 is not within 0 to 100"),
            (json!({"threshold": {}}), "pruner.threshold.lower: neither lower nor upper is given"),
            (json!({"threshold": {"lower": 3, "upper": 2}}), "pruner.threshold.lower: 3 is not at most upper (2)"),
            (json!({"patient": {}}), "pruner.patient.patience: is missing; at least 0 is allowed"),
            (json!({"patient": {"patience": 1, "min_delta": -1}}), "pruner.patient.min_delta: -1 is below 0"),
            (
                json!({"patient": {"patience": 1, "wrapped": {"bandit": {"slack_amount": 0}}}}),
                "pruner.patient.wrapped.bandit.slack_amount: 0 is not above 0",
            ),
            (
                json!({"bandit": {"slack_amount": 1, "slack_factor": 1}}),
                "pruner.bandit.slack_factor: exactly one of slack_factor and slack_amount has to be given",
            ),
            (
                json!({"truncation_selection": {}}),
                "pruner.truncation_selection.truncation_percentage: 0 is not within 1 to 99",
            ),
        ] {
            assert_eq!(read(asked).1, [told]);
        }
    }
    #[test]
    fn pruners_of_rungs_and_ranks_are_checked_as_by_optuna() {
        let mut wrong = Vec::new();
        assert_eq!(successive_halving([None; 4], "p", &mut wrong), SuccessiveHalving::default());
        assert_eq!(hyperband([None; 4], "p", &mut wrong), Hyperband::default());
        assert_eq!(wilcoxon(None, None, "p", &mut wrong), Wilcoxon::default());
        let bootstrapped = hyperband([Some(2), Some(81), Some(2), Some(5)], "p", &mut wrong);
        let expected = Hyperband { min_resource: 2, max_resource: Some(81), reduction_factor: 2, bootstrap_count: 5 };
        assert_eq!((bootstrapped, wrong.len()), (expected, 0));
        successive_halving([Some(0), Some(1), Some(-1), Some(-1)], "s", &mut wrong);
        successive_halving([None, None, None, Some(1)], "a", &mut wrong);
        hyperband([Some(9), Some(3), None, Some(1)], "h", &mut wrong);
        hyperband([None, None, None, Some(2)], "b", &mut wrong);
        wilcoxon(Some(f64::NAN), Some(-1), "w", &mut wrong);
        let told: Vec<String> = wrong.into_iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
        assert_eq!(
            told,
            [
                "s.min_resource: 0 is below 1",
                "s.reduction_factor: 1 is below 2",
                "s.min_early_stopping_rate: -1 is below 0",
                "s.bootstrap_count: -1 is below 0",
                "a.bootstrap_count: 1 needs a min_resource that is given; without, only 0 is allowed",
                "h.max_resource: 3 is below min_resource (9)",
                "b.bootstrap_count: 2 needs a max_resource that is given; without, only 0 is allowed",
                "w.p_threshold: NaN is not within 0 to 1",
                "w.n_startup_steps: -1 is below 0",
            ]
        );
    }
}
