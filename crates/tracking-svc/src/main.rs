//! The tracking service's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime_core::host::main(runtime_core::config::Service::Tracking, async |host| tracking_svc::mount(host).await)
}
