//! Frees the trials of clients that died. Optuna's storage proxy has no heartbeat, but a process that ends closes its connection.
//!
//! Whoever asks for, claims, suggests for or reports to a running trial holds it; whoever only adds one, as a copy of another study, does
//! not. When the connections of all its holders have ended otherwise than by this server, and nobody has gone on with the trial within
//! the time that [`Patience`] gives, the trial fails, so that no sampler steers around it for ever and no queue waits for it. A process
//! that asks for trials and has others report to them is such a holder as well.
//!
//! A connection that ends need not be a process that ends: gRPC's clients close one that has had no call for 30 minutes, and
//! connect again for the next. Whoever trains for an hour without a report is such a client, so it gets much more time.
//!
//! Which trials such clients have begun is also stored: of those that run when a server starts, whoever has died with the one
//! before holds some, and others will come back. They get as much time as idle clients.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use runtime_core::server::{Lost, PeerConnection};

use crate::{
    pyjson::dump_text,
    storage::{Edit, Error, Store},
    study::{State, Trial},
    sweep::ATTR_ERROR,
};

/// Between attempts to read the store.
const RETRY: Duration = Duration::from_secs(10);

/// How long clients may stay away before their running trials fail.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// One whose connection has ended; zero: no trial ever fails for such a reason.
    pub lost: Duration,
    /// One whose connection was closed because it was idle; zero: for ever.
    pub idle: Duration,
    /// A connection was idle that ended after so long without a call.
    pub idle_after: Duration,
}

impl Patience {
    /// gRPC's clients close connections after 30 minutes by their own clock.
    pub const IDLE_AFTER: Duration = Duration::from_secs(25 * 60);

    /// How long the client of a lost connection may stay away; `None` is for ever.
    fn with(&self, lost: Lost) -> Option<Duration> {
        let patience = if lost.quiet < self.idle_after { self.lost } else { self.idle };
        (!patience.is_zero()).then_some(patience)
    }
}

/// Which connection holds which trial.
#[derive(Clone, Debug)]
pub(super) struct Leases {
    store: Store,
    patience: Patience,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    /// Holders by the id of the trial, the latest one last.
    holders: HashMap<i64, Vec<PeerConnection>>,
    /// Ids of connections whose end somebody waits for.
    watched: HashSet<u64>,
    /// Trials that ran when this server started, as they were then, until somebody goes on with them.
    left: HashMap<i64, Arc<Trial>>,
}

impl Leases {
    pub(super) fn new(store: Store, patience: Patience) -> Self {
        Self { store, patience, held: Arc::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client behind a connection works on a trial, which runs.
    pub(super) fn hold(&self, trial: i64, peer: Option<&PeerConnection>) {
        let Some(peer) = peer.filter(|_| !self.patience.lost.is_zero()) else { return };
        let mut held = self.held();
        held.left.remove(&trial);
        let holders = held.holders.entry(trial).or_default();
        if holders.last().is_some_and(|last| last.id() == peer.id()) {
            return;
        }
        // Somebody else goes on with what others have left.
        holders.retain(|holder| holder.id() != peer.id() && !holder.is_lost());
        holders.push(peer.clone());
        if held.watched.insert(peer.id()) {
            tokio::spawn(self.clone().watch(peer.clone()));
        }
    }

    /// Whether somebody is known to work on a trial, so that it is stored by now, or need not be known.
    pub(super) fn is_held(&self, trial: i64) -> bool {
        self.patience.lost.is_zero() || self.held().holders.contains_key(&trial)
    }

    /// Somebody wrote to a trial who need not be the one that works on it, such as a dashboard: it only counts when the holders'
    /// connections have ended.
    pub(super) fn touch(&self, trial: i64, peer: Option<&PeerConnection>) {
        let held = self.held();
        let holders = held.holders.get(&trial);
        let lost = holders.is_some_and(|holders| holders.iter().all(PeerConnection::is_lost));
        let lost = lost || held.left.contains_key(&trial);
        drop(held);
        if lost {
            self.hold(trial, peer);
        }
    }

    /// A trial has ended, or waits for somebody else.
    pub(super) fn release(&self, trial: i64) {
        let mut held = self.held();
        held.left.remove(&trial);
        held.holders.remove(&trial);
    }

    /// Gives those who were clients of the server before as much time as idle ones, from now on.
    pub(super) async fn free_left_behind(&self) {
        if self.patience.lost.is_zero() || self.patience.idle.is_zero() {
            return;
        }
        let trials = loop {
            match self.store.leased().await {
                Ok(trials) => break trials,
                // Another program may have the file locked.
                Err(error) => tracing::error!(%error, "the trials of earlier clients cannot be read: trying again"),
            }
            tokio::time::sleep(RETRY).await;
        };
        for trial in trials {
            // It may have been deleted since.
            let Ok(found) = self.store.trial(trial).await else { continue };
            let mut held = self.held();
            if !held.holders.contains_key(&trial) {
                held.left.insert(trial, found);
            }
        }
        tokio::time::sleep(self.patience.idle).await;
        let left = std::mem::take(&mut self.held().left);
        for (trial, then) in left {
            // Another server on the same studies may have heard of it.
            if self.store.trial(trial).await.is_ok_and(|now| same(&now, &then)) {
                self.free(trial, "the client that ran this trial was there before the server, and has not come back")
                    .await;
            }
        }
    }

    async fn watch(self, peer: PeerConnection) {
        let patience = peer.lost().await.and_then(|lost| self.patience.with(lost));
        if let Some(patience) = patience {
            tokio::time::sleep(patience).await;
        }
        let trials: Vec<i64> = {
            let mut held = self.held();
            held.watched.remove(&peer.id());
            // Whoever has not died may still be at work, whatever becomes of the others.
            let left = held.holders.extract_if(|_, holders| {
                let before = holders.len();
                holders.retain(|holder| holder.id() != peer.id());
                holders.is_empty() || (patience.is_none() && holders.len() < before)
            });
            left.map(|(trial, _)| trial).collect()
        };
        if patience.is_some() {
            for trial in trials {
                self.free(trial, "the client that ran this trial has closed its connection and not come back").await;
            }
        }
    }

    async fn free(&self, trial: i64, problem: &str) {
        let attribute = Edit::user_attr(ATTR_ERROR, dump_text(problem));
        let end = Edit { state: Some(State::Fail), only: Some(State::Running), ..attribute };
        match self.store.edit(trial, end, Timestamp::now()).await {
            Ok(true) => tracing::warn!(trial, "{problem}: it has failed"),
            // Somebody else has given it back, ended or deleted it.
            Ok(false) | Err(Error::TrialFinished { .. } | Error::NoTrial(_)) => {}
            Err(error) => tracing::error!(trial, %error, "the trial of a lost client could not be failed"),
        }
    }
}

/// Whether nothing has happened to a trial; one that has reported NaN is not equal to itself.
fn same(now: &Trial, then: &Trial) -> bool {
    format!("{now:?}") == format!("{then:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_was_idle_ends_for_another_reason_than_its_client() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let patience = Patience { lost: minutes(1), idle: minutes(720), idle_after: Patience::IDLE_AFTER };
        let with = |patience: Patience, quiet| patience.with(Lost { quiet });
        for quiet in [minutes(0), minutes(1), minutes(24)] {
            assert_eq!(with(patience, quiet), Some(minutes(1)), "{quiet:?}");
        }
        // Timers are not exact, and a client's begins a moment earlier than ours.
        for quiet in [minutes(25), minutes(30) - Duration::from_millis(20), minutes(59)] {
            assert_eq!(with(patience, quiet), Some(minutes(720)), "{quiet:?}");
        }
        let never = Patience { idle: Duration::ZERO, ..patience };
        assert_eq!((with(never, minutes(31)), with(never, minutes(3))), (None, Some(minutes(1))));
    }
}
