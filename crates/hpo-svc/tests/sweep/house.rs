//! The house of these tests: a host with the sweep service, and the program of its trials.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use hpo_svc::storage::Store;
use quintet_proto::v1::{
    self, CreateJobRequest, Directive, Job, JobSpec, ListJobsRequest, SweepSpec, job_spec::Kind, parameter::Domain,
    sweep_spec::Trial,
};
use runtime_core::{
    client::{Connection, JobClient, connect},
    config::{Config, SecretUrl, Service},
    db,
    host::{self, Host},
    server::ServerHandle,
    status::ErrorReason,
    worker::{Context, Done, Failure, ServeOptions, WorkResult, serve},
};
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(20);

/// A host with the sweep service on one folder, as `quintet serve --services hpo` makes it.
pub(crate) struct House {
    server: ServerHandle,
    pub(crate) connection: Connection,
    pub(crate) store: Store,
}

/// Runs of each trial's program, by job.
pub(crate) type Runs = Arc<Mutex<BTreeMap<String, usize>>>;

impl House {
    pub(crate) async fn open(folder: &Path, runs: &Runs) -> Self {
        let mut config = crate::support::config(folder);
        config.backup.enabled = true;
        config.backup.location = Some(SecretUrl::new(backup_url(folder)));
        let host = hpo_svc::mount(open_host(config).await).await.unwrap();
        let options = ServeOptions {
            connection: host.connection(Service::Hpo).unwrap(),
            kinds: vec!["command".into()],
            data_dir: folder.join("data"),
            patience: PATIENCE,
        };
        let runs = runs.clone();
        let program = move |context: Context| {
            let runs = runs.clone();
            async move { program(context, &runs).await }
        };
        let drain = host.drain();
        let server = host.task("programs", serve(options, drain, program)).start().await.unwrap();
        let connection = connect(&server.url(), None).unwrap();
        let store = Store::open(&format!("sqlite://{}", folder.join("data/hpo.db").display())).unwrap();
        Self { server, connection, store }
    }

    pub(crate) fn jobs(&self) -> JobClient {
        JobClient::new(self.connection.clone(), PATIENCE)
    }

    pub(crate) async fn submit(&self, spec: SweepSpec, id: &str) -> Job {
        let job = Job { spec: Some(JobSpec { kind: Some(Kind::Sweep(spec)) }), ..Job::default() };
        let request = CreateJobRequest { job: Some(job), request_id: id.into(), ..Default::default() };
        Box::pin(self.jobs().create(request)).await.unwrap()
    }

    pub(crate) async fn run(&self, spec: SweepSpec, id: &str) -> Job {
        let job = self.submit(spec, id).await;
        Box::pin(self.jobs().watch(&job.name, 0, |_| {}, |_| {})).await.unwrap()
    }

    pub(crate) async fn children(&self, sweep: &Job) -> Vec<Job> {
        let request = ListJobsRequest { parent: sweep.name.clone(), page_size: 1000, ..Default::default() };
        self.jobs().raw().list_jobs(request).await.unwrap().into_inner().jobs
    }

    pub(crate) async fn close(self) {
        self.server.shutdown().await.unwrap();
    }
}

pub(crate) fn backup_url(folder: &Path) -> String {
    format!("file://{}", folder.join("backup").display())
}

/// Opens a host as soon as the one before it has let go of the folder.
async fn open_host(config: Config) -> Host {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match Host::open(config.clone()).await {
            Ok(host) => return host,
            Err(host::Error::Database(db::Error::Owned(_))) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Stands for the user's program: minimizes (x - 0.3)^2 over 5 steps. x above 0.9 crashes, the metric is missing above 0.8. With
/// `flaky` the first run of each x crashes. Later folds are a little worse, and much worse for x above 0.5.
pub(crate) async fn program(context: Context, runs: &Runs) -> WorkResult {
    let Some(Kind::Command(command)) = context.spec().kind else {
        return Err(Failure::user(ErrorReason::Unsupported, "no command"));
    };
    *runs.lock().unwrap().entry(context.job().uid.clone()).or_default() += 1;
    let x: f64 = command.parameters["x"].parse().unwrap();
    if x > 0.9 {
        context.log("Traceback: boom");
        return Err(Failure::user(ErrorReason::CommandFailed, "exit status 1"));
    }
    let first = *runs.lock().unwrap().entry(format!("x={x}")).and_modify(|count| *count += 1).or_insert(1) == 1;
    if first && command.parameters.contains_key("flaky") {
        return Err(Failure::user(ErrorReason::CommandFailed, "exit status 3"));
    }
    let fold: f64 = command.parameters.get("fold").and_then(|fold| fold.parse().ok()).unwrap_or(0.0);
    let loss = (x - 0.3) * (x - 0.3) + fold * if x > 0.5 { 0.5 } else { 0.01 };
    for step in 1..=5 {
        context.metric("loss", loss + 1.0 / f64::from(step), i64::from(step));
        context.metric("other", 1.0, i64::from(step));
        tokio::time::sleep(Duration::from_millis(if command.parameters.contains_key("slow") { 200 } else { 10 })).await;
        if context.directive() != Directive::Continue {
            return Ok(Done { stopped: true, metrics: [("ms".to_owned(), 1.0 - x)].into(), ..Done::default() });
        }
    }
    let name = if x > 0.8 { "los" } else { "loss" };
    Ok(Done { metrics: [(name.to_owned(), loss), ("ms".to_owned(), 1.0 - x)].into(), ..Done::default() })
}

/// Gives the trials' program a parameter that is the same for all.
pub(crate) fn with_parameter(spec: &mut SweepSpec, name: &str) {
    let Some(Trial::Command(command)) = &mut spec.trial else { panic!("not a command") };
    command.command += &format!(" ${{{{search_space.{name}}}}}");
    command.parameters.insert(name.into(), "1".into());
}

pub(crate) fn sweep(name: &str, low: f64, high: f64, max_trials: i32) -> SweepSpec {
    SweepSpec {
        study_name: name.into(),
        search_space: vec![v1::Parameter {
            name: "x".into(),
            domain: Some(Domain::Float(v1::FloatDomain { low, high, log: false, step: None })),
            condition: None,
        }],
        objective: Some(v1::Objective { metric: "loss".into(), direction: v1::Direction::Minimize.into() }),
        max_trials,
        max_parallel_trials: 3,
        seed: Some(7),
        trial: Some(Trial::Command(v1::CommandSpec {
            command: "train --x ${{search_space.x}}".into(),
            ..v1::CommandSpec::default()
        })),
        ..SweepSpec::default()
    }
}

pub(crate) fn report(job: &Job) -> serde_json::Value {
    serde_json::to_value(job.outputs.as_ref().unwrap().report.as_ref().unwrap()).unwrap()
}

/// A process of its own, as far as the tasks go: dropping it stops them all where they are.
pub(crate) fn process() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
