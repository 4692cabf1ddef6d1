//! The end of a trial, or of one of its folds: what the job has brought is stored, and what comes next begins.

use jiff::Timestamp;
use quintet_proto::v1::Job;
use runtime_core::worker::Failure;

use super::{
    ATTR_CANCELLED, ATTR_ERROR, ATTR_TRIAL_METRICS, Outcome, Verdict,
    folds::{Fold, Metrics, folds, means, record},
    outcome::{metrics_of, verdict},
    retry,
    runner::{Run, store_failure},
};
use crate::{
    pyjson::{PyValue, dump_text, float_repr},
    storage::{self, Attributes, Edit},
};

impl Run {
    /// The job of a trial has ended, or that of one of its folds.
    pub(super) async fn job_ended(&mut self, number: i64, id: i64, job: &Job) -> Result<(), Failure> {
        let (verdict, metrics) = (verdict(job, &self.sweep.goals), metrics_of(job));
        match (self.sweep.n_splits, verdict) {
            (Some(n_splits), Verdict::Complete(outcome)) => {
                self.fold_ended(number, id, n_splits, Fold { job: job.name.clone(), metrics: outcome.metrics }).await
            }
            (Some(_), Verdict::Fail(problem)) => {
                let fold = self.runner.store.trial(id).await.map(|trial| folds(&trial).len()).map_err(store_failure)?;
                self.finish_with(number, id, Verdict::Fail(format!("fold {fold}: {problem}")), &metrics).await
            }
            (_, verdict) => self.finish_with(number, id, verdict, &metrics).await,
        }
    }

    async fn fold_ended(&mut self, number: i64, id: i64, n_splits: i32, fold: Fold) -> Result<(), Failure> {
        let before = folds(&*self.runner.store.trial(id).await.map_err(store_failure)?);
        let index = before.len();
        let values =
            self.sweep.goals.objectives.iter().filter_map(|objective| {
                Some(format!("{} = {}", objective.metric, fold.metrics.get(&objective.metric)?))
            });
        let values: Vec<String> = values.collect();
        let edit = record(&before, fold, &self.sweep.goals);
        match self.runner.store.edit(id, edit, Timestamp::now()).await {
            Err(storage::Error::TrialFinished { .. }) => return Ok(()),
            other => drop(other.map_err(store_failure)?),
        }
        self.context.log(format_args!("trial {number}: fold {index} of {n_splits}: {}", values.join(", ")));
        self.fold_done(number, index + 1);
        Ok(())
    }

    /// Has the trial judged at the last one of its folds that are done, and gone on with if it may.
    pub(super) fn fold_done(&mut self, number: i64, done: usize) {
        self.between.insert(number);
        // After the last fold there is nothing left to save.
        if self.sweep.n_splits.and_then(|n_splits| usize::try_from(n_splits).ok()).is_some_and(|all| done < all) {
            self.fresh.entry(number).or_default().extend(i64::try_from(done - 1));
        }
    }

    /// Starts the next folds of trials of which none runs, and ends those that have all of theirs.
    pub(super) async fn next_folds(&mut self) -> Result<(), Failure> {
        let Some(n_splits) = self.sweep.n_splits else { return Ok(()) };
        for number in std::mem::take(&mut self.between) {
            let Some(trial) = self.numbered(number).filter(|trial| !trial.state.finished()).cloned() else { continue };
            let done = folds(&trial);
            if i32::try_from(done.len()).is_ok_and(|done| done < n_splits) {
                self.follow(&trial).await?;
                continue;
            }
            let verdict = self.sweep.goals.outcome(&means(&done)).map_or_else(Verdict::Fail, Verdict::Complete);
            self.finish_trial(number, trial.id, verdict).await?;
        }
        Ok(())
    }

    /// Queues a failed trial again.
    pub(super) async fn retry(&self, number: i64) -> Result<(), Failure> {
        let Some(failed) = self.numbered(number) else { return Ok(()) };
        let new = retry::repeat(failed);
        let made = self.runner.store.create_trial(self.study.id, new, Timestamp::now()).await.map_err(store_failure)?;
        self.context.log(format_args!("trial {number} is repeated as trial {}", made.number));
        Ok(())
    }

    /// Ends a trial, unless somebody else has.
    pub(super) async fn finish_trial(&self, number: i64, id: i64, verdict: Verdict) -> Result<(), Failure> {
        self.finish_with(number, id, verdict, &Metrics::new()).await
    }

    /// Ends a trial, unless somebody else has. One without a result keeps the metrics of its last job.
    async fn finish_with(&self, number: i64, id: i64, verdict: Verdict, last: &Metrics) -> Result<(), Failure> {
        let mut end = Edit::state(verdict.state(), Vec::new());
        if !last.is_empty() {
            end.user_attrs = metrics_attribute(last);
        }
        match &verdict {
            Verdict::Complete(Outcome { values, constraints, metrics }) => {
                end.values.clone_from(values);
                end.user_attrs = metrics_attribute(metrics);
                let attribute =
                    |(metric, excess): (&String, &f64)| (format!("constraints:{metric}"), float_repr(*excess));
                end.system_attrs.extend(constraints.iter().map(attribute));
            }
            Verdict::Pruned => {
                end.values.extend(self.runner.store.trial(id).await.map_err(store_failure)?.pruned_value());
            }
            Verdict::Fail(error) => {
                end.user_attrs.insert(ATTR_ERROR.into(), dump_text(error));
            }
            Verdict::Cancelled(error) => {
                end.user_attrs.insert(ATTR_ERROR.into(), dump_text(error));
                end.user_attrs.insert(ATTR_CANCELLED.into(), "true".into());
            }
        }
        match self.runner.store.edit(id, end, Timestamp::now()).await {
            Err(storage::Error::TrialFinished { .. } | storage::Error::NoTrial(_)) => return Ok(()),
            other => drop(other.map_err(store_failure)?),
        }
        self.tell(number, &verdict);
        if let Some(hook) = &self.runner.after_trial {
            hook();
        }
        Ok(())
    }

    fn tell(&self, number: i64, verdict: &Verdict) {
        let outcome = match verdict {
            Verdict::Complete(outcome) => outcome,
            Verdict::Pruned => return self.context.log(format_args!("trial {number} PRUNED")),
            Verdict::Fail(error) | Verdict::Cancelled(error) => {
                return self.context.log(format_args!("trial {number} FAIL: {error}"));
            }
        };
        let broken = outcome.constraints.iter().filter(|(_, excess)| **excess > 0.0);
        let broken: Vec<String> = broken.map(|(metric, by)| format!(", {metric} out of bounds by {by}")).collect();
        let mut values = Vec::new();
        for (objective, value) in self.sweep.goals.objectives.iter().zip(&outcome.values) {
            values.push(format!("{} = {value}", objective.metric));
            self.context.metric(&objective.metric, *value, number);
        }
        self.context.log(format_args!("trial {number} COMPLETE: {}{}", values.join(", "), broken.concat()));
    }
}

fn metrics_attribute(metrics: &Metrics) -> Attributes {
    let entries = metrics.iter().map(|(name, value)| (name.clone(), PyValue::Float(*value)));
    Attributes::from([(ATTR_TRIAL_METRICS.to_owned(), PyValue::Object(entries.collect()).dump())])
}
