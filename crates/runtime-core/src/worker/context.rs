//! What an engine sees of its attempt.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quintet_proto::v1::{Directive, ErrorClass, Job, JobError, JobSpec, Metric, Progress};
use tokio::sync::Notify;

use super::inputs::Inputs;
use crate::{
    jobs::inputs::Location,
    jobs::model::{RESUME_FROM, timestamp, uid_of},
    jobs::{Clock as _, SystemClock},
    status::ErrorReason,
};

/// Why an attempt failed, in the form that decides what becomes of the job.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The reason that the user and the retry policy see.
    pub reason: ErrorReason,
    /// What happened, with the place.
    pub message: String,
    /// Who has to act.
    pub class: ErrorClass,
    /// What can be used nevertheless.
    pub(super) left: Option<Box<Done>>,
}

impl Failure {
    /// The attempt failed, and these have to act.
    pub fn new(class: ErrorClass, reason: ErrorReason, message: impl fmt::Display) -> Self {
        Self { reason, message: message.to_string(), class, left: None }
    }

    /// The user has to act; the attempt is not repeated.
    pub fn user(reason: ErrorReason, message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::User, reason, message)
    }

    /// The machine, the network or the store failed; the attempt is repeated.
    pub fn infrastructure(reason: ErrorReason, message: impl fmt::Display) -> Self {
        Self::new(ErrorClass::Infrastructure, reason, message)
    }

    /// The attempt leaves what it has put into its output folders, and this.
    #[must_use]
    pub fn leaving(mut self, left: Done) -> Self {
        self.left = Some(Box::new(left));
        self
    }

    pub(crate) fn into_error(self, attempt: i32, log_tail: String) -> JobError {
        JobError {
            reason: self.reason.as_str().into(),
            message: self.message,
            class: self.class.into(),
            attempt,
            log_tail,
            time: Some(timestamp(SystemClock.now())),
        }
    }
}

/// What an engine leaves when it is done: metrics and the report; folders come from [`Context::output_dir`].
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// Final values by name.
    pub metrics: BTreeMap<String, f64>,
    /// The document of the result: a JSON object.
    pub report: serde_json::Value,
    /// The engine stopped because it was told to.
    pub stopped: bool,
}

/// What an engine returns.
pub type WorkResult = Result<Done, Failure>;

/// What the lease keeper sends with its next heartbeat.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) progress: Option<Progress>,
    pub(super) metrics: Vec<Metric>,
    pub(super) log: Vec<u8>,
    pub(super) log_offset: i64,
    pub(super) finalizing: bool,
}

/// Bytes of log repeated in the error of a failed attempt.
const TAIL: usize = 4096;
/// Bytes of log that wait for a heartbeat before one is sent at once.
const LOG_FLUSH: usize = 64 * 1024;

pub(super) struct Shared {
    pub(super) job: Job,
    pub(super) cpus: usize,
    pub(super) tracking_uri: String,
    work_dir: PathBuf,
    job_dir: PathBuf,
    pub(super) inputs: Inputs,
    outbox: Mutex<Outbox>,
    resolved: Mutex<BTreeMap<String, String>>,
    tail: Mutex<Vec<u8>>,
    directive: tokio::sync::watch::Sender<Directive>,
    pub(super) wake: Notify,
}

/// The attempt as its engine sees it; clones share it.
#[derive(Clone)]
pub struct Context(pub(super) Arc<Shared>);

/// Where an attempt works.
pub(super) struct Folders {
    pub(super) work_dir: PathBuf,
    pub(super) job_dir: PathBuf,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    pub(super) fn new(job: Job, cpus: usize, tracking_uri: String, folders: Folders, inputs: Inputs) -> Self {
        Self(Arc::new(Shared {
            job,
            cpus,
            tracking_uri,
            work_dir: folders.work_dir,
            job_dir: folders.job_dir,
            inputs,
            outbox: Mutex::default(),
            resolved: Mutex::default(),
            tail: Mutex::default(),
            directive: tokio::sync::watch::channel(Directive::Continue).0,
            wake: Notify::new(),
        }))
    }

    /// The job as it was claimed.
    pub fn job(&self) -> &Job {
        &self.0.job
    }

    /// The specification; empty when the job has none.
    pub fn spec(&self) -> JobSpec {
        self.0.job.spec.clone().unwrap_or_default()
    }

    /// CPUs that the attempt may use: its thread count.
    pub fn cpus(&self) -> usize {
        self.0.cpus
    }

    /// Address of the tracking server, for programs that log by themselves.
    pub fn tracking_uri(&self) -> &str {
        &self.0.tracking_uri
    }

    /// The attempt's own folder, empty at its start and deleted after it.
    pub fn work_dir(&self) -> &Path {
        &self.0.work_dir
    }

    /// A folder that later attempts of the job find again: for resume files.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn resume_dir(&self) -> Result<PathBuf, Failure> {
        let path = self.0.job_dir.join("resume");
        fs::create_dir_all(&path).map_err(|error| io_failure(&path, &error))?;
        if let Some(from) = self.0.job.labels.get(RESUME_FROM) {
            let uid = uid_of(from).unwrap_or(from);
            match crate::kept::take(&self.0.job_dir, uid) {
                Ok(true) => self.log(format!("goes on with what {from} saved")),
                Ok(false) => self.log(format!("what {from} saved is not here, or taken up already")),
                Err(error) => return Err(io_failure(&path, &error)),
            }
        }
        Ok(path)
    }

    /// The folder of an output; what is in it when the engine is done is published under this name.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn output_dir(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.outputs_root().join(name);
        fs::create_dir_all(&path).map_err(|error| io_failure(&path, &error))?;
        Ok(path)
    }

    pub(super) fn outputs_root(&self) -> PathBuf {
        self.0.work_dir.join("outputs")
    }

    /// Brings an input to this machine, verified, and returns its path; `field` names it in errors.
    ///
    /// # Errors
    /// It does not exist, cannot be read, or does not have the recorded digest.
    pub async fn fetch_async(&self, field: &str, uri: &str) -> Result<PathBuf, Failure> {
        match Location::parse(uri) {
            Ok(Location::Hub(repo)) => super::hub::fetch(self, field, &repo).await,
            _ => self.0.inputs.fetch(field, uri).await,
        }
    }

    /// Remembers which content an input stood for; the report of the outputs lists it under `inputs`.
    pub(super) fn resolved(&self, field: &str, uri: String) {
        lock(&self.0.resolved).insert(field.to_owned(), uri);
    }

    /// A report with the inputs that were resolved.
    pub(super) fn with_inputs(&self, mut report: serde_json::Value) -> serde_json::Value {
        let resolved = lock(&self.0.resolved);
        if !resolved.is_empty() {
            if report.is_null() {
                report = serde_json::Value::Object(serde_json::Map::new());
            }
            if let Some(report) = report.as_object_mut() {
                let inputs = resolved.iter().map(|(field, uri)| (field.clone(), serde_json::Value::from(uri.clone())));
                report.insert("inputs".into(), inputs.collect());
            }
        }
        report
    }

    /// [`Context::fetch_async`] for engines that block. Must not be called from async code.
    ///
    /// # Errors
    /// As there.
    pub fn fetch(&self, field: &str, uri: &str) -> Result<PathBuf, Failure> {
        self.block_on(self.fetch_async(field, uri))
    }

    /// Runs async code to its end, for engines that block. Must not be called from async code.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.inputs.runtime().block_on(future)
    }

    /// The client of the server's jobs, for work that has child jobs.
    pub fn jobs(&self) -> crate::client::JobClient {
        self.0.inputs.jobs.clone()
    }

    /// Tells how far the work is; the last call before a heartbeat counts.
    pub fn progress(&self, progress: Progress) {
        lock(&self.0.outbox).progress = Some(progress);
    }

    /// Reports a metric; a heartbeat carries it at once.
    pub fn metric(&self, key: &str, value: f64, step: i64) {
        self.metric_at(key, value, step, SystemClock.now());
    }

    /// Reports a metric that was measured at another time than now, in milliseconds since 1970.
    pub fn metric_at(&self, key: &str, value: f64, step: i64, time: i64) {
        let time = Some(timestamp(time));
        lock(&self.0.outbox).metrics.push(Metric { key: key.into(), value, step, time });
        self.0.wake.notify_one();
    }

    /// Adds a line to the job's log.
    pub fn log(&self, line: impl fmt::Display) {
        self.log_bytes(format!("{line}\n").as_bytes());
    }

    /// Adds bytes to the job's log as they are.
    pub fn log_bytes(&self, bytes: &[u8]) {
        let mut tail = lock(&self.0.tail);
        tail.extend_from_slice(bytes);
        let excess = tail.len().saturating_sub(TAIL);
        tail.drain(..excess);
        drop(tail);
        let mut outbox = lock(&self.0.outbox);
        outbox.log.extend_from_slice(bytes);
        if outbox.log.len() > LOG_FLUSH {
            self.0.wake.notify_one();
        }
    }

    /// The last lines of the log.
    pub(super) fn log_tail(&self) -> String {
        String::from_utf8_lossy(&lock(&self.0.tail)).into_owned()
    }

    /// What the attempt is asked to do. Anything but CONTINUE asks it to stop soon; after ABANDON nothing may be written.
    pub fn directive(&self) -> Directive {
        *self.0.directive.borrow()
    }

    /// Resolves once the attempt is asked to stop.
    pub async fn stop_requested(&self) -> Directive {
        let mut directive = self.0.directive.subscribe();
        directive.wait_for(|directive| *directive != Directive::Continue).await.map_or(Directive::Abandon, |d| *d)
    }

    /// Never takes back an ABANDON, nor a CANCEL for a PRUNE.
    pub(super) fn set_directive(&self, directive: Directive) {
        self.0.directive.send_if_modified(|current| {
            let stronger = directive as i32 > *current as i32;
            if stronger {
                *current = directive;
            }
            stronger
        });
    }

    pub(super) fn take_outbox(&self) -> Outbox {
        let mut outbox = lock(&self.0.outbox);
        let log_offset = outbox.log_offset;
        let taken = Outbox {
            progress: outbox.progress.take(),
            metrics: std::mem::take(&mut outbox.metrics),
            log: std::mem::take(&mut outbox.log),
            log_offset,
            finalizing: outbox.finalizing,
        };
        outbox.log_offset += taken.log.len() as i64;
        taken
    }

    /// Puts back what could not be sent, before what has come since.
    pub(super) fn put_back(&self, mut unsent: Outbox) {
        let mut outbox = lock(&self.0.outbox);
        outbox.log_offset = unsent.log_offset;
        unsent.log.append(&mut outbox.log);
        outbox.log = unsent.log;
        unsent.metrics.append(&mut outbox.metrics);
        outbox.metrics = unsent.metrics;
        if outbox.progress.is_none() {
            outbox.progress = unsent.progress;
        }
    }

    pub(super) fn finalizing(&self) {
        lock(&self.0.outbox).finalizing = true;
        self.0.wake.notify_one();
    }
}

/// An error of the local file system: a full disk is named as such.
pub(crate) fn io_failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure::infrastructure(ErrorReason::of_io(error), format!("{}: {error}", path.display()))
}
