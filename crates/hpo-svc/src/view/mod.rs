//! What there is to look at in a study: importances of parameters, the course of the objective, plots, tables and files.
//!
//! Everything is a pure function of the study's trials, whose parameters carry their distributions, and of its directions:
//! [`importance`] tells which parameters mattered, [`sparkline`] draws the history in a line of a terminal, [`plot`] draws SVG,
//! [`table`](mod@table) gives rows of text, [`export`] whole files.

mod course;
pub mod export;
#[cfg(test)]
mod golden;
pub mod importance;
pub mod plot;
pub mod sparkline;
pub mod table;
