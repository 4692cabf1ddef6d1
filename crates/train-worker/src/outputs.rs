//! The checkpoint and the evaluation rows that a run publishes.
use std::path::Path;

use quintet_nlp::{
    checkpoint::{EncoderConfig, write_checkpoint},
    evaluation::{EvaluationSet, LOGIT_ROWS},
};

use crate::{
    Error,
    evaluate::{Evaluated, Split, padded_logits},
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

/// Writes the rows of a split with the model's predictions, and its logits for the first ones.
pub(crate) fn evaluation(
    dir: &Path,
    model: &Model,
    config: &EncoderConfig,
    split: &Split,
    evaluated: Evaluated,
    max_length: usize,
) -> Result<(), Error> {
    let labels = &config.labels;
    let mut set =
        EvaluationSet::new(split.name, &split.sentences, &split.rows, labels, max_length, config.pad_token_id);
    let rows = &split.rows[..split.rows.len().min(LOGIT_ROWS)];
    set.description.logit_rows = rows.len();
    set.description.predicted_tags = evaluated.predicted;
    set.logits = padded_logits(model, rows, set.description.length, config.pad_token_id)?;
    Ok(set.save(dir)?)
}
