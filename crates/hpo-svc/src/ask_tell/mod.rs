//! Studies that their clients drive: suggest, report, tell. Two calls a trial, each one durable before it is answered.
//!
//! A client that asks again under its id gets its open trials again, as in Vizier (Golovin et al. 2017), so that neither a crash
//! nor a lost answer leaves a trial behind. Other programs may work on the same study at the same time, Optuna's clients too.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use quintet_proto::{
    types,
    v1::{CreateStudyRequest, EnqueueTrialsRequest, ReportTrialRequest, SuggestTrialsRequest, TellTrialRequest},
};
use runtime_core::status::{self, ErrorReason, FieldViolation, violation};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tonic::Status;

mod spec;
mod tell;

pub use spec::{ATTR_SPEC, Search};
use tell::{end, numbered};

use crate::{
    after_trials::AfterTrials,
    history::History,
    pruner::{Judged, Judgement},
    pyjson::dump_text,
    queued,
    sampler::{Request, Suggestion},
    space::ParamValue,
    storage::{Edit, Error, NewTrial, Store},
    study::{Param, State, Study, Trial},
    sweep::ATTR_ERROR,
};

/// User attribute of a trial: the client that it was suggested to, as JSON text.
pub const ATTR_CLIENT: &str = "quintet:client";

/// Studies that are kept ready.
const MOST_OPEN: usize = 64;
/// Trials of one call.
const MOST_AT_ONCE: usize = 1000;
/// Optuna's column of names holds so many characters.
const LONGEST_NAME: usize = 512;

/// Answers the clients of studies that they drive; clones share what is open.
#[derive(Debug, Clone)]
pub struct AskTell {
    store: Store,
    after_trials: AfterTrials,
    open: Arc<Mutex<HashMap<String, Arc<Open>>>>,
}

/// A study that is at work.
#[derive(Debug)]
struct Open {
    study: Study,
    search: Search,
    /// Held from looking at the history until the suggested trial is stored, so that the next suggestion knows of it.
    history: Arc<AsyncMutex<History>>,
}

impl AskTell {
    /// Over a store.
    pub fn new(store: Store, after_trials: AfterTrials) -> Self {
        Self { store, after_trials, open: Arc::default() }
    }

    /// Creates a study, or finds the one that was created with the same specification.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` by field, `ALREADY_EXISTS`, or the store's.
    pub async fn create_study(&self, request: CreateStudyRequest) -> Result<Study, Status> {
        let name = request.study_name;
        let mut wrong = Vec::new();
        if name.is_empty() || name.contains(['/', '\0']) || name.chars().count() > LONGEST_NAME {
            let problem = format!("{name:?} must have 1 to {LONGEST_NAME} characters and no slash");
            wrong.push(violation("study_name", problem));
        }
        let search = Search::new(&request.spec.unwrap_or_default()).map_err(|violations| {
            wrong.extend(violations.into_iter().map(|v| violation(format!("spec.{}", v.field), v.description)));
        });
        let Some(search) = search.ok().filter(|_| wrong.is_empty()) else {
            return Err(status::invalid_argument(wrong));
        };
        let known = match self.store.find_study(&name).await? {
            Some(known) => known,
            None => {
                let seed = search.spec().seed.unwrap_or_else(rand::random);
                let [user, system] =
                    search.attributes(seed).map_err(|error| status::internal("specification", &error))?;
                let first = self.first_trials(&name, &search).await?;
                let study = Study {
                    id: 0,
                    name: name.clone(),
                    directions: search.directions.clone(),
                    user_attrs: user,
                    system_attrs: system,
                };
                match self.store.import(study, first).await {
                    // Somebody else was first, perhaps with the same.
                    Err(Error::StudyExists(_)) => {
                        let found = self.store.find_study(&name).await?;
                        found.ok_or_else(|| Error::NoStudy(name.clone()))?
                    }
                    other => return Ok(other?),
                }
            }
        };
        let theirs = Search::of(&known).map_err(|problem| unreadable(&known, &problem))?;
        match theirs.is_some_and(|theirs| search.agrees(&theirs)) {
            true => Ok(known),
            false => Err(status::already_exists("study", &name, "it exists with another specification")),
        }
    }

    /// What a new study takes over from earlier ones.
    async fn first_trials(&self, name: &str, search: &Search) -> Result<Vec<NewTrial>, Status> {
        let Some(transfer) = &search.transfer else { return Ok(Vec::new()) };
        let none: &[Trial] = &[];
        let planned = transfer.trials(&self.store, name, &search.space, none).await?;
        planned.map_err(|wrong| {
            let wrong = wrong.into_iter().map(|v| violation(format!("spec.{}", v.field), v.description));
            status::invalid_argument(wrong.collect::<Vec<_>>())
        })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a study that was deleted.
    pub fn forget(&self, name: &str) {
        self.all().remove(name);
    }

    /// Answers a call on the study of that name. What was opened before may have been deleted since, by whomever, and made again:
    /// then it is opened again.
    async fn on<T, F>(&self, field: &str, name: &str, call: impl Fn(Arc<Open>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        for _ in 0..2 {
            let open = self.open(field, name).await?;
            match call(open.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Refused(status)) => return Err(status),
                Err(Failed::Gone) => {
                    let mut all = self.all();
                    // Another call may have opened the new one.
                    if all.get(&open.study.name).is_some_and(|known| Arc::ptr_eq(known, &open)) {
                        all.remove(&open.study.name);
                    }
                }
            }
        }
        Err(status::not_found("study", name))
    }

    async fn open(&self, field: &str, name: &str) -> Result<Arc<Open>, Status> {
        let bare = bare_name(field, name)?;
        if let Some(open) = self.all().get(bare) {
            return Ok(open.clone());
        }
        let study = self.store.find_study(bare).await?.ok_or_else(|| status::not_found("study", name))?;
        let search = Search::of(&study).map_err(|problem| unreadable(&study, &problem))?;
        let search = search.ok_or_else(|| {
            let problem =
                format!("`{name}` was not made by CreateStudy: only its own sweep or Optuna program suggests trials");
            status::failed_precondition(ErrorReason::IllegalState, name, problem, [("study", name.to_owned())])
        })?;
        let history = Arc::new(AsyncMutex::new(History::new(study.id, search.space.clone())));
        let open = Arc::new(Open { study, search, history });
        let mut all = self.all();
        if all.len() >= MOST_OPEN {
            // Those that nobody is using can be opened again.
            all.retain(|_, open| Arc::strong_count(open) > 1);
        }
        Ok(all.entry(bare.to_owned()).or_insert(open).clone())
    }

    /// Trials to run: the client's open ones, queued ones, then new ones.
    ///
    /// # Errors
    /// `NOT_FOUND`, `INVALID_ARGUMENT`, `FAILED_PRECONDITION` for a study that its clients do not drive, or the store's.
    pub async fn suggest(&self, request: SuggestTrialsRequest) -> Result<(Study, Vec<Arc<Trial>>), Status> {
        let count = usize::try_from(request.count.max(1)).unwrap_or(usize::MAX);
        if request.count < 0 || count > MOST_AT_ONCE {
            return Err(status::invalid_field("count", format!("{} is not within 0 to {MOST_AT_ONCE}", request.count)));
        }
        self.on("study", &request.study, |open| self.suggest_on(open, &request.client_id, count)).await
    }

    async fn suggest_on(
        &self,
        open: Arc<Open>,
        client: &str,
        count: usize,
    ) -> Result<(Study, Vec<Arc<Trial>>), Failed> {
        let mut history = open.history.clone().lock_owned().await;
        history.update(&self.store).await?;
        let mut trials = theirs(&history, client);
        trials.truncate(count);
        let mut mark = Edit::default();
        if !client.is_empty() {
            mark = Edit::user_attr(ATTR_CLIENT, dump_text(client));
        }
        while trials.len() < count {
            let waiting = history.waiting().cloned();
            if waiting.is_none() && open.remaining(&history) == Some(0) {
                break;
            }
            let fixed = waiting.as_ref().map_or_else(|| Ok(Vec::new()), |w| queued::fixed(w, &open.search.space));
            let made = match (waiting, fixed) {
                (Some(waiting), Err(problem)) => {
                    let told = Edit::user_attr(ATTR_ERROR, dump_text(&problem));
                    let end = Edit { state: Some(State::Fail), only: Some(State::Waiting), ..told };
                    self.take(waiting.id, end).await?;
                    self.store.trial(waiting.id).await?
                }
                (waiting, fixed) => {
                    let number = waiting.as_ref().map(|waiting| waiting.number);
                    let suggestion;
                    (history, suggestion) = sample(&open, history, number, fixed.unwrap_or_default()).await?;
                    let Suggestion { params, system_attrs } = suggestion;
                    let trial = match waiting {
                        Some(waiting) => {
                            let claim = Edit { params, system_attrs, state: Some(State::Running), ..mark.clone() };
                            let ours = self.take(waiting.id, claim).await?;
                            (self.store.trial(waiting.id).await?, ours)
                        }
                        None => {
                            let user_attrs = mark.user_attrs.clone();
                            let new = NewTrial { params, user_attrs, system_attrs, ..NewTrial::default() };
                            (self.store.create_trial(open.study.id, new, Timestamp::now()).await?, true)
                        }
                    };
                    if trial.1 {
                        trials.push(trial.0.clone());
                    }
                    trial.0
                }
            };
            history.learn(&made, &self.store).await?;
        }
        Ok((open.study.clone(), trials))
    }

    /// Changes a queued trial; false when somebody else was first.
    async fn take(&self, trial: i64, edit: Edit) -> Result<bool, Error> {
        match self.store.edit(trial, edit, Timestamp::now()).await {
            Err(Error::TrialFinished { .. }) => Ok(false),
            other => other,
        }
    }

    /// Queues trials with parameters that the caller chooses.
    ///
    /// # Errors
    /// As [`AskTell::suggest`]; nothing is queued when a value is outside of its domain.
    pub async fn enqueue(&self, request: EnqueueTrialsRequest) -> Result<(Study, Vec<Arc<Trial>>), Status> {
        self.on("study", &request.study, |open| self.enqueue_on(open, &request)).await
    }

    async fn enqueue_on(
        &self,
        open: Arc<Open>,
        request: &EnqueueTrialsRequest,
    ) -> Result<(Study, Vec<Arc<Trial>>), Failed> {
        let mut wrong: Vec<FieldViolation> = Vec::new();
        let mut queued = Vec::new();
        for (index, fields) in request.parameters.iter().enumerate() {
            let values = fields.fields.iter().map(|(name, value)| {
                let external = ParamValue::from_proto(value).unwrap_or(ParamValue::Null);
                (name.clone(), external.to_py())
            });
            let new = queued::new_trial(values.collect());
            if let Err(problem) = queued::check(&new, &open.search.space) {
                wrong.push(violation(format!("parameters[{index}]"), problem));
            }
            queued.push(new);
        }
        if !wrong.is_empty() {
            return Err(status::invalid_argument(wrong).into());
        }
        let mut trials = Vec::with_capacity(queued.len());
        for new in queued {
            trials.push(self.store.create_trial(open.study.id, new, Timestamp::now()).await?);
        }
        Ok((open.study.clone(), trials))
    }

    /// Changes a trial that was suggested; the trial as it is then.
    async fn edit(
        &self,
        open: &Open,
        number: i64,
        state: Option<State>,
        change: impl FnOnce(&Trial) -> Edit + Send + 'static,
    ) -> Result<Arc<Trial>, Error> {
        self.store.edit_numbered(open.study.id, number, state, change, Timestamp::now()).await
    }

    /// Stores an intermediate value; true when the trial should stop. As with Optuna's `Trial.report`, a step keeps its first value.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `NOT_FOUND`, `FAILED_PRECONDITION` when the trial does not run, or the store's.
    pub async fn report(&self, request: ReportTrialRequest) -> Result<bool, Status> {
        let (study, number) = numbered(&request.name)?;
        if request.step < 0 {
            return Err(status::invalid_field("step", format!("{} is below 0", request.step)));
        }
        self.on("name", study, |open| self.report_on(open, number, request.step, request.value)).await
    }

    async fn report_on(&self, open: Arc<Open>, number: i64, step: i64, value: f64) -> Result<bool, Failed> {
        let report = move |trial: &Trial| match trial.intermediate.contains_key(&step) {
            true => Edit::default(),
            false => Edit::reports(vec![(step, value)]),
        };
        let trial = self.edit(&open, number, None, report).await?;
        let [direction] = open.search.directions[..] else { return Ok(false) };
        let mut history = open.history.lock().await;
        history.update(&self.store).await?;
        let judged = Judged { study: &open.study.name, direction, trials: history.trials(), trial: &trial };
        let Judgement { prune, system_attrs } = open.search.pruner.judge(&judged);
        if !system_attrs.is_empty() {
            self.store.edit(trial.id, Edit { system_attrs, ..Edit::default() }, Timestamp::now()).await?;
        }
        Ok(prune)
    }

    /// Ends a trial.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `NOT_FOUND`, `FAILED_PRECONDITION` when it has ended otherwise or never begun, or the store's.
    pub async fn tell(&self, request: TellTrialRequest) -> Result<(Study, Arc<Trial>), Status> {
        let (study, number) = numbered(&request.name)?;
        self.on("name", study, |open| self.tell_on(open, number, &request)).await
    }

    async fn tell_on(
        &self,
        open: Arc<Open>,
        number: i64,
        request: &TellTrialRequest,
    ) -> Result<(Study, Arc<Trial>), Failed> {
        let end = end(request, &open.search)?;
        let last_report = end.state == Some(State::Pruned) && end.values.is_empty();
        let told = end.clone();
        let change = move |trial: &Trial| {
            let mut end = end;
            if last_report {
                end.values.extend(trial.pruned_value());
            }
            end
        };
        let study = open.study.clone();
        match self.edit(&open, number, told.state, change).await {
            Ok(trial) => {
                self.after_trials.ended();
                Ok((study, trial))
            }
            Err(refused) => {
                // The same may have been told before, and the answer lost.
                let Ok(trial) = self.store.numbered_trial(study.id, number).await else { return Err(refused.into()) };
                let same = Some(trial.state) == told.state
                    && (last_report || trial.values == told.values)
                    && told.system_attrs.iter().all(|(key, json)| trial.system_attrs.get(key) == Some(json));
                if same { Ok((study, trial)) } else { Err(refused.into()) }
            }
        }
    }
}

/// Why a call on an open study was not answered.
enum Failed {
    /// The study is not there any more, or not the one that was opened.
    Gone,
    Refused(Status),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        match error {
            // A trial that was there goes with its study.
            Error::NoStudy(_) | Error::NoTrial(_) => Self::Gone,
            other => Self::Refused(other.into()),
        }
    }
}

/// Samples a trial, on a thread of its own when that may take long.
async fn sample(
    open: &Arc<Open>,
    history: OwnedMutexGuard<History>,
    number: Option<i64>,
    fixed: Vec<Option<f64>>,
) -> Result<(OwnedMutexGuard<History>, Suggestion), Status> {
    let Search { sampler, pruner, directions, .. } = &open.search;
    if history.quick(&**sampler, &**pruner, directions.len()) {
        let suggestion = open.sample(&history, number, &fixed);
        return Ok((history, suggestion));
    }
    let open = open.clone();
    let sample = move || {
        let suggestion = open.sample(&history, number, &fixed);
        (history, suggestion)
    };
    tokio::task::spawn_blocking(sample).await.map_err(|error| status::internal("sampler", &error))
}

impl Open {
    /// How many more trials are of any use to the sampler.
    fn remaining(&self, history: &History) -> Option<usize> {
        let (trials, number) = (history.trials(), history.next_number());
        let Search { space, directions, sampler, seed, .. } = &self.search;
        sampler.remaining(&Request { space, directions, trials, number, seed: *seed })
    }

    fn sample(&self, history: &History, number: Option<i64>, fixed: &[Option<f64>]) -> Suggestion {
        let number = number.unwrap_or_else(|| history.next_number());
        let Search { space, directions, sampler, pruner, seed, .. } = &self.search;
        let request = Request { space, directions, trials: history.trials(), number, seed: *seed };
        history.suggest(&**sampler, &**pruner, &self.study.name, &request, fixed)
    }
}

/// Trials that the client has not told yet.
fn theirs(history: &History, client: &str) -> Vec<Arc<Trial>> {
    if client.is_empty() {
        return Vec::new();
    }
    let running = history.open().filter(|trial| trial.state == State::Running);
    let theirs = running.filter(|trial| trial.user_text(ATTR_CLIENT).as_deref() == Some(client));
    theirs.map(|trial| Arc::new(trial.clone())).collect()
}

fn unreadable(study: &Study, problem: &str) -> Status {
    let message = format!("the specification of study `{}` cannot be read: {problem}", study.name);
    status::Error::new(ErrorReason::DataCorrupt, message).into_status()
}

/// The last part of `studies/{study}`, or the bare name.
pub(crate) fn bare_name<'a>(field: &str, name: &'a str) -> Result<&'a str, Status> {
    let bare = name.strip_prefix("studies/").unwrap_or(name);
    if bare.is_empty() {
        return Err(status::invalid_field(field, format!("`{name}` is not of the form studies/{{study}}")));
    }
    Ok(bare)
}

/// The parameters of a trial on the wire.
pub(crate) fn wire_parameters(params: &[Param]) -> types::Struct {
    types::Struct { fields: params.iter().map(|param| (param.name.clone(), param.external().to_proto())).collect() }
}
