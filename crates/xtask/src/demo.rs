//! `cargo xtask demo`: builds what the pipeline needs and runs it on real data.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, bail};

use crate::checks::{cargo, target_folder};
use crate::layout::Layout;
use crate::setup::{self, Wants};
use crate::{pip, process};

/// Packages whose programs take part: the command line with the services, and the workers.
const PROGRAMS: [&str; 4] = ["quintet", "train-worker", "convert-svc", "bench-svc"];

/// What makes the pipeline short: every part of it runs, as little as possible of each.
const SHORT: [&str; 6] = [
    "data=../.runtime/data/usaddress/short",
    "trials=2",
    "sweep_epochs=1",
    "final_epochs=2",
    "runs=5",
    "max_f1_loss=0.2",
];

pub(crate) fn run(layout: &Layout, short: bool, json: Option<&Path>, args: &[String]) -> Result<ExitCode> {
    setup::run(layout, Wants { demo: true, ..Wants::default() })?;
    let mut build = cargo(layout, &["build", "--locked"]);
    for program in PROGRAMS {
        build.args(["--package", program]);
    }
    if !process::status(&mut build)?.success() {
        bail!("{} failed", process::shown(&build));
    }
    // The pipeline runs in the root of the workspace; the file is meant from where the user is.
    let json = json.map(std::path::absolute).transpose().context("cannot tell where the results are to go")?;
    process::status(quintet(layout, short, json.as_deref())?.args(args)).map(exit_code)
}

/// The short pipeline with nothing left over from before, by programs that are already built.
pub(crate) fn short(layout: &Layout) -> Result<ExitStatus> {
    pip::remove(&data_dir(layout, true))?;
    process::status(&mut quintet(layout, true, Some(&short_results(layout)))?)
}

/// Where `short` leaves its results.
pub(crate) fn short_results(layout: &Layout) -> PathBuf {
    data_dir(layout, true).join("results.json")
}

fn data_dir(layout: &Layout, short: bool) -> PathBuf {
    layout.runtime().join(if short { "demo-short" } else { "demo" })
}

fn quintet(layout: &Layout, short: bool, json: Option<&Path>) -> Result<Command> {
    let mut command = Command::new(target_folder()?.join("debug/quintet"));
    command.current_dir(layout.root()).args(["run", "demo/pipeline.yaml", "--data-dir"]).arg(data_dir(layout, short));
    if short {
        for set in SHORT {
            command.args(["--set", set]);
        }
    }
    if let Some(json) = json {
        command.arg("--json").arg(json);
    }
    layout.environment(&mut command);
    Ok(command)
}

/// The program's own exit status; one that a signal ended gets 128 and the signal, as a shell gives it.
fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
