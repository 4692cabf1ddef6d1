//! Whether a trained checkpoint can be used: its configuration parses, its weights are whole, its labels agree.

use std::{fs, path::Path};

use quintet_nlp::checkpoint::{Checkpoint, Weights};
use serde_json::Value;

/// What was found in a checkpoint folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Labels by id; empty when there are none or they cannot be read.
    pub labels: Vec<String>,
    /// What is wrong; empty when it can be used.
    pub problems: Vec<String>,
}

/// Checks a folder. Of a checkpoint that our trainer made (`reported`: the labels of its report) everything is asked; of one that a
/// command made only what holds for every Hugging Face checkpoint.
pub fn checkpoint(folder: &Path, reported: Option<&[String]>) -> Checked {
    let mut checked = Checked::default();
    let wrong = &mut checked.problems;
    let config = match read_json(&folder.join("config.json")) {
        Ok(config) => config,
        Err(problem) => {
            wrong.push(problem);
            return checked;
        }
    };
    match labels(&config) {
        Ok(labels) => checked.labels = labels,
        Err(problem) => wrong.push(problem),
    }
    let weights = Weights::open(folder, "");
    if let Err(error) = &weights {
        wrong.push(bare(folder, error));
    }
    if !folder.join("tokenizer.json").is_file() {
        wrong.push("tokenizer.json is missing".into());
    }
    let Some(reported) = reported else { return checked };
    if checked.labels != reported {
        wrong.push(format!("config.json has the labels {:?}, the report {reported:?}", checked.labels));
    }
    if weights.is_err() {
        return checked;
    }
    match Checkpoint::open(folder) {
        Err(error) => wrong.push(bare(folder, &error)),
        Ok(checkpoint) => {
            if let Err(error) = checkpoint.tokenizer() {
                wrong.push(bare(folder, &error));
            }
            if !checkpoint.has_head() {
                wrong.push(format!("the weights have no head for {} labels", checked.labels.len()));
            }
        }
    }
    checked
}

fn read_json(path: &Path) -> Result<Value, String> {
    let name = path.file_name().unwrap_or_default().display();
    let text = fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{name} is missing"),
        _ => format!("{name}: {error}"),
    })?;
    serde_json::from_slice(&text).map_err(|error| format!("{name} cannot be read: {error}"))
}

/// `id2label` from 0 without a gap, and `label2id` its inverse.
fn labels(config: &Value) -> Result<Vec<String>, String> {
    let Some(by_id) = config.get("id2label").and_then(Value::as_object) else {
        return Err("config.json has no id2label".into());
    };
    let label = |id: usize| by_id.get(&id.to_string()).and_then(Value::as_str).map(str::to_owned);
    let labels = (0..by_id.len()).map(label).collect::<Option<Vec<String>>>();
    let labels =
        labels.ok_or_else(|| format!("config.json: id2label has {} entries, but not 0 to the last", by_id.len()))?;
    let by_label = config.get("label2id").and_then(Value::as_object);
    let agrees = by_label.is_some_and(|map| {
        let id = |label: &String| map.get(label).and_then(Value::as_u64);
        map.len() == labels.len() && labels.iter().zip(0..).all(|(label, at)| id(label) == Some(at))
    });
    if agrees { Ok(labels) } else { Err("config.json: label2id is not the inverse of id2label".into()) }
}

/// The error without the folder, which is a temporary one.
fn bare(folder: &Path, error: &quintet_nlp::Error) -> String {
    error
        .to_string()
        .replace(&format!("{}/", folder.display()), "")
        .replace(&folder.display().to_string(), "checkpoint")
}

#[cfg(test)]
mod tests {
    use quintet_nlp::testing::TinyCheckpoint;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_checkpoint_is_looked_at_from_all_sides() {
        let root = tempfile::tempdir().unwrap();
        let labels = ["O", "B-per", "I-per"].map(str::to_owned).to_vec();
        let whole = root.path().join("whole");
        TinyCheckpoint { labels: labels.clone(), ..TinyCheckpoint::default() }.write(&whole).unwrap();
        assert_eq!(checkpoint(&whole, Some(&labels)), Checked { labels: labels.clone(), problems: Vec::new() });
        assert_eq!(checkpoint(&whole, None).problems, Vec::<String>::new());
        let told = |problems: &[String], part: &str| {
            assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
            assert!(!problems.iter().any(|problem| problem.contains(&root.path().display().to_string())));
        };
        told(&checkpoint(&whole, Some(&labels[..2])).problems, "the report");
        let spoil = |file: &str, content: &[u8]| {
            let before = fs::read(whole.join(file)).unwrap();
            fs::write(whole.join(file), content).unwrap();
            let problems = checkpoint(&whole, Some(&labels)).problems;
            fs::write(whole.join(file), before).unwrap();
            problems
        };
        told(&spoil("config.json", b"{"), "config.json cannot be read");
        told(&spoil("model.safetensors", b"short"), "model.safetensors");
        told(&spoil("tokenizer.json", b"{}"), "tokenizer.json");
        let mut config: Value = serde_json::from_slice(&fs::read(whole.join("config.json")).unwrap()).unwrap();
        config["label2id"] = json!({"O": 0, "B-per": 2, "I-per": 1});
        told(&spoil("config.json", config.to_string().as_bytes()), "not the inverse");
        config["id2label"] = json!({"0": "O", "2": "B-per"});
        told(&spoil("config.json", config.to_string().as_bytes()), "id2label has 2 entries");
        let more = ["O", "B-per", "I-per", "B-loc"];
        config["id2label"] = more.iter().enumerate().map(|(id, label)| (id.to_string(), json!(label))).collect();
        config["label2id"] = more.iter().enumerate().map(|(id, label)| ((*label).to_owned(), json!(id))).collect();
        let four: Vec<String> = more.map(str::to_owned).to_vec();
        fs::write(whole.join("config.json"), config.to_string()).unwrap();
        told(&checkpoint(&whole, Some(&four)).problems, "no head for 4 labels");
        fs::remove_file(whole.join("config.json")).unwrap();
        assert_eq!(checkpoint(&whole, None).problems, ["config.json is missing"]);
    }
}
