//! What the engine tells its surroundings, and what it hears back.

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directive {
    /// Go on.
    Continue,
    /// Stop: the sweep does not expect anything of this trial.
    Prune,
    /// Stop: the job was cancelled.
    Cancel,
}

/// Follows a training run. Calls come from the training thread and should return at once.
pub trait Observer {
    /// `done` of `total` steps; called after every step and every batch of an evaluation, so a receiver has to thin it out.
    fn progress(&mut self, done: u64, total: u64, unit: &str, message: &str);
    /// A metric's value at an epoch, counted from 1. A resumed attempt repeats the metrics of the epochs done before with the same
    /// values: a receiver keeps one value for a key and step.
    fn metric(&mut self, key: &str, value: f64, step: i64);
    /// Asked before every step and every batch of an evaluation.
    fn directive(&mut self) -> Directive;
    /// A line of the log.
    fn log(&mut self, line: &str);
}
