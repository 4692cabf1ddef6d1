//! Putting a trial's parameters into the job that runs it: hyperparameters by name, or placeholders of a command.

use std::collections::BTreeSet;

use quintet_proto::{
    Form, Hyperparameter, hyperparameters,
    v1::{CommandSpec, Fold, Hyperparameters, JobSpec, KFold, SweepSpec, TrainSpec, job_spec::Kind, sweep_spec::Trial},
};
use runtime_core::status::{FieldViolation, violation};
use serde_json::Value;

use crate::{
    space::{Distribution, ParamValue, Space},
    study::Param,
};

/// Key of the pretrained model in a best configuration.
pub const BACKBONE: &str = "backbone";

/// Which part of a trial a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The fold of this index, of so many.
    Fold {
        /// From 0.
        index: i32,
        /// 2 or more.
        n_splits: i32,
    },
    /// The best trial once more: without folds, and what comes out is kept.
    Refit,
}

/// What a command calls the index of its fold, as `${{search_space.fold}}`.
const FOLD: &str = "fold";
/// What a command calls the number of folds.
const N_SPLITS: &str = "n_splits";

pub(super) fn no_trial() -> FieldViolation {
    violation("trial", "is missing; one of train and command is needed")
}

/// Whether every parameter can be applied to the trial, and every reference be filled.
pub(super) fn check(spec: &SweepSpec, space: &Space) -> Vec<FieldViolation> {
    match &spec.trial {
        None => vec![no_trial()],
        Some(Trial::Train(train)) => {
            let mut wrong = check_train(space);
            let words = train.data.as_ref().map(|data| ("train.data.validation", &data.validation));
            let texts = train.text_classification.as_ref();
            let texts = texts.map(|data| ("train.text_classification.validation", &data.validation));
            for (field, validation) in words.into_iter().chain(texts) {
                if spec.k_fold.is_some() && !validation.is_empty() {
                    let problem =
                        format!("`{validation}` is never read: with k_fold each fold is validated on in turn");
                    wrong.push(violation(field, problem));
                }
            }
            wrong
        }
        Some(Trial::Command(command)) => check_command(command, space, spec.k_fold.is_some()),
    }
}

fn check_train(space: &Space) -> Vec<FieldViolation> {
    let mut wrong = Vec::new();
    for (index, parameter) in space.parameters().iter().enumerate() {
        let path = format!("search_space[{index}]");
        let tunable = || hyperparameters().iter().filter(|field| field.form != Form::Map);
        let Some(Hyperparameter { form, .. }) = tunable().find(|field| field.name == parameter.name) else {
            let known: Vec<&str> = tunable().map(|field| field.name.as_str()).collect();
            let problem =
                format!("`{}` is no hyperparameter of training; known are {}", parameter.name, known.join(", "));
            wrong.push(violation(format!("{path}.name"), problem));
            continue;
        };
        let fits = match (&parameter.distribution, form) {
            (Distribution::Float { .. }, Form::Real) | (Distribution::Int { .. }, Form::Real | Form::Integer) => true,
            (Distribution::Categorical { choices }, form) => choices.iter().all(|choice| {
                matches!(
                    (choice, form),
                    (ParamValue::Int(_), Form::Real | Form::Integer)
                        | (ParamValue::Float(_), Form::Real)
                        | (ParamValue::Bool(_), Form::Boolean)
                        | (ParamValue::Text(_), Form::Word)
                )
            }),
            _ => false,
        };
        let allowed = match form {
            Form::Real => "numbers",
            Form::Integer => "integers",
            Form::Boolean => "a choice of true and false",
            Form::Word | Form::Map => "a choice of words",
        };
        if !fits {
            wrong.push(violation(path, format!("`{}` takes {allowed} only", parameter.name)));
        }
    }
    wrong
}

fn check_command(command: &CommandSpec, space: &Space, folds: bool) -> Vec<FieldViolation> {
    let mut names: BTreeSet<String> = space.parameters().iter().map(|parameter| parameter.name.clone()).collect();
    let mut command = command.clone();
    let mut wrong = Vec::new();
    if folds {
        let taken = space.parameters().iter().position(|parameter| [FOLD, N_SPLITS].contains(&parameter.name.as_str()));
        if let Some(index) = taken {
            let problem = format!("`{FOLD}` and `{N_SPLITS}` are set by k_fold");
            wrong.push(violation(format!("search_space[{index}].name"), problem));
        }
        // A command that does not know its fold would do the same in each.
        names.insert(FOLD.to_owned());
        command.parameters.insert(N_SPLITS.to_owned(), String::new());
    }
    wrong.extend(runtime_core::command::validate("command", &command, &names));
    for (index, parameter) in space.parameters().iter().enumerate() {
        let name = &parameter.name;
        if command.parameters.contains_key(name) {
            let problem = format!("`{name}` is fixed in command.parameters too");
            wrong.push(violation(format!("search_space[{index}].name"), problem));
        }
    }
    wrong
}

/// The job of a trial with these parameters, or of a part of it.
///
/// # Errors
/// A parameter that does not fit; the check of the sweep has excluded it.
pub fn trial_spec(spec: &SweepSpec, params: &[Param], part: Part) -> Result<JobSpec, String> {
    let kind = match &spec.trial {
        None => return Err("the sweep has no trial".into()),
        Some(Trial::Train(train)) => {
            let mut train = train_trial(train, params, spec.dry_run)?;
            train.metrics_only = part != Part::Refit;
            if let Part::Fold { index, n_splits } = part {
                let KFold { shuffle, seed, stratified, .. } = spec.k_fold.unwrap_or_default();
                let fold = Fold { n_splits, index, shuffle, seed, stratified };
                match &mut train.text_classification {
                    Some(texts) => texts.fold = Some(fold),
                    None => train.data.get_or_insert_default().fold = Some(fold),
                }
            }
            Kind::Train(train)
        }
        Some(Trial::Command(command)) => {
            let mut command = command.clone();
            // A reference to a parameter that this trial does not have is empty.
            command.parameters.extend(spec.search_space.iter().map(|p| (p.name.clone(), String::new())));
            command.parameters.extend(params.iter().map(|p| (p.name.clone(), p.external().to_string())));
            if spec.k_fold.is_some() {
                let [fold, n_splits] = match part {
                    Part::Fold { index, n_splits } => [index.to_string(), n_splits.to_string()],
                    Part::Whole | Part::Refit => Default::default(),
                };
                command.parameters.extend([(FOLD.to_owned(), fold), (N_SPLITS.to_owned(), n_splits)]);
            }
            Kind::Command(command)
        }
    };
    Ok(JobSpec { kind: Some(kind) })
}

fn train_trial(train: &TrainSpec, params: &[Param], dry_run: bool) -> Result<TrainSpec, String> {
    let given = train.hyperparameters.clone().unwrap_or_default();
    let mut fields = serde_json::to_value(given).map_err(|error| error.to_string())?;
    for param in params {
        if let (Value::Object(fields), false) = (&mut fields, dry_run && param.name == "epochs") {
            fields.insert(param.name.clone(), param.external().to_json());
        }
    }
    let hyperparameters: Hyperparameters = serde_json::from_value(fields).map_err(|error| error.to_string())?;
    Ok(TrainSpec { hyperparameters: Some(hyperparameters), ..train.clone() })
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::{TextClassificationData, TokenClassificationData};

    use super::*;
    use crate::sweep::spec::tests::command_sweep;

    fn space(parameters: Vec<(&str, Distribution)>) -> Space {
        Space::of(parameters)
    }

    fn param(name: &str, value: f64, distribution: Distribution) -> Param {
        Param { name: name.into(), value, distribution }
    }

    #[test]
    fn hyperparameters_are_set_by_name_and_kind() {
        let space = space(vec![
            ("learning_rate", Distribution::float(1e-5, 1e-3, true, None).unwrap()),
            ("batch_size", Distribution::float(8.0, 16.0, false, None).unwrap()),
            ("group_by_length", Distribution::categorical(vec![ParamValue::Bool(true)]).unwrap()),
            ("epochs", Distribution::categorical(vec![ParamValue::Int(1), ParamValue::Text("2".into())]).unwrap()),
            ("lr", Distribution::int(1, 2, false, 1).unwrap()),
        ]);
        let wrong = check_train(&space);
        assert_eq!(
            wrong.iter().map(|v| v.field.as_str()).collect::<Vec<_>>(),
            ["search_space[1]", "search_space[3]", "search_space[4].name"]
        );
        assert!(wrong[2].description.contains("known are learning_rate, batch_size"));

        let mut spec = command_sweep();
        let hyperparameters = Hyperparameters { epochs: Some(3), dropout: Some(0.1), ..Default::default() };
        spec.trial = Some(Trial::Train(TrainSpec {
            checkpoint: "/c".into(),
            hyperparameters: Some(hyperparameters),
            ..Default::default()
        }));
        let params = [
            param("learning_rate", 2e-5, Distribution::float(1e-5, 1e-3, true, None).unwrap()),
            param("epochs", 5.0, Distribution::int(1, 9, false, 1).unwrap()),
            param("seed", 0.0, Distribution::categorical(vec![ParamValue::Int(7)]).unwrap()),
        ];
        let Some(Kind::Train(train)) = trial_spec(&spec, &params, Part::Whole).unwrap().kind else {
            panic!("not a train job")
        };
        let applied = train.hyperparameters.unwrap();
        assert!(train.metrics_only && train.checkpoint == "/c");
        assert_eq!((applied.learning_rate, applied.epochs), (Some(2e-5), Some(5)));
        assert_eq!((applied.seed, applied.dropout), (Some(7), Some(0.1)));
    }

    #[test]
    fn references_and_parameters_have_to_match() {
        let command = CommandSpec {
            command: "run --a ${{ search_space.a }} --c ${{search_space.c}} --k ${{search_space.k}}".into(),
            parameters: [("k".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        };
        let one = Distribution::int(1, 2, false, 1).unwrap();
        let space = space(vec![("a", one.clone()), ("b", one.clone()), ("k", one.clone())]);
        let wrong: Vec<String> = check_command(&command, &space, false)
            .into_iter()
            .map(|v| format!("{}: {}", v.field, v.description))
            .collect();
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong[0].starts_with("command.command: ${{search_space.c}} is not declared"), "{wrong:?}");
        assert!(wrong[1].starts_with("command.command: the parameter \"b\" is not used"), "{wrong:?}");
        assert_eq!(wrong[2], "search_space[2].name: `k` is fixed in command.parameters too");
        let mut spec = command_sweep();
        spec.trial = Some(Trial::Command(command));
        let params = [param("a", 2.0, one), param("c", 1e-5, Distribution::float(1e-6, 1.0, true, None).unwrap())];
        let Some(Kind::Command(command)) = trial_spec(&spec, &params, Part::Whole).unwrap().kind else {
            panic!("not a command")
        };
        assert_eq!(command.parameters["a"], "2");
        assert_eq!(command.parameters["c"], "1e-05");
        assert_eq!(command.parameters["k"], "1");
    }
    #[test]
    fn each_fold_is_a_part_of_the_data_and_the_refit_is_all_of_it() {
        let mut spec = command_sweep();
        spec.k_fold = Some(KFold { n_splits: 3, seed: Some(5), ..KFold::default() });
        let train = TrainSpec { checkpoint: "/c".into(), ..Default::default() };
        spec.trial = Some(Trial::Train(train.clone()));
        let part = |spec: &SweepSpec, part| trial_spec(spec, &[], part).unwrap().kind.unwrap();
        let fold = Part::Fold { index: 2, n_splits: 3 };
        let Kind::Train(second) = part(&spec, fold) else { panic!("not a train job") };
        let expected = Fold { n_splits: 3, index: 2, seed: Some(5), ..Fold::default() };
        assert_eq!((second.data.unwrap().fold, second.metrics_only), (Some(expected), true));
        let Kind::Train(refit) = part(&spec, Part::Refit) else { panic!("not a train job") };
        assert_eq!((refit.data, refit.metrics_only), (None, false));

        let command = CommandSpec { command: "run ${{search_space.fold}}".into(), ..Default::default() };
        spec.trial = Some(Trial::Command(command.clone()));
        let Kind::Command(second) = part(&spec, fold) else { panic!("not a command") };
        assert_eq!((second.parameters["fold"].as_str(), second.parameters["n_splits"].as_str()), ("2", "3"));
        let Kind::Command(refit) = part(&spec, Part::Refit) else { panic!("not a command") };
        assert_eq!(refit.parameters["fold"], "");

        let none = space(Vec::new());
        assert!(check_command(&command, &none, true).is_empty());
        let blind = CommandSpec { command: "run".into(), ..Default::default() };
        assert!(check_command(&blind, &none, true)[0].description.contains("\"fold\" is not used"));
        let data = TokenClassificationData { validation: "dev".into(), ..Default::default() };
        spec.trial = Some(Trial::Train(TrainSpec { data: Some(data), ..train.clone() }));
        assert_eq!(check(&spec, &none)[0].field, "train.data.validation");

        let data = TextClassificationData { train: "/t".into(), validation: "dev".into(), ..Default::default() };
        spec.trial = Some(Trial::Train(TrainSpec { text_classification: Some(data), ..train }));
        assert_eq!(check(&spec, &none)[0].field, "train.text_classification.validation");
        let Kind::Train(second) = part(&spec, fold) else { panic!("not a train job") };
        assert_eq!((second.data, second.text_classification.unwrap().fold), (None, Some(expected)));
    }
}
