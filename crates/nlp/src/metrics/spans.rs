//! Entities by type and by length: which types are taken for which, and how scores depend on the length of entities and sentences.
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Confusion;
use crate::seqeval::{Counts, Entity, Mode, Scores, entities};

/// Name of the class that stands for no entity.
pub const NONE: &str = "O";

/// Entities of this many words and more share a row.
const LONG_ENTITY: usize = 6;

/// Longest sentence of each row but the last, in words.
const SENTENCE_LENGTHS: [usize; 5] = [10, 20, 40, 80, 160];

/// Scores of entities, or of the entities of sentences, of certain lengths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LengthScores {
    /// Shortest length in words.
    pub from: usize,
    /// Longest length in words; none for all above.
    pub to: Option<usize>,
    /// Scores of the entities: precision of the predicted ones, recall of the gold ones.
    #[serde(flatten)]
    pub scores: Scores,
}

/// A predicted entity beside the gold entity that it meets, or one of them alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    /// None: spurious.
    pub gold: Option<Entity<'a>>,
    /// None: missed.
    pub predicted: Option<Entity<'a>>,
}

/// Pairs the entities of one sentence, each with one other at most: those of the same words first, then those that share the
/// most words (of equals the first). Sorted by position.
pub fn pair<'a>(gold: &[Entity<'a>], predicted: &[Entity<'a>]) -> Vec<Pair<'a>> {
    let common =
        |one: &Entity<'_>, other: &Entity<'_>| one.end.min(other.end).saturating_sub(one.start.max(other.start));
    let same = |one: &Entity<'_>, other: &Entity<'_>| (one.start, one.end) == (other.start, other.end);
    let mut candidates: Vec<(bool, usize, usize, usize)> = Vec::new();
    for (g, one) in gold.iter().enumerate() {
        for (p, other) in predicted.iter().enumerate() {
            if common(one, other) > 0 {
                candidates.push((!same(one, other), usize::MAX - common(one, other), g, p));
            }
        }
    }
    candidates.sort_unstable();
    let (mut gold_of, mut taken) = (vec![None; predicted.len()], vec![false; gold.len()]);
    for (_, _, g, p) in candidates {
        if !taken[g] && gold_of[p].is_none() {
            taken[g] = true;
            gold_of[p] = Some(g);
        }
    }
    let mut pairs: Vec<Pair<'a>> = predicted
        .iter()
        .zip(gold_of)
        .map(|(found, g)| Pair { gold: g.map(|g| gold[g]), predicted: Some(*found) })
        .collect();
    let missed = gold.iter().zip(taken).filter(|(_, taken)| !taken);
    pairs.extend(missed.map(|(gold, _)| Pair { gold: Some(*gold), predicted: None }));
    let start = |entity: Option<Entity<'_>>| entity.map_or(usize::MAX, |entity| entity.start);
    pairs.sort_by_key(|pair| start(pair.gold).min(start(pair.predicted)));
    pairs
}

/// Which entity types are taken for which, over the pairs of [`pair`]; [`NONE`], the last class, stands for missed and spurious.
pub fn type_confusion<S: AsRef<str>>(gold: &[Vec<S>], predicted: &[Vec<S>]) -> Confusion {
    let both: Vec<_> = gold.iter().zip(predicted).map(|(gold, predicted)| found(gold, predicted)).collect();
    let types: BTreeSet<&str> =
        both.iter().flat_map(|(gold, predicted)| gold.iter().chain(predicted)).map(|entity| entity.label).collect();
    let types: Vec<&str> = types.into_iter().collect();
    let class = |entity: Option<Entity<'_>>| {
        entity.and_then(|entity| types.binary_search(&entity.label).ok()).unwrap_or(types.len())
    };
    let mut matrix = Confusion::new(types.iter().copied().chain([NONE]).map(str::to_owned).collect());
    for (gold, predicted) in &both {
        pair(gold, predicted).iter().for_each(|pair| matrix.add(class(pair.gold), class(pair.predicted)));
    }
    matrix
}

/// Scores by the length of entities in words, lengths without any entity left out.
pub fn by_entity_length<S: AsRef<str>>(gold: &[Vec<S>], predicted: &[Vec<S>]) -> Vec<LengthScores> {
    let mut rows: BTreeMap<usize, Counts> = BTreeMap::new();
    for (gold, predicted) in gold.iter().zip(predicted) {
        let (gold, predicted) = found(gold, predicted);
        let length = |entity: &Entity<'_>| (entity.end - entity.start).min(LONG_ENTITY);
        for entity in &gold {
            rows.entry(length(entity)).or_default().gold += 1;
        }
        for entity in &predicted {
            let row = rows.entry(length(entity)).or_default();
            row.predicted += 1;
            row.right += usize::from(gold.contains(entity));
        }
    }
    rows.into_iter()
        .map(|(length, counts)| LengthScores {
            from: length,
            to: (length < LONG_ENTITY).then_some(length),
            scores: counts.scores(),
        })
        .collect()
}

/// Scores by the length of sentences in words, lengths without any sentence left out.
pub fn by_sentence_length<S: AsRef<str>>(gold: &[Vec<S>], predicted: &[Vec<S>]) -> Vec<LengthScores> {
    let mut rows: BTreeMap<usize, Counts> = BTreeMap::new();
    for (gold, predicted) in gold.iter().zip(predicted) {
        let row = SENTENCE_LENGTHS.iter().position(|longest| gold.len() <= *longest).unwrap_or(SENTENCE_LENGTHS.len());
        let counts = rows.entry(row).or_default();
        let (gold, predicted) = found(gold, predicted);
        *counts = [*counts, counted(&gold, &predicted)].into_iter().sum();
    }
    rows.into_iter()
        .map(|(row, counts)| LengthScores {
            from: row.checked_sub(1).map_or(1, |before| SENTENCE_LENGTHS[before] + 1),
            to: SENTENCE_LENGTHS.get(row).copied(),
            scores: counts.scores(),
        })
        .collect()
}

/// Counts of exact matches in one sentence.
pub(crate) fn counted(gold: &[Entity<'_>], predicted: &[Entity<'_>]) -> Counts {
    let right = predicted.iter().filter(|entity| gold.contains(entity)).count();
    Counts { right, predicted: predicted.len(), gold: gold.len() }
}

fn found<'a, S: AsRef<str>>(gold: &'a [S], predicted: &'a [S]) -> (Vec<Entity<'a>>, Vec<Entity<'a>>) {
    (entities(gold, Mode::Default), entities(predicted, Mode::Default))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(lines: &[&'static str]) -> Vec<Vec<&'static str>> {
        lines.iter().map(|line| line.split(' ').collect()).collect()
    }

    #[test]
    fn types_are_confused_where_words_are_shared() {
        let gold = tags(&["B-a I-a O B-b O B-a", "B-a I-a I-a I-a"]);
        let predicted = tags(&["B-a O O B-a B-b O", "B-b B-a I-a O"]);
        let matrix = type_confusion(&gold, &predicted);
        assert_eq!(matrix.labels, ["a", "b", "O"]);
        // a: met twice (in the second sentence by the longer of two), missed once; b taken for a; b twice out of nothing.
        assert_eq!(matrix.counts, [[2, 0, 1], [1, 0, 0], [0, 2, 0]]);
        let pairs = pair(&entities(&gold[1], Mode::Default), &entities(&predicted[1], Mode::Default));
        assert_eq!(pairs.iter().map(|pair| pair.gold.is_some()).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn same_words_pair_before_longer_overlaps() {
        let entity = |label, start, end| Entity { label, start, end };
        let pairs = pair(&[entity("a", 0, 1), entity("b", 1, 6)], &[entity("c", 0, 6), entity("b", 0, 1)]);
        let names: Vec<_> =
            pairs.iter().map(|pair| (pair.gold.unwrap().label, pair.predicted.unwrap().label)).collect();
        assert_eq!(names.len(), 2);
        assert!(names.contains(&("b", "c")) && names.contains(&("a", "b")), "{names:?}");
    }

    #[test]
    fn lengths_have_rows_of_their_own() {
        let long = "B-a I-a I-a I-a I-a I-a I-a O O O O";
        let (gold, predicted) = (tags(&["B-a O B-a I-a", long]), tags(&["B-a O B-a O", long]));
        let rows = by_entity_length(&gold, &predicted);
        let brief: Vec<_> =
            rows.iter().map(|r| (r.from, r.to, r.scores.precision, r.scores.recall, r.scores.support)).collect();
        assert_eq!(brief, [(1, Some(1), 0.5, 1.0, 1), (2, Some(2), 0.0, 0.0, 1), (6, None, 1.0, 1.0, 1)]);
        let rows = by_sentence_length(&gold, &predicted);
        let brief: Vec<_> = rows.iter().map(|r| (r.from, r.to, r.scores.f1)).collect();
        assert_eq!(brief, [(1, Some(10), 0.5), (11, Some(20), 1.0)]);
    }

    proptest::proptest! {
        #[test]
        fn every_entity_is_in_one_pair(rows in proptest::collection::vec((0usize..5, 0usize..5), 0..20)) {
            let names = ["O", "B-a", "I-a", "B-b", "I-b"];
            let (gold, predicted): (Vec<&str>, Vec<&str>) = rows.iter().map(|(g, p)| (names[*g], names[*p])).unzip();
            let (gold, predicted) = found(&gold, &predicted);
            let pairs = pair(&gold, &predicted);
            let of = |side: fn(&Pair<'_>) -> Option<(usize, usize)>| -> Vec<(usize, usize)> {
                let mut all: Vec<_> = pairs.iter().filter_map(side).collect();
                all.sort_unstable();
                all
            };
            let spans = |all: &[Entity<'_>]| all.iter().map(|e| (e.start, e.end)).collect::<Vec<_>>();
            proptest::prop_assert_eq!(of(|pair| pair.gold.map(|e| (e.start, e.end))), spans(&gold));
            proptest::prop_assert_eq!(of(|pair| pair.predicted.map(|e| (e.start, e.end))), spans(&predicted));
        }
    }
}
