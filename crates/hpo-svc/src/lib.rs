//! The sweep service: search spaces, samplers, pruners, studies in Optuna's schema, and sweeps whose trials are jobs.
//!
//! [`build`] opens the study store. The parts go onto a server: [`Hpo::grpc_service`] beside the job services, whose `sweep` kind
//! [`validator`] checks, and [`Hpo::work`] as a task that executes sweep jobs in the server's own process.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use quintet_proto::v1::{hpo_service_server::HpoServiceServer, job_spec::Kind};
use runtime_core::{
    backup::{BackupPolicy, Snapshots},
    client::{Connection, JobClient, MAX_MESSAGE},
    config::{Service, StudySync},
    host::{Error as HostError, Host, PATIENCE},
    jobs::Validator,
    limited,
    server::Drain,
    status::{chain, violation},
    worker::{ServeOptions, serve},
};

mod after_trials;
pub mod ask_tell;
mod create;
pub mod history;
pub mod objective;
pub mod optuna;
pub mod pareto;
pub mod pruner;
pub mod pyjson;
mod queued;
pub mod sampler;
pub mod select;
pub mod service;
pub mod space;
mod steer;
pub mod storage;
pub mod study;
pub mod sweep;
pub mod sweep_plan;
mod transfer;
mod validate;
pub mod view;
pub mod warm_start;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_pareto;

pub use after_trials::AfterTrials;
use sweep::{Runner, StudyHook};

/// What the service needs.
#[derive(Clone)]
pub struct Options {
    /// The study store: `sqlite:///PATH` or `postgresql://...`.
    pub database: String,
    /// Folder that the attempts of sweep jobs work under.
    pub data_dir: PathBuf,
    /// How long a trial's job server may stay away before the attempt is given up.
    pub patience: Duration,
    /// How long Optuna clients may stay away before their running trials fail.
    pub trial_patience: optuna::Patience,
    /// Whether also what is written to trials that have not ended is on the disk before it is answered.
    pub sync_all: bool,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The database URL may hold a password.
        f.debug_struct("Options").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

/// The service; clones share the store.
#[derive(Debug, Clone)]
pub struct Hpo {
    options: Options,
    store: storage::Store,
    snapshots: Option<Snapshots>,
    after_trials: AfterTrials,
}

/// Opens the study store. Blocks.
///
/// # Errors
/// The store cannot be opened.
pub fn build(options: Options) -> Result<Hpo, storage::Error> {
    let store = storage::Store::open(&options.database)?.synced(options.sync_all);
    Ok(Hpo { options, store, snapshots: None, after_trials: AfterTrials::default() })
}

/// The check of `sweep` jobs before they are created, and of the jobs of their trials; fields are told as `spec.sweep.FIELD`.
pub fn validator() -> Validator {
    Arc::new(|spec, checks| {
        let Some(Kind::Sweep(sweep)) = &spec.kind else { return vec![violation("spec", "is no sweep")] };
        let found = sweep::validate(sweep, &|trial| checks.check(trial).unwrap_or_default()).err().unwrap_or_default();
        found.into_iter().map(|v| violation(format!("spec.sweep.{}", v.field), v.description)).collect()
    })
}

impl Hpo {
    /// The study store.
    pub fn store(&self) -> &storage::Store {
        &self.store
    }

    /// Asks for a copy of the store after each trial.
    #[must_use]
    pub fn with_snapshots(mut self, snapshots: Snapshots) -> Self {
        self.snapshots = Some(snapshots);
        self.after_trials = AfterTrials::new(self.hook());
        self
    }

    /// The gRPC service, with the job service behind `connection`.
    pub fn grpc_service(&self, connection: Connection) -> HpoServiceServer<service::HpoApi> {
        let jobs = JobClient::new(connection, self.options.patience);
        service::HpoApi::new(self.store.clone(), self.after_trials.clone()).with_jobs(jobs).into_service()
    }

    /// Optuna's storage proxy over the same studies.
    pub fn optuna_storage(&self) -> optuna::OptunaStorage {
        let storage = optuna::OptunaStorage::new(self.store.clone(), self.options.trial_patience);
        storage.after_trials(self.after_trials.clone())
    }

    /// Ends the trials that outlived their sweeps, until the drain begins.
    pub async fn end_orphans(self, connection: Connection, drain: Drain) {
        self.runner(connection).end_orphans(drain).await;
    }

    fn runner(&self, connection: Connection) -> Runner {
        // The jobs of its trials are synced: a trial that is lost would leave one that nobody knows.
        let runner = Runner::new(self.store.clone().synced(true), connection, self.options.patience);
        match self.hook() {
            Some(hook) => runner.after_trial(hook),
            None => runner,
        }
    }

    /// What asks for a copy of the store.
    fn hook(&self) -> Option<StudyHook> {
        let snapshots = self.snapshots.clone()?;
        Some(Arc::new(move || snapshots.changed()))
    }

    /// Claims and executes sweep jobs of the server behind `connection` until the drain begins.
    pub async fn work(self, connection: Connection, drain: Drain) {
        let runner = self.runner(connection.clone());
        let options = ServeOptions {
            connection,
            kinds: vec!["sweep".into()],
            data_dir: self.options.data_dir.clone(),
            patience: self.options.patience,
        };
        serve(options, drain, move |context| {
            let runner = runner.clone();
            async move { runner.run(context).await }
        })
        .await;
    }
}

/// What copies of the study store are called in the backup location.
const BACKUP: &str = "databases/hpo";

/// Mounts the service on a host, with the worker that executes sweeps and the backup of the studies. A damaged study file is kept
/// aside and restored from its newest sound backup.
///
/// # Errors
/// The study store cannot be opened, or is damaged without a backup; an address is malformed.
pub async fn mount(host: Host) -> Result<Host, HostError> {
    let options = Options {
        database: host.database_url("hpo")?,
        data_dir: host.config().data_path("")?,
        patience: PATIENCE,
        trial_patience: optuna::Patience {
            lost: host.config().lease.trial.into(),
            idle: host.config().lease.idle_trial.into(),
            idle_after: optuna::Patience::IDLE_AFTER,
        },
        sync_all: host.config().hpo.sync == StudySync::All,
    };
    let mut limits = host.config().server_options()?;
    // Optuna's own server takes messages of any size, and a study is imported as a whole.
    limits.message_bytes = limits.message_bytes.max(MAX_MESSAGE);
    let failed = |message: String| HostError::Mount { service: "hpo", message };
    let policy = BackupPolicy::from_config(host.config()).map_err(|error| failed(chain(&error)))?;
    let recovered = policy.recover(BACKUP, &options.database).await.map_err(|error| failed(chain(&error)))?;
    if let Some(recovery) = &recovered {
        tracing::error!(
            damaged = %recovery.kept.display(),
            restored = %recovery.damage.path.display(),
            backup = recovery.entry.id(),
            age_seconds = recovery.age.as_secs(),
            "{recovery}"
        );
    }
    let built = tokio::task::spawn_blocking(move || build(options)).await;
    let hpo = built.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    if recovered.is_some() {
        hpo.store().skip_ids().await.map_err(|error| failed(error.to_string()))?;
    }
    let (snapshots, copying) = Snapshots::new(policy, BACKUP, hpo.store().db().clone(), host.drain());
    let hpo = hpo.with_snapshots(snapshots);
    let service = limited!(hpo.grpc_service(host.connection(Service::Hpo)?), limits);
    let optuna = hpo.optuna_storage();
    let left_behind = optuna.clone().free_left_behind(host.drain());
    let optuna = limited!(optuna.into_service(), limits);
    let orphans = hpo.clone().end_orphans(host.connection(Service::Hpo)?, host.drain());
    let work = hpo.work(host.connection(Service::Hpo)?, host.drain());
    Ok(host
        .kind("sweep", validator())
        .service(service)
        .service(optuna)
        .task("sweeps", work)
        .task("trials left behind", left_behind)
        .task("trials without sweeps", orphans)
        .task("study backup", copying))
}
