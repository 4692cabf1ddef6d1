//! Texts: labels, sets of labels and numbers.
use quintet_nlp::{
    metrics::{Bootstrap, Limits, TextPredictions, evaluate_texts, worst_texts},
    predict::FunctionToApply,
    rows::Example,
    task::{Target, Task},
};

use super::{DETAILED, Depth, Details, Evaluated, Evaluation, First, LossSum, Worst};
use crate::{Directive, Error, Observer, SplitReport, report::Scores};

/// A label of several is predicted from this probability on.
pub(super) const THRESHOLD: f64 = 0.5;

/// What is right, by text.
#[derive(Default)]
struct Gold {
    classes: Vec<usize>,
    numbers: Vec<f32>,
}

pub(super) fn run(
    evaluation: &Evaluation<'_>,
    observer: &mut dyn Observer,
) -> Result<Result<Evaluated, Directive>, Error> {
    let Evaluation { part, labels, depth, task, .. } = *evaluation;
    let width = if task == Task::Regression { 1 } else { labels.len() };
    let function = FunctionToApply::of(task, labels.len());
    let mut losses = LossSum::default();
    let mut gold = Gold::default();
    let mut first = First::default();
    let mut outputs: Vec<f32> = Vec::with_capacity(part.rows.len() * width);
    let mut start = 0;
    while start < part.rows.len() {
        let chunk = evaluation.chunk(start)?;
        for row in &chunk {
            match &row.target {
                Target::Class(label) => gold.classes.push(usize::try_from(*label).unwrap_or(0)),
                Target::Classes(labels) => gold.numbers.extend(labels),
                Target::Value(value) => gold.numbers.push(*value),
                Target::Tokens(_) => return Err(Error::Internal("a sentence among texts")),
            }
        }
        let begin = outputs.len();
        outputs.resize(begin + chunk.len() * width, 0.0);
        let stop = evaluation.logits(&chunk, start, &mut losses, observer, |row, logits| {
            let scores = if task == Task::Regression { logits.to_vec() } else { function.apply(logits) };
            outputs[begin + row * width..begin + (row + 1) * width].copy_from_slice(&scores);
        })?;
        if stop != Directive::Continue {
            return Ok(Err(stop));
        }
        start += chunk.len();
        if depth == Depth::Whole {
            first.rows.extend(chunk.into_iter().take(DETAILED - first.rows.len().min(DETAILED)));
        }
    }
    let texts = part.rows.len();
    let predictions = |texts: usize| match task {
        Task::Regression => TextPredictions::Regression { gold: &gold.numbers[..texts], predicted: &outputs[..texts] },
        Task::MultiLabelClassification => TextPredictions::MultiLabel {
            labels,
            gold: &gold.numbers[..texts * width],
            probabilities: &outputs[..texts * width],
            threshold: THRESHOLD,
        },
        Task::SequenceClassification | Task::TokenClassification => {
            TextPredictions::Class { labels, gold: &gold.classes[..texts], probabilities: &outputs[..texts * width] }
        }
    };
    let none = Bootstrap { resamples: 0, ..Bootstrap::default() };
    let scores = evaluate_texts(&predictions(texts), &none)?;
    let mut details = None;
    if depth == Depth::Whole {
        let count = texts.min(DETAILED);
        let report = evaluate_texts(&predictions(count), &Bootstrap::default())?;
        let (mut shown, mut lines) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for row in 0..count {
            let example = part.rows.example(part.rows.document(row))?;
            lines.push(example.line());
            shown.push(match example {
                Example::Text(text) => match text.pair {
                    Some(pair) => format!("{} ⏐ {pair}", text.text),
                    None => text.text,
                },
                Example::Sentence(sentence) => sentence.words.join(" "),
            });
        }
        let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
        let worst = Worst::Texts(worst_texts(&predictions(count), &shown, &lines, &Limits::default()));
        let report = serde_json::to_value(report).map_err(|_| Error::Internal("a report that is no JSON"))?;
        details = Some(Details { report, worst });
    }
    let mut metrics = scores.metrics;
    metrics.insert("loss".to_owned(), losses.mean());
    let scores = Scores::Texts { scores: scores.scores };
    let report = SplitReport { split: part.name.to_owned(), loss: losses.mean(), metrics, scores };
    Ok(Ok(Evaluated { report, first, details }))
}
