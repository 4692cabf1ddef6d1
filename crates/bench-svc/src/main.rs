//! The benchmark service's program: the service, the worker that runs a benchmark, and the process that measures a model.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use runtime_core::{
    config::{ConfigArgs, Service},
    host,
    worker::{LaunchOptions, run_launched},
};

#[derive(Parser)]
#[command(version, about = "Measures ONNX models", args_conflicts_with_subcommands = true)]
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
    /// Run one attempt of a benchmark (started by a server)
    Worker(LaunchOptions),
    /// Measure one model as told on standard input (started by a benchmark)
    #[command(hide = true)]
    Measure(bench_svc::measure::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.config)) {
        Command::Serve(config) => host::run(Service::Bench, &config, async |host| bench_svc::service::mount(host)),
        Command::Worker(options) => run_launched(options, bench_svc::worker::run),
        Command::Measure(arguments) => match bench_svc::measure::run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("bench-svc measure: {error}");
                ExitCode::FAILURE
            }
        },
    }
}
