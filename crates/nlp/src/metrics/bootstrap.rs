//! Confidence intervals by the percentile bootstrap (Efron 1979): rows (sentences, texts) are drawn with replacement, and metrics
//! computed anew from the sums of what each row counts, so that a thousand resamples cost about as much as a few evaluations.
use serde::{Deserialize, Serialize};

use crate::random::Stream;

/// A value and the range that its resampled values fall in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Of the rows as they are.
    pub value: f64,
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// How to resample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// How often; 0 gives no intervals.
    pub resamples: usize,
    /// Share of resampled values inside the interval, between 0 and 1.
    pub confidence: f64,
    /// Of the draws.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 1000, confidence: 0.95, seed: 42 }
    }
}

/// What each row adds to the sums that metrics are made of; zeros take no room.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowCounts {
    ends: Vec<usize>,
    cells: Vec<(usize, f64)>,
    columns: usize,
}

impl RowCounts {
    /// No rows yet, of this many sums.
    pub fn new(columns: usize) -> Self {
        Self { columns, ..Self::default() }
    }

    /// Adds a row: columns, each below the number of columns, and their values.
    pub fn push(&mut self, cells: impl IntoIterator<Item = (usize, f64)>) {
        self.cells.extend(cells.into_iter().filter(|(column, value)| *column < self.columns && *value != 0.0));
        self.ends.push(self.cells.len());
    }

    fn row(&self, index: usize) -> &[(usize, f64)] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.cells[start..self.ends[index]]
    }

    fn sum(&self, rows: impl Iterator<Item = usize>, sums: &mut [f64]) {
        sums.fill(0.0);
        for row in rows {
            for (column, value) in self.row(row) {
                sums[*column] += value;
            }
        }
    }
}

impl Bootstrap {
    /// Intervals of the metrics that `metrics` computes from the sums over rows; it gives the same number of them each time. None
    /// without rows or resamples. Resampled values that are not finite are left out of their metric's interval.
    pub fn intervals(&self, rows: &RowCounts, metrics: impl Fn(&[f64]) -> Vec<f64>) -> Vec<Interval> {
        let count = rows.ends.len();
        if count == 0 || self.resamples == 0 {
            return Vec::new();
        }
        let mut sums = vec![0.0; rows.columns];
        rows.sum(0..count, &mut sums);
        let values = metrics(&sums);
        let mut drawn: Vec<Vec<f64>> = vec![Vec::with_capacity(self.resamples); values.len()];
        let mut stream = Stream::new(self.seed, "bootstrap", 0);
        for _ in 0..self.resamples {
            rows.sum((0..count).map(|_| stream.below(count)), &mut sums);
            for (all, value) in drawn.iter_mut().zip(metrics(&sums)) {
                all.push(value);
            }
        }
        let tail = (1.0 - self.confidence.clamp(0.0, 1.0)) / 2.0;
        let interval = |(value, mut drawn): (f64, Vec<f64>)| {
            drawn.retain(|value| value.is_finite());
            drawn.sort_by(f64::total_cmp);
            let at = |share| quantile(&drawn, share).unwrap_or(value);
            Interval { value, lower: at(tail), upper: at(1.0 - tail) }
        };
        values.into_iter().zip(drawn).map(interval).collect()
    }
}

/// Quantile of sorted values, interpolated linearly (NumPy's default); none of none.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (below, rest) = (place.floor() as usize, place.fract());
    let (low, high) = (*sorted.get(below)?, *sorted.get(below + usize::from(rest > 0.0))?);
    Some(low + (high - low) * rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_share_is_that_of_theory() {
        let mut rows = RowCounts::new(2);
        for row in 0..400 {
            rows.push([(0, f64::from(u8::from(row % 5 == 0))), (1, 1.0)]);
        }
        let bootstrap = Bootstrap::default();
        let share = |sums: &[f64]| vec![sums[0] / sums[1]];
        let found = bootstrap.intervals(&rows, share)[0];
        let error = (0.2f64 * 0.8 / 400.0).sqrt();
        assert_eq!(found.value, 0.2);
        assert!((found.lower - (0.2 - 1.96 * error)).abs() < error / 5.0, "{found:?}");
        assert!((found.upper - (0.2 + 1.96 * error)).abs() < error / 5.0, "{found:?}");
        assert_eq!(found, bootstrap.intervals(&rows, share)[0]);
        assert_ne!(found, Bootstrap { seed: 1, ..bootstrap }.intervals(&rows, share)[0]);
        let narrow = Bootstrap { confidence: 0.5, ..bootstrap }.intervals(&rows, share)[0];
        assert!(narrow.lower > found.lower && narrow.upper < found.upper);
    }

    #[test]
    fn rows_move_as_a_whole() {
        // Two rows that hold opposite halves: a resample holds 0, 1/2 or 1 of either, never anything between.
        let mut rows = RowCounts::new(2);
        rows.push([(0, 50.0), (1, 50.0)]);
        rows.push([(1, 50.0)]);
        let found = Bootstrap::default().intervals(&rows, |sums| vec![sums[0] / sums[1]])[0];
        assert_eq!((found.value, found.lower, found.upper), (0.5, 0.0, 1.0));
        assert!(Bootstrap { resamples: 0, ..Bootstrap::default() }.intervals(&rows, |s| s.to_vec()).is_empty());
        assert!(Bootstrap::default().intervals(&RowCounts::new(1), |s| s.to_vec()).is_empty());
    }

    #[test]
    fn quantiles_are_interpolated() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), Some(3.0));
        assert_eq!(quantile(&[1.0], 0.975), Some(1.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
