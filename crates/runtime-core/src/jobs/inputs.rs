//! The inputs of a job: which fields of a specification name one, and what its content is.

use std::path::PathBuf;

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
        if uri.contains("://") {
            return Ok(Self::Remote(uri.into()));
        }
        let path = PathBuf::from(uri);
        if path.is_absolute() { Ok(Self::Local(path)) } else { Err(Error::Relative(uri.into())) }
    }
}

/// Every input of a specification, in the order of its fields.
pub fn inputs_of(spec: &JobSpec) -> Vec<Input> {
    let mut inputs = Vec::new();
    match &spec.kind {
        Some(Kind::Sweep(sweep)) => match &sweep.trial {
            Some(Trial::Train(train)) => train_inputs("spec.sweep.train", train, &mut inputs),
            Some(Trial::Command(command)) => command_inputs("spec.sweep.command", command, &mut inputs),
            None => {}
        },
        Some(Kind::Train(train)) => train_inputs("spec.train", train, &mut inputs),
        Some(Kind::Convert(convert)) => {
            push(&mut inputs, "spec.convert.checkpoint".into(), &convert.checkpoint);
            push(&mut inputs, "spec.convert.evaluation".into(), &convert.evaluation);
        }
        Some(Kind::Benchmark(benchmark)) => {
            for (index, model) in benchmark.models.iter().enumerate() {
                push(&mut inputs, format!("spec.benchmark.models[{index}]"), model);
            }
        }
        Some(Kind::Command(command)) => command_inputs("spec.command", command, &mut inputs),
        Some(Kind::Predict(predict)) => {
            push(&mut inputs, "spec.predict.checkpoint".into(), &predict.checkpoint);
            push(&mut inputs, "spec.predict.input".into(), &predict.input);
        }
        None => {}
    }
    inputs
}

fn push(inputs: &mut Vec<Input>, field: String, uri: &str) {
    if !uri.is_empty() {
        inputs.push(Input { field, uri: uri.into() });
    }
}

fn train_inputs(prefix: &str, train: &TrainSpec, inputs: &mut Vec<Input>) {
    push(inputs, format!("{prefix}.checkpoint"), &train.checkpoint);
    if let Some(data) = &train.data {
        push(inputs, format!("{prefix}.data.train"), &data.train);
        push(inputs, format!("{prefix}.data.validation"), &data.validation);
        push(inputs, format!("{prefix}.data.test"), &data.test);
    }
}

fn command_inputs(prefix: &str, command: &CommandSpec, inputs: &mut Vec<Input>) {
    for (name, input) in &command.inputs {
        if let Some(Source::Uri(uri)) = &input.source {
            push(inputs, format!("{prefix}.inputs.{name}"), uri);
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
    }
}
