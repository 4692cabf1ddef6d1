//! `quintet hpo`: studies and their trials.

use quintet_proto::v1::{
    GetStudyRequest, ListStudiesRequest, ListTrialsRequest, Study, Trial, hpo_service_client::HpoServiceClient,
};
use runtime_core::client::{Connection, MAX_MESSAGE};
use serde_json::{Map, Value, json};

use crate::{
    cli::{Format, HpoCommand},
    connect::Server,
    failure::Failure,
    jobs::{print, write},
    report::{assemble::whole, table},
};

/// Runs one of the commands.
///
/// # Errors
/// The failure with its exit code.
pub(crate) async fn hpo(command: HpoCommand) -> Result<(), Failure> {
    let (HpoCommand::List { target } | HpoCommand::Show { target, .. }) = &command;
    let server = Server::open(target, false).await?;
    let client = HpoServiceClient::new(server.connection.clone()).max_decoding_message_size(MAX_MESSAGE);
    let result = match &command {
        HpoCommand::List { .. } => list(client).await,
        HpoCommand::Show { study, output, .. } => show(client, study, *output).await,
    };
    server.close().await;
    result
}

async fn list(mut client: HpoServiceClient<Connection>) -> Result<(), Failure> {
    let mut table = table::plain(["STUDY", "DIRECTION", "TRIALS", "BEST", "STORAGE"]);
    let mut request = ListStudiesRequest::default();
    loop {
        let page = client.list_studies(request.clone()).await?.into_inner();
        for study in &page.studies {
            table.add_row([
                bare(&study.name).to_owned(),
                study.direction().as_str_name().to_owned(),
                study.trial_count.to_string(),
                study.best.as_ref().and_then(|best| best.value).map_or_else(String::new, table::number),
                study.storage.clone(),
            ]);
        }
        if page.next_page_token.is_empty() {
            return write(&lines(&table));
        }
        request.page_token = page.next_page_token;
    }
}

async fn show(mut client: HpoServiceClient<Connection>, study: &str, output: Format) -> Result<(), Failure> {
    let name = format!("studies/{}", bare(study));
    let study = client.get_study(GetStudyRequest { name: name.clone() }).await?.into_inner();
    let mut trials: Vec<Trial> = Vec::new();
    let mut request = ListTrialsRequest { parent: name, page_size: 1000, page_token: String::new() };
    loop {
        let page = client.list_trials(request.clone()).await?.into_inner();
        trials.extend(page.trials);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    match output {
        Format::Table => write(&shown(&study, &trials)),
        other => print(&json!({"study": study, "trials": trials}), other),
    }
}

fn bare(name: &str) -> &str {
    name.strip_prefix("studies/").unwrap_or(name)
}

fn parameters(trial: &Trial) -> Map<String, Value> {
    match trial.parameters.as_ref().and_then(|parameters| serde_json::to_value(parameters).ok()).map(whole) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn shown(study: &Study, trials: &[Trial]) -> String {
    let mut table = table::plain(["TRIAL", "STATE", "VALUE", "PARAMETERS", "JOB", "ERROR"]);
    for trial in trials {
        table.add_row([
            trial.number.to_string(),
            trial.state().as_str_name().trim_start_matches("TRIAL_").to_owned(),
            trial.value.map_or_else(String::new, table::number),
            table::parameters(&parameters(trial)),
            trial.job.trim_start_matches("jobs/").chars().take(8).collect(),
            trial.error.lines().next().unwrap_or_default().chars().take(80).collect(),
        ]);
    }
    let mut text = lines(&table);
    match &study.best {
        Some(best) => {
            let value = best.value.map_or_else(String::new, table::number);
            text += &format!("\nbest: trial {}, {value}\n  {}\n", best.number, table::parameters(&parameters(best)));
        }
        None => text += "\nno trial has completed\n",
    }
    if !study.storage.is_empty() {
        text += &format!("\noptuna.load_study(study_name={:?}, storage={:?})\n", bare(&study.name), study.storage);
    }
    text
}

fn lines(table: &comfy_table::Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::TrialState;

    use super::*;

    #[test]
    fn a_study_is_shown_with_its_best_and_how_to_load_it() {
        let trial = Trial {
            number: 3,
            state: TrialState::TrialComplete.into(),
            value: Some(0.5),
            parameters: serde_json::from_value(json!({"batch_size": 16, "kind": "a"})).unwrap(),
            job: "jobs/0123456789abcdef0123456789abcdef".into(),
            ..Trial::default()
        };
        let study = Study {
            name: "studies/s".into(),
            best: Some(trial.clone()),
            storage: "sqlite:////d".into(),
            ..Study::default()
        };
        let text = shown(&study, &[trial]);
        assert!(
            text.contains("3") && text.contains("COMPLETE") && text.contains("batch_size = 16, kind = a"),
            "{text}"
        );
        assert!(text.contains("01234567") && text.contains("best: trial 3, 0.5000"), "{text}");
        assert!(text.ends_with("optuna.load_study(study_name=\"s\", storage=\"sqlite:////d\")\n"), "{text}");
    }
}
