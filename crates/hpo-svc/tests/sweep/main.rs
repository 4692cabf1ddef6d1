//! Sweeps from end to end: the real job service over gRPC, the real runner, and a worker that stands for the user's program.
#![allow(clippy::unwrap_used)] // Helpers of tests panic like the tests themselves.

mod basics;
mod endings;
mod house;
mod policies;
#[path = "../support/mod.rs"]
mod support;
