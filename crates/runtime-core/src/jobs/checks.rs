//! The checks of specifications by kind, before a job is made of one.

use std::{collections::HashMap, sync::Arc};

use quintet_proto::v1::JobSpec;
use tonic_types::FieldViolation;

use super::model::kind_of;

/// Checks a specification of one kind before a job is made of it; fields are told as `spec.train.FIELD`, and an empty list
/// means that it is good. A job that makes others asks [`Checks`] about theirs.
pub type Validator = Arc<dyn Fn(&JobSpec, &Checks) -> Vec<FieldViolation> + Send + Sync>;

/// The checks of all kinds that a server takes.
#[derive(Clone, Default)]
pub struct Checks(HashMap<&'static str, Validator>);

impl Checks {
    /// Takes jobs of a kind that pass a check.
    pub fn insert(&mut self, kind: &'static str, validator: Validator) {
        self.0.insert(kind, validator);
    }

    /// What is wrong with a specification; `None` when no job of its kind is taken.
    pub fn check(&self, spec: &JobSpec) -> Option<Vec<FieldViolation>> {
        self.0.get(kind_of(spec)).map(|validator| validator(spec, self))
    }

    /// The kinds that are taken, sorted.
    pub fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<&str> = self.0.keys().copied().collect();
        kinds.sort_unstable();
        kinds
    }
}
