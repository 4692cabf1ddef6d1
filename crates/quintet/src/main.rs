//! `quintet`: the server, pipelines and jobs on the command line.

mod backup;
mod cli;
mod connect;
mod data;
mod failure;
mod hpo;
mod hub;
mod jobs;
mod pipeline;
mod predict;
mod report;
mod run;
mod serve;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::{
    cli::{Cli, Command},
    failure::Failure,
};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => {
            serve::serve(&args).map_err(|error| Failure { code: error.exit_code(), message: error.to_string() })
        }
        Command::Worker(options) => return worker::run(options),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "quintet", &mut script);
            jobs::write(&String::from_utf8_lossy(&script))
        }
        Command::Run(args) => block_on(run::run(args)),
        Command::Predict(args) => block_on(predict::predict(*args)),
        Command::Jobs(command) => block_on(jobs::jobs(command)),
        Command::Hpo(command) => block_on(hpo::hpo(command)),
        Command::Hub(command) => block_on(hub::hub(command)),
        Command::Data(command) => data::data(command),
        Command::Backup(command) => block_on(backup::backup(command)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(Box::pin(work))
}
