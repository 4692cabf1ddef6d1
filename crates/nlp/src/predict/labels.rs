//! Labels of texts from a model's output, as `TextClassificationPipeline` of `transformers` 4.57 gives them.
use serde::{Deserialize, Serialize};

use crate::{Error, encoder::EncoderConfig, task::Task};

/// What makes scores of a model's output; the names are those of `transformers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionToApply {
    /// Scores that sum to 1.
    Softmax,
    /// Each score by itself between 0 and 1.
    Sigmoid,
    /// The output as it is.
    None,
}

impl FunctionToApply {
    /// What the pipeline applies when nothing was asked: none for regression, sigmoid for any number of labels or a single one, else
    /// softmax.
    pub fn of(task: Task, labels: usize) -> Self {
        match task {
            Task::Regression => Self::None,
            Task::MultiLabelClassification => Self::Sigmoid,
            _ if labels == 1 => Self::Sigmoid,
            _ => Self::Softmax,
        }
    }

    /// What the pipeline applies to a checkpoint when nothing was asked. A single label whose kind of problem is not named is a number to
    /// the loss, but gets a sigmoid here: published rerankers are saved so.
    pub fn of_config(config: &EncoderConfig) -> Self {
        let labels = config.labels.len();
        match config.task {
            Some(Task::Regression) if labels == 1 && !config.names_problem_type() => Self::Sigmoid,
            task => Self::of(task.unwrap_or_default(), labels),
        }
    }

    /// The function of a name; none for the empty name, which means [`FunctionToApply::of_config`].
    pub fn parse(name: &str) -> Result<Option<Self>, Error> {
        match name {
            "" | "default" => Ok(None),
            "softmax" => Ok(Some(Self::Softmax)),
            "sigmoid" => Ok(Some(Self::Sigmoid)),
            "none" => Ok(Some(Self::None)),
            _ => {
                let problem = format!("found `{name}`, allowed are default, softmax, sigmoid, none");
                Err(Error::argument("function_to_apply", problem))
            }
        }
    }

    /// Scores of one row of outputs.
    pub fn apply(self, outputs: &[f32]) -> Vec<f32> {
        match self {
            Self::Softmax => softmax(outputs),
            Self::Sigmoid => outputs.iter().map(|output| 1.0 / (1.0 + (-output).exp())).collect(),
            Self::None => outputs.to_vec(),
        }
    }
}

/// A label and its score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredLabel {
    /// Its name.
    pub label: String,
    /// Its score.
    pub score: f32,
}

/// The labels of a text by falling score, `top_k` at most (0: all). Labels of equal score keep their order.
pub fn top_labels(labels: &[String], scores: &[f32], top_k: usize) -> Result<Vec<ScoredLabel>, Error> {
    if scores.len() != labels.len() {
        let problem = format!("{} values, expected one for each of {} labels", scores.len(), labels.len());
        return Err(Error::argument("scores", problem));
    }
    if let Some(wrong) = scores.iter().find(|score| !score.is_finite()) {
        return Err(Error::argument("scores", format!("found {wrong}: the model's output is not finite")));
    }
    let mut all: Vec<ScoredLabel> =
        labels.iter().zip(scores).map(|(label, score)| ScoredLabel { label: label.clone(), score: *score }).collect();
    all.sort_by(|one, other| other.score.total_cmp(&one.score));
    if top_k > 0 {
        all.truncate(top_k);
    }
    Ok(all)
}

/// Probabilities of one row of outputs.
pub fn softmax(outputs: &[f32]) -> Vec<f32> {
    let largest = outputs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut values: Vec<f32> = outputs.iter().map(|output| (output - largest).exp()).collect();
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
    values
}
