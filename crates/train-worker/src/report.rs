//! What a training run leaves for people and for tracking.
use std::collections::BTreeMap;

use quintet_nlp::{align::Alignment, seqeval::Report};
use serde::{Deserialize, Serialize};

use crate::Hyper;

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
    /// Mean over the labelled words of the validation split.
    pub loss: f64,
    /// Validation F1, micro, seqeval's default mode.
    pub f1: f64,
    /// Validation precision, same mode.
    pub precision: f64,
    /// Validation recall, same mode.
    pub recall: f64,
    /// Validation F1, micro, seqeval's strict mode with IOB2.
    pub f1_strict: f64,
    /// Time of the epoch's steps, without evaluation.
    pub seconds: f64,
}

impl EpochReport {
    /// The metrics reported at the end of the epoch, by key.
    pub fn metrics(&self) -> [(&'static str, f64); 6] {
        [
            ("f1", self.f1),
            ("precision", self.precision),
            ("recall", self.recall),
            ("f1_strict", self.f1_strict),
            ("loss", self.loss),
            ("train_loss", self.train_loss),
        ]
    }
}

/// Evaluation of the kept weights on one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitReport {
    /// `test` or `validation`.
    pub split: String,
    /// Mean over the labelled words.
    pub loss: f64,
    /// seqeval's default mode.
    pub default: Report,
    /// seqeval's strict mode with IOB2.
    pub strict: Report,
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
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// Threads on the processor.
    pub threads: usize,
    /// Training rows a second, over all epochs of this attempt.
    pub rows_per_second: f64,
    /// What was changed while reading.
    pub notes: Vec<String>,
}
