//! `logged-models/*` of the REST API.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{delete, patch, post},
};
use serde::Serialize;

use super::{Answer, EMPTY, Empty, request::Fields, runs::experiment_ids};
use crate::{
    Tracking,
    error::Error,
    store::{LoggedModel, ModelSearch, NewModel, experiment_id},
};

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/logged-models", post(create))
        .route("/logged-models/search", post(search))
        .route("/logged-models/{model_id}", patch(finalize).get(by_id).delete(remove))
        .route("/logged-models/{model_id}/tags", patch(set_tags))
        .route("/logged-models/{model_id}/tags/{key}", delete(delete_tag))
        .route("/logged-models/{model_id}/params", post(log_params))
}

#[derive(Serialize)]
struct One {
    model: LoggedModel,
}

#[derive(Serialize)]
struct Found {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    models: Vec<LoggedModel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

async fn create(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<One> {
    let model = NewModel {
        experiment_id: experiment_id(&fields.text("experiment_id")?)?,
        name: fields.opt_text("name")?,
        model_type: fields.opt_text("model_type")?.unwrap_or_default(),
        source_run_id: fields.opt_text("source_run_id")?.unwrap_or_default(),
        params: fields.pairs("params")?,
        tags: fields.pairs("tags")?,
    };
    Ok(Json(One { model: tracking.store().create_model(model).await? }))
}

async fn by_id(State(tracking): State<Tracking>, Path(id): Path<String>) -> Answer<One> {
    Ok(Json(One { model: tracking.store().model(id).await? }))
}

async fn finalize(State(tracking): State<Tracking>, Path(id): Path<String>, mut fields: Fields) -> Answer<One> {
    let status = fields.text("status")?.parse()?;
    Ok(Json(One { model: tracking.store().finalize_model(id, status).await? }))
}

async fn remove(State(tracking): State<Tracking>, Path(id): Path<String>) -> Answer<Empty> {
    tracking.store().delete_model(id).await?;
    Ok(EMPTY)
}

async fn set_tags(State(tracking): State<Tracking>, Path(id): Path<String>, mut fields: Fields) -> Answer<One> {
    let tags = fields.pairs("tags")?;
    Ok(Json(One { model: tracking.store().set_model_tags(id, tags).await? }))
}

async fn delete_tag(State(tracking): State<Tracking>, Path((id, key)): Path<(String, String)>) -> Answer<Empty> {
    tracking.store().delete_model_tag(id, key).await?;
    Ok(EMPTY)
}

async fn log_params(State(tracking): State<Tracking>, Path(id): Path<String>, mut fields: Fields) -> Answer<Empty> {
    tracking.store().log_model_params(id, fields.pairs("params")?).await?;
    Ok(EMPTY)
}

async fn search(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Found> {
    if !fields.objects("datasets")?.is_empty() {
        return Err(Error::invalid("datasets", "is not supported: this server keeps no data sets of logged models"));
    }
    let order = |mut item: Fields| -> Result<String, Error> {
        let direction = if item.opt_bool("ascending")?.unwrap_or(true) { "ASC" } else { "DESC" };
        Ok(format!("{} {direction}", item.text("field_name")?))
    };
    let search = ModelSearch {
        experiment_ids: experiment_ids(&mut fields)?,
        filter: fields.opt_text("filter")?.unwrap_or_default(),
        max_results: fields.opt_int("max_results")?.unwrap_or(50),
        order_by: fields.objects("order_by")?.into_iter().map(order).collect::<Result<_, _>>()?,
        page_token: fields.opt_text("page_token")?,
    };
    let page = tracking.store().search_models(search).await?;
    Ok(Json(Found { models: page.items, next_page_token: page.next }))
}
