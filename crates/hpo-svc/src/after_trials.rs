//! What is done after clients have ended trials: the copy of the studies.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::sweep::StudyHook;

/// Clients end many trials a second where a sweep ends one a minute, and the hook copies the store.
const DELAY: Duration = Duration::from_secs(10);

/// Calls a hook soon after trials have ended, once for those that end meanwhile; clones share it. By default there is none.
#[derive(Clone, Default)]
pub struct AfterTrials {
    hook: Option<StudyHook>,
    /// The hook is about to be called.
    due: Arc<AtomicBool>,
}

impl fmt::Debug for AfterTrials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfterTrials").field("due", &self.due).finish_non_exhaustive()
    }
}

impl AfterTrials {
    /// Calls this hook.
    pub fn new(hook: Option<StudyHook>) -> Self {
        Self { hook, due: Arc::default() }
    }

    /// A trial has ended and is stored.
    pub fn ended(&self) {
        let Some(hook) = self.hook.clone() else { return };
        if self.due.swap(true, Ordering::AcqRel) {
            return;
        }
        let due = self.due.clone();
        tokio::spawn(async move {
            tokio::time::sleep(DELAY).await;
            due.store(false, Ordering::Release);
            hook();
        });
    }
}
