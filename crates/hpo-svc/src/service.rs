//! `HpoService` over gRPC: studies, trials and the best configuration.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use quintet_proto::{
    types,
    v1::{
        self, CreateStudyRequest, CreateSweepRequest, CreateSweepResponse, DeleteStudyRequest, DeleteStudyResponse,
        EnqueueTrialsRequest, EnqueueTrialsResponse, ExportStudyRequest, ExtendSweepRequest, GetBestConfigRequest,
        GetBestConfigResponse, GetStudyRequest, ListStudiesRequest, ListStudiesResponse, ListTrialsRequest,
        ListTrialsResponse, PauseSweepRequest, ReportTrialRequest, ReportTrialResponse, ResumeSweepRequest, StudyPiece,
        SuggestTrialsRequest, SuggestTrialsResponse, SweepControl, TellTrialRequest, ValidateSweepRequest,
        ValidateSweepResponse,
        hpo_service_server::{HpoService, HpoServiceServer},
    },
};
use runtime_core::{
    client::JobClient,
    db,
    jobs::service::page_size,
    status::{self, ErrorReason},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    after_trials::AfterTrials,
    ask_tell::{ATTR_CLIENT, AskTell, bare_name, wire_parameters},
    create, select, steer,
    storage::{Error, Store},
    study::{Direction, State, Study, Trial, best},
    sweep::{ATTR_BACKBONE, ATTR_ERROR, ATTR_JOB, best_config},
    transfer,
    validate::{Wanted, validate},
};

/// Pages when the caller names no size, and the largest.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// When to try again while another program keeps the studies locked.
const LOCKED_PAUSE: Duration = Duration::from_secs(5);
/// And while the database server is away.
const AWAY_PAUSE: Duration = Duration::from_secs(1);

/// The domain calls of sweeps, answered from the study store.
#[derive(Debug, Clone)]
pub struct HpoApi {
    store: Store,
    ask_tell: AskTell,
    jobs: Option<JobClient>,
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match &error {
            Error::NoStudy(name) => status::not_found("study", name),
            Error::NoTrial(id) => status::not_found("trial", &id.to_string()),
            Error::NoTrialNumber { number, .. } => status::not_found("trial", &number.to_string()),
            Error::StudyExists(name) => status::already_exists("study", name, "the name is taken"),
            Error::TrialFinished { number, .. } | Error::NotSuggested { number } => status::failed_precondition(
                ErrorReason::IllegalState,
                &format!("trial {number}"),
                error.to_string(),
                [("trial", number.to_string())],
            ),
            Error::Incompatible { name, .. } => status::invalid_field(name.clone(), error.to_string()),
            Error::NotANumber => status::invalid_field("values", error.to_string()),
            Error::Db(db::Error::Busy(_)) => status::unavailable(error.to_string(), LOCKED_PAUSE),
            Error::Db(db::Error::Unavailable(_)) => status::unavailable(error.to_string(), AWAY_PAUSE),
            Error::Db(db::Error::Closed) => status::shutting_down(),
            Error::Db(db::Error::Full(_)) => {
                status::resource_exhausted(ErrorReason::StorageFull, "study store", error.to_string())
            }
            Error::Db(db::Error::Corrupt(_)) => {
                let advice = "restart the server, which restores the file from its newest backup or says what to do";
                status::Error::new(ErrorReason::DataCorrupt, format!("{error}; {advice}")).into_status()
            }
            Error::Revision(_) | Error::Corrupt(_) => {
                status::Error::new(ErrorReason::DataCorrupt, error.to_string()).into_status()
            }
            Error::Db(_) => status::internal("study store", &error),
        }
    }
}

impl HpoApi {
    /// A service over a store, with what is to be told of trials that clients have ended.
    pub fn new(store: Store, after_trials: AfterTrials) -> Self {
        Self { ask_tell: AskTell::new(store.clone(), after_trials), store, jobs: None }
    }

    /// With the job service that sweeps are jobs of.
    #[must_use]
    pub fn with_jobs(mut self, jobs: JobClient) -> Self {
        self.jobs = Some(jobs);
        self
    }

    fn jobs(&self) -> Result<&JobClient, Status> {
        self.jobs.as_ref().ok_or_else(|| {
            status::Error::new(ErrorReason::Unsupported, "this server serves studies without the jobs of their sweeps")
                .into_status()
        })
    }

    /// The service to mount on a server.
    pub fn into_service(self) -> HpoServiceServer<Self> {
        HpoServiceServer::new(self)
            .max_decoding_message_size(runtime_core::client::MAX_MESSAGE)
            .max_encoding_message_size(runtime_core::client::MAX_MESSAGE)
    }

    /// The study of a resource name, or of its bare name.
    async fn find(&self, field: &str, name: &str) -> Result<Study, Status> {
        let study = self.store.find_study(bare_name(field, name)?).await?;
        study.ok_or_else(|| status::not_found("study", name))
    }

    async fn study(&self, study: &Study) -> Result<v1::Study, Status> {
        let trials = self.store.trials(study.id).await?;
        let mut counts: BTreeMap<State, i64> = BTreeMap::new();
        for trial in &trials {
            *counts.entry(trial.state).or_default() += 1;
        }
        Ok(self.summary(study, &counts, best(&trials, direction(study))))
    }

    /// What [`Self::study`] gives, without reading every trial: a list is of studies that nobody works on, as a rule.
    async fn listed(&self, study: &Study) -> Result<v1::Study, Status> {
        let counts = self.store.counts(study.id).await?;
        let best = match study.directions[..] {
            [direction] => self.store.best_trial(study.id, direction).await?,
            _ => None,
        };
        Ok(self.summary(study, &counts, best.as_ref()))
    }

    fn summary(&self, study: &Study, counts: &BTreeMap<State, i64>, best: Option<&Trial>) -> v1::Study {
        let wire = |count: i64| i32::try_from(count).unwrap_or(i32::MAX);
        v1::Study {
            name: format!("studies/{}", study.name),
            direction: direction(study).to_proto().into(),
            trial_count: wire(counts.values().sum()),
            trials_by_state: counts.iter().map(|(state, count)| (state.as_str().to_owned(), wire(*count))).collect(),
            best: best.filter(|_| study.directions.len() == 1).map(|trial| wire_trial(study, trial)),
            storage: self.store.optuna_url().to_owned(),
            directions: study.directions.iter().map(|direction| direction.to_proto().into()).collect(),
        }
    }
}

/// The direction of the first objective; a study of Optuna's own may have several.
fn direction(study: &Study) -> Direction {
    study.directions.first().copied().unwrap_or(Direction::Minimize)
}

fn wire_time(time: Timestamp) -> types::Timestamp {
    types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

fn wire_trial(study: &Study, trial: &Trial) -> v1::Trial {
    v1::Trial {
        name: format!("studies/{}/trials/{}", study.name, trial.number),
        number: i32::try_from(trial.number).unwrap_or(i32::MAX),
        state: trial.state.to_proto().into(),
        parameters: Some(wire_parameters(&trial.params)),
        value: trial.value(),
        intermediate_values: trial.intermediate.clone(),
        start_time: trial.start.map(wire_time),
        end_time: trial.complete.map(wire_time),
        job: trial.user_text(ATTR_JOB).unwrap_or_default(),
        error: trial.user_text(ATTR_ERROR).unwrap_or_default(),
        values: trial.values.clone(),
        client_id: trial.user_text(ATTR_CLIENT).unwrap_or_default(),
        constraints: trial.constraints(),
    }
}

/// A page token is the key of the last row that was sent.
fn read_token(token: &str) -> Result<i64, Status> {
    if token.is_empty() {
        return Ok(-1);
    }
    i64::from_str_radix(token, 16).map_err(|_| status::invalid_field("page_token", "is not one that this server gave"))
}

#[tonic::async_trait]
impl HpoService for HpoApi {
    async fn get_study(&self, request: Request<GetStudyRequest>) -> Result<Response<v1::Study>, Status> {
        let study = self.find("name", &request.get_ref().name).await?;
        Ok(Response::new(self.study(&study).await?))
    }

    async fn list_studies(
        &self,
        request: Request<ListStudiesRequest>,
    ) -> Result<Response<ListStudiesResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size, PAGE, LARGEST_PAGE)?;
        let mut page = self.store.studies(read_token(&request.page_token)?, size + 1).await?;
        let more = page.len() > size;
        page.truncate(size);
        let next = page.last().filter(|_| more).map(|study| format!("{:x}", study.id));
        let mut studies = Vec::with_capacity(page.len());
        for study in &page {
            studies.push(self.listed(study).await?);
        }
        Ok(Response::new(ListStudiesResponse { studies, next_page_token: next.unwrap_or_default() }))
    }

    async fn list_trials(&self, request: Request<ListTrialsRequest>) -> Result<Response<ListTrialsResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size, PAGE, LARGEST_PAGE)?;
        let after = read_token(&request.page_token)?;
        let study = self.find("parent", &request.parent).await?;
        let trials = self.store.trials(study.id).await?;
        let after = trials.iter().filter(|trial| trial.number > after);
        let mut page: Vec<&Trial> = after.map(|trial| &**trial).take(size + 1).collect();
        let more = page.len() > size;
        page.truncate(size);
        let next = page.last().filter(|_| more).map(|trial| format!("{:x}", trial.number));
        Ok(Response::new(ListTrialsResponse {
            trials: page.into_iter().map(|trial| wire_trial(&study, trial)).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn get_best_config(
        &self,
        request: Request<GetBestConfigRequest>,
    ) -> Result<Response<GetBestConfigResponse>, Status> {
        let request = select::Request::new(request.into_inner()).map_err(status::invalid_argument)?;
        let mut studies = Vec::with_capacity(request.studies.len());
        for name in &request.studies {
            let study = self.find("study", name).await?;
            let trials = self.store.trials(study.id).await?;
            studies.push((study, trials));
        }
        // Long histories take their time.
        let choose = move || (select::answer(&request, &studies), studies);
        let chosen = tokio::task::spawn_blocking(choose).await;
        let (answer, studies) = chosen.map_err(|error| status::internal("choice", &error))?;
        let ((place, number), answer) = answer?;
        let (study, trials) = &studies[place];
        let Some(trial) = trials.iter().find(|trial| trial.number == number) else {
            return Err(status::not_found("trial", &number.to_string()));
        };
        let backbone = study.user_attrs.get(ATTR_BACKBONE).and_then(|json| serde_json::from_str(json).ok());
        let backbone: String = backbone.unwrap_or_default();
        let config = serde_json::from_value(best_config(&study.name, &backbone, trial))
            .map_err(|error| status::internal("best configuration", &error))?;
        let trial = Some(wire_trial(study, trial));
        Ok(Response::new(GetBestConfigResponse { trial, best_config: Some(config), ..answer }))
    }

    async fn create_study(&self, request: Request<CreateStudyRequest>) -> Result<Response<v1::Study>, Status> {
        let study = self.ask_tell.create_study(request.into_inner()).await?;
        Ok(Response::new(self.study(&study).await?))
    }

    async fn delete_study(
        &self,
        request: Request<DeleteStudyRequest>,
    ) -> Result<Response<DeleteStudyResponse>, Status> {
        let study = self.find("name", &request.get_ref().name).await?;
        self.store.delete_study(study.id).await?;
        self.ask_tell.forget(&study.name);
        Ok(Response::new(DeleteStudyResponse {}))
    }

    async fn suggest_trials(
        &self,
        request: Request<SuggestTrialsRequest>,
    ) -> Result<Response<SuggestTrialsResponse>, Status> {
        let (study, trials) = self.ask_tell.suggest(request.into_inner()).await?;
        let trials = trials.iter().map(|trial| wire_trial(&study, trial)).collect();
        Ok(Response::new(SuggestTrialsResponse { trials }))
    }

    async fn enqueue_trials(
        &self,
        request: Request<EnqueueTrialsRequest>,
    ) -> Result<Response<EnqueueTrialsResponse>, Status> {
        let (study, trials) = self.ask_tell.enqueue(request.into_inner()).await?;
        let trials = trials.iter().map(|trial| wire_trial(&study, trial)).collect();
        Ok(Response::new(EnqueueTrialsResponse { trials }))
    }

    type ExportStudyStream = ReceiverStream<Result<StudyPiece, Status>>;

    async fn export_study(
        &self,
        request: Request<ExportStudyRequest>,
    ) -> Result<Response<Self::ExportStudyStream>, Status> {
        let study = self.find("name", &request.get_ref().name).await?;
        let trials = self.store.trials(study.id).await?;
        Ok(Response::new(transfer::export(study, trials)))
    }

    async fn import_study(
        &self,
        request: Request<tonic::Streaming<StudyPiece>>,
    ) -> Result<Response<v1::Study>, Status> {
        let (study, trials) = transfer::read(request.into_inner()).await?;
        let study = self.store.import(study, trials).await?;
        Ok(Response::new(self.study(&study).await?))
    }

    async fn report_trial(
        &self,
        request: Request<ReportTrialRequest>,
    ) -> Result<Response<ReportTrialResponse>, Status> {
        let should_prune = self.ask_tell.report(request.into_inner()).await?;
        Ok(Response::new(ReportTrialResponse { should_prune }))
    }

    async fn tell_trial(&self, request: Request<TellTrialRequest>) -> Result<Response<v1::Trial>, Status> {
        let (study, trial) = self.ask_tell.tell(request.into_inner()).await?;
        Ok(Response::new(wire_trial(&study, &trial)))
    }

    async fn pause_sweep(&self, request: Request<PauseSweepRequest>) -> Result<Response<SweepControl>, Status> {
        let study = self.find("study", &request.get_ref().study).await?;
        Ok(Response::new(steer::pause(&self.store, &study, true, Timestamp::now()).await?))
    }

    async fn resume_sweep(&self, request: Request<ResumeSweepRequest>) -> Result<Response<SweepControl>, Status> {
        let study = self.find("study", &request.get_ref().study).await?;
        Ok(Response::new(steer::pause(&self.store, &study, false, Timestamp::now()).await?))
    }

    async fn extend_sweep(&self, request: Request<ExtendSweepRequest>) -> Result<Response<SweepControl>, Status> {
        let request = request.into_inner();
        let study = self.find("study", &request.study).await?;
        Ok(Response::new(steer::extend(&self.store, self.jobs()?, &study, request.max_trials).await?))
    }

    async fn validate_sweep(
        &self,
        request: Request<ValidateSweepRequest>,
    ) -> Result<Response<ValidateSweepResponse>, Status> {
        let request = request.into_inner();
        let least = usize::try_from(request.min_completed_trials).map_err(|_| {
            let problem = format!("{} is below 0", request.min_completed_trials);
            status::invalid_field("min_completed_trials", problem)
        })?;
        let study = self.find("study", &request.study).await?;
        let job = match request.job.as_str() {
            "" => None,
            name => Some(Box::pin(self.jobs()?.get(name)).await?),
        };
        let trials = self.store.trials(study.id).await?;
        let wanted = Wanted {
            min_completed_trials: least.max(1),
            metric: (!request.metric.is_empty()).then_some(request.metric),
        };
        Ok(Response::new(validate(&study, &trials, &wanted, job.as_ref())))
    }

    async fn create_sweep(
        &self,
        request: Request<CreateSweepRequest>,
    ) -> Result<Response<CreateSweepResponse>, Status> {
        let created = Box::pin(create::create(&self.store, self.jobs()?, request.into_inner())).await?;
        Ok(Response::new(created))
    }
}
