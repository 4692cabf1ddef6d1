//! The refit: when the search is over, one more job with the best trial's parameters, without folds, whose outputs are kept.
//!
//! A sweep that is extended while its refit runs lets it end first. When another trial is the best one after all, that one is refitted
//! too; else the refit that is there counts.

use quintet_proto::v1::{Job, JobState, Progress};
use runtime_core::{
    status::ErrorReason,
    worker::{Failure, WorkResult},
};
use serde_json::{Value, json};

use super::{
    Part,
    runner::{Inbox, Run, call_failure},
};

/// How a refit has ended.
pub(super) enum Refitted {
    /// What the report says of it; nothing when the sweep asks for none, or has no best trial.
    Report(Option<Value>),
    /// The sweep was told to stop meanwhile.
    Stopped(WorkResult),
}

impl Run {
    /// Trains once more with the best parameters, or finds the job that an earlier attempt of the sweep has made for it.
    pub(super) async fn refit(&mut self, inbox: &mut Inbox) -> Result<Refitted, Failure> {
        let best = self.sweep.goals.best(self.history.trials()).filter(|_| self.sweep.spec.refit).cloned();
        let Some(best) = best else { return Ok(Refitted::Report(None)) };
        let request = self.request(best.number, &best.params, Part::Refit)?;
        let what = format!("the refit of trial {}", best.number);
        let made = Box::pin(self.client.create(request)).await.map_err(|status| call_failure(&what, &status))?;
        self.context.log(format_args!("{what}: {}", made.name));
        self.context.progress(Progress { message: what.clone(), phase: "refit".into(), ..self.progress() });
        let (context, client) = (self.context.clone(), self.client.clone());
        let job = tokio::select! {
            biased;
            directive = context.stop_requested() => {
                return Ok(Refitted::Stopped(self.stop(directive, inbox).await));
            }
            job = Box::pin(client.watch(&made.name, 0, |_| {}, |_| {})) => {
                job.map_err(|status| call_failure(&what, &status))?
            }
        };
        match job.state() {
            JobState::Succeeded => Ok(Refitted::Report(Some(report(best.number, &job)))),
            state => {
                let error = job.error.unwrap_or_default();
                let message = format!("{what} is {}: {} {}", state.as_str_name(), error.reason, error.message);
                Err(Failure::user(ErrorReason::JobFailed, message))
            }
        }
    }
}

fn report(trial: i64, job: &Job) -> Value {
    let outputs = job.outputs.clone().unwrap_or_default();
    let artifacts: serde_json::Map<String, Value> =
        outputs.artifacts.iter().map(|(name, artifact)| (name.clone(), json!(artifact.uri))).collect();
    let metrics: serde_json::Map<String, Value> =
        outputs.metrics.iter().map(|(name, value)| (name.clone(), super::report::number(*value))).collect();
    json!({"trial": trial, "job": job.name, "metrics": metrics, "outputs": artifacts})
}
