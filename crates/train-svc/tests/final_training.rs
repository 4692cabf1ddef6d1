//! Final trainings over the real job service, store and artifacts; only the engine is a stand-in that writes a tiny checkpoint.
#![allow(clippy::unwrap_used)] // Helpers of tests panic like the tests themselves.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use quintet_nlp::testing::TinyCheckpoint;
use quintet_proto::v1::{
    CreateFinalTrainingRequest, CreateFinalTrainingResponse, FinalTrainingAction, FinalTrainingMode, Hyperparameters,
    Job, JobState, SourceCheckpoint, TokenClassificationData, TrainSpec, ValidateTrainingJobRequest, job_spec::Kind,
    source_checkpoint::Source, training_service_client::TrainingServiceClient,
};
use runtime_core::{
    client::{Connection, JobClient, connect},
    config::{Config, Service},
    host::Host,
    server::ServerHandle,
    status::{ErrorReason, violations_of},
    worker::{Context, Done, Failure, ServeOptions, WorkResult, serve},
};
use serde_json::json;
use tokio::sync::Notify;
use tonic::{Code, Status};

/// What the engine does with the next job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Succeed,
    Fail,
    /// Waits for the test, then succeeds.
    Wait,
    /// Leaves a checkpoint whose labels are not those of the report.
    Spoil,
}

struct House {
    folder: tempfile::TempDir,
    _server: ServerHandle,
    client: TrainingServiceClient<Connection>,
    jobs: JobClient,
    next: Arc<Mutex<VecDeque<Next>>>,
    go_on: Arc<Notify>,
}

fn labels() -> Vec<String> {
    ["O", "B-per", "I-per"].map(str::to_owned).to_vec()
}

async fn work(context: Context, next: Arc<Mutex<VecDeque<Next>>>, go_on: Arc<Notify>) -> WorkResult {
    let next = next.lock().unwrap().pop_front().unwrap_or(Next::Succeed);
    match next {
        Next::Fail => return Err(Failure::user(ErrorReason::BadInput, "ordered by the test")),
        Next::Wait => go_on.notified().await,
        Next::Succeed | Next::Spoil => {}
    }
    let mut labels = labels();
    let checkpoint = TinyCheckpoint { labels: labels.clone(), ..TinyCheckpoint::default() };
    checkpoint.write(&context.output_dir("checkpoint")?).unwrap();
    std::fs::write(context.output_dir("evaluation")?.join("rows.json"), "[]").unwrap();
    if next == Next::Spoil {
        labels.pop();
    }
    let metrics = BTreeMap::from([("f1".to_owned(), 0.9)]);
    Ok(Done { metrics, report: json!({"labels": labels}), stopped: false })
}

impl House {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let mut config = Config {
            data_dir: data_dir.clone(),
            listen: "127.0.0.1:0".into(),
            services: vec![Service::Train],
            ..Config::default()
        };
        config.worker.enabled = false;
        config.backup.enabled = false;
        let host = train_svc::mount(Host::open(config).await.unwrap()).unwrap();
        let (next, go_on) = (Arc::<Mutex<VecDeque<Next>>>::default(), Arc::new(Notify::new()));
        let connection = host.connection(Service::Train).unwrap();
        let patience = Duration::from_secs(10);
        let options = ServeOptions { connection, kinds: vec!["train".into()], data_dir, patience };
        let engine = {
            let (next, go_on) = (next.clone(), go_on.clone());
            move |context| work(context, next.clone(), go_on.clone())
        };
        let drain = host.drain();
        let server = host.task("engine", serve(options, drain, engine)).start().await.unwrap();
        let connection = connect(&server.url(), None).unwrap();
        let jobs = JobClient::new(connection.clone(), patience);
        Self { folder, _server: server, client: TrainingServiceClient::new(connection), jobs, next, go_on }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A training of a local folder, by its name as a backbone.
    fn spec(&self) -> TrainSpec {
        let train = self.file("train.conll", "anna B-per\nlives O\n\n");
        let validation = self.file("dev.conll", "anna B-per\n\n");
        self.file("encoder/config.json", "{}");
        TrainSpec {
            backbone: self.folder.path().join("encoder").display().to_string(),
            data: Some(TokenClassificationData { train, validation, ..TokenClassificationData::default() }),
            ..TrainSpec::default()
        }
    }

    async fn ask(&self, request: CreateFinalTrainingRequest) -> Result<CreateFinalTrainingResponse, Status> {
        self.client.clone().create_final_training(request).await.map(tonic::Response::into_inner)
    }

    /// Asks and tells action, number and job.
    async fn told(&self, mode: FinalTrainingMode, variant: i32) -> (FinalTrainingAction, i32, String) {
        let spec = Some(self.spec());
        let request = CreateFinalTrainingRequest { spec, variant, mode: mode.into(), ..Default::default() };
        let answer = self.ask(request).await.unwrap();
        assert!(!answer.reason.is_empty());
        (answer.action(), answer.variant, answer.job)
    }

    async fn ended(&self, job: &str) -> Job {
        self.jobs.watch(job, 0, |_| {}, |_| {}).await.unwrap()
    }

    fn order(&self, next: Next) {
        self.next.lock().unwrap().push_back(next);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_does_what_it_says_on_the_real_service() {
    use FinalTrainingAction::{Created, Followed, Resumed, Reused};
    use FinalTrainingMode::{ForceNew, ResumeIfIncomplete, ReuseIfExists};
    let house = House::open().await;
    let (action, variant, first) = house.told(ReuseIfExists, 0).await;
    assert_eq!((action, variant), (Created, 1));
    let job = house.ended(&first).await;
    assert_eq!(job.state(), JobState::Succeeded, "{:?}", job.error);
    let Some(Kind::Train(spec)) = job.spec.unwrap().kind else { panic!("no training") };
    assert_eq!((spec.backbone.as_str(), spec.checkpoint.ends_with("/encoder")), ("", true));
    assert_eq!(job.labels["code.lineage.source"], "scratch");
    assert_eq!(job.labels["code.trained_on_full_data"], "true");
    assert_eq!(house.told(ReuseIfExists, 0).await, (Reused, 1, first.clone()));

    house.order(Next::Fail);
    let (action, variant, failed) = house.told(ForceNew, 0).await;
    assert_eq!((action, variant), (Created, 2));
    assert_eq!(house.ended(&failed).await.state(), JobState::Failed);
    assert_eq!(house.told(ReuseIfExists, 0).await, (Reused, 1, first.clone()));

    house.order(Next::Wait);
    let (action, variant, resumed) = house.told(ResumeIfIncomplete, 0).await;
    assert_eq!((action, variant), (Resumed, 2));
    assert_eq!(house.jobs.get(&resumed).await.unwrap().labels["quintet.resume_from"], failed);
    assert_eq!(house.told(ResumeIfIncomplete, 0).await, (Followed, 2, resumed.clone()));
    house.go_on.notify_one();
    assert_eq!(house.ended(&resumed).await.state(), JobState::Succeeded);
    assert_eq!(house.told(ResumeIfIncomplete, 0).await, (Reused, 2, resumed.clone()));
    assert_eq!(house.told(ReuseIfExists, 1).await, (Reused, 1, first.clone()));

    // Only deciding creates nothing.
    let request = CreateFinalTrainingRequest {
        spec: Some(house.spec()),
        variant: 7,
        validate_only: true,
        ..CreateFinalTrainingRequest::default()
    };
    let answer = house.ask(request.clone()).await.unwrap();
    assert_eq!((answer.action(), answer.variant), (Created, 7));
    assert_eq!(answer.labels["quintet.final_training.variant"], "7");
    assert_eq!(house.jobs.get(&answer.job).await.unwrap_err().code(), Code::NotFound);
    // The same request gives the same job, also where a new one is made each time.
    let request = CreateFinalTrainingRequest {
        mode: ForceNew.into(),
        variant: 0,
        validate_only: false,
        request_id: "once".into(),
        ..request
    };
    let once = house.ask(request.clone()).await.unwrap();
    let again = house.ask(request.clone()).await.unwrap();
    assert_eq!((once.job, once.variant), (again.job, again.variant));
    let wrong = CreateFinalTrainingRequest { variant: 2, request_id: String::new(), ..request };
    let refused = house.ask(wrong).await.unwrap_err();
    assert_eq!(violations_of(&refused)[0].0, "variant");
    // Other content is another training.
    let mut spec = house.spec();
    spec.data.as_mut().unwrap().test = house.file("more.conll", "oslo O\n\n");
    let other = CreateFinalTrainingRequest { spec: Some(spec), ..CreateFinalTrainingRequest::default() };
    assert_eq!(house.ask(other).await.unwrap().variant, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_looked_into_before_they_are_reused_or_begun_with() {
    let house = House::open().await;
    let mode = FinalTrainingMode::ReuseIfExists;
    house.order(Next::Spoil);
    let (_, _, spoiled) = house.told(mode, 0).await;
    assert_eq!(house.ended(&spoiled).await.state(), JobState::Succeeded);
    let validate = async |job: &str| {
        let request = ValidateTrainingJobRequest { job: job.to_owned() };
        house.client.clone().validate_training_job(request).await.unwrap().into_inner()
    };
    let found = validate(&spoiled).await;
    assert!(!found.valid && found.problems[0].contains("the report"), "{:?}", found.problems);
    let request = CreateFinalTrainingRequest { spec: Some(house.spec()), ..CreateFinalTrainingRequest::default() };
    let answer = house.ask(request).await.unwrap();
    assert_eq!((answer.action(), answer.variant), (FinalTrainingAction::Created, 2));
    assert!(answer.reason.contains("cannot be used"), "{}", answer.reason);
    let sound = answer.job;
    assert_eq!(house.ended(&sound).await.state(), JobState::Succeeded);
    let found = validate(&sound).await;
    assert_eq!((found.valid, found.labels, found.problems), (true, labels(), Vec::new()));
    assert!(found.checkpoint.contains("checkpoint"));

    let from = |job: &str, checkpoint: &str| {
        let mut spec = house.spec();
        spec.backbone.clear();
        spec.checkpoint = checkpoint.to_owned();
        spec.hyperparameters = Some(Hyperparameters { epochs: Some(1), ..Hyperparameters::default() });
        let source = Some(SourceCheckpoint { source: Some(Source::FinalTraining(job.to_owned())) });
        CreateFinalTrainingRequest { spec: Some(spec), source, ..CreateFinalTrainingRequest::default() }
    };
    let answer = house.ask(from(&sound, "")).await.unwrap();
    assert_eq!(answer.labels["code.lineage.source"], "final_training");
    assert_eq!(format!("jobs/{}", answer.labels["code.lineage.parent_run_id"]), sound);
    let Some(Kind::Train(spec)) = house.jobs.get(&answer.job).await.unwrap().spec.unwrap().kind else { panic!() };
    assert_eq!(spec.checkpoint, format!("{sound}/outputs/checkpoint"));
    // A checkpoint that is a training's output names its source by itself, and is the same training.
    let mut by_itself = from(&sound, &spec.checkpoint);
    by_itself.source = None;
    let same = house.ask(by_itself).await.unwrap();
    assert_eq!(same.job, answer.job);

    let refused = house.ask(from(&spoiled, "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("cannot be used"), "{}", refused.message());
    let refused = house.ask(from(&sound, "/other")).await.unwrap_err();
    assert_eq!(violations_of(&refused)[0].0, "spec.checkpoint");
    let refused = house.ask(from("jobs/x", "")).await.unwrap_err();
    assert_eq!(violations_of(&refused)[0].0, "source.final_training");
    let nothing = CreateFinalTrainingRequest { spec: Some(TrainSpec::default()), ..Default::default() };
    let refused = house.ask(nothing).await.unwrap_err();
    assert_eq!(violations_of(&refused)[0].0, "spec.checkpoint");
}
