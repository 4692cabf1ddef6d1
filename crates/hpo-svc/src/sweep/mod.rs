//! Sweeps: what a specification asks for, the pure planner, and the runner that turns its decisions into trial jobs.

mod apply;
mod control;
mod ended;
mod ending;
mod finish;
mod folds;
mod limits;
mod orphans;
mod outcome;
mod plan;
mod refit;
mod report;
mod resume;
mod retry;
mod runner;
mod spec;
mod trial_checks;
mod trials;

pub use apply::{BACKBONE, Part, trial_spec};
pub use control::{ATTR_CLOSING, ATTR_MAX_TRIALS, ATTR_PAUSES, Control, Extension};
pub use ended::{ATTR_ENDED, EndedEarly, ended_early};
pub use folds::{ATTR_FOLDS, Fold, Metrics, folds};
pub use limits::{Cost, Limits, NoProgress};
pub use outcome::{Constraint, Goals, Outcome, Verdict, verdict};
pub use plan::{Decision, End, View, plan};
pub use report::{best_config, report};
pub(crate) use resume::disagreement;
pub(crate) use retry::counted;
pub use runner::{Runner, StudyHook};
pub(crate) use spec::MAX_TRIALS;
pub use spec::{Sweep, validate};

/// User attribute of a trial: uid of the sweep that made it, as JSON text.
pub const ATTR_SWEEP: &str = "quintet:sweep";
/// User attribute of a trial: name of its job, as JSON text.
pub const ATTR_JOB: &str = "quintet:job";
/// User attribute of a trial: the metrics that its job reported in the end, as a JSON object. Of a trial with folds: their means when it is
/// COMPLETE, else those of the fold that has ended it.
pub const ATTR_TRIAL_METRICS: &str = "quintet:metrics";
/// User attribute of a trial: why it failed, as JSON text.
pub const ATTR_ERROR: &str = "quintet:error";
/// User attribute of a trial, `true`: it failed because its sweep was stopped, and counts for none.
pub const ATTR_CANCELLED: &str = "quintet:cancelled";
/// User attribute of a study: its search space as an object of Optuna's distributions by name.
pub const ATTR_SPACE: &str = "quintet:search_space";
/// User attribute of a study: the pretrained model of its trials, as JSON text.
pub const ATTR_BACKBONE: &str = "quintet:backbone";
/// System attribute of a study, Optuna's own: names of its objectives.
pub const ATTR_METRICS: &str = "study:metric_names";
