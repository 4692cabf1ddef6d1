//! The checkpoint and the evaluation that a run publishes.
use std::path::Path;

use quintet_nlp::{
    checkpoint::write_checkpoint,
    encoder::EncoderConfig,
    evaluation::{EvaluationSet, LOGIT_ROWS},
    files,
    metrics::write_worst,
};

use crate::{
    Error,
    evaluate::{Evaluated, First, Worst, padded_logits},
    model::Model,
    parameters::{Parameters, elements},
};

/// Writes the folder that `transformers` loads as the family's class for the task.
pub(crate) fn checkpoint(
    dir: &Path,
    parameters: &Parameters,
    config: &EncoderConfig,
    tokenizer: &Path,
) -> Result<(), Error> {
    let values = elements(&parameters.flat)?;
    Ok(write_checkpoint(dir, config, &parameters.named(&values), tokenizer)?)
}

/// Writes the whole report of a split, its worst examples, and the rows with the model's answers that conversion verifies against.
pub(crate) fn evaluation(
    dir: &Path,
    model: &Model,
    config: &EncoderConfig,
    evaluated: Evaluated,
    max_length: usize,
) -> Result<(), Error> {
    let split = evaluated.report.split;
    files::write_folder(dir, |folder| {
        rows(&split, evaluated.first, model, config, max_length)?.save(folder)?;
        if let Some(details) = evaluated.details {
            let path = folder.join("report.json");
            let json = serde_json::to_vec_pretty(&details.report)
                .map_err(|e| quintet_nlp::Error::Format { path: path.clone(), problem: e.to_string() })?;
            files::write_file(&path, &json)?;
            let title = format!("The worst examples of {split}");
            match &details.worst {
                Worst::Sentences(worst) => write_worst(folder, &title, worst)?,
                Worst::Texts(worst) => write_worst(folder, &title, worst)?,
            }
        }
        Ok(())
    })
}

fn rows(
    split: &str,
    first: First,
    model: &Model,
    config: &EncoderConfig,
    max_length: usize,
) -> Result<EvaluationSet, Error> {
    let First { sentences, rows, predicted } = first;
    let mut set = match config.task {
        Some(task) if task.is_sequence() => {
            EvaluationSet::of_texts(split, task, &rows, &config.labels, max_length, config.filler())
        }
        _ => EvaluationSet::new(split, &sentences, &rows, &config.labels, max_length, config.filler()),
    };
    let rows = &rows[..rows.len().min(LOGIT_ROWS)];
    set.description.logit_rows = rows.len();
    set.description.predicted_tags = predicted;
    set.logits = padded_logits(model, rows, set.description.length, config.filler())?;
    Ok(set)
}
