//! The signal that a server is on its way out, shared by everything that runs in it.
use tokio_util::sync::CancellationToken;

/// Tells every part of a process to finish; cloneable, one-way, without a deadline of its own.
///
/// A service holds a clone: long polls answer at once, streams end with [`crate::status::shutting_down`], and background
/// tasks leave their loops when [`Drain::begun`] resolves.
#[derive(Debug, Clone, Default)]
pub struct Drain(CancellationToken);

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to drain; a second call changes nothing.
    pub fn begin(&self) {
        self.0.cancel();
    }

    /// Whether it has begun.
    pub fn is_draining(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves once it has begun.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }

    /// A drain that begins with this one, or earlier on its own.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// The token inside, for libraries that take one.
    pub fn token(&self) -> &CancellationToken {
        &self.0
    }
}
