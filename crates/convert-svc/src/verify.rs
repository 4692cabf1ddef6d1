//! Runs a model on the trainer's evaluation rows and compares: logits with the trainer's, answers with what is right and with another
//! model's.

use std::path::Path;

use quintet_nlp::{
    align::Encoded,
    batch,
    checkpoint::EncoderConfig,
    crf::Crf,
    decoder::Decoder,
    evaluation::{Description, EvaluationSet, argmax},
    metrics::{Bootstrap, TextPredictions, evaluate_texts},
    predict::FunctionToApply,
    seqeval::{self, Mode},
    task::Task,
};
use quintet_onnx::{Batch, Classifier, Options, keys};

use crate::{Error, Observer};

/// Rows of a batch; rows of similar length share one, so that padding says little about a quantized model's tensors.
const BATCH: usize = 16;

/// How a model did.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Against the trainer's logits, of tokens only where there are tokens.
    pub(crate) max_difference: f64,
    /// What it says of every row.
    pub(crate) answers: Answers,
    /// Against what is right, see [`quality`].
    pub(crate) quality: f64,
}

/// What a model says of all rows.
#[derive(Debug)]
pub(crate) enum Answers {
    /// Tags of the words.
    Tags(Vec<Vec<String>>),
    /// Probabilities of labels [rows, labels], or numbers [rows].
    Scores(Vec<f32>),
}

/// From this probability on, a text has a label of several.
const THRESHOLD: f64 = 0.5;

impl Answers {
    /// Share of words with the same tag, or of texts with the same label or set of labels; none for numbers.
    pub(crate) fn agreement(&self, other: &Self, set: &EvaluationSet) -> Option<f64> {
        let labels = set.description.labels.len().max(1);
        let (equal, all) = match (self, other, set.description.task) {
            (Self::Tags(tags), Self::Tags(others), _) => share(tags.iter().flatten().zip(others.iter().flatten())),
            (Self::Scores(scores), Self::Scores(others), Task::SequenceClassification) => {
                let best = |scores: &'_ [f32]| scores.chunks_exact(labels).map(argmax).collect::<Vec<_>>();
                share(best(scores).iter().zip(&best(others)))
            }
            (Self::Scores(scores), Self::Scores(others), Task::MultiLabelClassification) => {
                let sets = |scores: &'_ [f32]| {
                    let sets = scores.chunks_exact(labels);
                    sets.map(|row| row.iter().map(|score| f64::from(*score) >= THRESHOLD).collect()).collect()
                };
                let (one, two): (Vec<Vec<bool>>, Vec<Vec<bool>>) = (sets(scores), sets(others));
                share(one.iter().zip(&two))
            }
            _ => return None,
        };
        Some(equal as f64 / all.max(1) as f64)
    }
}

/// Equal pairs, and all.
fn share<T: PartialEq>(pairs: impl Iterator<Item = (T, T)>) -> (usize, usize) {
    pairs.fold((0, 0), |(equal, all), (one, two)| (equal + usize::from(one == two), all + 1))
}

/// F1 against what is right: of entities, micro-averaged as seqeval's default; of texts `f1` of [`evaluate_texts`]; of numbers their `r2`.
pub(crate) fn quality(set: &EvaluationSet, answers: &Answers) -> Result<f64, Error> {
    let labels = &set.description.labels;
    let scores = match answers {
        Answers::Tags(tags) => {
            return Ok(seqeval::evaluate(&set.description.gold_tags, tags, Mode::Default)?.micro.f1);
        }
        Answers::Scores(scores) => scores,
    };
    let gold: Vec<usize>;
    let predictions = match set.description.task {
        Task::Regression => TextPredictions::Regression { gold: &set.values, predicted: scores },
        Task::MultiLabelClassification => {
            TextPredictions::MultiLabel { labels, gold: &set.values, probabilities: scores, threshold: THRESHOLD }
        }
        Task::SequenceClassification | Task::TokenClassification => {
            let ids = set.labels.iter().map(|label| usize::try_from(*label).ok()).collect::<Option<_>>();
            gold = ids.ok_or_else(|| Error::Evaluation("a text has no label".to_owned()))?;
            TextPredictions::Class { labels, gold: &gold, probabilities: scores }
        }
    };
    let report = evaluate_texts(&predictions, &Bootstrap { resamples: 0, ..Bootstrap::default() })?;
    let name = if set.description.task == Task::Regression { "r2" } else { "f1" };
    Ok(report.metrics.get(name).copied().unwrap_or(0.0))
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
    if !set.description.task.is_sequence() {
        let decoder = decoder(path, &classifier, set)?;
        let answers = Answers::Tags(tags(&mut classifier, &decoder, set, observer)?);
        return Ok(Outcome { max_difference, quality: quality(set, &answers)?, answers });
    }
    let scores = scores(&mut classifier, set, observer)?;
    let finite = scores.iter().all(|score| score.is_finite());
    let answers = Answers::Scores(scores);
    Ok(match finite {
        true => Outcome { max_difference, quality: quality(set, &answers)?, answers },
        // Nothing can be counted then, and nothing is published.
        false => Outcome { max_difference: f64::NAN, quality: 0.0, answers },
    })
}

/// Largest absolute difference from the trainer's logits, the rows padded as the trainer padded them. Not a number when
/// either side has such a value.
fn logit_difference(
    classifier: &mut Classifier,
    set: &EvaluationSet,
    observer: &mut dyn Observer,
) -> Result<f64, Error> {
    let description = &set.description;
    let (length, labels, sequence) = (description.length, description.labels.len(), description.task.is_sequence());
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
        let shape = if sequence { vec![rows, labels] } else { vec![rows, length, labels] };
        if logits.shape != shape {
            let problem = format!("logits have shape {:?}, expected {shape:?}", logits.shape);
            return Err(Error::Verification { problems: vec![problem] });
        }
        let (expected, mask) = match sequence {
            true => (first * labels..(first + rows) * labels, vec![1; rows]),
            false => (cells.start * labels..cells.end * labels, set.attention_mask[cells].to_vec()),
        };
        let expected = &set.logits[expected];
        let mask = mask.into_iter().flat_map(|mask| std::iter::repeat_n(mask, labels));
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

/// How the model's own metadata say that its logits become labels.
fn decoder(path: &Path, classifier: &Classifier, set: &EvaluationSet) -> Result<Decoder, Error> {
    let labels = set.description.labels.len();
    let unusable = |problem: String| Error::Verification { problems: vec![format!("{}: {problem}", path.display())] };
    let crf = match classifier.metadata()?.get(keys::CRF) {
        Some(json) => {
            let crf: Crf = serde_json::from_str(json).map_err(|error| unusable(format!("{}: {error}", keys::CRF)))?;
            if crf.labels() != labels {
                return Err(unusable(format!("{} has {} labels, expected {labels}", keys::CRF, crf.labels())));
            }
            Some(crf)
        }
        None => None,
    };
    Ok(Decoder::new(crf, labels))
}

fn tags(
    classifier: &mut Classifier,
    decoder: &Decoder,
    set: &EvaluationSet,
    observer: &mut dyn Observer,
) -> Result<Vec<Vec<String>>, Error> {
    let mut tags = vec![Vec::new(); set.description.rows];
    each(classifier, set, observer, |row, logits| {
        tags[row] = set.predicted_tags(row, logits, decoder).ok_or_else(|| damaged(row))?;
        Ok(())
    })?;
    Ok(tags)
}

/// Probabilities of labels, or numbers, as the trainer makes them of logits.
fn scores(classifier: &mut Classifier, set: &EvaluationSet, observer: &mut dyn Observer) -> Result<Vec<f32>, Error> {
    let Description { task, rows, .. } = set.description;
    let labels = set.description.labels.len();
    let function = FunctionToApply::of(task, labels);
    let mut scores = vec![0.0; rows * labels];
    each(classifier, set, observer, |row, logits| {
        let row_scores = if task == Task::Regression { logits.to_vec() } else { function.apply(logits) };
        scores[row * labels..(row + 1) * labels].copy_from_slice(&row_scores);
        Ok(())
    })?;
    Ok(scores)
}

fn damaged(row: usize) -> Error {
    Error::Evaluation(format!("row {row} is damaged"))
}

/// Runs all rows in batches of similar length; hears each row's logits, [length or more, labels] or [labels].
fn each(
    classifier: &mut Classifier,
    set: &EvaluationSet,
    observer: &mut dyn Observer,
    mut hear: impl FnMut(usize, &[f32]) -> Result<(), Error>,
) -> Result<(), Error> {
    let description = &set.description;
    let rows: Vec<Encoded> = (0..description.rows)
        .map(|row| set.row(row).filter(|encoded| encoded.length() > 0).ok_or_else(|| damaged(row)))
        .collect::<Result<_, _>>()?;
    let lengths: Vec<usize> = rows.iter().map(Encoded::length).collect();
    let labels = description.labels.len();
    let mut done = 0;
    for indices in batch::by_length(&lengths, BATCH) {
        stop(observer)?;
        let padded = batch::pad(indices.iter().map(|index| &rows[*index]), 0, description.pad_token_id);
        let logits = classifier.run(&Batch {
            rows: padded.rows,
            length: padded.length,
            input_ids: &padded.input_ids,
            attention_mask: &padded.attention_mask,
            token_type_ids: &padded.type_ids,
        })?;
        let width = if description.task.is_sequence() { labels } else { padded.length * labels };
        for (index, logits) in indices.iter().zip(logits.values.chunks_exact(width.max(1))) {
            hear(*index, logits)?;
        }
        done += indices.len();
        observer.progress("verify", done as u64, rows.len() as u64);
    }
    Ok(())
}

fn stop(observer: &mut dyn Observer) -> Result<(), Error> {
    if observer.stop_requested() { Err(Error::Cancelled) } else { Ok(()) }
}
