//! The inputs of a job: which fields of a specification name one, and what its content is.

use std::path::PathBuf;

use quintet_hub::{Repo, SCHEME};
use quintet_proto::v1::{CommandSpec, JobSpec, TrainSpec, command_input::Source, job_spec::Kind, sweep_spec::Trial};

use super::model::is_uid;

/// An input as a specification names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Path of the field, such as `spec.train.data.train`.
    pub field: String,
    /// Its value.
    pub uri: String,
}

/// Where an input lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// An output of another job.
    Output {
        /// Uid of that job.
        uid: String,
        /// Name of the output.
        output: String,
        /// Path inside the output; empty for all of it.
        path: String,
    },
    /// A file or folder of this machine.
    Local(PathBuf),
    /// An object store's URL.
    Remote(String),
    /// A model on the Hugging Face Hub.
    Hub(Repo),
}

/// What is wrong with an input's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not of the form of a job's output.
    #[error("{0:?} is not of the form jobs/{{uid}}/outputs/{{output}}[/path]")]
    Output(String),
    /// A path that depends on where the server runs.
    #[error("{0:?} is a relative path; give an absolute path or a URL")]
    Relative(String),
    /// No name of a model on the Hub.
    #[error("{0}")]
    Hub(String),
}

impl Location {
    /// Reads the text of an input.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(uri: &str) -> Result<Self, Error> {
        if let Some(rest) = uri.strip_prefix("jobs/") {
            let mut parts = rest.splitn(4, '/');
            return match (parts.next(), parts.next(), parts.next(), parts.next().unwrap_or_default()) {
                (Some(uid), Some("outputs"), Some(output), path)
                    if is_uid(uid) && !output.is_empty() && path.split('/').all(|part| part != "..") =>
                {
                    Ok(Self::Output { uid: uid.into(), output: output.into(), path: path.into() })
                }
                _ => Err(Error::Output(uri.into())),
            };
        }
        if let Some(path) = uri.strip_prefix("file://") {
            return Self::parse(path);
        }
        if uri.starts_with(SCHEME) {
            return uri.parse().map(Self::Hub).map_err(|error: quintet_hub::Error| Error::Hub(error.to_string()));
        }
        if uri.contains("://") {
            return Ok(Self::Remote(uri.into()));
        }
        let path = PathBuf::from(uri);
        if path.is_absolute() { Ok(Self::Local(path)) } else { Err(Error::Relative(uri.into())) }
    }
}

/// The address of an encoder by its name: a bare name is one of the Hub, anything else stays.
///
/// # Errors
/// [`Error::Hub`] says why it is no name.
pub fn backbone_uri(text: &str) -> Result<String, Error> {
    let output = text.strip_prefix("jobs/").and_then(|rest| rest.split('/').next()).is_some_and(is_uid);
    if output || text.contains("://") || text.starts_with('/') {
        return Ok(text.into());
    }
    text.parse::<Repo>()
        .map(|repo| repo.uri())
        .map_err(|error| Error::Hub(format!("{error}; a folder is given by its absolute path")))
}

/// The trainings that a specification describes, with the paths of their fields.
pub(super) fn trainings_of(spec: &mut JobSpec) -> Option<(&'static str, &mut TrainSpec)> {
    match &mut spec.kind {
        Some(Kind::Train(train)) => Some(("spec.train", train)),
        Some(Kind::Sweep(sweep)) => match &mut sweep.trial {
            Some(Trial::Train(train)) => Some(("spec.sweep.train", train)),
            _ => None,
        },
        _ => None,
    }
}

/// Every input of a specification, in the order of its fields.
pub fn inputs_of(spec: &JobSpec) -> Vec<Input> {
    let mut inputs = Vec::new();
    each_input(&mut spec.clone(), |field, uri| inputs.push(Input { field, uri: uri.clone() }));
    inputs
}

/// Hands every input of a specification that is not empty to `work`, which may change it.
pub(super) fn each_input(spec: &mut JobSpec, mut work: impl FnMut(String, &mut String)) {
    let mut inputs = |field: String, uri: &mut String| {
        if !uri.is_empty() {
            work(field, uri);
        }
    };
    let inputs = &mut inputs;
    match &mut spec.kind {
        Some(Kind::Sweep(sweep)) => match &mut sweep.trial {
            Some(Trial::Train(train)) => train_inputs("spec.sweep.train", train, inputs),
            Some(Trial::Command(command)) => command_inputs("spec.sweep.command", command, inputs),
            None => {}
        },
        Some(Kind::Train(train)) => train_inputs("spec.train", train, inputs),
        Some(Kind::Convert(convert)) => {
            inputs("spec.convert.checkpoint".into(), &mut convert.checkpoint);
            inputs("spec.convert.evaluation".into(), &mut convert.evaluation);
        }
        Some(Kind::Benchmark(benchmark)) => {
            for (index, model) in benchmark.models.iter_mut().enumerate() {
                inputs(format!("spec.benchmark.models[{index}]"), model);
            }
        }
        Some(Kind::Command(command)) => command_inputs("spec.command", command, inputs),
        Some(Kind::Predict(predict)) => {
            inputs("spec.predict.checkpoint".into(), &mut predict.checkpoint);
            inputs("spec.predict.input".into(), &mut predict.input);
        }
        None => {}
    }
}

fn train_inputs(prefix: &str, train: &mut TrainSpec, inputs: &mut impl FnMut(String, &mut String)) {
    inputs(format!("{prefix}.checkpoint"), &mut train.checkpoint);
    if let Some(data) = &mut train.data {
        inputs(format!("{prefix}.data.train"), &mut data.train);
        inputs(format!("{prefix}.data.validation"), &mut data.validation);
        inputs(format!("{prefix}.data.test"), &mut data.test);
    }
    if let Some(data) = &mut train.text_classification {
        let prefix = format!("{prefix}.text_classification");
        inputs(format!("{prefix}.train"), &mut data.train);
        inputs(format!("{prefix}.validation"), &mut data.validation);
        inputs(format!("{prefix}.test"), &mut data.test);
        inputs(format!("{prefix}.labels"), &mut data.labels);
    }
}

fn command_inputs(prefix: &str, command: &mut CommandSpec, inputs: &mut impl FnMut(String, &mut String)) {
    for (name, input) in &mut command.inputs {
        if let Some(Source::Uri(uri)) = &mut input.source {
            inputs(format!("{prefix}.inputs.{name}"), uri);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        let uid = "0123456789abcdef0123456789abcdef";
        assert_eq!(
            Location::parse(&format!("jobs/{uid}/outputs/model/model.onnx")),
            Ok(Location::Output { uid: uid.into(), output: "model".into(), path: "model.onnx".into() })
        );
        assert_eq!(Location::parse("file:///a/b"), Ok(Location::Local("/a/b".into())));
        assert_eq!(Location::parse("s3://bucket/x"), Ok(Location::Remote("s3://bucket/x".into())));
        for bad in ["jobs/x/outputs/y", &format!("jobs/{uid}/outputs/m/../../x"), &format!("jobs/{uid}/logs/x")] {
            assert_eq!(Location::parse(bad), Err(Error::Output(bad.into())));
        }
        assert_eq!(Location::parse("data/train.conll"), Err(Error::Relative("data/train.conll".into())));
        assert_eq!(Location::parse("hf://org/name@v1"), Ok(Location::Hub("org/name@v1".parse().unwrap())));
        assert!(matches!(Location::parse("hf://a/b/c"), Err(Error::Hub(_))));
    }

    #[test]
    fn a_backbone_is_a_name_unless_it_is_something_else() {
        let output = "jobs/0123456789abcdef0123456789abcdef/outputs/checkpoint";
        for (text, uri) in [
            ("distilbert-base-uncased", "hf://distilbert-base-uncased@main"),
            ("org/name@v1", "hf://org/name@v1"),
            ("jobs/name", "hf://jobs/name@main"),
            ("hf://org/name", "hf://org/name"),
            ("/models/enc", "/models/enc"),
            ("s3://bucket/enc", "s3://bucket/enc"),
            (output, output),
        ] {
            assert_eq!(backbone_uri(text).unwrap(), uri);
        }
        let error = backbone_uri("./models/enc").unwrap_err().to_string();
        assert!(error.contains("absolute path"), "{error}");
    }
}
