//! All trials of a study as a file for other programs: a table in CSV, or a document in JSON that reads back.

mod csv;
mod json;

pub use csv::csv;
pub use json::{ReadError, read_json, to_json};
