//! Ctrl-C and SIGTERM.

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::failure::{INTERRUPTED, TERMINATED};

/// What was asked of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM or a terminal that was closed.
    Terminate,
}

impl Signal {
    /// Exit code of a process that obeyed.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Interrupt => INTERRUPTED,
            Self::Terminate => TERMINATED,
        }
    }
}

/// Listens from the moment that it is made; the signals no longer end the process.
pub(crate) struct Interrupts {
    interrupt: Stream,
    terminate: Stream,
    hangup: Stream,
}

impl Interrupts {
    /// # Errors
    /// The system's, when no handler can be set.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.hangup.recv() => Signal::Terminate,
        }
    }
}
