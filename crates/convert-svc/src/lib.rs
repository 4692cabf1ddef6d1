//! Converts HF checkpoints into ONNX models and proves each against the trainer before it is published.
//!
//! [`convert`] writes a folder with `model.onnx`, `model_int8.onnx`, `config.json`, the tokenizer's files and
//! `conversion.json` ([`report::Report`]), or nothing. [`service::mount`] puts the service on a host, which starts
//! without ONNX Runtime; [`worker::run`] is the job that the program `convert-svc worker` runs.

mod convert;
mod error;
pub mod graph;
mod metadata;
pub mod onnx;
pub mod quantize;
pub mod report;
mod request;
pub mod service;
mod verify;
pub mod worker;

pub use convert::{CONFIG_FILE, Observer, REPORT_FILE, convert};
pub use error::Error;
pub use request::{Request, ResolvedPrecisions};
pub use service::mount;
