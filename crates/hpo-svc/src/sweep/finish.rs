//! The end of a sweep: as planned, since it failed, or since it was told to stop.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use quintet_proto::v1::{Directive, JobState};
use runtime_core::{
    status::ErrorReason,
    worker::{Done, Failure, WorkResult},
};
use tokio::time::timeout;

use super::{
    ATTR_CLOSING, ATTR_ENDED, End, Verdict,
    refit::Refitted,
    report,
    runner::{Inbox, News, Run, store_failure},
};
use crate::{
    pareto::best_trials,
    pyjson::dump_text,
    storage::{Attributes, StudyAttributes},
    study::State,
};

/// How long cancelled trials may take to stop before they are written off; the job service gives them 30 s.
const STOP_GRACE: Duration = Duration::from_secs(35);
/// What trials are told that a failing sweep ends.
const FAILED: &str = "the sweep has failed";
/// The sweep's own lease ends 30 s after it was cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(20);

impl Run {
    /// Ends the sweep, unless it was extended meanwhile: then `None`.
    pub(super) async fn end(&mut self, end: End, inbox: &mut Inbox) -> Result<Option<Done>, Failure> {
        if let End::Failed(problem) = &end {
            // The sweep fails for its trials, whatever becomes of the note.
            if let Err(failure) = self.keep_end(&end).await {
                self.context.log(format_args!("the study does not tell why: {failure}"));
            }
            return Err(Failure::user(ErrorReason::JobFailed, problem.clone()));
        }
        self.context.log(end.why());
        self.update().await?;
        match self.refit(inbox).await? {
            // What was learnt while the refit ran may have ended the search otherwise, or extended it.
            Refitted::Report(refit) => match self.is_over().await? {
                true => {
                    self.keep_end(&end).await?;
                    self.done(false, refit).await.map(Some)
                }
                false => Ok(None),
            },
            Refitted::Stopped(result) => result.map(Some),
        }
    }

    /// Looks for the last time whether there is more to do. An extension that comes later knows, and waits for the end.
    async fn is_over(&mut self) -> Result<bool, Failure> {
        self.set_closing(true).await?;
        self.update().await?;
        if self.decide().end.is_some() {
            return Ok(true);
        }
        self.context.log("the sweep goes on");
        self.set_closing(false).await?;
        Ok(false)
    }

    pub(super) async fn set_closing(&self, closing: bool) -> Result<(), Failure> {
        let sweep = if closing { dump_text(&self.job.uid) } else { "null".to_owned() };
        self.set_attribute(ATTR_CLOSING, sweep).await
    }

    /// Keeps with the study why its sweep ends.
    async fn keep_end(&self, end: &End) -> Result<(), Failure> {
        self.set_attribute(ATTR_ENDED, end.to_json(&self.job.uid, Timestamp::now())).await
    }

    async fn set_attribute(&self, key: &str, json: String) -> Result<(), Failure> {
        let attributes = Attributes::from([(key.to_owned(), json)]);
        let study = StudyAttributes::User(self.study.id);
        self.runner.store.set_study_attributes(study, attributes).await.map_err(store_failure)
    }

    /// Ends the trials of a sweep that fails.
    pub(super) async fn give_up(&mut self, inbox: &mut Inbox) {
        for live in self.live.values() {
            // A trial that has just ended by itself needs no cancelling.
            let _ = Box::pin(self.client.cancel(&live.job, false, FAILED)).await;
        }
        if let Err(failure) = self.settle(inbox, STOP_GRACE, Verdict::Fail(FAILED.into())).await {
            self.context.log(format_args!("its trials could not all be ended: {failure}"));
        }
    }

    /// Obeys CANCEL. A drain of the server looks the same, but then the job goes back to the queue and the trials run on.
    pub(super) async fn stop(&mut self, directive: Directive, inbox: &mut Inbox) -> WorkResult {
        let stopped = Done { stopped: true, ..Done::default() };
        if directive == Directive::Abandon {
            return Ok(stopped);
        }
        let cancelled = match timeout(Duration::from_secs(2), Box::pin(self.client.get(&self.job.name))).await {
            Ok(Ok(job)) => job.state() == JobState::Cancelling || job.directive() != Directive::Continue,
            _ => false,
        };
        if !cancelled {
            return Ok(stopped);
        }
        // The job service has cancelled the trials with the sweep.
        self.settle(inbox, CANCEL_GRACE, Verdict::Cancelled("the sweep was cancelled".into())).await?;
        self.done(true, None).await
    }

    /// Waits for trials that were told to stop, and ends those by that verdict that do not.
    async fn settle(&mut self, inbox: &mut Inbox, grace: Duration, verdict: Verdict) -> Result<(), Failure> {
        let deadline = tokio::time::Instant::now() + grace;
        while !self.live.is_empty() {
            match tokio::time::timeout_at(deadline, inbox.recv()).await {
                Ok(Some(News::Lost(number, _))) => {
                    let Some(live) = self.live.remove(&number) else { continue };
                    self.finish_trial(number, live.id, verdict.clone()).await?;
                }
                Ok(Some(news)) => self.handle(news).await?,
                Ok(None) | Err(_) => break,
            }
        }
        self.live.clear();
        // Those that did not stop in time, and one whose job was refused.
        self.update().await?;
        for trial in self.history.trials().iter().filter(|trial| self.owns(trial) && !trial.state.finished()) {
            self.finish_trial(trial.number, trial.id, verdict.clone()).await?;
        }
        Ok(())
    }

    async fn done(&mut self, stopped: bool, refit: Option<serde_json::Value>) -> WorkResult {
        self.update().await?;
        self.show();
        let (trials, goals) = (self.history.trials(), &self.sweep.goals);
        let mut report =
            report(&self.study.name, self.runner.store.optuna_url(), goals, trials, self.elapsed().as_secs_f64());
        if let (Some(refit), Some(report)) = (refit, report.as_object_mut()) {
            report.insert("refit".into(), refit);
        }
        let complete = trials.iter().filter(|trial| trial.state == State::Complete).count();
        let mut metrics = BTreeMap::new();
        match (&goals.objectives[..], goals.best(trials).and_then(|trial| Some((trial.number, trial.value()?)))) {
            ([objective], Some((number, value))) => {
                metrics.insert(objective.metric.clone(), value);
                self.context.log(format_args!("best of {complete} completed trials: trial {number}, {value}"));
            }
            ([_], None) => {}
            _ => {
                let front = best_trials(trials, &goals.directions()).len();
                self.context.log(format_args!("{front} of {complete} completed trials are on the Pareto front"));
            }
        }
        Ok(Done { metrics, report, stopped })
    }
}
