//! Runs a model on the trainer's evaluation rows and compares: logits and tags with the trainer's, tags with the gold ones.

use std::path::Path;

use quintet_nlp::{
    align::Encoded,
    batch,
    checkpoint::EncoderConfig,
    evaluation::EvaluationSet,
    seqeval::{self, Mode},
};
use quintet_onnx::{Batch, Classifier, Options};

use crate::{Error, Observer};

/// Rows of a batch; rows of similar length share one, so that padding says little about a quantized model's tensors.
const BATCH: usize = 16;

/// How a model did.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Against the trainer's logits, tokens only.
    pub(crate) max_difference: f64,
    /// Share of words with the trainer's tag.
    pub(crate) agreement: f64,
    /// Against the gold tags.
    pub(crate) f1: f64,
}

/// Refuses rows that do not belong to the checkpoint.
pub(crate) fn check(set: &EvaluationSet, config: &EncoderConfig) -> Result<(), Error> {
    let description = &set.description;
    let refuse = |problem: String| Err(Error::Evaluation(problem));
    if description.rows == 0 || description.logit_rows == 0 || description.length == 0 {
        return refuse(format!(
            "{} rows, {} of them with logits; at least one is needed",
            description.rows, description.logit_rows
        ));
    }
    if description.logit_rows > description.rows {
        return refuse(format!("logits of {} rows, but only {} rows", description.logit_rows, description.rows));
    }
    if description.labels != config.labels {
        return refuse(format!(
            "its labels {:?} are not those of the checkpoint's config.json, {:?}",
            description.labels, config.labels
        ));
    }
    if description.length > config.max_length() {
        return refuse(format!(
            "rows of {} sub-tokens, but the checkpoint takes at most {}",
            description.length,
            config.max_length()
        ));
    }
    match set.input_ids.iter().find(|id| !(0..config.vocab_size as i64).contains(*id)) {
        Some(id) => refuse(format!("token id {id}, but the checkpoint's vocabulary has {} tokens", config.vocab_size)),
        None => Ok(()),
    }
}

/// Runs every row; the observer hears rows done.
pub(crate) fn run(
    path: &Path,
    threads: usize,
    set: &EvaluationSet,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let mut classifier = Classifier::open(path, Options { threads })?;
    let max_difference = logit_difference(&mut classifier, set, observer)?;
    let tags = tags(&mut classifier, set, observer)?;
    let agreement = agreement(&tags, &set.description.predicted_tags);
    Ok(Outcome { max_difference, agreement, f1: f1(set, &tags)? })
}

/// Entity-level F1 of these tags, micro-averaged.
pub(crate) fn f1(set: &EvaluationSet, tags: &[Vec<String>]) -> Result<f64, Error> {
    Ok(seqeval::evaluate(&set.description.gold_tags, tags, Mode::Default)?.micro.f1)
}

/// Share of words with the same tag in both.
fn agreement(tags: &[Vec<String>], others: &[Vec<String>]) -> f64 {
    let pairs = || tags.iter().flatten().zip(others.iter().flatten());
    let equal = pairs().filter(|(tag, other)| tag == other).count();
    equal as f64 / pairs().count().max(1) as f64
}

/// Largest absolute difference from the trainer's logits, the rows padded as the trainer padded them. Not a number when
/// either side has such a value.
fn logit_difference(
    classifier: &mut Classifier,
    set: &EvaluationSet,
    observer: &mut dyn Observer,
) -> Result<f64, Error> {
    let description = &set.description;
    let (length, labels) = (description.length, description.labels.len());
    let mut largest = 0f64;
    for first in (0..description.logit_rows).step_by(BATCH) {
        stop(observer)?;
        let rows = BATCH.min(description.logit_rows - first);
        let cells = first * length..(first + rows) * length;
        let logits = classifier.run(&Batch {
            rows,
            length,
            input_ids: &set.input_ids[cells.clone()],
            attention_mask: &set.attention_mask[cells.clone()],
            token_type_ids: &set.token_type_ids[cells.clone()],
        })?;
        if logits.shape != [rows, length, labels] {
            let problem = format!("logits have shape {:?}, expected {:?}", logits.shape, [rows, length, labels]);
            return Err(Error::Verification { problems: vec![problem] });
        }
        let expected = &set.logits[cells.start * labels..cells.end * labels];
        let mask = set.attention_mask[cells].iter().flat_map(|mask| std::iter::repeat_n(*mask, labels));
        for ((found, expected), _) in logits.values.iter().zip(expected).zip(mask).filter(|(_, mask)| *mask == 1) {
            let difference = f64::from((found - expected).abs());
            if difference.is_nan() {
                return Ok(f64::NAN);
            }
            largest = largest.max(difference);
        }
    }
    Ok(largest)
}

fn tags(
    classifier: &mut Classifier,
    set: &EvaluationSet,
    observer: &mut dyn Observer,
) -> Result<Vec<Vec<String>>, Error> {
    let description = &set.description;
    let damaged = |row: usize| Error::Evaluation(format!("row {row} is damaged"));
    let rows: Vec<Encoded> = (0..description.rows)
        .map(|row| set.row(row).filter(|encoded| encoded.length() > 0).ok_or_else(|| damaged(row)))
        .collect::<Result<_, _>>()?;
    let lengths: Vec<usize> = rows.iter().map(Encoded::length).collect();
    let labels = description.labels.len();
    let mut tags = vec![Vec::new(); rows.len()];
    let mut done = 0;
    for indices in batch::by_length(&lengths, BATCH) {
        stop(observer)?;
        let padded = batch::pad(indices.iter().map(|index| &rows[*index]), 0, description.pad_token_id);
        let mut types = vec![0; padded.input_ids.len()];
        for (cells, index) in types.chunks_exact_mut(padded.length).zip(&indices) {
            let source = index * description.length..index * description.length + lengths[*index];
            cells[..lengths[*index]].copy_from_slice(&set.token_type_ids[source]);
        }
        let logits = classifier.run(&Batch {
            rows: padded.rows,
            length: padded.length,
            input_ids: &padded.input_ids,
            attention_mask: &padded.attention_mask,
            token_type_ids: &types,
        })?;
        for (index, logits) in indices.iter().zip(logits.values.chunks_exact((padded.length * labels).max(1))) {
            tags[*index] = set.predicted_tags(*index, logits).ok_or_else(|| damaged(*index))?;
        }
        done += indices.len();
        observer.progress("verify", done as u64, rows.len() as u64);
    }
    Ok(tags)
}

fn stop(observer: &mut dyn Observer) -> Result<(), Error> {
    if observer.stop_requested() { Err(Error::Cancelled) } else { Ok(()) }
}
