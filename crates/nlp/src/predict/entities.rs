//! Entities from the logits of sub-tokens, as `TokenClassificationPipeline` of `transformers` 4.57 aggregates them; with a CRF by words.
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{PipelineTokenizer, softmax};
use crate::{Error, crf::Crf, evaluation::argmax};

/// How sub-tokens become entities; the names are those of `transformers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AggregationStrategy {
    /// A row for each sub-token.
    None,
    /// Neighbours of one type are joined; the sub-tokens of a word may differ.
    #[default]
    Simple,
    /// As `simple`, each word with the label of its first sub-token.
    First,
    /// As `simple`, each word with the label that its sub-tokens' mean probabilities favour.
    Average,
    /// As `simple`, each word with the label of its most certain sub-token.
    Max,
}

impl AggregationStrategy {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::None, Self::Simple, Self::First, Self::Average, Self::Max];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Simple => "simple",
            Self::First => "first",
            Self::Average => "average",
            Self::Max => "max",
        }
    }

    /// The strategy of a name; the empty name means the default.
    pub fn parse(name: &str) -> Result<Self, Error> {
        if name.is_empty() {
            return Ok(Self::default());
        }
        Self::ALL.into_iter().find(|strategy| strategy.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::argument("aggregation_strategy", format!("found `{name}`, allowed are {names}"))
        })
    }
}

/// One entity, or one sub-token with [`AggregationStrategy::None`]; written as the pipeline's dictionaries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundEntity {
    /// Type without `B-` and `I-`; none for a sub-token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity_group: Option<String>,
    /// Label of a sub-token; none for an entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// Probability: mean over what the entity was joined of.
    pub score: f32,
    /// Place of a sub-token in its row; none for an entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Sub-tokens joined; `start` and `end` give the text itself.
    pub word: String,
    /// First character in the text.
    pub start: usize,
    /// Character after the last.
    pub end: usize,
}

impl FoundEntity {
    /// What `ignore_labels` is compared with.
    fn name(&self) -> &str {
        self.entity_group.as_deref().or(self.entity.as_deref()).unwrap_or_default()
    }
}

/// One row as the model saw it.
#[derive(Debug, Clone, Copy)]
pub struct ScoredRow<'a> {
    /// Vocabulary ids of the sub-tokens.
    pub ids: &'a [i64],
    /// Whether each sub-token is a special one.
    pub special: &'a [bool],
    /// Characters of the text that each sub-token covers.
    pub offsets: &'a [(usize, usize)],
    /// Word of each sub-token; none for special ones.
    pub words: &'a [Option<usize>],
    /// Whether each sub-token is the first one of its word.
    pub first: &'a [bool],
    /// The model's output, [sub-tokens, labels], row-major.
    pub logits: &'a [f32],
}

/// A text and the names that its entities get.
#[derive(Clone, Copy)]
pub struct EntityContext<'a> {
    /// The text in characters.
    pub text: &'a [char],
    /// Labels by id.
    pub labels: &'a [String],
    /// Of the model's tokenizer.
    pub tokenizer: &'a PipelineTokenizer,
    /// How sub-tokens become entities.
    pub strategy: AggregationStrategy,
    /// That of the model's head: words are labelled by their best sequence then, with the probabilities that they have over all
    /// sequences. Every sub-token has the label of its word, whatever the strategy.
    pub crf: Option<&'a Crf>,
    /// Types (labels with [`AggregationStrategy::None`]) to leave out; customarily `O`.
    pub ignore_labels: &'a [String],
}

/// A sub-token, or a word.
#[derive(Clone)]
struct Piece {
    index: usize,
    word: String,
    /// Of each label: probabilities, or with a CRF the logits.
    scores: Vec<f32>,
    range: Range<usize>,
    /// Whether it goes on the word before it, as the pipeline sees words.
    continues: bool,
    /// Its word.
    place: Option<usize>,
    /// Whether it speaks for it.
    first: bool,
}

/// A labelled sub-token or word.
struct Labelled {
    index: usize,
    label: usize,
    score: f32,
    word: String,
    range: Range<usize>,
}

impl EntityContext<'_> {
    /// The entities of a text, given the rows it was cut into (one, unless it is longer than the model and windows overlap).
    pub fn entities(&self, rows: &[ScoredRow<'_>]) -> Result<Vec<FoundEntity>, Error> {
        let mut all = Vec::new();
        for row in rows {
            all.extend(self.row(row)?.into_iter().filter(|entity| !self.is_ignored(entity)));
        }
        Ok(if rows.len() > 1 { merge_overlapping(all) } else { all })
    }

    fn is_ignored(&self, entity: &FoundEntity) -> bool {
        self.ignore_labels.iter().any(|label| label == entity.name())
    }

    fn row(&self, row: &ScoredRow<'_>) -> Result<Vec<FoundEntity>, Error> {
        let width = self.labels.len();
        let count = row.ids.len();
        let others = [row.offsets.len(), row.special.len(), row.words.len(), row.first.len()];
        if row.logits.len() != count * width || others.iter().any(|other| *other != count) {
            let problem = format!("{} values, expected {count} sub-tokens times {width} labels", row.logits.len());
            return Err(Error::argument("logits", problem));
        }
        if let Some(wrong) = row.logits.iter().find(|logit| !logit.is_finite()) {
            return Err(Error::argument("logits", format!("found {wrong}: the model's output is not finite")));
        }
        let pieces = self.pieces(row);
        let labelled = match (self.crf, self.strategy) {
            (Some(crf), _) => self.chained(crf, &pieces)?,
            (None, AggregationStrategy::None | AggregationStrategy::Simple) => {
                pieces.into_iter().map(labelled).collect()
            }
            (None, _) => self.words(&pieces)?,
        };
        if self.strategy == AggregationStrategy::None {
            let found = |piece: Labelled| FoundEntity {
                entity_group: None,
                entity: self.labels.get(piece.label).cloned(),
                score: piece.score,
                index: Some(piece.index),
                word: piece.word,
                start: piece.range.start,
                end: piece.range.end,
            };
            return Ok(labelled.into_iter().map(found).collect());
        }
        // A piece of the same type goes on the group before it, unless it says that it begins one.
        let groups = labelled.chunk_by(|before, next| {
            let (begins, kind) = self.tag(next.label);
            !begins && kind == self.tag(before.label).1
        });
        groups.map(|group| self.group(group)).collect()
    }

    /// The sub-tokens that are not special.
    fn pieces(&self, row: &ScoredRow<'_>) -> Vec<Piece> {
        let width = self.labels.len().max(1);
        let mut pieces = Vec::with_capacity(row.ids.len());
        for (index, logits) in row.logits.chunks_exact(width).enumerate() {
            if row.special[index] {
                continue;
            }
            let id = row.ids[index];
            let end = row.offsets[index].1.min(self.text.len());
            let start = row.offsets[index].0.min(end);
            let token = self.tokenizer.token(id);
            let unknown = self.tokenizer.is_unknown(id);
            let continues = if self.tokenizer.is_word_aware() {
                // The mark of a continuation makes the sub-token longer than the characters it covers.
                token.chars().count() != end - start
            } else {
                let around = start.saturating_sub(1)..(start + 1).min(self.text.len());
                start > 0 && !self.text[around].contains(&' ')
            };
            pieces.push(Piece {
                index,
                word: if unknown { self.text[start..end].iter().collect() } else { token },
                scores: if self.crf.is_some() { logits.to_vec() } else { softmax(logits) },
                range: start..end,
                continues: continues && !unknown,
                place: row.words[index],
                first: row.first[index],
            });
        }
        pieces
    }

    /// Words with the labels of their best sequence, the first sub-token of each word in the chain as in training; or the sub-tokens of such words.
    /// In a window that begins inside a word, what is left of it stands for it.
    fn chained(&self, crf: &Crf, pieces: &[Piece]) -> Result<Vec<Labelled>, Error> {
        if crf.labels() != self.labels.len() {
            let problem = format!("{} labels, but the CRF has {}", self.labels.len(), crf.labels());
            return Err(Error::argument("labels", problem));
        }
        let words: Vec<&[Piece]> =
            pieces.chunk_by(|before, next| next.place.is_some() && before.place == next.place).collect();
        let speaker = |word: &&[Piece]| word.iter().position(|piece| piece.first).unwrap_or(0);
        let emissions: Vec<f32> =
            words.iter().filter_map(|word| word.get(speaker(word))).flat_map(|p| &p.scores).copied().collect();
        let (labels, shares) = (crf.decode(&emissions), crf.marginals(&emissions));
        let mut labelled = Vec::with_capacity(pieces.len());
        for ((word, label), shares) in words.into_iter().zip(labels).zip(shares.chunks_exact(crf.labels())) {
            let score = shares.get(label).copied().unwrap_or_default();
            if self.strategy == AggregationStrategy::None {
                let alike = |piece: &Piece| Labelled {
                    index: piece.index,
                    label,
                    score,
                    word: piece.word.clone(),
                    range: piece.range.clone(),
                };
                labelled.extend(word.iter().map(alike));
            } else {
                labelled.push(self.joined(self.without_blanks(word), label, score)?);
            }
        }
        Ok(labelled)
    }

    /// A word without sub-tokens of white space alone at its ends, which would make it longer than it is.
    fn without_blanks<'p>(&self, word: &'p [Piece]) -> &'p [Piece] {
        let is_word = |piece: &Piece| self.text[piece.range.clone()].iter().any(|c| !c.is_whitespace());
        match (word.iter().position(is_word), word.iter().rposition(is_word)) {
            (Some(first), Some(last)) => &word[first..=last],
            _ => word,
        }
    }

    /// Sub-tokens as one word.
    fn joined(&self, word: &[Piece], label: usize, score: f32) -> Result<Labelled, Error> {
        let (first, last) = ends(word)?;
        let tokens = word.iter().map(|piece| piece.word.clone()).collect();
        let range = first.range.start..last.range.end;
        Ok(Labelled { index: first.index, label, score, word: self.tokenizer.join(tokens)?, range })
    }

    /// Words with one label each.
    fn words(&self, pieces: &[Piece]) -> Result<Vec<Labelled>, Error> {
        let words = pieces.chunk_by(|_, next| next.continues);
        words
            .map(|word| {
                let scores = match self.strategy {
                    AggregationStrategy::Average => mean(word),
                    AggregationStrategy::Max => most_certain(word),
                    _ => word.first().map(|piece| piece.scores.clone()).unwrap_or_default(),
                };
                let label = argmax(&scores);
                self.joined(word, label, scores.get(label).copied().unwrap_or_default())
            })
            .collect()
    }

    fn group(&self, group: &[Labelled]) -> Result<FoundEntity, Error> {
        let (first, last) = ends(group)?;
        let name = self.labels.get(first.label).map(String::as_str).unwrap_or_default();
        Ok(FoundEntity {
            // What follows the first hyphen, whatever precedes it.
            entity_group: Some(name.split_once('-').map_or(name, |(_, kind)| kind).to_owned()),
            entity: None,
            score: group.iter().map(|piece| piece.score).sum::<f32>() / group.len() as f32,
            index: None,
            word: self.tokenizer.join(group.iter().map(|piece| piece.word.clone()).collect())?,
            start: first.range.start,
            end: last.range.end,
        })
    }

    /// Whether a label begins an entity, and its type; a label without `B-` or `I-` goes on.
    fn tag(&self, label: usize) -> (bool, &str) {
        let name = self.labels.get(label).map(String::as_str).unwrap_or_default();
        match name.strip_prefix("B-") {
            Some(kind) => (true, kind),
            None => (false, name.strip_prefix("I-").unwrap_or(name)),
        }
    }
}

fn ends<T>(group: &[T]) -> Result<(&T, &T), Error> {
    group.first().zip(group.last()).ok_or_else(|| Error::argument("logits", "an empty group of sub-tokens"))
}

fn labelled(piece: Piece) -> Labelled {
    let label = argmax(&piece.scores);
    let score = piece.scores.get(label).copied().unwrap_or_default();
    Labelled { index: piece.index, label, score, word: piece.word, range: piece.range }
}

fn mean(word: &[Piece]) -> Vec<f32> {
    let mut sums = vec![0.0; word.first().map_or(0, |piece| piece.scores.len())];
    for piece in word {
        sums.iter_mut().zip(&piece.scores).for_each(|(sum, score)| *sum += score);
    }
    sums.iter_mut().for_each(|sum| *sum /= word.len() as f32);
    sums
}

/// The scores of the sub-token with the largest one, the first of equals.
fn most_certain(word: &[Piece]) -> Vec<f32> {
    let largest = |piece: &Piece| piece.scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let values: Vec<f32> = word.iter().map(largest).collect();
    word.get(argmax(&values)).map(|piece| piece.scores.clone()).unwrap_or_default()
}

/// Of entities that overlap, found in neighbouring windows, the longest stays, of equals the one with the higher score.
fn merge_overlapping(mut all: Vec<FoundEntity>) -> Vec<FoundEntity> {
    // Stable, as Python's.
    all.sort_by_key(|entity| entity.start);
    let mut merged: Vec<FoundEntity> = Vec::with_capacity(all.len());
    for entity in all {
        let length = |entity: &FoundEntity| entity.end - entity.start;
        match merged.last_mut() {
            Some(before) if before.start <= entity.start && entity.start < before.end => {
                let (new, old) = (length(&entity), length(before));
                if new > old || (new == old && entity.score > before.score) {
                    *before = entity;
                }
            }
            _ => merged.push(entity),
        }
    }
    merged
}
