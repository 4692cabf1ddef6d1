//! The training service: the check of training and prediction jobs, final-training configuration and validation.
//!
//! The engine is the program `train-worker`, the only one that links libtorch; this library starts and serves without it.

pub mod checks;
mod create;
mod data;
pub mod final_training;
pub mod hyper;
pub mod merge;
pub mod predict;
pub mod request;
pub mod service;

use std::{path::Path, sync::Arc};

use quintet_proto::v1::{job_spec::Kind, training_service_server::TrainingServiceServer};
use runtime_core::{
    client::JobClient,
    config::Service,
    host::{Error, Host, PATIENCE},
    jobs::Validator,
    limited,
    status::violation,
};

/// The check of `train` jobs before they are created; fields are told as `spec.train.FIELD`.
pub fn validator() -> Validator {
    Arc::new(|spec, _| {
        let Some(Kind::Train(train)) = &spec.kind else { return vec![violation("spec", "is no training")] };
        match request::TrainRequest::from_spec(train, Path::new(""), None, 1) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.violations("spec.train.").collect(),
        }
    })
}

/// The check of `predict` jobs before they are created; fields are told as `spec.predict.FIELD`.
pub fn predict_validator() -> Validator {
    Arc::new(|spec, _| {
        let Some(Kind::Predict(predict)) = &spec.kind else { return vec![violation("spec", "is no prediction")] };
        match predict::PredictRequest::from_spec(predict, Path::new(""), Path::new(""), 1) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.violations("spec.predict.").collect(),
        }
    })
}

/// Mounts the service on a host.
///
/// # Errors
/// A malformed address of the job service.
pub fn mount(host: Host) -> Result<Host, Error> {
    let jobs = JobClient::new(host.connection(Service::Train)?, PATIENCE);
    let api = service::TrainingApi::new(jobs, host.artifacts().clone());
    let options = host.config().server_options()?;
    let remedy = "run `cargo xtask setup`, then `cargo build -p train-worker`";
    Ok(host
        .kind("train", validator())
        .worker("train", "train-worker", &["worker"], remedy)
        .kind("predict", predict_validator())
        .worker("predict", "train-worker", &["worker"], remedy)
        .service(limited!(TrainingServiceServer::new(api), options)))
}
