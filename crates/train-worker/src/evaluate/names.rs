//! The metrics that an evaluation of a task gives.
use std::collections::BTreeSet;

use quintet_nlp::{
    metrics::{Bootstrap, TextPredictions, TokenTally, evaluate_texts},
    task::Task,
};

use super::texts::THRESHOLD;
use crate::Error;

/// Names of the metrics, those of single labels too: an example that has every label, all predicted right, is scored.
pub(crate) fn metric_names(task: Task, labels: &[String]) -> Result<BTreeSet<String>, Error> {
    let ids: Vec<usize> = (0..labels.len()).collect();
    let own: Vec<f32> = ids.iter().flat_map(|row| ids.iter().map(move |id| f32::from(u8::from(row == id)))).collect();
    let predictions = match task {
        Task::TokenClassification => {
            let mut tally = TokenTally::new(labels);
            tally.add(labels, labels, Some(&own))?;
            return Ok(with_loss(tally.finish().metrics().into_keys()));
        }
        Task::SequenceClassification => TextPredictions::Class { labels, gold: &ids, probabilities: &own },
        Task::MultiLabelClassification => {
            TextPredictions::MultiLabel { labels, gold: &own, probabilities: &own, threshold: THRESHOLD }
        }
        Task::Regression => TextPredictions::Regression { gold: &[0.0, 1.0], predicted: &[0.0, 1.0] },
    };
    let report = evaluate_texts(&predictions, &Bootstrap { resamples: 0, ..Bootstrap::default() })?;
    Ok(with_loss(report.metrics.into_keys()))
}

fn with_loss(names: impl Iterator<Item = String>) -> BTreeSet<String> {
    names.chain(["loss".to_owned()]).collect()
}
