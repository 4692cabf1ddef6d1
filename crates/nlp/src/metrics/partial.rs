//! Partial matches of entities as MUC-5 and SemEval-2013 task 9.1 (Segura-Bedmar et al. 2013) count them, in the reading of the
//! Python package `nervaluate` 1.2.1.
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::seqeval::{Entity, Mode, entities};

/// What makes a predicted entity right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schema {
    /// Same words and same type.
    Strict,
    /// Same words, whatever the type.
    Exact,
    /// Same words; some of the words counts half. The type does not matter.
    Partial,
    /// Some of the words and the same type.
    Type,
}

/// Counts of one schema and what follows from them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct MatchScores {
    /// Right.
    pub correct: usize,
    /// Meets a gold entity, but not as the schema asks.
    pub incorrect: usize,
    /// Half right; of [`Schema::Partial`] only.
    pub partial: usize,
    /// Gold entities that no prediction meets.
    pub missed: usize,
    /// Predictions that meet no gold entity.
    pub spurious: usize,
    /// (`correct` + `partial` / 2) / predictions.
    pub precision: f64,
    /// (`correct` + `partial` / 2) / gold entities.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
}

/// All schemas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SchemaScores {
    /// [`Schema::Strict`].
    pub strict: MatchScores,
    /// [`Schema::Exact`].
    pub exact: MatchScores,
    /// [`Schema::Partial`].
    pub partial: MatchScores,
    /// [`Schema::Type`].
    pub r#type: MatchScores,
}

/// The schemas for one entity type: only entities of that type are looked at on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TypeMatches {
    /// The type.
    pub label: String,
    /// Its scores.
    #[serde(flatten)]
    pub scores: SchemaScores,
}

/// Partial matches of all entities and of each type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PartialReport {
    /// All entities.
    pub overall: SchemaScores,
    /// A row for each type found in either, sorted by name.
    pub entities: Vec<TypeMatches>,
}

/// A comparison sentence by sentence. Entities are those of seqeval's default mode.
#[derive(Debug, Clone, Default)]
pub struct PartialTally {
    overall: SchemaScores,
    types: BTreeMap<String, SchemaScores>,
}

impl PartialTally {
    /// Compares the tags of a sentence, as many on both sides.
    pub fn add<S: AsRef<str>>(&mut self, gold: &[S], predicted: &[S]) {
        let (gold, predicted) = (entities(gold, Mode::Default), entities(predicted, Mode::Default));
        self.overall.add(&gold, &predicted);
        let labels: BTreeSet<&str> = gold.iter().chain(&predicted).map(|entity| entity.label).collect();
        for label in labels {
            let scores = self.types.entry(label.to_owned()).or_default();
            scores.add(&only(&gold, label), &only(&predicted, label));
        }
    }

    /// What came out.
    pub fn report(self) -> PartialReport {
        let of_type = |(label, scores): (String, SchemaScores)| TypeMatches { label, scores: scores.finish() };
        PartialReport { overall: self.overall.finish(), entities: self.types.into_iter().map(of_type).collect() }
    }
}

fn only<'a>(all: &[Entity<'a>], label: &str) -> Vec<Entity<'a>> {
    all.iter().filter(|entity| entity.label == label).copied().collect()
}

impl SchemaScores {
    fn add(&mut self, gold: &[Entity<'_>], predicted: &[Entity<'_>]) {
        self.strict.add(Schema::Strict, gold, predicted);
        self.exact.add(Schema::Exact, gold, predicted);
        self.partial.add(Schema::Partial, gold, predicted);
        self.r#type.add(Schema::Type, gold, predicted);
    }

    fn finish(mut self) -> Self {
        [&mut self.strict, &mut self.exact, &mut self.partial, &mut self.r#type]
            .into_iter()
            .for_each(MatchScores::finish);
        self
    }
}

impl MatchScores {
    /// Counts one sentence. Predictions choose in their order among the gold entities that are still free: one that is right as
    /// the schema asks, else the first one they overlap.
    fn add(&mut self, schema: Schema, gold: &[Entity<'_>], predicted: &[Entity<'_>]) {
        let mut free = vec![true; gold.len()];
        for found in predicted {
            let open = || gold.iter().enumerate().filter(|(index, _)| free[*index]);
            let same_span = |other: &Entity<'_>| (found.start, found.end) == (other.start, other.end);
            let right = match schema {
                Schema::Strict => open().find(|(_, other)| **other == *found),
                Schema::Exact | Schema::Partial => open().find(|(_, other)| same_span(other)),
                Schema::Type => open()
                    .filter(|(_, other)| other.label == found.label && overlaps(found, other))
                    .min_by_key(|(_, other)| found.start.abs_diff(other.start) + found.end.abs_diff(other.end)),
            };
            let met = right.or_else(|| open().find(|(_, other)| overlaps(found, other))).map(|(index, _)| index);
            match (right.is_some(), met, schema) {
                (true, _, _) => self.correct += 1,
                (false, Some(_), Schema::Partial) => self.partial += 1,
                (false, Some(_), _) => self.incorrect += 1,
                (false, None, _) => self.spurious += 1,
            }
            if let Some(index) = met {
                free[index] = false;
            }
        }
        self.missed += free.into_iter().filter(|free| *free).count();
    }

    fn finish(&mut self) {
        let met = self.correct + self.incorrect + self.partial;
        let points = self.correct as f64 + 0.5 * self.partial as f64;
        let share = |whole: usize| if whole == 0 { 0.0 } else { points / whole as f64 };
        (self.precision, self.recall) = (share(met + self.spurious), share(met + self.missed));
        let sum = self.precision + self.recall;
        self.f1 = if sum > 0.0 { 2.0 * self.precision * self.recall / sum } else { 0.0 };
    }
}

/// Whether a prediction covers at least a hundredth of a gold entity, the package's default.
fn overlaps(found: &Entity<'_>, gold: &Entity<'_>) -> bool {
    let common = found.end.min(gold.end).saturating_sub(found.start.max(gold.start));
    common > 0 && common * 100 >= gold.end - gold.start
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Made by `tests/peers/nervaluate_golden.py` with nervaluate 1.2.1.
    const GOLDEN: &str = include_str!("../../testdata/nervaluate.json");

    fn equal(ours: &MatchScores, theirs: &Value, place: &str) {
        let ours = serde_json::to_value(ours).unwrap();
        for (key, value) in ours.as_object().unwrap() {
            let (ours, theirs) = (value.as_f64().unwrap(), theirs[key].as_f64().unwrap());
            assert!((ours - theirs).abs() < 1e-12, "{place} {key}: {ours} instead of {theirs}");
        }
    }

    fn all_equal(ours: &SchemaScores, theirs: &Value, place: &str) {
        for (scores, name) in
            [(&ours.strict, "strict"), (&ours.exact, "exact"), (&ours.partial, "partial"), (&ours.r#type, "ent_type")]
        {
            equal(scores, &theirs[name], &format!("{place} {name}"));
        }
    }

    #[test]
    fn equals_nervaluate() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(golden["nervaluate"], "1.2.1");
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() > 50);
        let tags = |value: &Value| -> Vec<Vec<String>> {
            let lines: Vec<String> = serde_json::from_value(value.clone()).unwrap();
            lines.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
        };
        for (number, case) in cases.iter().enumerate() {
            let mut tally = PartialTally::default();
            for (gold, predicted) in tags(&case["gold"]).iter().zip(&tags(&case["predicted"])) {
                tally.add(gold, predicted);
            }
            let report = tally.report();
            all_equal(&report.overall, &case["overall"], &format!("case {number}"));
            let rows = case["entities"].as_object().unwrap();
            assert_eq!(report.entities.len(), rows.len());
            for row in &report.entities {
                all_equal(&row.scores, &rows[&row.label], &format!("case {number} {}", row.label));
            }
        }
    }
}
