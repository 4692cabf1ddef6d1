//! Tagged words: tags of documents put together from their windows, entities counted sentence by sentence.
use std::collections::BTreeMap;

use quintet_nlp::{
    align::{Encoded, IGNORED},
    metrics::{Bootstrap, Limits, TokenPredictions, evaluate_tokens, worst_sentences},
    rows::Example,
    seqeval::{Mode, Tally},
    task::Target,
    windows::word_labels,
};

use super::{DETAILED, Depth, Details, Evaluated, Evaluation, First, LossSum, Worst};
use crate::{Directive, Error, Observer, SplitReport, report::Scores};

/// Documents for the whole report.
#[derive(Default)]
struct Kept {
    gold: Vec<Vec<String>>,
    predicted: Vec<Vec<String>>,
    probabilities: Vec<Vec<f32>>,
    words: Vec<Vec<String>>,
    lines: Vec<usize>,
}

pub(super) fn run(
    evaluation: &Evaluation<'_>,
    observer: &mut dyn Observer,
) -> Result<Result<Evaluated, Directive>, Error> {
    let Evaluation { part, labels, depth, .. } = *evaluation;
    let named = |ids: Vec<usize>| -> Vec<String> { ids.iter().filter_map(|id| labels.get(*id).cloned()).collect() };
    let decoder = evaluation.model.decoder(labels.len())?;
    let mut losses = LossSum::default();
    let (mut default, mut strict) = (Tally::new(Mode::Default), Tally::new(Mode::Strict));
    let mut kept = Kept::default();
    let mut first = First::default();
    let mut start = 0;
    while start < part.rows.len() {
        let chunk = evaluation.chunk(start)?;
        let mut chosen: Vec<Vec<usize>> = vec![Vec::new(); chunk.len()];
        let mut shares: Vec<Vec<f32>> = vec![Vec::new(); chunk.len()];
        let stop = evaluation.logits(&chunk, start, &mut losses, observer, |row, logits| {
            chosen[row] = decoder.decode(&chunk[row], logits);
            if depth == Depth::Whole && kept.gold.len() < DETAILED {
                shares[row] = decoder.probabilities(&chunk[row], logits);
            }
        })?;
        if stop != Directive::Continue {
            return Ok(Err(stop));
        }
        let mut at = 0;
        while at < chunk.len() {
            let document = part.rows.document(start + at);
            let end = (at..chunk.len()).find(|row| part.rows.document(start + row) != document).unwrap_or(chunk.len());
            let Example::Sentence(sentence) = part.rows.example(document)? else {
                return Err(Error::Internal("a text among sentences"));
            };
            let windows = (at..end).map(|row| (&chunk[row], chosen[row].as_slice()));
            let predicted = named(word_labels(windows, labels));
            default.add(&sentence.tags, &predicted)?;
            strict.add(&sentence.tags, &predicted)?;
            if kept.gold.len() < DETAILED {
                if depth == Depth::Whole {
                    let rows = (at..end).map(|row| (&chunk[row], shares[row].as_slice()));
                    kept.probabilities.push(word_shares(rows, sentence.words.len(), labels.len()));
                    first.predicted.push(named(word_labels([(&chunk[at], chosen[at].as_slice())], labels)));
                    first.rows.push(chunk[at].clone());
                    first.sentences.push(sentence.clone());
                    kept.words.push(sentence.words);
                    kept.lines.push(sentence.line);
                }
                kept.gold.push(sentence.tags);
                kept.predicted.push(predicted);
            }
            at = end;
        }
        start += chunk.len();
    }
    let whole = part.rows.documents() <= DETAILED;
    let (default, strict) = (default.report(), strict.report());
    let mut metrics: BTreeMap<String, f64> = BTreeMap::new();
    let mut details = None;
    if depth == Depth::Whole || whole {
        let bootstrap =
            if depth == Depth::Whole { Bootstrap::default() } else { Bootstrap { resamples: 0, ..Default::default() } };
        let probabilities = (depth == Depth::Whole).then_some(kept.probabilities.as_slice());
        let predictions = TokenPredictions { labels, gold: &kept.gold, predicted: &kept.predicted, probabilities };
        let report = evaluate_tokens(&predictions, &bootstrap)?;
        if whole {
            metrics.clone_from(&report.metrics);
        }
        if depth == Depth::Whole {
            let words: Vec<&[String]> = kept.words.iter().map(Vec::as_slice).collect();
            let worst = Worst::Sentences(worst_sentences(&predictions, &words, &kept.lines, &Limits::default()));
            let report = serde_json::to_value(report).map_err(|_| Error::Internal("a report that is no JSON"))?;
            details = Some(Details { report, worst });
        }
    }
    metrics.extend(
        [
            ("f1", default.micro.f1),
            ("precision", default.micro.precision),
            ("recall", default.micro.recall),
            ("f1_strict", strict.micro.f1),
            ("accuracy", default.accuracy),
            ("loss", losses.mean()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let scores = Scores::Entities { default, strict };
    let report = SplitReport { split: part.name.to_owned(), loss: losses.mean(), metrics, scores };
    Ok(Ok(Evaluated { report, first, details }))
}

/// Probabilities [words, labels] of a document's words out of those of its rows' sub-tokens; 0 for words that the model did not see, or of which it
/// says nothing but what it says of an earlier one.
fn word_shares<'a>(rows: impl Iterator<Item = (&'a Encoded, &'a [f32])>, words: usize, labels: usize) -> Vec<f32> {
    let mut shares = vec![0f32; words * labels];
    for (row, tokens) in rows {
        let Target::Tokens(targets) = &row.target else { continue };
        let places = row.words.iter().zip(targets).zip(tokens.chunks_exact(labels.max(1)));
        for ((word, target), token) in places {
            let word = word.filter(|word| *target != IGNORED && *word < words);
            if let Some(word) = word {
                shares[word * labels..(word + 1) * labels].copy_from_slice(token);
            }
        }
    }
    shares
}
