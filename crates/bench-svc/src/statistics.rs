//! Latencies of one shape: a histogram for percentiles, exact moments beside it.

use hdrhistogram::Histogram;

use crate::report::Latency;

/// One hour in nanoseconds; a longer run counts as one hour.
const LONGEST: u64 = 3_600_000_000_000;

/// Collected latencies.
#[derive(Debug)]
pub(crate) struct Latencies {
    /// Nanoseconds with three significant digits: an error of at most 0.1 %.
    histogram: Histogram<u64>,
    count: u64,
    mean: f64,
    squares: f64,
    least: u64,
    most: u64,
}

impl Latencies {
    pub(crate) fn new() -> Result<Self, hdrhistogram::CreationError> {
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3)?;
        Ok(Self { histogram, count: 0, mean: 0.0, squares: 0.0, least: u64::MAX, most: 0 })
    }

    /// Adds one run.
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.histogram.saturating_record(nanoseconds.clamp(1, LONGEST));
        self.count += 1;
        // Welford's update.
        let value = nanoseconds as f64;
        let from_old = value - self.mean;
        self.mean += from_old / self.count as f64;
        self.squares += from_old * (value - self.mean);
        self.least = self.least.min(nanoseconds);
        self.most = self.most.max(nanoseconds);
    }

    /// All figures, in milliseconds; zeros when nothing was recorded.
    pub(crate) fn summary(&self) -> Latency {
        if self.count == 0 {
            return Latency::default();
        }
        let ms = |nanoseconds: f64| nanoseconds / 1e6;
        let at = |percentile: f64| ms(self.histogram.value_at_percentile(percentile) as f64);
        let variance = if self.count > 1 { self.squares / (self.count - 1) as f64 } else { 0.0 };
        Latency {
            mean: ms(self.mean),
            stdev: ms(variance.sqrt()),
            min: ms(self.least as f64),
            p50: at(50.0),
            p90: at(90.0),
            p95: at(95.0),
            p99: at(99.0),
            max: ms(self.most as f64),
        }
    }
}

/// Least number of runs after which a percentile is more than an accident of the sample: the smallest n for which at most
/// one run above the true percentile has a probability of at most 1 % (early stopping of MLPerf LoadGen: 64 for p90, 662
/// for p99).
pub(crate) fn least_runs(percentile: f64) -> u64 {
    let below: f64 = percentile / 100.0;
    (1..)
        .find(|n| {
            let none = below.powi(*n);
            let one = f64::from(*n) * (1.0 - below) * below.powi(*n - 1);
            none + one <= 0.01
        })
        .map_or(u64::MAX, |n: i32| n.unsigned_abs().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_keep_their_promise() {
        let mut latencies = Latencies::new().unwrap();
        for value in 1..=1000u64 {
            latencies.record(value * 1_000_003);
        }
        let summary = latencies.summary();
        for (found, expected) in [
            (summary.p50, 500.0),
            (summary.p90, 900.0),
            (summary.p95, 950.0),
            (summary.p99, 990.0),
            (summary.mean, 500.5),
            (summary.stdev, 288.819_436),
            (summary.min, 1.0),
            (summary.max, 1000.0),
        ] {
            let expected = expected * 1.000_003;
            assert!((found / expected - 1.0).abs() < 0.002, "{found} instead of {expected}");
        }
    }

    #[test]
    fn the_rule_for_percentiles_is_loadgens() {
        assert_eq!([least_runs(90.0), least_runs(95.0), least_runs(99.0)], [64, 130, 662]);
    }
}
