//! Choosing the best trial: by metric, or by metric and measured latency together, with the reasons.
//!
//! [`Rule`] says what decides, [`gather`] reads what the trials have, and [`choose`] is the pure choice. It follows the selection of the
//! system that this one succeeds: champions by metric, a floor for accuracy with a least gain, and a weighted score. Two of its
//! faults are mended: the least gain is asked of a slower trial (there it was asked of the loss of the faster one, so that no
//! faster one could ever win), and a metric that is minimized counts as such.

mod answer;
mod choose;
mod gather;
mod measure;
mod reasons;
mod rule;

#[cfg(test)]
pub(crate) mod tests;

pub use answer::answer;
pub use choose::{Candidate, Choice, Excluded, Judged, Nothing, choose};
pub use gather::{Request, Whole, broken, gather};
pub use measure::{Measure, known, objective_names};
pub(crate) use reasons::{short, why};
pub use rule::{Rule, Speed};
