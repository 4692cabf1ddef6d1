//! Which files of a repository training and conversion need: configuration, safetensors and tokenizer, nothing else.

/// The model's description.
pub(crate) const CONFIG: &str = "config.json";
/// Whole weights.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// The list of the weights' shards.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// The tokenizer in the form that is read here.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// What Python's tokenizers read beside it; brought when it is there, so that the trained checkpoint is whole for them too.
const OPTIONAL: [&str; 9] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
];
/// Endings of weights in other forms.
const OTHER_WEIGHTS: [&str; 5] = [".bin", ".pt", ".h5", ".msgpack", ".ot"];

/// The files to bring first: all but the shards, which [`INDEX`] names.
///
/// # Errors
/// What is missing, and what to do; to be told after the name of the repository.
pub(crate) fn needed(files: &[String], id: &str) -> Result<Vec<&'static str>, String> {
    let has = |name: &str| files.iter().any(|file| file == name);
    if !has(CONFIG) {
        return Err(format!("has no {CONFIG}, so it holds no model of transformers; {}", told(files)));
    }
    let weights = match (has(WEIGHTS), has(INDEX)) {
        (true, _) => WEIGHTS,
        (false, true) => INDEX,
        (false, false) => return Err(no_safetensors(files, id)),
    };
    if !has(TOKENIZER) {
        return Err(format!(
            "has no {TOKENIZER}; make one: `AutoTokenizer.from_pretrained(\"{id}\").save_pretrained(FOLDER)`, with the \
             model's `save_pretrained(FOLDER)`, and name that folder instead"
        ));
    }
    let optional = OPTIONAL.into_iter().filter(|name| has(name));
    Ok([CONFIG, weights, TOKENIZER].into_iter().chain(optional).collect())
}

fn no_safetensors(files: &[String], id: &str) -> String {
    let other = files.iter().find(|file| !file.contains('/') && OTHER_WEIGHTS.iter().any(|end| file.ends_with(end)));
    match other {
        Some(found) => format!(
            "has no {WEIGHTS}, only {found}, which may run code when it is loaded and is not read; look for a revision with \
             safetensors among its pull requests (`{id}@refs/pr/NUMBER`), or convert it: \
             `AutoModel.from_pretrained(\"{id}\").save_pretrained(FOLDER)`, with its tokenizer, and name that folder instead"
        ),
        None => format!("has no weights ({WEIGHTS}); {}", told(files)),
    }
}

fn told(files: &[String]) -> String {
    let mut names: Vec<&str> = files.iter().map(String::as_str).take(8).collect();
    if files.len() > names.len() {
        names.push("...");
    }
    match names.is_empty() {
        true => "it is empty".to_owned(),
        false => format!("found: {}", names.join(", ")),
    }
}

/// The shards that an index names, each once, in order of their names.
///
/// # Errors
/// What is wrong with the index.
pub(crate) fn shards(index: &[u8]) -> Result<Vec<String>, String> {
    let json: serde_json::Value = serde_json::from_slice(index).map_err(|error| format!("{INDEX}: {error}"))?;
    let map = json.get("weight_map").and_then(|map| map.as_object());
    let names = map.and_then(|map| map.values().map(|name| name.as_str().map(str::to_owned)).collect());
    let mut names: Vec<String> = names.ok_or(format!("{INDEX} has no `weight_map` of tensors to files"))?;
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Err(format!("{INDEX} names no file"));
    }
    let plain = |name: &&String| name.contains(['/', '\\']) || !name.ends_with(".safetensors") || name.starts_with('.');
    match names.iter().find(plain) {
        Some(name) => Err(format!("{INDEX} names `{name}`, which is no safetensors file beside it")),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[&str]) -> Result<Vec<&'static str>, String> {
        needed(&files.iter().map(|file| (*file).to_owned()).collect::<Vec<_>>(), "org/name")
    }

    #[test]
    fn only_what_is_needed_is_chosen() {
        let files =
            ["README.md", "config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json", "vocab.txt"];
        assert_eq!(of(&files).unwrap(), ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]);
        let sharded = ["config.json", INDEX, "model-00001-of-00002.safetensors", "tokenizer.json"];
        assert_eq!(of(&sharded).unwrap(), ["config.json", INDEX, "tokenizer.json"]);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_advice() {
        for (files, part) in [
            (&["config.json", "pytorch_model.bin", "tokenizer.json"][..], "only pytorch_model.bin"),
            (&["config.json", "tokenizer.json", "onnx/model.bin"], "has no weights"),
            (&["config.json", "model.safetensors", "spm.model"], "AutoTokenizer"),
            (&["data.csv"], "found: data.csv"),
            (&[], "it is empty"),
        ] {
            let problem = of(files).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn shards_are_named_by_their_index() {
        let index = br#"{"weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}}"#;
        assert_eq!(shards(index).unwrap(), ["m-1.safetensors", "m-2.safetensors"]);
        for bad in [
            r#"{"weight_map": {"a": "../m.safetensors"}}"#,
            r#"{"weight_map": {"a": "m.bin"}}"#,
            r#"{"weight_map": {"a": 1}}"#,
            r#"{"weight_map": {}}"#,
            "{}",
            "no json",
        ] {
            assert!(shards(bad.as_bytes()).unwrap_err().contains("index.json"), "{bad}");
        }
    }
}
