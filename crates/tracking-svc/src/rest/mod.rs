//! The MLflow REST API: `/api/2.0/mlflow/*`, the same below `/ajax-api/`, artifacts, and the server's facts.
//!
//! What is not offered is answered 404 with a JSON error, and nothing that is the caller's fault is a 5xx: clients repeat those for minutes.

mod artifacts;
mod experiments;
mod models;
mod request;
mod runs;

use axum::{
    Json, Router,
    extract::OriginalUri,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use crate::{Tracking, error::Error};
use runtime_core::status;

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (error_code, status) = self.rest();
        let message = status::chain(&self);
        if status.is_server_error() && !matches!(self, Self::Unsupported(_)) {
            tracing::error!(error_code, error = %message, "a request of the MLflow REST API failed");
        }
        (status, Json(json!({ "error_code": error_code, "message": message }))).into_response()
    }
}

/// What a handler gives back.
type Answer<T> = Result<Json<T>, Error>;

/// An empty JSON object.
#[derive(Serialize)]
struct Empty {}

const EMPTY: Json<Empty> = Json(Empty {});

async fn unknown_endpoint(method: Method, OriginalUri(uri): OriginalUri) -> Error {
    Error::NoEndpoint { method: method.to_string(), path: uri.path().to_owned() }
}

async fn wrong_method(method: Method, OriginalUri(uri): OriginalUri) -> Response {
    let message = format!("{method} is not for {}", uri.path());
    let body = Json(json!({ "error_code": "ENDPOINT_NOT_FOUND", "message": message }));
    (StatusCode::METHOD_NOT_ALLOWED, body).into_response()
}

/// What a client may ask of this server. Its artifacts pass through it, in one request each.
async fn server_info() -> Response {
    Json(json!({
        "store_type": "SqlStore",
        "workspaces_enabled": false,
        "trace_archival_enabled": false,
        "multipart_uploads_enabled": false,
        "multipart_downloads_enabled": false,
        "artifact_serving_enabled": true,
        "presigned_upload_run_id_supported": false,
        "presigned_upload_model_id_supported": false,
        "model_artifact_presigned_downloads_supported": false,
        "features_enabled": { "gateway": false, "scheduled_issue_detection": false },
    }))
    .into_response()
}

/// The version of the MLflow protocol that is spoken.
async fn version() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))], crate::MLFLOW_VERSION).into_response()
}

async fn health() -> &'static str {
    "OK"
}

/// The routes of the REST API, to be merged into a server's router.
pub fn router(tracking: Tracking) -> Router {
    let calls = Router::new()
        .merge(experiments::routes())
        .merge(runs::routes())
        .merge(models::routes())
        .route("/artifacts/list", get(artifacts::list_of_run));
    let v2 = Router::new()
        .nest("/mlflow", calls)
        .merge(artifacts::routes())
        .fallback(unknown_endpoint)
        .method_not_allowed_fallback(wrong_method);
    let v3 = Router::new()
        .route("/mlflow/server-info", get(server_info))
        .fallback(unknown_endpoint)
        .method_not_allowed_fallback(wrong_method);
    let both = Router::new().nest("/2.0", v2).nest("/3.0", v3).fallback(unknown_endpoint);
    Router::new()
        .nest("/api", both.clone())
        .nest("/ajax-api", both)
        .route("/version", get(version))
        .route("/health", get(health))
        .with_state(tracking)
}
