//! Syncs and empties the write-ahead log of a SQLite database beside its writer, so that no commit waits for it.
//!
//! SQLite empties the log inside the commit that makes it long: some milliseconds, four times a second under load. Here a thread
//! does it, which holds no writer up. The log can only begin anew when it is empty at the beginning of a commit, which it never
//! is while commits follow each other closely; so when it has grown long, the writer moves the few pages that the thread has
//! left (<https://sqlite.org/wal.html#avoiding_excessively_large_wal_files>).
//!
//! The thread also syncs what the writer has committed without: a frame of the log counts only with all that stand before it, so
//! whatever a power cut takes, the database is as it was after some commit, and not before the last synced one.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use super::durability::{Durability, SYNC_DELAY};

/// Commits gather this many times [`SYNC_DELAY`]: a page that is written again and again goes to the database once.
const ROUNDS: u32 = 2;
/// Pages of the log from which on it should begin anew: 32 MiB.
const LONG: i64 = 8192;

/// What writer and thread tell each other.
#[derive(Default)]
struct Flags {
    /// There was a commit since the thread began to empty the log.
    committed: AtomicBool,
    /// The log holds a commit that was not synced.
    unsynced: AtomicBool,
    /// The log has grown long.
    long: AtomicBool,
    /// The writer has gone.
    ended: AtomicBool,
}

/// The writer's side.
pub(super) struct Checkpoints {
    flags: Arc<Flags>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread for a database whose log its writer does not empty by itself.
    pub(super) fn start(path: &Path) -> Self {
        let flags = Arc::new(Flags::default());
        let start = || {
            let connection = rusqlite::Connection::open(path).map_err(|error| error.to_string())?;
            // SQLite has followed links.
            let log = PathBuf::from(format!("{}-wal", connection.path().ok_or("the database has no file")?));
            let flags = flags.clone();
            let thread = thread::Builder::new().name("db-checkpoints".into());
            thread.spawn(move || keep_short(&connection, &log, &flags)).map_err(|error| error.to_string())
        };
        let thread = start();
        if let Err(error) = &thread {
            // The writer does it alone, at every commit.
            tracing::warn!(error, path = %path.display(), "the log of the database is emptied by its writer");
        }
        Self { flags, thread: thread.ok() }
    }

    /// Tells of a commit of the writer's connection.
    pub(super) fn committed(&self, writer: &rusqlite::Connection, durability: Durability) {
        let Some(thread) = &self.thread else {
            empty(writer);
            return;
        };
        // A synced commit may have written nothing, and so synced nothing.
        if durability < Durability::Synced {
            self.flags.unsynced.store(true, Ordering::Release);
        }
        if self.flags.long.swap(false, Ordering::AcqRel) {
            empty(writer);
        }
        if !self.flags.committed.swap(true, Ordering::AcqRel) {
            thread.thread().unpark();
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.flags.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It ends at once, and a panic of it has nothing more to spoil.
            let _ = thread.join();
        }
    }
}

fn keep_short(connection: &rusqlite::Connection, log: &Path, flags: &Flags) {
    let ended = || flags.ended.load(Ordering::Acquire);
    let due = || flags.committed.load(Ordering::Acquire) || flags.unsynced.load(Ordering::Acquire);
    let sync = || {
        if flags.unsynced.swap(false, Ordering::AcqRel)
            && let Err(error) = sync_log(log)
        {
            tracing::error!(%error, log = %log.display(), "the log of the database could not be synced");
        }
    };
    loop {
        while !due() && !ended() {
            thread::park();
        }
        for _ in 0..ROUNDS {
            let until = Instant::now() + SYNC_DELAY;
            while let Some(left) = until.checked_duration_since(Instant::now())
                && !ended()
            {
                thread::park_timeout(left);
            }
            sync();
        }
        if ended() {
            // Closing the last connection empties the log.
            return;
        }
        flags.committed.store(false, Ordering::Release);
        if empty(connection) > LONG {
            flags.long.store(true, Ordering::Release);
        }
    }
}

/// Syncs what SQLite has written to its log. It has no call for that alone; the file's locks are not on this file, so that closing it
/// loses none.
fn sync_log(log: &Path) -> io::Result<()> {
    File::open(log)?.sync_data()
}

/// Moves what can be moved without waiting for anybody; returns the pages that the log holds, moved or not.
fn empty(connection: &rusqlite::Connection) -> i64 {
    let pages = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1));
    pages.unwrap_or_else(|error| {
        tracing::warn!(%error, "the log of the database could not be emptied");
        0
    })
}
