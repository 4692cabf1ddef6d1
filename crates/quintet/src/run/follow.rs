//! Following one job to its end: events into the view, lost connections, Ctrl-C.

use std::time::Duration;

use quintet_proto::v1::{Job, JobState};
use runtime_core::{client::JobClient, jobs::model::is_terminal};
use tonic::Status;

use super::{
    interrupt::{Interrupts, Signal},
    view::StageView,
};
use crate::failure::{Failure, remedy};

/// A second Ctrl-C within this time cancels.
const ASK: Duration = Duration::from_secs(10);
/// A cancelled job has this long to end.
const CANCEL: Duration = Duration::from_secs(90);

/// How following ended.
pub(crate) enum Followed {
    /// The job has ended by itself or by somebody else.
    Ended(Job),
    /// Ctrl-C or SIGTERM; the job as it was last, if it was cancelled.
    Stopped(Signal, Option<Job>),
}

/// Watches a job until it has ended.
///
/// # Errors
/// The server's status, or that it stayed away.
pub(crate) async fn to_the_end(client: &JobClient, job: &Job, view: &StageView) -> Result<Job, Status> {
    view.began(job);
    if is_terminal(job.state()) {
        return Ok(job.clone());
    }
    client.watch(&job.name, job.revision, |event| view.event(event), |count| view.lost(count)).await
}

/// Watches a job until it has ended or the user wants no more. Ctrl-C asks once; a second one cancels the job; a third one leaves at once.
///
/// # Errors
/// As [`to_the_end`].
pub(crate) async fn follow(
    client: &JobClient,
    job: &Job,
    view: &StageView,
    interrupts: &mut Interrupts,
) -> Result<Followed, Failure> {
    let mut watch = std::pin::pin!(to_the_end(client, job, view));
    loop {
        match next(&mut watch, interrupts, None).await {
            Next::Ended(ended) => return (*ended).map(Followed::Ended).map_err(Failure::from),
            Next::Signal(Signal::Terminate) => return Ok(Followed::Stopped(Signal::Terminate, None)),
            Next::Signal(Signal::Interrupt) => {}
            Next::Time => continue,
        }
        view.note("press Ctrl-C again to cancel this stage; without it the stage goes on");
        match next(&mut watch, interrupts, Some(ASK)).await {
            Next::Ended(ended) => return (*ended).map(Followed::Ended).map_err(Failure::from),
            Next::Signal(Signal::Terminate) => return Ok(Followed::Stopped(Signal::Terminate, None)),
            Next::Signal(Signal::Interrupt) => {}
            Next::Time => {
                view.note("going on");
                continue;
            }
        }
        view.note("cancelling; press Ctrl-C once more to leave at once");
        let cancelled = async {
            client.cancel(&job.name, false, "Ctrl-C in quintet run").await?;
            watch.await
        };
        let mut cancelled = std::pin::pin!(cancelled);
        return match next(&mut cancelled, interrupts, Some(CANCEL)).await {
            Next::Ended(ended) => match *ended {
                Ok(job) if job.state() == JobState::Succeeded => Ok(Followed::Ended(job)),
                Ok(job) => Ok(Followed::Stopped(Signal::Interrupt, Some(job))),
                Err(status) => Err(Failure::from(status).context("the stage could not be cancelled")),
            },
            Next::Time => {
                view.note("the stage has not ended yet; its cancellation is recorded and goes on");
                Ok(Followed::Stopped(Signal::Interrupt, None))
            }
            Next::Signal(signal) => Ok(Followed::Stopped(signal, None)),
        };
    }
}

enum Next {
    Ended(Box<Result<Job, Status>>),
    Signal(Signal),
    Time,
}

async fn next(
    work: &mut (impl Future<Output = Result<Job, Status>> + Unpin),
    interrupts: &mut Interrupts,
    limit: Option<Duration>,
) -> Next {
    let time = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = work => Next::Ended(Box::new(ended)),
        signal = interrupts.next() => Next::Signal(signal),
        () = time => Next::Time,
    }
}

/// Why a job did not succeed: reason, message, the end of its log, and what to do.
pub(crate) fn explained(job: &Job) -> String {
    let state = job.state().as_str_name();
    let Some(error) = &job.error else { return format!("{} is {state}", job.name) };
    let mut text = format!("{} is {state}: {}\n  {}", job.name, error.message, remedy(&error.reason));
    let tail = error.log_tail.trim_end();
    if !tail.is_empty() {
        text += "\n  end of its log:";
        for line in tail.lines() {
            text += &format!("\n    {line}");
        }
    }
    text
}
