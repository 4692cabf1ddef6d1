//! Predictions and scores of a split.
use quintet_nlp::{
    align::Encoded,
    batch,
    data::{LabelSet, Sentence},
    seqeval::{Mode, evaluate as seqeval},
};
use tch::Kind;

use crate::{Directive, Error, Observer, SplitReport, loss::Loss, model::Model, parameters::elements};

/// Sub-tokens, padding included, in one batch of an evaluation.
const TOKENS: usize = 4096;

/// A split ready for evaluation.
pub(crate) struct Split {
    pub(crate) name: &'static str,
    pub(crate) sentences: Vec<Sentence>,
    pub(crate) rows: Vec<Encoded>,
}

/// Predicted tags by word, and the scores.
pub(crate) struct Evaluated {
    pub(crate) report: SplitReport,
    pub(crate) predicted: Vec<Vec<String>>,
}

/// Evaluates a split without dropout; none when told to stop meanwhile.
pub(crate) fn evaluate(
    model: &Model,
    split: &Split,
    labels: &LabelSet,
    pad_token_id: usize,
    observer: &mut dyn Observer,
    progress: (u64, u64),
) -> Result<Result<Evaluated, Directive>, Error> {
    let lengths: Vec<usize> = split.rows.iter().map(Encoded::length).collect();
    let longest = lengths.iter().copied().max().unwrap_or(1).max(1);
    let mut predicted = vec![Vec::new(); split.rows.len()];
    // Without weights and smoothing, so that losses of different trials compare.
    let plain = Loss::default();
    let (mut loss, mut counted, mut done) = (0.0, 0usize, 0usize);
    for members in batch::by_length(&lengths, (TOKENS / longest).max(1)) {
        match observer.directive() {
            Directive::Continue => {}
            stop => return Ok(Err(stop)),
        }
        let padded = batch::pad(members.iter().map(|row| &split.rows[*row]), 0, pad_token_id);
        let input = model.input(&padded)?;
        let (sum, chosen) = tch::no_grad(|| -> Result<(f64, Vec<i64>), Error> {
            let logits = model.logits(&input, None, false)?;
            let sum = plain.sum(&logits, &input.wanted)?.f_double_value(&[])?;
            let chosen = logits.f_argmax(-1, false)?.f_to_device(tch::Device::Cpu)?.f_view([-1])?;
            Ok((sum, Vec::try_from(chosen)?))
        })?;
        loss += sum;
        counted += padded.targets.count();
        for (row, chosen) in members.iter().zip(chosen.chunks(padded.length.max(1))) {
            let chosen: Vec<usize> = chosen.iter().map(|label| usize::try_from(*label).unwrap_or(0)).collect();
            let words = split.rows[*row].word_labels(&chosen, labels.outside());
            predicted[*row] = words.iter().filter_map(|label| labels.names().get(*label).cloned()).collect();
        }
        done += members.len();
        let message = format!("evaluating {}: {done} of {} rows", split.name, split.rows.len());
        observer.progress(progress.0, progress.1, "steps", &message);
    }
    let gold: Vec<Vec<String>> = split.sentences.iter().map(|sentence| sentence.tags.clone()).collect();
    let loss = if counted == 0 { 0.0 } else { loss / counted as f64 };
    let (default, strict) = (seqeval(&gold, &predicted, Mode::Default)?, seqeval(&gold, &predicted, Mode::Strict)?);
    let metrics = [
        ("f1", default.micro.f1),
        ("precision", default.micro.precision),
        ("recall", default.micro.recall),
        ("f1_strict", strict.micro.f1),
        ("accuracy", default.accuracy),
        ("loss", loss),
    ];
    let metrics = metrics.map(|(name, value)| (name.to_owned(), value)).into();
    let report = SplitReport { split: split.name.to_owned(), loss, metrics, default, strict };
    Ok(Ok(Evaluated { report, predicted }))
}

/// Logits [rows, length, labels] of rows padded to `length`, without dropout.
pub(crate) fn padded_logits(
    model: &Model,
    rows: &[Encoded],
    length: usize,
    pad_token_id: usize,
) -> Result<Vec<f32>, Error> {
    let mut values = Vec::new();
    for chunk in rows.chunks((TOKENS / length.max(1)).max(1)) {
        let input = model.input(&batch::pad(chunk, length, pad_token_id))?;
        let logits = tch::no_grad(|| model.logits(&input, None, false))?;
        values.extend(elements(&logits.f_to_kind(Kind::Float)?)?);
    }
    Ok(values)
}
