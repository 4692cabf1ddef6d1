//! The benchmark service's program.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "Measures ONNX models")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure one model as told on standard input (started by a benchmark).
    #[command(hide = true)]
    Measure(bench_svc::measure::Arguments),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Measure(arguments) => match bench_svc::measure::run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("bench-svc measure: {error}");
                ExitCode::FAILURE
            }
        },
    }
}
