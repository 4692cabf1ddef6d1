//! SIGTERM and SIGINT: the first begins to drain, the second exits at once.
use tokio::signal::unix::{SignalKind, signal};

use super::Drain;

/// Exit status after a second signal, less the signal's number (the shell's convention).
const SIGNALLED: i32 = 128;

/// Listens for SIGTERM and SIGINT until the process ends. Must be called inside a tokio runtime.
///
/// # Errors
/// When the system refuses to install a handler.
pub fn install(drain: Drain) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            let (name, number) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", 15),
                _ = interrupt.recv() => ("SIGINT", 2),
            };
            if drain.is_draining() {
                tracing::warn!(signal = name, "second signal: exit at once");
                std::process::exit(SIGNALLED + number);
            }
            tracing::info!(signal = name, "shutting down; a second signal exits at once");
            drain.begin();
        }
    });
    Ok(())
}
