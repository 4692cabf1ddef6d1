//! Starts a worker process for each job that fits the machine's slots, and sees to its end.
//!
//! The work runs in processes of its own, so that an abort of an engine, an out-of-memory kill or a hang takes down one
//! attempt. A worker dies with the server that started it, and whatever its programs leave behind is swept by the mark of
//! their environment.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    io::Read,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use quintet_proto::v1::{ErrorClass, Job, JobEvent, JobState, job_event::Event};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::{
    config::Secret,
    jobs::{
        Jobs, LOCAL_WORKER,
        engine::{ClaimFilter, Outcome, Report, Slots},
        model::{is_leased, is_terminal, job_error, job_kind},
    },
    server::Drain,
    status::ErrorReason,
    worker::environment,
};

/// A worker program and the arguments that make it one.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file to run.
    pub path: PathBuf,
    /// Such as `worker`.
    pub args: Vec<String>,
    /// What to do when the file is missing.
    pub remedy: String,
}

/// Options of a supervisor.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program of each kind of job.
    pub programs: BTreeMap<&'static str, Program>,
    /// CPUs to give to attempts.
    pub cpus: i32,
    /// GPUs to give to attempts, by their numbers.
    pub gpus: Vec<i32>,
    /// Folder under which attempts work and inputs are cached.
    pub data_dir: PathBuf,
    /// Address that workers call.
    pub server: String,
    /// Token that workers show.
    pub token: Option<Secret>,
}

/// Bytes of a worker's standard error that its error repeats.
const TAIL: usize = 8 * 1024;
/// Time that a worker whose attempt is over has before it is killed.
const KILL_GRACE: Duration = Duration::from_secs(10);
/// Time that workers have to give their attempts back when the server shuts down.
const DRAIN_GRACE: Duration = Duration::from_secs(15);

struct Supervisor {
    jobs: Jobs,
    options: Options,
    spawner: std_mpsc::Sender<(Command, oneshot::Sender<std::io::Result<Child>>)>,
    drain: Drain,
}

/// What an attempt holds of the machine.
struct Held {
    cpus: i32,
    gpus: Vec<i32>,
}

/// Launches jobs until the drain begins, then waits for the workers to give theirs back.
pub async fn run(jobs: Jobs, options: Options, drain: Drain) {
    sweep(&options.data_dir.join("work"));
    let supervisor = Arc::new(Supervisor { jobs, spawner: start_spawner(), options, drain: drain.clone() });
    let (ended, mut endings) = mpsc::unbounded_channel::<Held>();
    let (mut cpus, mut gpus) = (supervisor.options.cpus, VecDeque::from(supervisor.options.gpus.clone()));
    let mut running = 0usize;
    let kinds: Vec<String> = supervisor.options.programs.keys().map(|kind| (*kind).to_owned()).collect();
    loop {
        let slots =
            Slots { cpus, gpus: i32::try_from(gpus.len()).unwrap_or(i32::MAX), total_cpus: supervisor.options.cpus };
        let filter = ClaimFilter {
            worker: format!("{LOCAL_WORKER}{}", std::process::id()),
            kinds: kinds.clone(),
            max: 16,
            launch: true,
            slots: Some(slots),
        };
        let mut freed = None;
        let look_again = async {
            tokio::select! {
                held = endings.recv() => freed = held,
                () = drain.begun() => {}
            }
        };
        let claimed = match cpus {
            0 => {
                look_again.await;
                Ok(Vec::new())
            }
            _ => supervisor.jobs.claim_until(filter, look_again).await,
        };
        match claimed {
            Ok(claimed) => {
                for job in claimed {
                    let (need, need_gpus) = slots.need(&job);
                    cpus -= need;
                    let held: Vec<i32> = (0..need_gpus).filter_map(|_| gpus.pop_front()).collect();
                    running += 1;
                    let (supervisor, ended) = (supervisor.clone(), ended.clone());
                    tokio::spawn(async move {
                        let held = Held { cpus: need, gpus: held };
                        supervisor.attempt(&job, &held).await;
                        // The loop ends only after every attempt has.
                        let _ = ended.send(held);
                    });
                }
            }
            Err(error) => {
                tracing::error!(%error, "no job can be claimed");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        if let Some(held) = freed {
            cpus += held.cpus;
            gpus.extend(held.gpus);
            running -= 1;
        }
        if drain.is_draining() {
            break;
        }
        metrics::gauge!("quintet_supervisor_running").set(running as f64);
    }
    while running > 0 && endings.recv().await.is_some() {
        running -= 1;
    }
}

/// Processes are started from one thread that lives as long as the server: a worker dies with the thread that started it.
fn start_spawner() -> std_mpsc::Sender<(Command, oneshot::Sender<std::io::Result<Child>>)> {
    let (sender, receiver) = std_mpsc::channel::<(Command, oneshot::Sender<std::io::Result<Child>>)>();
    std::thread::spawn(move || {
        for (mut command, reply) in receiver {
            // The attempt that asked is still there: it waits for this.
            let _ = reply.send(command.spawn());
        }
    });
    sender
}

impl Supervisor {
    async fn attempt(&self, job: &Job, held: &Held) {
        let job_dir = self.options.data_dir.join("work").join(&job.uid);
        let work_dir = job_dir.join(format!("attempt-{}", job.attempt));
        let mut events = self.jobs.subscribe();
        let failure = match self.start(job, held, &job_dir, &work_dir).await {
            Ok(child) => {
                let (status, tail) = self.accompany(job, child, &mut events).await;
                sweep(&work_dir);
                if self.drain.is_draining() {
                    // Told to end, it may have had no time to give its attempt back itself: that is no fault of it.
                    job_error(ErrorReason::WorkerCrashed, "the server was shut down", ErrorClass::Preemption)
                } else {
                    died(status, tail)
                }
            }
            Err(failure) => failure,
        };
        self.report(job, failure).await;
        remove(&work_dir);
        let now = self.jobs.get(&job.uid).await;
        let ended = now.as_ref().is_ok_and(|job| job.as_ref().is_none_or(|job| is_terminal(job.state())));
        if ended {
            let state = now.ok().flatten().map(|job| job.state());
            // A trial is never resumed by another job.
            if job.parent.is_empty()
                && matches!(state, Some(JobState::Failed | JobState::Cancelled))
                && let Err(error) = crate::kept::keep(&job_dir, &job.uid)
            {
                tracing::warn!(%error, job = job.name, "what the job could be resumed from is not kept");
            }
            remove(&job_dir);
        }
    }

    async fn start(
        &self,
        job: &Job,
        held: &Held,
        job_dir: &Path,
        work_dir: &Path,
    ) -> Result<Child, quintet_proto::v1::JobError> {
        let kind = job_kind(job);
        let missing = |text: String| job_error(ErrorReason::EngineMissing, text, ErrorClass::User);
        let program =
            self.options.programs.get(kind).ok_or_else(|| missing(format!("no program runs {kind} jobs here")))?;
        if !program.path.is_file() {
            return Err(missing(format!("{} is missing: {}", program.path.display(), program.remedy)));
        }
        let failed = |what: &str, error: std::io::Error| {
            job_error(ErrorReason::WorkerCrashed, format!("{what}: {error}"), ErrorClass::Infrastructure)
        };
        remove(work_dir);
        fs::create_dir_all(work_dir).map_err(|error| failed("the attempt's folder", error))?;
        let (reply, child) = oneshot::channel();
        let command = self.command(program, job, held, job_dir, work_dir);
        self.spawner
            .send((command, reply))
            .map_err(|_| failed("the spawning thread", std::io::ErrorKind::BrokenPipe.into()))?;
        let child = child.await.unwrap_or_else(|_| Err(std::io::ErrorKind::BrokenPipe.into()));
        child.map_err(|error| failed(&program.path.display().to_string(), error))
    }

    fn command(&self, program: &Program, job: &Job, held: &Held, job_dir: &Path, work_dir: &Path) -> Command {
        let mut command = Command::new(&program.path);
        let cpus = held.cpus.to_string();
        command
            .args(&program.args)
            .env(environment::SERVER, &self.options.server)
            .env(environment::JOB, &job.name)
            .env(environment::ATTEMPT, job.attempt.to_string())
            .env(environment::WORKER, &job.worker)
            .env(environment::WORK_DIR, work_dir)
            .env(environment::JOB_DIR, job_dir)
            .env(environment::CACHE_DIR, self.options.data_dir.join("cache"))
            .env(environment::CPUS, &cpus)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        // Busy waiting makes training 10 to 25 times slower when other processes use the same cores.
        for (name, value) in [("OMP_WAIT_POLICY", "PASSIVE"), ("OMP_NUM_THREADS", &cpus)] {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        if !self.options.gpus.is_empty() {
            let gpus: Vec<String> = held.gpus.iter().map(i32::to_string).collect();
            command.env("CUDA_VISIBLE_DEVICES", gpus.join(","));
        }
        if let Some(token) = &self.options.token {
            command.env(environment::TOKEN, token.expose());
        }
        if let Some(traceparent) = crate::telemetry::current_traceparent() {
            command.env("TRACEPARENT", traceparent);
        }
        // SAFETY: prctl is async-signal-safe, and nothing else runs between fork and exec.
        unsafe {
            command.pre_exec(|| {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                Ok(())
            });
        }
        command
    }

    /// Waits for the process; ends it when its attempt is over or the server shuts down.
    async fn accompany(
        &self,
        job: &Job,
        mut child: Child,
        events: &mut broadcast::Receiver<Arc<JobEvent>>,
    ) -> (std::io::Result<ExitStatus>, String) {
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let tail = Arc::new(Mutex::new(Vec::new()));
        let reader = child.stderr.take().map(|stderr| {
            let tail = tail.clone();
            std::thread::spawn(move || keep_tail(stderr, &tail))
        });
        let mut exit = tokio::task::spawn_blocking(move || child.wait());
        let over = async {
            tokio::select! {
                () = attempt_over(&self.jobs, job, events) => tokio::time::sleep(KILL_GRACE).await,
                () = self.drain.begun() => {
                    // The worker gives its attempt back.
                    let _ = killpg(group, Signal::SIGTERM);
                    tokio::time::sleep(DRAIN_GRACE).await;
                }
            }
        };
        let status = tokio::select! {
            status = &mut exit => status,
            () = over => {
                let _ = killpg(group, Signal::SIGKILL);
                exit.await
            }
        };
        if let Some(reader) = reader {
            // It ends with the last holder of the pipe; a program that was left behind must not hold the attempt.
            let joined = tokio::task::spawn_blocking(move || reader.join());
            let _ = tokio::time::timeout(Duration::from_secs(2), joined).await;
        }
        let tail = String::from_utf8_lossy(&tail.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
        (status.unwrap_or_else(|error| Err(std::io::Error::other(error))), tail)
    }

    /// An attempt that still holds its lease although its process has gone has failed.
    async fn report(&self, job: &Job, failure: quintet_proto::v1::JobError) {
        let report = Report { uid: job.uid.clone(), attempt: job.attempt, ..Report::default() };
        let attempt = job.attempt;
        let reported = self.jobs.run(move |engine, now| {
            let held = engine.get(&report.uid).is_some_and(|job| job.attempt == attempt && is_leased(job.state()));
            if held { engine.finish(report, Outcome::Failed(failure), now).map(drop) } else { Ok(()) }
        });
        match reported.await {
            Ok(Ok(())) => {}
            Ok(Err(rejection)) => tracing::warn!(%rejection, "the end of a worker was refused"),
            Err(error) => tracing::error!(%error, "the end of a worker could not be stored; its lease will run out"),
        }
    }
}

/// Resolves once the job has ended or another attempt of it has begun.
async fn attempt_over(jobs: &Jobs, job: &Job, events: &mut broadcast::Receiver<Arc<JobEvent>>) {
    let is_over = |now: &Job| is_terminal(now.state()) || now.attempt != job.attempt || !is_leased(now.state());
    loop {
        match events.recv().await {
            Ok(event) if event.job != job.name => {}
            Ok(event) => {
                if matches!(&event.event, Some(Event::Transition(now)) if is_over(now)) {
                    return;
                }
            }
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                if jobs.get(&job.uid).await.is_ok_and(|now| now.as_ref().is_none_or(is_over)) {
                    return;
                }
            }
        }
    }
}

fn died(status: std::io::Result<ExitStatus>, log_tail: String) -> quintet_proto::v1::JobError {
    let (reason, text) = match &status {
        Err(error) => (ErrorReason::WorkerCrashed, format!("the worker could not be waited for: {error}")),
        Ok(status) => match status.signal() {
            Some(9) => {
                (ErrorReason::OutOfMemory, "the worker was killed (SIGKILL), most often for its memory use".into())
            }
            Some(signal) => (ErrorReason::WorkerCrashed, format!("the worker was ended by signal {signal}")),
            None => {
                let code = status.code().unwrap_or_default();
                (
                    ErrorReason::WorkerCrashed,
                    format!("the worker ended with status {code} without reporting an outcome"),
                )
            }
        },
    };
    quintet_proto::v1::JobError { log_tail, ..job_error(reason, text, ErrorClass::Infrastructure) }
}

fn keep_tail(mut from: impl Read, tail: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 {
            return;
        }
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(&buffer[..read]);
        let excess = tail.len().saturating_sub(TAIL);
        tail.drain(..excess);
    }
}

fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a work folder could not be removed");
        }
        _ => {}
    }
}

/// Kills every process that works in or below `folder`: what a worker that was killed left behind.
fn sweep(folder: &Path) {
    let mark = format!("{}=", environment::WORK_DIR);
    let own = std::process::id();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()).filter(|pid| *pid != own);
        let Some(pid) = pid else { continue };
        let Ok(variables) = fs::read(entry.path().join("environ")) else { continue };
        let works_here = variables
            .split(|byte| *byte == 0)
            .filter_map(|variable| std::str::from_utf8(variable).ok()?.strip_prefix(&mark))
            .any(|at| Path::new(at).starts_with(folder));
        if works_here {
            // It may have ended by now.
            let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX)), Signal::SIGKILL);
        }
    }
}

/// The GPUs of this machine: the numbers of its NVIDIA devices.
pub fn detect_gpus() -> Vec<i32> {
    let mut gpus: Vec<i32> = fs::read_dir("/dev")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("nvidia")?.parse().ok())
        .collect();
    gpus.sort_unstable();
    gpus
}
