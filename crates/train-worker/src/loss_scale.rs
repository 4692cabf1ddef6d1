//! The factor of the loss that keeps small gradients within the range of fp16, chosen step by step as `torch.amp.GradScaler` does.
use serde::{Deserialize, Serialize};

/// The first scale, and that by which it is multiplied after good steps in a row and after an overflow: `GradScaler`'s defaults.
const INITIAL: f32 = 65536.0;
const GROWTH: f32 = 2.0;
const BACKOFF: f32 = 0.5;
const GROWTH_INTERVAL: usize = 2000;

/// The scale and how it came to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct LossScale {
    scale: f32,
    /// Good steps in a row since the scale changed.
    good: usize,
    /// Steps of the run that were skipped, since their gradients overflowed.
    skipped: usize,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { scale: INITIAL, good: 0, skipped: 0 }
    }
}

impl LossScale {
    /// What the loss is multiplied by.
    pub(crate) fn scale(&self) -> f64 {
        f64::from(self.scale)
    }

    /// Steps of the run that were skipped.
    pub(crate) fn skipped(&self) -> usize {
        self.skipped
    }

    /// Takes in whether the gradients of a step were finite. A step whose were not is to be skipped.
    pub(crate) fn update(&mut self, finite: bool) {
        self.update_every(GROWTH_INTERVAL, finite);
    }

    /// Whether there is no scale left at which gradients are finite: the numbers themselves are too large then. From the first scale on it
    /// takes 17 skipped steps in a row.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.scale < 1.0
    }

    fn update_every(&mut self, interval: usize, finite: bool) {
        if !finite {
            self.scale *= BACKOFF;
            self.good = 0;
            self.skipped += 1;
            return;
        }
        self.good += 1;
        if self.good == interval {
            let grown = self.scale * GROWTH;
            if grown.is_finite() {
                self.scale = grown;
            }
            self.good = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        /// Scale, growth, backoff and interval.
        defaults: (f32, f32, f32, usize),
        traces: Vec<Trace>,
    }

    #[derive(Deserialize)]
    struct Trace {
        scale: f32,
        interval: usize,
        finite: String,
        changes: Vec<(usize, f32)>,
        tracker: usize,
    }

    /// The file is made by `tests/peers/grad_scaler_golden.py`.
    #[test]
    fn scales_follow_those_of_pytorch() {
        let golden: Golden = serde_json::from_str(include_str!("../testdata/grad_scaler.json")).unwrap();
        assert_eq!(golden.defaults, (INITIAL, GROWTH, BACKOFF, GROWTH_INTERVAL));
        for trace in golden.traces {
            let mut scale = LossScale { scale: trace.scale, ..LossScale::default() };
            let mut changes = Vec::new();
            for (step, sign) in trace.finite.chars().enumerate() {
                let before = scale.scale;
                scale.update_every(trace.interval, sign == '+');
                if scale.scale != before {
                    changes.push((step, scale.scale));
                }
            }
            assert_eq!((changes, scale.good), (trace.changes, trace.tracker));
            assert_eq!(scale.skipped, trace.finite.matches('-').count());
        }
    }

    #[test]
    fn seventeen_overflows_in_a_row_exhaust_it() {
        let mut scale = LossScale::default();
        let updates = (1..).find(|_| {
            scale.update(false);
            scale.is_exhausted()
        });
        assert_eq!(updates, Some(17));
        let saved = serde_json::to_string(&scale).unwrap();
        assert_eq!(serde_json::from_str::<LossScale>(&saved).unwrap(), scale);
    }
}
