//! Runs a command: its output is the job's log, what it logs to tracking becomes the job's metrics.

use std::{
    collections::{BTreeMap, HashMap},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use quintet_proto::v1::{
    CommandSpec, Directive, MetricPoint, Progress, ReadMetricsRequest, command_input::Source, job_spec,
    tracking_service_client::TrackingServiceClient,
};
use tokio::{io::AsyncReadExt as _, process::Command};
use tonic::Status;

use super::{
    metrics_file,
    placeholders::{self, Filled, Kind, substitute},
};
use crate::{
    client::{self, Connection},
    config::Secret,
    status::ErrorReason,
    tracker::RunWriter,
    worker::{Context, Done, Failure, WorkResult, environment},
};

/// How often the metrics that the program has logged are read.
const METRICS_INTERVAL: Duration = Duration::from_millis(300);
/// Time that the program has to end after SIGTERM.
const STOP_GRACE: Duration = Duration::from_secs(8);

/// Runs the command of a job; an engine for [`crate::worker::run_launched`].
///
/// # Errors
/// The command cannot be started or ends with a non-zero status, or a required metric is missing.
pub async fn run(context: &Context) -> WorkResult {
    let Some(job_spec::Kind::Command(spec)) = context.spec().kind else {
        return Err(Failure::user(ErrorReason::InvalidField, "the job is not a command"));
    };
    let command = fill_in(context, &spec).await?;
    let folder = working_dir(context, &spec)?;
    let mut metrics = Metrics::open(context).await?;
    context.log(format!("$ {}", command.shown));
    let mut child = start(context, &spec, &command, &folder)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let output = (child.stdout.take(), child.stderr.take());
    let copying = async {
        tokio::join!(copy(context, output.0), copy(context, output.1));
    };
    let waiting = async {
        let mut stop_sent = false;
        loop {
            tokio::select! {
                status = child.wait() => return (status, stop_sent),
                () = tokio::time::sleep(METRICS_INTERVAL) => metrics.forward(context).await,
                directive = context.stop_requested(), if !stop_sent => {
                    context.log(format!("stopping the program: {}", directive.as_str_name()));
                    stop_sent = true;
                    stop(group).await;
                }
            }
        }
    };
    let ended = async {
        let ended = waiting.await;
        // Whatever the program left running would go on writing, and holds the pipes.
        signal(group, Signal::SIGKILL);
        ended
    };
    let ((status, stopped), ()) = tokio::join!(ended, copying);
    let status = status.map_err(|error| Failure::infrastructure(ErrorReason::WorkerCrashed, error))?;
    metrics.forward(context).await;
    let mut values = metrics.latest;
    if stopped && context.directive() != Directive::Continue {
        return Ok(Done { metrics: values, report: serde_json::Value::Null, stopped: true });
    }
    // What it has logged tells what it has cost, for example.
    check(status)
        .map_err(|failure| failure.leaving(Done { metrics: values.clone(), stopped: true, ..Done::default() }))?;
    if !spec.metrics_file.is_empty() {
        values.extend(metrics_file::read(&folder.join(&spec.metrics_file))?);
    }
    if let Some(missing) = spec.required_metrics.iter().find(|name| !values.contains_key(*name)) {
        let logged: Vec<&str> = values.keys().map(String::as_str).collect();
        let logged = if logged.is_empty() { "none".to_owned() } else { logged.join(", ") };
        let text = format!("the program ended well but did not log the metric {missing:?}; it logged {logged}");
        return Err(Failure::user(ErrorReason::MetricMissing, text));
    }
    context.progress(Progress { done: 1.0, total: 1.0, unit: "programs".into(), ..Progress::default() });
    let report = serde_json::json!({ "command": command.shown, "metrics": values, "parameters": spec.parameters });
    Ok(Done { metrics: values, report, stopped: false })
}

async fn fill_in(context: &Context, spec: &CommandSpec) -> Result<Filled, Failure> {
    let mut inputs = HashMap::new();
    for (name, input) in &spec.inputs {
        let value = match &input.source {
            Some(Source::Uri(uri)) => {
                let path = context.fetch_async(&format!("spec.command.inputs.{name}"), uri).await?;
                path.display().to_string()
            }
            Some(Source::Literal(text)) => text.clone(),
            None => continue,
        };
        inputs.insert(name.clone(), value);
    }
    let mut outputs = HashMap::new();
    for name in &spec.outputs {
        outputs.insert(name.clone(), context.output_dir(name)?.display().to_string());
    }
    let filled = substitute(&spec.command, |placeholder| match placeholder.kind {
        Kind::Inputs => inputs.get(&placeholder.name).cloned(),
        Kind::Outputs => outputs.get(&placeholder.name).cloned(),
        Kind::SearchSpace => spec.parameters.get(&placeholder.name).cloned(),
    });
    filled.map_err(|error| {
        let reason = match &error {
            placeholders::Error::Verbatim(_) => ErrorReason::BadInput,
            _ => ErrorReason::UndeclaredReference,
        };
        Failure::user(reason, format!("spec.command.command: {error}"))
    })
}

fn working_dir(context: &Context, spec: &CommandSpec) -> Result<PathBuf, Failure> {
    if spec.working_dir.is_empty() {
        let path = context.work_dir().join("run");
        return std::fs::create_dir_all(&path).map(|()| path.clone()).map_err(|error| {
            Failure::infrastructure(ErrorReason::Unavailable, format!("{}: {error}", path.display()))
        });
    }
    let path = PathBuf::from(&spec.working_dir);
    if path.is_dir() {
        Ok(path)
    } else {
        let text = format!("spec.command.working_dir: {} is not a folder", path.display());
        Err(Failure::user(ErrorReason::BadInput, text))
    }
}

fn start(
    context: &Context,
    spec: &CommandSpec,
    filled: &Filled,
    folder: &PathBuf,
) -> Result<tokio::process::Child, Failure> {
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(&filled.command)
        .current_dir(folder)
        .env_remove(environment::TOKEN)
        .env("PYTHONUNBUFFERED", "1")
        .env("MLFLOW_TRACKING_URI", context.tracking_uri())
        .env("MLFLOW_RUN_ID", &context.job().uid)
        .env("MLFLOW_DISABLE_TELEMETRY", "true")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Ok(token) = std::env::var(environment::TOKEN) {
        command.env("MLFLOW_TRACKING_TOKEN", token);
    }
    if !context.job().experiment.is_empty() {
        command.env("MLFLOW_EXPERIMENT_NAME", &context.job().experiment);
    }
    command.envs(&spec.environment).envs(filled.variables.iter().map(|(name, value)| (name, value)));
    // SAFETY: prctl is async-signal-safe, and nothing else runs between fork and exec.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        });
    }
    command.spawn().map_err(|error| Failure::infrastructure(ErrorReason::WorkerCrashed, format!("/bin/sh: {error}")))
}

async fn copy(context: &Context, from: Option<impl tokio::io::AsyncRead + Unpin>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 8192];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        context.log_bytes(&buffer[..read]);
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // It may have ended by itself.
        let _ = killpg(group, signal);
    }
}

async fn stop(group: Option<Pid>) {
    signal(group, Signal::SIGTERM);
    tokio::spawn(async move {
        tokio::time::sleep(STOP_GRACE).await;
        signal(group, Signal::SIGKILL);
    });
}

fn check(status: ExitStatus) -> Result<(), Failure> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => {
            Err(Failure::user(ErrorReason::CommandFailed, format!("the program ended with status {code}")))
        }
        (None, Some(9)) => Err(Failure::infrastructure(ErrorReason::OutOfMemory, "the program was killed (SIGKILL)")),
        (None, signal) => {
            let signal = signal.unwrap_or_default();
            Err(Failure::user(ErrorReason::CommandFailed, format!("the program was ended by signal {signal}")))
        }
    }
}

/// Reads what the program logs to its tracking run and reports it as the attempt's metrics.
struct Metrics {
    client: TrackingServiceClient<Connection>,
    run_id: String,
    position: i64,
    latest: BTreeMap<String, f64>,
}

impl Metrics {
    async fn open(context: &Context) -> Result<Self, Failure> {
        let unreachable = |status: Status| {
            Failure::infrastructure(
                ErrorReason::Unavailable,
                format!("tracking at {}: {status}", context.tracking_uri()),
            )
        };
        let token = std::env::var(environment::TOKEN).ok().map(Secret::new);
        let connection = client::connect(context.tracking_uri(), token.as_ref())
            .map_err(|error| Failure::infrastructure(ErrorReason::Unavailable, error))?;
        let writer = RunWriter::new(connection);
        // The run is there before the program asks for it.
        writer.ensure_run(context.job()).await.map_err(unreachable)?;
        let mut metrics =
            Self { client: writer.client(), run_id: context.job().uid.clone(), position: 0, latest: BTreeMap::new() };
        // What an earlier attempt has logged is not this one's.
        loop {
            let (points, position) = metrics.read().await.map_err(unreachable)?;
            metrics.position = position;
            if points.is_empty() {
                break;
            }
        }
        Ok(metrics)
    }

    async fn read(&mut self) -> Result<(Vec<MetricPoint>, i64), Status> {
        let request = ReadMetricsRequest { run_id: self.run_id.clone(), key: String::new(), after: self.position };
        let answer = self.client.read_metrics(request).await?.into_inner();
        Ok((answer.metrics, answer.position))
    }

    async fn forward(&mut self, context: &Context) {
        match self.read().await {
            Ok((points, position)) => {
                self.position = position;
                for point in points {
                    // With its own time it is the very point that tracking has already; with another one tracking
                    // would keep it as a second point, which would be read here again.
                    context.metric_at(&point.key, point.value, point.step, point.timestamp);
                    self.latest.insert(point.key, point.value);
                }
            }
            // The next reading brings them.
            Err(status) => tracing::debug!(%status, "metrics could not be read"),
        }
    }
}
