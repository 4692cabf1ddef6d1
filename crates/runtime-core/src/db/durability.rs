//! How durable a write is when it is answered, and where it may run.

use std::{fmt, time::Duration};

use tokio::runtime::{Handle, RuntimeFlavor};

/// What a write survives once it is answered.
///
/// Writes keep their order: whatever is lost, everything that was written after it is lost with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// The end of this process, however it ends. A power cut or a crash of the system may take back what was not synced yet:
    /// the next synced write syncs it, else it is [`SYNC_DELAY`] after the write on SQLite, and what PostgreSQL does with
    /// `synchronous_commit = off` there: three times its `wal_writer_delay` at most, 0.6 s by default.
    Committed,
    /// A power cut too: it is on the disk.
    #[default]
    Synced,
}

/// The longest time that a committed write to SQLite waits for its sync.
pub const SYNC_DELAY: Duration = Duration::from_millis(100);

/// Takes back what a request that could not be committed has left in memory.
pub(super) type Undo = Box<dyn FnOnce() + Send>;

/// How a request is run; by default synced and on the writing thread.
#[derive(Default)]
pub struct WriteOptions {
    /// What it survives once it is answered.
    pub durability: Durability,
    /// It takes a fraction of a millisecond, or says so by [`may_block`]: unless it has to be synced, it may run on the caller's
    /// thread when nobody else is writing. Two changes of threads take longer than most requests.
    pub quick: bool,
    /// For a caller that keeps in memory what it has written: runs when the request had succeeded and could not be committed, before
    /// anything else is written.
    pub undo: Option<Undo>,
}

impl fmt::Debug for WriteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteOptions").field("durability", &self.durability).field("quick", &self.quick).finish()
    }
}

/// Runs what may take long, or wait, in a request that may run on a thread of async tasks: they go on elsewhere.
pub fn may_block<T>(f: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(f),
        _ => f(),
    }
}
