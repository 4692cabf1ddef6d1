//! `quintet predict`: what a trained model says of the texts of a file, as one job; the answers come back as a file.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use quintet_proto::v1::{CreateJobRequest, Job, JobSpec, JobState, PredictSpec, PredictionFormat, job_spec::Kind};
use runtime_core::{
    artifacts::ArtifactStore,
    client::JobClient,
    jobs::model::{is_uid, uid_for_request},
    status::violations_of,
};
use tonic::{Code, Status};

use crate::{
    cli::Target,
    connect::Server,
    failure::Failure,
    jobs,
    run::{
        Interrupts,
        follow::{self, Followed},
        view::View,
    },
};

/// Output of the job.
const OUTPUT: &str = "predictions";
/// The file in it.
const FILE: &str = "predictions.jsonl";

pub(crate) const EXAMPLES: &str = "\
Examples:
  quintet predict models/intents new.txt --out answers.jsonl          a text a line
  quintet predict 3f2a new.csv --text-column utterance --top-k 3 --out answers.jsonl
  quintet predict jobs/JOB/outputs/checkpoint new.jsonl --aggregation-strategy first --stride 32 --out answers.jsonl

A row of the output is a JSON object; docs/prediction.md describes input, output and options. The same command on the same content again takes the \
earlier job's answers, unless --force is given.";

/// `quintet predict`.
#[derive(Debug, Args)]
pub(crate) struct PredictArgs {
    /// The model: a checkpoint folder, a training job's id (or the beginning of it), the output of a job, or a URL
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: String,
    /// File of texts; a path, a URL or the output of a job
    #[arg(value_name = "INPUT")]
    input: String,
    /// File for the answers; one that exists is replaced when the new one is complete
    #[arg(short, long, value_name = "FILE.jsonl")]
    out: PathBuf,
    /// Runs the job also where one of equal content has succeeded before
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    answers: Answers,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Reading")]
struct Reading {
    /// Format of the input [default: by the ending of its name, else lines]
    #[arg(long, value_enum)]
    format: Option<InputFormat>,
    /// Key or column of the text [default: text]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    text_column: String,
    /// Key or column of the second text of a pair [default: text_pair]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    text_pair_column: String,
    /// JSON lines: key of a list of words [default: tokens]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    tokens_column: String,
    /// Key or column that identifies a text [default: id]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    id_column: String,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Answers")]
struct Answers {
    /// Tagged words: how sub-tokens become entities: none, simple, first, average or max; with a CRF
    /// all but none are alike [default: simple]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    aggregation_strategy: String,
    /// Tagged words: type to leave out, instead of O; may be given several times
    #[arg(long = "ignore-label", value_name = "LABEL")]
    ignore_labels: Vec<String>,
    /// Tagged words: long texts go in windows that share so many sub-tokens [default: they are cut]
    #[arg(long, value_name = "N")]
    stride: Option<i32>,
    /// Sub-tokens of a row [default: as many as the encoder takes]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    max_length: i32,
    /// Rows given to the model together at most; rows beyond 512 sub-tokens go fewer at a time [default: 32]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    batch_size: i32,
    /// Texts: what makes scores of logits: softmax, sigmoid or none [default: by the model's task]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    function_to_apply: String,
    /// Texts: labels to give, the best first; 0 for all [default: 1, or all of a model of any number of labels]
    #[arg(long, value_name = "N")]
    top_k: Option<i32>,
    /// Texts: leaves out lower scores [default: 0, or 0.5 of a model of any number of labels]
    #[arg(long, value_name = "SCORE")]
    threshold: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InputFormat {
    /// A text a line
    Lines,
    /// A JSON object a line, or one array of objects
    Jsonl,
    /// Columns separated by commas, or by what the first line has most often of tabs, commas, semicolons and bars
    Csv,
    /// Columns separated by tabs
    Tsv,
}

impl PredictArgs {
    fn spec(&self, checkpoint: String, input: String) -> PredictSpec {
        let (reading, answers) = (&self.reading, &self.answers);
        let format = match reading.format {
            None => PredictionFormat::Unspecified,
            Some(InputFormat::Lines) => PredictionFormat::TextLines,
            Some(InputFormat::Jsonl) => PredictionFormat::JsonLines,
            Some(InputFormat::Csv) => PredictionFormat::CsvTable,
            Some(InputFormat::Tsv) => PredictionFormat::TsvTable,
        };
        PredictSpec {
            checkpoint,
            input,
            format: format.into(),
            text_column: reading.text_column.clone(),
            text_pair_column: reading.text_pair_column.clone(),
            tokens_column: reading.tokens_column.clone(),
            id_column: reading.id_column.clone(),
            aggregation_strategy: answers.aggregation_strategy.clone(),
            ignore_labels: answers.ignore_labels.clone(),
            stride: answers.stride,
            max_length: answers.max_length,
            batch_size: answers.batch_size,
            function_to_apply: answers.function_to_apply.clone(),
            top_k: answers.top_k,
            threshold: answers.threshold,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The failure with its exit code; a file that was there before is still as it was then.
pub(crate) async fn predict(args: PredictArgs) -> Result<(), Failure> {
    if args.out.is_dir() {
        return Err(Failure::usage(format!("--out: {} is a folder; name a file", args.out.display())));
    }
    let mut interrupts = Interrupts::new()?;
    let server = Box::pin(Server::open(&args.target, true)).await?;
    let result = Box::pin(on(&server, &args, &mut interrupts)).await;
    server.close().await;
    result
}

async fn on(server: &Server, args: &PredictArgs, interrupts: &mut Interrupts) -> Result<(), Failure> {
    let client = server.jobs();
    let checkpoint = model(&client, &args.checkpoint).await?;
    let spec = args.spec(checkpoint, place(&args.input)?);
    let request_id = uuid::Uuid::new_v4().to_string();
    let own = uid_for_request(&request_id);
    let job = Job {
        display_name: "predict".to_owned(),
        spec: Some(JobSpec { kind: Some(Kind::Predict(spec)) }),
        ..Job::default()
    };
    let request = CreateJobRequest { job: Some(job), request_id, validate_only: false, force: args.force };
    let job = Box::pin(client.create(request)).await.map_err(|status| refused(&status))?;
    if job.uid != own {
        eprintln!("{} does the same work already; following it", job.name);
    }
    let view = View::new().stage("predict", 0);
    let stopped = |code| Failure { code, message: "interrupted; the same command again goes on".to_owned() };
    let job = match Box::pin(follow::follow(&client, &job, &view, interrupts)).await? {
        Followed::Ended(job) => job,
        Followed::Stopped(signal, _) => return Err(stopped(signal.code())),
    };
    view.ended(&job);
    if job.state() != JobState::Succeeded {
        return Err(Failure::failed(follow::explained(&job)));
    }
    bring(&job, &args.out).await?;
    let texts = job.outputs.as_ref().and_then(|outputs| outputs.metrics.get("texts").copied()).unwrap_or_default();
    eprintln!("{texts} texts: {}", args.out.display());
    Ok(())
}

/// The fields that the server names are called as the flags are.
fn refused(status: &Status) -> Failure {
    let violations = violations_of(status);
    if status.code() != Code::InvalidArgument || violations.is_empty() {
        return Failure::from(status.clone());
    }
    let lines = violations.into_iter().map(|(field, problem)| {
        let field = field.rsplit_once("spec.predict.").map_or(field.as_str(), |(_, field)| field);
        match field {
            "checkpoint" | "input" => format!("{}: {problem}", field.to_uppercase()),
            "ignore_labels" => format!("--ignore-label: {problem}"),
            field => format!("--{}: {problem}", field.replace('_', "-")),
        }
    });
    Failure::usage(lines.collect::<Vec<_>>().join("\n"))
}

/// Whether a text names something by itself: a URL, or an output of a job.
fn is_address(text: &str) -> bool {
    let mut parts = text.split('/');
    text.contains("://")
        || (parts.next() == Some("jobs") && parts.next().is_some_and(is_uid) && parts.next() == Some("outputs"))
}

/// The address of an input: paths become absolute, as the server has a working folder of its own.
fn place(text: &str) -> Result<String, Failure> {
    if is_address(text) {
        return Ok(text.to_owned());
    }
    let path = std::path::absolute(text).map_err(|error| Failure::usage(format!("`{text}`: {error}")))?;
    Ok(path.display().to_string())
}

/// The address of a model: as of an input, or the checkpoint of a job whose id begins so.
async fn model(client: &JobClient, text: &str) -> Result<String, Failure> {
    let digits = text.strip_prefix("jobs/").unwrap_or(text);
    let is_id = (1..=32).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id || Path::new(text).exists() {
        return place(text);
    }
    let name = jobs::find(client, text).await.map_err(|failure| {
        failure.context(format!("there is no folder `{text}` here, and as the id of a training job"))
    })?;
    Ok(format!("{name}/outputs/checkpoint"))
}

/// Fetches the answers of a job into a file: whole, or not at all.
async fn bring(job: &Job, out: &Path) -> Result<(), Failure> {
    let found = job.outputs.as_ref().and_then(|outputs| outputs.artifacts.get(OUTPUT));
    let uri = &found.ok_or_else(|| Failure::failed(format!("{} has no output `{OUTPUT}`", job.name)))?.uri;
    let elsewhere = |why: String| {
        let how = format!("mlflow artifacts download --run-id {} --artifact-path {OUTPUT}", job.uid);
        Failure::failed(format!(
            "the answers lie at {uri} and cannot be fetched: {why}\nwith MLFLOW_TRACKING_URI set to the server: {how}"
        ))
    };
    let (root, _) = uri.rsplit_once("/jobs/").ok_or_else(|| elsewhere("no artifact of a job".to_owned()))?;
    // Opening a local store would make its folder.
    if root.strip_prefix("file://").is_some_and(|folder| !Path::new(folder).is_dir()) {
        return Err(elsewhere("no such folder on this machine".to_owned()));
    }
    let store = ArtifactStore::open(root).map_err(|error| elsewhere(error.to_string()))?;
    let folder = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let context = |error: std::io::Error| Failure::failed(format!("{}: {error}", out.display()));
    std::fs::create_dir_all(folder).map_err(context)?;
    // Beside the file, so that it can be renamed.
    let beside = tempfile::tempdir_in(folder).map_err(context)?;
    let fetched = beside.path().join(OUTPUT);
    store.fetch(uri, &fetched).await.map_err(|error| elsewhere(error.to_string()))?;
    std::fs::rename(fetched.join(FILE), out).map_err(context)
}

#[cfg(test)]
mod tests {
    use runtime_core::status::{invalid_argument, violation};

    use super::*;

    #[test]
    fn outputs_and_urls_stay_and_paths_become_absolute() {
        let output = format!("jobs/{}/outputs/checkpoint", "0".repeat(32));
        for address in [output.as_str(), "s3://bucket/texts.csv"] {
            assert_eq!(place(address).unwrap(), address);
        }
        let path = place("jobs/texts.csv").unwrap();
        assert!(Path::new(&path).is_absolute() && path.ends_with("jobs/texts.csv"), "{path}");
    }

    #[test]
    fn refusals_are_told_by_flag() {
        let status = invalid_argument([
            violation("job.spec.predict.top_k", "found -1"),
            violation("spec.predict.checkpoint", "missing"),
        ]);
        let failure = refused(&status);
        assert_eq!((failure.code, failure.message.as_str()), (2, "--top-k: found -1\nCHECKPOINT: missing"));
    }
}
