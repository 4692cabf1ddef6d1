//! Plots of a study as SVG text.
//!
//! One function a plot, all with the same [`Options`]; [`draw`] chooses by [`Kind`]. What has no place in a plot, such as NaN and
//! infinities, is left out, and of thousands of trials a part is drawn; both are said in the plot.

use crate::{
    study::{Direction, State, Trial},
    view::table::objective_name,
};

mod frame;
mod history;
mod importances;
mod intermediate;
mod palette;
mod parallel;
mod pareto;
mod scale;
mod slice;
mod svg;
#[cfg(test)]
mod tests;

pub use history::history;
pub use importances::importances;
pub use intermediate::intermediate;
pub use parallel::parallel;
pub use pareto::pareto;
pub use scale::Scaling;
pub use slice::slice;

/// How to draw; the same for all plots.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Instead of the plot's own title.
    pub title: Option<String>,
    /// The objective to draw, from 0, where a plot shows one.
    pub objective: usize,
    /// Names of the objectives, where they have any.
    pub names: Vec<String>,
    /// Of the picture, in pixels.
    pub width: f64,
    /// Of the picture, in pixels; a plot of many panels is higher.
    pub height: f64,
    /// Of the objective's axis.
    pub scaling: Scaling,
}

impl Default for Options {
    fn default() -> Self {
        let (width, height) = (960.0, 540.0);
        Self { title: None, objective: 0, names: Vec::new(), width, height, scaling: Scaling::Auto }
    }
}

impl Options {
    /// Width and height within reason.
    fn size(&self) -> (f64, f64) {
        let within = |value: f64, low: f64, usual: f64| if value.is_nan() { usual } else { value.clamp(low, 20_000.0) };
        (within(self.width, 320.0, 960.0), within(self.height, 240.0, 540.0))
    }

    fn title<'a>(&'a self, own: &'a str) -> &'a str {
        self.title.as_deref().unwrap_or(own)
    }

    /// What an objective is called on an axis.
    fn name(&self, objective: usize, objectives: usize) -> String {
        let name = objective_name(objective, objectives, &self.names);
        match name.strip_prefix("value") {
            Some(rest) if self.names.get(objective).is_none_or(String::is_empty) => format!("Objective{rest}"),
            _ => name,
        }
    }
}

/// The plots that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`history`]
    History,
    /// [`parallel`]
    Parallel,
    /// [`slice`]
    Slice,
    /// [`importances`]
    Importances,
    /// [`pareto`]
    Pareto,
    /// [`intermediate`]
    Intermediate,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::History, Self::Parallel, Self::Slice, Self::Importances, Self::Pareto, Self::Intermediate];

    /// The plot's word on a command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Parallel => "parallel",
            Self::Slice => "slice",
            Self::Importances => "importances",
            Self::Pareto => "pareto",
            Self::Intermediate => "intermediate",
        }
    }

    /// The plot of that word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A plot of a study as SVG.
pub fn draw(kind: Kind, trials: &[Trial], directions: &[Direction], options: &Options) -> String {
    match kind {
        Kind::History => history(trials, directions, options),
        Kind::Parallel => parallel(trials, directions, options),
        Kind::Slice => slice(trials, directions, options),
        Kind::Importances => importances(trials, directions, options),
        Kind::Pareto => pareto(trials, directions, options),
        Kind::Intermediate => intermediate(trials, directions, options),
    }
}

/// The value of a COMPLETE trial on the drawn objective; it may be NaN or infinite.
fn value(trial: &Trial, options: &Options) -> Option<f64> {
    trial.values.get(options.objective).copied().filter(|_| trial.state == State::Complete)
}

/// `1 trial`, `10,000 trials`.
fn counted(count: usize, one: &str, many: &str) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {}", if count == 1 { one } else { many })
}

/// What is said about values without a place; empty when all have one.
fn left_out(count: usize) -> String {
    if count == 0 { String::new() } else { counted(count, "value has", "values have") + " no place on the axes" }
}

/// What is said about things of which only a part is drawn; empty when all are.
fn thinned(drawn: usize, all: usize, many: &str) -> String {
    if drawn < all {
        format!("{} of {} drawn", counted(drawn, "", "").trim(), counted(all, many, many))
    } else {
        String::new()
    }
}
