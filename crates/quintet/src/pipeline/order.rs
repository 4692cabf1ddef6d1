//! The order of stages, and what their references may name.

use quintet_proto::v1::Hyperparameters;

use super::{Problem, Stage, de::suggestion};

/// Sorts the stages so that each follows those that it refers to, otherwise as in the file.
pub(super) fn order(stages: Vec<Stage>) -> Result<Vec<Stage>, Problem> {
    check(&stages)?;
    let mut rest = stages;
    let mut sorted: Vec<Stage> = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let ready = |stage: &Stage| stage.needs().all(|name| sorted.iter().any(|done| done.name == name));
        match rest.iter().position(ready) {
            Some(index) => sorted.push(rest.remove(index)),
            None => return Err(cycle(&rest)),
        }
    }
    Ok(sorted)
}

/// Follows needs from the first stage that is left until one comes again.
fn cycle(rest: &[Stage]) -> Problem {
    let mut path: Vec<&Stage> = Vec::new();
    let mut next = rest.first();
    while let Some(stage) = next {
        if let Some(start) = path.iter().position(|seen| seen.name == stage.name) {
            let circle: Vec<&str> =
                path.iter().skip(start).map(|s| s.name.as_str()).chain([stage.name.as_str()]).collect();
            let message = format!("stages need each other in a circle: {}", circle.join(" -> "));
            return Problem::new(stage.place, format!("stages.{}", stage.name), message);
        }
        path.push(stage);
        next = stage.needs().find_map(|name| rest.iter().find(|other| other.name == name));
    }
    let place = rest.first().map(|stage| stage.place);
    Problem { place, path: "stages".into(), message: "stages need each other in a circle".into() }
}

fn check(stages: &[Stage]) -> Result<(), Problem> {
    let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
    let find = |name: &str| stages.iter().find(|stage| stage.name == name);
    for stage in stages {
        let path = |field: &str| format!("stages.{}.{field}", stage.name);
        for reference in &stage.references {
            let wrong = |message| Err(Problem::new(reference.place, path(&reference.field), message));
            let Some(target) = find(&reference.stage) else {
                return wrong(format!(
                    "there is no stage `{}`; {}",
                    reference.stage,
                    suggestion(&reference.stage, &names)
                ));
            };
            let outputs = target.outputs();
            if !outputs.contains(&reference.output.as_str()) {
                return wrong(format!(
                    "stage `{}` ({}) has no output `{}`; {}",
                    target.name,
                    target.kind(),
                    reference.output,
                    suggestion(&reference.output, &outputs)
                ));
            }
        }
        if let Some(from) = stage.config_from.as_ref().map(|from| from.sweep.as_str()) {
            let wrong = |message| Err(Problem::new(stage.node.place_of("config_from"), path("config_from"), message));
            let sweeps: Vec<&str> = stages.iter().filter(|s| s.kind() == "sweep").map(|s| s.name.as_str()).collect();
            match find(from) {
                Some(target) if target.kind() == "sweep" => {}
                Some(target) => {
                    return wrong(format!(
                        "`{from}` is a {} stage, not a sweep; {}",
                        target.kind(),
                        suggestion(from, &sweeps)
                    ));
                }
                None => return wrong(format!("there is no stage `{from}`; {}", suggestion(from, &sweeps))),
            }
            if !matches!(stage.kind(), "train" | "command") {
                return wrong(format!("a {} stage takes no configuration; train and command stages do", stage.kind()));
            }
            let tuned = find(from).map(Stage::tuned).unwrap_or_default();
            if let Some(unknown) = tuned.iter().find(|name| stage.kind() == "train" && !is_hyperparameter(name)) {
                return wrong(format!("`{from}` tunes `{unknown}`, which is no hyperparameter of the trainer"));
            }
        }
    }
    Ok(())
}

/// Known before the sweep has run for hours.
fn is_hyperparameter(name: &str) -> bool {
    let alone = serde_json::Map::from_iter([(name.to_owned(), serde_json::Value::Null)]);
    serde_json::from_value::<Hyperparameters>(alone.into()).is_ok()
}
