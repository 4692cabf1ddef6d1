//! Learning rate by step: a linear warmup, then linear or cosine decay to zero or a constant, as `get_linear_schedule_with_warmup`,
//! `get_cosine_schedule_with_warmup` and `get_constant_schedule_with_warmup` of `transformers`.
use crate::{Hyper, hyper::SchedulerType};

/// A schedule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    peak: f64,
    kind: SchedulerType,
    warmup: usize,
    total: usize,
}

impl Schedule {
    /// The schedule of `total` steps. A share of warmup is rounded up to whole steps.
    pub(crate) fn new(hyper: &Hyper, total: usize) -> Self {
        let by_share = (total as f64 * hyper.warmup_ratio).ceil() as usize;
        let warmup = hyper.warmup_steps.unwrap_or(by_share);
        Self { peak: hyper.learning_rate, kind: hyper.lr_scheduler_type, warmup, total }
    }

    /// The rate of a step, counted from 0.
    pub(crate) fn rate(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let left = self.total.saturating_sub(step) as f64 / self.total.saturating_sub(self.warmup).max(1) as f64;
        self.peak
            * match self.kind {
                SchedulerType::Linear => left,
                SchedulerType::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * (1.0 - left)).cos()),
                SchedulerType::Constant => 1.0,
            }
    }
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::Hyperparameters;

    use super::*;

    fn rates(given: Hyperparameters, total: usize, steps: impl IntoIterator<Item = usize>) -> Vec<f64> {
        let schedule = Schedule::new(&Hyper::from_proto(&given).unwrap(), total);
        steps.into_iter().map(|step| (schedule.rate(step) * 1e6).round() / 1e6).collect()
    }

    #[test]
    fn rates_rise_and_fall() {
        let given = |kind: &str, warmup_ratio| Hyperparameters {
            learning_rate: Some(2.0),
            lr_scheduler_type: Some(kind.to_owned()),
            warmup_ratio,
            ..Default::default()
        };
        let linear = rates(given("linear", Some(0.2)), 10, 0..11);
        assert_eq!(linear, [0.0, 1.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25, 0.0]);
        assert_eq!(rates(given("linear", None), 4, [0, 1, 3]), [2.0, 1.5, 0.5]);
        assert_eq!(rates(given("cosine", Some(0.2)), 10, [0, 2, 4, 6, 10]), [0.0, 2.0, 1.707107, 1.0, 0.0]);
        assert_eq!(rates(given("constant", Some(0.2)), 10, [0, 1, 2, 9]), [0.0, 1.0, 2.0, 2.0]);
        // All steps warmup: no division by zero.
        assert_eq!(rates(given("linear", Some(1.0)), 2, [2]), [0.0]);
        let by_steps = Hyperparameters { warmup_steps: Some(4), ..given("linear", None) };
        assert_eq!(rates(by_steps, 8, [2, 4, 6]), [1.0, 2.0, 1.0]);
    }
}
