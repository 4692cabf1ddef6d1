//! Converts HF checkpoints into ONNX models and proves each against the trainer before it is published.
//!
//! [`convert`] writes a folder with `model.onnx`, `model_int8.onnx`, `config.json`, the tokenizer's files and
//! `conversion.json` ([`report::Report`]), or nothing.

mod convert;
mod error;
pub mod graph;
mod metadata;
pub mod onnx;
pub mod quantize;
pub mod report;
mod request;
mod verify;

pub use convert::{CONFIG_FILE, Observer, REPORT_FILE, convert};
pub use error::Error;
pub use request::{Request, ResolvedPrecisions};
