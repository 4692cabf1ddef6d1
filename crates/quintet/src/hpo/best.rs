//! `quintet hpo best` and `quintet hpo validate`: which trial to build on, why, and whether the sweep may be relied on.

use clap::Args;
use quintet_proto::v1::{
    Candidate, Direction, GetBestConfigRequest, GetBestConfigResponse, Scoring, ValidateSweepRequest,
    ValidateSweepResponse,
};
use runtime_core::client::JobClient;
use serde_json::Value;

use super::{Client, bare, lines};
use crate::{
    cli::{Format, Target},
    failure::Failure,
    jobs::{find, print, write},
    report::table,
};

/// `quintet hpo best`.
#[derive(Debug, Args)]
pub(crate) struct BestArgs {
    /// Names of the studies, one a backbone as a rule
    #[arg(required = true, value_name = "STUDY")]
    pub(crate) studies: Vec<String>,
    /// What decides: an objective, or another metric of the trials [default: the objective]
    #[arg(long, value_name = "METRIC")]
    pub(crate) metric: Option<String>,
    /// Less of the metric is better; objectives know by themselves
    #[arg(long, requires = "metric")]
    pub(crate) minimize: bool,
    /// Weight of one of several objectives; may be given several times
    #[arg(long = "weight", value_name = "OBJECTIVE=WEIGHT", value_parser = named_number, conflicts_with = "metric")]
    pub(crate) weights: Vec<(String, f64)>,
    /// Metric of the trials that is their latency in milliseconds
    #[arg(long, value_name = "METRIC", help_heading = "Speed")]
    pub(crate) latency_metric: Option<String>,
    /// Latency that was measured elsewhere, by number or STUDY/trials/NUMBER; may be given several times
    #[arg(long = "latency", value_name = "TRIAL=MS", value_parser = named_number, help_heading = "Speed")]
    pub(crate) latencies: Vec<(String, f64)>,
    /// How far below the best metric a faster trial may be, as a share of it: 0.015 is 1.5 %
    #[arg(long, value_name = "SHARE", help_heading = "Speed")]
    pub(crate) accuracy_floor: Option<f64>,
    /// What a slower trial has to gain over each faster one to be chosen, as a share of the best metric
    #[arg(long, value_name = "SHARE", help_heading = "Speed")]
    pub(crate) min_gain: Option<f64>,
    /// --accuracy-floor and --min-gain are in units of the metric
    #[arg(long, help_heading = "Speed")]
    pub(crate) absolute: bool,
    /// Chooses by a score of metric and latency, in which the latency has this weight, 0 to 1 [default: 0.3, when no floor or gain is given]
    #[arg(long, value_name = "WEIGHT", help_heading = "Speed")]
    pub(crate) latency_weight: Option<f64>,
    /// Candidates to show at most
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub(crate) limit: i32,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `quintet hpo validate`.
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// Name of the study
    pub(crate) study: String,
    /// Trials that must have completed
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) min_completed: i32,
    /// A metric that every completed trial must have, beside the objectives
    #[arg(long, value_name = "METRIC")]
    pub(crate) metric: Option<String>,
    /// The job of the sweep, by its id or the beginning of it, which must have succeeded
    #[arg(long, value_name = "JOB")]
    pub(crate) job: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) target: Target,
}

fn named_number(text: &str) -> Result<(String, f64), String> {
    let problem = || "is not of the form NAME=NUMBER".to_owned();
    let (name, number) = text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(problem)?;
    Ok((name.to_owned(), number.trim().parse().map_err(|_| problem())?))
}

fn resource(study: &str) -> String {
    format!("studies/{}", bare(study))
}

fn request(args: &BestArgs) -> GetBestConfigRequest {
    let mut studies = args.studies.iter().map(|study| resource(study));
    let weight = |latency_weight| Scoring { latency_weight: Some(latency_weight), ..Scoring::default() };
    GetBestConfigRequest {
        study: studies.next().unwrap_or_default(),
        studies: studies.collect(),
        metric: args.metric.clone().unwrap_or_default(),
        direction: if args.minimize { Direction::Minimize } else { Direction::Unspecified }.into(),
        objective_weights: args.weights.iter().cloned().collect(),
        latency_metric: args.latency_metric.clone().unwrap_or_default(),
        latencies_ms: args.latencies.iter().cloned().collect(),
        scoring: args.latency_weight.map(weight),
        accuracy_threshold: args.accuracy_floor,
        use_relative_threshold: args.absolute.then_some(false),
        min_accuracy_gain: args.min_gain,
        max_candidates: args.limit,
    }
}

/// Shows the best trial, the other candidates and why it is that one.
pub(super) async fn best(mut client: Client, args: &BestArgs) -> Result<(), Failure> {
    let answer = client.get_best_config(request(args)).await?.into_inner();
    match args.output {
        Format::Table => write(&text(&answer)),
        format => print(&answer, format),
    }
}

fn text(answer: &GetBestConfigResponse) -> String {
    let measured = answer.candidates.iter().any(|candidate| candidate.latency_ms.is_some());
    let scored = answer.candidates.iter().any(|candidate| candidate.score.is_some());
    let mut header = vec!["TRIAL".to_owned(), answer.metric.to_uppercase()];
    header.extend(measured.then(|| "LATENCY MS".to_owned()));
    header.extend(scored.then(|| "SCORE".to_owned()));
    header.extend(["PARETO".to_owned(), "NOTE".to_owned()]);
    let mut table = table::plain([""; 0]);
    table.set_header(header);
    let number = |value: Option<f64>| value.map(table::number).unwrap_or_default();
    for candidate in &answer.candidates {
        let mut row = vec![bare(&candidate.trial).replace("/trials/", " "), number(candidate.metric)];
        row.extend(measured.then(|| number(candidate.latency_ms)));
        row.extend(scored.then(|| number(candidate.score)));
        row.extend([if candidate.pareto_front { "front" } else { "" }.to_owned(), note(candidate)]);
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = lines(&table);
    let hidden = answer.candidate_count - i32::try_from(answer.candidates.len()).unwrap_or(i32::MAX);
    if hidden > 0 {
        text += &format!("... and {hidden} more\n");
    }
    text += "\n";
    for reason in &answer.reasons {
        text += &format!("{reason}\n");
    }
    let config = serde_json::to_value(&answer.best_config).unwrap_or_default();
    if let Some(Value::Object(parameters)) = config.get("hyperparameters") {
        text += &format!("\n{}\n", table::parameters(parameters));
    }
    text
}

fn note(candidate: &Candidate) -> String {
    match (candidate.chosen, candidate.champion) {
        (true, _) => "chosen".into(),
        (_, true) => "best of its study".into(),
        _ => candidate.excluded.clone(),
    }
}

/// Says whether a study may be relied on.
pub(super) async fn validate(mut client: Client, jobs: &JobClient, args: &ValidateArgs) -> Result<(), Failure> {
    let job = match &args.job {
        Some(job) => find(jobs, job).await?,
        None => String::new(),
    };
    let request = ValidateSweepRequest {
        study: resource(&args.study),
        min_completed_trials: args.min_completed,
        metric: args.metric.clone().unwrap_or_default(),
        job,
    };
    let answer = client.validate_sweep(request).await?.into_inner();
    match args.output {
        Format::Table => write(&findings(&answer))?,
        format => print(&answer, format)?,
    }
    if answer.valid {
        return Ok(());
    }
    let problems: Vec<String> = answer.problems.iter().map(|problem| format!("\n  {problem}")).collect();
    Err(Failure::failed(format!("study `{}` is not valid:{}", bare(&args.study), problems.concat())))
}

fn findings(answer: &ValidateSweepResponse) -> String {
    let counts: Vec<String> = answer.trials_by_state.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let counts = if counts.is_empty() { "no trials".to_owned() } else { counts.join(", ") };
    let mut text = format!("{counts}\n");
    if let Some(first) = answer.best_trials.first() {
        text += &match answer.best_trials.len() {
            1 => format!("best: {}\n", bare(first).replace("/trials/", " trial ")),
            count => format!("Pareto front: {count} trials\n"),
        };
    }
    for note in &answer.notes {
        text += &format!("note: {note}\n");
    }
    if answer.valid { text + "valid\n" } else { text }
}
