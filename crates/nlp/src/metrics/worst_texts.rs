//! The worst labelled texts of a split, for a person to read.
use serde::{Deserialize, Serialize};

use super::{
    Example, Limits, Order, TextPredictions,
    calibration::negative_log,
    worst::{LONGEST_TEXT, shortened},
};

/// Labels shown of a text.
const TOP: usize = 3;

/// A text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorstText {
    /// Line of the data file where it begins, counted from 1.
    pub line: usize,
    /// Wrong labels; 1 for a wrong class, 0 for a number.
    pub errors: usize,
    /// Negative logarithm of the right answer's probability (of several labels their sum); the squared error of a number.
    pub loss: f64,
    /// The text, shortened.
    pub text: String,
    /// Expected: labels, or the number.
    pub gold: Vec<String>,
    /// Predicted, with scores, the best first; a few of the best for a class.
    pub predicted: Vec<(String, f64)>,
}

/// The texts whose answer is wrong (for numbers: all), the worst first. `texts` and `lines` are by text, as the predictions, which
/// must have passed [`super::evaluate_texts`].
pub fn worst_texts(
    predictions: &TextPredictions<'_>,
    texts: &[&str],
    lines: &[usize],
    limits: &Limits,
) -> Vec<WorstText> {
    let mut all: Vec<(usize, WorstText)> = (0..texts.len())
        .filter_map(|index| Some((index, answer(predictions, index)?)))
        .filter(|(_, example)| example.errors > 0 || matches!(predictions, TextPredictions::Regression { .. }))
        .collect();
    all.sort_by(|(_, one), (_, other)| {
        let loss = other.loss.total_cmp(&one.loss);
        match limits.order {
            Order::Loss => loss,
            Order::Errors => other.errors.cmp(&one.errors).then(loss),
        }
    });
    all.truncate(limits.examples);
    all.into_iter()
        .map(|(index, example)| WorstText {
            line: lines.get(index).copied().unwrap_or(0),
            text: shortened(texts[index], LONGEST_TEXT),
            ..example
        })
        .collect()
}

/// One text without what the file says of it.
fn answer(predictions: &TextPredictions<'_>, index: usize) -> Option<WorstText> {
    let example =
        |errors, loss, gold, predicted| WorstText { line: 0, errors, loss, text: String::new(), gold, predicted };
    match *predictions {
        TextPredictions::Class { labels, gold, probabilities } => {
            let row = probabilities.get(index * labels.len()..(index + 1) * labels.len())?;
            let right = *gold.get(index)?;
            let loss = negative_log(f64::from(*row.get(right)?));
            let mut ranked = ranked(labels, row);
            let errors = usize::from(ranked.first()?.0 != labels[right]);
            ranked.truncate(TOP);
            Some(example(errors, loss, vec![labels[right].clone()], ranked))
        }
        TextPredictions::MultiLabel { labels, gold, probabilities, threshold } => {
            let cells = index * labels.len()..(index + 1) * labels.len();
            let (gold, row) = (gold.get(cells.clone())?, probabilities.get(cells)?);
            let (mut errors, mut loss, mut right) = (0, 0.0, Vec::new());
            for ((label, gold), p) in labels.iter().zip(gold).zip(row) {
                let (gold, p) = (*gold >= 0.5, f64::from(*p));
                errors += usize::from(gold != (p >= threshold));
                loss += negative_log(if gold { p } else { 1.0 - p });
                right.extend(gold.then(|| label.clone()));
            }
            let mut ranked = ranked(labels, row);
            ranked.retain(|(_, p)| *p >= threshold);
            Some(example(errors, loss, right, ranked))
        }
        TextPredictions::Regression { gold, predicted } => {
            let (gold, predicted) = (f64::from(*gold.get(index)?), f64::from(*predicted.get(index)?));
            let loss = (predicted - gold).powi(2);
            Some(example(0, loss, vec![gold.to_string()], vec![("value".to_owned(), predicted)]))
        }
    }
}

/// Labels by falling probability.
fn ranked(labels: &[String], row: &[f32]) -> Vec<(String, f64)> {
    let mut all: Vec<(String, f64)> = labels.iter().cloned().zip(row.iter().map(|p| f64::from(*p))).collect();
    all.sort_by(|one, other| other.1.total_cmp(&one.1));
    all
}

impl Example for WorstText {
    fn shown(&self) -> (String, Vec<String>) {
        let errors = match self.errors {
            0 => String::new(),
            1 => "1 error, ".to_owned(),
            many => format!("{many} errors, "),
        };
        let predicted: Vec<String> =
            self.predicted.iter().map(|(label, score)| format!("{} ({score:.3})", shortened(label, 100))).collect();
        let none = |list: String| if list.is_empty() { "(none)".to_owned() } else { list };
        let lines = vec![
            format!("text       {}", self.text),
            format!("gold       {}", none(self.gold.join(", "))),
            format!("predicted  {}", none(predicted.join(", "))),
        ];
        (format!("line {}: {errors}loss {:.3}", self.line, self.loss), lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::markdown;

    fn labels() -> Vec<String> {
        ["x", "y", "z"].map(str::to_owned).to_vec()
    }

    #[test]
    fn confident_mistakes_come_first() {
        let labels = labels();
        let probabilities = [0.5, 0.3, 0.2, 0.9, 0.05, 0.05, 0.2, 0.2, 0.6];
        let predictions = TextPredictions::Class { labels: &labels, gold: &[1, 2, 2], probabilities: &probabilities };
        let texts = ["first", "second\nline", "third"];
        let worst = worst_texts(&predictions, &texts, &[1, 2, 4], &Limits::default());
        assert_eq!(worst.iter().map(|example| example.line).collect::<Vec<_>>(), [2, 1]);
        let text = markdown("Worst texts", &worst);
        let block = "```text\ntext       second line\ngold       z\npredicted  x (0.900), y (0.050), z (0.050)\n```";
        assert!(text.contains(block), "{text}");
    }

    #[test]
    fn label_sets_and_numbers_have_examples_too() {
        let labels = labels();
        let predictions = TextPredictions::MultiLabel {
            labels: &labels,
            gold: &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            probabilities: &[0.4, 0.6, 0.7, 0.1, 0.1, 0.2],
            threshold: 0.5,
        };
        let worst = worst_texts(&predictions, &["a", "b"], &[1, 2], &Limits::default());
        assert_eq!((worst.len(), worst[0].errors, worst[0].predicted[0].0.as_str()), (1, 3, "z"));
        let numbers = TextPredictions::Regression { gold: &[1.0, 2.0], predicted: &[1.5, 5.0] };
        let worst = worst_texts(&numbers, &["a", "b"], &[1, 2], &Limits { examples: 1, ..Limits::default() });
        assert_eq!((worst.len(), worst[0].line, worst[0].loss), (1, 2, 9.0));
        assert!(markdown("t", &worst).contains("## 1. line 2: loss 9.000"));
    }
}
