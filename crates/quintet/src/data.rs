//! `quintet data`: what a data set holds, and data files split and combined. Works on files of this machine; no server is asked.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use quintet_nlp::{
    checkpoint::Checkpoint,
    data::{
        Form, HoldOut, ReadOptions, Sources, TextOptions,
        files::{Rows, Strategy, combine, guess_form, read_splits, write_splits},
    },
    report::{Limits, report},
    task::Task,
};

use crate::{
    cli::Format,
    failure::Failure,
    jobs::{print, write},
};

/// `quintet data ...`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Formats are described in docs/data.md.")]
pub(crate) enum DataCommand {
    /// Tells what a data set holds and what is wrong with it: labels, lengths, overlap between splits, conflicting labels, cut spans
    #[command(after_help = REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// Holds a share of the rows out of a file and writes both parts; rows stay as they are
    #[command(after_help = SPLIT_EXAMPLES)]
    Split(SplitArgs),
    /// Makes one data set of an old and a new one, split by split; a validation part is held out when neither has one
    #[command(after_help = COMBINE_EXAMPLES)]
    Combine(CombineArgs),
}

const REPORT_EXAMPLES: &str = "\
Examples:
  quintet data report data/train.conll --validation data/dev.conll --checkpoint models/MiniLM --max-length 128
  quintet data report data/banking77 --label-column category -o json";

const SPLIT_EXAMPLES: &str = "\
Examples:
  quintet data split all.jsonl --out data                  data/train.jsonl and data/test.jsonl, one row in five
  quintet data split all.conll --out data --part validation --ratio 0.1 --plain";

const COMBINE_EXAMPLES: &str = "\
Examples:
  quintet data combine data-1 data-2 --out data --strategy combined --seed 7";

/// How files are read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reading")]
pub(crate) struct Reading {
    /// What the examples are [default: told by the file]
    #[arg(long, value_enum)]
    examples: Option<Examples>,
    /// Format of the files [default: told by the content]
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
    /// CoNLL: column of the word, counted from 0; where that counts the words of each sentence, the next one is read
    #[arg(long, value_name = "N", default_value_t = 0)]
    word_column: usize,
    /// CoNLL: column of the tag, counted from 0 [default: the last]
    #[arg(long, value_name = "N")]
    tag_column: Option<usize>,
    /// Column of the text [default: text, sentence, ...]
    #[arg(long, value_name = "NAME")]
    text_column: Option<String>,
    /// Column of the second text of a pair
    #[arg(long, value_name = "NAME")]
    pair_column: Option<String>,
    /// Column of the label or number [default: label, labels, category, ...]
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,
    /// Columns that are a label each, with 1 or 0
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "label_column")]
    label_columns: Vec<String>,
    /// Separates several labels in one cell [default: a comma]
    #[arg(long, value_name = "TEXT")]
    label_separator: Option<String>,
    /// File with the labels in the order of their ids
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// What is wanted of a text [default: told by the first row]
    #[arg(long, value_enum)]
    task: Option<TextTask>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Examples {
    /// Words with tags
    Tokens,
    /// Texts with labels or numbers
    Texts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FileFormat {
    Conll,
    Jsonl,
    Json,
    Csv,
    Parquet,
    Arrow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TextTask {
    SingleLabel,
    MultiLabel,
    Regression,
}

impl Reading {
    fn form(&self, path: &Path) -> Result<Form, Failure> {
        let texts = self.text_column.is_some()
            || self.pair_column.is_some()
            || self.label_column.is_some()
            || !self.label_columns.is_empty()
            || self.labels.is_some()
            || self.task.is_some();
        let tokens = match self.examples {
            Some(examples) => examples == Examples::Tokens,
            None if texts || self.format == Some(FileFormat::Csv) => false,
            None if self.format == Some(FileFormat::Conll) || self.tag_column.is_some() => true,
            None => matches!(guess_form(path)?, Form::Tokens(_)),
        };
        let format = self.format.map(|format| match format {
            FileFormat::Conll => quintet_nlp::data::Format::Conll,
            FileFormat::Jsonl => quintet_nlp::data::Format::Jsonl,
            FileFormat::Json => quintet_nlp::data::Format::Json,
            FileFormat::Csv => quintet_nlp::data::Format::Csv,
            FileFormat::Parquet => quintet_nlp::data::Format::Parquet,
            FileFormat::Arrow => quintet_nlp::data::Format::Arrow,
        });
        Ok(if tokens {
            let (word_column, tag_column) = (self.word_column, self.tag_column);
            Form::Tokens(ReadOptions { format, word_column, tag_column, stride: None })
        } else {
            Form::Text(TextOptions {
                format,
                separator: None,
                text_column: self.text_column.clone(),
                pair_column: self.pair_column.clone(),
                label_column: self.label_column.clone(),
                label_columns: self.label_columns.clone(),
                label_separator: self.label_separator.clone(),
                labels: self.labels.clone(),
                task: self.task.map(|task| match task {
                    TextTask::SingleLabel => Task::SequenceClassification,
                    TextTask::MultiLabel => Task::MultiLabelClassification,
                    TextTask::Regression => Task::Regression,
                }),
            })
        })
    }
}

/// `quintet data report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Training file, or a folder of splits
    #[arg(value_name = "TRAIN")]
    train: PathBuf,
    /// Validation file
    #[arg(long, value_name = "FILE")]
    validation: Option<PathBuf>,
    /// Test file
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    /// Checkpoint whose tokenizer counts sub-tokens
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    /// Longest row of the model in sub-tokens
    #[arg(long, value_name = "N", default_value_t = 128, requires = "checkpoint")]
    max_length: usize,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    reading: Reading,
}

/// `quintet data split`.
#[derive(Debug, Args)]
pub(crate) struct SplitArgs {
    /// File to split, or a folder whose training split is taken
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// Folder for both parts; must not exist or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Share of the rows that is held out
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    ratio: f64,
    /// What is held out
    #[arg(long, value_enum, default_value_t = HeldPart::Test)]
    part: HeldPart,
    /// Of the random choice
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Choose without regard to labels; otherwise each set of entity types, or of labels, gives its share
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    reading: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HeldPart {
    Test,
    Validation,
}

/// `quintet data combine`.
#[derive(Debug, Args)]
pub(crate) struct CombineArgs {
    /// Data set that was trained on before: a file or a folder of splits
    old: PathBuf,
    /// Data set with new rows
    new: PathBuf,
    /// Folder for the result; must not exist or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What becomes of the rows
    #[arg(long, value_enum, default_value_t = Combining::Combined)]
    strategy: Combining,
    /// Share of the training rows that is held out when neither data set has a validation split
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    validation_ratio: f64,
    /// Of the order and of the rows held out
    #[arg(long, default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    reading: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Combining {
    /// The new rows alone
    #[value(name = "new_only", alias = "new-only")]
    NewOnly,
    /// All rows in a random order
    Combined,
    /// The old rows, then the new ones
    Append,
}

/// Runs one of the commands.
///
/// # Errors
/// The failure with its exit code.
pub(crate) fn data(command: DataCommand) -> Result<(), Failure> {
    match command {
        DataCommand::Report(args) => tell(&args),
        DataCommand::Split(args) => split(&args),
        DataCommand::Combine(args) => join(&args),
    }
}

fn tell(args: &ReportArgs) -> Result<(), Failure> {
    let sources = Sources {
        train: args.train.clone(),
        validation: args.validation.clone(),
        test: args.test.clone(),
        form: args.reading.form(&args.train)?,
        validation_fraction: 0.1,
        seed: 42,
        fold: None,
    };
    let tokenizer = args.checkpoint.as_deref().map(|dir| Checkpoint::open(dir)?.tokenizer()).transpose()?;
    let limits = tokenizer.as_ref().map(|tokenizer| Limits { tokenizer, max_length: args.max_length });
    let found = report(&sources, limits)?;
    match args.output {
        Format::Table => write(&found.to_string()),
        format => print(&found, format),
    }
}

fn split(args: &SplitArgs) -> Result<(), Failure> {
    let form = args.reading.form(&args.data)?;
    let mut splits = read(&args.data, &form)?;
    let Some(train) = splits.iter().position(|(name, _)| *name == "train") else {
        return Err(Failure::usage(format!("`{}` has no training split", args.data.display())));
    };
    let (_, rows) = splits.swap_remove(train);
    let choice = HoldOut::Share { fraction: args.ratio, seed: args.seed, stratified: !args.plain };
    let (kept, held) = rows.split(&choice)?;
    let part = if args.part == HeldPart::Test { "test" } else { "validation" };
    finish(&args.out, vec![("train", kept), (part, held)])
}

fn join(args: &CombineArgs) -> Result<(), Failure> {
    let read = |path: &Path| read(path, &args.reading.form(path)?);
    let strategy = match args.strategy {
        Combining::NewOnly => Strategy::NewOnly,
        Combining::Combined => Strategy::Combined,
        Combining::Append => Strategy::Append,
    };
    let validation = HoldOut::Share { fraction: args.validation_ratio, seed: args.seed, stratified: true };
    finish(&args.out, combine(read(&args.old)?, read(&args.new)?, strategy, validation, args.seed)?)
}

/// The splits of a file or folder, with a word on what was changed or left out of each.
fn read(path: &Path, form: &Form) -> Result<Vec<(&'static str, Rows)>, Failure> {
    let splits = read_splits(path, form)?;
    for note in splits.iter().flat_map(|(_, rows)| rows.notes()) {
        eprintln!("note: {}: {note}", path.display());
    }
    Ok(splits)
}

fn finish(out: &Path, splits: Vec<(&'static str, Rows)>) -> Result<(), Failure> {
    let files = write_splits(out, &splits)?;
    let lines: String = files
        .iter()
        .zip(&splits)
        .map(|(file, (_, rows))| format!("{}  {} rows\n", file.display(), rows.len()))
        .collect();
    write(&lines)
}

impl From<quintet_nlp::Error> for Failure {
    fn from(error: quintet_nlp::Error) -> Self {
        if error.is_input_fault() { Self::usage(error.to_string()) } else { Self::failed(error.to_string()) }
    }
}
