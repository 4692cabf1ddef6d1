//! Frees the trials of clients that died. Optuna's storage proxy has no heartbeat, but a process that ends closes its connection.
//!
//! Whoever makes, claims, suggests for or reports to a running trial holds it. When the holder's connection has ended otherwise
//! than by this server, and nobody has gone on with the trial within the grace, the trial fails, so that no sampler steers around
//! it for ever and no queue waits for it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use runtime_core::server::PeerConnection;

use crate::{
    pyjson::dump_text,
    storage::{Edit, Error, Store},
    study::State,
    sweep::ATTR_ERROR,
};

/// Which connection holds which trial.
#[derive(Clone, Debug)]
pub(super) struct Leases {
    store: Store,
    /// Zero: nothing is ever freed.
    grace: Duration,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    /// Holders by the id of the trial.
    holders: HashMap<i64, PeerConnection>,
    /// Ids of connections whose end somebody waits for.
    watched: HashSet<u64>,
}

impl Leases {
    pub(super) fn new(store: Store, grace: Duration) -> Self {
        Self { store, grace, held: Arc::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client behind a connection works on a trial.
    pub(super) fn hold(&self, trial: i64, peer: Option<&PeerConnection>) {
        let Some(peer) = peer.filter(|_| !self.grace.is_zero()) else { return };
        let mut held = self.held();
        held.holders.insert(trial, peer.clone());
        if held.watched.insert(peer.id()) {
            tokio::spawn(self.clone().watch(peer.clone()));
        }
    }

    /// Somebody wrote to a trial who need not be the one that works on it, such as a dashboard: it only counts when the holder's
    /// connection has ended.
    pub(super) fn touch(&self, trial: i64, peer: Option<&PeerConnection>) {
        if self.held().holders.get(&trial).is_some_and(PeerConnection::is_lost) {
            self.hold(trial, peer);
        }
    }

    /// A trial has ended.
    pub(super) fn release(&self, trial: i64) {
        self.held().holders.remove(&trial);
    }

    async fn watch(self, peer: PeerConnection) {
        let lost = peer.lost().await;
        if lost {
            tokio::time::sleep(self.grace).await;
        }
        let trials: Vec<i64> = {
            let mut held = self.held();
            held.watched.remove(&peer.id());
            let theirs = held.holders.extract_if(|_, holder| holder.id() == peer.id());
            theirs.map(|(trial, _)| trial).collect()
        };
        if lost {
            for trial in trials {
                self.free(trial).await;
            }
        }
    }

    async fn free(&self, trial: i64) {
        let problem = "the client that ran this trial has closed its connection and not come back";
        let end = Edit { state: Some(State::Fail), ..Edit::user_attr(ATTR_ERROR, dump_text(problem)) };
        match self.store.edit(trial, end, Timestamp::now()).await {
            Ok(_) => tracing::warn!(trial, "{problem}: it has failed"),
            // Somebody else has ended or deleted it.
            Err(Error::TrialFinished { .. } | Error::NoTrial(_)) => {}
            Err(error) => tracing::error!(trial, %error, "the trial of a lost client could not be failed"),
        }
    }
}
