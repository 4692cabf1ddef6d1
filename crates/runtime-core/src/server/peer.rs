//! The connection that a request came over: whether its peer has gone, and how long it had been quiet by then.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::Response;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::watch;

/// The connection that a request came over, in the request's extensions.
#[derive(Clone, Debug)]
pub struct PeerConnection {
    id: u64,
    /// Set once it is lost; closed without when this server ended it.
    lost: watch::Receiver<Option<Lost>>,
}

/// How a connection was lost: its peer has closed it, or has gone without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// How long it had had no open request; zero when there was one. A client that closes connections it does not need closes one
    /// that was quiet for long, a process that ends any.
    pub quiet: Duration,
}

impl PeerConnection {
    /// Unique in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the peer has closed it, or has gone without a word.
    pub fn is_lost(&self) -> bool {
        self.lost.borrow().is_some()
    }

    /// Waits for its end; `None` when it was this server that ended it.
    pub async fn lost(&self) -> Option<Lost> {
        *self.lost.clone().wait_for(Option::is_some).await.ok()?
    }
}

/// The server's side of a [`PeerConnection`].
pub(super) struct Peer {
    lost: watch::Sender<Option<Lost>>,
    requests: Requests,
}

impl Peer {
    pub(super) fn new() -> (Self, PeerConnection) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (sender, lost) = watch::channel(None);
        let requests = Requests(Arc::new(Mutex::new(Counted { open: 0, last: Instant::now() })));
        (Self { lost: sender, requests }, PeerConnection { id: NEXT.fetch_add(1, Ordering::Relaxed), lost })
    }

    /// The requests of the connection.
    pub(super) fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// It has ended, and not by this server.
    pub(super) fn has_gone(self) {
        let quiet = self.requests.quiet();
        // Nobody may have kept it.
        let _ = self.lost.send(Some(Lost { quiet }));
    }
}

/// Counts the requests of a connection that are open.
#[derive(Clone)]
pub(super) struct Requests(Arc<Mutex<Counted>>);

struct Counted {
    open: usize,
    /// When there was none for the last time since.
    last: Instant,
}

impl Requests {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come.
    pub(super) fn begin(&self) -> OpenRequest {
        self.counted().open += 1;
        OpenRequest(self.clone())
    }

    fn quiet(&self) -> Duration {
        let counted = self.counted();
        if counted.open == 0 { counted.last.elapsed() } else { Duration::ZERO }
    }
}

/// A request from its head to the end of its answer.
pub(super) struct OpenRequest(Requests);

impl OpenRequest {
    /// Leaves it open until the answer is sent or given up.
    pub(super) fn until_sent<B>(self, answer: Response<B>) -> Response<Answer<B>> {
        answer.map(|body| Answer { body, _request: self })
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut counted = self.0.counted();
        counted.open -= 1;
        counted.last = Instant::now();
    }
}

/// The body of an answer, with its request.
pub(super) struct Answer<B> {
    body: B,
    _request: OpenRequest,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_quiet_while_no_request_is_open() {
        let (peer, connection) = Peer::new();
        let requests = peer.requests();
        assert!(!connection.is_lost() && requests.quiet() < Duration::from_secs(60));
        let earlier = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap();
        requests.counted().last = earlier;
        assert!(requests.quiet() >= Duration::from_secs(3600));
        let [first, second] = [requests.begin(), requests.begin()];
        drop(first);
        requests.counted().last = earlier;
        assert_eq!(requests.quiet(), Duration::ZERO, "another is open");
        let answer = second.until_sent(Response::new(()));
        assert_eq!(requests.quiet(), Duration::ZERO, "its answer is not sent");
        drop(answer);
        assert!(requests.quiet() < Duration::from_secs(60), "since its end");
        requests.counted().last = earlier;
        peer.has_gone();
        let lost = connection.lost().await.unwrap();
        assert!(connection.is_lost() && lost.quiet >= Duration::from_secs(3600));
        let (peer, connection) = Peer::new();
        drop(peer);
        assert_eq!(connection.lost().await, None, "this server has ended it");
        assert!(!connection.is_lost());
    }
}
