//! The search space of a study, printed in the words of Quintet or of another system.

use clap::ValueEnum;
use hpo_svc::{
    space::{
        Space,
        forms::{Form, Style, to_azureml, to_optuna, to_plain},
    },
    study::{Study, Trial},
    sweep::ATTR_SPACE,
};
use serde_json::{Value, json};

use super::{Client, whole};
use crate::{failure::Failure, jobs::write};

/// Whose words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Words {
    /// The list of a pipeline file.
    Quintet,
    /// A sweep job of AzureML; bounds of `loguniform` are logarithms.
    Azureml,
    /// A request to AzureML: `["uniform", [0, 1]]`.
    AzuremlRequest,
    /// Optuna's distributions.
    Optuna,
    /// choice, uniform and loguniform; bounds are values.
    Plain,
}

/// How to write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Syntax {
    /// As a pipeline file and a job's file have it.
    Yaml,
    /// One JSON object.
    Json,
}

/// Prints the space; what the other system understands otherwise is told on standard error.
///
/// # Errors
/// The server's, or a study without a space.
pub(super) async fn print(mut client: Client, study: &str, words: Words, syntax: Syntax) -> Result<(), Failure> {
    let (study, trials) = whole(&mut client, study).await?;
    let space = of(&study, &trials).map_err(|problem| Failure::failed(format!("study `{}`: {problem}", study.name)))?;
    let form = written(&space, words).map_err(|error| Failure::failed(error.to_string()))?;
    for note in &form.notes {
        eprintln!("note: {note}");
    }
    let document = json!({"search_space": form.document});
    let text = match syntax {
        Syntax::Json => serde_json::to_string_pretty(&document).map(|text| text + "\n").map_err(|e| e.to_string()),
        Syntax::Yaml => serde_norway::to_string(&document).map_err(|e| e.to_string()),
    };
    write(&text.map_err(Failure::failed)?)
}

/// The space that the study was created with; without one, as in a study of Optuna's, what its trials were sampled from, each
/// parameter as the latest trial has it.
fn of(study: &Study, trials: &[Trial]) -> Result<Space, String> {
    if let Some(text) = study.user_attrs.get(ATTR_SPACE) {
        return Space::from_json(text);
    }
    let mut found: Vec<(String, hpo_svc::space::Distribution)> = Vec::new();
    for param in trials.iter().flat_map(|trial| trial.params.iter()) {
        match found.iter_mut().find(|(name, _)| *name == param.name) {
            Some((_, distribution)) => *distribution = param.distribution.clone(),
            None => found.push((param.name.clone(), param.distribution.clone())),
        }
    }
    match found.is_empty() {
        true => Err("has no search space yet: none is kept with it, and no trial has a parameter".into()),
        false => Ok(Space::of(found)),
    }
}

fn written(space: &Space, words: Words) -> Result<Form, serde_json::Error> {
    Ok(match words {
        Words::Azureml => to_azureml(space, Style::Job),
        Words::AzuremlRequest => to_azureml(space, Style::Request),
        Words::Optuna => to_optuna(space),
        Words::Plain => to_plain(space),
        Words::Quintet => {
            let messages: Vec<Value> = space.to_proto().iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
            Form { document: messages.into(), notes: Vec::new() }
        }
    })
}
