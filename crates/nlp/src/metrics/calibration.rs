//! Whether probabilities mean what they say: calibration error, Brier score and negative log likelihood.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bins of both calibration errors, as in Guo et al. 2017.
pub const BINS: usize = 15;

/// Predictions whose confidence lies in one range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Confidences lie above this,
    pub lower: f64,
    /// and not above this.
    pub upper: f64,
    /// Predictions.
    pub count: usize,
    /// Mean confidence; 0 for an empty bin.
    pub confidence: f64,
    /// Share of right predictions; 0 for an empty bin.
    pub accuracy: f64,
}

/// Calibration of the probabilities of the predicted labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Predictions looked at.
    pub count: usize,
    /// Expected calibration error: mean of |accuracy - confidence| over [`BINS`] bins of equal width, weighted by their counts
    /// (Guo et al. 2017).
    pub ece: f64,
    /// Largest |accuracy - confidence| of these bins.
    pub mce: f64,
    /// The expected error over [`BINS`] bins of equal counts (Nguyen and O'Connor 2015).
    pub adaptive_ece: f64,
    /// Mean over predictions of the squared distance between probabilities and the right answer, summed over the labels
    /// (Brier 1950): between 0 and 2.
    pub brier: f64,
    /// Mean of the negative logarithm of the right label's probability; probabilities of 0 count as the smallest normal number
    /// of 32 bits.
    pub nll: f64,
    /// The reliability diagram: bins of equal width from 0 to 1.
    pub bins: Vec<Bin>,
}

/// Collects predictions one by one.
#[derive(Debug, Clone, Default)]
pub struct Calibrator {
    /// 8 bytes a prediction, of which there may be millions.
    confidences: Vec<(f32, bool)>,
    brier: f64,
    nll: f64,
}

impl Calibrator {
    /// One prediction: probabilities by label, the right label and the predicted one.
    pub fn add(&mut self, probabilities: &[f32], gold: usize, predicted: usize) {
        let probability = |label: usize| probabilities.get(label).copied().unwrap_or(0.0);
        self.confidences.push((probability(predicted), gold == predicted));
        self.nll += negative_log(f64::from(probability(gold)));
        let off = |(label, p): (usize, &f32)| (f64::from(*p) - f64::from(u8::from(label == gold))).powi(2);
        self.brier += probabilities.iter().enumerate().map(off).sum::<f64>();
    }

    /// The scores; none without any prediction.
    pub fn finish(mut self) -> Option<Calibration> {
        let count = self.confidences.len();
        if count == 0 {
            return None;
        }
        let mut members: Vec<Vec<(f32, bool)>> = vec![Vec::new(); BINS];
        for (confidence, right) in &self.confidences {
            // Open below and closed above, so that 1 is in the last bin.
            let bin = ((f64::from(*confidence) * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
            members[bin].push((*confidence, *right));
        }
        let bins: Vec<Bin> = members
            .iter()
            .enumerate()
            .map(|(bin, members)| {
                let (confidence, accuracy) = means(members);
                let border = |edge: usize| edge as f64 / BINS as f64;
                Bin { lower: border(bin), upper: border(bin + 1), count: members.len(), confidence, accuracy }
            })
            .collect();
        self.confidences.sort_by(|one, other| one.0.total_cmp(&other.0));
        let equal = (0..BINS).map(|bin| means(&self.confidences[bin * count / BINS..(bin + 1) * count / BINS]));
        let sizes = (0..BINS).map(|bin| (bin + 1) * count / BINS - bin * count / BINS);
        let total = count as f64;
        Some(Calibration {
            count,
            ece: bins.iter().map(|bin| bin.gap() * bin.count as f64).sum::<f64>() / total,
            mce: bins.iter().filter(|bin| bin.count > 0).map(Bin::gap).fold(0.0, f64::max),
            adaptive_ece: equal.zip(sizes).map(|((c, a), size)| (c - a).abs() * size as f64).sum::<f64>() / total,
            brier: self.brier / total,
            nll: self.nll / total,
            bins,
        })
    }
}

impl Calibration {
    /// Adds the scalars under their names with an ending.
    pub(super) fn insert(&self, metrics: &mut BTreeMap<String, f64>, end: &str) {
        for (name, value) in [
            ("ece", self.ece),
            ("mce", self.mce),
            ("adaptive_ece", self.adaptive_ece),
            ("brier", self.brier),
            ("nll", self.nll),
        ] {
            metrics.insert(format!("{name}{end}"), value);
        }
    }
}

impl Bin {
    fn gap(&self) -> f64 {
        (self.accuracy - self.confidence).abs()
    }
}

/// Negative logarithm of a probability, finite for 0 too.
pub(crate) fn negative_log(probability: f64) -> f64 {
    -probability.max(f64::from(f32::MIN_POSITIVE)).ln()
}

/// Mean confidence and accuracy; 0 of nothing.
fn means(members: &[(f32, bool)]) -> (f64, f64) {
    let count = members.len().max(1) as f64;
    let right = members.iter().filter(|(_, right)| *right).count() as f64;
    (members.iter().map(|(confidence, _)| f64::from(*confidence)).sum::<f64>() / count, right / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_belong_to_the_bin_below() {
        let mut all = Calibrator::default();
        for (p, right) in [(1.0, true), (0.2, false), (0.0, false)] {
            all.add(&[p, 1.0 - p], usize::from(!right), 0);
        }
        let scores = all.finish().unwrap();
        let filled: Vec<_> = scores.bins.iter().enumerate().filter(|(_, bin)| bin.count > 0).map(|(i, _)| i).collect();
        // 0.2 of 32 bits lies a little above 3/15.
        assert_eq!(filled, [0, 3, 14]);
        assert!((scores.ece - 0.2 / 3.0).abs() < 1e-7 && (scores.mce - 0.2).abs() < 1e-7, "{scores:?}");
        assert!(Calibrator::default().finish().is_none());
    }

    #[test]
    fn impossible_answers_cost_a_finite_amount() {
        let mut one = Calibrator::default();
        one.add(&[0.0, 1.0], 0, 1);
        let scores = one.finish().unwrap();
        assert!(scores.nll > 87.0 && scores.nll.is_finite());
        assert_eq!((scores.brier, scores.ece), (2.0, 1.0));
    }
}
