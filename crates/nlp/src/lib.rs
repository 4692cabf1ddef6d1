//! What training, conversion and benchmarking share about encoders and labelled text, free of any engine.
//!
//! * [`checkpoint`]: Hugging Face checkpoint folders, read and written.
//! * [`encoder`]: families of encoders, each one description of configuration, tensors and arithmetic.
//! * [`tokenizer`]: words and text to sub-tokens.
//! * [`data`]: labelled words and texts from files of many formats.
//! * [`mod@prepare`]: a data set to [`rows`] that a model trains on, whatever the task; [`packed`] ones may be more than fit in memory.
//! * [`report`]: what a data set holds and what is wrong with it.
//! * [`windows`]: documents longer than the model.
//! * [`task`]: what a model is trained to say of a text.
//! * [`align`]: labels of words to labels of sub-tokens and back, and [`batch`]: rows to padded batches.
//! * [`crf`]: scores of labels by their neighbours, and [`decoder`]: logits to labels of words, with them or without.
//! * [`seqeval`]: entity metrics equal to the Python package's.
//! * [`metrics`]: everything that evaluation says of words, texts and numbers.
//! * [`predict`]: predictions over files, as the pipelines of `transformers` make them.
//! * [`evaluation`]: the rows and logits that training leaves for conversion to verify against.
//! * [`random`]: seeded streams that do not depend on library versions.
//! * [`files`]: files and folders that appear whole or not at all.
//! * [`testing`]: tiny checkpoints for tests.

pub mod align;
pub mod batch;
mod byte_level;
pub mod checkpoint;
mod code;
pub mod crf;
pub mod data;
pub mod decoder;
pub mod encoder;
mod error;
pub mod evaluation;
pub mod files;
pub mod metrics;
pub mod packed;
mod places;
pub mod predict;
pub mod prepare;
pub mod random;
pub mod report;
pub mod rows;
pub mod seqeval;
pub mod task;
pub mod testing;
pub mod tokenizer;
pub mod windows;

pub use error::Error;
