//! `cargo xtask`: lays out the runtimes, runs the checks and the demo. Cargo is the only thing it takes for granted.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

mod archive;
mod checks;
mod conll;
mod demo;
mod layout;
mod needs;
mod pieces;
mod pip;
mod process;
mod progress;
mod setup;
mod summary;

use layout::Layout;

/// Set-up, tests and demo of the workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lay out `.runtime/`: libtorch, ONNX Runtime and what the tests need. Does only what is missing.
    Setup(SetupArgs),
    /// Set-up, then format, lints, all tests and one short run of the main job.
    Test(TestArgs),
    /// Set-up, then the demo: sweep, final training, conversion and benchmark on real data.
    Demo(DemoArgs),
}

#[derive(Args)]
struct SetupArgs {
    /// Take the whole of libtorch with the NVIDIA libraries (about 5 GB) rather than the CPU part.
    #[arg(long)]
    cuda: bool,
    /// Also the encoder and the data set of the demo.
    #[arg(long)]
    demo: bool,
    /// Also a Python environment with PyTorch and transformers, for the comparisons in `tests/peers`.
    #[arg(long)]
    peers: bool,
}

#[derive(Args)]
struct TestArgs {
    /// Also compare with PyTorch, transformers and ONNX Runtime in Python (`tests/peers`).
    #[arg(long)]
    peers: bool,
    /// Passed on to `cargo nextest run` (or to `cargo test`, where nextest is not installed).
    #[arg(last = true)]
    args: Vec<String>,
}

#[derive(Args)]
struct DemoArgs {
    /// Write the results to this file as one JSON document.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Two trials on a few addresses: shows that every part works, not how well.
    #[arg(long)]
    short: bool,
    /// Passed on to `quintet run`.
    #[arg(last = true)]
    args: Vec<String>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let layout = Layout::find()?;
    match command {
        Command::Setup(args) => {
            let wants = setup::Wants { cuda: args.cuda, tests: true, demo: args.demo, peers: args.peers };
            setup::run(&layout, wants)?;
            eprintln!("{} holds all that is needed", layout.runtime().display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Test(args) => checks::run(&layout, args.peers, &args.args),
        Command::Demo(args) => demo::run(&layout, args.short, args.json.as_deref(), &args.args),
    }
}
