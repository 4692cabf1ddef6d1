//! Any number of labels a text, as scikit-learn scores them.
use serde::{Deserialize, Serialize};

use super::{ClassReport, ClassScores};
use crate::seqeval::{Counts, Scores, ratio};

/// Scores of texts that have any number of labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MultiLabelScores {
    /// A label is predicted from this probability on.
    pub threshold: f64,
    /// Rows by label and their averages; unlike single-label reports with a row for every label.
    pub labels: ClassReport,
    /// Mean over the texts of each text's F1 (0 for a text without gold and predicted labels).
    pub samples_f1: f64,
    /// Share of the texts whose labels are all right.
    pub subset_accuracy: f64,
    /// Share of the answers (texts times labels) that are wrong.
    pub hamming_loss: f64,
    /// Area under the precision-recall steps by label, in the order of the labels; 0 for a label without any text.
    pub average_precision: Vec<f64>,
    /// Mean of these.
    pub average_precision_macro: f64,
    /// The same over all answers pooled.
    pub average_precision_micro: f64,
}

/// Compares probabilities with gold answers (1 or 0), both [texts, labels] row-major.
pub(super) fn evaluate(names: &[String], gold: &[f32], probabilities: &[f32], threshold: f64) -> MultiLabelScores {
    let width = names.len().max(1);
    let mut counts = vec![Counts::default(); names.len()];
    let (mut whole, mut wrong, mut samples, mut texts) = (0, 0, 0.0, 0);
    for (gold, probabilities) in gold.chunks_exact(width).zip(probabilities.chunks_exact(width)) {
        let mut text = Counts::default();
        for (label, count) in counts.iter_mut().enumerate() {
            let (gold, predicted) = (gold[label] >= 0.5, f64::from(probabilities[label]) >= threshold);
            let one = Counts {
                right: usize::from(gold && predicted),
                predicted: usize::from(predicted),
                gold: usize::from(gold),
            };
            *count = [*count, one].into_iter().sum();
            text = [text, one].into_iter().sum();
        }
        let off = text.gold + text.predicted - 2 * text.right;
        wrong += off;
        whole += usize::from(off == 0);
        samples += text.scores().f1;
        texts += 1;
    }
    let column = |values: &[f32], label: usize| values.iter().skip(label).step_by(width).copied().collect::<Vec<f32>>();
    let average_precision: Vec<f64> =
        (0..names.len()).map(|label| precision_steps(&column(gold, label), &column(probabilities, label))).collect();
    MultiLabelScores {
        threshold,
        labels: ClassReport::of(names.iter().cloned().zip(counts)),
        samples_f1: if texts == 0 { 0.0 } else { samples / texts as f64 },
        subset_accuracy: ratio(whole, texts),
        hamming_loss: ratio(wrong, texts * names.len()),
        average_precision_macro: average_precision.iter().sum::<f64>() / width as f64,
        average_precision_micro: precision_steps(gold, probabilities),
        average_precision,
    }
}

/// Average precision: the sum over thresholds of precision times what recall gains there, without interpolation.
fn precision_steps(gold: &[f32], scores: &[f32]) -> f64 {
    let mut order: Vec<usize> = (0..gold.len()).collect();
    order.sort_by(|one, other| scores[*other].total_cmp(&scores[*one]));
    let positives = gold.iter().filter(|gold| **gold >= 0.5).count();
    let (mut right, mut seen, mut area) = (0, 0, 0.0);
    // Equal scores come in together: no threshold parts them.
    for group in order.chunk_by(|one, other| scores[*one] == scores[*other]) {
        let gained = group.iter().filter(|index| gold[**index] >= 0.5).count();
        right += gained;
        seen += group.len();
        area += ratio(gained, positives) * ratio(right, seen);
    }
    area
}

/// The row of one label.
pub(super) fn scores_of<'a>(report: &'a ClassReport, label: &str) -> Option<&'a Scores> {
    report.classes.iter().find(|row| row.label == label).map(|ClassScores { scores, .. }| scores)
}
