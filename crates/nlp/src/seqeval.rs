//! Entity-level precision, recall and F1 exactly as `seqeval` 1.2.2 for Python computes them, in its default mode and in
//! `mode="strict", scheme=IOB2`.
use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::Error;

/// What counts as an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// As conlleval: an `I-TYPE` that does not go on an entity of its type opens one.
    Default,
    /// Only entities that begin with `B-TYPE`; an `I-TYPE` that goes on none counts as `O`.
    Strict,
}

/// Precision, recall and F1 (0 where nothing was there to divide by), and the number of entities in the gold tags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Part of the predicted entities that are right.
    pub precision: f64,
    /// Part of the gold entities that are found.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Gold entities.
    pub support: usize,
}

/// Scores of one entity type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EntityScores {
    /// The type.
    pub label: String,
    /// Its scores.
    #[serde(flatten)]
    pub scores: Scores,
}

/// The whole report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What counted as an entity.
    pub mode: Mode,
    /// Rows of all types found in either, sorted by name.
    pub entities: Vec<EntityScores>,
    /// All entities pooled.
    pub micro: Scores,
    /// Mean over the rows.
    pub macro_average: Scores,
    /// Mean over the rows weighted by support.
    pub weighted_average: Scores,
    /// Part of the words whose tag is right.
    pub accuracy: f64,
}

/// What precision, recall and F1 are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// In both.
    pub(crate) right: usize,
    /// In the predictions.
    pub(crate) predicted: usize,
    /// In the gold labels.
    pub(crate) gold: usize,
}

/// Compares predicted tags with gold tags, one list a sentence. Sentences and words must be as many in both.
pub fn evaluate<S: AsRef<str>>(gold: &[Vec<S>], predicted: &[Vec<S>], mode: Mode) -> Result<Report, Error> {
    if gold.len() != predicted.len() {
        let problem = format!("{} sentences, but the gold tags have {}", predicted.len(), gold.len());
        return Err(Error::argument("predicted", problem));
    }
    let mut tally = Tally::new(mode);
    for (gold, predicted) in gold.iter().zip(predicted) {
        tally.add(gold, predicted)?;
    }
    Ok(tally.report())
}

/// A comparison sentence by sentence, for more of them than memory holds.
#[derive(Debug, Clone)]
pub struct Tally {
    mode: Mode,
    counts: BTreeMap<String, Counts>,
    sentences: usize,
    words: usize,
    right: usize,
}

impl Tally {
    /// Nothing compared yet.
    pub fn new(mode: Mode) -> Self {
        Self { mode, counts: BTreeMap::new(), sentences: 0, words: 0, right: 0 }
    }

    /// Compares the tags of a sentence; there must be as many in both.
    pub fn add<S: AsRef<str>>(&mut self, gold: &[S], predicted: &[S]) -> Result<(), Error> {
        if gold.len() != predicted.len() {
            let (index, words) = (self.sentences, predicted.len());
            let problem = format!("sentence {index} has {words} words, in the gold tags {}", gold.len());
            return Err(Error::argument("predicted", problem));
        }
        self.sentences += 1;
        self.words += gold.len();
        self.right +=
            gold.iter().zip(predicted).filter(|(gold, predicted)| gold.as_ref() == predicted.as_ref()).count();
        let expected: HashSet<Entity<'_>> = entities(gold, self.mode).into_iter().collect();
        for entity in entities(predicted, self.mode) {
            let entry = self.counts.entry(entity.label.to_owned()).or_default();
            entry.predicted += 1;
            entry.right += usize::from(expected.contains(&entity));
        }
        for entity in expected {
            self.counts.entry(entity.label.to_owned()).or_default().gold += 1;
        }
        Ok(())
    }

    /// What came out.
    pub fn report(&self) -> Report {
        let rows = self.counts.iter();
        let entities: Vec<EntityScores> =
            rows.map(|(label, counts)| EntityScores { label: label.clone(), scores: counts.scores() }).collect();
        let pooled: Counts = self.counts.values().copied().sum();
        Report {
            mode: self.mode,
            micro: pooled.scores(),
            macro_average: average(entities.iter().map(|row| &row.scores), |_| 1.0),
            weighted_average: average(entities.iter().map(|row| &row.scores), |scores| scores.support as f64),
            entities,
            accuracy: ratio(self.right, self.words),
        }
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, counts| Self {
            right: sum.right + counts.right,
            predicted: sum.predicted + counts.predicted,
            gold: sum.gold + counts.gold,
        })
    }
}

impl Counts {
    pub(crate) fn scores(&self) -> Scores {
        let (precision, recall) = (ratio(self.right, self.predicted), ratio(self.right, self.gold));
        let sum = precision + recall;
        let f1 = if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 };
        Scores { precision, recall, f1, support: self.gold }
    }
}

/// A part of a whole; 0 of nothing.
pub(crate) fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Weighted mean of scores; 0 when all weights are 0. The support is the sum.
pub(crate) fn average<'a>(rows: impl Iterator<Item = &'a Scores> + Clone, weight: impl Fn(&Scores) -> f64) -> Scores {
    let total: f64 = rows.clone().map(&weight).sum();
    let mean = |value: fn(&Scores) -> f64| {
        let sum: f64 = rows.clone().map(|scores| value(scores) * weight(scores)).sum();
        if total > 0.0 { sum / total } else { 0.0 }
    };
    Scores {
        precision: mean(|scores| scores.precision),
        recall: mean(|scores| scores.recall),
        f1: mean(|scores| scores.f1),
        support: rows.map(|scores| scores.support).sum(),
    }
}

/// An entity: its type and the half-open range of its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entity<'a> {
    /// The type.
    pub label: &'a str,
    /// First word.
    pub start: usize,
    /// Word after the last.
    pub end: usize,
}

/// The entities of one sentence in order.
pub fn entities<S: AsRef<str>>(tags: &[S], mode: Mode) -> Vec<Entity<'_>> {
    let mut found = Vec::new();
    let mut open: Option<Entity<'_>> = None;
    for (index, tag) in tags.iter().enumerate() {
        let (prefix, label) = split(tag.as_ref());
        let goes_on = prefix == Prefix::Inside && open.is_some_and(|entity| entity.label == label);
        if goes_on {
            continue;
        }
        if let Some(entity) = open.take() {
            found.push(Entity { end: index, ..entity });
        }
        let opens = prefix == Prefix::Begin || (prefix == Prefix::Inside && mode == Mode::Default);
        if opens {
            open = Some(Entity { label, start: index, end: index });
        }
    }
    if let Some(entity) = open {
        found.push(Entity { end: tags.len(), ..entity });
    }
    found
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Outside,
    Begin,
    Inside,
}

/// Prefix and type; a tag without a type has the type `_`, as in `seqeval`.
fn split(tag: &str) -> (Prefix, &str) {
    let (prefix, rest) = match tag.chars().next() {
        Some('B') => (Prefix::Begin, &tag[1..]),
        Some('I') => (Prefix::Inside, &tag[1..]),
        _ => return (Prefix::Outside, "_"),
    };
    let label = rest.split_once('-').map_or(rest, |(_, label)| label);
    (prefix, if label.is_empty() { "_" } else { label })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Made by `tests/peers/seqeval_golden.py` with seqeval 1.2.2.
    const GOLDEN: &str = include_str!("../testdata/seqeval.json");

    fn tags(value: &Value) -> Vec<Vec<String>> {
        serde_json::from_value(value.clone()).unwrap()
    }

    fn close(ours: &Scores, theirs: &Value, place: &str) {
        for (name, value) in [("precision", ours.precision), ("recall", ours.recall), ("f1-score", ours.f1)] {
            let expected = theirs[name].as_f64().unwrap();
            assert!((value - expected).abs() < 1e-12, "{place} {name}: {value} instead of {expected}");
        }
        assert_eq!(ours.support as u64, theirs["support"].as_u64().unwrap(), "{place}");
    }

    #[test]
    fn equals_seqeval_in_both_modes() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(golden["seqeval"], "1.2.2");
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() > 50);
        for (number, case) in cases.iter().enumerate() {
            for (mode, key) in [(Mode::Default, "default"), (Mode::Strict, "strict")] {
                let place = format!("case {number} {key}");
                let report = evaluate(&tags(&case["gold"]), &tags(&case["predicted"]), mode).unwrap();
                let expected = &case[key];
                let rows = expected["rows"].as_object().unwrap();
                assert_eq!(
                    report.entities.iter().map(|row| &row.label).collect::<Vec<_>>(),
                    rows.keys().collect::<Vec<_>>(),
                    "{place}"
                );
                for row in &report.entities {
                    close(&row.scores, &rows[&row.label], &format!("{place} {}", row.label));
                }
                close(&report.micro, &expected["micro"], &place);
                close(&report.macro_average, &expected["macro"], &place);
                close(&report.weighted_average, &expected["weighted"], &place);
                assert!((report.accuracy - case["accuracy"].as_f64().unwrap()).abs() < 1e-12, "{place}");
            }
        }
    }

    #[test]
    fn modes_differ_on_stray_tags() {
        let tags = ["O", "I-a", "I-a", "I-b", "B-b", "I-a"];
        let found = |mode| entities(&tags, mode).iter().map(|e| (e.label, e.start, e.end)).collect::<Vec<_>>();
        assert_eq!(found(Mode::Default), [("a", 1, 3), ("b", 3, 4), ("b", 4, 5), ("a", 5, 6)]);
        assert_eq!(found(Mode::Strict), [("b", 4, 5)]);
    }

    #[test]
    fn unequal_lengths_are_refused() {
        let gold = [vec!["O"], vec!["O", "O"]];
        assert!(evaluate(&gold, &[vec!["O"]], Mode::Default).is_err());
        assert!(evaluate(&gold, &[vec!["O"], vec!["O"]], Mode::Default).is_err());
        let empty: [Vec<&str>; 0] = [];
        assert_eq!(evaluate(&empty, &empty, Mode::Strict).unwrap().micro, Scores::default());
    }

    fn sentences() -> impl proptest::strategy::Strategy<Value = Vec<(Vec<String>, Vec<String>)>> {
        use proptest::prelude::*;
        let tag = || proptest::sample::select(vec!["O", "B-a", "I-a", "B-b", "I-b"]).prop_map(str::to_owned);
        let pair = proptest::collection::vec((tag(), tag()), 0..12).prop_map(|words| words.into_iter().unzip());
        proptest::collection::vec(pair, 0..8)
    }

    proptest::proptest! {
        #[test]
        fn scores_obey_their_laws(rows in sentences()) {
            let (gold, predicted): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            for mode in [Mode::Default, Mode::Strict] {
                let there = evaluate(&gold, &predicted, mode).unwrap();
                let back = evaluate(&predicted, &gold, mode).unwrap();
                // Swapping the sides swaps precision and recall.
                proptest::prop_assert_eq!(there.micro.precision, back.micro.recall);
                proptest::prop_assert!((there.micro.f1 - back.micro.f1).abs() < 1e-12);
                let itself = evaluate(&gold, &gold, mode).unwrap();
                proptest::prop_assert!(itself.micro.f1 == 1.0 || itself.micro.support == 0);
                // Pooling does not depend on how sentences are ordered.
                let reversed: (Vec<_>, Vec<_>) = gold.iter().cloned().rev().zip(predicted.iter().cloned().rev()).unzip();
                proptest::prop_assert_eq!(evaluate(&reversed.0, &reversed.1, mode).unwrap(), there);
            }
            // Entities of the strict mode are entities of the default mode, unless a stray tag went before.
            for tags in &predicted {
                let lenient = entities(tags, Mode::Default);
                proptest::prop_assert!(entities(tags, Mode::Strict).iter().all(|entity| lenient.contains(entity)));
            }
        }
    }
}
