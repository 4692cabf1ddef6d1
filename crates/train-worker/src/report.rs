//! What a training run leaves for people and for tracking.
use std::collections::BTreeMap;

use quintet_nlp::{align::Alignment, metrics::TextScores, seqeval::Report};
use serde::{Deserialize, Serialize};
use train_svc::request::LAST_GOOD;

use crate::{Hyper, TrainRequest};

/// How a run ended without error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All epochs were trained.
    Completed,
    /// Stopped by [`crate::Directive::Prune`].
    Pruned,
    /// Stopped by [`crate::Directive::Cancel`].
    Cancelled,
}

/// One epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean of the steps' losses.
    pub train_loss: f64,
    /// Time of the epoch's steps, without evaluation.
    pub seconds: f64,
    /// Time of the process's threads for the epoch's steps, all together.
    pub cpu_seconds: f64,
    /// Metrics of the validation split by name, see [`SplitReport::metrics`].
    #[serde(flatten)]
    pub metrics: BTreeMap<String, f64>,
}

impl EpochReport {
    /// The metrics reported at the end of the epoch, by key.
    pub fn metrics(&self) -> impl Iterator<Item = (String, f64)> + '_ {
        let own = self.metrics.iter().map(|(key, value)| (key.clone(), *value));
        own.chain([("train_loss".to_owned(), self.train_loss)])
    }

    /// Where its checkpoint is when training diverged after it.
    pub(crate) fn kept(&self) -> String {
        format!("; the checkpoint of epoch {}, the best before, is the output `{LAST_GOOD}`", self.epoch)
    }

    /// One line for people: the loss, and the metric that most look at first.
    pub(crate) fn summary(&self) -> String {
        let shown = [
            ("loss", "validation loss"),
            ("f1", "F1"),
            ("f1_strict", "strict"),
            ("accuracy", "accuracy"),
            ("mse", "MSE"),
        ];
        let parts =
            shown.iter().filter_map(|(key, name)| self.metrics.get(*key).map(|value| format!("{name} {value:.4}")));
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// Evaluation of the kept weights on one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitReport {
    /// `test` or `validation`.
    pub split: String,
    /// Mean over what counts: labelled words, texts, or texts and labels.
    pub loss: f64,
    /// By name, see `quintet_nlp::metrics`; and `loss`.
    pub metrics: BTreeMap<String, f64>,
    /// By task.
    #[serde(flatten)]
    pub scores: Scores,
}

/// The part of a split's report that depends on the task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scores {
    /// Tagged words.
    Entities {
        /// seqeval's default mode.
        default: Report,
        /// seqeval's strict mode with IOB2.
        strict: Report,
    },
    /// Texts.
    Texts {
        /// Of labels, sets of labels or numbers.
        scores: TextScores,
    },
}

impl SplitReport {
    /// The metrics as those of the final test.
    pub fn test_metrics(&self) -> impl Iterator<Item = (String, f64)> + '_ {
        self.metrics.iter().map(|(key, value)| (format!("test_{key}"), *value))
    }
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainReport {
    /// How it ended.
    pub outcome: Outcome,
    /// What was trained with.
    pub hyperparameters: Hyper,
    /// Labels by id.
    pub labels: Vec<String>,
    /// Rows, truncated rows and words without a sub-token by split. Words that the model did not see count as predicted `O`.
    pub splits: BTreeMap<String, Alignment>,
    /// Every epoch done, by this attempt or an earlier one.
    pub epochs: Vec<EpochReport>,
    /// The epoch whose weights were kept.
    pub kept_epoch: Option<usize>,
    /// Steps done.
    pub steps: usize,
    /// The kept weights on the test split, else on validation; none for a stopped run and for a trial.
    pub evaluation: Option<SplitReport>,
    /// Final metrics: those of the kept epoch, and `test_*` when there is a test split.
    pub metrics: BTreeMap<String, f64>,
    /// `cpu`, `cuda:0`, or several of them.
    pub device: String,
    /// `fp32`, `bf16` or `fp16`.
    pub precision: String,
    /// Steps that changed nothing, since a gradient was too large for fp16.
    pub skipped_steps: usize,
    /// Threads on the processor.
    pub threads: usize,
    /// Training rows a second, over all epochs of this attempt.
    pub rows_per_second: f64,
    /// What was changed while reading.
    pub notes: Vec<String>,
}

impl TrainReport {
    /// The report of a run that was stopped before its first step.
    pub(crate) fn stopped(request: &TrainRequest, outcome: Outcome) -> Self {
        Self {
            outcome,
            hyperparameters: request.hyper.clone(),
            labels: Vec::new(),
            splits: BTreeMap::new(),
            epochs: Vec::new(),
            kept_epoch: None,
            steps: 0,
            evaluation: None,
            metrics: BTreeMap::new(),
            device: String::new(),
            precision: String::new(),
            skipped_steps: 0,
            threads: request.threads,
            rows_per_second: 0.0,
            notes: Vec::new(),
        }
    }
}
