//! The conversion service's program: the service, and the worker that converts.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use runtime_core::{
    config::{ConfigArgs, Service},
    host,
    worker::{LaunchOptions, run_launched},
};

#[derive(Parser)]
#[command(version, about = "Converts HF checkpoints to verified ONNX models", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (what happens without a command, too)
    Serve(ConfigArgs),
    /// Run one attempt of a conversion (started by a server)
    Worker(LaunchOptions),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.config)) {
        Command::Serve(config) => host::run(Service::Convert, &config, async |host| convert_svc::service::mount(host)),
        Command::Worker(options) => run_launched(options, convert_svc::worker::run),
    }
}
