//! Samplers and pruners with all their parameters: those that were given, and the defaults of the others.

use quintet_proto::v1::{self, PlannedPart};
use serde_json::{Map, Value, json};

use crate::{
    pruner::{Hyperband, Percentile, SuccessiveHalving, Wilcoxon},
    sampler::{CmaEs, Gp, NsgaII, Tpe},
};

/// A parameter that is a number.
pub(super) fn setting(part: &PlannedPart, name: &str) -> Option<f64> {
    let value = part.parameters.as_ref()?.fields.get(name)?;
    serde_json::to_value(value).ok()?.as_f64()
}

/// The sampler of these settings, for so many objectives.
pub(super) fn sampler(sampler: Option<&v1::Sampler>, objectives: usize) -> PlannedPart {
    let (name, given) = chosen(sampler.map(serde_json::to_value), "tpe");
    let defaults = match name.as_str() {
        "tpe" => {
            let tpe = Tpe::for_objectives(objectives);
            let grouped = given.get("group") == Some(&Value::Bool(true));
            json!({
                "n_startup_trials": tpe.n_startup_trials,
                "n_ei_candidates": tpe.n_ei_candidates,
                "multivariate": tpe.multivariate || grouped,
                "constant_liar": tpe.constant_liar,
                "group": tpe.group,
            })
        }
        "nsga2" => {
            let nsga2 = NsgaII::default();
            json!({
                "population_size": nsga2.population_size,
                "crossover": "uniform",
                "crossover_prob": nsga2.crossover_prob,
                "swapping_prob": nsga2.swapping_prob,
                "mutation_prob": "auto",
                "mutation": "uniform",
            })
        }
        "cmaes" => {
            let cmaes = CmaEs::default();
            json!({
                "n_startup_trials": cmaes.n_startup_trials,
                "sigma0": "auto",
                "popsize": "auto",
                "consider_pruned_trials": cmaes.consider_pruned_trials,
                "use_separable_cma": cmaes.use_separable_cma,
                "with_margin": cmaes.with_margin,
                "lr_adapt": cmaes.lr_adapt,
            })
        }
        "qmc" => json!({"qmc_type": "sobol", "scramble": true}),
        "gp" => {
            let gp = Gp::default();
            json!({"n_startup_trials": gp.n_startup_trials, "deterministic_objective": gp.deterministic_objective})
        }
        _ => json!({}),
    };
    part(name, defaults, given)
}

/// The pruner of these settings.
pub(super) fn pruner(pruner: Option<&v1::Pruner>) -> PlannedPart {
    let (name, given) = chosen(pruner.map(serde_json::to_value), "nop");
    let schedule = json!({"evaluation_interval": 1, "delay_evaluation": 0});
    let defaults = match name.as_str() {
        "median" | "percentile" => {
            let median = Percentile::median();
            json!({
                "n_startup_trials": median.n_startup_trials,
                "n_warmup_steps": median.n_warmup_steps,
                "interval_steps": median.interval_steps,
                "n_min_trials": median.n_min_trials,
            })
        }
        "threshold" => json!({"n_warmup_steps": 0, "interval_steps": 1}),
        "patient" => json!({"min_delta": 0.0}),
        "successive_halving" => {
            let halving = SuccessiveHalving::default();
            json!({
                "min_resource": "auto",
                "reduction_factor": halving.reduction_factor,
                "min_early_stopping_rate": halving.min_early_stopping_rate,
                "bootstrap_count": halving.bootstrap_count,
            })
        }
        "hyperband" => {
            let band = Hyperband::default();
            json!({
                "min_resource": band.min_resource,
                "max_resource": "auto",
                "reduction_factor": band.reduction_factor,
                "bootstrap_count": band.bootstrap_count,
            })
        }
        "wilcoxon" => {
            let wilcoxon = Wilcoxon::default();
            json!({"p_threshold": wilcoxon.p_threshold, "n_startup_steps": wilcoxon.n_startup_steps})
        }
        "bandit" | "median_stopping" | "truncation_selection" => schedule,
        _ => json!({}),
    };
    part(name, defaults, given)
}

/// The kind of a message that is one of several, and what was given for it.
fn chosen(written: Option<serde_json::Result<Value>>, default: &str) -> (String, Map<String, Value>) {
    let entry = match written {
        // A number that has no JSON was refused before.
        Some(Ok(Value::Object(entries))) => entries.into_iter().next(),
        _ => None,
    };
    match entry {
        Some((name, Value::Object(given))) => (name, given),
        Some((name, _)) => (name, Map::new()),
        None => (default.to_owned(), Map::new()),
    }
}

fn part(name: String, defaults: Value, given: Map<String, Value>) -> PlannedPart {
    let mut all = match defaults {
        Value::Object(defaults) => defaults,
        _ => Map::new(),
    };
    all.extend(given);
    PlannedPart { name, parameters: serde_json::from_value(Value::Object(all)).ok() }
}
