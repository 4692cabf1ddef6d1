//! The sweep service's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime_core::host::main(runtime_core::config::Service::Hpo, async |host| hpo_svc::mount(host).await)
}
