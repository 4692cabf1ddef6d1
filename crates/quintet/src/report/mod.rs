//! What a run leaves: one document for programs, one table for people, both out of the jobs' reports.

pub(crate) mod assemble;
pub(crate) mod document;
mod sweep;
pub(crate) mod table;
