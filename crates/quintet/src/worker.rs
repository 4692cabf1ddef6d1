//! `quintet worker`: runs one attempt of a command job; started by a server.

use std::process::ExitCode;

use runtime_core::{command, worker};

/// Claims and runs the attempt that the environment names.
pub(crate) fn run(options: worker::LaunchOptions) -> ExitCode {
    worker::run_launched(options, |context| context.block_on(command::run(context)))
}
