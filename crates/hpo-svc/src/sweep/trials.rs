//! Starting the trials of a sweep: sample, store, create the job under a name that a restart finds again, watch it.

use std::sync::Arc;

use jiff::Timestamp;
use quintet_proto::v1::{CreateJobRequest, Job, JobEvent, Timeouts, job_event::Event};
use runtime_core::{
    db::may_block,
    jobs::model::{is_terminal, job_name, uid_for_request},
    status::{ErrorReason, metadata_of},
    worker::Failure,
};

use super::{
    ATTR_JOB, ATTR_SWEEP, Part, Verdict,
    apply::trial_spec,
    folds::folds,
    runner::{Live, News, Run, call_failure, store_failure},
};
use crate::{
    pyjson::dump_text,
    queued,
    sampler::{Request, Suggestion},
    storage::{self, Attributes, Edit, NewTrial},
    study::{Param, State, Trial},
    warm_start::ATTR_TRANSFER,
};

/// The id of the request that creates the job of a trial, or of a part of it: the same after every restart.
fn request_id(sweep: &str, number: i64, part: Part) -> String {
    match part {
        Part::Whole => format!("{sweep}/trials/{number}"),
        Part::Fold { index, .. } => format!("{sweep}/trials/{number}/folds/{index}"),
        Part::Refit => format!("{sweep}/refits/{number}"),
    }
}

impl Run {
    /// Whether this sweep made the trial.
    pub(super) fn owns(&self, trial: &Trial) -> bool {
        trial.user_text(ATTR_SWEEP).as_deref() == Some(self.job.uid.as_str())
    }

    /// Starts one trial: the first of the queue, or one that is suggested. False when the queued one was not to be had, which
    /// may change the plan.
    pub(super) async fn start_trial(&mut self) -> Result<bool, Failure> {
        self.update().await?;
        let trial = match queued::next(self.history.trials()) {
            Some(waiting) => self.claim(waiting).await?,
            None => Some(self.suggest().await?),
        };
        let Some(trial) = trial else { return Ok(false) };
        let shown: Vec<String> = trial.params.iter().map(|p| format!("{}={}", p.name, p.external())).collect();
        let from = trial.user_attrs.get(ATTR_TRANSFER).map(|from| format!(" (of {from})")).unwrap_or_default();
        self.context.log(format_args!("trial {} starts: {}{from}", trial.number, shown.join(" ")));
        self.follow(&trial).await?;
        Ok(true)
    }

    fn sample(&self, number: i64, fixed: &[Option<f64>]) -> Suggestion {
        let (space, directions) = (&self.sweep.space, &self.sweep.goals.directions()[..]);
        let (sampler, pruner, history) = (&*self.sweep.sampler, &*self.sweep.pruner, &self.history);
        let request = Request { space, directions, trials: history.trials(), number, seed: self.seed };
        let suggest = || history.suggest(sampler, pruner, &self.study.name, &request, fixed);
        if history.quick(sampler, pruner, directions.len()) { suggest() } else { may_block(suggest) }
    }

    /// What marks a trial as this sweep's.
    fn mark(&self) -> Attributes {
        Attributes::from([(ATTR_SWEEP.to_owned(), dump_text(&self.job.uid))])
    }

    async fn suggest(&self) -> Result<Arc<Trial>, Failure> {
        let number = self.history.next_number();
        let Suggestion { params, system_attrs } = self.sample(number, &[]);
        if number == 0 {
            self.preflight(&params).await?;
        }
        let new = NewTrial { params, user_attrs: self.mark(), system_attrs, ..NewTrial::default() };
        self.runner.store.create_trial(self.study.id, new, Timestamp::now()).await.map_err(store_failure)
    }

    /// Takes a queued trial; `None` when somebody else was first, or when its values are not in the space and it has failed.
    async fn claim(&self, waiting: &Trial) -> Result<Option<Arc<Trial>>, Failure> {
        let Suggestion { params, system_attrs } = match queued::fixed(waiting, &self.sweep.space) {
            Ok(fixed) => self.sample(waiting.number, &fixed),
            Err(problem) => {
                self.finish_trial(waiting.number, waiting.id, Verdict::Fail(problem)).await?;
                return Ok(None);
            }
        };
        if self.history.trials().iter().all(|trial| trial.state == State::Waiting) {
            self.preflight(&params).await?;
        }
        let state = Some(State::Running);
        let claim = Edit { params, user_attrs: self.mark(), system_attrs, state, ..Edit::default() };
        match self.runner.store.edit(waiting.id, claim, Timestamp::now()).await {
            Ok(true) => self.runner.store.trial(waiting.id).await.map(Some).map_err(store_failure),
            Ok(false) | Err(storage::Error::TrialFinished { .. } | storage::Error::NoTrial(_)) => Ok(None),
            Err(error) => Err(store_failure(error)),
        }
    }

    /// Asks the job service about the first trial before anything is stored, so that a wrong specification leaves no trace.
    async fn preflight(&self, params: &[Param]) -> Result<(), Failure> {
        let part = self.sweep.n_splits.map_or(Part::Whole, |n_splits| Part::Fold { index: 0, n_splits });
        let mut request = self.request(0, params, part)?;
        request.validate_only = true;
        Box::pin(self.client.create(request)).await.map(|_| ()).map_err(|status| call_failure("the trials", &status))
    }

    /// Creates the job of a stored trial or of its next fold, or finds the one that an earlier attempt created, and watches it.
    ///
    /// When the sweep is being cancelled, the trial stays as it is: the directive follows.
    pub(super) async fn follow(&mut self, trial: &Trial) -> Result<(), Failure> {
        let index = i32::try_from(folds(trial).len()).unwrap_or(i32::MAX);
        let part = self.sweep.n_splits.map_or(Part::Whole, |n_splits| Part::Fold { index, n_splits });
        let request = self.request(trial.number, &trial.params, part)?;
        let name = job_name(&uid_for_request(&request.request_id));
        let job = match Box::pin(self.client.create(request)).await {
            Ok(job) => job,
            Err(status) if metadata_of(&status).get("field").is_some_and(|field| field == "job.parent") => {
                self.closed = true;
                return Ok(());
            }
            Err(status) => {
                let failure = call_failure(&format!("trial {}", trial.number), &status);
                if failure.class == quintet_proto::v1::ErrorClass::User || status.code() == tonic::Code::AlreadyExists {
                    self.finish_trial(trial.number, trial.id, Verdict::Fail(failure.message.clone())).await?;
                    return Err(Failure::user(failure.reason, failure.message));
                }
                return Err(failure);
            }
        };
        debug_assert_eq!(job.name, name, "the name of a job follows from its request");
        if trial.user_text(ATTR_JOB).as_deref() != Some(job.name.as_str()) {
            let attribute = Edit::user_attr(ATTR_JOB, dump_text(&job.name));
            match self.runner.store.edit(trial.id, attribute, Timestamp::now()).await {
                Err(storage::Error::TrialFinished { .. } | storage::Error::NoTrial(_)) => {
                    // Somebody else has ended it meanwhile: it is not ours any more, and nobody waits for its job.
                    let _ =
                        Box::pin(self.client.cancel(&job.name, false, "its trial was ended by somebody else")).await;
                    return Ok(());
                }
                other => drop(other.map_err(store_failure)?),
            }
        }
        self.watch(trial, job);
        Ok(())
    }

    pub(super) fn request(&self, number: i64, params: &[Param], part: Part) -> Result<CreateJobRequest, Failure> {
        let spec = trial_spec(&self.sweep.spec, params, part)
            .map_err(|problem| Failure::user(ErrorReason::InvalidField, format!("trial {number}: {problem}")))?;
        let mut labels = vec![("sweep".to_owned(), self.job.uid.clone()), ("trial".to_owned(), number.to_string())];
        let mut display_name = format!("{} trial {number}", self.study.name);
        match part {
            Part::Whole => {}
            Part::Fold { index, .. } => {
                display_name += &format!(" fold {index}");
                labels.push(("fold".to_owned(), index.to_string()));
            }
            Part::Refit => display_name += " refit",
        }
        let job = Job {
            display_name,
            spec: Some(spec),
            labels: labels.into_iter().collect(),
            parent: self.job.name.clone(),
            retry: self.job.retry,
            timeouts: self
                .sweep
                .trial_timeout
                .map(|limit| Timeouts { start_to_finish: Some(limit), ..Timeouts::default() }),
            resources: self.job.resources,
            experiment: self.job.experiment.clone(),
            ..Job::default()
        };
        let request_id = request_id(&self.job.uid, number, part);
        Ok(CreateJobRequest { job: Some(job), request_id, validate_only: false, force: true })
    }

    fn watch(&mut self, trial: &Trial, job: Job) {
        let (client, news) = (self.client.clone(), self.news.clone());
        let (number, name) = (trial.number, job.name.clone());
        // What can be judged: with several objectives nothing is, and the steps of a trial with folds are its folds.
        let metric = match (&self.sweep.goals.objectives[..], self.sweep.n_splits) {
            ([objective], None) => Some(objective.metric.clone()),
            _ => None,
        };
        let watcher = tokio::spawn(async move {
            let on_event = |event: &JobEvent| {
                let values = metric.as_deref().map(|metric| reports(event, metric)).unwrap_or_default();
                if !values.is_empty() {
                    // The runner has ended when nobody listens.
                    let _ = news.send(News::Reported(number, values));
                }
            };
            // The stored events come first, also of a job that has ended.
            let end = match client.watch(&job.name, 0, on_event, |_| {}).await {
                Ok(job) => {
                    debug_assert!(is_terminal(job.state()), "a watch ends with the job");
                    News::Ended(number, Box::new(job))
                }
                Err(status) => News::Lost(number, status),
            };
            let _ = news.send(end);
        });
        let known = trial.intermediate.keys().copied().collect();
        let live = Live { id: trial.id, job: name, known, watcher: watcher.abort_handle() };
        self.live.insert(number, live);
    }
}

/// Values of the objective in an event, by step.
fn reports(event: &JobEvent, metric: &str) -> Vec<(i64, f64)> {
    match &event.event {
        Some(Event::Metrics(metrics)) => {
            metrics.metrics.iter().filter(|m| m.key == metric).map(|m| (m.step, m.value)).collect()
        }
        _ => Vec::new(),
    }
}
