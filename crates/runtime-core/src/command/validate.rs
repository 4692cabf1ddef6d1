//! Checks a command's specification before a job is made of it.

use std::collections::BTreeSet;

use quintet_proto::v1::CommandSpec;
use tonic_types::FieldViolation;

use super::placeholders::{Kind, is_name, placeholders};
use crate::{jobs::inputs::Location, status::violation};

/// What is wrong with a command; `prefix` is the path of its field. `parameters` are those that a sweep will set.
pub fn validate(prefix: &str, spec: &CommandSpec, parameters: &BTreeSet<String>) -> Vec<FieldViolation> {
    let mut wrong = Vec::new();
    let mut at = |field: &str, text: String| wrong.push(violation(format!("{prefix}.{field}"), text));
    if spec.command.trim().is_empty() {
        at("command", "is empty; give a shell command".into());
    }
    for (name, input) in &spec.inputs {
        use quintet_proto::v1::command_input::Source;
        let field = format!("inputs.{name}");
        match &input.source {
            _ if !is_name(name) => at(&field, "names hold letters, digits, `_` and `-`".into()),
            None => at(&field, "has neither uri nor literal".into()),
            Some(Source::Uri(uri)) => {
                if let Err(error) = Location::parse(uri) {
                    at(&field, error.to_string());
                }
            }
            Some(Source::Literal(_)) => {}
        }
    }
    for (index, name) in spec.outputs.iter().enumerate() {
        if !is_name(name) {
            at(&format!("outputs[{index}]"), format!("{name:?}: names hold letters, digits, `_` and `-`"));
        }
    }
    for name in spec.environment.keys() {
        if name.is_empty() || name.contains('=') || name.contains('\0') {
            at("environment", format!("{name:?} is no name of a variable"));
        }
    }
    if !spec.working_dir.is_empty() && !spec.working_dir.starts_with('/') {
        at("working_dir", format!("{:?} is not an absolute path", spec.working_dir));
    }
    if spec.metrics_file.starts_with('/') || spec.metrics_file.split('/').any(|part| part == "..") {
        at("metrics_file", format!("{:?} has to lie inside the working folder", spec.metrics_file));
    }
    match placeholders(&spec.command) {
        Err(error) => at("command", error.to_string()),
        Ok(found) => {
            for placeholder in &found {
                let declared: Vec<&str> = match placeholder.kind {
                    Kind::Inputs => spec.inputs.keys().map(String::as_str).collect(),
                    Kind::Outputs => spec.outputs.iter().map(String::as_str).collect(),
                    Kind::SearchSpace => spec.parameters.keys().chain(parameters).map(String::as_str).collect(),
                };
                if !declared.contains(&placeholder.name.as_str()) {
                    let list = if declared.is_empty() { "none".into() } else { declared.join(", ") };
                    at("command", format!("{placeholder} is not declared; {} has {list}", placeholder.kind));
                }
            }
            let used: BTreeSet<&str> =
                found.iter().filter(|p| p.kind == Kind::SearchSpace).map(|p| p.name.as_str()).collect();
            for name in parameters.iter().filter(|name| !used.contains(name.as_str())) {
                at(
                    "command",
                    format!("the parameter {name:?} is not used; write ${{{{search_space.{name}}}}} where it belongs"),
                );
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::{CommandInput, command_input::Source};

    use super::*;

    #[test]
    fn names_what_is_wrong_and_what_is_declared() {
        let input = CommandInput { source: Some(Source::Uri("relative/path".into())) };
        let spec = CommandSpec {
            command: "train ${{inputs.dat}} ${{outputs.model}} ${{search_space.lr}}".into(),
            inputs: [("data".to_owned(), input)].into(),
            metrics_file: "../metrics.json".into(),
            working_dir: "here".into(),
            ..CommandSpec::default()
        };
        let parameters: BTreeSet<String> = ["lr".to_owned(), "epochs".to_owned()].into();
        let wrong: Vec<(String, String)> =
            validate("spec.command", &spec, &parameters).into_iter().map(|v| (v.field, v.description)).collect();
        let has = |field: &str, text: &str| {
            assert!(wrong.iter().any(|(f, d)| f == field && d.contains(text)), "{field}: {text} not in {wrong:?}");
        };
        has("spec.command.inputs.data", "relative path");
        has("spec.command.command", "${{inputs.dat}} is not declared; inputs has data");
        has("spec.command.command", "${{outputs.model}} is not declared; outputs has none");
        has("spec.command.command", "\"epochs\" is not used");
        has("spec.command.metrics_file", "inside the working folder");
        has("spec.command.working_dir", "absolute");
        assert_eq!(wrong.len(), 6);
    }
}
