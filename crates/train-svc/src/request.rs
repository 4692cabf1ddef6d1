//! What to train, checked before any work starts.
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use quintet_nlp::{
    checkpoint::EncoderConfig,
    data::{Fold, Format, ReadOptions, Sources},
};
use quintet_proto::v1::{self, DataFormat, TokenClassificationData, TrainSpec};

use crate::hyper::Hyper;

/// A field of `TrainSpec` that is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {problem}")]
pub struct FieldError {
    /// The field, such as `hyperparameters.learning_rate`.
    pub field: String,
    /// The value found and what is allowed.
    pub problem: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// Where tensors live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU when there is one.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// A GPU, or an error.
    Cuda,
}

/// A training run.
#[derive(Debug, Clone)]
pub struct TrainRequest {
    /// Checkpoint folder to start from.
    pub checkpoint: PathBuf,
    /// Data files.
    pub sources: Sources,
    /// How to train.
    pub hyper: Hyper,
    /// Write no outputs, and leave the test split alone: a trial of a sweep.
    pub metrics_only: bool,
    /// The trained checkpoint is written here; must not exist or be empty.
    pub checkpoint_out: PathBuf,
    /// The evaluation rows are written here (see `quintet_nlp::evaluation`); must not exist or be empty.
    pub evaluation_out: PathBuf,
    /// Keeps the state between epochs, so that another attempt goes on; none: start over.
    pub resume_dir: Option<PathBuf>,
    /// State is kept when at least this much work would be lost.
    pub resume_every: Duration,
    /// Threads for the processor; 0 means all cores.
    pub threads: usize,
    /// Where tensors live.
    pub device: DeviceChoice,
}

impl TrainRequest {
    /// A request from a specification whose inputs are local paths already. Outputs go to `checkpoint` and `evaluation` in
    /// `out`, resume state to `resume` when given. Errors name the field.
    pub fn from_spec(
        spec: &TrainSpec,
        out: &Path,
        resume: Option<PathBuf>,
        threads: usize,
    ) -> Result<Self, FieldError> {
        if spec.checkpoint.is_empty() {
            return Err(FieldError::new("checkpoint", "missing"));
        }
        let hyper = Hyper::from_proto(&spec.hyperparameters.clone().unwrap_or_default())?;
        let data = spec.data.clone().unwrap_or_default();
        Ok(Self {
            checkpoint: PathBuf::from(&spec.checkpoint),
            sources: sources(&data, hyper.seed)?,
            hyper,
            metrics_only: spec.metrics_only,
            checkpoint_out: out.join("checkpoint"),
            evaluation_out: out.join("evaluation"),
            resume_dir: resume,
            resume_every: Duration::from_secs(20),
            threads,
            device: DeviceChoice::Auto,
        })
    }

    /// Checks what depends on the encoder.
    pub fn check_encoder(&self, config: &EncoderConfig) -> Result<(), FieldError> {
        let (found, allowed) = (self.hyper.max_length, config.max_position_embeddings);
        if found > allowed {
            let problem = format!("found {found}, but the checkpoint has {allowed} positions");
            return Err(FieldError::new("hyperparameters.max_length", problem));
        }
        Ok(())
    }
}

fn sources(data: &TokenClassificationData, seed: u64) -> Result<Sources, FieldError> {
    if data.train.is_empty() {
        return Err(FieldError::new("data.train", "missing"));
    }
    let column = |name: &str, value: i32| {
        usize::try_from(value).map_err(|_| FieldError::new(name, format!("found {value}, expected 0 or more")))
    };
    let format = match DataFormat::try_from(data.format) {
        Ok(DataFormat::Unspecified) => None,
        Ok(DataFormat::Conll) => Some(Format::Conll),
        Ok(DataFormat::Jsonl) => Some(Format::Jsonl),
        Err(_) => {
            return Err(FieldError::new("data.format", format!("found {}, expected CONLL or JSONL", data.format)));
        }
    };
    let optional = |path: &String| (!path.is_empty()).then(|| PathBuf::from(path));
    let fraction = if data.validation_fraction == 0.0 { 0.1 } else { data.validation_fraction };
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(FieldError::new(
            "data.validation_fraction",
            format!("found {fraction}, expected above 0 and below 1"),
        ));
    }
    Ok(Sources {
        train: PathBuf::from(&data.train),
        validation: optional(&data.validation),
        test: optional(&data.test),
        options: ReadOptions {
            format,
            word_column: column("data.word_column", data.word_column)?,
            tag_column: data.tag_column.map(|value| column("data.tag_column", value)).transpose()?,
        },
        validation_fraction: fraction,
        seed,
        fold: data.fold.as_ref().map(|given| fold(given, data)).transpose()?,
    })
}

/// The most folds that anybody has asked for in earnest.
const MOST_FOLDS: i32 = 100;

fn fold(given: &v1::Fold, data: &TokenClassificationData) -> Result<Fold, FieldError> {
    if !data.validation.is_empty() {
        let problem = format!("found `{}`, but a fold of the training data is validated on", data.validation);
        return Err(FieldError::new("data.validation", problem));
    }
    if !(2..=MOST_FOLDS).contains(&given.n_splits) {
        let problem = format!("found {}, expected 2 to {MOST_FOLDS}", given.n_splits);
        return Err(FieldError::new("data.fold.n_splits", problem));
    }
    if !(0..given.n_splits).contains(&given.index) {
        let problem = format!("found {}, expected 0 to {}", given.index, given.n_splits - 1);
        return Err(FieldError::new("data.fold.index", problem));
    }
    let [n_splits, index] = [given.n_splits, given.index].map(|value| usize::try_from(value).unwrap_or_default());
    let (shuffle, stratified) = (given.shuffle.unwrap_or(true), given.stratified.unwrap_or(true));
    Ok(Fold { n_splits, index, shuffle, seed: given.seed.unwrap_or(42), stratified })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_checked() {
        let data = TokenClassificationData { train: "t".into(), ..Default::default() };
        let spec = TrainSpec { checkpoint: "c".into(), data: Some(data.clone()), ..Default::default() };
        let request = TrainRequest::from_spec(&spec, Path::new("out"), None, 1).unwrap();
        assert_eq!(request.sources.validation_fraction, 0.1);
        assert_eq!(request.checkpoint_out, Path::new("out/checkpoint"));
        let with_fold = |n_splits, index, validation: &str| {
            let fold = Some(v1::Fold { n_splits, index, ..Default::default() });
            let data = TokenClassificationData { fold, validation: validation.into(), ..data.clone() };
            TrainSpec { data: Some(data), ..spec.clone() }
        };
        let request = TrainRequest::from_spec(&with_fold(3, 2, ""), Path::new("out"), None, 1).unwrap();
        let expected = Fold { n_splits: 3, index: 2, shuffle: true, seed: 42, stratified: true };
        assert_eq!(request.sources.fold, Some(expected));
        let broken = [
            (TrainSpec { checkpoint: String::new(), ..spec.clone() }, "checkpoint"),
            (TrainSpec { data: None, ..spec.clone() }, "data.train"),
            (
                TrainSpec { data: Some(TokenClassificationData { word_column: -1, ..data.clone() }), ..spec.clone() },
                "data.word_column",
            ),
            (
                TrainSpec {
                    data: Some(TokenClassificationData { validation_fraction: 1.0, ..data.clone() }),
                    ..spec.clone()
                },
                "data.validation_fraction",
            ),
            (with_fold(3, 3, ""), "data.fold.index"),
            (with_fold(1, 0, ""), "data.fold.n_splits"),
            (with_fold(3, 0, "dev"), "data.validation"),
            (
                TrainSpec { data: Some(TokenClassificationData { format: 9, ..data.clone() }), ..spec.clone() },
                "data.format",
            ),
        ];
        for (spec, expected) in broken {
            match TrainRequest::from_spec(&spec, Path::new("out"), None, 1) {
                Err(FieldError { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}
