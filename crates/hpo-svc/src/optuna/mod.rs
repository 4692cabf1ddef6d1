//! Optuna's gRPC storage proxy on the study store: an unmodified `optuna.storages.GrpcStorageProxy` works on our studies.
//!
//! The wire is that of `proto/optuna/api.proto`, which Optuna 4.2.0 to 5.0.0 share. Where Optuna's own server on a SQL database
//! hands a queued trial out twice, repeats a number or uses an id again, this one does not: every call is one transaction of the
//! store's single writer.

mod encode;
mod leases;
mod parsed;
mod wire;

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use quintet_proto::optuna::{
    CreateNewStudyReply, CreateNewStudyRequest, CreateNewTrialReply, CreateNewTrialRequest, DeleteStudyReply,
    DeleteStudyRequest, GetAllStudiesReply, GetAllStudiesRequest, GetStudyDirectionsReply, GetStudyDirectionsRequest,
    GetStudyIdFromNameReply, GetStudyIdFromNameRequest, GetStudyNameFromIdReply, GetStudyNameFromIdRequest,
    GetStudySystemAttributesReply, GetStudySystemAttributesRequest, GetStudyUserAttributesReply,
    GetStudyUserAttributesRequest, GetTrialIdFromStudyIdTrialNumberReply, GetTrialIdFromStudyIdTrialNumberRequest,
    GetTrialReply, GetTrialRequest, GetTrialsReply, GetTrialsRequest, SetStudySystemAttributeReply,
    SetStudySystemAttributeRequest, SetStudyUserAttributeReply, SetStudyUserAttributeRequest,
    SetTrialIntermediateValueReply, SetTrialIntermediateValueRequest, SetTrialParameterReply, SetTrialParameterRequest,
    SetTrialStateValuesReply, SetTrialStateValuesRequest, SetTrialSystemAttributeReply, SetTrialSystemAttributeRequest,
    SetTrialUserAttributeReply, SetTrialUserAttributeRequest,
    storage_service_server::{StorageService, StorageServiceServer},
};
use runtime_core::{
    db::may_block,
    server::{Drain, PeerConnection},
    status,
};
use tonic::{Request, Response, Status};

pub use self::leases::Patience;
use self::{encode::Encoder, leases::Leases, parsed::Parsed};
use crate::{
    after_trials::AfterTrials,
    pyjson,
    storage::{Attributes, Edit, Error, NewTrial, Store, StudyAttributes},
    study::State,
};

/// Studies that are read at once.
const PAGE: usize = 256;
/// Trials that are encoded in a fraction of a millisecond.
const QUICK: usize = 256;

type Answer<T> = Result<Response<T>, Status>;

/// Answers Optuna's clients from the study store.
#[derive(Clone)]
pub struct OptunaStorage {
    store: Store,
    leases: Leases,
    after_trials: AfterTrials,
    distributions: Arc<Parsed>,
    encoder: Arc<Mutex<Encoder>>,
}

impl fmt::Debug for OptunaStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OptunaStorage").field("leases", &self.leases).finish_non_exhaustive()
    }
}

impl OptunaStorage {
    /// A service over a store. Running trials whose clients have gone fail when that patience has an end.
    pub fn new(store: Store, patience: Patience) -> Self {
        let leases = Leases::new(store.clone(), patience);
        let (distributions, encoder) = (Arc::default(), Arc::default());
        Self { store, leases, after_trials: AfterTrials::default(), distributions, encoder }
    }

    /// What is to be told of trials that clients have ended.
    #[must_use]
    pub fn after_trials(mut self, after_trials: AfterTrials) -> Self {
        self.after_trials = after_trials;
        self
    }

    /// Frees the trials whose clients were there before this server, and do not come back.
    pub async fn free_left_behind(self, drain: Drain) {
        tokio::select! {
            () = drain.begun() => {}
            () = self.leases.free_left_behind() => {}
        }
    }

    /// The service to mount on a server. Answers have no limit: a client takes a study's trials in one message.
    pub fn into_service(self) -> StorageServiceServer<Self> {
        StorageServiceServer::new(self)
    }

    async fn set_study_attribute(&self, which: StudyAttributes, key: String, json: String) -> Result<(), Status> {
        check_json("value", &json)?;
        if let Err(problem) = self.check_name("key", &key) {
            let (StudyAttributes::User(study) | StudyAttributes::System(study)) = which;
            return Err(self.refuse_study(study, problem).await);
        }
        Ok(self.store.set_study_attributes(which, Attributes::from([(key, json)])).await?)
    }

    /// Changes a trial; the state that it has then, or none when nothing has changed.
    async fn edit(&self, trial: i64, edit: Edit) -> Result<Option<State>, Status> {
        Ok(self.store.edit_state(trial, edit, Timestamp::now()).await?)
    }

    /// Changes a trial as only whoever works on it does, who holds it from then on if it runs.
    async fn work(&self, trial: i64, edit: Edit, peer: Option<&PeerConnection>) -> Result<(), Status> {
        let edit = Edit { leased: !self.leases.is_held(trial), ..edit };
        if self.edit(trial, edit).await? == Some(State::Running) {
            self.leases.hold(trial, peer);
        }
        Ok(())
    }

    /// Sets an attribute of a trial for whoever is there.
    async fn set_trial_attribute(
        &self,
        trial: i64,
        key: &str,
        edit: Edit,
        peer: Option<PeerConnection>,
    ) -> Result<(), Status> {
        if let Err(problem) = self.check_name("key", key) {
            return Err(self.refuse(trial, problem).await);
        }
        if self.edit(trial, edit).await? == Some(State::Running) {
            self.leases.touch(trial, peer.as_ref());
        }
        Ok(())
    }

    /// Refuses what a column of names does not take.
    fn check_name(&self, field: &str, text: &str) -> Result<(), Status> {
        let length = text.chars().count();
        if let Some(most) = self.store.longest_name().filter(|most| length > *most) {
            let problem = format!("has {length} characters; at most {most} are allowed");
            return Err(status::invalid_field(field, problem));
        }
        if text.contains('\0') {
            return Err(status::invalid_field(field, "holds a NUL character"));
        }
        Ok(())
    }

    /// Encodes few trials, with what was kept of those before.
    fn encode<T>(&self, encode: impl FnOnce(&mut Encoder) -> T) -> T {
        match self.encoder.try_lock() {
            Ok(mut encoder) => encode(&mut encoder),
            // A trial may be long: nobody waits for another one's.
            Err(_) => encode(&mut Encoder::default()),
        }
    }

    /// Why a write to a trial with a problem is refused: that there is no such trial, or that it has ended, comes before the problem.
    async fn refuse(&self, trial: i64, problem: Status) -> Status {
        match self.store.trial(trial).await {
            Ok(found) if found.state.finished() => {
                Error::TrialFinished { number: found.number, state: found.state }.into()
            }
            Ok(_) => problem,
            Err(error) => error.into(),
        }
    }

    /// Why a write to a study with a problem is refused: that there is no such study comes before the problem.
    async fn refuse_study(&self, study: i64, problem: Status) -> Status {
        self.store.study(study).await.map_or_else(Status::from, |_| problem)
    }
}

fn peer<T>(request: &Request<T>) -> Option<PeerConnection> {
    request.extensions().get().cloned()
}

/// Refuses an attribute that no client could read back: it would make the whole study unreadable. What it says is the clients' own.
fn check_json(field: &str, text: &str) -> Result<(), Status> {
    pyjson::check(text).map_err(|problem| status::invalid_field(field, problem.to_string()))
}

#[tonic::async_trait]
impl StorageService for OptunaStorage {
    async fn create_new_study(&self, request: Request<CreateNewStudyRequest>) -> Answer<CreateNewStudyReply> {
        let request = request.into_inner();
        self.check_name("study_name", &request.study_name)?;
        let directions = request.directions.iter().map(|code| wire::direction(*code)).collect::<Result<Vec<_>, _>>()?;
        if directions.is_empty() {
            return Err(status::invalid_field("directions", "there is none; a study has at least one objective"));
        }
        let (user, system) = (Attributes::new(), Attributes::new());
        let study = self.store.create_study(&request.study_name, &directions, user, system).await?;
        Ok(Response::new(CreateNewStudyReply { study_id: study.id }))
    }

    async fn delete_study(&self, request: Request<DeleteStudyRequest>) -> Answer<DeleteStudyReply> {
        self.store.delete_study(request.into_inner().study_id).await?;
        Ok(Response::new(DeleteStudyReply {}))
    }

    async fn set_study_user_attribute(
        &self,
        request: Request<SetStudyUserAttributeRequest>,
    ) -> Answer<SetStudyUserAttributeReply> {
        let request = request.into_inner();
        self.set_study_attribute(StudyAttributes::User(request.study_id), request.key, request.value).await?;
        Ok(Response::new(SetStudyUserAttributeReply {}))
    }

    async fn set_study_system_attribute(
        &self,
        request: Request<SetStudySystemAttributeRequest>,
    ) -> Answer<SetStudySystemAttributeReply> {
        let request = request.into_inner();
        self.set_study_attribute(StudyAttributes::System(request.study_id), request.key, request.value).await?;
        Ok(Response::new(SetStudySystemAttributeReply {}))
    }

    async fn get_study_id_from_name(
        &self,
        request: Request<GetStudyIdFromNameRequest>,
    ) -> Answer<GetStudyIdFromNameReply> {
        let name = request.into_inner().study_name;
        let study = self.store.find_study(&name).await?.ok_or_else(|| status::not_found("study", &name))?;
        Ok(Response::new(GetStudyIdFromNameReply { study_id: study.id }))
    }

    async fn get_study_name_from_id(
        &self,
        request: Request<GetStudyNameFromIdRequest>,
    ) -> Answer<GetStudyNameFromIdReply> {
        let study = self.store.study(request.into_inner().study_id).await?;
        Ok(Response::new(GetStudyNameFromIdReply { study_name: study.name }))
    }

    async fn get_study_directions(
        &self,
        request: Request<GetStudyDirectionsRequest>,
    ) -> Answer<GetStudyDirectionsReply> {
        let study = self.store.study(request.into_inner().study_id).await?;
        Ok(Response::new(GetStudyDirectionsReply { directions: wire::directions(&study.directions) }))
    }

    async fn get_study_user_attributes(
        &self,
        request: Request<GetStudyUserAttributesRequest>,
    ) -> Answer<GetStudyUserAttributesReply> {
        let study = self.store.study(request.into_inner().study_id).await?;
        Ok(Response::new(GetStudyUserAttributesReply { user_attributes: study.user_attrs }))
    }

    async fn get_study_system_attributes(
        &self,
        request: Request<GetStudySystemAttributesRequest>,
    ) -> Answer<GetStudySystemAttributesReply> {
        let study = self.store.study(request.into_inner().study_id).await?;
        Ok(Response::new(GetStudySystemAttributesReply { system_attributes: study.system_attrs }))
    }

    async fn get_all_studies(&self, _: Request<GetAllStudiesRequest>) -> Answer<GetAllStudiesReply> {
        let (mut studies, mut after) = (Vec::new(), i64::MIN);
        loop {
            let page = self.store.studies(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            studies.extend(page.into_iter().map(wire::study));
        }
        Ok(Response::new(GetAllStudiesReply { studies }))
    }

    async fn create_new_trial(&self, request: Request<CreateNewTrialRequest>) -> Answer<CreateNewTrialReply> {
        let peer = peer(&request);
        let request = request.into_inner();
        let template = !request.template_trial_is_none;
        let new = match request.template_trial {
            Some(template) if !request.template_trial_is_none => {
                let new = wire::new_trial(template)?;
                for (field, attributes) in [("user", &new.user_attrs), ("system", &new.system_attrs)] {
                    for (key, json) in attributes {
                        check_json(&format!("template_trial.{field}_attributes[{key:?}]"), json)?;
                    }
                }
                let params = new.params.iter().map(|param| ("params", &param.name));
                let user = new.user_attrs.keys().map(|key| ("user_attributes", key));
                let system = new.system_attrs.keys().map(|key| ("system_attributes", key));
                let mut names = params.chain(user).chain(system);
                let checked =
                    names.try_for_each(|(field, key)| self.check_name(&format!("template_trial.{field}"), key));
                if let Err(problem) = checked {
                    return Err(self.refuse_study(request.study_id, problem).await);
                }
                new
            }
            None if !request.template_trial_is_none => {
                return Err(status::invalid_field("template_trial", "is missing"));
            }
            _ => NewTrial { leased: true, ..NewTrial::default() },
        };
        let trial = self.store.create_trial(request.study_id, new, Timestamp::now()).await?;
        // One that was copied is held by whoever goes on with it.
        if trial.state == State::Running && !template {
            self.leases.hold(trial.id, peer.as_ref());
        }
        Ok(Response::new(CreateNewTrialReply { trial_id: trial.id }))
    }

    async fn set_trial_parameter(&self, request: Request<SetTrialParameterRequest>) -> Answer<SetTrialParameterReply> {
        let peer = peer(&request);
        let request = request.into_inner();
        // As in Optuna, a text that cannot be read is refused before anything is looked at.
        let distribution = self.distributions.distribution("distribution", request.distribution)?;
        let (name, value) = (request.param_name, request.param_value_internal);
        let param = self
            .check_name("param_name", &name)
            .and_then(|()| wire::param("param_value_internal", name, value, distribution));
        let param = match param {
            Ok(param) => param,
            Err(problem) => return Err(self.refuse(request.trial_id, problem).await),
        };
        // A queued trial belongs to nobody.
        self.work(request.trial_id, Edit::param(param), peer.as_ref()).await?;
        Ok(Response::new(SetTrialParameterReply {}))
    }

    async fn get_trial_id_from_study_id_trial_number(
        &self,
        request: Request<GetTrialIdFromStudyIdTrialNumberRequest>,
    ) -> Answer<GetTrialIdFromStudyIdTrialNumberReply> {
        let request = request.into_inner();
        let trial = self.store.numbered_trial(request.study_id, request.trial_number).await?;
        Ok(Response::new(GetTrialIdFromStudyIdTrialNumberReply { trial_id: trial.id }))
    }

    async fn set_trial_state_values(
        &self,
        request: Request<SetTrialStateValuesRequest>,
    ) -> Answer<SetTrialStateValuesReply> {
        let peer = peer(&request);
        let request = request.into_inner();
        let state = wire::state(request.state)?;
        let edit = Edit { leased: state == State::Running, ..Edit::state(state, request.values) };
        let trial_updated = self.edit(request.trial_id, edit).await?.is_some();
        match state {
            State::Running if trial_updated => self.leases.hold(request.trial_id, peer.as_ref()),
            State::Running => {}
            // Given back to the queue.
            State::Waiting => self.leases.release(request.trial_id),
            State::Complete | State::Pruned | State::Fail => {
                self.leases.release(request.trial_id);
                self.after_trials.ended();
            }
        }
        Ok(Response::new(SetTrialStateValuesReply { trial_updated }))
    }

    async fn set_trial_intermediate_value(
        &self,
        request: Request<SetTrialIntermediateValueRequest>,
    ) -> Answer<SetTrialIntermediateValueReply> {
        let peer = peer(&request);
        let request = request.into_inner();
        let reports = vec![(request.step, request.intermediate_value)];
        self.work(request.trial_id, Edit::reports(reports), peer.as_ref()).await?;
        Ok(Response::new(SetTrialIntermediateValueReply {}))
    }

    async fn set_trial_user_attribute(
        &self,
        request: Request<SetTrialUserAttributeRequest>,
    ) -> Answer<SetTrialUserAttributeReply> {
        let peer = peer(&request);
        let request = request.into_inner();
        check_json("value", &request.value)?;
        let edit = Edit::user_attr(&request.key, request.value);
        self.set_trial_attribute(request.trial_id, &request.key, edit, peer).await?;
        Ok(Response::new(SetTrialUserAttributeReply {}))
    }

    async fn set_trial_system_attribute(
        &self,
        request: Request<SetTrialSystemAttributeRequest>,
    ) -> Answer<SetTrialSystemAttributeReply> {
        let peer = peer(&request);
        let request = request.into_inner();
        check_json("value", &request.value)?;
        let edit = Edit::system_attr(&request.key, request.value);
        self.set_trial_attribute(request.trial_id, &request.key, edit, peer).await?;
        Ok(Response::new(SetTrialSystemAttributeReply {}))
    }

    async fn get_trial(&self, request: Request<GetTrialRequest>) -> Answer<GetTrialReply> {
        let trial = self.store.trial(request.into_inner().trial_id).await?;
        Ok(Response::new(GetTrialReply { trial: Some(self.encode(|encoder| encoder.trial(&trial))) }))
    }

    async fn get_trials(&self, request: Request<GetTrialsRequest>) -> Answer<GetTrialsReply> {
        let request = request.into_inner();
        let (after, also) = (request.trial_id_greater_than, request.included_trial_ids.into_iter().collect());
        let trials = self.store.trials_since(request.study_id, after, also).await?;
        let encode = |encoder: &mut Encoder| encoder.trials(trials.iter().map(|trial| &**trial));
        // To make room for other calls costs more than to encode a few.
        let trials = match trials.len() > QUICK {
            true => may_block(|| encode(&mut Encoder::default())),
            false => self.encode(encode),
        };
        Ok(Response::new(GetTrialsReply { trials }))
    }
}
