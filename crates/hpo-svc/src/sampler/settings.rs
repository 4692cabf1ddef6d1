//! Samplers by their settings in the contract.

use quintet_proto::v1::{self, sampler::Kind};
use runtime_core::status::{FieldViolation, violation};

use super::{Crossover, NsgaII, Random, Sampler, Tpe};

/// The sampler of these settings for a study of so many objectives, TPE without any; what is wrong is added to `wrong` by its path
/// below `path`.
pub fn from_proto(
    sampler: Option<&v1::Sampler>,
    objectives: usize,
    path: &str,
    wrong: &mut Vec<FieldViolation>,
) -> Box<dyn Sampler> {
    match sampler.and_then(|sampler| sampler.kind.as_ref()) {
        Some(Kind::Random(_)) => Box::new(Random),
        Some(Kind::Tpe(settings)) => {
            Box::new(tpe(settings, objectives, &mut Fields { at: format!("{path}.tpe"), wrong }))
        }
        Some(Kind::Nsga2(settings)) => Box::new(nsga2(settings, &mut Fields { at: format!("{path}.nsga2"), wrong })),
        None => Box::new(Tpe::for_objectives(objectives)),
    }
}

/// Checks the fields of one message.
struct Fields<'a> {
    at: String,
    wrong: &'a mut Vec<FieldViolation>,
}

impl Fields<'_> {
    fn say(&mut self, field: &str, problem: impl Into<String>) {
        self.wrong.push(violation(format!("{}.{field}", self.at), problem));
    }

    fn count(&mut self, field: &str, value: Option<i32>, least: i32, default: usize) -> usize {
        let Some(value) = value else { return default };
        if value < least {
            self.say(field, format!("{value} is below {least}"));
        }
        usize::try_from(value).unwrap_or(default)
    }

    fn share(&mut self, field: &str, value: Option<f64>) -> Option<f64> {
        if let Some(value) = value.filter(|value| !(0.0..=1.0).contains(value)) {
            self.say(field, format!("{value} is not within 0 to 1"));
        }
        value
    }
}

fn tpe(settings: &v1::TpeSampler, objectives: usize, fields: &mut Fields<'_>) -> Tpe {
    let default = Tpe::for_objectives(objectives);
    let tpe = Tpe {
        n_startup_trials: fields.count("n_startup_trials", settings.n_startup_trials, 0, default.n_startup_trials),
        n_ei_candidates: fields.count("n_ei_candidates", settings.n_ei_candidates, 1, default.n_ei_candidates),
        multivariate: settings.multivariate.unwrap_or(default.multivariate),
        constant_liar: settings.constant_liar.unwrap_or(default.constant_liar),
        group: settings.group.unwrap_or(default.group),
    };
    if tpe.group && !tpe.multivariate {
        fields.say("group", "needs `multivariate`");
    }
    tpe
}

fn nsga2(settings: &v1::NsgaiiSampler, fields: &mut Fields<'_>) -> NsgaII {
    let default = NsgaII::default();
    let crossover = match settings.crossover.as_str() {
        "" => default.crossover,
        name => Crossover::parse(name).unwrap_or_else(|| {
            fields
                .say("crossover", format!("`{name}` is not one of {}", Crossover::ALL.map(|known| known.0).join(", ")));
            default.crossover
        }),
    };
    NsgaII {
        population_size: fields.count("population_size", settings.population_size, 2, default.population_size),
        mutation: None,
        mutation_prob: fields.share("mutation_prob", settings.mutation_prob),
        crossover,
        crossover_prob: fields.share("crossover_prob", settings.crossover_prob).unwrap_or(default.crossover_prob),
        swapping_prob: fields.share("swapping_prob", settings.swapping_prob).unwrap_or(default.swapping_prob),
    }
}
