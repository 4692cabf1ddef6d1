//! Trials that outlived their sweep: nobody will end them any more, so they fail here.
//!
//! A sweep ends its trials itself as long as its runner works. It does not when it was cancelled in the queue, when its last attempt was
//! lost, or when the server was killed while it stopped. Such trials would be steered around by samplers for ever.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use quintet_proto::v1::JobState;
use runtime_core::{
    client::JobClient,
    jobs::model::{is_terminal, job_name, millis},
    server::Drain,
    worker::Failure,
};

use super::{
    ATTR_CANCELLED, ATTR_ERROR, ATTR_JOB, ATTR_SWEEP,
    runner::{Runner, call_failure, store_failure},
};
use crate::{
    pyjson::dump_text,
    storage::{self, Edit},
    study::{State, Trial},
};

/// How often they are looked for.
const PERIOD: Duration = Duration::from_secs(60);
/// Who has started a trial so long after its sweep has ended is another program, which has taken it from the queue. Within it may also be
/// a runner that had not heard of the end. A trial that has run for less belongs to no sweep that is long gone.
const STRAGGLER: SignedDuration = SignedDuration::from_secs(60);

/// The end of a sweep.
struct End {
    /// When; `None`: its job was deleted since.
    at: Option<Timestamp>,
    /// It was cancelled.
    cancelled: bool,
}

impl Runner {
    /// Looks for such trials until the drain begins.
    pub async fn end_orphans(&self, drain: Drain) {
        let client = self.job_client();
        let rounds = async {
            loop {
                if let Err(failure) = self.end_orphans_of(&client, None).await {
                    tracing::warn!(%failure, "trials whose sweeps have ended could not be looked for");
                }
                tokio::time::sleep(PERIOD).await;
            }
        };
        tokio::select! {
            () = drain.begun() => {}
            () = rounds => {}
        }
    }

    /// Fails the running trials whose sweep has ended, of one study or of all.
    pub(super) async fn end_orphans_of(&self, client: &JobClient, study: Option<i64>) -> Result<(), Failure> {
        let mut by_sweep: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (trial, sweep) in self.store.running_of(ATTR_SWEEP, study).await.map_err(store_failure)? {
            by_sweep.entry(sweep).or_default().push(trial);
        }
        for (sweep, trials) in by_sweep {
            let Some(end) = end_of(client, &sweep).await? else { continue };
            for trial in trials {
                self.end_orphan(client, trial, &sweep, &end).await?;
            }
        }
        Ok(())
    }

    async fn end_orphan(&self, client: &JobClient, id: i64, sweep: &str, end: &End) -> Result<(), Failure> {
        let trial = match self.store.trial(id).await {
            Ok(trial) => trial,
            Err(storage::Error::NoTrial(_)) => return Ok(()),
            Err(error) => return Err(store_failure(error)),
        };
        if !orphaned(&trial, end, Timestamp::now()) {
            return Ok(());
        }
        if let Some(job) = trial.user_text(ATTR_JOB) {
            // It has ended with its sweep, as a rule.
            let _ = Box::pin(client.cancel(&job, false, "its sweep has ended")).await;
        }
        let problem = format!("its sweep {} has ended", job_name(sweep));
        let mut told = Edit::user_attr(ATTR_ERROR, dump_text(&problem));
        if end.cancelled {
            told.user_attrs.insert(ATTR_CANCELLED.into(), "true".into());
        }
        let end = Edit { state: Some(State::Fail), only: Some(State::Running), ..told };
        match self.store.edit(id, end, Timestamp::now()).await {
            Ok(true) => tracing::warn!(trial = id, "{problem}: the trial has failed"),
            Ok(false) | Err(storage::Error::TrialFinished { .. } | storage::Error::NoTrial(_)) => return Ok(()),
            Err(error) => return Err(store_failure(error)),
        }
        if let Some(hook) = &self.after_trial {
            hook();
        }
        Ok(())
    }
}

/// How a sweep has ended; `None` when it lives.
async fn end_of(client: &JobClient, sweep: &str) -> Result<Option<End>, Failure> {
    match Box::pin(client.get(&job_name(sweep))).await {
        Ok(job) => {
            let at = job.end_time.as_ref().and_then(|at| Timestamp::from_millisecond(millis(at)).ok());
            let cancelled = job.state() == JobState::Cancelled;
            Ok(is_terminal(job.state()).then_some(End { at, cancelled }))
        }
        Err(status) if matches!(status.code(), tonic::Code::NotFound | tonic::Code::InvalidArgument) => {
            Ok(Some(End { at: None, cancelled: false }))
        }
        Err(status) => Err(call_failure("looking for the sweep of a running trial", &status)),
    }
}

/// Whether a running trial was started by its sweep, which has ended, and not by another program since.
fn orphaned(trial: &Trial, sweep: &End, now: Timestamp) -> bool {
    let last = match sweep.at {
        Some(at) => at.checked_add(STRAGGLER),
        None => now.checked_sub(STRAGGLER),
    };
    trial.start.zip(last.ok()).is_none_or(|(start, last)| start <= last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::tests::trial;

    #[test]
    fn who_takes_a_trial_long_after_its_sweep_keeps_it() {
        let sweep = End { at: Timestamp::from_second(1000).ok(), cancelled: false };
        let deleted = End { at: None, cancelled: false };
        let started = |second| Trial { start: Timestamp::from_second(second).ok(), ..trial(0, State::Running, None) };
        let now = Timestamp::from_second(10_000).unwrap();
        let orphaned = |trial: &Trial, sweep: &End| orphaned(trial, sweep, now);
        assert!(orphaned(&started(900), &sweep) && orphaned(&started(1059), &sweep));
        assert!(!orphaned(&started(1061), &sweep));
        // Of a job that was deleted nothing is known.
        assert!(orphaned(&started(9000), &deleted) && !orphaned(&started(9999), &deleted));
        assert!(orphaned(&trial(0, State::Running, None), &sweep));
    }
}
