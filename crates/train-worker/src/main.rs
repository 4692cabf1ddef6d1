//! The training worker: `train-worker worker` runs one attempt of a job, `train-worker local` trains by a specification in a file,
//! without a server.
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use quintet_proto::v1::{PredictSpec, TrainSpec};
use runtime_core::worker::{LaunchOptions, run_launched};
use train_worker::{
    DeviceChoice, Directive, Observer, PredictRequest, TrainRequest, device, predict,
    probe::{self, Steps},
    train, worker,
};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one attempt of a `train` or `predict` job (started by the service)
    Worker(LaunchOptions),
    /// Train by a specification in a file and print the report as JSON
    Local(Local),
    /// Write what a checkpoint computes of given rows, for comparisons with other programs
    #[command(hide = true)]
    Probe(Probe),
    /// Predict on the texts of a file and write `predictions.jsonl`
    Predict(Predict),
}

#[derive(clap::Args)]
struct Local {
    /// `TrainSpec` as JSON; inputs are local paths
    #[arg(long)]
    spec: PathBuf,
    /// Folder for `checkpoint`, `evaluation` and the state to resume from
    #[arg(long)]
    out: PathBuf,
    /// Threads on the processor; 0 means all cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Where to train
    #[arg(long, value_enum, default_value = "auto")]
    device: Place,
    /// GPUs that share the rows of each step; 0 means all that can be seen
    #[arg(long, default_value_t = 0)]
    devices: usize,
    /// Keep a state to resume from when so many seconds of work would be lost
    #[arg(long, default_value_t = 20.0)]
    resume_every: f64,
}

#[derive(clap::Args)]
struct Probe {
    /// Checkpoint folder with a head
    #[arg(long)]
    checkpoint: PathBuf,
    /// Safetensors file of `input_ids`, `attention_mask`, `token_type_ids` (optional) and `labels`
    #[arg(long)]
    inputs: PathBuf,
    /// New folder for `probe.safetensors`, `leaves.json`, `checkpoint` and `trained`
    #[arg(long)]
    out: PathBuf,
    /// Steps of AdamW
    #[arg(long, default_value_t = 3)]
    steps: usize,
    /// Learning rate of each step
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f64,
    /// Decay of the weights that decay
    #[arg(long, default_value_t = 0.1)]
    weight_decay: f64,
    /// Norm that gradients are cut to; 0 means not at all
    #[arg(long, default_value_t = 0.5)]
    max_grad_norm: f64,
}

#[derive(clap::Args)]
struct Predict {
    /// `PredictSpec` as JSON; inputs are local paths
    #[arg(long)]
    spec: PathBuf,
    /// Folder for `predictions.jsonl` and, until all is done, the results to go on from
    #[arg(long)]
    out: PathBuf,
    /// Threads on the processor; 0 means all cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    device: Place,
}

#[derive(Clone, Copy, ValueEnum)]
enum Place {
    Auto,
    Cpu,
    Cuda,
}

impl From<Place> for DeviceChoice {
    fn from(place: Place) -> Self {
        match place {
            Place::Auto => Self::Auto,
            Place::Cpu => Self::Cpu,
            Place::Cuda => Self::Cuda,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = device::wait_passively() {
        eprintln!("train-worker: cannot start anew with OMP_WAIT_POLICY=PASSIVE: {error}");
    }
    let done = match cli.command {
        Command::Worker(options) => return run_launched(options, worker::run),
        Command::Local(options) => local(&options),
        Command::Probe(options) => probe(&options),
        Command::Predict(options) => predict_locally(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("train-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn local(options: &Local) -> anyhow::Result<()> {
    let spec: TrainSpec = read_spec(&options.spec, "TrainSpec")?;
    if let Some(name) = [&spec.checkpoint, &spec.backbone].into_iter().find(|name| may_be_of_the_hub(name)) {
        anyhow::bail!(
            "`{name}` is no folder; of a model on the Hub `quintet hub download {name}` prints one for `checkpoint`"
        );
    }
    let resume = options.out.join("resume");
    let mut request = TrainRequest::from_spec(&spec, &options.out, Some(resume.clone()), options.threads)?;
    request.resume_every = Duration::try_from_secs_f64(options.resume_every).context("--resume-every")?;
    request.device = options.device.into();
    request.devices = options.devices;
    std::fs::create_dir_all(&options.out).with_context(|| format!("`{}`", options.out.display()))?;
    request.work_dir = Some(options.out.clone());
    let report = train(&request, &mut Terminal { shown: None })?;
    // The run is over: nothing is left to resume.
    let _ = std::fs::remove_dir_all(resume);
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn may_be_of_the_hub(name: &str) -> bool {
    !name.is_empty() && !Path::new(name).is_dir() && name.parse::<runtime_core::hub::Repo>().is_ok()
}

fn probe(options: &Probe) -> anyhow::Result<()> {
    let steps = Steps {
        count: options.steps,
        learning_rate: options.learning_rate,
        weight_decay: options.weight_decay,
        max_grad_norm: options.max_grad_norm,
    };
    Ok(probe::probe(&options.checkpoint, &options.inputs, &options.out, steps)?)
}

fn predict_locally(options: &Predict) -> anyhow::Result<()> {
    let spec: PredictSpec = read_spec(&options.spec, "PredictSpec")?;
    let resume = options.out.join("resume");
    let mut request = PredictRequest::from_spec(&spec, &options.out, &resume, options.threads)?;
    request.device = options.device.into();
    let summary = predict(&request, &mut Terminal { shown: None })?;
    // Empty now.
    let _ = std::fs::remove_dir(resume);
    println!("{}", serde_json::to_string_pretty(&summary)?);
    Ok(())
}

fn read_spec<T: serde::de::DeserializeOwned>(path: &Path, name: &str) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("`{}`", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("`{}` is not a {name}", path.display()))
}

/// Writes progress to the standard error output, a line every few seconds.
struct Terminal {
    shown: Option<Instant>,
}

impl Observer for Terminal {
    fn progress(&mut self, done: u64, total: u64, unit: &str, message: &str) {
        if self.shown.is_none_or(|at| at.elapsed() > Duration::from_secs(5)) {
            self.shown = Some(Instant::now());
            eprintln!("{done}/{total} {unit}: {message}");
        }
    }

    fn metric(&mut self, key: &str, value: f64, step: i64) {
        eprintln!("epoch {step}: {key} = {value:.6}");
    }

    fn directive(&mut self) -> Directive {
        Directive::Continue
    }

    fn log(&mut self, line: &str) {
        eprintln!("{line}");
    }
}
