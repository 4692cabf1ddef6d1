//! Command jobs: a user's own program, supervised, logged and measured like a native engine.

mod metrics_file;
mod placeholders;
mod run;
mod shell;
mod validate;

pub use placeholders::{Error, Filled, Kind, Placeholder, placeholders, substitute};
pub use run::run;
pub use validate::validate;
