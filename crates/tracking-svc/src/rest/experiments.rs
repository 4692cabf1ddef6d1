//! `experiments/*` of the REST API.

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
    model::{Experiment, Lifecycle},
    store::{ExperimentSearch, experiment_id},
};

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/experiments/create", post(create))
        .route("/experiments/get", get(by_id))
        .route("/experiments/get-by-name", get(by_name))
        .route("/experiments/search", get(search).post(search))
        .route("/experiments/delete", post(delete))
        .route("/experiments/restore", post(restore))
        .route("/experiments/update", post(update))
        .route("/experiments/set-experiment-tag", post(set_tag))
        .route("/experiments/delete-experiment-tag", post(delete_tag))
}

#[derive(Serialize)]
struct Created {
    experiment_id: String,
}

#[derive(Serialize)]
struct One {
    experiment: Experiment,
}

#[derive(Serialize)]
struct Found {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    experiments: Vec<Experiment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

fn id(fields: &mut Fields) -> Result<i64, Error> {
    experiment_id(&fields.text("experiment_id")?)
}

async fn create(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Created> {
    let location = fields.opt_text("artifact_location")?.filter(|location| !location.is_empty());
    let (name, tags) = (fields.text("name")?, fields.pairs("tags")?);
    let experiment = tracking.store().create_experiment(name, location, tags).await?;
    Ok(Json(Created { experiment_id: experiment.experiment_id.to_string() }))
}

async fn by_id(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<One> {
    let experiment = tracking.store().experiment(id(&mut fields)?).await?;
    Ok(Json(One { experiment }))
}

async fn by_name(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<One> {
    let experiment = tracking.store().experiment_by_name(fields.text("experiment_name")?).await?;
    Ok(Json(One { experiment }))
}

async fn search(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Found> {
    let search = ExperimentSearch {
        filter: fields.opt_text("filter")?.unwrap_or_default(),
        view: fields.opt_text("view_type")?.map_or(Ok(Default::default()), |view| view.parse())?,
        max_results: fields.int("max_results")?,
        order_by: fields.texts("order_by")?,
        page_token: fields.opt_text("page_token")?,
    };
    let page = tracking.store().search_experiments(search).await?;
    Ok(Json(Found { experiments: page.items, next_page_token: page.next }))
}

async fn delete(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Empty> {
    tracking.store().set_experiment_lifecycle(id(&mut fields)?, Lifecycle::Deleted).await?;
    Ok(EMPTY)
}

async fn restore(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Empty> {
    tracking.store().set_experiment_lifecycle(id(&mut fields)?, Lifecycle::Active).await?;
    Ok(EMPTY)
}

async fn update(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Empty> {
    tracking.store().rename_experiment(id(&mut fields)?, fields.text("new_name")?).await?;
    Ok(EMPTY)
}

async fn set_tag(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Empty> {
    tracking.store().set_experiment_tag(id(&mut fields)?, fields.pair()?).await?;
    Ok(EMPTY)
}

async fn delete_tag(State(tracking): State<Tracking>, mut fields: Fields) -> Answer<Empty> {
    tracking.store().delete_experiment_tag(id(&mut fields)?, fields.text("key")?).await?;
    Ok(EMPTY)
}
