//! Regression: errors and correlations, as scikit-learn and SciPy compute them.
use serde::{Deserialize, Serialize};

/// Scores of predicted numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct RegressionScores {
    /// Rows.
    pub count: usize,
    /// Mean squared error.
    pub mse: f64,
    /// Its root.
    pub rmse: f64,
    /// Mean absolute error.
    pub mae: f64,
    /// Coefficient of determination; for constant gold values 1 when all are met, else 0.
    pub r2: f64,
    /// Pearson's correlation; none when one side is constant.
    pub pearson: Option<f64>,
    /// Spearman's rank correlation, equal values sharing their mean rank; none when one side is constant.
    pub spearman: Option<f64>,
}

/// Compares predicted numbers with gold numbers, as many on both sides; all 0 of none.
pub fn evaluate(gold: &[f32], predicted: &[f32]) -> RegressionScores {
    let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>();
    let (gold, predicted) = (wide(gold), wide(predicted));
    let count = gold.len().min(predicted.len());
    if count == 0 {
        return RegressionScores::default();
    }
    let errors: Vec<f64> = gold.iter().zip(&predicted).map(|(gold, predicted)| predicted - gold).collect();
    let squares: f64 = errors.iter().map(|error| error * error).sum();
    let centre = mean(&gold);
    let spread: f64 = gold.iter().map(|value| (value - centre).powi(2)).sum();
    let mse = squares / count as f64;
    RegressionScores {
        count,
        mse,
        rmse: mse.sqrt(),
        mae: errors.iter().map(|error| error.abs()).sum::<f64>() / count as f64,
        r2: r2(squares, spread),
        pearson: correlation(&gold, &predicted),
        spearman: correlation(&ranks(&gold), &ranks(&predicted)),
    }
}

/// R2 of the sum of squared errors and the sum of squared distances from the mean.
pub(super) fn r2(errors: f64, spread: f64) -> f64 {
    match (spread > 0.0, errors > 0.0) {
        (true, _) => 1.0 - errors / spread,
        (false, true) => 0.0,
        (false, false) => 1.0,
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn correlation(one: &[f64], other: &[f64]) -> Option<f64> {
    let (one_mean, other_mean) = (mean(one), mean(other));
    let (mut product, mut one_square, mut other_square) = (0.0, 0.0, 0.0);
    for (a, b) in one.iter().zip(other) {
        let (a, b) = (a - one_mean, b - other_mean);
        product += a * b;
        one_square += a * a;
        other_square += b * b;
    }
    let scale = one_square.sqrt() * other_square.sqrt();
    // Rounding may lead a little outside.
    (scale > 0.0).then(|| (product / scale).clamp(-1.0, 1.0))
}

/// Ranks from 1; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|one, other| values[*one].total_cmp(&values[*other]));
    let mut ranks = vec![0.0; values.len()];
    for group in order.chunk_by(|one, other| values[*one] == values[*other]) {
        let first = order.partition_point(|index| values[*index] < values[group[0]]);
        let shared = first as f64 + (group.len() as f64 + 1.0) / 2.0;
        group.iter().for_each(|index| ranks[*index] = shared);
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        // Zeros of both signs are equal, though not in total order.
        assert_eq!(ranks(&[0.0, -0.0, 1.0]), [1.5, 1.5, 3.0]);
    }

    #[test]
    fn constants_have_no_correlation() {
        let scores = evaluate(&[1.0, 1.0], &[0.0, 2.0]);
        assert_eq!((scores.pearson, scores.spearman, scores.r2, scores.mse), (None, None, 0.0, 1.0));
        assert_eq!(evaluate(&[1.0, 1.0], &[1.0, 1.0]).r2, 1.0);
        assert_eq!(evaluate(&[], &[]), RegressionScores::default());
    }
}
