//! Studies that their clients drive: suggest, report, tell. Two calls a trial, each one durable before it is answered.
//!
//! A client that asks again under its id gets its open trials again, as in Vizier (Golovin et al. 2017), so that neither a crash
//! nor a lost answer leaves a trial behind. Other programs may work on the same study at the same time, Optuna's clients too.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use quintet_proto::{
    types,
    v1::{self, CreateStudyRequest, EnqueueTrialsRequest, ReportTrialRequest, SuggestTrialsRequest, TellTrialRequest},
};
use runtime_core::status::{self, ErrorReason, FieldViolation, violation};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tonic::Status;

mod spec;

pub use spec::{ATTR_SPEC, Search};

use crate::{
    after_trials::AfterTrials,
    history::History,
    pruner::{Judged, Judgement},
    pyjson::{dump_text, float_repr},
    queued,
    sampler::{Request, Suggestion, suggest_from},
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

    /// Forgets a study that was deleted.
    pub fn forget(&self, name: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    async fn open(&self, field: &str, name: &str) -> Result<Arc<Open>, Status> {
        let bare = bare_name(field, name)?;
        if let Some(open) = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(bare) {
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
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_OPEN {
            // Those that nobody is using can be opened again.
            all.retain(|_, open| Arc::strong_count(open) > 1);
        }
        Ok(all.entry(bare.to_owned()).or_insert(open).clone())
    }

    /// An error of a call on an open study; one of a study that is gone makes it be looked for again.
    fn failed(&self, open: &Open, error: Error) -> Status {
        if matches!(error, Error::NoStudy(_)) {
            self.forget(&open.study.name);
        }
        error.into()
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
        let open = self.open("study", &request.study).await?;
        let mut history = open.history.clone().lock_owned().await;
        history.update(&self.store).await.map_err(|error| self.failed(&open, error))?;
        let mut trials = theirs(&history, &request.client_id);
        trials.truncate(count);
        let mut mark = Edit::default();
        if !request.client_id.is_empty() {
            mark = Edit::user_attr(ATTR_CLIENT, dump_text(&request.client_id));
        }
        while trials.len() < count {
            let waiting = history.waiting().cloned();
            if waiting.is_none() && open.remaining(&history) == Some(0) {
                break;
            }
            let fixed = waiting.as_ref().map_or_else(|| Ok(Vec::new()), |w| queued::fixed(w, &open.search.space));
            let made = match (waiting, fixed) {
                (Some(waiting), Err(problem)) => {
                    let end = Edit { state: Some(State::Fail), ..Edit::user_attr(ATTR_ERROR, dump_text(&problem)) };
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
                            let new =
                                NewTrial { params, user_attrs: mark.user_attrs.clone(), system_attrs, past: None };
                            let made = self.store.create_trial(open.study.id, new, Timestamp::now()).await;
                            (made.map_err(|error| self.failed(&open, error))?, true)
                        }
                    };
                    if trial.1 {
                        trials.push(trial.0.clone());
                    }
                    trial.0
                }
            };
            history.learn(&made, &self.store).await.map_err(|error| self.failed(&open, error))?;
        }
        Ok((open.study.clone(), trials))
    }

    /// Changes a queued trial; false when somebody else was first.
    async fn take(&self, trial: i64, edit: Edit) -> Result<bool, Status> {
        match self.store.edit(trial, edit, Timestamp::now()).await {
            Err(Error::TrialFinished { .. }) => Ok(false),
            other => Ok(other?),
        }
    }

    /// Queues trials with parameters that the caller chooses.
    ///
    /// # Errors
    /// As [`AskTell::suggest`]; nothing is queued when a value is outside of its domain.
    pub async fn enqueue(&self, request: EnqueueTrialsRequest) -> Result<(Study, Vec<Arc<Trial>>), Status> {
        let open = self.open("study", &request.study).await?;
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
            return Err(status::invalid_argument(wrong));
        }
        let mut trials = Vec::with_capacity(queued.len());
        for new in queued {
            let made = self.store.create_trial(open.study.id, new, Timestamp::now()).await;
            trials.push(made.map_err(|error| self.failed(&open, error))?);
        }
        Ok((open.study.clone(), trials))
    }

    async fn named(&self, name: &str) -> Result<(Arc<Open>, i64), Status> {
        let form = || {
            status::invalid_field("name", format!("`{name}` is not of the form studies/{{study}}/trials/{{number}}"))
        };
        let (study, number) = name.rsplit_once("/trials/").ok_or_else(form)?;
        let number: i64 = number.parse().map_err(|_| form())?;
        Ok((self.open("name", study).await?, number))
    }

    /// Changes a trial that was suggested; the trial as it is then.
    async fn edit(
        &self,
        open: &Open,
        number: i64,
        state: Option<State>,
        change: impl FnOnce(&Trial) -> Edit + Send + 'static,
    ) -> Result<Arc<Trial>, Status> {
        let edited = self.store.edit_numbered(open.study.id, number, state, change, Timestamp::now()).await;
        edited.map_err(|error| self.failed(open, error))
    }

    /// Stores an intermediate value; true when the trial should stop.
    ///
    /// # Errors
    /// `NOT_FOUND`, `FAILED_PRECONDITION` when the trial does not run, or the store's.
    pub async fn report(&self, request: ReportTrialRequest) -> Result<bool, Status> {
        let (open, number) = self.named(&request.name).await?;
        let reports = vec![(request.step, request.value)];
        let trial = self.edit(&open, number, None, move |_| Edit::reports(reports)).await?;
        let [direction] = open.search.directions[..] else { return Ok(false) };
        let mut history = open.history.lock().await;
        history.update(&self.store).await.map_err(|error| self.failed(&open, error))?;
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
        let (open, number) = self.named(&request.name).await?;
        let end = end(&request, &open.search)?;
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
                let trial = self.store.numbered_trial(study.id, number).await.map_err(|_| refused.clone())?;
                let same = Some(trial.state) == told.state
                    && (last_report || trial.values == told.values)
                    && told.system_attrs.iter().all(|(key, json)| trial.system_attrs.get(key) == Some(json));
                if same { Ok((study, trial)) } else { Err(refused) }
            }
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
    if open.search.directions.len() == 1 && open.search.sampler.quick(history.trials().len()) {
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
        let trials = history.trials();
        let number = number.unwrap_or_else(|| history.next_number());
        let Search { space, directions, sampler, pruner, seed, .. } = &self.search;
        let trials = pruner.comparable(&self.study.name, trials, number);
        let columns = matches!(trials, Cow::Borrowed(all) if all.len() == history.trials().len());
        let request = Request { space, directions, trials: &trials, number, seed: *seed };
        suggest_from(&**sampler, &request, columns.then(|| history.columns()), fixed)
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

/// How a trial ends.
fn end(request: &TellTrialRequest, search: &Search) -> Result<Edit, Status> {
    let mut wrong = Vec::new();
    let state = match v1::TrialState::try_from(request.state) {
        Ok(v1::TrialState::Unspecified | v1::TrialState::TrialComplete) => State::Complete,
        Ok(v1::TrialState::TrialPruned) => State::Pruned,
        Ok(v1::TrialState::TrialFail) => State::Fail,
        _ => {
            wrong.push(violation("state", "is not one of TRIAL_COMPLETE, TRIAL_PRUNED and TRIAL_FAIL"));
            State::Fail
        }
    };
    let (told, wanted) = (request.values.len(), search.directions.len());
    let fits = match state {
        State::Complete => told == wanted,
        State::Pruned => told == 0 || told == wanted,
        _ => told == 0,
    };
    if !fits {
        wrong.push(violation("values", format!("{told} were told for {state}; the study has {wanted} objectives")));
    }
    for (index, _) in request.values.iter().enumerate().filter(|(_, value)| value.is_nan()) {
        wrong.push(violation(format!("values[{index}]"), "is NaN; a trial without a result ends with TRIAL_FAIL"));
    }
    for (name, _) in request.constraints.iter().filter(|(_, value)| value.is_nan()) {
        wrong.push(violation(format!("constraints[{name:?}]"), "is NaN"));
    }
    if !wrong.is_empty() {
        return Err(status::invalid_argument(wrong));
    }
    let mut edit = Edit::state(state, request.values.clone());
    if !request.error.is_empty() {
        edit.user_attrs.insert(ATTR_ERROR.to_owned(), dump_text(&request.error));
    }
    let constraint = |(name, value): (&String, &f64)| (format!("constraints:{name}"), float_repr(*value));
    edit.system_attrs.extend(request.constraints.iter().map(constraint));
    Ok(edit)
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
