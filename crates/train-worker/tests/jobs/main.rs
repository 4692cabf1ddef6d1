//! Trainings and predictions as jobs: a server, the worker program that it launches, and the outputs that are published.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests
mod diverged;
mod predict;
mod support;
