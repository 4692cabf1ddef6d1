//! From the report of a sweep to its part of the document.

use std::collections::BTreeMap;

use quintet_proto::v1::Outputs;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    assemble::{report, wholes},
    document::{Best, Fold, Objective, Refit, Sweep, Trial},
};

/// What hpo-svc writes: `crates/hpo-svc/src/sweep/report.rs`. Values that are not finite are words there.
#[derive(Deserialize)]
struct SweepReport {
    study: String,
    #[serde(default)]
    storage: String,
    direction: String,
    metric: String,
    #[serde(default)]
    objectives: Vec<Objective>,
    trials: Vec<TrialReport>,
    best: Option<BestReport>,
    #[serde(default)]
    pareto_front: Vec<f64>,
    refit: Option<RefitReport>,
}

#[derive(Deserialize)]
struct TrialReport {
    number: f64,
    state: String,
    parameters: Map<String, Value>,
    value: Option<Value>,
    #[serde(default)]
    values: Vec<Value>,
    #[serde(default)]
    folds: Vec<FoldReport>,
    #[serde(default)]
    intermediate_values: BTreeMap<String, Value>,
    seconds: Option<f64>,
    job: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct FoldReport {
    job: String,
    metrics: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct RefitReport {
    trial: f64,
    job: String,
    metrics: BTreeMap<String, Value>,
    outputs: BTreeMap<String, String>,
}

/// Those that are numbers.
fn numbers(values: BTreeMap<String, Value>) -> BTreeMap<String, f64> {
    values.into_iter().filter_map(|(name, value)| value.as_f64().map(|value| (name, value))).collect()
}

#[derive(Deserialize)]
struct BestReport {
    number: f64,
    parameters: Map<String, Value>,
    value: f64,
    job: Option<String>,
}

/// The sweep of a job's report.
pub(super) fn sweep(outputs: &Outputs) -> Result<Sweep, serde_json::Error> {
    let report: SweepReport = report(outputs)?;
    let trials = report.trials.into_iter().map(|trial| Trial {
        number: trial.number as i64,
        state: trial.state,
        parameters: wholes(trial.parameters),
        value: trial.value.as_ref().and_then(Value::as_f64),
        values: trial.values.iter().map(Value::as_f64).collect(),
        folds: {
            let folds = trial.folds.into_iter();
            folds.map(|fold| Fold { job: fold.job, metrics: numbers(fold.metrics) }).collect()
        },
        intermediate_values: numbers(trial.intermediate_values),
        seconds: trial.seconds,
        job: trial.job.unwrap_or_default(),
        error: trial.error.unwrap_or_default(),
    });
    Ok(Sweep {
        study: report.study,
        storage: report.storage,
        direction: report.direction,
        metric: report.metric,
        objectives: report.objectives,
        trials: trials.collect(),
        best: report.best.map(|best| Best {
            number: best.number as i64,
            parameters: wholes(best.parameters),
            value: best.value,
            job: best.job.unwrap_or_default(),
        }),
        pareto_front: report.pareto_front.into_iter().map(|number| number as i64).collect(),
        refit: report.refit.map(|refit| Refit {
            trial: refit.trial as i64,
            job: refit.job,
            metrics: numbers(refit.metrics),
            outputs: refit.outputs,
        }),
    })
}
