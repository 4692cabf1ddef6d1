//! Artifacts over HTTP: one PUT or GET a file, streamed; listings of a folder and of a run.

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
    routing::{get, put},
};
use http::{HeaderName, HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::{Answer, EMPTY, Empty, request::Fields};
use crate::{
    Tracking,
    artifacts::{FileInfo, path},
    error::Error,
};

/// What RFC 5987 leaves as it is.
const ATTRIBUTE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/mlflow-artifacts/artifacts", get(list))
        .route("/mlflow-artifacts/artifacts/", get(list))
        .route("/mlflow-artifacts/artifacts/{*path}", put(upload).get(download).delete(remove))
        .route("/mlflow-artifacts/mpu/{*path}", axum::routing::post(unsupported))
        .route("/mlflow-artifacts/presigned/{*path}", get(unsupported))
}

#[derive(Serialize)]
pub(super) struct Files {
    #[serde(skip_serializing_if = "Option::is_none")]
    root_uri: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<FileInfo>,
}

async fn upload(State(tracking): State<Tracking>, Path(path): Path<String>, request: Request) -> Answer<Empty> {
    tracking.artifacts().put(&path, request.into_body().into_data_stream()).await?;
    Ok(EMPTY)
}

async fn download(State(tracking): State<Tracking>, Path(path): Path<String>) -> Result<Response, Error> {
    let (size, content) = tracking.artifacts().get(&path).await?;
    let name = path.rsplit('/').next().unwrap_or_default();
    let plain = name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'%' | b';'));
    let disposition = if plain {
        format!("attachment; filename={name}")
    } else {
        format!("attachment; filename*=UTF-8''{}", utf8_percent_encode(name, ATTRIBUTE))
    };
    let kind = mime_guess::from_path(name).first_or_octet_stream();
    let value =
        |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, value(kind.as_ref())),
        (header::CONTENT_LENGTH, HeaderValue::from(size)),
        (header::CONTENT_DISPOSITION, value(&disposition)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    Ok((headers, Body::from_stream(content)).into_response())
}

async fn list(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Files> {
    let path = fields.opt_text("path")?.unwrap_or_default();
    Ok(Json(Files { root_uri: None, files: tracking.artifacts().list(&path).await? }))
}

async fn remove(State(tracking): State<Tracking>, Path(path): Path<String>) -> Answer<Empty> {
    tracking.artifacts().delete(&path).await?;
    Ok(EMPTY)
}

async fn unsupported() -> Error {
    Error::Unsupported("multipart and presigned transfers are not offered: send a file in one request".to_owned())
}

/// `artifacts/list`: the files of a run, their paths from its root.
pub(super) async fn list_of_run(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Files> {
    let run = tracking.store().run_info(fields.run_id()?).await?;
    let within = fields.opt_text("path")?.unwrap_or_default();
    path::check(&within)?;
    let Some(root) = path::of_uri(&run.artifact_uri) else {
        let uri = run.artifact_uri;
        let reason = format!("run `{}` keeps its artifacts at `{uri}`, which its clients reach directly", run.run_id);
        return Err(Error::invalid("run_id", reason));
    };
    let within = within.trim_end_matches('/');
    let folder = if within.is_empty() { root.to_owned() } else { format!("{root}/{within}") };
    let mut files = tracking.artifacts().list(&folder).await?;
    if !within.is_empty() {
        files.iter_mut().for_each(|file| file.path = format!("{within}/{}", file.path));
    }
    Ok(Json(Files { root_uri: Some(run.artifact_uri), files }))
}
