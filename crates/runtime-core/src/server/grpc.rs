//! Around every gRPC call: trace context, the caller's deadline, panics, metrics, and the end of streams at shutdown.
use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderMap, Request, Response, header::CONTENT_TYPE};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status, body::Body};
use tracing::{Instrument as _, Span, field};

use super::{
    meters::{Meters, Method},
    services::Services,
};
use crate::{
    status::{self, ErrorReason},
    telemetry,
};

/// Frames that a stream may still send after the cut when it always has one ready; a unary answer has two.
const FRAMES_AFTER_CUT: u32 = 8;

/// Whether a request is gRPC: by its content type, which gRPC requires.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(rest) = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
    else {
        return false;
    };
    matches!(rest.first(), None | Some(b'+' | b';'))
}

/// Answers one call.
pub(super) async fn call(
    services: &Services,
    request: Request<Incoming>,
    meters: Arc<Meters>,
    cut: CancellationToken,
) -> Response<CallBody> {
    let method = meters.method(request.uri().path());
    let span = match telemetry::exports() || request.headers().contains_key("traceparent") {
        true => tracing::info_span!(
            "rpc",
            otel.name = request.uri().path(),
            otel.kind = "server",
            rpc.system = "grpc",
            rpc.service = method.service,
            rpc.method = method.method,
            rpc.grpc.status_code = field::Empty,
        ),
        // All that the log tells of a call is its method.
        false => method.span(),
    };
    telemetry::set_remote_parent(&span, request.headers());
    let record = Record { start: Instant::now(), meters, method, span: span.clone(), done: false };
    let limit = timeout(request.headers());
    let answer = services.call(&record.method.service, request.map(Body::new));
    // A handler that panics must not take down the other calls of the connection.
    let answer = AssertUnwindSafe(answer).catch_unwind().instrument(span);
    let outcome = match limit {
        None => Some(answer.await),
        Some(limit) => tokio::time::timeout(limit, answer).await.ok(),
    };
    let response = match outcome {
        Some(Ok(response)) => response,
        Some(Err(_)) => status::Error::new(ErrorReason::Internal, "the call failed unexpectedly; see the server's log")
            .into_status()
            .into_http(),
        None => {
            status::Error::new(ErrorReason::DeadlineExceeded, "the caller's deadline passed").into_status().into_http()
        }
    };
    watch(response, record, cut)
}

/// A call that is refused before it reaches a service.
pub(super) fn refuse<B: Default>(reason: ErrorReason, message: &str) -> Response<B> {
    status::Error::new(reason, message).into_status().into_http()
}

fn watch(response: Response<Body>, mut record: Record, cut: CancellationToken) -> Response<CallBody> {
    if let Some(code) = code(response.headers()) {
        // A trailers-only answer: nothing follows.
        record.finish(code);
    }
    response.map(|inner| CallBody { inner, record, cut, waiting: None, frames_after_cut: 0, ended: false })
}

fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}

/// The caller's `grpc-timeout`: at most eight digits and a unit. One that cannot be read is no limit, as in other servers.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Counts a call once, when its status is known or the client has gone.
struct Record {
    start: Instant,
    meters: Arc<Meters>,
    method: Arc<Method>,
    span: Span,
    done: bool,
}

impl Record {
    fn finish(&mut self, code: Code) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        self.span.record("rpc.grpc.status_code", code as i32);
        self.meters.count(&self.method, code, self.start.elapsed());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.finish(Code::Cancelled);
    }
}

/// An answer's body: passes everything on, and at the cut ends a stream that waits for more with UNAVAILABLE.
/// A unary answer is ready as soon as there is a body, so it is never cut. Frames end where messages end.
pub(super) struct CallBody {
    inner: Body,
    record: Record,
    cut: CancellationToken,
    waiting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    frames_after_cut: u32,
    ended: bool,
}

impl CallBody {
    fn shut_down(&mut self) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.ended = true;
        self.record.finish(Code::Unavailable);
        let mut trailers = HeaderMap::new();
        let added = status::shutting_down().add_header(&mut trailers);
        Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))))
    }
}

impl HttpBody for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if this.frames_after_cut >= FRAMES_AFTER_CUT {
            return this.shut_down();
        }
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.record.finish(code(trailers).unwrap_or(Code::Unknown));
                } else if this.cut.is_cancelled() {
                    this.frames_after_cut += 1;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.ended = true;
                this.record.finish(Code::Internal);
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                this.ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let cut = &this.cut;
                let waiting = this.waiting.get_or_insert_with(|| Box::pin(cut.clone().cancelled_owned()));
                ready!(waiting.as_mut().poll(cx));
                this.shut_down()
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_type_tells_grpc_apart() {
        let of = |value: &str| is_grpc(&HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]));
        assert!(of("application/grpc") && of("application/grpc+proto") && of("application/grpc;x=y"));
        assert!(!of("application/grpc-web") && !of("application/json") && !is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn deadlines_are_read_as_the_protocol_says() {
        let of =
            |value: &str| timeout(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), value.parse().unwrap())]));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "m", "123456789m", "-1S", "1.5S", "5", "5é"] {
            let header = HeaderMap::from_iter([(
                "grpc-timeout".parse().unwrap(),
                http::HeaderValue::from_bytes(bad.as_bytes()).unwrap(),
            )]);
            assert_eq!(timeout(&header), None, "{bad}");
        }
    }
}
