//! Reports as Markdown tables for a person to read.
use std::fmt::Write as _;

use super::{
    Calibration, ClassReport, Confusion, Interval, LengthScores, MatchScores, TextReport, TextScores, TokenReport,
};
use crate::seqeval::{Report, Scores};

/// Classes beyond which a confusion matrix is shown as a list of its largest mistakes.
const WIDEST_MATRIX: usize = 12;

/// Mistakes listed of a larger matrix.
const LISTED: usize = 20;

/// Markdown under construction; writing to a string cannot fail.
struct Page(String);

impl Page {
    fn heading(&mut self, text: &str) {
        let _ = writeln!(self.0, "\n## {text}\n");
    }

    fn row<S: AsRef<str>>(&mut self, cells: &[S]) {
        let escaped: Vec<String> = cells.iter().map(|cell| cell.as_ref().replace('|', "\\|")).collect();
        let _ = writeln!(self.0, "| {} |", escaped.join(" | "));
    }

    fn head(&mut self, cells: &[&str]) {
        self.row(cells);
        let rules: Vec<&str> = cells.iter().enumerate().map(|(n, _)| if n == 0 { "---" } else { "---:" }).collect();
        self.row(&rules);
    }

    fn scores(&mut self, name: &str, scores: &Scores) {
        let Scores { precision, recall, f1, support } = scores;
        self.row(&[name.to_owned(), number(*precision), number(*recall), number(*f1), support.to_string()]);
    }

    fn intervals<'a>(&mut self, intervals: impl IntoIterator<Item = (&'a String, &'a Interval)>) {
        let mut rows = intervals.into_iter().peekable();
        if rows.peek().is_none() {
            return;
        }
        self.heading("Bootstrap intervals");
        self.head(&["metric", "value", "from", "to"]);
        for (name, Interval { value, lower, upper }) in rows {
            self.row(&[name.clone(), number(*value), number(*lower), number(*upper)]);
        }
    }

    fn entities(&mut self, report: &Report) {
        self.head(&["type", "precision", "recall", "F1", "support"]);
        report.entities.iter().for_each(|row| self.scores(&row.label, &row.scores));
        self.averages(&report.micro, &report.macro_average, &report.weighted_average);
    }

    fn classes(&mut self, report: &ClassReport) {
        self.head(&["class", "precision", "recall", "F1", "support"]);
        report.classes.iter().for_each(|row| self.scores(&row.label, &row.scores));
        self.averages(&report.micro, &report.macro_average, &report.weighted_average);
    }

    fn averages(&mut self, micro: &Scores, macro_average: &Scores, weighted: &Scores) {
        self.scores("**micro**", micro);
        self.scores("**macro**", macro_average);
        self.scores("**weighted**", weighted);
    }

    fn lengths(&mut self, rows: &[LengthScores]) {
        self.head(&["words", "precision", "recall", "F1", "support"]);
        for row in rows {
            let name = match row.to {
                Some(to) if to == row.from => to.to_string(),
                Some(to) => format!("{} to {to}", row.from),
                None => format!("{} and more", row.from),
            };
            self.scores(&name, &row.scores);
        }
    }

    fn confusion(&mut self, matrix: &Confusion) {
        let labels: Vec<&str> = matrix.labels.iter().map(String::as_str).collect();
        if labels.len() <= WIDEST_MATRIX {
            let head: Vec<&str> = std::iter::once("gold \\ predicted").chain(labels.iter().copied()).collect();
            self.head(&head);
            for (label, counts) in labels.iter().zip(&matrix.counts) {
                let cells = counts.iter().map(usize::to_string);
                let row: Vec<String> = std::iter::once((*label).to_owned()).chain(cells).collect();
                self.row(&row);
            }
            return;
        }
        let mut mistakes: Vec<(usize, &str, &str)> = Vec::new();
        for (gold, counts) in labels.iter().zip(&matrix.counts) {
            let off = labels.iter().zip(counts).filter(|(predicted, count)| *predicted != gold && **count > 0);
            mistakes.extend(off.map(|(predicted, count)| (*count, *gold, *predicted)));
        }
        mistakes.sort_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(other.1)));
        self.head(&["gold", "predicted", "times"]);
        for (count, gold, predicted) in mistakes.into_iter().take(LISTED) {
            self.row(&[gold, predicted, &count.to_string()]);
        }
    }

    fn calibration(&mut self, title: &str, calibration: &Calibration) {
        self.heading(title);
        let Calibration { count, ece, adaptive_ece, mce, brier, nll, bins } = calibration;
        let _ = writeln!(
            self.0,
            "{count} predictions: ECE {}, adaptive ECE {}, MCE {}, Brier score {}, negative log likelihood {}.\n",
            number(*ece),
            number(*adaptive_ece),
            number(*mce),
            number(*brier),
            number(*nll)
        );
        self.head(&["confidence", "predictions", "mean confidence", "accuracy"]);
        for bin in bins.iter().filter(|bin| bin.count > 0) {
            let range = format!("{:.2} to {:.2}", bin.lower, bin.upper);
            self.row(&[range, bin.count.to_string(), number(bin.confidence), number(bin.accuracy)]);
        }
    }
}

fn number(value: f64) -> String {
    format!("{value:.4}")
}

impl TokenReport {
    /// The report in Markdown under a title.
    pub fn markdown(&self, title: &str) -> String {
        let mut page =
            Page(format!("# {title}\n\n{} sentences, {} words.\n", self.scores.sentences, self.scores.words));
        page.heading("Entities (seqeval, default mode)");
        page.entities(&self.scores.default);
        page.heading("Entities (seqeval, strict mode, IOB2)");
        page.entities(&self.scores.strict);
        page.intervals(&self.intervals);
        page.heading("Partial matches (SemEval-2013)");
        page.head(&["schema", "correct", "incorrect", "partial", "missed", "spurious", "precision", "recall", "F1"]);
        let schemas = &self.scores.partial.overall;
        for (name, scores) in [
            ("strict", &schemas.strict),
            ("exact", &schemas.exact),
            ("partial", &schemas.partial),
            ("type", &schemas.r#type),
        ] {
            let MatchScores { correct, incorrect, partial, missed, spurious, precision, recall, f1 } = scores;
            let counts = [correct, incorrect, partial, missed, spurious].map(usize::to_string);
            let shares = [precision, recall, f1].map(|value| number(*value));
            let row: Vec<String> = std::iter::once(name.to_owned()).chain(counts).chain(shares).collect();
            page.row(&row);
        }
        page.heading("Types taken for each other");
        page.confusion(&self.type_confusion);
        page.heading("By length of entity");
        page.lengths(&self.by_entity_length);
        page.heading("By length of sentence");
        page.lengths(&self.by_sentence_length);
        page.heading("Words by tag");
        page.classes(&self.scores.tokens);
        if let Some(calibration) = &self.scores.calibration {
            page.calibration("Calibration of all words", calibration);
        }
        if let Some(calibration) = &self.scores.calibration_entities {
            page.calibration("Calibration of words in entities", calibration);
        }
        page.0
    }
}

impl TextReport {
    /// The report in Markdown under a title.
    pub fn markdown(&self, title: &str) -> String {
        let mut page = Page(format!("# {title}\n\n{} texts.\n", self.texts));
        page.heading("Metrics");
        page.head(&["metric", "value"]);
        let of_class = |name: &str| match &self.scores {
            TextScores::Class(scores) => names_class(name, &scores.classes),
            TextScores::MultiLabel(scores) => names_class(name, &scores.labels),
            TextScores::Regression(_) => false,
        };
        for (name, value) in self.metrics.iter().filter(|(name, _)| !of_class(name)) {
            page.row(&[name.clone(), number(*value)]);
        }
        page.intervals(&self.intervals);
        match &self.scores {
            TextScores::Class(scores) => {
                page.heading("Classes");
                page.classes(&scores.classes);
                page.heading("Classes taken for each other");
                page.confusion(&scores.confusion);
                if let Some(calibration) = &scores.calibration {
                    page.calibration("Calibration", calibration);
                }
            }
            TextScores::MultiLabel(scores) => {
                page.heading("Labels");
                page.classes(&scores.labels);
            }
            TextScores::Regression(_) => {}
        }
        page.0
    }
}

/// Whether a metric is that of one class, which has a row of its own.
fn names_class(metric: &str, report: &ClassReport) -> bool {
    metric.strip_suffix("_f1").is_some_and(|label| report.classes.iter().any(|row| row.label == label))
}

#[cfg(test)]
mod tests {
    use super::super::*;

    #[test]
    fn tables_hold_every_part() {
        let tags = |line: &str| vec![line.split(' ').map(str::to_owned).collect::<Vec<_>>()];
        let (gold, predicted) = (tags("B-a|b I-a|b O B-c"), tags("B-a|b O O B-a|b"));
        let labels: Vec<String> = ["O", "B-a|b", "I-a|b", "B-c"].map(str::to_owned).to_vec();
        let probabilities = vec![vec![0.25; 16]];
        let predictions = TokenPredictions {
            labels: &labels,
            gold: &gold,
            predicted: &predicted,
            probabilities: Some(&probabilities),
        };
        let text = evaluate_tokens(&predictions, &Bootstrap::default()).unwrap().markdown("Test split");
        for part in [
            "# Test split\n\n1 sentences, 4 words.",
            "| a\\|b | 0.0000 | 0.0000 | 0.0000 | 1 |",
            "| partial | 1 | 0 | 1 | 0 | 0 | 0.7500 | 0.7500 | 0.7500 |",
            "| c | 1 | 0 | 0 |",
            "| f1_strict | 0.0000 | 0.0000 | 0.0000 |",
            "| 0.20 to 0.27 | 4 | 0.2500 | 0.5000 |",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn many_classes_are_listed_by_their_mistakes() {
        let labels: Vec<String> = (0..20).map(|n| format!("L{n}")).collect();
        let row = |label: usize| (0..20).map(move |n| if n == label { 0.9 } else { 0.005 });
        let probabilities: Vec<f32> = [3, 3, 4].into_iter().flat_map(row).collect();
        let predictions = TextPredictions::Class { labels: &labels, gold: &[5, 5, 4], probabilities: &probabilities };
        let text = evaluate_texts(&predictions, &Bootstrap::default()).unwrap().markdown("Test");
        assert!(text.contains("| L5 | L3 | 2 |") && text.contains("| accuracy | 0.3333 |"), "{text}");
        assert!(!text.contains("| L5_f1 |"), "{text}");
    }
}
