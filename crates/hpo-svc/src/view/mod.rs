//! What there is to look at in a study, as pure functions of its trials, whose parameters carry their distributions, and of its
//! directions: [`importance`] tells which parameters mattered.

mod front;
#[cfg(test)]
mod golden;
pub mod importance;
