//! Followers of all events: each keeps its position in the store, so it sees every event, also those of before a restart.

use std::time::Duration;

use quintet_proto::v1::JobEvent;

use super::{Jobs, store};
use crate::{client::Backoff, server::Drain};

/// Events read at once.
const PAGE: usize = 256;
/// The store is looked at this often even when no event was heard of.
const LOOK: Duration = Duration::from_secs(5);

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// It is done with, well or not.
    Done,
    /// It has to be given again after a pause.
    Again,
}

/// Handles events one after the other. After a restart the last ones may come again.
pub trait Follower: Send {
    /// The name of its position in the store.
    const NAME: &'static str;

    /// Handles one event.
    fn handle(&mut self, event: &JobEvent) -> impl Future<Output = Handled> + Send;
}

/// Gives every stored event of `jobs` to a follower until the drain begins.
pub async fn follow(jobs: Jobs, mut follower: impl Follower, drain: Drain) {
    tokio::select! {
        () = drain.begun() => {}
        () = follow_on(&jobs, &mut follower) => {}
    }
}

async fn follow_on<F: Follower>(jobs: &Jobs, follower: &mut F) {
    let mut live = jobs.subscribe();
    let mut backoff = Backoff::default();
    let mut cursor = loop {
        match store::cursor(jobs.db(), F::NAME).await {
            Ok(cursor) => break cursor,
            Err(error) => {
                tracing::warn!(%error, follower = F::NAME, "the position cannot be read");
                backoff.pause().await;
            }
        }
    };
    loop {
        let events = match store::events(jobs.db(), None, cursor, PAGE).await {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(%error, follower = F::NAME, "events cannot be read");
                backoff.pause().await;
                continue;
            }
        };
        let last_page = events.len() < PAGE;
        let start = cursor;
        for event in events {
            while follower.handle(&event).await == Handled::Again {
                backoff.pause().await;
            }
            backoff.reset();
            cursor = event.revision;
        }
        if cursor > start
            && let Err(error) = store::set_cursor(jobs.db(), F::NAME, cursor).await
        {
            tracing::warn!(%error, follower = F::NAME, "the position was not stored");
        }
        if last_page {
            // What happens meanwhile is in the store; the live event only says that there is something.
            loop {
                match tokio::time::timeout(LOOK, live.recv()).await {
                    Ok(Ok(event)) if event.revision <= cursor || event.event.is_none() => {}
                    _ => break,
                }
            }
        }
    }
}
