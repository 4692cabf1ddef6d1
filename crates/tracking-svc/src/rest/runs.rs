//! `runs/*` and `metrics/*` of the REST API.

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde::Serialize;

use super::{Answer, EMPTY, Empty, request::Fields};
use crate::{
    Tracking,
    error::Error,
    model::{Lifecycle, Metric, ModelOutput, Run, RunInfo},
    store::{NewRun, RunSearch, RunUpdate, experiment_id},
    validate::Batch,
};

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/runs/create", post(create))
        .route("/runs/get", get(by_id))
        .route("/runs/update", post(update))
        .route("/runs/delete", post(delete))
        .route("/runs/restore", post(restore))
        .route("/runs/search", post(search))
        .route("/runs/log-metric", post(log_metric))
        .route("/runs/log-batch", post(log_batch))
        .route("/runs/log-parameter", post(log_parameter))
        .route("/runs/set-tag", post(set_tag))
        .route("/runs/delete-tag", post(delete_tag))
        .route("/runs/outputs", post(log_outputs))
        .route("/metrics/get-history", get(history))
}

#[derive(Serialize)]
struct One {
    run: Run,
}

#[derive(Serialize)]
struct Updated {
    run_info: RunInfo,
}

#[derive(Serialize)]
struct Found {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<Run>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

#[derive(Serialize)]
struct History {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    metrics: Vec<Metric>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

async fn create(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<One> {
    let run = NewRun {
        run_id: None,
        experiment_id: experiment_id(&fields.text("experiment_id")?)?,
        run_name: fields.opt_text("run_name")?,
        user_id: fields.opt_text("user_id")?.unwrap_or_default(),
        start_time: fields.opt_int("start_time")?.unwrap_or(0),
        tags: fields.pairs("tags")?,
        artifact_uri: None,
        followed: false,
    };
    Ok(Json(One { run: tracking.store().create_run(run).await? }))
}

async fn by_id(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<One> {
    Ok(Json(One { run: tracking.store().run(fields.run_id()?).await? }))
}

async fn update(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Updated> {
    let update = RunUpdate {
        status: fields.opt_text("status")?.map(|status| status.parse()).transpose()?,
        end_time: fields.opt_int("end_time")?,
        run_name: fields.opt_text("run_name")?,
    };
    let run_info = tracking.store().update_run(fields.run_id()?, update).await?;
    Ok(Json(Updated { run_info }))
}

async fn delete(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Empty> {
    tracking.store().set_run_lifecycle(fields.run_id()?, Lifecycle::Deleted).await?;
    Ok(EMPTY)
}

async fn restore(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Empty> {
    tracking.store().set_run_lifecycle(fields.run_id()?, Lifecycle::Active).await?;
    Ok(EMPTY)
}

/// Experiments to search in; what is no number is no experiment, and is ignored as unknown ones are.
pub(super) fn experiment_ids(fields: &mut Fields) -> Result<Vec<i64>, Error> {
    Ok(fields.texts("experiment_ids")?.iter().filter_map(|id| experiment_id(id).ok()).collect())
}

async fn search(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Found> {
    let search = RunSearch {
        experiment_ids: experiment_ids(&mut fields)?,
        filter: fields.opt_text("filter")?.unwrap_or_default(),
        view: fields.opt_text("run_view_type")?.map_or(Ok(Default::default()), |view| view.parse())?,
        max_results: fields.opt_int("max_results")?.unwrap_or(1000),
        order_by: fields.texts("order_by")?,
        page_token: fields.opt_text("page_token")?,
    };
    let page = tracking.store().search_runs(search).await?;
    Ok(Json(Found { runs: page.items, next_page_token: page.next }))
}

async fn log_metric(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Empty> {
    let run = fields.run_id()?;
    let batch = Batch { metrics: vec![fields.metric()?], ..Batch::default() };
    tracking.store().log_batch(run, batch, false).await?;
    Ok(EMPTY)
}

async fn log_parameter(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Empty> {
    let run = fields.run_id()?;
    let batch = Batch { params: vec![fields.pair()?], ..Batch::default() };
    tracking.store().log_batch(run, batch, false).await?;
    Ok(EMPTY)
}

async fn log_batch(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Empty> {
    let run = fields.run_id()?;
    let metrics = fields.objects("metrics")?.into_iter().map(|mut item| item.metric()).collect::<Result<_, _>>()?;
    let batch = Batch { metrics, params: fields.pairs("params")?, tags: fields.pairs("tags")? };
    tracking.store().log_batch(run, batch, true).await?;
    Ok(EMPTY)
}

async fn set_tag(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Empty> {
    let run = fields.run_id()?;
    let batch = Batch { tags: vec![fields.pair()?], ..Batch::default() };
    tracking.store().log_batch(run, batch, false).await?;
    Ok(EMPTY)
}

async fn delete_tag(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Empty> {
    tracking.store().delete_tag(fields.run_id()?, fields.text("key")?).await?;
    Ok(EMPTY)
}

async fn log_outputs(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Empty> {
    let output = |mut item: Fields| -> Result<ModelOutput, Error> {
        Ok(ModelOutput { model_id: item.text("model_id")?, step: item.opt_int("step")?.unwrap_or(0) })
    };
    let outputs = fields.objects("models")?.into_iter().map(output).collect::<Result<_, _>>()?;
    tracking.store().log_outputs(fields.run_id()?, outputs).await?;
    Ok(EMPTY)
}

async fn history(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<History> {
    let limit = fields.opt_int("max_results")?;
    if let Some(limit) = limit.filter(|limit| *limit < 1) {
        return Err(Error::invalid("max_results", format!("{limit} is not positive")));
    }
    let (run, key, token) = (fields.run_id()?, fields.text("metric_key")?, fields.opt_text("page_token")?);
    let page = tracking.store().metric_history(run, key, limit, token).await?;
    Ok(Json(History { metrics: page.items, next_page_token: page.next }))
}
