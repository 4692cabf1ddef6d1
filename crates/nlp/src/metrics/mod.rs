//! What evaluation says of a model: pure functions over gold answers, predictions and probabilities.
//!
//! [`evaluate_tokens`] and [`evaluate_texts`] make the whole report of a split; each report also holds its numbers as a flat map
//! under the names that users of `transformers`, `seqeval` and scikit-learn expect, so that a sweep's objective or
//! `metric_for_best_model` can name any of them. [`greater_is_better`] says which way is better.
//!
//! | name | tagged words | one label a text | any number of labels | a number |
//! |---|---|---|---|---|
//! | `f1`, `precision`, `recall` | entities, micro, seqeval's default mode | two labels: those of label id 1; more: macro | micro | |
//! | `f1_macro`, `f1_weighted`, ... | means over entity types | means over classes (also `_micro`) | means over labels (also `_micro`, `f1_samples`) | |
//! | `f1_strict`, `f1_exact`, `f1_partial`, `f1_type`, ... | seqeval's strict mode; SemEval's schemas | | | |
//! | `{label}_f1`, ... | by entity type | by class | by label | |
//! | `accuracy` | of words | of texts (also `balanced_accuracy`, `top_3_accuracy`, `top_5_accuracy`) | of whole label sets (= `subset_accuracy`) | |
//! | `token_f1_macro`, `token_no_o_f1_macro`, ... | by tag, with and without `O` | | | |
//! | `ece`, `mce`, `adaptive_ece`, `brier`, `nll` | of words (`_entities`: of those not `O`) | of texts | | |
//! | others | `token_f1_macro_gold` | `matthews_correlation` | `hamming_loss`, `average_precision` | `mse`, `rmse`, `mae`, `r2`, `pearson`, `spearman` |
mod bootstrap;
mod calibration;
mod classes;
mod multilabel;
mod names;
mod numbers;
mod partial;
mod spans;
mod tables;
mod texts;
mod tokens;
mod worst;
mod worst_texts;

#[cfg(test)]
mod golden;

pub use bootstrap::{Bootstrap, Interval, RowCounts};
pub use calibration::{BINS, Bin, Calibration, Calibrator};
pub use classes::{ClassReport, ClassScores, Confusion};
pub use multilabel::MultiLabelScores;
pub use names::{canonical, greater_is_better};
pub use numbers::{RegressionScores, evaluate as evaluate_numbers};
pub use partial::{MatchScores, PartialReport, PartialTally, Schema, SchemaScores, TypeMatches};
pub use spans::{LengthScores, NONE, Pair, by_entity_length, by_sentence_length, pair, type_confusion};
pub use texts::{ClassificationScores, TextPredictions, TextReport, TextScores, evaluate_texts};
pub use tokens::{TokenPredictions, TokenReport, TokenScores, TokenTally, evaluate_tokens};
pub use worst::{Example, Limits, Mistake, Order, Span, WorstSentence, markdown, worst_sentences, write_worst};
pub use worst_texts::{WorstText, worst_texts};
