//! `quintet hpo`: studies and their trials.

use hpo_svc::{
    study::{self, Trial},
    view::export::read_json,
};
use quintet_proto::v1::{
    DeleteStudyRequest, ExportStudyRequest, GetStudyRequest, ListStudiesRequest, ListTrialsRequest, Study,
    hpo_service_client::HpoServiceClient,
};
use runtime_core::client::{Connection, MAX_MESSAGE};
use serde_json::json;

use crate::{
    cli::{Format, HpoCommand},
    connect::Server,
    failure::Failure,
    jobs::{print, write},
    report::table,
};

mod best;
mod brief;
mod files;
mod plots;
mod png;
mod show;
pub(crate) mod space;
mod steer;

pub(crate) use best::{BestArgs, ValidateArgs};

type Client = HpoServiceClient<Connection>;

/// Runs one of the commands.
///
/// # Errors
/// The failure with its exit code.
pub(crate) async fn hpo(command: HpoCommand) -> Result<(), Failure> {
    // What is wrong with the files is told before a server is asked.
    let plots = match &command {
        HpoCommand::Show { plot, .. } => plots::parse(plot)?,
        HpoCommand::Export { file, .. } => files::check_target(file).map(|()| Vec::new())?,
        _ => Vec::new(),
    };
    let (HpoCommand::List { target }
    | HpoCommand::Show { target, .. }
    | HpoCommand::Best(BestArgs { target, .. })
    | HpoCommand::Validate(ValidateArgs { target, .. })
    | HpoCommand::Space { target, .. }
    | HpoCommand::Export { target, .. }
    | HpoCommand::Import { target, .. }
    | HpoCommand::Pause { target, .. }
    | HpoCommand::Resume { target, .. }
    | HpoCommand::Extend { target, .. }
    | HpoCommand::Delete { target, .. }) = &command;
    let server = Server::open(target, false).await?;
    let client = HpoServiceClient::new(server.connection.clone()).max_decoding_message_size(MAX_MESSAGE);
    let result = match &command {
        HpoCommand::List { .. } => list(client).await,
        HpoCommand::Show { study, output, objective, .. } => {
            show(client, study, *output, &plots, objective.as_deref()).await
        }
        HpoCommand::Best(args) => best::best(client, args).await,
        HpoCommand::Validate(args) => best::validate(client, &server.jobs(), args).await,
        HpoCommand::Space { study, form, output, .. } => space::print(client, study, *form, *output).await,
        HpoCommand::Export { study, file, .. } => files::export(client, study, file).await,
        HpoCommand::Import { file, study, name, .. } => {
            files::import(client, file, study.as_deref(), name.as_deref()).await
        }
        HpoCommand::Pause { study, .. } => steer::pause(client, study).await,
        HpoCommand::Resume { study, .. } => steer::resume(client, study).await,
        HpoCommand::Extend { study, max_trials, .. } => steer::extend(client, study, *max_trials).await,
        HpoCommand::Delete { study, .. } => delete(client, study).await,
    };
    server.close().await;
    result
}

async fn list(mut client: Client) -> Result<(), Failure> {
    let mut table = table::plain(["STUDY", "DIRECTION", "TRIALS", "BEST", "STORAGE"]);
    let mut request = ListStudiesRequest::default();
    loop {
        let page = client.list_studies(request.clone()).await?.into_inner();
        for study in &page.studies {
            table.add_row([
                bare(&study.name).to_owned(),
                study.direction().as_str_name().to_owned(),
                study.trial_count.to_string(),
                best_of(study),
                study.storage.clone(),
            ]);
        }
        if page.next_page_token.is_empty() {
            return write(&lines(&table));
        }
        request.page_token = page.next_page_token;
    }
}

async fn show(
    mut client: Client,
    study: &str,
    output: Format,
    plots: &[plots::Plot],
    objective: Option<&str>,
) -> Result<(), Failure> {
    let name = format!("studies/{}", bare(study));
    let found = client.get_study(GetStudyRequest { name: name.clone() }).await?.into_inner();
    if output != Format::Table {
        let trials = wire_trials(&mut client, name).await?;
        print(&json!({"study": found, "trials": trials}), output)?;
    }
    if output == Format::Table || !plots.is_empty() {
        let (study, trials) = whole(&mut client, study).await?;
        let objective = plots::objective(&study, objective)?;
        if output == Format::Table {
            write(&show::text(&study, &trials, &found.storage))?;
        }
        plots::draw(plots, &study, &trials, objective)?;
    }
    Ok(())
}

async fn wire_trials(client: &mut Client, parent: String) -> Result<Vec<quintet_proto::v1::Trial>, Failure> {
    let mut trials = Vec::new();
    let mut request = ListTrialsRequest { parent, page_size: 1000, page_token: String::new() };
    loop {
        let page = client.list_trials(request.clone()).await?.into_inner();
        trials.extend(page.trials);
        if page.next_page_token.is_empty() {
            return Ok(trials);
        }
        request.page_token = page.next_page_token;
    }
}

/// A study with everything that its trials have.
async fn whole(client: &mut Client, study: &str) -> Result<(study::Study, Vec<Trial>), Failure> {
    let request = ExportStudyRequest { name: format!("studies/{}", bare(study)) };
    let mut pieces = client.export_study(request).await?.into_inner();
    let mut text = Vec::new();
    while let Some(piece) = pieces.message().await? {
        text.extend_from_slice(&piece.data);
    }
    let broken = |error: String| Failure::failed(format!("the server has sent no study: {error}"));
    let document = serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
    read_json(&document).map_err(|error| broken(error.to_string()))
}

async fn delete(mut client: Client, study: &str) -> Result<(), Failure> {
    client.delete_study(DeleteStudyRequest { name: format!("studies/{}", bare(study)) }).await?;
    Ok(())
}

fn bare(name: &str) -> &str {
    name.strip_prefix("studies/").unwrap_or(name)
}

/// The values of a study's best trial, or how many objectives it has.
fn best_of(study: &Study) -> String {
    match &study.best {
        Some(best) => best.value.map_or_else(String::new, table::number),
        None if study.directions.len() > 1 => format!("{} objectives", study.directions.len()),
        None => String::new(),
    }
}

fn lines(table: &comfy_table::Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
