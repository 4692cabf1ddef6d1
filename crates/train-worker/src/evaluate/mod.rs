//! Predictions and scores of a split, whatever the task and however large: rows are read in chunks and forgotten.
mod names;
mod texts;
mod tokens;

use quintet_nlp::{align::Encoded, batch, data::Sentence, prepare::Part, rows::Rows, task::Task};
use tch::{Kind, Tensor};

pub(crate) use self::names::metric_names;
use crate::{Directive, Error, Observer, SplitReport, loss::Loss, memory, model::Model, parameters::elements};

/// Sub-tokens, padding included, in one batch of an evaluation.
const TOKENS: usize = 4096;
/// Rows read at a time.
const CHUNK: usize = 2048;
/// Documents that get the whole report with intervals and worst examples; of more, the metrics are of all and the report is of the
/// first ones.
const DETAILED: usize = 20_000;

/// How far an evaluation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The metrics.
    Metrics,
    /// All that there is to say.
    Whole,
}

/// What an evaluation gives.
pub(crate) struct Evaluated {
    pub(crate) report: SplitReport,
    /// The first documents, for the rows that conversion verifies against.
    pub(crate) first: First,
    /// The whole report, ready to be written.
    pub(crate) details: Option<Details>,
}

/// The first documents of a split by their first rows; empty when the metrics alone were asked for.
#[derive(Default)]
pub(crate) struct First {
    pub(crate) rows: Vec<Encoded>,
    /// Of tagged words: the sentences, and the tags that were predicted by those rows.
    pub(crate) sentences: Vec<Sentence>,
    pub(crate) predicted: Vec<Vec<String>>,
}

/// The whole report of a split.
pub(crate) struct Details {
    /// A report of `quintet_nlp::metrics`.
    pub(crate) report: serde_json::Value,
    /// `worst.md` and `worst.jsonl`.
    pub(crate) worst: Worst,
}

/// The examples that went worst.
pub(crate) enum Worst {
    Sentences(Vec<quintet_nlp::metrics::WorstSentence>),
    Texts(Vec<quintet_nlp::metrics::WorstText>),
}

/// What is evaluated.
pub(crate) struct Evaluation<'a> {
    pub(crate) model: &'a Model,
    pub(crate) part: &'a Part,
    pub(crate) task: Task,
    pub(crate) labels: &'a [String],
    pub(crate) pad_token_id: usize,
    pub(crate) depth: Depth,
    /// Steps done and steps in all, for the progress.
    pub(crate) place: (u64, u64),
}

/// The sum of losses, without weights and smoothing, so that those of different trials compare.
#[derive(Default)]
struct LossSum {
    loss: Loss,
    sum: f64,
    terms: usize,
}

impl LossSum {
    fn mean(&self) -> f64 {
        if self.terms == 0 { 0.0 } else { self.sum / self.terms as f64 }
    }
}

impl Evaluation<'_> {
    /// Evaluates without dropout; a directive when told to stop meanwhile.
    pub(crate) fn run(&self, observer: &mut dyn Observer) -> Result<Result<Evaluated, Directive>, Error> {
        if self.task == Task::TokenClassification { tokens::run(self, observer) } else { texts::run(self, observer) }
    }

    /// Reads rows from `start` on: a chunk of whole documents.
    fn chunk(&self, start: usize) -> Result<Vec<Encoded>, Error> {
        let rows: &dyn Rows = self.part.rows.as_ref();
        let mut chunk = Vec::new();
        for row in start..rows.len() {
            let same = row > start && rows.document(row) == rows.document(row - 1);
            if chunk.len() >= CHUNK && !same {
                break;
            }
            chunk.push(rows.get(row)?);
        }
        Ok(chunk)
    }

    /// Hands the logits of each row of a chunk, [length, labels] or [labels], to `take`, in any order.
    fn logits(
        &self,
        chunk: &[Encoded],
        done: usize,
        losses: &mut LossSum,
        observer: &mut dyn Observer,
        mut take: impl FnMut(usize, &[f32]),
    ) -> Result<Directive, Error> {
        let lengths: Vec<u32> = chunk.iter().map(|row| u32::try_from(row.length()).unwrap_or(u32::MAX)).collect();
        let longest = lengths.iter().copied().max().unwrap_or(1).max(1) as usize;
        let mut evaluated = done;
        for members in batch::by_length(&lengths, (TOKENS / longest).max(1)) {
            match observer.directive() {
                Directive::Continue => {}
                stop => return Ok(stop),
            }
            let padded = batch::pad(members.iter().map(|row| &chunk[*row]), 0, self.pad_token_id);
            let scores = || -> Result<(f64, Vec<f32>), Error> {
                let input = self.model.input(&padded)?;
                let logits = self.model.logits(&input, None, false)?;
                let sum = losses.loss.sum(&logits, &input.wanted)?.f_double_value(&[])?;
                Ok((sum, elements(&logits)?))
            };
            let scored = tch::no_grad(scores);
            let (sum, values) = scored.map_err(|error| memory::told(error, members.len(), longest))?;
            if !sum.is_finite() || values.iter().any(|value| !value.is_finite()) {
                return Err(self.diverged(members.iter().map(|row| done + row)));
            }
            losses.sum += sum;
            losses.terms += padded.targets.count();
            let width = values.len() / members.len().max(1);
            for (row, values) in members.iter().zip(values.chunks(width.max(1))) {
                take(*row, values);
            }
            evaluated += members.len();
            let message = format!("evaluating {}: {evaluated} of {} rows", self.part.name, self.part.rows.len());
            observer.progress(self.place.0, self.place.1, "steps", &message);
        }
        Ok(Directive::Continue)
    }

    /// The error of scores that are no numbers: the last steps have spoilt the weights.
    fn diverged(&self, rows: impl Iterator<Item = usize>) -> Error {
        let split: &dyn Rows = self.part.rows.as_ref();
        let rows = format!("{} lines {}", self.part.name, lines(split, rows));
        let step = usize::try_from(self.place.0).unwrap_or(usize::MAX);
        Error::Diverged { step, what: "score", rows, kept: None }
    }
}

/// The lines of rows in the file of their split. A row that cannot be read again has none; this is for errors, which it must not hide.
pub(crate) fn lines(split: &dyn Rows, rows: impl Iterator<Item = usize>) -> String {
    let line = |row| split.example(split.document(row)).ok().map(|example| example.line().to_string());
    rows.filter_map(line).collect::<Vec<_>>().join(", ")
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
        let logits: Tensor = tch::no_grad(|| model.logits(&input, None, false))?;
        values.extend(elements(&logits.f_to_kind(Kind::Float)?)?);
    }
    Ok(values)
}
