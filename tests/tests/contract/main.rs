//! The contract of `JobService` and `WorkerService` over gRPC, the same on SQLite and on PostgreSQL.
// Helpers of tests fail by panicking, like the tests; each test has a stack of its own for its future.
#![allow(clippy::unwrap_used, clippy::large_futures)]

mod attempts;
mod house;
mod jobs;
mod stores;
