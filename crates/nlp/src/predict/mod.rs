//! Prediction over files: what the pipelines of `transformers` give for a text, as pure functions over a model's output, and the
//! reading and writing around them.
//!
//! * [`PipelineTokenizer`]: texts to rows, in windows when asked.
//! * [`EntityContext`]: probabilities of sub-tokens to entities (`TokenClassificationPipeline`).
//! * [`FunctionToApply`], [`top_labels`]: outputs to labels (`TextClassificationPipeline`).
//! * [`InputReader`]: texts from JSONL, CSV and plain files, one at a time.
//! * [`ResultWriter`]: results row by row, resumable, visible when complete.
//! * [`Predictor`]: all of it, over any engine that is a [`Scorer`].
mod entities;
mod input;
mod job;
mod labels;
mod output;
mod tokenizer;

#[cfg(test)]
mod golden;

pub use entities::{AggregationStrategy, EntityContext, FoundEntity, ScoredRow};
pub use input::{InputFormat, InputItem, InputOptions, InputReader};
pub use job::{PredictOptions, Predictor, Scorer, Summary};
pub use labels::{FunctionToApply, ScoredLabel, softmax, top_labels};
pub use output::ResultWriter;
pub use tokenizer::{InputText, PipelineTokenizer, PredictionRow};
