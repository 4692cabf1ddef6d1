//! Data sets prepared from files: their formats and their splits.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests
mod formats;
mod splits;
mod support;
