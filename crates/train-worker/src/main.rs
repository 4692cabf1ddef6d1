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
use train_worker::{DeviceChoice, Directive, Observer, PredictRequest, TrainRequest, device, predict, train, worker};

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
    let resume = options.out.join("resume");
    let mut request = TrainRequest::from_spec(&spec, &options.out, Some(resume.clone()), options.threads)?;
    request.device = options.device.into();
    let report = train(&request, &mut Terminal { shown: None })?;
    // The run is over: nothing is left to resume.
    let _ = std::fs::remove_dir_all(resume);
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
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
