//! What to train, checked before any work starts.
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use quintet_nlp::{
    checkpoint::EncoderConfig,
    data::{Form, Sources},
};
use quintet_proto::v1::TrainSpec;

use crate::{data, hyper::Hyper};
use runtime_core::{
    jobs::inputs::backbone_uri,
    status::{FieldViolation, violation},
};

/// The output that a training leaves which diverged after an epoch: the checkpoint of the best one.
pub const LAST_GOOD: &str = "last_good_checkpoint";

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

/// All fields of a specification that are wrong; at least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", listed(.0))]
pub struct FieldErrors(pub Vec<FieldError>);

fn listed(errors: &[FieldError]) -> String {
    errors.iter().map(FieldError::to_string).collect::<Vec<_>>().join("; ")
}

impl From<FieldError> for FieldErrors {
    fn from(error: FieldError) -> Self {
        Self(vec![error])
    }
}

impl FieldErrors {
    /// The fields.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|error| error.field.as_str()).collect()
    }

    /// As details of a refused call, below `prefix`, such as `spec.train.`.
    pub fn violations(self, prefix: &str) -> impl Iterator<Item = FieldViolation> {
        self.0.into_iter().map(move |error| violation(format!("{prefix}{}", error.field), error.problem))
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
    /// When training diverges after an epoch, the checkpoint of the best one is written here; must not exist or be empty.
    pub last_good_out: PathBuf,
    /// Keeps the state between epochs, so that another attempt goes on; none: start over.
    pub resume_dir: Option<PathBuf>,
    /// Existing folder for rows that do not fit in memory; none: all are held in memory.
    pub work_dir: Option<PathBuf>,
    /// State is kept when at least this much work would be lost.
    pub resume_every: Duration,
    /// Threads for the processor; 0 means all cores.
    pub threads: usize,
    /// Where tensors live.
    pub device: DeviceChoice,
    /// Devices that share the rows of each step; 0 means all GPUs that can be seen, or the processor alone. More than one on the processor
    /// gain nothing: that is for tests.
    pub devices: usize,
}

impl TrainRequest {
    /// A request from a specification whose inputs are local paths already. Outputs go to `checkpoint` and `evaluation` in
    /// `out`, resume state to `resume` when given.
    ///
    /// # Errors
    /// Every hyperparameter that is wrong, and the first wrong field of each other part.
    pub fn from_spec(
        spec: &TrainSpec,
        out: &Path,
        resume: Option<PathBuf>,
        threads: usize,
    ) -> Result<Self, FieldErrors> {
        let checkpoint = checkpoint(spec);
        let hyper = Hyper::from_proto(&spec.hyperparameters.clone().unwrap_or_default());
        let sources = data::sources(spec, hyper.as_ref().map_or(0, |hyper| hyper.seed));
        let (checkpoint, hyper, sources) = match (checkpoint, hyper, sources) {
            (Ok(checkpoint), Ok(hyper), Ok(sources)) => (checkpoint, hyper, sources),
            (checkpoint, hyper, sources) => {
                let hyper = hyper.err().into_iter().flat_map(|errors| errors.0);
                return Err(FieldErrors(checkpoint.err().into_iter().chain(sources.err()).chain(hyper).collect()));
            }
        };
        if hyper.crf && matches!(sources.form, Form::Text(_)) {
            let problem =
                "found true beside `text_classification`; allowed is false: only words with tags make a sequence";
            return Err(FieldError::new("hyperparameters.crf", problem).into());
        }
        Ok(Self {
            checkpoint: PathBuf::from(checkpoint),
            sources,
            hyper,
            metrics_only: spec.metrics_only,
            checkpoint_out: out.join("checkpoint"),
            evaluation_out: out.join("evaluation"),
            last_good_out: out.join(LAST_GOOD),
            work_dir: None,
            resume_dir: resume,
            resume_every: Duration::from_secs(20),
            threads,
            device: DeviceChoice::Auto,
            devices: 0,
        })
    }

    /// Checks what depends on the encoder.
    pub fn check_encoder(&self, config: &EncoderConfig) -> Result<(), FieldError> {
        let (found, allowed) = (self.hyper.max_length, config.max_length());
        if found > allowed {
            let problem = format!("found {found}, but the checkpoint takes at most {allowed} sub-tokens");
            return Err(FieldError::new("hyperparameters.max_length", problem));
        }
        if let Form::Text(_) = self.sources.form
            && let Some((field, problem)) = config.sequence_problem()
        {
            return Err(FieldError::new("checkpoint", format!("config.json: `{field}`: {problem}")));
        }
        let narrowest = config.hidden_size.min(config.intermediate_size);
        if let Some(lora) = self.hyper.lora.filter(|lora| lora.r > narrowest) {
            let problem = format!("found {}, but the encoder's projections have ranks of up to {narrowest}", lora.r);
            return Err(FieldError::new("hyperparameters.lora_r", problem));
        }
        Ok(())
    }
}

/// Address of the weights to begin with.
fn checkpoint(spec: &TrainSpec) -> Result<String, FieldError> {
    match (spec.checkpoint.as_str(), spec.backbone.as_str()) {
        ("", "") => Err(FieldError::new("checkpoint", "missing; `backbone` may be given instead")),
        (checkpoint, "") => Ok(checkpoint.to_owned()),
        ("", backbone) => backbone_uri(backbone).map_err(|error| FieldError::new("backbone", error.to_string())),
        (checkpoint, backbone) => {
            let problem = format!("found `{backbone}` beside checkpoint `{checkpoint}`; give one of them");
            Err(FieldError::new("backbone", problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::{Hyperparameters, TextClassificationData, TokenClassificationData};

    use super::*;

    #[test]
    fn specifications_are_checked() {
        let data = TokenClassificationData { train: "t".into(), ..Default::default() };
        let spec = TrainSpec { checkpoint: "c".into(), data: Some(data), ..Default::default() };
        let request = TrainRequest::from_spec(&spec, Path::new("out"), None, 1).unwrap();
        assert_eq!(request.sources.train, Path::new("t"));
        assert_eq!(request.checkpoint_out, Path::new("out/checkpoint"));
        let texts = TextClassificationData { train: "t.csv".into(), ..Default::default() };
        let crf = Hyperparameters { crf: Some(true), ..Default::default() };
        let broken = [
            (TrainSpec { checkpoint: String::new(), ..spec.clone() }, "checkpoint"),
            (TrainSpec { backbone: "b".into(), ..spec.clone() }, "backbone"),
            (TrainSpec { checkpoint: String::new(), backbone: "../b".into(), ..spec.clone() }, "backbone"),
            (TrainSpec { data: None, ..spec.clone() }, "data"),
            (
                TrainSpec { data: None, text_classification: Some(texts), hyperparameters: Some(crf), ..spec },
                "hyperparameters.crf",
            ),
        ];
        let wrong = |spec: &TrainSpec| TrainRequest::from_spec(spec, Path::new("out"), None, 1).unwrap_err();
        for (spec, expected) in broken {
            assert_eq!(wrong(&spec).names(), [expected]);
        }
        let hyperparameters = Hyperparameters { epochs: Some(0), batch_size: Some(0), ..Default::default() };
        let all = TrainSpec { hyperparameters: Some(hyperparameters), ..TrainSpec::default() };
        let expected = ["checkpoint", "data", "hyperparameters.batch_size", "hyperparameters.epochs"];
        assert_eq!(wrong(&all).names(), expected);
    }
}
