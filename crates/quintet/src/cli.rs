//! The command line: what can be typed, and the help that teaches it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::hpo::space::{Syntax, Words};

const ABOUT: &str = "\
Tunes, trains, converts and measures encoders: sweep -> train -> convert -> benchmark, every step a durable job.

Without --server a command starts all services in its own process, on the folder --data-dir; with --server it uses those of \
a `quintet serve` elsewhere.";

const EXAMPLES: &str = "\
Examples:
  quintet run pipeline.yaml                          run a pipeline here, with an embedded server
  quintet run pipeline.yaml --set trials=4 --json r.json
  quintet serve --data-dir runs --listen 127.0.0.1:7700
  quintet run pipeline.yaml --server http://127.0.0.1:7700
  quintet jobs list --data-dir runs
  quintet predict 3f2a new.txt --out answers.jsonl   a trained model's answers for a file of texts
  eval \"$(quintet completions bash)\"

Exit codes:
    0  success
    1  the job or command failed
    2  wrong usage or pipeline; nothing was started
    3  the server cannot be reached
   78  wrong configuration; nothing was started
  130  interrupted by Ctrl-C
  143  ended by SIGTERM";

/// The program.
#[derive(Debug, Parser)]
#[command(name = "quintet", version, about = "Tunes, trains, converts and measures encoders", long_about = ABOUT)]
#[command(after_help = EXAMPLES, propagate_version = true, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a pipeline: submits its stages, shows their progress, ends with a table of results
    #[command(long_about = RUN, after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Gives a trained model's answers for every text of a file
    #[command(after_help = crate::predict::EXAMPLES)]
    Predict(Box<crate::predict::PredictArgs>),
    /// Serves all services, or some, on one port: gRPC, the MLflow REST API, /metrics and /healthz
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(crate::serve::ServeArgs),
    /// Lists, shows, follows, cancels and deletes jobs
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Shows studies of sweeps
    #[command(subcommand)]
    Hpo(HpoCommand),
    /// Brings encoders from the Hugging Face Hub
    #[command(subcommand)]
    Hub(crate::hub::HubCommand),
    /// Reports on data sets, splits and combines data files
    #[command(subcommand)]
    Data(crate::data::DataCommand),
    /// Lists backups and restores from them
    #[command(subcommand)]
    Backup(crate::backup::BackupCommand),
    /// Prints shell completions, such as: eval "$(quintet completions bash)"
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Runs one attempt of a command job; started by a server
    #[command(hide = true)]
    Worker(runtime_core::worker::LaunchOptions),
}

const SERVE_EXAMPLES: &str = "\
Examples:
  quintet serve --data-dir runs --listen 127.0.0.1:7700
  quintet serve --services tracking --listen 127.0.0.1:0 --ready-file address
  quintet serve --dump-config                        what is in effect, and every key that can be set

Ctrl-C or SIGTERM drains: what is under way is answered, running work is given back and goes on at the next start.";

const RUN: &str = "\
Runs a pipeline: submits its stages one after the other, shows their progress with the best value so far and the time left, \
and ends with a table of results.

The file is checked as a whole first, also by the server: unknown keys and wrong values are told with line and column, and \
nothing is started. Work that is already done (equal specification and equal inputs) is answered from its outputs, so running \
the same command again does the missing work only. A lost connection is made again. Ctrl-C asks once, a second Ctrl-C cancels \
the running stage.";

const RUN_EXAMPLES: &str = "\
Examples:
  quintet run demo/pipeline.yaml --check             is the file right?
  quintet run demo/pipeline.yaml --set trials=4 --set parallel=1
  quintet run demo/pipeline.yaml --json results.json --force

The file's format is in docs/pipeline.md, the document's in docs/result.schema.json.";

/// `quintet run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Pipeline file (YAML)
    #[arg(value_name = "PIPELINE.yaml")]
    pub(crate) pipeline: PathBuf,
    /// Writes the results as one JSON document, also when a stage fails
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Runs every stage, also where a job of equal content has succeeded before
    #[arg(long)]
    pub(crate) force: bool,
    /// Sets a value of `params:` in the file; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Reads and checks everything, and starts nothing
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("is not of the form KEY=VALUE, such as trials=4".into()),
    }
}

/// Which server to use.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct Target {
    /// Server to use, such as http://127.0.0.1:7700 [default: $QUINTET_SERVER, else the services run in this process]
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    server: Option<String>,
    /// File with the token to show to the server; also the variable QUINTET_TOKEN
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Folder of the services in this process: databases, artifacts, logs [default: quintet-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Configuration file (TOML) [default: $QUINTET_CONFIG, else ./quintet.toml if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl Target {
    /// The server to use; none to run the services in this process. A folder that was named goes before the variable.
    pub(crate) fn server(&self) -> Option<String> {
        let variable = || std::env::var("QUINTET_SERVER").ok().filter(|url| !url.is_empty());
        self.server.clone().or_else(|| if self.data_dir.is_some() { None } else { variable() })
    }
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a person.
    Table,
    /// The message in its JSON form.
    Json,
    /// The same as YAML.
    Yaml,
}

/// `quintet jobs ...`.
#[derive(Debug, Subcommand)]
#[command(after_help = "A job is named by its id (32 digits, with or without `jobs/`) or by the beginning of it.")]
pub(crate) enum JobsCommand {
    /// Lists jobs, newest first
    List {
        /// Jobs at most
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
        /// Only this kind: sweep, train, convert, benchmark, command or predict
        #[arg(long)]
        kind: Option<String>,
        /// Only these states, such as RUNNING or FAILED; may be given several times
        #[arg(long, value_name = "STATE")]
        state: Vec<String>,
        /// Only the children of this job (the trials of a sweep)
        #[arg(long, value_name = "JOB")]
        parent: Option<String>,
        /// How to print
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
        #[command(flatten)]
        target: Target,
    },
    /// Shows one job
    Get {
        /// Job
        job: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
        #[command(flatten)]
        target: Target,
    },
    /// Follows a job until it has ended; exits with 1 when it did not succeed
    Watch {
        /// Job
        job: String,
        #[command(flatten)]
        target: Target,
    },
    /// Prints the log of a job
    Logs {
        /// Job
        job: String,
        /// Goes on until the job has ended
        #[arg(short, long)]
        follow: bool,
        /// The log of this attempt [default: the latest]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        attempt: Option<i32>,
        #[command(flatten)]
        target: Target,
    },
    /// Cancels jobs and their children
    Cancel {
        /// Jobs
        #[arg(required = true)]
        jobs: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Deletes jobs that have ended, with their events and logs; artifacts stay
    Delete {
        /// Jobs
        #[arg(required = true)]
        jobs: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
}

/// `quintet hpo ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum HpoCommand {
    /// Lists the studies
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Shows a study: its trials, the best one, the course of the search and which parameters mattered
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Name of the study
        study: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
        /// Draws history, parallel, slice, importances, pareto or intermediate into a file; may be given several times
        #[arg(long, value_name = "[KIND=]FILE.svg|png")]
        plot: Vec<String>,
        /// The objective of history, parallel and slice, by its name [default: the first one]
        #[arg(long, value_name = "METRIC", requires = "plot")]
        objective: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Chooses the best trial: by metric, or by metric and latency together; says why
    #[command(long_about = BEST, after_help = BEST_EXAMPLES)]
    Best(crate::hpo::BestArgs),
    /// Checks that a study may be relied on; exits with 1 when not, and lists the problems
    #[command(long_about = VALIDATE)]
    Validate(crate::hpo::ValidateArgs),
    /// Prints the search space of a study in the words of Quintet, AzureML, Optuna or of plain configuration files
    #[command(after_help = SPACE_EXAMPLES)]
    Space {
        /// Name of the study
        study: String,
        /// In whose words
        #[arg(long, value_enum, default_value_t = Words::Quintet)]
        form: Words,
        /// How to write it
        #[arg(short, long, value_enum, default_value_t = Syntax::Yaml)]
        output: Syntax,
        #[command(flatten)]
        target: Target,
    },
    /// Writes a study into a file: .json (everything), .csv (as Optuna's data frame) or .db (a database for Optuna)
    Export {
        /// Name of the study
        study: String,
        /// The file
        file: PathBuf,
        #[command(flatten)]
        target: Target,
    },
    /// Creates a study from a .json file of `export`, or from an SQLite database of Optuna, which stays as it is
    Import {
        /// The file
        file: PathBuf,
        /// Which study of the database [default: its only one]
        #[arg(long)]
        study: Option<String>,
        /// Its name on the server [default: that in the file]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Starts no new trials in a study's sweeps until `resume`; those that run end
    Pause {
        /// Name of the study
        study: String,
        #[command(flatten)]
        target: Target,
    },
    /// Lets the sweeps of a study go on
    Resume {
        /// Name of the study
        study: String,
        #[command(flatten)]
        target: Target,
    },
    /// Lets a study's sweep try more trials; one that has ended is run again
    Extend {
        /// Name of the study
        study: String,
        /// Trials in all from now on
        #[arg(long, value_name = "COUNT")]
        max_trials: i32,
        #[command(flatten)]
        target: Target,
    },
    /// Deletes a study with its trials
    Delete {
        /// Name of the study
        study: String,
        #[command(flatten)]
        target: Target,
    },
}

const SPACE_EXAMPLES: &str = "\
Examples:
  quintet hpo space us-addresses --form azureml > space.yaml
  quintet hpo space us-addresses --form optuna --output json

What the other system understands otherwise than Quintet is told on standard error.";

const SHOW_EXAMPLES: &str = "\
Examples:
  quintet hpo show us-addresses --plot history.svg --plot importances=what-mattered.png
  quintet hpo show us-addresses --output json --server http://127.0.0.1:7700";

const BEST: &str = "\
Chooses the best trial: by metric, or by metric and latency together; says why.

With --accuracy-floor the fastest trial that is accurate enough is chosen, with --min-gain the most accurate one that gains so much \
over each faster one; both can be given. With --latency-weight, or when nothing but a latency is given, a score of both decides, among \
those that are accurate enough. A trial that breaks a constraint is never chosen, and of several objectives only one of the Pareto front is.";

const BEST_EXAMPLES: &str = "\
Examples:
  quintet hpo best us-addresses
  quintet hpo best hpo_distilbert hpo_deberta --latency-metric latency_ms --accuracy-floor 0.015 --min-gain 0.005
  quintet hpo best us-addresses --latency 3=41.5 --latency 7=12.3 --latency-weight 0.3 -o json";

const VALIDATE: &str = "\
Checks that a study may be relied on; exits with 1 when not, and lists the problems.

Enough trials have completed, every one of them has its metrics and these are finite numbers, none is left running, and the best one is within \
the study's search space. With --job the job of the sweep must have succeeded, on this study.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in [
            &["quintet"][..],
            &["quintet", "run"],
            &["quintet", "run", "p.yaml", "--set", "trials"],
            &["quintet", "run", "p.yaml", "--server", "http://x", "--data-dir", "d"],
            &["quintet", "jobs", "logs", "ab", "--attempt", "0"],
            &["quintet", "predict", "model", "texts.txt"],
            &["quintet", "predict", "model", "texts.txt", "--out", "a.jsonl", "--format", "xml"],
            &["quintet", "hpo", "show", "s", "--objective", "f1"],
            &["quintet", "hpo", "best"],
            &["quintet", "hpo", "best", "s", "--latency", "3"],
            &["quintet", "hpo", "best", "s", "--metric", "f1", "--weight", "f1=1"],
            &["quintet", "hpo", "validate", "s", "--min-completed", "0"],
            &["quintet", "data", "split", "all.csv"],
            &["quintet", "data", "report", "t.csv", "--max-length", "9"],
            &["quintet", "data", "report", "t.csv", "--label-column", "a", "--label-columns", "b,c"],
        ] {
            assert_eq!(Cli::try_parse_from(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
    }
}
