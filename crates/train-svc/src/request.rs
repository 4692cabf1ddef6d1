//! What to train, checked before any work starts.
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use quintet_nlp::{checkpoint::EncoderConfig, data::Sources};
use quintet_proto::v1::{Hyperparameters, TrainSpec};
use serde::{Deserialize, Serialize};

use crate::data;

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

/// Hyperparameters with every value decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hyper {
    /// Peak of the schedule.
    pub learning_rate: f64,
    /// Rows a step.
    pub batch_size: usize,
    /// Passes over the training split.
    pub epochs: usize,
    /// Of all weights but biases and LayerNorm.
    pub weight_decay: f64,
    /// Share of all steps.
    pub warmup_ratio: f64,
    /// Global L2 norm of the gradient; 0 means no clipping.
    pub max_grad_norm: f64,
    /// Of hidden states and the head; absent means the checkpoint's.
    pub dropout: Option<f64>,
    /// Longest row in sub-tokens, the special ones included.
    pub max_length: usize,
    /// Key of all random streams.
    pub seed: u64,
    /// Batches of rows of similar length.
    pub group_by_length: bool,
    /// Keep the weights of the epoch with the best validation F1.
    pub load_best_model: bool,
}

/// A training run.
#[derive(Debug, Clone)]
pub struct TrainRequest {
    /// Checkpoint folder to start from.
    pub checkpoint: PathBuf,
    /// Data files, and what their examples are.
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
        let hyper = Hyper::from_proto(&spec.hyperparameters.unwrap_or_default())?;
        Ok(Self {
            checkpoint: PathBuf::from(&spec.checkpoint),
            sources: data::sources(spec, hyper.seed)?,
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

impl Hyper {
    /// Fills in the defaults and checks the ranges.
    pub fn from_proto(given: &Hyperparameters) -> Result<Self, FieldError> {
        let number = |name: &str, value: Option<f64>, default: f64, allowed: fn(f64) -> bool, range: &str| {
            let value = value.unwrap_or(default);
            if value.is_finite() && allowed(value) {
                Ok(value)
            } else {
                Err(FieldError::new(format!("hyperparameters.{name}"), format!("found {value}, expected {range}")))
            }
        };
        let count = |name: &str, value: Option<i32>, default: i32, least: i32| {
            let value = value.unwrap_or(default);
            usize::try_from(value).ok().filter(|_| value >= least).ok_or_else(|| {
                FieldError::new(format!("hyperparameters.{name}"), format!("found {value}, expected {least} or more"))
            })
        };
        let dropout = given
            .dropout
            .map(|p| number("dropout", Some(p), 0.0, |p| (0.0..1.0).contains(&p), "a number from 0 to below 1"))
            .transpose()?;
        Ok(Self {
            learning_rate: number("learning_rate", given.learning_rate, 5e-5, |x| x > 0.0, "a number above 0")?,
            batch_size: count("batch_size", given.batch_size, 16, 1)?,
            epochs: count("epochs", given.epochs, 3, 1)?,
            weight_decay: number("weight_decay", given.weight_decay, 0.01, |x| x >= 0.0, "a number of 0 or more")?,
            warmup_ratio: number(
                "warmup_ratio",
                given.warmup_ratio,
                0.0,
                |x| (0.0..=1.0).contains(&x),
                "a number from 0 to 1",
            )?,
            max_grad_norm: number("max_grad_norm", given.max_grad_norm, 1.0, |x| x >= 0.0, "a number of 0 or more")?,
            dropout,
            max_length: count("max_length", given.max_length, 128, 3)?,
            seed: given.seed.unwrap_or(42),
            group_by_length: given.group_by_length.unwrap_or(true),
            load_best_model: given.load_best_model.unwrap_or(true),
        })
    }
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::TokenClassificationData;

    use super::*;

    #[test]
    fn defaults_are_those_of_the_contract() {
        let hyper = Hyper::from_proto(&Hyperparameters::default()).unwrap();
        assert_eq!((hyper.learning_rate, hyper.batch_size, hyper.epochs, hyper.max_length), (5e-5, 16, 3, 128));
        assert_eq!(
            (hyper.weight_decay, hyper.warmup_ratio, hyper.max_grad_norm, hyper.dropout),
            (0.01, 0.0, 1.0, None)
        );
        assert_eq!((hyper.seed, hyper.group_by_length, hyper.load_best_model), (42, true, true));
    }

    #[test]
    fn values_out_of_range_name_their_field() {
        let h = Hyperparameters::default;
        let cases = [
            (Hyperparameters { learning_rate: Some(0.0), ..h() }, "learning_rate"),
            (Hyperparameters { learning_rate: Some(f64::NAN), ..h() }, "learning_rate"),
            (Hyperparameters { learning_rate: Some(f64::INFINITY), ..h() }, "learning_rate"),
            (Hyperparameters { batch_size: Some(0), ..h() }, "batch_size"),
            (Hyperparameters { epochs: Some(-1), ..h() }, "epochs"),
            (Hyperparameters { weight_decay: Some(-0.1), ..h() }, "weight_decay"),
            (Hyperparameters { warmup_ratio: Some(1.1), ..h() }, "warmup_ratio"),
            (Hyperparameters { max_grad_norm: Some(-1.0), ..h() }, "max_grad_norm"),
            (Hyperparameters { dropout: Some(1.0), ..h() }, "dropout"),
            (Hyperparameters { max_length: Some(2), ..h() }, "max_length"),
        ];
        for (given, expected) in cases {
            match Hyper::from_proto(&given) {
                Err(FieldError { field, .. }) => assert_eq!(field, format!("hyperparameters.{expected}")),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }

    #[test]
    fn specifications_are_checked() {
        let data = TokenClassificationData { train: "t".into(), ..Default::default() };
        let spec = TrainSpec { checkpoint: "c".into(), data: Some(data), ..Default::default() };
        let request = TrainRequest::from_spec(&spec, Path::new("out"), None, 1).unwrap();
        assert_eq!(request.sources.train, Path::new("t"));
        assert_eq!(request.checkpoint_out, Path::new("out/checkpoint"));
        let broken = [
            (TrainSpec { checkpoint: String::new(), ..spec.clone() }, "checkpoint"),
            (TrainSpec { data: None, ..spec }, "data"),
        ];
        for (spec, expected) in broken {
            match TrainRequest::from_spec(&spec, Path::new("out"), None, 1) {
                Err(FieldError { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}
