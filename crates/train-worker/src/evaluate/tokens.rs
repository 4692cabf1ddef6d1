//! Tagged words: tags of documents put together from their windows, all scored sentence by sentence.
use quintet_nlp::{
    align::{Encoded, IGNORED},
    metrics::{Bootstrap, Limits, TokenPredictions, TokenTally, evaluate_tokens, worst_sentences},
    rows::Example,
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
    let mut tally = TokenTally::new(labels);
    let mut kept = Kept::default();
    let mut first = First::default();
    let mut start = 0;
    while start < part.rows.len() {
        let chunk = evaluation.chunk(start)?;
        let mut chosen: Vec<Vec<usize>> = vec![Vec::new(); chunk.len()];
        let mut shares: Vec<Vec<f32>> = vec![Vec::new(); chunk.len()];
        let stop = evaluation.logits(&chunk, start, &mut losses, observer, |row, logits| {
            chosen[row] = decoder.decode(&chunk[row], logits);
            shares[row] = decoder.probabilities(&chunk[row], logits);
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
            let rows = (at..end).map(|row| (&chunk[row], shares[row].as_slice()));
            let probabilities = word_shares(rows, sentence.words.len(), labels.len());
            tally.add(&sentence.tags, &predicted, Some(&probabilities))?;
            if depth == Depth::Whole && kept.gold.len() < DETAILED {
                first.predicted.push(named(word_labels([(&chunk[at], chosen[at].as_slice())], labels)));
                first.rows.push(chunk[at].clone());
                first.sentences.push(sentence.clone());
                kept.probabilities.push(probabilities);
                kept.words.push(sentence.words);
                kept.lines.push(sentence.line);
                kept.gold.push(sentence.tags);
                kept.predicted.push(predicted);
            }
            at = end;
        }
        start += chunk.len();
    }
    let details = match depth {
        Depth::Metrics => None,
        Depth::Whole => {
            let Kept { gold, predicted, probabilities, words, lines } = &kept;
            let predictions = TokenPredictions { labels, gold, predicted, probabilities: Some(probabilities) };
            let report = evaluate_tokens(&predictions, &Bootstrap::default())?;
            let words: Vec<&[String]> = words.iter().map(Vec::as_slice).collect();
            let worst = Worst::Sentences(worst_sentences(&predictions, &words, lines, &Limits::default()));
            let report = serde_json::to_value(report).map_err(|_| Error::Internal("a report that is no JSON"))?;
            Some(Details { report, worst })
        }
    };
    let scores = tally.finish();
    let mut metrics = scores.metrics();
    metrics.insert("loss".to_owned(), losses.mean());
    let scores = Scores::Entities { default: scores.default, strict: scores.strict };
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
