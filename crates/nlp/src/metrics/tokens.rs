//! Everything that evaluation says of tagged words.
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{
    Bootstrap, Calibration, ClassReport, Confusion, Interval, LengthScores, PartialReport, PartialTally, RowCounts,
    calibration::Calibrator, spans,
};
use crate::{
    Error,
    seqeval::{Counts, Mode, Report, Tally, average, entities, ratio},
};

/// Tags of words, gold and predicted.
#[derive(Debug, Clone, Copy)]
pub struct TokenPredictions<'a> {
    /// Labels by id.
    pub labels: &'a [String],
    /// Tags by sentence and word.
    pub gold: &'a [Vec<String>],
    /// Tags by sentence and word.
    pub predicted: &'a [Vec<String>],
    /// Probabilities by sentence, each [words, labels] row-major; all 0 for a word that the model did not see, which calibration
    /// then leaves out. None: no calibration.
    pub probabilities: Option<&'a [Vec<f32>]>,
}

/// Scores of tagged words, whatever their number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenScores {
    /// Sentences.
    pub sentences: usize,
    /// Words.
    pub words: usize,
    /// Entities in seqeval's default mode.
    pub default: Report,
    /// Entities in seqeval's strict mode with IOB2.
    pub strict: Report,
    /// Partial matches.
    pub partial: PartialReport,
    /// Words by tag, `O` included.
    pub tokens: ClassReport,
    /// Words by tag, `O` left out of rows and averages.
    pub tokens_without_outside: ClassReport,
    /// Which tags were taken for which.
    pub token_confusion: Confusion,
    /// Of all words that the model saw.
    pub calibration: Option<Calibration>,
    /// Of those whose gold or predicted tag is not `O`.
    pub calibration_entities: Option<Calibration>,
}

/// The report of a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenReport {
    /// The scores.
    #[serde(flatten)]
    pub scores: TokenScores,
    /// Which entity types were taken for which.
    pub type_confusion: Confusion,
    /// Entities by their length in words.
    pub by_entity_length: Vec<LengthScores>,
    /// Entities by the length of their sentence in words.
    pub by_sentence_length: Vec<LengthScores>,
    /// Bootstrap intervals over sentences, by the name of the metric.
    pub intervals: BTreeMap<String, Interval>,
    /// Every metric by name.
    pub metrics: BTreeMap<String, f64>,
}

/// Compares predicted with gold tags. Sentences and words must be as many in all lists, and tags be among the labels.
pub fn evaluate_tokens(predictions: &TokenPredictions<'_>, bootstrap: &Bootstrap) -> Result<TokenReport, Error> {
    let TokenPredictions { labels, gold, predicted, probabilities } = *predictions;
    let counts = [("predicted", Some(predicted.len())), ("probabilities", probabilities.map(<[_]>::len))];
    for (field, count) in counts {
        if let Some(count) = count.filter(|count| *count != gold.len()) {
            let problem = format!("{count} sentences, but the gold tags have {}", gold.len());
            return Err(Error::argument(field, problem));
        }
    }
    let mut tally = TokenTally::new(labels);
    for (sentence, (gold, predicted)) in gold.iter().zip(predicted).enumerate() {
        tally.add(gold, predicted, probabilities.map(|probabilities| probabilities[sentence].as_slice()))?;
    }
    let scores = tally.finish();
    Ok(TokenReport {
        type_confusion: spans::type_confusion(gold, predicted),
        by_entity_length: spans::by_entity_length(gold, predicted),
        by_sentence_length: spans::by_sentence_length(gold, predicted),
        intervals: intervals(gold, predicted, &scores.default, bootstrap),
        metrics: scores.metrics(),
        scores,
    })
}

/// A comparison sentence by sentence, for more of them than memory holds.
#[derive(Debug, Clone)]
pub struct TokenTally<'a> {
    labels: &'a [String],
    ids: HashMap<&'a str, usize>,
    sentences: usize,
    default: Tally,
    strict: Tally,
    partial: PartialTally,
    tokens: Confusion,
    all: Calibrator,
    inside: Calibrator,
}

impl<'a> TokenTally<'a> {
    /// Nothing compared yet; labels by id.
    pub fn new(labels: &'a [String]) -> Self {
        Self {
            labels,
            ids: labels.iter().enumerate().map(|(id, label)| (label.as_str(), id)).collect(),
            sentences: 0,
            default: Tally::new(Mode::Default),
            strict: Tally::new(Mode::Strict),
            partial: PartialTally::default(),
            tokens: Confusion::default(),
            all: Calibrator::default(),
            inside: Calibrator::default(),
        }
    }

    /// Compares the tags of a sentence; probabilities as in [`TokenPredictions`].
    pub fn add(&mut self, gold: &[String], predicted: &[String], probabilities: Option<&[f32]>) -> Result<(), Error> {
        self.default.add(gold, predicted)?;
        self.strict.add(gold, predicted)?;
        self.partial.add(gold, predicted);
        for (gold, predicted) in gold.iter().zip(predicted) {
            self.tokens.add_named(gold, predicted);
        }
        if let Some(probabilities) = probabilities {
            self.calibrate(gold, predicted, probabilities)?;
        }
        self.sentences += 1;
        Ok(())
    }

    fn calibrate(&mut self, gold: &[String], predicted: &[String], probabilities: &[f32]) -> Result<(), Error> {
        let (words, labels, sentence) = (gold.len(), self.labels.len(), self.sentences);
        if probabilities.len() != words * labels {
            let count = probabilities.len();
            let problem =
                format!("sentence {sentence} has {count} values, expected {words} words times {labels} labels");
            return Err(Error::argument("probabilities", problem));
        }
        for ((gold, predicted), row) in gold.iter().zip(predicted).zip(probabilities.chunks_exact(labels.max(1))) {
            check_row(row, sentence)?;
            let unseen = row.iter().all(|p| *p == 0.0);
            if unseen {
                continue;
            }
            let (gold_id, predicted_id) = (self.id(gold)?, self.id(predicted)?);
            self.all.add(row, gold_id, predicted_id);
            if gold != "O" || predicted != "O" {
                self.inside.add(row, gold_id, predicted_id);
            }
        }
        Ok(())
    }

    fn id(&self, tag: &str) -> Result<usize, Error> {
        let unknown = || Error::argument("labels", format!("`{tag}` is not among {}", self.labels.join(", ")));
        self.ids.get(tag).copied().ok_or_else(unknown)
    }

    /// What came out.
    pub fn finish(self) -> TokenScores {
        TokenScores {
            sentences: self.sentences,
            words: self.tokens.total(),
            default: self.default.report(),
            strict: self.strict.report(),
            partial: self.partial.report(),
            tokens: self.tokens.report(|_| true),
            tokens_without_outside: self.tokens.report(|label| label != "O"),
            token_confusion: self.tokens,
            calibration: self.all.finish(),
            calibration_entities: self.inside.finish(),
        }
    }
}

/// Refuses what is no probability: a model that has diverged must not look well calibrated.
pub(super) fn check_row(row: &[f32], place: usize) -> Result<(), Error> {
    match row.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        Some(p) => Err(Error::argument("probabilities", format!("found {p} in row {place}, expected 0 to 1"))),
        None => Ok(()),
    }
}

/// Intervals of the metrics that sweeps and papers name most: entities (default and strict), types, and words' accuracy.
fn intervals(
    gold: &[Vec<String>],
    predicted: &[Vec<String>],
    report: &Report,
    bootstrap: &Bootstrap,
) -> BTreeMap<String, Interval> {
    let types: Vec<&str> = report.entities.iter().map(|row| row.label.as_str()).collect();
    // Sums: words, words right, three of the strict mode, then three for each type in the default mode.
    let mut rows = RowCounts::new(5 + 3 * types.len());
    for (gold, predicted) in gold.iter().zip(predicted) {
        let right = gold.iter().zip(predicted).filter(|(gold, predicted)| gold == predicted).count();
        let strict = spans::counted(&entities(gold, Mode::Strict), &entities(predicted, Mode::Strict));
        let mut cells = vec![(0, gold.len()), (1, right), (2, strict.right), (3, strict.predicted), (4, strict.gold)];
        let (gold, predicted) = (entities(gold, Mode::Default), entities(predicted, Mode::Default));
        let first = |label: &str| types.binary_search(&label).ok().map(|index| 5 + 3 * index);
        for entity in &predicted {
            if let Some(first) = first(entity.label) {
                cells.push((first, usize::from(gold.contains(entity))));
                cells.push((first + 1, 1));
            }
        }
        cells.extend(gold.iter().filter_map(|entity| Some((first(entity.label)? + 2, 1))));
        rows.push(cells.into_iter().map(|(column, count)| (column, count as f64)));
    }
    let names = ["f1", "precision", "recall", "accuracy", "f1_strict", "f1_macro"].map(str::to_owned);
    let names = names.into_iter().chain(types.iter().map(|label| format!("{label}_f1")));
    let values = bootstrap.intervals(&rows, |sums| {
        let whole = |index: usize| sums[index] as usize;
        let counts = |first: usize| Counts { right: whole(first), predicted: whole(first + 1), gold: whole(first + 2) };
        let by_type: Vec<Counts> = (0..types.len()).map(|index| counts(5 + 3 * index)).collect();
        let scores: Vec<_> = by_type.iter().map(Counts::scores).collect();
        let micro = by_type.iter().copied().sum::<Counts>().scores();
        // A type that a resample lost has no part in its mean, as in seqeval.
        let there = scores.iter().zip(&by_type).filter(|(_, c)| c.gold + c.predicted > 0).map(|(scores, _)| scores);
        let macro_f1 = average(there, |_| 1.0).f1;
        let strict = counts(2).scores().f1;
        let fixed = [micro.f1, micro.precision, micro.recall, ratio(whole(1), whole(0)), strict, macro_f1];
        fixed.into_iter().chain(scores.iter().map(|scores| scores.f1)).collect()
    });
    names.zip(values).collect()
}

impl TokenScores {
    /// Every metric by name.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let mut metrics = BTreeMap::new();
        // First what carries the name of a type, so that a type's name never hides a metric.
        for row in &self.default.entities {
            metrics.insert(format!("{}_precision", row.label), row.scores.precision);
            metrics.insert(format!("{}_recall", row.label), row.scores.recall);
            metrics.insert(format!("{}_f1", row.label), row.scores.f1);
        }
        let partial = &self.partial.overall;
        for (end, precision, recall, f1) in [
            ("", self.default.micro.precision, self.default.micro.recall, self.default.micro.f1),
            ("_strict", self.strict.micro.precision, self.strict.micro.recall, self.strict.micro.f1),
            ("_exact", partial.exact.precision, partial.exact.recall, partial.exact.f1),
            ("_partial", partial.partial.precision, partial.partial.recall, partial.partial.f1),
            ("_type", partial.r#type.precision, partial.r#type.recall, partial.r#type.f1),
        ] {
            metrics.insert(format!("precision{end}"), precision);
            metrics.insert(format!("recall{end}"), recall);
            metrics.insert(format!("f1{end}"), f1);
        }
        metrics.insert("accuracy".to_owned(), self.default.accuracy);
        for (end, scores) in [("macro", &self.default.macro_average), ("weighted", &self.default.weighted_average)] {
            metrics.insert(format!("precision_{end}"), scores.precision);
            metrics.insert(format!("recall_{end}"), scores.recall);
            metrics.insert(format!("f1_{end}"), scores.f1);
        }
        metrics.insert("f1_strict_macro".to_owned(), self.strict.macro_average.f1);
        for (name, report) in [("token", &self.tokens), ("token_no_o", &self.tokens_without_outside)] {
            metrics.insert(format!("{name}_f1_micro"), report.micro.f1);
            metrics.insert(format!("{name}_f1_macro"), report.macro_average.f1);
            metrics.insert(format!("{name}_f1_weighted"), report.weighted_average.f1);
        }
        metrics.insert("token_f1_macro_gold".to_owned(), self.token_confusion.macro_f1_of_gold());
        for (end, calibration) in [("", &self.calibration), ("_entities", &self.calibration_entities)] {
            if let Some(calibration) = calibration {
                calibration.insert(&mut metrics, end);
            }
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(lines: &[&str]) -> Vec<Vec<String>> {
        lines.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
    }

    fn labels() -> Vec<String> {
        ["O", "B-a", "I-a", "B-b"].map(str::to_owned).to_vec()
    }

    #[test]
    fn every_metric_has_a_direction_and_the_interval_its_value() {
        let (gold, predicted) = (tags(&["O B-a I-a", "B-b O O", "O B-a"]), tags(&["O B-a O", "B-b O B-a", "O B-a"]));
        let labels = labels();
        let probabilities: Vec<Vec<f32>> = predicted
            .iter()
            .map(|sentence| {
                let cells = sentence.iter().flat_map(|tag| labels.iter().map(move |label| label == tag));
                cells.map(|chosen| if chosen { 0.7 } else { 0.1 }).collect()
            })
            .collect();
        let predictions = TokenPredictions {
            labels: &labels,
            gold: &gold,
            predicted: &predicted,
            probabilities: Some(&probabilities),
        };
        let report = evaluate_tokens(&predictions, &Bootstrap::default()).unwrap();
        for name in report.metrics.keys() {
            assert!(super::super::greater_is_better(name).is_some(), "{name}");
        }
        assert_eq!((report.scores.sentences, report.scores.words), (3, 8));
        for (name, interval) in &report.intervals {
            let value = report.metrics[name];
            assert!((interval.value - value).abs() < 1e-12, "{name}: {interval:?}, {value}");
            assert!(interval.lower <= value && value <= interval.upper, "{name}: {interval:?}");
        }
        assert_eq!(report.intervals.len(), 8);
        assert!((report.metrics["f1"] - 4.0 / 7.0).abs() < 1e-12);
        assert!((report.metrics["f1_type"] - 6.0 / 7.0).abs() < 1e-12);
        let ece = report.metrics["ece"];
        assert!((ece - (6.0 / 8.0 - 0.7)).abs() < 1e-6, "{ece}");
        assert_eq!(report.scores.calibration_entities.as_ref().unwrap().count, 5);
        let back: TokenReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(back, report);
    }

    #[test]
    fn words_that_the_model_did_not_see_have_no_confidence() {
        let (gold, predicted, labels) = (tags(&["B-a O"]), tags(&["O O"]), labels());
        let probabilities = vec![vec![0.0, 0.0, 0.0, 0.0, 0.6, 0.2, 0.1, 0.1]];
        let of = |probabilities: &[Vec<f32>]| {
            let probabilities = Some(probabilities);
            let predictions = TokenPredictions { labels: &labels, gold: &gold, predicted: &predicted, probabilities };
            evaluate_tokens(&predictions, &Bootstrap { resamples: 0, ..Bootstrap::default() })
        };
        let report = of(&probabilities).unwrap();
        assert_eq!(report.scores.calibration.unwrap().count, 1);
        assert!(report.scores.calibration_entities.is_none() && report.intervals.is_empty());
        for wrong in [vec![], vec![vec![0.5; 4]], vec![vec![f32::NAN; 8]], vec![vec![1.5; 8]]] {
            assert!(matches!(of(&wrong), Err(Error::Argument { field: "probabilities", .. })), "{wrong:?}");
        }
    }

    #[test]
    fn an_empty_split_has_a_report() {
        let predictions = TokenPredictions { labels: &labels(), gold: &[], predicted: &[], probabilities: Some(&[]) };
        let report = evaluate_tokens(&predictions, &Bootstrap::default()).unwrap();
        assert!(report.metrics.values().all(|value| *value == 0.0), "{:?}", report.metrics);
    }
}
