//! Configuration.

mod secret;

pub use secret::{MASK, Secret};
