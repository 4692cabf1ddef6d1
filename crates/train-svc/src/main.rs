//! The training service's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime_core::host::main(runtime_core::config::Service::Train, async |host| train_svc::mount(host))
}
