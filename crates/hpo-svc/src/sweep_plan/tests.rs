//! Plans of whole sweeps: what is counted, and what is warned of.

use quintet_proto::v1::{self, SweepSpec, sweep_spec::Trial as Work};
use serde_json::{Value, json};

use super::*;
use crate::study::{State, tests::trial};

/// A sweep from its JSON form, over 3 * 2 combinations.
fn spec(change: Value) -> SweepSpec {
    let mut spec = json!({
        "study_name": "s",
        "search_space": [
            {"name": "learning_rate", "categorical": {"choices": [1e-5, 1e-4, 1e-3]}},
            {"name": "batch_size", "int": {"low": 8, "high": 16, "step": 8}},
        ],
        "objective": {"metric": "f1"},
        "max_trials": 20,
        "train": {"checkpoint": "/models/enc", "data": {"train": "a.txt"}},
    });
    let Value::Object(change) = change else { panic!("not an object") };
    let whole = spec.as_object_mut().unwrap();
    if change.contains_key("command") {
        whole.remove("train");
    }
    whole.extend(change);
    serde_json::from_value(spec).unwrap()
}

fn plan(change: Value, trials: Option<&[Arc<Trial>]>) -> SweepPlan {
    let sweep = Sweep::new(&spec(change)).unwrap();
    sweep_plan(&sweep, "s", trials)
}

fn parameters(part: Option<v1::PlannedPart>) -> (String, Value) {
    let part = part.unwrap();
    (part.name, serde_json::to_value(part.parameters.unwrap()).unwrap())
}

#[test]
fn a_new_study_and_one_that_goes_on() {
    let new = plan(json!({"max_trials": 6, "sampler": {"random": {}}, "max_parallel_trials": 2}), None);
    assert_eq!((new.study.as_str(), new.continued, new.finished_trials), ("studies/s", false, 0));
    assert_eq!((new.trials_to_run, new.max_parallel_trials, new.combinations), (6, 2, Some(6)));
    assert_eq!((new.parameters.join(" ").as_str(), new.backbone.as_str()), ("learning_rate batch_size", "/models/enc"));
    assert_eq!((new.objectives[0].metric.as_str(), new.warnings.len()), ("f1", 0), "{:?}", new.warnings);
    assert_eq!(new.failures, "it fails when the first 3 trials fail, or 3 in all");
    let there = [
        Arc::new(trial(0, State::Complete, Some(1.0))),
        Arc::new(trial(1, State::Fail, None)),
        Arc::new(trial(2, State::Running, None)),
    ];
    let goes_on = plan(json!({"max_trials": 6, "sampler": {"random": {}}, "max_failed_trials": 2}), Some(&there));
    assert_eq!((goes_on.continued, goes_on.finished_trials, goes_on.trials_to_run), (true, 2, 4));
    assert_eq!(goes_on.failures, "it fails when 2 trials fail");
    let done = plan(json!({"max_trials": 2, "sampler": {"random": {}}}), Some(&there));
    assert_eq!(done.warnings, ["the study has 2 finished trials, and max_trials is 2: nothing is left to run"]);
    let continuous = json!([{"name": "learning_rate", "float": {"low": 0.0, "high": 1.0}}]);
    assert_eq!(plan(json!({"search_space": continuous}), None).combinations, None);
}

#[test]
fn samplers_and_pruners_are_told_with_their_defaults() {
    let (name, all) = parameters(plan(json!({}), None).sampler);
    assert_eq!(name, "tpe");
    let expected = json!({"n_startup_trials": 10.0, "n_ei_candidates": 24.0, "multivariate": true, "constant_liar": true, "group": false});
    assert_eq!(all, expected);
    let settings = json!({"sampler": {"tpe": {"n_startup_trials": 3}}, "pruner": {"median": {"n_warmup_steps": 2}}});
    let planned = plan(settings, None);
    assert_eq!(parameters(planned.sampler).1["n_startup_trials"], 3.0);
    let group = json!({"sampler": {"tpe": {"group": true}}, "objective": null, "objectives": [{"metric": "a"}, {"metric": "b"}]});
    assert_eq!(parameters(plan(group, None).sampler).1["multivariate"], true);
    let (name, all) = parameters(planned.pruner);
    let expected = json!({"n_startup_trials": 5.0, "n_warmup_steps": 2.0, "interval_steps": 1.0, "n_min_trials": 1.0});
    assert_eq!((name.as_str(), all), ("median", expected));
    assert_eq!(parameters(plan(json!({}), None).pruner), ("nop".to_owned(), json!({})));
    for (sampler, key) in
        [("nsga2", "population_size"), ("cmaes", "popsize"), ("qmc", "qmc_type"), ("gp", "n_startup_trials")]
    {
        let (name, all) = parameters(plan(json!({"sampler": {sampler: {}}}), None).sampler);
        assert!(name == sampler && !all[key].is_null(), "{name} {all}");
    }
    for (pruner, key) in [
        (json!({"percentile": {"percentile": 25}}), "n_min_trials"),
        (json!({"successive_halving": {}}), "reduction_factor"),
        (json!({"hyperband": {}}), "max_resource"),
        (json!({"wilcoxon": {}}), "p_threshold"),
        (json!({"threshold": {"lower": 0}}), "interval_steps"),
        (json!({"patient": {"patience": 1, "wrapped": {"median": {}}}}), "wrapped"),
        (json!({"bandit": {"slack_factor": 0.2}}), "delay_evaluation"),
    ] {
        let (_, all) = parameters(plan(json!({"pruner": pruner}), None).pruner);
        assert!(!all[key].is_null(), "{key}: {all}");
    }
}

#[test]
fn what_will_not_do_what_it_seems_to_is_warned_of() {
    let space = |step: i32| json!([{"name": "batch_size", "int": {"low": 8, "high": 65, "step": step}}]);
    let command =
        json!({"command": "x ${{search_space.learning_rate}} ${{search_space.batch_size}}", "metrics_file": "m.json"});
    for (change, warned) in [
        (
            json!({"max_trials": 6}),
            "the sampler tpe is random for its first 10 trials (n_startup_trials), and there are 6",
        ),
        (
            json!({"max_trials": 6, "sampler": {"nsga2": {}}}),
            "the sampler nsga2 is random for its first 50 trials (population_size)",
        ),
        (json!({"search_space": space(8)}), "high 65 is not on the grid of step 8; the largest value is 64"),
        (json!({}), "the space has 6 combinations: of 20 trials (max_trials) some repeat others"),
        (
            json!({"sampler": {"grid": {}}}),
            "the grid has 6 combinations: the sweep ends with them, before max_trials (20)",
        ),
        (
            json!({"sampler": {"grid": {}}, "max_trials": 4}),
            "the grid has 6 combinations, of which 4 trials (max_trials) are a part",
        ),
        (
            json!({"command": command, "pruner": {"median": {}}}),
            "the pruner median sees nothing before the end of a trial",
        ),
        (
            json!({"train": {"checkpoint": "/c", "data": {"train": "a"}, "hyperparameters": {"epochs": 1}}, "pruner": {"median": {}}}),
            "the pruner median stops nothing: a trial of 1 epoch reports once",
        ),
        (
            json!({"max_trials": 5, "pruner": {"median": {}}}),
            "the pruner median stops nothing before 5 trials (n_startup_trials)",
        ),
        (json!({"max_parallel_trials": 30}), "max_parallel_trials is 30, for 20 trials to run"),
    ] {
        let planned = plan(change.clone(), None);
        assert!(planned.warnings.iter().any(|warning| warning.contains(warned)), "{change}: {:?}", planned.warnings);
    }
    let grid = plan(json!({"sampler": {"grid": {"points": {"batch_size": [8]}}}}), None);
    assert_eq!((grid.combinations, grid.trials_to_run), (Some(3), 3));
}

#[test]
fn a_dry_run_is_planned_as_one() {
    let dry = plan(json!({"dry_run": true, "pruner": {"median": {}}}), None);
    assert!(dry.dry_run && dry.trials_to_run == 2 && dry.warnings.is_empty(), "{dry:?}");
    assert_eq!(parameters(dry.pruner).0, "nop", "nothing stops it early");
    assert_eq!(dry.failures, "it goes on whatever fails, and fails when no trial completes");
    let Some(Work::Train(train)) = Sweep::new(&spec(json!({"dry_run": true}))).unwrap().spec.trial else { panic!() };
    assert_eq!(train.hyperparameters.unwrap().epochs, Some(1));
}
