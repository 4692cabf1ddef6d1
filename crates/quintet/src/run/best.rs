//! `config_from`: the best configuration of a sweep becomes part of a stage.

use std::collections::BTreeMap;

use quintet_proto::{
    types::Struct,
    v1::{
        BuildFinalTrainingConfigRequest, GetBestConfigRequest, Hyperparameters, Job, MergePolicy, TrainSpec,
        hpo_service_client::HpoServiceClient, job_spec::Kind, training_service_client::TrainingServiceClient,
    },
};
use runtime_core::client::{Backoff, Connection, is_transient};
use serde_json::{Map, Value, json};
use tonic::{Response, Status};

use crate::{failure::Failure, report::assemble::whole};

/// Repetitions of a call that the server could not answer: with pauses of up to 2 s, some two minutes.
const REPETITIONS: u32 = 60;

/// What was merged into a job.
pub(crate) struct Applied {
    /// Why it is the best, when not only the metric decides.
    pub(crate) reasons: Vec<String>,
    /// The configuration, with the study and the trial that it comes from.
    pub(crate) best_config: Struct,
}

/// Merges the best configuration of a study into a job.
///
/// # Errors
/// The study has no completed trial, or a key of the configuration is unknown to the trainer.
pub(crate) async fn apply(
    connection: &Connection,
    request: GetBestConfigRequest,
    job: &mut Job,
) -> Result<Applied, Failure> {
    let best =
        repeat(async || HpoServiceClient::new(connection.clone()).get_best_config(request.clone()).await).await?;
    let reasons = if best.strategy == "metric" { Vec::new() } else { best.reasons };
    let best = best.best_config.unwrap_or_default();
    let applied = Applied { reasons, best_config: best.clone() };
    match job.spec.as_mut().and_then(|spec| spec.kind.as_mut()) {
        Some(Kind::Train(train)) => {
            let request = merge_request(best, train)?;
            let call = async || {
                TrainingServiceClient::new(connection.clone()).build_final_training_config(request.clone()).await
            };
            let merged = repeat(call).await?;
            if train.checkpoint.is_empty() && train.backbone.is_empty() {
                train.backbone = merged.backbone;
            }
            train.hyperparameters = merged.hyperparameters;
            Ok(applied)
        }
        Some(Kind::Command(command)) => {
            command.parameters.extend(parameters(&best)?);
            Ok(applied)
        }
        _ => Err(Failure::usage("only train and command stages take a configuration")),
    }
}

pub(super) async fn repeat<T>(mut call: impl AsyncFnMut() -> Result<Response<T>, Status>) -> Result<T, Status> {
    let mut backoff = Backoff::default();
    loop {
        match call().await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) if is_transient(&status) && backoff.count() < REPETITIONS => backoff.pause().await,
            Err(status) => return Err(status),
        }
    }
}

/// Everything that the sweep tuned wins; what the stage gives beside it stays.
fn merge_request(best: Struct, train: &TrainSpec) -> Result<BuildFinalTrainingConfigRequest, Failure> {
    let broken = |error: serde_json::Error| Failure::failed(format!("the best configuration cannot be read: {error}"));
    let mut best = serde_json::to_value(best).map_err(broken)?;
    if let Some(map) = best.as_object_mut()
        && map.get("backbone").is_some_and(|backbone| backbone.as_str() == Some("") || backbone.is_null())
    {
        // A sweep over command jobs knows no encoder; the stage names it.
        map.remove("backbone");
    }
    let own = train.hyperparameters.clone().unwrap_or_default();
    let mut config = Map::from_iter([("hyperparameters".to_owned(), numbers(&own).map_err(broken)?)]);
    if let Some(own) = [&train.checkpoint, &train.backbone].into_iter().find(|own| !own.is_empty()) {
        config.insert("backbone".into(), own.clone().into());
    }
    Ok(BuildFinalTrainingConfigRequest {
        best_config: Some(serde_json::from_value(best).map_err(broken)?),
        train_config: Some(serde_json::from_value(Value::Object(config)).map_err(broken)?),
        policy: MergePolicy::ApplyBest.into(),
        random_seed: None,
        final_training: None,
    })
}

/// The JSON form writes 64-bit integers as text; a configuration has numbers.
fn numbers(own: &Hyperparameters) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(own)?;
    if let (Some(map), Some(seed)) = (value.as_object_mut(), own.seed) {
        map.insert("seed".into(), json!(seed));
    }
    Ok(value)
}

/// The tuned values as the texts of `${{search_space.x}}`.
fn parameters(best: &Struct) -> Result<BTreeMap<String, String>, Failure> {
    let value = serde_json::to_value(best).map_err(|error| Failure::failed(error.to_string()))?;
    let Some(Value::Object(values)) = value.get("hyperparameters").cloned() else { return Ok(BTreeMap::new()) };
    let text = |value: Value| match whole(value) {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(values.into_iter().map(|(name, value)| (name, text(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(value: Value) -> Struct {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_request_holds_both_sides_as_numbers() {
        let train = TrainSpec {
            checkpoint: "/enc".into(),
            hyperparameters: Some(Hyperparameters { epochs: Some(6), seed: Some(7), ..Hyperparameters::default() }),
            ..TrainSpec::default()
        };
        let tuned = best(json!({"study": "s", "trial": 3, "backbone": "", "hyperparameters": {"batch_size": 16}}));
        let request = merge_request(tuned, &train).unwrap();
        assert_eq!(request.policy(), MergePolicy::ApplyBest);
        let config = serde_json::to_value(request.train_config.unwrap()).unwrap();
        assert_eq!(config, json!({"hyperparameters": {"epochs": 6.0, "seed": 7.0}, "backbone": "/enc"}));
        assert!(!request.best_config.unwrap().fields.contains_key("backbone"));
    }

    #[test]
    fn parameters_of_commands_are_text_as_a_person_writes_it() {
        let tuned = best(json!({"hyperparameters": {"n": 16, "lr": 5e-5, "kind": "a", "flag": true}}));
        let parameters = parameters(&tuned).unwrap();
        let texts: Vec<&str> = ["n", "lr", "kind", "flag"].iter().map(|name| parameters[*name].as_str()).collect();
        assert_eq!(texts[0], "16");
        assert_eq!(texts[1].parse::<f64>().unwrap(), 5e-5);
        assert_eq!(texts[2..], ["a", "true"]);
    }
}
