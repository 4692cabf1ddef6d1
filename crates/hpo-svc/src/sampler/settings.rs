//! Samplers by their settings in the contract.

use std::collections::BTreeMap;

use quintet_proto::{
    types,
    v1::{self, sampler::Kind},
};
use runtime_core::status::{FieldViolation, violation};

use super::{CmaEs, Crossover, Gp, Grid, Mutation, NsgaII, Qmc, QmcType, Random, Sampler, Tpe};
use crate::space::{ParamValue, Space};

/// The sampler of these settings for a study of so many objectives, TPE without any; what is wrong is added to `wrong` by its path
/// below `path`. A space that is broken itself is `None`.
pub fn from_proto(
    sampler: Option<&v1::Sampler>,
    space: Option<&Space>,
    objectives: usize,
    path: &str,
    wrong: &mut Vec<FieldViolation>,
) -> Box<dyn Sampler> {
    let Some(kind) = sampler.and_then(|sampler| sampler.kind.as_ref()) else {
        return Box::new(Tpe::for_objectives(objectives));
    };
    let mut fields = Fields { at: path.to_owned(), wrong };
    match kind {
        Kind::Random(_) => Box::new(Random),
        Kind::Tpe(settings) => Box::new(tpe(settings, objectives, fields.below("tpe"))),
        Kind::Nsga2(settings) => Box::new(nsga2(settings, fields.below("nsga2"))),
        Kind::Cmaes(settings) => Box::new(cmaes(settings, space, objectives, fields.below("cmaes"))),
        Kind::Qmc(settings) => Box::new(qmc(settings, fields.below("qmc"))),
        Kind::Grid(settings) => Box::new(grid(settings, space, fields.below("grid"))),
        Kind::Gp(settings) => Box::new(gp(settings, fields.below("gp"))),
    }
}

/// Candidates of a suggestion, and members of a population, at most: more take a server's memory and time, and help nobody.
const MOST_AT_ONCE: i32 = 100_000;

/// Checks the fields of one message.
struct Fields<'a> {
    at: String,
    wrong: &'a mut Vec<FieldViolation>,
}

impl Fields<'_> {
    /// Those of the message in this field.
    fn below(&mut self, field: &str) -> &mut Self {
        self.at = format!("{}.{field}", self.at);
        self
    }

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

    /// A count of what a suggestion computes or holds at once.
    fn bounded(&mut self, field: &str, value: Option<i32>, least: i32, default: usize) -> usize {
        if let Some(value) = value.filter(|value| *value > MOST_AT_ONCE) {
            self.say(field, format!("{value} is above {MOST_AT_ONCE}"));
        }
        self.count(field, value, least, default)
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
    let group = settings.group.unwrap_or(default.group);
    if group && settings.multivariate == Some(false) {
        fields.say("group", "is for parameters that are modelled together, which `multivariate: false` excludes");
    }
    Tpe {
        n_startup_trials: fields.count("n_startup_trials", settings.n_startup_trials, 0, default.n_startup_trials),
        n_ei_candidates: fields.bounded("n_ei_candidates", settings.n_ei_candidates, 1, default.n_ei_candidates),
        multivariate: settings.multivariate.unwrap_or(default.multivariate || group),
        constant_liar: settings.constant_liar.unwrap_or(default.constant_liar),
        group,
    }
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
    let mutation = match settings.mutation.as_str() {
        "" => None,
        name => {
            let known = Mutation::parse(name, settings.mutation_eta);
            if known.is_none() {
                fields.say("mutation", format!("`{name}` is not one of {}", Mutation::NAMES.join(", ")));
            }
            known
        }
    };
    if let Some(eta) = settings.mutation_eta {
        if !(eta.is_finite() && eta >= 0.0) {
            fields.say("mutation_eta", format!("{eta} is not a number from 0 on"));
        }
        if settings.mutation.is_empty() {
            fields.say("mutation_eta", "is for `mutation: polynomial`");
        }
    }
    NsgaII {
        population_size: fields.bounded("population_size", settings.population_size, 2, default.population_size),
        mutation,
        mutation_prob: fields.share("mutation_prob", settings.mutation_prob),
        crossover,
        crossover_prob: fields.share("crossover_prob", settings.crossover_prob).unwrap_or(default.crossover_prob),
        swapping_prob: fields.share("swapping_prob", settings.swapping_prob).unwrap_or(default.swapping_prob),
    }
}

/// The internal value of a parameter, given as the user has it.
fn internal(value: &types::Value, name: &str, space: &Space) -> Result<f64, String> {
    let domain = space.get(name).ok_or_else(|| format!("`{name}` is not in the search space"))?;
    let external = ParamValue::from_proto(value).ok_or("is a list or an object")?;
    let internal = domain.internal(&external).filter(|internal| domain.contains(*internal));
    internal.ok_or_else(|| format!("{external} is outside of {}", domain.to_json()))
}

fn cmaes(settings: &v1::CmaEsSampler, space: Option<&Space>, objectives: usize, fields: &mut Fields<'_>) -> CmaEs {
    let default = CmaEs::default();
    let mut x0 = BTreeMap::new();
    for (name, value) in &settings.x0 {
        match space.map(|space| internal(value, name, space)) {
            Some(Ok(internal)) => drop(x0.insert(name.clone(), internal)),
            Some(Err(problem)) => fields.say(&format!("x0[{name:?}]"), problem),
            None => {}
        }
    }
    if objectives > 1 {
        fields.wrong.push(violation(fields.at.clone(), "is for one objective"));
    }
    let n_startup_trials = fields.count("n_startup_trials", settings.n_startup_trials, 0, default.n_startup_trials);
    let sampler = CmaEs {
        x0,
        sigma0: settings.sigma0,
        n_startup_trials,
        consider_pruned_trials: settings.consider_pruned_trials,
        popsize: settings.popsize.map(|size| usize::try_from(size).unwrap_or_default()),
        use_separable_cma: settings.use_separable_cma,
        with_margin: settings.with_margin,
        lr_adapt: settings.lr_adapt,
    };
    if let Err(problem) = sampler.check() {
        fields.wrong.push(violation(fields.at.clone(), problem));
    }
    sampler
}

fn qmc(settings: &v1::QmcSampler, fields: &mut Fields<'_>) -> Qmc {
    let default = Qmc::default();
    let qmc_type = match settings.qmc_type.as_str() {
        "" => default.qmc_type,
        "sobol" => QmcType::Sobol,
        "halton" => QmcType::Halton,
        other => {
            fields.say("qmc_type", format!("`{other}` is not one of sobol, halton"));
            default.qmc_type
        }
    };
    Qmc { qmc_type, scramble: settings.scramble.unwrap_or(default.scramble) }
}

fn grid(settings: &v1::GridSampler, space: Option<&Space>, fields: &mut Fields<'_>) -> Grid {
    let Some(space) = space else { return Grid::default() };
    let before = fields.wrong.len();
    let mut points = BTreeMap::new();
    for (name, list) in &settings.points {
        let mut values = Vec::with_capacity(list.values.len());
        for (index, value) in list.values.iter().enumerate() {
            match internal(value, name, space) {
                Ok(internal) => values.push(internal),
                Err(problem) => fields.say(&format!("points[{name:?}][{index}]"), problem),
            }
        }
        points.insert(name.clone(), values);
    }
    let grid = Grid { points };
    if let (Err(problem), true) = (grid.check(space), fields.wrong.len() == before) {
        fields.say("points", problem);
    }
    grid
}

fn gp(settings: &v1::GpSampler, fields: &mut Fields<'_>) -> Gp {
    let default = Gp::default();
    Gp {
        n_startup_trials: fields.count("n_startup_trials", settings.n_startup_trials, 0, default.n_startup_trials),
        deterministic_objective: settings.deterministic_objective,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The sampler of these settings, as text, and what is wrong with them.
    fn read(sampler: Value, objectives: usize) -> (String, Vec<String>) {
        let sampler: v1::Sampler = serde_json::from_value(sampler).unwrap();
        let mut wrong = Vec::new();
        let read = from_proto(Some(&sampler), None, objectives, "sampler", &mut wrong);
        (format!("{read:?}"), wrong.into_iter().map(|v| format!("{}: {}", v.field, v.description)).collect())
    }

    #[test]
    fn what_no_server_can_hold_is_refused() {
        for (asked, told) in [
            (json!({"tpe": {"n_ei_candidates": 100_001}}), "sampler.tpe.n_ei_candidates: 100001 is above 100000"),
            (
                json!({"nsga2": {"population_size": 2_000_000_000}}),
                "sampler.nsga2.population_size: 2000000000 is above",
            ),
            (
                json!({"cmaes": {"popsize": i32::MAX}}),
                "sampler.cmaes: popsize is 2147483647; a generation has 2 to 100000",
            ),
            (json!({"cmaes": {"popsize": -1}}), "sampler.cmaes: popsize is 0; a generation has 2 to 100000"),
        ] {
            let (_, wrong) = read(asked, 1);
            assert!(wrong.len() == 1 && wrong[0].starts_with(told), "{wrong:?}");
        }
        for most in [json!({"tpe": {"n_ei_candidates": 100_000}}), json!({"cmaes": {"popsize": 100_000}})] {
            assert_eq!(read(most, 1).1, Vec::<String>::new());
        }
    }

    #[test]
    fn a_group_is_modelled_together_unless_that_is_forbidden() {
        for objectives in [1, 2] {
            let (grouped, wrong) = read(json!({"tpe": {"group": true}}), objectives);
            assert!(grouped.contains("multivariate: true, group: true") && wrong.is_empty(), "{grouped} {wrong:?}");
            let (_, wrong) = read(json!({"tpe": {"group": true, "multivariate": false}}), objectives);
            assert!(wrong.len() == 1 && wrong[0].starts_with("sampler.tpe.group: "), "{wrong:?}");
        }
        assert!(read(json!({"tpe": {}}), 2).0.contains("multivariate: false"));
    }

    #[test]
    fn strategies_that_exclude_each_other_are_named() {
        let names = ["use_separable_cma", "with_margin", "lr_adapt"];
        for (one, other) in [(0, 1), (0, 2), (1, 2)].map(|(one, other)| (names[one], names[other])) {
            let (_, wrong) = read(json!({"cmaes": {one: true, other: true}}), 1);
            assert_eq!(
                wrong,
                [format!("sampler.cmaes: {one} and {other} exclude each other; at most one may be true")]
            );
            assert_eq!(read(json!({"cmaes": {one: true, other: false}}), 1).1, Vec::<String>::new());
        }
    }

    #[test]
    fn mutations_are_chosen_by_name_and_what_is_wrong_is_said() {
        let of = |mutation: &str, mutation_eta| {
            let settings =
                v1::NsgaiiSampler { mutation: mutation.into(), mutation_eta, ..v1::NsgaiiSampler::default() };
            let mut wrong = Vec::new();
            let sampler = nsga2(&settings, &mut Fields { at: "sampler.nsga2".into(), wrong: &mut wrong });
            (sampler.mutation, wrong.into_iter().map(|v| (v.field, v.description)).collect::<Vec<_>>())
        };
        assert_eq!(of("", None), (None, vec![]));
        assert_eq!(of("polynomial", None), (Some(Mutation::Polynomial { eta: 20.0 }), vec![]));
        assert_eq!(of("polynomial", Some(0.0)), (Some(Mutation::Polynomial { eta: 0.0 }), vec![]));
        for (mutation, eta, field, word) in [
            ("gaussian", None, "mutation", "not one of polynomial"),
            ("polynomial", Some(-1.0), "mutation_eta", "-1"),
            ("polynomial", Some(f64::NAN), "mutation_eta", "NaN"),
            ("", Some(20.0), "mutation_eta", "polynomial"),
        ] {
            let (_, wrong) = of(mutation, eta);
            let [(at, problem)] = &wrong[..] else { panic!("{wrong:?}") };
            assert!(*at == format!("sampler.nsga2.{field}") && problem.contains(word), "{at}: {problem}");
        }
    }
}
