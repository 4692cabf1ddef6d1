//! The sweep service: search spaces, samplers, pruners, studies in Optuna's schema, and sweeps whose trials are jobs.

pub mod pruner;
pub mod pyjson;
pub mod sampler;
pub mod space;
pub mod storage;
pub mod study;

#[cfg(test)]
mod golden;
