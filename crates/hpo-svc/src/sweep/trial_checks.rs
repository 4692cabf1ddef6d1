//! Whether the trials of a sweep could run: the check of their jobs' own kind, asked about every choice and both ends of every range.
//!
//! What is wrong with a value may depend on the others (two that exclude each other, one that is to be above another). So each value is looked at
//! twice, beside the lowest and beside the highest values of the other parameters, and is refused when it is wrong both times: the rest is
//! for the trials to find out.

use std::collections::BTreeMap;

use quintet_proto::v1::JobSpec;
use runtime_core::status::{FieldViolation, violation};

use super::{Part, Sweep, trial_spec};
use crate::{
    space::{Distribution, Space},
    study::Param,
};

/// What is wrong with the specification of a job, by its field.
pub(super) type CheckJob<'a> = &'a dyn Fn(&JobSpec) -> Vec<FieldViolation>;

/// Where in its domain a parameter stands that is not looked at.
#[derive(Debug, Clone, Copy)]
enum End {
    Low,
    High,
}

impl End {
    const BOTH: [Self; 2] = [Self::Low, Self::High];

    fn value(self, domain: &Distribution) -> f64 {
        match (self, domain) {
            (Self::Low, domain) => domain.first(),
            (Self::High, Distribution::Float { high, .. }) => *high,
            (Self::High, Distribution::Int { high, .. }) => *high as f64,
            (Self::High, Distribution::Categorical { choices }) => choices.len().saturating_sub(1) as f64,
        }
    }
}

/// What is wrong with the jobs of the trials: of a value of the search space by its place there, of anything else by the field of
/// the trial.
pub(super) fn check(sweep: &Sweep, check: CheckJob<'_>) -> Vec<FieldViolation> {
    let space = &sweep.space;
    let tuned: Vec<String> = space.parameters().iter().map(|parameter| field(&parameter.name)).collect();
    let own = |found: &FieldViolation| !tuned.contains(&found.field);
    let mut wrong: Vec<FieldViolation> = wrong_both_times(sweep, check, None).into_iter().filter(own).collect();
    for found in &mut wrong {
        // The fields of a trial are told from the sweep.
        if let Some(inside) = found.field.strip_prefix("spec.") {
            found.field = inside.to_owned();
        }
    }
    for (index, parameter) in space.parameters().iter().enumerate() {
        for (place, value) in values(&parameter.distribution) {
            let place = format!("search_space[{index}].{place}");
            let param = Param { name: parameter.name.clone(), value, distribution: parameter.distribution.clone() };
            if let Err(problem) = trial_spec(&sweep.spec, std::slice::from_ref(&param), part(sweep)) {
                wrong.push(violation(place, format!("found {}: {problem}", param.external())));
                continue;
            }
            let found = wrong_both_times(sweep, check, Some((index, value)));
            let ours = found.into_iter().filter(|found| found.field == tuned[index]);
            wrong
                .extend(ours.map(|found| violation(place.clone(), format!("`{}`: {}", param.name, found.description))));
        }
    }
    wrong
}

/// Where the check of a training tells of a hyperparameter.
fn field(name: &str) -> String {
    format!("spec.train.hyperparameters.{name}")
}

/// The values of a domain to look at, each with its place.
fn values(domain: &Distribution) -> Vec<(String, f64)> {
    let kind = match domain {
        Distribution::Categorical { choices } => {
            let place = |index: usize| format!("categorical.choices[{index}]");
            return (0..choices.len()).map(|index| (place(index), index as f64)).collect();
        }
        Distribution::Float { .. } => "float",
        Distribution::Int { .. } => "int",
    };
    let mut ends = vec![(format!("{kind}.low"), End::Low.value(domain))];
    if !domain.single() {
        ends.push((format!("{kind}.high"), End::High.value(domain)));
    }
    ends
}

fn part(sweep: &Sweep) -> Part {
    sweep.n_splits.map_or(Part::Whole, |n_splits| Part::Fold { index: 0, n_splits })
}

/// What is wrong with a trial that has this value, beside the low and beside the high ends of the others.
fn wrong_both_times(sweep: &Sweep, check: CheckJob<'_>, chosen: Option<(usize, f64)>) -> Vec<FieldViolation> {
    // An end that cannot be put into a job is told by itself.
    let job = |end| trial_spec(&sweep.spec, &params(&sweep.space, chosen, end), part(sweep)).ok();
    let mut found = End::BOTH.into_iter().filter_map(job).map(|job| check(&job));
    let first = found.next().unwrap_or_default();
    let others: Vec<Vec<FieldViolation>> = found.collect();
    let every = |one: &FieldViolation| others.iter().all(|other| other.iter().any(|found| found.field == one.field));
    first.into_iter().filter(every).collect()
}

/// The parameters of a trial: those that exist when `chosen` has its value, the others at one end.
fn params(space: &Space, chosen: Option<(usize, f64)>, end: End) -> Vec<Param> {
    let all = space.parameters();
    let mut fixed: BTreeMap<usize, f64> = chosen.into_iter().collect();
    // The chosen one exists only when those that it depends on have the right values.
    let mut dependent = chosen.map(|(index, _)| index);
    while let Some(condition) = dependent.and_then(|index| all.get(index)?.condition.as_ref()) {
        fixed.extend(condition.values.first().map(|value| (condition.parameter, *value)));
        dependent = Some(condition.parameter);
    }
    let mut before: Vec<Option<f64>> = Vec::with_capacity(all.len());
    for (index, parameter) in all.iter().enumerate() {
        let value = fixed.get(&index).copied().or_else(|| {
            let active = space.active(index, &before);
            active.then(|| end.value(&parameter.distribution))
        });
        before.push(value);
    }
    let param = |(parameter, value): (&crate::space::Parameter, Option<f64>)| {
        let distribution = parameter.distribution.clone();
        value.map(|value| Param { name: parameter.name.clone(), value, distribution })
    };
    all.iter().zip(before).filter_map(param).collect()
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::{
        Condition, Hyperparameters, Parameter, TrainSpec, job_spec::Kind, parameter::Domain, sweep_spec::Trial,
    };
    use quintet_proto::{types, v1};

    use super::*;
    use crate::sweep::spec::tests::command_sweep;

    /// Rules of the kind that trainings have.
    fn training(job: &JobSpec) -> Vec<FieldViolation> {
        let Some(Kind::Train(train)) = &job.kind else { return Vec::new() };
        let hyper = train.hyperparameters.clone().unwrap_or_default();
        let mut wrong = Vec::new();
        let mut refuse = |broken: bool, name: &str| {
            if broken {
                wrong.push(violation(field(name), format!("{name} is wrong")));
            }
        };
        refuse(hyper.optim.is_some_and(|word| word != "adamw"), "optim");
        refuse(hyper.learning_rate.is_some_and(|rate| rate <= 0.0), "learning_rate");
        refuse(hyper.epochs.is_some_and(|epochs| epochs < 1), "epochs");
        refuse(hyper.tokens_per_batch.unwrap_or(1000) < hyper.max_length.unwrap_or(128), "tokens_per_batch");
        let both = hyper.warmup_steps.is_some() && hyper.warmup_ratio.is_some_and(|ratio| ratio > 0.0);
        refuse(both, "warmup_steps");
        if train.checkpoint.is_empty() {
            wrong.push(violation("spec.train.checkpoint", "missing"));
        }
        wrong
    }

    fn sweep(parameters: Vec<(&str, Domain)>, hyperparameters: Hyperparameters) -> v1::SweepSpec {
        let parameter =
            |(name, domain): (&str, Domain)| Parameter { name: name.into(), domain: Some(domain), condition: None };
        let train =
            TrainSpec { checkpoint: "/c".into(), hyperparameters: Some(hyperparameters), ..TrainSpec::default() };
        v1::SweepSpec {
            search_space: parameters.into_iter().map(parameter).collect(),
            trial: Some(Trial::Train(train)),
            ..command_sweep()
        }
    }

    fn float(low: f64, high: f64) -> Domain {
        Domain::Float(v1::FloatDomain { low, high, log: false, step: None })
    }

    fn int(low: i64, high: i64) -> Domain {
        Domain::Int(v1::IntDomain { low, high, log: false, step: 0 })
    }

    fn words(words: &[&'static str]) -> Domain {
        let choices = words.iter().map(|word| types::Value::from(*word)).collect();
        Domain::Categorical(v1::CategoricalDomain { choices })
    }

    fn told(spec: &v1::SweepSpec) -> Vec<String> {
        check(&Sweep::new(spec).unwrap(), &training).into_iter().map(|found| found.field).collect()
    }

    #[test]
    fn choices_ends_and_fixed_values_are_told_by_their_places() {
        let fixed = Hyperparameters { epochs: Some(0), learning_rate: Some(-1.0), ..Default::default() };
        let mut spec = sweep(
            vec![
                ("learning_rate", float(0.0, 1e-3)),
                ("optim", words(&["adamw", "sgd", "lion"])),
                ("max_length", int(8, 1 << 40)),
            ],
            fixed,
        );
        let expected = [
            "train.hyperparameters.epochs",
            "search_space[0].float.low",
            "search_space[1].categorical.choices[1]",
            "search_space[1].categorical.choices[2]",
            "search_space[2].int.high",
        ];
        // The fixed rate is never read; the length that no job can hold hides nothing.
        assert_eq!(told(&spec), expected);
        if let Some(Trial::Train(train)) = &mut spec.trial {
            train.checkpoint.clear();
        }
        spec.search_space = sweep(vec![("learning_rate", float(1e-5, 1e-3))], Hyperparameters::default()).search_space;
        assert_eq!(told(&spec), ["train.hyperparameters.epochs", "train.checkpoint"]);
    }

    #[test]
    fn what_only_some_trials_meet_is_left_to_them() {
        // The budget is below the default length, and above those that are tried.
        let budget = Hyperparameters { tokens_per_batch: Some(64), ..Default::default() };
        assert_eq!(told(&sweep(vec![("max_length", int(16, 64))], budget.clone())), Vec::<String>::new());
        assert_eq!(told(&sweep(vec![("max_length", int(16, 128))], budget.clone())), Vec::<String>::new());
        assert_eq!(
            told(&sweep(vec![("max_length", int(65, 128))], budget)),
            ["train.hyperparameters.tokens_per_batch"]
        );
        // Two that exclude each other, each under its condition.
        let mut spec = sweep(
            vec![
                ("optim", words(&["adamw"])),
                (
                    "group_by_length",
                    Domain::Categorical(v1::CategoricalDomain {
                        choices: vec![types::Value::from(true), types::Value::from(false)],
                    }),
                ),
                ("warmup_ratio", float(0.1, 0.2)),
                ("warmup_steps", int(1, 9)),
            ],
            Hyperparameters::default(),
        );
        assert_eq!(told(&spec), ["search_space[3].int.low", "search_space[3].int.high"]);
        let when = |value: bool| Some(Condition { parameter: "group_by_length".into(), values: vec![value.into()] });
        spec.search_space[2].condition = when(true);
        spec.search_space[3].condition = when(false);
        assert_eq!(told(&spec), Vec::<String>::new());
    }

    #[test]
    fn commands_are_no_trainings() {
        assert!(check(&Sweep::new(&command_sweep()).unwrap(), &training).is_empty());
    }
}
