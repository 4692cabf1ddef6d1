//! Relative paths in a pipeline file are relative to the file: which values are paths, and what they become.

use std::path::{Component, Path, PathBuf};

use super::tree::{Node, Yaml};

/// Makes the paths of a stage's body absolute; URLs, outputs of jobs and references stay.
pub(super) fn absolutize(kind: &str, body: &mut Node, folder: &Path) {
    let fields: &[&str] = match kind {
        "train" => &["checkpoint"],
        "convert" => &["checkpoint", "evaluation"],
        "predict" => &["checkpoint", "input"],
        "command" => &["working_dir", "workingDir"],
        _ => &[],
    };
    for field in fields {
        body.get_mut(field).into_iter().for_each(|node| absolute(node, folder));
    }
    match kind {
        "sweep" => {
            for trial in ["train", "command"] {
                body.get_mut(trial).into_iter().for_each(|node| absolutize(trial, node, folder));
            }
        }
        "train" => {
            body.get_mut("backbone").into_iter().for_each(|node| backbone(node, folder));
            for data in ["data", "text_classification", "textClassification"] {
                let Some(data) = body.get_mut(data) else { continue };
                for path in ["train", "validation", "test", "labels"] {
                    data.get_mut(path).into_iter().for_each(|node| absolute(node, folder));
                }
            }
        }
        "benchmark" => {
            if let Some(Yaml::List(models)) = body.get_mut("models").map(|node| &mut node.value) {
                models.iter_mut().for_each(|node| absolute(node, folder));
            }
        }
        "command" => {
            let Some(Yaml::Map(inputs)) = body.get_mut("inputs").map(|node| &mut node.value) else { return };
            for (_, input) in inputs {
                input.get_mut("uri").into_iter().for_each(|node| absolute(node, folder));
            }
        }
        _ => {}
    }
}

fn absolute(node: &mut Node, folder: &Path) {
    if let Yaml::Scalar { text, plain } = &mut node.value
        && !text.is_empty()
        && !text.contains("://")
        && !text.starts_with("${{")
        && !is_output(text)
    {
        *text = clean(&folder.join(&*text)).display().to_string();
        *plain = false;
    }
}

/// An encoder's name is one of the Hub, unless it is written as a path or there is a folder of that name: as in `transformers`.
fn backbone(node: &mut Node, folder: &Path) {
    let Some(text) = node.text() else { return };
    let path = text.starts_with("./") || text.starts_with("../");
    if path || (!text.is_empty() && folder.join(text).is_dir()) {
        absolute(node, folder);
    }
}

/// `jobs/{uid}/outputs/...`; a folder that is called `jobs` stays a folder.
fn is_output(text: &str) -> bool {
    let mut parts = text.split('/');
    parts.next() == Some("jobs") && parts.next().is_some_and(runtime_core::jobs::model::is_uid)
}

/// Takes `.` and `..` out of an absolute path.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}
