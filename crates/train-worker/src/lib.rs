//! The training engine: fine-tunes encoders with a head on libtorch.
//!
//! [`train`] is a blocking function of a [`TrainRequest`] that tells an [`Observer`] how it goes on. It draws every random
//! value from streams keyed by seed and position, so an attempt that resumes computes what an undisturbed one would.
//!
//! libtorch's OpenMP threads spin while they wait, which slows training many times when the cores are shared: call
//! [`device::wait_passively`] first thing in `main`, or set `OMP_WAIT_POLICY=PASSIVE` where the process is launched.

mod backward;
mod crf;
pub mod device;
mod dropout;
mod engine;
mod error;
mod evaluate;
mod lora;
mod loss;
mod loss_scale;
mod memory;
mod model;
mod observer;
mod optimizer;
mod outputs;
mod parameters;
#[cfg(test)]
mod parity;
mod predict;
mod predict_job;
pub mod probe;
mod recompute;
mod report;
mod run;
mod schedule;
mod state;
mod train;
mod vectors;
pub mod worker;

pub use error::Error;
pub use observer::{Directive, Observer};
pub use predict::predict;
pub use report::{EpochReport, Outcome, Scores, SplitReport, TrainReport};
pub use train::train;
pub use train_svc::{
    hyper::{self, Hyper},
    predict::PredictRequest,
    request::{self, DeviceChoice, TrainRequest},
};
