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

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Child, ChildStdout, Command, Stdio},
    };

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    use super::*;
    use crate::server::{Server, ServerOptions};

    /// Set in the process that serves: `ends` when nothing holds it up, `hangs` when a task never finishes.
    const SERVES: &str = "QUINTET_TEST_SIGNALS";

    /// Signals are a whole process' matter, so this test runs again in one of its own.
    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_exits_at_once() {
        if let Ok(how) = std::env::var(SERVES) {
            return serve(&how).await;
        }
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let (mut child, mut lines) = start("ends");
            wait_for(&mut lines, "serving");
            kill(pid(&child), signal).unwrap();
            assert!(child.wait().unwrap().success(), "{signal} alone ends it well");

            let (mut child, mut lines) = start("hangs");
            wait_for(&mut lines, "serving");
            kill(pid(&child), signal).unwrap();
            wait_for(&mut lines, "draining");
            kill(pid(&child), signal).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(SIGNALLED + signal as i32));
        }
    }

    async fn serve(how: &str) {
        let server = Server::builder(ServerOptions::default());
        let (drain, hangs) = (server.drain(), how == "hangs");
        install(drain.clone()).unwrap();
        let task = async move {
            drain.begun().await;
            println!("draining");
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok(())
        };
        let handle = server.task("a task", task).start().await.unwrap();
        println!("serving");
        handle.wait().await.unwrap();
    }

    fn start(how: &str) -> (Child, BufReader<ChildStdout>) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "server::signals::tests::the_first_signal_drains_and_the_second_exits_at_once",
                "--nocapture",
            ])
            .env(SERVES, how)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        (child, lines)
    }

    /// Reads until the line; the end of the output before it fails the test.
    fn wait_for(lines: &mut BufReader<ChildStdout>, wanted: &str) {
        let mut line = String::new();
        // The test runner begins the first line with the name of the test.
        while !line.trim_end().ends_with(wanted) {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "`{wanted}` was never said");
        }
    }

    fn pid(child: &Child) -> Pid {
        Pid::from_raw(child.id().try_into().unwrap())
    }
}
