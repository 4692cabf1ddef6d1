//! The specification of a study that its clients drive, checked, and kept with the study.

use quintet_proto::v1::StudySpec;
use runtime_core::status::{FieldViolation, violation};

use crate::{
    objective::{self, metric_names},
    pruner::{self, Pruner},
    sampler::{self, Sampler},
    space::Space,
    storage::Attributes,
    study::{Direction, Study},
    sweep::{ATTR_METRICS, ATTR_SPACE},
    warm_start::Transfer,
};

/// System attribute of a study: its `StudySpec` as JSON.
pub const ATTR_SPEC: &str = "quintet:spec";

/// A checked specification.
#[derive(Debug)]
pub struct Search {
    /// What is sampled.
    pub space: Space,
    /// One an objective.
    pub directions: Vec<Direction>,
    /// How parameters are suggested.
    pub sampler: Box<dyn Sampler>,
    /// Which running trials should stop early.
    pub pruner: Box<dyn Pruner>,
    /// Seed of the sampler.
    pub seed: u64,
    /// What is tried first.
    pub transfer: Option<Transfer>,
    /// The message itself.
    spec: StudySpec,
}

impl Search {
    /// Checks a specification.
    ///
    /// # Errors
    /// Every rule that is broken, by field path inside of the specification.
    pub fn new(spec: &StudySpec) -> Result<Self, Vec<FieldViolation>> {
        let mut wrong = Vec::new();
        let space = Space::from_proto(&spec.search_space).map_err(|violations| wrong.extend(violations)).ok();
        if spec.objectives.is_empty() {
            wrong.push(violation("objectives", "there is none; a study has at least one"));
        }
        let objectives = objective::from_proto(&spec.objectives, |index| format!("objectives[{index}]"), &mut wrong);
        let directions: Vec<Direction> = objectives.iter().map(|objective| objective.direction).collect();
        let sampler =
            sampler::from_proto(spec.sampler.as_ref(), space.as_ref(), directions.len(), "sampler", &mut wrong);
        let pruner = pruner::from_proto(spec.pruner.as_ref(), "pruner", &mut wrong);
        let transfer = Transfer::from_proto(spec.transfer.as_ref(), spec.sampler.as_ref(), &mut wrong);
        if spec.objectives.len() > 1 && spec.pruner.as_ref().is_some_and(|pruner| pruner.kind.is_some()) {
            wrong.push(violation("pruner", "is for studies of one objective"));
        }
        match (space, wrong.is_empty()) {
            (Some(space), true) => {
                let seed = spec.seed.unwrap_or_default();
                Ok(Self { space, directions, sampler, pruner, seed, transfer, spec: spec.clone() })
            }
            _ => Err(wrong),
        }
    }

    /// The specification that a study was created with; `None` for a study of a sweep, or of Optuna's.
    ///
    /// # Errors
    /// What is kept cannot be read.
    pub fn of(study: &Study) -> Result<Option<Self>, String> {
        let Some(json) = study.system_attrs.get(ATTR_SPEC) else { return Ok(None) };
        let spec: StudySpec = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let search = Self::new(&spec).map_err(|wrong| {
            let wrong: Vec<String> = wrong.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
            wrong.join("; ")
        })?;
        Ok(Some(search))
    }

    /// Attributes of a new study with this seed: those of the user and those of the system.
    ///
    /// # Errors
    /// The specification has no JSON, which its check excludes.
    pub fn attributes(&self, seed: u64) -> Result<[Attributes; 2], serde_json::Error> {
        let metrics = self.spec.objectives.iter().map(|objective| objective.metric.as_str());
        let user = Attributes::from([(ATTR_SPACE.to_owned(), self.space.to_json())]);
        let system = Attributes::from([
            (ATTR_METRICS.to_owned(), metric_names(metrics)),
            (ATTR_SPEC.to_owned(), serde_json::to_string(&StudySpec { seed: Some(seed), ..self.spec.clone() })?),
        ]);
        Ok([user, system])
    }

    /// Whether a study that exists was created with this specification. A seed that is not given may be any.
    pub fn agrees(&self, other: &Self) -> bool {
        let given = StudySpec { seed: self.spec.seed.or(other.spec.seed), ..self.spec.clone() };
        given == other.spec
    }

    /// The message.
    pub fn spec(&self) -> &StudySpec {
        &self.spec
    }
}
