//! Samplers by their settings in the contract.

use quintet_proto::v1::{self, sampler::Kind};
use runtime_core::status::{FieldViolation, violation};

use super::{Random, Sampler, Tpe};

/// The sampler of these settings, TPE without any; what is wrong is added to `wrong` by its path below `path`.
pub fn from_proto(sampler: Option<&v1::Sampler>, path: &str, wrong: &mut Vec<FieldViolation>) -> Box<dyn Sampler> {
    let settings = match sampler.and_then(|sampler| sampler.kind.as_ref()) {
        Some(Kind::Random(_)) => return Box::new(Random),
        Some(Kind::Tpe(settings)) => *settings,
        None => v1::TpeSampler::default(),
    };
    let default = Tpe::default();
    let mut count = |field: &str, value: Option<i32>, least: i32, default: usize| {
        let Some(value) = value else { return default };
        if value < least {
            wrong.push(violation(format!("{path}.tpe.{field}"), format!("{value} is below {least}")));
        }
        usize::try_from(value).unwrap_or(default)
    };
    Box::new(Tpe {
        n_startup_trials: count("n_startup_trials", settings.n_startup_trials, 0, default.n_startup_trials),
        n_ei_candidates: count("n_ei_candidates", settings.n_ei_candidates, 1, default.n_ei_candidates),
        multivariate: settings.multivariate.unwrap_or(default.multivariate),
        constant_liar: settings.constant_liar.unwrap_or(default.constant_liar),
        group: default.group,
    })
}
