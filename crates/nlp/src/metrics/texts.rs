//! Everything that evaluation says of labelled texts: one label, any number of labels, or a number.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Bootstrap, Calibration, ClassReport, Confusion, Interval, RowCounts,
    calibration::Calibrator,
    multilabel::{self, MultiLabelScores, scores_of},
    numbers::{self, RegressionScores},
    tokens::check_row,
};
use crate::{
    Error,
    evaluation::argmax,
    seqeval::{Counts, average, ratio},
};

/// Ranks whose accuracy is told, where there are more labels.
const TOP: [usize; 2] = [3, 5];

/// What a model said of texts, beside what is right.
#[derive(Debug, Clone, Copy)]
pub enum TextPredictions<'a> {
    /// One label a text.
    Class {
        /// Labels by id.
        labels: &'a [String],
        /// Label id by text.
        gold: &'a [usize],
        /// [texts, labels], row-major; the largest is the prediction.
        probabilities: &'a [f32],
    },
    /// Any number of labels a text.
    MultiLabel {
        /// Labels by id.
        labels: &'a [String],
        /// 1 or 0, [texts, labels], row-major.
        gold: &'a [f32],
        /// [texts, labels], row-major.
        probabilities: &'a [f32],
        /// A label is predicted from this probability on; 0.5 is customary.
        threshold: f64,
    },
    /// A number a text.
    Regression {
        /// By text.
        gold: &'a [f32],
        /// By text.
        predicted: &'a [f32],
    },
}

/// Scores of texts that have one label each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassificationScores {
    /// Share of the right predictions.
    pub accuracy: f64,
    /// By class and averaged.
    pub classes: ClassReport,
    /// Which classes were taken for which.
    pub confusion: Confusion,
    /// Share of the texts whose label is among the k most probable, by k.
    pub top_k_accuracy: BTreeMap<usize, f64>,
    /// Of the predicted labels' probabilities.
    pub calibration: Option<Calibration>,
}

/// The part of the report that depends on the task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextScores {
    /// One label a text.
    Class(ClassificationScores),
    /// Any number of labels a text.
    MultiLabel(MultiLabelScores),
    /// A number a text.
    Regression(RegressionScores),
}

/// The report of a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextReport {
    /// Texts.
    pub texts: usize,
    /// By task.
    pub scores: TextScores,
    /// Bootstrap intervals over texts, by the name of the metric.
    pub intervals: BTreeMap<String, Interval>,
    /// Every metric by name.
    pub metrics: BTreeMap<String, f64>,
}

/// Compares predictions with what is right. Arrays must have the shapes described, ids be among the labels, probabilities between
/// 0 and 1, and numbers finite.
pub fn evaluate_texts(predictions: &TextPredictions<'_>, bootstrap: &Bootstrap) -> Result<TextReport, Error> {
    match *predictions {
        TextPredictions::Class { labels, gold, probabilities } => {
            check_shape("probabilities", probabilities, gold.len(), labels.len())?;
            class(labels, gold, probabilities, bootstrap)
        }
        TextPredictions::MultiLabel { labels, gold, probabilities, threshold } => {
            if !(0.0..=1.0).contains(&threshold) {
                return Err(Error::argument("threshold", format!("found {threshold}, expected 0 to 1")));
            }
            let texts = gold.len() / labels.len().max(1);
            check_shape("gold", gold, texts, labels.len())?;
            check_shape("probabilities", probabilities, texts, labels.len())?;
            Ok(multi_label(labels, gold, probabilities, threshold, bootstrap))
        }
        TextPredictions::Regression { gold, predicted } => {
            if gold.len() != predicted.len() {
                let problem = format!("{} values, but there are {} gold values", predicted.len(), gold.len());
                return Err(Error::argument("predicted", problem));
            }
            for (field, values) in [("gold", gold), ("predicted", predicted)] {
                if let Some(row) = values.iter().position(|value| !value.is_finite()) {
                    return Err(Error::argument(field, format!("found {} in row {row}", values[row])));
                }
            }
            Ok(regression(gold, predicted, bootstrap))
        }
    }
}

fn check_shape(field: &'static str, values: &[f32], texts: usize, labels: usize) -> Result<(), Error> {
    if values.len() != texts * labels {
        let problem = format!("{} values, expected {texts} texts times {labels} labels", values.len());
        return Err(Error::argument(field, problem));
    }
    values.chunks_exact(labels.max(1)).enumerate().try_for_each(|(place, row)| check_row(row, place))
}

fn class(labels: &[String], gold: &[usize], probabilities: &[f32], bootstrap: &Bootstrap) -> Result<TextReport, Error> {
    let mut confusion = Confusion::new(labels.to_vec());
    let mut calibrator = Calibrator::default();
    let tops: Vec<usize> = TOP.into_iter().filter(|top| *top < labels.len()).collect();
    let mut within = vec![0; tops.len()];
    // Sums: texts, texts right, then right, predicted and gold of each class.
    let mut rows = RowCounts::new(2 + 3 * labels.len());
    for (index, (gold, row)) in gold.iter().zip(probabilities.chunks_exact(labels.len().max(1))).enumerate() {
        if *gold >= labels.len() {
            let problem = format!("found label id {gold} in row {index}, there are {} labels", labels.len());
            return Err(Error::argument("gold", problem));
        }
        let predicted = argmax(row);
        confusion.add(*gold, predicted);
        calibrator.add(row, *gold, predicted);
        // Of equal probabilities the later label ranks first, as in scikit-learn.
        let before = |(label, p): (usize, &f32)| *p > row[*gold] || (*p == row[*gold] && label > *gold);
        let rank = row.iter().enumerate().filter(|(label, p)| before((*label, *p))).count();
        within.iter_mut().zip(&tops).for_each(|(count, top)| *count += usize::from(rank < *top));
        let right = f64::from(u8::from(*gold == predicted));
        let columns = [(0, 1.0), (1, right), (2 + 3 * gold, right), (3 + 3 * predicted, 1.0), (4 + 3 * gold, 1.0)];
        rows.push(columns);
    }
    let classes = confusion.report(|_| true);
    let accuracy = confusion.accuracy();
    let binary = (labels.len() == 2).then(|| &labels[1]);
    let plain = binary.and_then(|label| scores_of(&classes, label).copied());
    let plain = plain.unwrap_or(if binary.is_some() { Default::default() } else { classes.macro_average });

    let mut metrics = BTreeMap::new();
    let averages = [
        ("", &plain),
        ("_micro", &classes.micro),
        ("_macro", &classes.macro_average),
        ("_weighted", &classes.weighted_average),
    ];
    for row in &classes.classes {
        metrics.insert(format!("{}_f1", row.label), row.scores.f1);
    }
    for (end, scores) in averages {
        metrics.insert(format!("f1{end}"), scores.f1);
        metrics.insert(format!("precision{end}"), scores.precision);
        metrics.insert(format!("recall{end}"), scores.recall);
    }
    metrics.insert("accuracy".to_owned(), accuracy);
    metrics.insert("balanced_accuracy".to_owned(), confusion.balanced_accuracy());
    metrics.insert("matthews_correlation".to_owned(), confusion.matthews_correlation());
    let top_k_accuracy: BTreeMap<usize, f64> =
        tops.into_iter().zip(within).map(|(top, count)| (top, ratio(count, gold.len()))).collect();
    for (top, value) in &top_k_accuracy {
        metrics.insert(format!("top_{top}_accuracy"), *value);
    }
    let calibration = calibrator.finish();
    if let Some(calibration) = &calibration {
        calibration.insert(&mut metrics, "");
    }
    let is_binary = binary.is_some();
    let values = bootstrap.intervals(&rows, |sums| {
        // Each text has one label and one prediction, so micro F1 is accuracy.
        let (_, macro_f1, weighted, of_classes) = averaged(&sums[2..]);
        let plain = if is_binary { of_classes.get(1).copied().unwrap_or(0.0) } else { macro_f1 };
        vec![sums[1] / sums[0], plain, macro_f1, weighted]
    });
    let names = ["accuracy", "f1", "f1_macro", "f1_weighted"].map(str::to_owned);
    let scores = ClassificationScores { accuracy, classes, confusion, top_k_accuracy, calibration };
    let intervals = names.into_iter().zip(values).collect();
    Ok(TextReport { texts: gold.len(), scores: TextScores::Class(scores), intervals, metrics })
}

/// Micro, macro and weighted F1 and those of each class, of sums that hold right, predicted and gold of each class. Classes that
/// occur nowhere have no part in the means.
fn averaged(sums: &[f64]) -> (f64, f64, f64, Vec<f64>) {
    let counts: Vec<Counts> = sums
        .chunks_exact(3)
        .map(|c| Counts { right: c[0] as usize, predicted: c[1] as usize, gold: c[2] as usize })
        .collect();
    let scores: Vec<_> = counts.iter().map(Counts::scores).collect();
    let there = || scores.iter().zip(&counts).filter(|(_, c)| c.predicted + c.gold > 0).map(|(scores, _)| scores);
    (
        counts.iter().copied().sum::<Counts>().scores().f1,
        average(there(), |_| 1.0).f1,
        average(there(), |scores| scores.support as f64).f1,
        scores.iter().map(|scores| scores.f1).collect(),
    )
}

fn multi_label(
    labels: &[String],
    gold: &[f32],
    probabilities: &[f32],
    threshold: f64,
    bootstrap: &Bootstrap,
) -> TextReport {
    let scores = multilabel::evaluate(labels, gold, probabilities, threshold);
    let width = labels.len().max(1);
    // Sums: texts, texts right, then right, predicted and gold of each label.
    let mut rows = RowCounts::new(2 + 3 * labels.len());
    for (gold, probabilities) in gold.chunks_exact(width).zip(probabilities.chunks_exact(width)) {
        let mut cells = vec![(0, 1.0)];
        let mut whole = true;
        for (label, (gold, p)) in gold.iter().zip(probabilities).enumerate() {
            let (gold, predicted) = (*gold >= 0.5, f64::from(*p) >= threshold);
            let one = |yes: bool| f64::from(u8::from(yes));
            whole &= gold == predicted;
            cells.extend([
                (2 + 3 * label, one(gold && predicted)),
                (3 + 3 * label, one(predicted)),
                (4 + 3 * label, one(gold)),
            ]);
        }
        cells.push((1, f64::from(u8::from(whole))));
        rows.push(cells);
    }
    let mut metrics = BTreeMap::new();
    for row in &scores.labels.classes {
        metrics.insert(format!("{}_f1", row.label), row.scores.f1);
    }
    for (end, average) in [
        ("", &scores.labels.micro),
        ("_micro", &scores.labels.micro),
        ("_macro", &scores.labels.macro_average),
        ("_weighted", &scores.labels.weighted_average),
    ] {
        metrics.insert(format!("f1{end}"), average.f1);
        metrics.insert(format!("precision{end}"), average.precision);
        metrics.insert(format!("recall{end}"), average.recall);
    }
    for (name, value) in [
        ("f1_samples", scores.samples_f1),
        ("accuracy", scores.subset_accuracy),
        ("subset_accuracy", scores.subset_accuracy),
        ("hamming_loss", scores.hamming_loss),
        ("average_precision", scores.average_precision_macro),
        ("average_precision_macro", scores.average_precision_macro),
        ("average_precision_micro", scores.average_precision_micro),
    ] {
        metrics.insert(name.to_owned(), value);
    }
    let values = bootstrap.intervals(&rows, |sums| {
        let (micro, _, _, of_labels) = averaged(&sums[2..]);
        // Every label has a row, those that occur nowhere too.
        let macro_f1 = of_labels.iter().sum::<f64>() / of_labels.len().max(1) as f64;
        let accuracy = sums[1] / sums[0];
        vec![micro, micro, macro_f1, accuracy, accuracy]
    });
    let names = ["f1", "f1_micro", "f1_macro", "accuracy", "subset_accuracy"].map(str::to_owned);
    let intervals = names.into_iter().zip(values).collect();
    TextReport { texts: gold.len() / width, scores: TextScores::MultiLabel(scores), intervals, metrics }
}

fn regression(gold: &[f32], predicted: &[f32], bootstrap: &Bootstrap) -> TextReport {
    let scores = numbers::evaluate(gold, predicted);
    let mut metrics: BTreeMap<String, f64> =
        [("mse", scores.mse), ("rmse", scores.rmse), ("mae", scores.mae), ("r2", scores.r2)]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
    for (name, value) in [("pearson", scores.pearson), ("spearman", scores.spearman)] {
        metrics.extend(value.map(|value| (name.to_owned(), value)));
    }
    // Values are taken relative to the means, so that squares of large numbers do not swallow their differences.
    let centre = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len().max(1) as f64;
    let (gold_centre, predicted_centre) = (centre(gold), centre(predicted));
    let mut rows = RowCounts::new(8);
    for (gold, predicted) in gold.iter().zip(predicted) {
        let error = f64::from(*predicted) - f64::from(*gold);
        let (x, y) = (f64::from(*gold) - gold_centre, f64::from(*predicted) - predicted_centre);
        rows.push([1.0, error * error, error.abs(), x, y, x * x, y * y, x * y].into_iter().enumerate());
    }
    let values = bootstrap.intervals(&rows, |sums| {
        let [n, squares, absolute, x, y, xx, yy, xy] = *sums else { return vec![f64::NAN; 5] };
        let spread = xx - x * x / n;
        let pearson = (xy - x * y / n) / (spread * (yy - y * y / n)).sqrt();
        vec![squares / n, (squares / n).sqrt(), absolute / n, numbers::r2(squares, spread), pearson]
    });
    let names = ["mse", "rmse", "mae", "r2", "pearson"].map(str::to_owned);
    let intervals = names.into_iter().zip(values).filter(|(_, interval)| interval.value.is_finite()).collect();
    TextReport { texts: gold.len(), scores: TextScores::Regression(scores), intervals, metrics }
}
