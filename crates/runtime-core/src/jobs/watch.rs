//! Streams of events and logs: first what is stored, then what comes, never a gap.

use std::{sync::Arc, time::Duration};

use quintet_proto::v1::{JobEvent, LogChunk, StreamLogsRequest, job_event::Event};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc,
};
use tonic::Status;

use super::{
    Jobs,
    model::{is_terminal, job_name, proto_duration, timestamp},
    service::store_status,
    store,
};
use crate::{server::Drain, status};

/// A watcher hears at least this often that its position is current.
const IDLE: Duration = Duration::from_secs(15);
/// Events read from the store at once.
const PAGE: usize = 256;

type Sender<T> = mpsc::Sender<Result<T, Status>>;

/// Sends a job's events after a revision until it has ended, the client has gone or the server drains.
pub(super) async fn watch(jobs: Jobs, uid: String, after: i64, drain: Drain, to: Sender<JobEvent>) {
    let result = tokio::select! {
        result = follow(&jobs, &uid, after, &to) => result,
        () = drain.begun() => Err(status::shutting_down()),
        () = to.closed() => return,
    };
    if let Err(status) = result {
        // The client may have gone.
        let _ = to.send(Err(status)).await;
    }
}

/// The client went away: nothing is left to do.
struct Gone;

async fn follow(jobs: &Jobs, uid: &str, mut after: i64, to: &Sender<JobEvent>) -> Result<(), Status> {
    // Subscribed before the store is read, so that nothing falls between the two.
    let mut live = jobs.subscribe();
    loop {
        match send_stored(jobs, uid, &mut after, to).await? {
            Ok(true) | Err(Gone) => return Ok(()),
            Ok(false) => {}
        }
        match send_live(&mut live, uid, &mut after, to).await {
            Ok(true) | Err(Gone) => return Ok(()),
            // Too slow: what was missed is in the store.
            Ok(false) => {}
        }
    }
}

/// True when the job has ended and everything was sent.
async fn send_stored(
    jobs: &Jobs,
    uid: &str,
    after: &mut i64,
    to: &Sender<JobEvent>,
) -> Result<Result<bool, Gone>, Status> {
    loop {
        let events = store::events(jobs.db(), Some(uid), *after, PAGE).await.map_err(store_status)?;
        let last_page = events.len() < PAGE;
        for event in events {
            *after = event.revision;
            let ended = ends(&event);
            if to.send(Ok(event)).await.is_err() {
                return Ok(Err(Gone));
            }
            if ended {
                return Ok(Ok(true));
            }
        }
        if last_page {
            // The caller may have seen the end before.
            let job = jobs.get(uid).await.map_err(store_status)?;
            let job = job.ok_or_else(|| status::not_found("job", &job_name(uid)))?;
            return Ok(Ok(is_terminal(job.state()) && job.revision <= *after));
        }
    }
}

/// True when the job has ended; false when events were missed.
async fn send_live(
    live: &mut broadcast::Receiver<Arc<JobEvent>>,
    uid: &str,
    after: &mut i64,
    to: &Sender<JobEvent>,
) -> Result<bool, Gone> {
    let name = job_name(uid);
    loop {
        let event = match tokio::time::timeout(IDLE, live.recv()).await {
            Ok(Ok(event)) => event,
            Ok(Err(RecvError::Lagged(_))) => return Ok(false),
            Ok(Err(RecvError::Closed)) => return Err(Gone),
            Err(_) => {
                let idle = i64::try_from(IDLE.as_millis()).unwrap_or(i64::MAX);
                let event = Event::Idle(proto_duration(idle));
                let idle = JobEvent { revision: *after, job: name.clone(), event: Some(event), ..JobEvent::default() };
                to.send(Ok(idle)).await.map_err(|_| Gone)?;
                continue;
            }
        };
        let stored = matches!(event.event, Some(Event::Transition(_) | Event::Metrics(_)));
        if event.job != name || event.event.is_none() || (stored && event.revision <= *after) {
            continue;
        }
        if stored {
            *after = event.revision;
        }
        to.send(Ok((*event).clone())).await.map_err(|_| Gone)?;
        if ends(&event) {
            return Ok(true);
        }
    }
}

fn ends(event: &JobEvent) -> bool {
    matches!(&event.event, Some(Event::Transition(job)) if is_terminal(job.state()))
}

/// Sends a log from an offset; with `follow` until the job has ended, through later attempts.
pub(super) async fn stream_logs(
    jobs: Jobs,
    uid: String,
    request: StreamLogsRequest,
    drain: Drain,
    to: Sender<LogChunk>,
) {
    let result = tokio::select! {
        result = send_logs(&jobs, &uid, &request, &to) => result,
        () = drain.begun() => Err(status::shutting_down()),
        () = to.closed() => return,
    };
    if let Err(status) = result {
        // The client may have gone.
        let _ = to.send(Err(status)).await;
    }
}

async fn send_logs(jobs: &Jobs, uid: &str, request: &StreamLogsRequest, to: &Sender<LogChunk>) -> Result<(), Status> {
    let mut live = jobs.subscribe();
    let name = job_name(uid);
    let read = async || {
        let job = jobs.get(uid).await.map_err(store_status)?;
        job.ok_or_else(|| status::not_found("job", &name))
    };
    let mut attempt = if request.attempt > 0 { request.attempt } else { read().await?.attempt };
    let mut offset = request.offset;
    if offset < 0 {
        offset = log_end(jobs, uid, attempt).await?.saturating_add(offset).max(0);
    }
    loop {
        // Read before the log: what the log holds after the end of the attempt is then complete.
        let job = read().await?;
        loop {
            let pieces = store::logs(jobs.db(), uid, attempt, offset, PAGE).await.map_err(store_status)?;
            if pieces.is_empty() {
                break;
            }
            for (start, data) in pieces {
                offset = start + data.len() as i64;
                if to.send(Ok(LogChunk { attempt, offset: start, data })).await.is_err() {
                    return Ok(());
                }
            }
        }
        if job.attempt > attempt && request.attempt == 0 && request.follow {
            (attempt, offset) = (attempt + 1, 0);
            continue;
        }
        if !request.follow || is_terminal(job.state()) || job.attempt > attempt {
            return Ok(());
        }
        // Anything about the job may mean more log; a lagging or quiet stream is looked at again all the same.
        loop {
            match tokio::time::timeout(IDLE, live.recv()).await {
                Ok(Ok(event)) if event.job != name => {}
                Ok(Err(RecvError::Closed)) => return Ok(()),
                _ => break,
            }
        }
    }
}

async fn log_end(jobs: &Jobs, uid: &str, attempt: i32) -> Result<i64, Status> {
    let mut end = 0;
    loop {
        let pieces = store::logs(jobs.db(), uid, attempt, end, PAGE).await.map_err(store_status)?;
        match pieces.last() {
            Some((start, data)) => end = start + data.len() as i64,
            None => return Ok(end),
        }
    }
}

/// News of a job that only tells log followers to look.
pub(crate) fn log_news(job: &str, now: i64) -> JobEvent {
    JobEvent { job: job.to_owned(), time: Some(timestamp(now)), ..JobEvent::default() }
}
