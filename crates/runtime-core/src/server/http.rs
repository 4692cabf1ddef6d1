//! Everything on the port that is not gRPC: `/healthz`, `/metrics`, and the routers of the services.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, MatchedPath, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::Limited;
use serde_json::json;
use tower::Service as _;
use tracing::Instrument as _;

use crate::telemetry;

/// Gives the text of `/metrics`.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What the built-in routes need.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) serving: Arc<AtomicBool>,
    pub(super) metrics: Option<RenderMetrics>,
}

/// The services' routes with the built-in ones; JSON and other buffered bodies are limited to `message_bytes`.
pub(super) fn router(routes: Router, shared: Shared, message_bytes: usize) -> Router {
    let built_in = Router::new().route("/healthz", get(healthz)).route("/metrics", get(metrics)).with_state(shared);
    routes
        .merge(built_in)
        .layer(middleware::from_fn(count))
        .layer(DefaultBodyLimit::max(message_bytes))
        .fallback(no_such_path)
}

/// Answers one request; a body above `upload_bytes` is refused before or while it is read.
pub(super) async fn call(mut router: Router, request: Request<Body>, upload_bytes: u64) -> Response {
    let announced =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > upload_bytes) {
        let message =
            format!("the body has {} bytes; at most {upload_bytes} are allowed", announced.unwrap_or_default());
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "RESOURCE_EXHAUSTED", &message);
    }
    let span = tracing::info_span!(
        "http",
        otel.kind = "server",
        http.request.method = request.method().as_str(),
        url.path = request.uri().path(),
    );
    telemetry::set_remote_parent(&span, request.headers());
    let limit = usize::try_from(upload_bytes).unwrap_or(usize::MAX);
    let request = request.map(|body| Body::new(Limited::new(body, limit)));
    match router.call(request).instrument(span).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// An error as MLflow's REST API puts it, which other clients read as well.
pub(super) fn problem(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "error_code": code, "message": message }))).into_response()
}

/// 401 with both schemes that are understood.
pub(super) fn unauthorized(message: &str) -> Response {
    let mut response = problem(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", message);
    let schemes = header::HeaderValue::from_static("Bearer, Basic realm=\"quintet\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, schemes);
    response
}

async fn healthz(State(shared): State<Shared>) -> Response {
    let (status, word) = match shared.serving.load(Ordering::Relaxed) {
        true => (StatusCode::OK, "SERVING"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "NOT_SERVING"),
    };
    (status, Json(json!({ "status": word }))).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match shared.metrics {
        Some(render) => {
            let content_type = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
            (HeaderMap::from_iter([(content_type.0, header::HeaderValue::from_static(content_type.1))]), render())
                .into_response()
        }
        None => problem(StatusCode::NOT_FOUND, "FEATURE_DISABLED", "this server records no metrics"),
    }
}

async fn no_such_path(request: Request<Body>) -> Response {
    let message = format!("{} {} is not served here", request.method(), request.uri().path());
    problem(StatusCode::NOT_FOUND, "ENDPOINT_NOT_FOUND", &message)
}

/// Counts requests by route, never by path: paths are unbounded.
async fn count(request: Request<Body>, next: Next) -> Response {
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "unknown".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().as_str().to_owned();
    let start = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    metrics::histogram!("http_server_request_seconds", "route" => route.clone(), "method" => method.clone())
        .record(start.elapsed().as_secs_f64());
    metrics::counter!("http_server_requests_total", "route" => route, "method" => method, "status" => status)
        .increment(1);
    response
}
