//! The conversion: read, build, verify, publish.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use prost::Message as _;
use quintet_nlp::{
    checkpoint::{Checkpoint, TOKENIZER_FILES},
    crf::Crf,
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
    verify::{self, Answers},
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
    let set = EvaluationSet::load(&request.evaluation)?;
    let task = set.description.task;
    let checkpoint = open(&request.checkpoint, task)?;
    verify::check(&set, &checkpoint.config)?;
    let onnxruntime = quintet_onnx::version()?;
    let crf = Crf::of(&checkpoint)?;
    let digests = Digests::of(&checkpoint)?;
    let trainer = Reference::trainer(&set)?;
    let mut report = None;
    files::write_folder(&request.output, |folder| {
        let work = Work { request, checkpoint: &checkpoint, crf: crf.as_ref(), set: &set, digests: &digests, folder };
        let models = work.models(trainer.as_ref(), observer)?;
        let description = &set.description;
        let finished = Report {
            schema: SCHEMA.to_owned(),
            crf: crf.is_some(),
            opset: request.opset,
            producer: concat!("quintet ", env!("CARGO_PKG_VERSION")).to_owned(),
            onnxruntime,
            checkpoint_digest: digests.checkpoint.clone(),
            evaluation: Evaluation {
                task: task.name().to_owned(),
                split: description.split.clone(),
                rows: description.rows,
                words: description.gold_tags.iter().map(Vec::len).sum(),
                logit_rows: description.logit_rows,
                f1_mode: f1_mode(task).to_owned(),
                trainer_f1: trainer.as_ref().map(|trainer| trainer.quality),
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

/// How the report's F1 is counted, as `f1` of `quintet_nlp::metrics`.
fn f1_mode(task: Task) -> &'static str {
    match task {
        Task::TokenClassification => "seqeval default, micro",
        Task::SequenceClassification => "of two labels that of id 1, of more macro",
        Task::MultiLabelClassification => "micro over labels, from probability 0.5 on",
        Task::Regression => "none; r2 instead",
    }
}

/// Opens a checkpoint and refuses those without the one head that the evaluation rows are of.
fn open(folder: &Path, task: Task) -> Result<Checkpoint, Error> {
    let mut checkpoint = Checkpoint::open(folder)?;
    let path = folder.join(CONFIG_FILE);
    // A configuration without `architectures` is taken at its labels' word.
    let named = checkpoint.config.task.replace(task);
    let wanted = checkpoint.config.architecture();
    let config: Value = serde_json::from_slice(&files::read(&path)?)
        .map_err(|error| Error::Unsupported { path: path.clone(), problem: error.to_string() })?;
    if let Some(names) = config.get("architectures").and_then(Value::as_array)
        && !names.is_empty()
        && !names.iter().any(|name| *name == *wanted)
    {
        let found: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        let problem = format!("architectures is {}, but the evaluation rows are those of a {wanted}", found.join(", "));
        return Err(Error::Unsupported { path, problem });
    }
    if let Some(named) = named.filter(|named| *named != task) {
        let problem =
            format!("problem_type says {}, but the evaluation rows are those of {}", named.name(), task.name());
        return Err(Error::Unsupported { path, problem });
    }
    if checkpoint.config.labels.is_empty() {
        let problem = "no id2label, so no labels; train a classifier first".to_owned();
        return Err(Error::Unsupported { path, problem });
    }
    for spec in checkpoint.config.layout().tensors() {
        checkpoint.weights.check(&spec.name, &spec.shape)?;
    }
    // A tokenizer that does not fit the word table would make the model useless.
    checkpoint.tokenizer()?;
    Ok(checkpoint)
}

/// What int8 is compared with.
struct Reference {
    /// Whose answers these are, for messages.
    name: &'static str,
    answers: Answers,
    quality: f64,
}

impl Reference {
    /// The trainer's answers, where it left those of all rows: tags. Of texts it leaves the logits of the first ones; there the fp32
    /// model, which is held to those, stands for it.
    fn trainer(set: &EvaluationSet) -> Result<Option<Self>, Error> {
        if set.description.task.is_sequence() {
            return Ok(None);
        }
        let answers = Answers::Tags(set.description.predicted_tags.clone());
        Ok(Some(Self { name: "the trainer", quality: verify::quality(set, &answers)?, answers }))
    }
}

/// One conversion inside its temporary folder.
struct Work<'a> {
    request: &'a Request,
    checkpoint: &'a Checkpoint,
    crf: Option<&'a Crf>,
    set: &'a EvaluationSet,
    digests: &'a Digests,
    folder: &'a Path,
}

impl Work<'_> {
    fn models(&self, trainer: Option<&Reference>, observer: &mut dyn Observer) -> Result<Vec<Model>, Error> {
        let precisions = self.request.precisions;
        let mut models = Vec::new();
        let mut problems = Vec::new();
        let mut exact = None;
        if precisions.fp32 || trainer.is_none() {
            let (model, reference) = self.model("model.onnx", Scheme::Fp32, trainer, observer)?;
            // Not a number counts as too far.
            if model.max_abs_logit_difference.is_nan() || model.max_abs_logit_difference > self.request.tolerance {
                problems.push(format!(
                    "fp32: largest difference of a logit from the trainer's is {:.3e}, allowed is {:.3e}",
                    model.max_abs_logit_difference, self.request.tolerance
                ));
            }
            if precisions.fp32 {
                models.push(model);
            } else {
                // It was only to be compared with.
                fs::remove_file(self.folder.join(&model.file)).map_err(|error| self.io(&model.file, error))?;
            }
            exact = Some(reference);
        }
        if let Some(reference) = trainer.or(exact.as_ref()).filter(|_| precisions.int8 && problems.is_empty()) {
            match self.int8(reference, observer)? {
                Ok(model) => models.push(model),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(models) } else { Err(Error::Verification { problems }) }
    }

    /// The int8 model: with its word table in int8 too when asked for and good enough, else with that in 32 bits. The inner
    /// error says what is wrong with each.
    fn int8(&self, reference: &Reference, observer: &mut dyn Observer) -> Result<Result<Model, Vec<String>>, Error> {
        let mut problems = Vec::new();
        let measure = if self.set.description.task == Task::Regression { "R2" } else { "F1" };
        for embeddings in [true, false].into_iter().filter(|embeddings| !embeddings || self.request.quantize_embeddings)
        {
            let scheme = Scheme::Int8 { embeddings };
            let (model, found) = self.model("model_int8.onnx", scheme, Some(reference), observer)?;
            let loss = reference.quality - found.quality;
            let table = if embeddings { "int8" } else { "fp32" };
            if model.max_abs_logit_difference.is_nan() {
                problems.push(format!("int8 with {table} word table: a logit is not a number"));
            } else if loss > self.request.max_f1_loss {
                problems.push(format!(
                    "int8 with {table} word table: {measure} is {:.4}, {loss:.4} below {}'s {:.4}, allowed is {:.4}",
                    found.quality, reference.name, reference.quality, self.request.max_f1_loss
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

    /// Builds, writes and runs one model; without a reference it is its own. Its answers come back beside it.
    fn model(
        &self,
        file: &str,
        scheme: Scheme,
        reference: Option<&Reference>,
        observer: &mut dyn Observer,
    ) -> Result<(Model, Reference), Error> {
        stop(observer)?;
        let precision = if scheme == Scheme::Fp32 { "fp32" } else { "int8" };
        observer.progress("build", 0, 0);
        let start = Instant::now();
        let properties = metadata::properties(self.checkpoint, self.digests, self.crf, scheme, self.request);
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
        let task = self.set.description.task;
        let answers = reference.map_or(&outcome.answers, |reference| &reference.answers);
        let agreement = outcome.answers.agreement(answers, self.set);
        let only = |value: f64, condition: bool| condition.then_some(value);
        let model = Model {
            file: file.to_owned(),
            precision: precision.to_owned(),
            quantization: scheme.name().to_owned(),
            size_bytes: bytes as u64,
            nodes,
            max_abs_logit_difference: outcome.max_difference,
            tag_agreement: agreement.filter(|_| !task.is_sequence()),
            label_agreement: agreement.filter(|_| task.is_sequence()),
            f1: only(outcome.quality, task != Task::Regression),
            r2: only(outcome.quality, task == Task::Regression),
            build_seconds,
            verify_seconds: start.elapsed().as_secs_f64(),
        };
        let shown =
            |name: &str, value: Option<f64>| value.map_or_else(String::new, |value| format!(", {name} {value:.4}"));
        let equal = |name: &str, value: Option<f64>| {
            value.map_or_else(String::new, |value| format!(", {name} {:.2} %", value * 100.0))
        };
        observer.log(&format!(
            "{file}: {:.1} MB, largest logit difference {:.2e}{}{}{}{}",
            bytes as f64 / 1e6,
            model.max_abs_logit_difference,
            shown("F1", model.f1),
            shown("R2", model.r2),
            equal("tags equal to the trainer's", model.tag_agreement),
            equal("labels equal to the fp32 model's", model.label_agreement.filter(|_| scheme != Scheme::Fp32)),
        ));
        Ok((model, Reference { name: "the fp32 model", answers: outcome.answers, quality: outcome.quality }))
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
