//! Learning rate by step: linear warmup, then linear decay to zero, as `get_linear_schedule_with_warmup` of `transformers`.

/// A linear schedule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    peak: f64,
    warmup: usize,
    total: usize,
}

impl Schedule {
    /// `warmup_ratio` of `total` steps, rounded up, are warmup.
    pub(crate) fn new(peak: f64, warmup_ratio: f64, total: usize) -> Self {
        Self { peak, warmup: (total as f64 * warmup_ratio).ceil() as usize, total }
    }

    /// The rate of a step, counted from 0.
    pub(crate) fn rate(&self, step: usize) -> f64 {
        let factor = if step < self.warmup {
            step as f64 / self.warmup as f64
        } else {
            self.total.saturating_sub(step) as f64 / (self.total - self.warmup).max(1) as f64
        };
        self.peak * factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_and_fall() {
        let schedule = Schedule::new(2.0, 0.2, 10);
        let rates: Vec<f64> = (0..11).map(|step| schedule.rate(step)).collect();
        assert_eq!(rates, [0.0, 1.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25, 0.0]);
        let plain = Schedule::new(1.0, 0.0, 4);
        assert_eq!([0, 1, 3].map(|step| plain.rate(step)), [1.0, 0.75, 0.25]);
        // All steps warmup: no division by zero.
        assert_eq!(Schedule::new(1.0, 1.0, 2).rate(2), 0.0);
    }
}
