//! Objectives: which metrics a study searches for, and which way each improves.

use quintet_proto::v1;
use runtime_core::status::{FieldViolation, violation};

use crate::{pyjson::dump_text, study::Direction};

/// A metric that is optimized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objective {
    /// Its name, as the trials report it.
    pub metric: String,
    /// Which way it improves.
    pub direction: Direction,
}

/// Reads objectives; `field` is the path of one of them by its index.
pub(crate) fn from_proto(
    objectives: &[v1::Objective],
    field: impl Fn(usize) -> String,
    wrong: &mut Vec<FieldViolation>,
) -> Vec<Objective> {
    for (index, objective) in objectives.iter().enumerate() {
        let at = |name: &str| format!("{}.{name}", field(index));
        if objective.metric.is_empty() {
            wrong.push(violation(at("metric"), "is empty; name the metric that the trials report"));
        } else if objectives[..index].iter().any(|other| other.metric == objective.metric) {
            wrong.push(violation(at("metric"), format!("`{}` is there twice", objective.metric)));
        }
        if v1::Direction::try_from(objective.direction).is_err() {
            let problem = format!("{} is unknown; MINIMIZE and MAXIMIZE are allowed", objective.direction);
            wrong.push(violation(at("direction"), problem));
        }
    }
    let read = |objective: &v1::Objective| Objective {
        metric: objective.metric.clone(),
        direction: Direction::from_proto(objective.direction()),
    };
    objectives.iter().map(read).collect()
}

/// The names as Optuna keeps them with a study: a JSON list.
pub(crate) fn metric_names<'a>(metrics: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = metrics.map(dump_text).collect();
    format!("[{}]", names.join(", "))
}
