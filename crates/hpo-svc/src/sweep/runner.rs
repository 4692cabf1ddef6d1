//! The runner: executes a sweep job, turning the planner's decisions into child jobs and their events into trials.
//!
//! Everything that matters is in the study and in the job store, both durable, under names that follow from the sweep and the trial's
//! number. A runner that starts anew, after a crash of any kind, finds every trial again: none is lost and none runs twice.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use quintet_proto::v1::{ErrorClass, Job, Progress, job_spec::Kind};
use runtime_core::{
    client::{Connection, JobClient},
    db,
    status::ErrorReason,
    worker::{Context, Failure, WorkResult},
};
use tokio::{sync::mpsc, task::AbortHandle};

use super::{Control, Decision, Limits, NoProgress, Sweep, View, plan, retry};
use crate::{
    history::History,
    pareto::best_trials,
    sampler::Request,
    select::short,
    storage::{self, Edit, Store},
    study::{Study, Trial},
};

/// What runs after each write that ends a trial: the backup of the study.
pub type StudyHook = Arc<dyn Fn() + Send + Sync>;

/// Executes sweep jobs; clones share the store and the connection.
#[derive(Clone)]
pub struct Runner {
    pub(super) store: Store,
    connection: Connection,
    patience: Duration,
    pub(super) after_trial: Option<StudyHook>,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("store", &self.store).finish_non_exhaustive()
    }
}

/// How often the study is looked at for what others have changed: a pause, an extension, trials of an Optuna script.
const LOOK: Duration = Duration::from_secs(1);

/// Where the news of watched jobs arrive.
pub(super) type Inbox = mpsc::UnboundedReceiver<News>;

/// What a watched trial job tells.
pub(super) enum News {
    /// Values of the objective by step.
    Reported(i64, Vec<(i64, f64)>),
    /// The job has ended.
    Ended(i64, Box<Job>),
    /// The job can no longer be watched.
    Lost(i64, tonic::Status),
}

/// A trial of this sweep that has not ended.
pub(super) struct Live {
    pub(super) id: i64,
    pub(super) job: String,
    /// Steps that were judged, or were there before this attempt.
    pub(super) known: BTreeSet<i64>,
    pub(super) watcher: AbortHandle,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// One attempt of a sweep.
pub(super) struct Run {
    pub(super) runner: Runner,
    pub(super) client: JobClient,
    pub(super) context: Context,
    pub(super) job: Job,
    pub(super) sweep: Sweep,
    pub(super) study: Study,
    pub(super) history: History,
    pub(super) seed: u64,
    pub(super) live: HashMap<i64, Live>,
    pub(super) news: mpsc::UnboundedSender<News>,
    pub(super) fresh: BTreeMap<i64, Vec<i64>>,
    /// Numbers of trials with folds of which none runs: the next one starts unless the trial is pruned.
    pub(super) between: BTreeSet<i64>,
    asked_to_stop: BTreeSet<i64>,
    shown: Option<Progress>,
    /// The job service takes no more trials: the sweep is being cancelled.
    pub(super) closed: bool,
    started: Timestamp,
}

/// An error of the study store as that of an attempt.
pub(super) fn store_failure(error: storage::Error) -> Failure {
    let reason = match &error {
        storage::Error::Db(db::Error::Full(_)) => ErrorReason::StorageFull,
        storage::Error::Db(db::Error::Corrupt(_)) => ErrorReason::DataCorrupt,
        storage::Error::Db(_) => ErrorReason::Unavailable,
        _ => return Failure::user(ErrorReason::BadInput, error),
    };
    Failure::infrastructure(reason, error)
}

/// A status of the job service as an error of this attempt.
pub(super) fn call_failure(what: &str, status: &tonic::Status) -> Failure {
    let message = format!("{what}: {}", status.message());
    match status.code() {
        tonic::Code::InvalidArgument => Failure::user(ErrorReason::InvalidField, message),
        tonic::Code::Unimplemented => Failure::user(ErrorReason::Unsupported, message),
        _ => Failure::infrastructure(ErrorReason::Unavailable, message),
    }
}

impl Runner {
    /// A runner that keeps studies in `store` and creates trials over `connection`.
    pub fn new(store: Store, connection: Connection, patience: Duration) -> Self {
        Self { store, connection, patience, after_trial: None }
    }

    /// Calls `hook` after each trial has ended and is stored.
    #[must_use]
    pub fn after_trial(mut self, hook: StudyHook) -> Self {
        self.after_trial = Some(hook);
        self
    }

    pub(super) fn job_client(&self) -> JobClient {
        JobClient::new(self.connection.clone(), self.patience)
    }

    /// Executes one attempt of a sweep job: what [`runtime_core::worker::serve`] calls.
    ///
    /// # Errors
    /// The specification is wrong, too many trials failed, none completed, or a store or server cannot be reached.
    pub async fn run(&self, context: Context) -> WorkResult {
        let job = context.job().clone();
        let Some(Kind::Sweep(spec)) = job.spec.as_ref().and_then(|spec| spec.kind.as_ref()) else {
            return Err(Failure::user(ErrorReason::Unsupported, "the job is no sweep"));
        };
        let sweep = Sweep::new(spec).map_err(|violations| {
            let text: Vec<String> = violations.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
            Failure::user(ErrorReason::InvalidField, text.join("; "))
        })?;
        for note in sweep.space.notes() {
            context.log(note);
        }
        let study = self.open_study(&sweep, &job).await?;
        let client = self.job_client();
        let (news, inbox) = mpsc::unbounded_channel();
        let seed = sweep.spec.seed.unwrap_or_else(|| {
            // Without a seed each sweep has its own, which a restart finds again.
            job.uid.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
        });
        let run = Run {
            runner: self.clone(),
            client,
            context,
            job,
            history: History::new(study.id, sweep.space.clone()),
            sweep,
            study,
            seed,
            live: HashMap::new(),
            news,
            fresh: BTreeMap::new(),
            between: BTreeSet::new(),
            asked_to_stop: BTreeSet::new(),
            shown: None,
            closed: false,
            started: Timestamp::now(),
        };
        Box::pin(run.run(inbox)).await
    }
}

impl Run {
    async fn run(mut self, mut inbox: Inbox) -> WorkResult {
        let result = Box::pin(self.search(&mut inbox)).await;
        if let Err(failure) = &result
            && failure.class == ErrorClass::User
        {
            // The sweep fails for good: no further attempt follows its trials on.
            self.give_up(&mut inbox).await;
        }
        result
    }

    async fn search(&mut self, inbox: &mut Inbox) -> WorkResult {
        self.resume().await?;
        let context = self.context.clone();
        loop {
            self.update().await?;
            let decision = self.decide();
            self.fresh.clear();
            self.show();
            for (number, system_attrs) in decision.system_attrs {
                self.note(number, system_attrs).await?;
            }
            for number in decision.prune {
                self.prune(number).await?;
            }
            self.next_folds().await?;
            for number in &decision.retry {
                self.retry(*number).await?;
            }
            if !decision.retry.is_empty() {
                continue;
            }
            if let Some(end) = decision.end {
                match self.end(end, inbox).await? {
                    Some(done) => return Ok(done),
                    None => continue,
                }
            }
            let mut as_planned = true;
            for _ in 0..decision.start {
                as_planned &= self.closed || self.start_trial().await?;
            }
            if !as_planned {
                continue;
            }
            tokio::select! {
                biased;
                directive = context.stop_requested() => return self.stop(directive, inbox).await,
                news = inbox.recv() => {
                    if let Some(news) = news {
                        self.handle(news).await?;
                    }
                    while let Ok(news) = inbox.try_recv() {
                        self.handle(news).await?;
                    }
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Brings the study and its trials up to date.
    pub(super) async fn update(&mut self) -> Result<(), Failure> {
        self.study = self.runner.store.study(self.study.id).await.map_err(store_failure)?;
        self.history.update(&self.runner.store).await.map_err(store_failure)
    }

    pub(super) fn decide(&mut self) -> Decision {
        let trials = self.history.trials();
        let own = trials.iter().filter(|trial| self.owns(trial));
        self.started = own.filter_map(|trial| trial.start).min().map_or(self.started, |first| first.min(self.started));
        let (space, directions) = (&self.sweep.space, &self.sweep.goals.directions()[..]);
        let number = self.history.next_number();
        let remaining = self.sweep.sampler.remaining(&Request { space, directions, trials, number, seed: self.seed });
        let control = Control::of(&self.study);
        let view = View {
            remaining,
            study: &self.study.name,
            limits: &self.limits(),
            goals: &self.sweep.goals,
            trials,
            sweep: &self.job.uid,
            elapsed: self.elapsed(),
            paused: control.paused(),
            fresh: &self.fresh,
        };
        plan(&view, self.sweep.pruner.as_ref())
    }

    /// The limits as they are by now.
    fn limits(&self) -> Limits {
        let given = &self.sweep.limits;
        let control = Control::of(&self.study);
        let mut max_trials = control.max_trials(&self.job.uid, given.max_trials);
        if self.sweep.spec.dry_run {
            // It tries what it is to try, however often it was tried before.
            let others: Vec<&Trial> = self.history.trials().iter().filter(|trial| !self.owns(trial)).collect();
            max_trials += retry::counted(&others);
        }
        let since = control.extension(&self.job.uid).and_then(|extension| extension.at);
        let no_progress = given.no_progress.clone().map(|rule| NoProgress { since, ..rule });
        Limits { max_trials, no_progress, ..given.clone() }
    }

    /// Time at work: without the pauses.
    pub(super) fn elapsed(&self) -> Duration {
        Control::of(&self.study).working_time(self.started, Timestamp::now())
    }

    /// Tells how far the sweep is, when that is news.
    pub(super) fn show(&mut self) {
        let progress = self.progress();
        if self.shown.as_ref() != Some(&progress) {
            self.context.progress(progress.clone());
            self.shown = Some(progress);
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let trials = self.history.trials();
        let counted = retry::counted(trials);
        let best = self.sweep.goals.best(trials);
        let mut message = format!("{} running", self.live.len());
        if Control::of(&self.study).paused() {
            message = format!("paused, {message}");
        }
        match (&self.sweep.goals.objectives[..], best.and_then(|trial| Some((trial.number, trial.value()?)))) {
            ([objective], Some((number, value))) => {
                message = format!("best {} {} (trial {number}), {message}", objective.metric, short(value));
            }
            ([_], None) => {}
            _ => {
                let front = best_trials(trials, &self.sweep.goals.directions()).len();
                message = format!("{front} on the Pareto front, {message}");
            }
        }
        Progress {
            done: counted as f64,
            total: self.limits().max_trials.max(counted) as f64,
            unit: "trials".into(),
            message,
            best: best.and_then(Trial::value),
            phase: "search".into(),
        }
    }

    /// Stores what the pruner wants to find at a trial again.
    async fn note(&self, number: i64, system_attrs: storage::Attributes) -> Result<(), Failure> {
        let Some(trial) = self.numbered(number) else { return Ok(()) };
        let note = Edit { system_attrs, ..Edit::default() };
        match self.runner.store.edit(trial.id, note, Timestamp::now()).await {
            Err(storage::Error::TrialFinished { .. }) => Ok(()),
            other => other.map(|_| ()).map_err(store_failure),
        }
    }

    /// The trial of that number, as of the last update.
    pub(super) fn numbered(&self, number: i64) -> Option<&Trial> {
        let trials = self.history.trials();
        trials.binary_search_by_key(&number, |trial| trial.number).ok().map(|place| &trials[place])
    }

    async fn prune(&mut self, number: i64) -> Result<(), Failure> {
        if self.between.remove(&number) {
            let Some(id) = self.numbered(number).map(|trial| trial.id) else { return Ok(()) };
            return self.finish_trial(number, id, super::Verdict::Pruned).await;
        }
        let Some(live) = self.live.get(&number) else { return Ok(()) };
        if !self.asked_to_stop.insert(number) {
            return Ok(());
        }
        self.context.log(format_args!("trial {number} is hopeless and asked to stop"));
        let reason = format!("trial {number} is worse than the completed ones at this step");
        match Box::pin(self.client.cancel(&live.job, true, &reason)).await {
            // It has ended by itself, which its watcher tells.
            Err(status) if matches!(status.code(), tonic::Code::Aborted | tonic::Code::FailedPrecondition) => Ok(()),
            other => other.map(|_| ()).map_err(|status| call_failure("pruning a trial", &status)),
        }
    }

    pub(super) async fn handle(&mut self, news: News) -> Result<(), Failure> {
        match news {
            News::Reported(number, values) => {
                let Some(live) = self.live.get_mut(&number) else { return Ok(()) };
                let fresh = values.iter().map(|(step, _)| *step).filter(|step| live.known.insert(*step));
                self.fresh.entry(number).or_default().extend(fresh);
                let id = live.id;
                match self.runner.store.edit(id, Edit::reports(values), Timestamp::now()).await {
                    // Somebody else has ended it, with Optuna perhaps.
                    Err(storage::Error::TrialFinished { .. } | storage::Error::NoTrial(_)) => {}
                    other => drop(other.map_err(store_failure)?),
                }
            }
            News::Ended(number, job) => {
                let Some(live) = self.live.remove(&number) else { return Ok(()) };
                self.job_ended(number, live.id, &job).await?;
            }
            News::Lost(number, status) if status.code() == tonic::Code::NotFound => {
                let Some(live) = self.live.remove(&number) else { return Ok(()) };
                let problem = format!("its job {} is gone", live.job);
                self.finish_trial(number, live.id, super::Verdict::Fail(problem)).await?;
            }
            News::Lost(number, status) => return Err(call_failure(&format!("watching trial {number}"), &status)),
        }
        Ok(())
    }
}
