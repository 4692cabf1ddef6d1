//! Labels of texts.
use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use serde_json::Value;

use crate::{Error, files};

/// Labels of sequence classification by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassSet {
    names: Vec<String>,
    ids: HashMap<String, usize>,
}

impl ClassSet {
    /// The labels that occur, sorted by code point as `transformers`' `run_classification` sorts them: numbers too are texts there,
    /// so that `10` comes before `2`.
    pub fn of<'a>(found: impl IntoIterator<Item = &'a str>) -> Self {
        let unique: BTreeSet<&str> = found.into_iter().collect();
        Self::new(unique.into_iter().map(str::to_owned).collect())
    }

    /// Labels in the order of their ids; duplicates and empty ones are errors.
    pub fn from_names(names: Vec<String>) -> Result<Self, Error> {
        let set = Self::new(names);
        if set.ids.len() != set.names.len() {
            return Err(Error::argument("labels", format!("not unique: {}", set.names.join(", "))));
        }
        if set.names.iter().any(String::is_empty) || set.names.is_empty() {
            return Err(Error::argument("labels", "there is no label, or an empty one"));
        }
        Ok(set)
    }

    fn new(names: Vec<String>) -> Self {
        let ids = names.iter().enumerate().map(|(id, name)| (name.clone(), id)).collect();
        Self { names, ids }
    }

    /// What `transformers` calls the only output of a regression.
    pub fn regression() -> Self {
        Self::new(vec!["LABEL_0".to_owned()])
    }

    /// Names in the order of their ids.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The id of a label.
    pub fn id(&self, name: &str) -> Option<usize> {
        self.ids.get(name).copied()
    }
}

/// Reads a file of labels in the order of their ids: a JSON array of names, an object of ids by name or of names by id (`label2id` and
/// `id2label` of a `config.json`), or a name a line.
pub fn read_label_names(path: &Path) -> Result<Vec<String>, Error> {
    let bytes = files::read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::format(path, "not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let wrong = |problem: &str| Error::format(path, format!("labels: {problem}"));
    let names = match text.trim_start().chars().next() {
        Some('[' | '{') => {
            let value: Value = serde_json::from_str(text).map_err(|e| wrong(&format!("not JSON: {e}")))?;
            names_of(&value).ok_or_else(|| {
                wrong("expected a list of names, or an object with the id of each name or the name of each id, from 0")
            })?
        }
        _ => text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect(),
    };
    ClassSet::from_names(names).map(|set| set.names).map_err(|e| wrong(&e.to_string()))
}

fn names_of(value: &Value) -> Option<Vec<String>> {
    let numbered: Vec<(usize, String)> = match value {
        Value::Array(names) => return names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
        Value::Object(map) => match map.get("id2label").or_else(|| map.get("label2id")) {
            Some(inner @ Value::Object(_)) => return names_of(inner),
            _ => map
                .iter()
                .map(|(key, value)| match value {
                    Value::String(name) => Some((key.parse().ok()?, name.clone())),
                    _ => Some((usize::try_from(value.as_u64()?).ok()?, key.clone())),
                })
                .collect::<Option<_>>()?,
        },
        _ => return None,
    };
    let mut names = vec![None; numbered.len()];
    for (id, name) in numbered {
        *names.get_mut(id)? = Some(name);
    }
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_as_texts() {
        assert_eq!(ClassSet::of(["b", "10", "a", "2", "b"]).names(), ["10", "2", "a", "b"]);
        assert_eq!(ClassSet::of(["b", "a"]).id("b"), Some(1));
        assert!(ClassSet::from_names(vec!["a".into(), "a".into()]).is_err());
    }

    #[test]
    fn label_files_of_every_form() {
        let dir = tempfile::tempdir().unwrap();
        let read = |content: &str| {
            let path = dir.path().join("labels");
            std::fs::write(&path, content).unwrap();
            read_label_names(&path).map_err(|e| e.to_string())
        };
        for content in [
            "[\"b\", \"a\"]",
            "{\"a\": 1, \"b\": 0}",
            "{\"0\": \"b\", \"1\": \"a\"}",
            "{\"x\": 3, \"id2label\": {\"1\": \"a\", \"0\": \"b\"}}",
            "\u{feff}b\r\n\n a \n",
        ] {
            assert_eq!(read(content).unwrap(), ["b", "a"], "{content}");
        }
        for content in ["", "[]", "[1]", "a\na", "{\"a\": 1}", "{\"a\": 0, \"b\": 0}", "[\"a\"", "[\"\"]"] {
            assert!(read(content).is_err(), "{content}");
        }
    }
}
