//! From the tree of a file to a checked pipeline.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use quintet_proto::v1::{FinalTrainingMode, JobSpec, job_spec::Kind};

use super::{
    ConfigFrom, FinalTraining, Pipeline, Problem, Stage, StageReference,
    de::{read, suggestion, unknown_key},
    order, paths,
    reference::{self, Reference},
    space,
    tree::{self, Key, Node, Scalar, Yaml, join},
};

const TOP_KEYS: [&str; 4] = ["name", "experiment", "params", "stages"];
const KINDS: [&str; 6] = ["sweep", "train", "convert", "benchmark", "command", "predict"];
const STAGE_KEYS: [&str; 12] = [
    "sweep",
    "train",
    "convert",
    "benchmark",
    "command",
    "predict",
    "config_from",
    "final_training",
    "resources",
    "timeouts",
    "retry",
    "labels",
];

type Params = BTreeMap<String, Node>;

pub(super) fn parse(file: &str, text: &str, folder: &Path, sets: &[(String, String)]) -> Result<Pipeline, Problem> {
    let mut root = tree::parse(text)?;
    let top = root.place;
    for (key, _) in root.entries("")? {
        known(key, "", &TOP_KEYS)?;
    }
    let params = params(root.get("params"), sets)?;
    for key in ["name", "experiment", "stages"] {
        if let Some(node) = root.get_mut(key) {
            node.each_scalar(key, &mut |path, scalar| fill(path, scalar, &params))?;
        }
    }
    let name = match root.get("name") {
        Some(node) => word("name", node)?,
        None => return Err(Problem::new(top, "name", "is missing; it names the pipeline's jobs")),
    };
    let experiment = root.get("experiment").map(|node| plain_text("experiment", node)).transpose()?;
    let Some(stages) = root.get_mut("stages") else {
        return Err(Problem::new(top, "stages", "is missing; a pipeline has at least one stage"));
    };
    let place = stages.place;
    stages.entries("stages")?;
    let Yaml::Map(entries) = &mut stages.value else {
        return Err(Problem::new(place, "stages", "is empty; a pipeline has at least one stage"));
    };
    let mut parsed = Vec::with_capacity(entries.len());
    let mut notes = Vec::new();
    for (key, node) in entries {
        let path = format!("stages.{}", key.text);
        check_word(&key.text).map_err(|message| Problem::new(key.place, &path, message))?;
        if let Some(sweep) = node.get_mut("sweep") {
            let under = |problem: Problem| problem.under("sweep").under(&path);
            notes.extend(space::translate(sweep).map_err(under)?.into_iter().map(under));
        }
        parsed.push(stage(key, node, folder).map_err(|problem| problem.under(&path))?);
    }
    if parsed.is_empty() {
        return Err(Problem::new(place, "stages", "is empty; a pipeline has at least one stage"));
    }
    let params = params.into_iter().map(|(name, node)| (name, node.text().unwrap_or_default().to_owned())).collect();
    Ok(Pipeline {
        file: file.to_owned(),
        experiment: experiment.unwrap_or_else(|| name.clone()),
        name,
        params,
        stages: order::order(parsed)?,
        notes,
    })
}

fn known(key: &Key, path: &str, allowed: &[&str]) -> Result<(), Problem> {
    match allowed.contains(&key.text.as_str()) {
        true => Ok(()),
        false => Err(Problem::new(key.place, path, unknown_key(&key.text, allowed))),
    }
}

/// Names of pipelines and stages go into job labels and file names.
fn check_word(text: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.len() {
        1..=60 if text.chars().all(|c| good(c) && c != '.') => Ok(()),
        1..=60 if text.chars().all(good) => {
            Err(format!("{text:?} has a dot; letters, digits, `-` and `_` are allowed"))
        }
        _ => Err(format!("{text:?} is no name; 1 to 60 letters, digits, `-` and `_` are allowed")),
    }
}

fn word(path: &str, node: &Node) -> Result<String, Problem> {
    let text = plain_text(path, node)?;
    check_word(&text).map_err(|message| Problem::new(node.place, path, message))?;
    Ok(text)
}

fn plain_text(path: &str, node: &Node) -> Result<String, Problem> {
    match node.text() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(Problem::new(node.place, path, format!("is {}; text is expected", node.value.form()))),
    }
}

/// The values of `params:`, with those of `--set` in place of the defaults.
fn params(node: Option<&Node>, sets: &[(String, String)]) -> Result<Params, Problem> {
    let mut params = Params::new();
    for (key, value) in node.map(|node| node.entries("params")).transpose()?.unwrap_or_default() {
        let path = join("params", &key.text);
        let Some(text) = value.text() else {
            return Err(Problem::new(
                value.place,
                path,
                format!("is {}; a single value is expected", value.value.form()),
            ));
        };
        if text.contains("${{") {
            return Err(Problem::new(value.place, path, "a parameter's default cannot refer to something else"));
        }
        params.insert(key.text.clone(), value.clone());
    }
    let mut seen = BTreeSet::new();
    for (key, value) in sets {
        let names: Vec<&str> = params.keys().map(String::as_str).collect();
        let message = if !seen.insert(key) {
            format!("`--set {key}=...` is given twice")
        } else if names.is_empty() {
            format!("`--set {key}=...`: the file has no `params:`")
        } else {
            format!("`--set {key}=...`: there is no such parameter; {}", suggestion(key, &names))
        };
        match params.get_mut(key) {
            Some(node) if !message.ends_with("twice") => node.value = Yaml::Scalar { text: value.clone(), plain: true },
            _ => return Err(Problem { place: node.map(|node| node.place), path: "params".into(), message }),
        }
    }
    Ok(params)
}

/// Puts the values of parameters into a scalar. One that is nothing but a reference takes the value with its type.
fn fill(path: &str, scalar: &mut Node, params: &Params) -> Result<(), Problem> {
    let Yaml::Scalar { text, plain } = &scalar.value else { return Ok(()) };
    let found = reference::find(text).map_err(|message| Problem::new(scalar.place, path, message))?;
    for one in &found {
        if let Reference::Param(name) = &one.reference
            && !params.contains_key(name)
        {
            let names: Vec<&str> = params.keys().map(String::as_str).collect();
            let message = format!("there is no parameter `{name}` in `params:`; {}", suggestion(name, &names));
            return Err(Problem::new(scalar.place, path, message));
        }
    }
    let whole = matches!(found.as_slice(), [one] if one.range == (0..text.len()));
    if whole && let Some(Reference::Param(name)) = found.first().map(|one| &one.reference) {
        scalar.value = params.get(name).map_or(Yaml::List(Vec::new()), |node| node.value.clone());
        return Ok(());
    }
    let filled = reference::replace(text, &found, |reference| match reference {
        Reference::Param(name) => params.get(name).and_then(Node::text).map(str::to_owned),
        _ => None,
    });
    scalar.value = Yaml::Scalar { text: filled, plain: *plain };
    Ok(())
}

fn stage(key: &Key, node: &mut Node, folder: &Path) -> Result<Stage, Problem> {
    let mut kinds = Vec::new();
    for (key, _) in node.entries("")? {
        known(key, "", &STAGE_KEYS)?;
        if KINDS.contains(&key.text.as_str()) {
            kinds.push(key.text.clone());
        }
    }
    let kind = match kinds.as_slice() {
        [kind] => kind.clone(),
        [] => return Err(Problem::new(key.place, "", format!("says no work; give one of {}", KINDS.join(", ")))),
        more => {
            return Err(Problem::new(
                key.place,
                "",
                format!("has {}; one kind of work is allowed", more.join(" and ")),
            ));
        }
    };
    if let Some(body) = node.get_mut(&kind) {
        paths::absolutize(&kind, body, folder);
    }
    let references = references(node)?;
    let body = node.get(&kind).ok_or_else(|| Problem::new(key.place, &kind, "is missing"))?;
    let spec = spec(&kind, body).map_err(|problem| problem.under(&kind))?;
    let config_from = node.get("config_from").map(config_from).transpose()?;
    Ok(Stage {
        name: key.text.clone(),
        place: key.place,
        spec: JobSpec { kind: Some(spec) },
        config_from,
        final_training: final_training(&kind, node)?,
        references,
        resources: part(node, "resources")?,
        timeouts: part(node, "timeouts")?,
        retry: part(node, "retry")?,
        labels: part(node, "labels")?.unwrap_or_default(),
        node: node.clone(),
    })
}

/// The name of a sweep, or a mapping with it and what decides which trial is the best.
fn config_from(node: &Node) -> Result<ConfigFrom, Problem> {
    match &node.value {
        Yaml::Map(_) => read(node).map_err(|problem| problem.under("config_from")),
        _ => Ok(ConfigFrom { sweep: plain_text("config_from", node)?, ..ConfigFrom::default() }),
    }
}

/// Only trainings have numbers; FORCE_NEW takes the next one.
fn final_training(kind: &str, node: &Node) -> Result<Option<FinalTraining>, Problem> {
    let path = "final_training";
    let Some(wanted) = part::<FinalTraining>(node, path)? else { return Ok(None) };
    let place = node.place_of(path);
    if kind != "train" {
        return Err(Problem::new(place, path, format!("stands in train stages alone, and this one is a {kind}")));
    }
    let path = "final_training.variant";
    match wanted.variant {
        0 => Ok(Some(wanted)),
        given if given < 0 => {
            Err(Problem::new(node.place_of(path), path, format!("found {given}, expected 1 or more")))
        }
        given if wanted.mode == FinalTrainingMode::ForceNew => {
            let problem = format!("found {given}, but FORCE_NEW takes the next number; leave it out");
            Err(Problem::new(node.place_of(path), path, problem))
        }
        _ => Ok(Some(wanted)),
    }
}

fn part<'a, T: serde::Deserialize<'a>>(node: &'a Node, key: &str) -> Result<Option<T>, Problem> {
    match node.get(key) {
        Some(value) if value.scalar() != Some(Scalar::Null) => {
            read(value).map(Some).map_err(|problem| problem.under(key))
        }
        _ => Ok(None),
    }
}

fn spec(kind: &str, body: &Node) -> Result<Kind, Problem> {
    match kind {
        "sweep" => read(body).map(Kind::Sweep),
        "train" => read(body).map(Kind::Train),
        "convert" => read(body).map(Kind::Convert),
        "benchmark" => read(body).map(Kind::Benchmark),
        "predict" => read(body).map(Kind::Predict),
        _ => read(body).map(Kind::Command),
    }
}

/// References to other stages; placeholders of commands may stand in commands alone.
fn references(node: &mut Node) -> Result<Vec<StageReference>, Problem> {
    let mut references = Vec::new();
    node.each_scalar("", &mut |path, scalar| {
        let found = reference::find(scalar.text().unwrap_or_default());
        for one in found.map_err(|message| Problem::new(scalar.place, path, message))? {
            match one.reference {
                Reference::Output { stage, output } => {
                    references.push(StageReference { stage, output, field: path.to_owned(), place: scalar.place });
                }
                Reference::Command if !path.ends_with("command.command") => {
                    let message =
                        "placeholders of a command (`inputs`, `outputs`, `search_space`) stand in its `command:` alone";
                    return Err(Problem::new(scalar.place, path, message));
                }
                Reference::Command | Reference::Param(_) => {}
            }
        }
        Ok(())
    })?;
    Ok(references)
}
