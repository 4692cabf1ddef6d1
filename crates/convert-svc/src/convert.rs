//! The conversion: read, build, verify, publish.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use prost::Message as _;
use quintet_nlp::{
    checkpoint::{Checkpoint, TOKENIZER_FILES},
    evaluation::EvaluationSet,
    files,
    task::Task,
};
use serde_json::Value;

use crate::{
    Error, Request,
    graph::{self, Scheme},
    metadata::{self, Digests},
    report::{Evaluation, File, Model, Report, SCHEMA},
    verify,
};

/// Name of the report in the output folder.
pub const REPORT_FILE: &str = "conversion.json";
/// Name of the configuration in checkpoints and output folders.
pub const CONFIG_FILE: &str = "config.json";

/// Hears how it goes, and says whether to go on.
pub trait Observer {
    /// `done` of `total` rows of a phase (`verify`), or 0 of 0 when a phase begins.
    fn progress(&mut self, phase: &str, done: u64, total: u64);
    /// A line for the log.
    fn log(&mut self, line: &str);
    /// Whether to stop; asked between steps.
    fn stop_requested(&mut self) -> bool;
}

/// Converts and verifies; publishes the output folder in one step, or nothing.
///
/// # Errors
/// See [`Error`]; what is wrong with the inputs is found before anything is built.
pub fn convert(request: &Request, observer: &mut dyn Observer) -> Result<Report, Error> {
    let start = Instant::now();
    observer.progress("read", 0, 0);
    let checkpoint = open(&request.checkpoint)?;
    let set = EvaluationSet::load(&request.evaluation)?;
    verify::check(&set, &checkpoint.config)?;
    let onnxruntime = quintet_onnx::version()?;
    let digests = Digests::of(&checkpoint)?;
    let trainer_f1 = verify::f1(&set, &set.description.predicted_tags)?;
    let mut report = None;
    files::write_folder(&request.output, |folder| {
        let work = Work { request, checkpoint: &checkpoint, set: &set, digests: &digests, trainer_f1, folder };
        let models = work.models(observer)?;
        let description = &set.description;
        let finished = Report {
            schema: SCHEMA.to_owned(),
            opset: request.opset,
            producer: concat!("quintet ", env!("CARGO_PKG_VERSION")).to_owned(),
            onnxruntime,
            checkpoint_digest: digests.checkpoint.clone(),
            evaluation: Evaluation {
                split: description.split.clone(),
                rows: description.rows,
                words: description.gold_tags.iter().map(Vec::len).sum(),
                logit_rows: description.logit_rows,
                f1_mode: "seqeval default, micro".to_owned(),
                trainer_f1,
            },
            tolerance: request.tolerance,
            max_f1_loss: request.max_f1_loss,
            models,
            files: work.list()?,
            seconds: start.elapsed().as_secs_f64(),
        };
        let mut json = serde_json::to_vec_pretty(&finished).map_err(|error| work.io(REPORT_FILE, error.into()))?;
        json.push(b'\n');
        files::write_file(&folder.join(REPORT_FILE), &json)?;
        report = Some(finished);
        stop(observer)
    })?;
    // The closure ran, or `write_folder` failed.
    report.ok_or(Error::Cancelled)
}

/// Opens a checkpoint and refuses those without the one head whose evaluation rows are known.
fn open(folder: &Path) -> Result<Checkpoint, Error> {
    let mut checkpoint = Checkpoint::open(folder)?;
    let path = folder.join(CONFIG_FILE);
    // A configuration without `architectures` is taken at its labels' word.
    checkpoint.config.task = Some(Task::TokenClassification);
    let supported = checkpoint.config.architecture();
    let config: Value = serde_json::from_slice(&files::read(&path)?)
        .map_err(|error| Error::Unsupported { path: path.clone(), problem: error.to_string() })?;
    if let Some(names) = config.get("architectures").and_then(Value::as_array)
        && !names.is_empty()
        && !names.iter().any(|name| *name == *supported)
    {
        let found: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        let problem = format!("architectures is {}, supported is {supported}", found.join(", "));
        return Err(Error::Unsupported { path, problem });
    }
    if checkpoint.config.labels.is_empty() {
        let problem = "no id2label, so no labels; train a token classifier first".to_owned();
        return Err(Error::Unsupported { path, problem });
    }
    for spec in checkpoint.config.layout().tensors() {
        checkpoint.weights.check(&spec.name, &spec.shape)?;
    }
    // A tokenizer that does not fit the word table would make the model useless.
    checkpoint.tokenizer()?;
    Ok(checkpoint)
}

/// One conversion inside its temporary folder.
struct Work<'a> {
    request: &'a Request,
    checkpoint: &'a Checkpoint,
    set: &'a EvaluationSet,
    digests: &'a Digests,
    trainer_f1: f64,
    folder: &'a Path,
}

impl Work<'_> {
    fn models(&self, observer: &mut dyn Observer) -> Result<Vec<Model>, Error> {
        let precisions = self.request.precisions;
        let mut models = Vec::new();
        let mut problems = Vec::new();
        if precisions.fp32 {
            let model = self.model("model.onnx", Scheme::Fp32, observer)?;
            // Not a number counts as too far.
            if model.max_abs_logit_difference.is_nan() || model.max_abs_logit_difference > self.request.tolerance {
                problems.push(format!(
                    "fp32: largest difference of a logit from the trainer's is {:.3e}, allowed is {:.3e}",
                    model.max_abs_logit_difference, self.request.tolerance
                ));
            }
            models.push(model);
        }
        if precisions.int8 && problems.is_empty() {
            match self.int8(observer)? {
                Ok(model) => models.push(model),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(models) } else { Err(Error::Verification { problems }) }
    }

    /// The int8 model: with its word table in int8 too when asked for and good enough, else with that in 32 bits. The inner
    /// error says what is wrong with each.
    fn int8(&self, observer: &mut dyn Observer) -> Result<Result<Model, Vec<String>>, Error> {
        let mut problems = Vec::new();
        for embeddings in [true, false].into_iter().filter(|embeddings| !embeddings || self.request.quantize_embeddings)
        {
            let model = self.model("model_int8.onnx", Scheme::Int8 { embeddings }, observer)?;
            let loss = self.trainer_f1 - model.f1;
            let table = if embeddings { "int8" } else { "fp32" };
            if model.max_abs_logit_difference.is_nan() {
                problems.push(format!("int8 with {table} word table: a logit is not a number"));
            } else if loss > self.request.max_f1_loss {
                problems.push(format!(
                    "int8 with {table} word table: F1 is {:.4}, {loss:.4} below the trainer's {:.4}, allowed is {:.4}",
                    model.f1, self.trainer_f1, self.request.max_f1_loss
                ));
            } else {
                return Ok(Ok(model));
            }
            if let Some(problem) = problems.last() {
                observer.log(problem);
            }
        }
        Ok(Err(problems))
    }

    /// Builds, writes and runs one model.
    fn model(&self, file: &str, scheme: Scheme, observer: &mut dyn Observer) -> Result<Model, Error> {
        stop(observer)?;
        let precision = if scheme == Scheme::Fp32 { "fp32" } else { "int8" };
        observer.progress("build", 0, 0);
        let start = Instant::now();
        let properties = metadata::properties(self.checkpoint, self.digests, scheme, self.request);
        let model =
            graph::build(&self.checkpoint.weights, &self.checkpoint.config, scheme, self.request.opset, &properties)?;
        let bytes = model.encoded_len();
        if bytes > i32::MAX as usize {
            return Err(Error::TooLarge { bytes });
        }
        let path = self.folder.join(file);
        files::write_file(&path, &model.encode_to_vec())?;
        let build_seconds = start.elapsed().as_secs_f64();
        let nodes = model.graph.as_ref().map_or(0, |graph| graph.node.len());
        drop(model);

        let start = Instant::now();
        let outcome = verify::run(&path, self.request.threads, self.set, observer)?;
        let model = Model {
            file: file.to_owned(),
            precision: precision.to_owned(),
            quantization: scheme.name().to_owned(),
            size_bytes: bytes as u64,
            nodes,
            max_abs_logit_difference: outcome.max_difference,
            tag_agreement: outcome.agreement,
            f1: outcome.f1,
            build_seconds,
            verify_seconds: start.elapsed().as_secs_f64(),
        };
        observer.log(&format!(
            "{file}: {:.1} MB, largest logit difference {:.2e}, F1 {:.4}, tags equal to the trainer's {:.2} %",
            bytes as f64 / 1e6,
            model.max_abs_logit_difference,
            model.f1,
            model.tag_agreement * 100.0
        ));
        Ok(model)
    }

    /// Copies configuration and tokenizer, and lists all files.
    fn list(&self) -> Result<Vec<File>, Error> {
        for name in [CONFIG_FILE].iter().chain(&TOKENIZER_FILES) {
            let source = self.checkpoint.dir.join(name);
            if source.is_file() {
                files::write_file(&self.folder.join(name), &files::read(&source)?)?;
            }
        }
        let entries = fs::read_dir(self.folder).map_err(|error| self.io("", error))?;
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(|e| self.io("", e))?;
        paths.sort();
        paths
            .iter()
            .map(|path| {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let size_bytes = fs::metadata(path).map_err(|error| self.io(&name, error))?.len();
                Ok(File { sha256: files::digest(path)?, name, size_bytes })
            })
            .collect()
    }

    fn io(&self, name: &str, source: std::io::Error) -> Error {
        quintet_nlp::Error::Io { path: self.folder.join(name), source }.into()
    }
}

fn stop(observer: &mut dyn Observer) -> Result<(), Error> {
    if observer.stop_requested() { Err(Error::Cancelled) } else { Ok(()) }
}
