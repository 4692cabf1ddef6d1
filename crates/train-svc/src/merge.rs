//! Merges the best configuration of a sweep into a training configuration.
//!
//! The default policy is that of the system before this one: batch size and epochs belong to the training configuration,
//! everything else that the sweep tuned wins. A key that nobody reads is an error, never silently dropped.

use std::collections::BTreeMap;

use quintet_proto::{
    Form, hyperparameters,
    v1::{BuildFinalTrainingConfigResponse, Hyperparameters, MergePolicy},
};
use runtime_core::status::violation;
use serde_json::{Map, Value, json};
use tonic_types::FieldViolation;

use crate::hyper::Hyper;

/// What a best configuration may carry beside `backbone` and `hyperparameters`: where it came from.
const PROVENANCE: [&str; 8] =
    ["study", "trial", "trial_name", "trial_id", "metrics", "dataset_version", "selection_criteria", "cv_statistics"];

/// Values of the system before this one, for what neither side gives.
fn seed_defaults() -> Map<String, Value> {
    let defaults = json!({
        "learning_rate": 2e-5, "dropout": 0.1, "weight_decay": 0.01, "batch_size": 16, "epochs": 5, "seed": 42,
    });
    defaults.as_object().cloned().unwrap_or_default()
}

/// Keys that the training configuration alone decides under the default policy.
const TRAIN_CONFIG_ONLY: [&str; 2] = ["batch_size", "epochs"];

/// Keys that the final training's own configuration alone decides under the default policy.
const FINAL_TRAINING_ONLY: [&str; 2] = ["early_stopping_patience", "early_stopping_threshold"];

/// One side: its backbone and its hyperparameters by name.
struct Side {
    backbone: Option<String>,
    values: Map<String, Value>,
}

/// Merges: defaults, then the training configuration, then the best configuration by the policy, then what the final training has of
/// its own, then the seed. A value that is null is not given.
///
/// Both configurations are `{backbone, hyperparameters: {...}}`, and a training configuration may say `training: {...}` for the
/// latter, with `random_seed` for `seed`.
///
/// # Errors
/// Every unknown key by its path, and every value of the wrong kind or out of its range by `hyperparameters.NAME`.
pub fn merge(
    best_config: &Value,
    train_config: &Value,
    final_training: &Value,
    policy: MergePolicy,
    random_seed: Option<u64>,
) -> Result<BuildFinalTrainingConfigResponse, Vec<FieldViolation>> {
    let mut wrong = Vec::new();
    let best = read("best_config", best_config, &mut wrong);
    let train = read("train_config", train_config, &mut wrong);
    let own = read("final_training", final_training, &mut wrong);
    let backbone = best.backbone.or(train.backbone).unwrap_or_default();
    if backbone.is_empty() {
        wrong.push(violation("best_config.backbone", "is missing; name the encoder that the sweep tuned"));
    }
    let mut values = seed_defaults();
    let mut sources: BTreeMap<String, String> = values.keys().map(|key| (key.clone(), "default".to_owned())).collect();
    let apply_all = policy == MergePolicy::ApplyBest;
    let shared = |key: &str| apply_all || !FINAL_TRAINING_ONLY.contains(&key);
    for (key, value) in train.values.into_iter().filter(|(key, _)| shared(key)) {
        sources.insert(key.clone(), "train_config".into());
        values.insert(key, value);
    }
    for (key, value) in best.values.into_iter().filter(|(key, _)| shared(key)) {
        if apply_all || !TRAIN_CONFIG_ONLY.contains(&key.as_str()) {
            sources.insert(key.clone(), "best_config".into());
            values.insert(key, value);
        }
    }
    for (key, value) in own.values {
        sources.insert(key.clone(), "final_training".into());
        values.insert(key, value);
    }
    if let Some(seed) = random_seed {
        values.insert("seed".into(), seed.into());
        sources.insert("seed".into(), "random_seed".into());
    }
    let early_stopping = values.contains_key("early_stopping_patience");
    let hyperparameters = checked(values, &sources, &mut wrong);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(BuildFinalTrainingConfigResponse {
        backbone,
        hyperparameters: Some(hyperparameters),
        sources,
        use_combined_data: true,
        use_all_data: true,
        early_stopping,
    })
}

/// The message of these values; each one that cannot be read or that training refuses is a violation.
fn checked(
    mut values: Map<String, Value>,
    sources: &BTreeMap<String, String>,
    wrong: &mut Vec<FieldViolation>,
) -> Hyperparameters {
    let single = |key: &String, value: &Value| Value::Object(Map::from_iter([(key.clone(), value.clone())]));
    values.retain(|key, value| {
        let read = serde_json::from_value::<Hyperparameters>(single(key, value));
        if read.is_err() {
            let source = sources.get(key).map(String::as_str).unwrap_or_default();
            let problem = format!("found {value} in {source}, expected {}", kind_of(key));
            wrong.push(violation(format!("hyperparameters.{key}"), problem));
        }
        read.is_ok()
    });
    // Each value alone was readable, so all of them are.
    let hyperparameters = serde_json::from_value(Value::Object(values)).unwrap_or_default();
    if let Err(errors) = Hyper::from_proto(&hyperparameters) {
        wrong.extend(errors.violations(""));
    }
    hyperparameters
}

/// What a hyperparameter takes.
fn kind_of(name: &str) -> &'static str {
    match hyperparameters().iter().find(|known| known.name == name).map(|known| known.form) {
        Some(Form::Integer) => "a whole number that fits",
        Some(Form::Boolean) => "true or false",
        Some(Form::Word) => "a word",
        Some(Form::Map) => "an object of numbers by name",
        Some(Form::Real) | None => "a number",
    }
}

fn read(name: &str, config: &Value, wrong: &mut Vec<FieldViolation>) -> Side {
    let mut side = Side { backbone: None, values: Map::new() };
    let Some(fields) = config.as_object() else {
        if !config.is_null() {
            wrong.push(violation(name, "is not an object"));
        }
        return side;
    };
    for (key, value) in fields {
        match (key.as_str(), value) {
            (_, Value::Null) => {}
            ("seed", Value::Number(_)) if name == "final_training" => {
                let seed = Map::from_iter([("seed".to_owned(), value.clone())]);
                read_values(name, key, &seed, &mut side, wrong);
            }
            ("seed", other) if name == "final_training" => {
                wrong.push(violation(format!("{name}.seed"), format!("{other} is not a whole number of 0 or more")));
            }
            (key, _) if name == "final_training" && !matches!(key, "training" | "hyperparameters") => {
                let known = "seed, training and hyperparameters";
                wrong.push(violation(format!("{name}.{key}"), format!("is not a key that is read; {known} are")));
            }
            ("backbone", Value::String(text)) if !text.is_empty() => side.backbone = Some(text.clone()),
            ("backbone", other) => wrong.push(violation(format!("{name}.backbone"), format!("{other} is not a name"))),
            ("hyperparameters", Value::Object(values)) => read_values(name, key, values, &mut side, wrong),
            ("training", Value::Object(values)) if name != "best_config" => {
                read_values(name, key, values, &mut side, wrong);
            }
            (key, _) if name == "best_config" && PROVENANCE.contains(&key) => {}
            (key, _) => {
                let known = "backbone and hyperparameters";
                wrong.push(violation(format!("{name}.{key}"), format!("is not a key that is read; {known} are")));
            }
        }
    }
    side
}

fn read_values(name: &str, group: &str, values: &Map<String, Value>, side: &mut Side, wrong: &mut Vec<FieldViolation>) {
    for (key, value) in values {
        if value.is_null() {
            continue;
        }
        let field = if key == "random_seed" && group == "training" { "seed" } else { key.as_str() };
        if !hyperparameters().iter().any(|known| known.name == field) {
            let known: Vec<&str> = hyperparameters().iter().map(|known| known.name.as_str()).collect();
            let known = known.join(", ");
            wrong.push(violation(
                format!("{name}.{group}.{key}"),
                format!("is not a hyperparameter; known are {known}"),
            ));
            continue;
        }
        // JSON numbers of a protobuf Struct are doubles: a whole one stands for the integer.
        let value = match value.as_f64() {
            Some(number) if number.fract() == 0.0 && number.abs() < 9e15 => json!(number as i64),
            _ => value.clone(),
        };
        side.values.insert(field.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(violations: Vec<FieldViolation>) -> Vec<String> {
        violations.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn the_default_policy_is_that_of_the_system_before() {
        let best = json!({
            "backbone": "distilbert", "trial": 3, "metrics": {},
            "hyperparameters": {"learning_rate": 3e-5, "batch_size": 8.0, "epochs": 1, "warmup_ratio": 0.1},
        });
        let train = json!({"training": {"batch_size": 32, "learning_rate": 1e-4, "random_seed": 7.0}});
        let merged = merge(&best, &train, &Value::Null, MergePolicy::Unspecified, None).unwrap();
        let values = merged.hyperparameters.unwrap();
        assert_eq!((values.learning_rate, values.batch_size, values.epochs), (Some(3e-5), Some(32), Some(5)));
        assert_eq!((values.dropout, values.weight_decay, values.warmup_ratio), (Some(0.1), Some(0.01), Some(0.1)));
        assert_eq!(values.seed, Some(7));
        let source = |key: &str| merged.sources[key].as_str();
        assert_eq!(
            (source("learning_rate"), source("batch_size"), source("epochs")),
            ("best_config", "train_config", "default")
        );
        assert_eq!((merged.backbone.as_str(), merged.early_stopping, merged.use_all_data), ("distilbert", false, true));
    }

    #[test]
    fn apply_best_applies_every_key() {
        let best = json!({"backbone": "b", "hyperparameters": {"batch_size": 8, "epochs": 1}});
        let train = json!({"hyperparameters": {"batch_size": 32, "epochs": 9, "max_length": 64}});
        let merged = merge(&best, &train, &Value::Null, MergePolicy::ApplyBest, Some(1)).unwrap();
        let values = merged.hyperparameters.unwrap();
        assert_eq!(
            (values.batch_size, values.epochs, values.max_length, values.seed),
            (Some(8), Some(1), Some(64), Some(1))
        );
        assert_eq!(merged.sources["seed"], "random_seed");
        let patient = json!({"hyperparameters": {"early_stopping_patience": 2}});
        let stops = |train: &Value, own: &Value, policy| merge(&best, train, own, policy, None).unwrap().early_stopping;
        assert!(stops(&patient, &Value::Null, MergePolicy::ApplyBest));
        assert!(!stops(&patient, &Value::Null, MergePolicy::SeedCompatible));
        assert!(stops(&train, &patient, MergePolicy::SeedCompatible));
    }

    #[test]
    fn what_the_final_training_has_of_its_own_wins() {
        let best = json!({"backbone": "b", "hyperparameters": {"learning_rate": 3e-5, "dropout": 0.2}});
        let train = json!({"training": {"batch_size": 32, "epochs": 4, "random_seed": 7, "max_length": null}});
        let own = json!({"training": {"learning_rate": 1e-5, "epochs": 9, "dropout": null}, "seed": 11, "hyperparameters": null});
        let merged = merge(&best, &train, &own, MergePolicy::Unspecified, None).unwrap();
        let values = merged.hyperparameters.unwrap();
        assert_eq!((values.learning_rate, values.epochs, values.seed), (Some(1e-5), Some(9), Some(11)));
        assert_eq!((values.dropout, values.batch_size, values.max_length), (Some(0.2), Some(32), None));
        let sources = ["learning_rate", "epochs", "seed", "dropout", "batch_size", "weight_decay"];
        let told = sources.map(|key| merged.sources[key].as_str());
        assert_eq!(
            told,
            ["final_training", "final_training", "final_training", "best_config", "train_config", "default"]
        );
        // The order of the seeds: the call's, the final training's, the training configuration's, 42.
        let seed = |own: &Value, train: &Value, call| {
            merge(&best, train, own, MergePolicy::Unspecified, call).unwrap().hyperparameters.unwrap().seed.unwrap()
        };
        assert_eq!(seed(&own, &train, Some(3)), 3);
        assert_eq!(seed(&json!({"seed": null}), &train, None), 7);
        assert_eq!(seed(&json!(null), &json!(null), None), 42);
        let wrong = json!({"variant": 3, "training": {"lr": 1}, "seed": "x"});
        let found = merge(&best, &train, &wrong, MergePolicy::Unspecified, None).unwrap_err();
        assert_eq!(fields(found), ["final_training.variant", "final_training.training.lr", "final_training.seed"]);
    }

    #[test]
    fn a_key_that_nobody_reads_is_an_error() {
        let best = json!({"backbone": "b", "hyperparameters": {"leaning_rate": 1e-3}, "extra": 1});
        let train = json!({"hyperparameters": {"optimizer": "lion"}, "data": {}});
        assert_eq!(
            fields(merge(&best, &train, &Value::Null, MergePolicy::Unspecified, None).unwrap_err()),
            [
                "best_config.hyperparameters.leaning_rate",
                "best_config.extra",
                "train_config.hyperparameters.optimizer",
                "train_config.data"
            ]
        );
        assert_eq!(
            fields(merge(&json!({}), &json!(null), &Value::Null, MergePolicy::Unspecified, None).unwrap_err()),
            ["best_config.backbone"]
        );
        let best = json!({"backbone": "b", "hyperparameters": {"learning_rate": -1}});
        assert_eq!(
            fields(merge(&best, &json!({}), &Value::Null, MergePolicy::Unspecified, None).unwrap_err()),
            ["hyperparameters.learning_rate"]
        );
        let best = json!({"hyperparameters": {"learning_rate": -1, "dropout": "much", "optim": "sgd"}});
        let train = json!({"training": {"epochs": 1.5, "batch_size": 0}});
        let found = merge(&best, &train, &Value::Null, MergePolicy::Unspecified, None).unwrap_err();
        assert!(
            found.iter().any(|v| v.description == "found 1.5 in train_config, expected a whole number that fits"),
            "{found:?}"
        );
        assert_eq!(
            fields(found),
            [
                "best_config.backbone",
                "hyperparameters.dropout",
                "hyperparameters.epochs",
                "hyperparameters.optim",
                "hyperparameters.learning_rate",
                "hyperparameters.batch_size"
            ]
        );
    }
}
