//! Folders of splits: as `datasets` saves them, as they lie on the Hugging Face Hub, and plain ones with a file a split.
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::record::Features;
use crate::{Error, files};

/// Words of a file's name or folder that tell its split, as `datasets` knows them.
const WORDS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// Extensions of data files.
const DATA: [&str; 14] = [
    "parquet", "arrow", "csv", "tsv", "json", "jsonl", "ndjson", "conll", "conllu", "iob", "iob2", "bio", "txt",
    "spacy",
];

/// Files beside the data of a folder.
const NO_DATA: [&str; 8] = [
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "categories.json",
    "labels.json",
    "labels.txt",
    "requirements.txt",
];

/// The files of one split, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SplitFiles {
    /// At least one.
    pub(crate) files: Vec<PathBuf>,
    /// What the folder says of the columns; files may say more.
    pub(crate) features: Features,
    /// What the folder holds beside it that speaks of the same split, and is not read.
    pub(crate) aside: Vec<String>,
}

/// Splits by name: `train`, `validation`, `test`; a folder saved as one split alone has the name `""`.
pub(super) type Splits = BTreeMap<&'static str, SplitFiles>;

/// The splits of a path: a file is one without a name.
pub(super) fn splits(path: &Path) -> Result<Splits, Error> {
    if !path.is_dir() {
        return Ok(Splits::from([("", SplitFiles { files: vec![path.to_owned()], ..SplitFiles::default() })]));
    }
    let dictionary = path.join("dataset_dict.json");
    if path.join("state.json").is_file() {
        return Ok(Splits::from([("", saved(path)?)]));
    }
    if dictionary.is_file() {
        let names = read_json(&dictionary)?;
        let names = names["splits"].as_array().ok_or_else(|| Error::format(&dictionary, "no list under `splits`"))?;
        let mut named: BTreeMap<&str, BTreeMap<String, ()>> = BTreeMap::new();
        for name in names.iter().filter_map(Value::as_str) {
            if let Some(split) = split_of(name) {
                named.entry(split).or_default().insert(name.to_owned(), ());
            }
        }
        let mut splits = Splits::new();
        for (split, names) in named {
            let (name, (), aside) = only(split, names, path)?;
            splits.insert(split, SplitFiles { aside, ..saved(&path.join(name))? });
        }
        return Ok(splits);
    }
    by_name(path)
}

/// The one of several names that is a split: the only one, or the one that says nothing but the split; and what is left aside.
fn only<T>(split: &str, mut named: BTreeMap<String, T>, folder: &Path) -> Result<(String, T, Vec<String>), Error> {
    let is_exact = |name: &str| {
        let last = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        WORDS.iter().any(|(known, words)| *known == split && words.contains(&last.as_str()))
    };
    let mut exact = named.keys().filter(|name| is_exact(name));
    let chosen = match (exact.next(), exact.next()) {
        (Some(name), None) => Some(name.clone()),
        _ => named.keys().next().filter(|_| named.len() == 1).cloned(),
    };
    let names = |named: BTreeMap<String, T>| named.into_keys().collect::<Vec<_>>();
    match chosen.and_then(|name| named.remove_entry(&name)) {
        Some((name, found)) => Ok((name, found, names(named))),
        None => {
            let found = names(named).join(", ");
            let problem = format!(
                "which one is {split}? Found {found}; give each split by its own path instead of the folder that holds them"
            );
            Err(Error::format(folder, problem))
        }
    }
}

/// A folder of `Dataset.save_to_disk`.
fn saved(folder: &Path) -> Result<SplitFiles, Error> {
    let path = folder.join("state.json");
    let state = read_json(&path)?;
    let names = state["_data_files"].as_array().into_iter().flatten();
    let files: Vec<PathBuf> = names.filter_map(|file| Some(folder.join(file["filename"].as_str()?))).collect();
    if files.is_empty() {
        return Err(Error::format(&path, "no file names under `_data_files`"));
    }
    Ok(SplitFiles { files, features: info(folder)?, aside: Vec::new() })
}

fn info(folder: &Path) -> Result<Features, Error> {
    let path = folder.join("dataset_info.json");
    Ok(if path.is_file() { Features::of(&read_json(&path)?["features"]) } else { Features::default() })
}

fn read_json(path: &Path) -> Result<Value, Error> {
    serde_json::from_slice(&files::read(path)?).map_err(|e| Error::format(path, format!("not JSON: {e}")))
}

/// The files of a folder and of those in it, each given to the split that its name or else its folder's speaks of.
fn by_name(folder: &Path) -> Result<Splits, Error> {
    let mut found = Vec::new();
    collect(folder, 0, &mut found)?;
    found.sort();
    let features = info(folder)?;
    let mut named: BTreeMap<&'static str, BTreeMap<String, Vec<PathBuf>>> = BTreeMap::new();
    for path in &found {
        let inside = path.strip_prefix(folder).unwrap_or(path).with_extension("");
        if let Some((split, name)) = inside.ancestors().find_map(named_split) {
            named.entry(split).or_default().entry(name).or_default().push(path.clone());
        }
    }
    let mut splits = Splits::new();
    for (split, names) in named {
        let (_, files, aside) = only(split, names, folder)?;
        splits.insert(split, SplitFiles { files, aside, ..SplitFiles::default() });
    }
    if splits.is_empty()
        && let [only] = found.as_slice()
    {
        splits.entry("").or_default().files.push(only.clone());
    }
    if splits.is_empty() {
        let problem = "no split found: expected files or folders called train, validation (or dev) and test, or a folder that \
            `datasets` has saved";
        return Err(Error::format(folder, problem));
    }
    for (name, split) in &mut splits {
        let kinds: BTreeSet<(Option<&Path>, Option<&str>)> =
            split.files.iter().map(|file| (file.parent(), file.extension().and_then(|ext| ext.to_str()))).collect();
        if kinds.len() > 1 {
            let names: Vec<String> = split.files.iter().map(|file| file.display().to_string()).collect();
            let problem =
                format!("which files are {name}? Found {}; give one of them, or its folder", names.join(", "));
            return Err(Error::format(folder, problem));
        }
        split.features = features.clone();
    }
    Ok(splits)
}

/// Data files up to two folders deep.
fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let extension = path.extension().and_then(|ext| ext.to_str()).unwrap_or_default().to_ascii_lowercase();
        if name.starts_with('.') || NO_DATA.contains(&name) {
            continue;
        }
        if path.is_dir() && depth < 2 {
            collect(&path, depth + 1, found)?;
        } else if path.is_file()
            && (DATA.contains(&extension.as_str()) || split_of(name).is_some() && extension.is_empty())
        {
            found.push(path);
        }
    }
    Ok(())
}

/// The split that the last part of a path speaks of, and the path without the number that it has as one of several files.
fn named_split(path: &Path) -> Option<(&'static str, String)> {
    let split = split_of(path.file_name()?.to_str()?)?;
    let text = path.iter().map(|part| part.to_str().unwrap_or_default()).collect::<Vec<_>>().join("/");
    let before_number = |text: &str| {
        let before = text.trim_end_matches(|c: char| c.is_ascii_digit());
        before.strip_suffix(['-', '_', '.']).filter(|_| before.len() < text.len()).map(str::to_owned)
    };
    // `-00000-of-00002`, behind which older files have a digest; or a number alone.
    let parts =
        text.match_indices("-of-").filter(|(at, of)| text[at + of.len()..].starts_with(|c: char| c.is_ascii_digit()));
    let name = parts.map(|(at, _)| at).find_map(|at| before_number(&text[..at])).or_else(|| before_number(&text));
    let name = name.unwrap_or(text);
    Some((split, name))
}

/// The split that a name speaks of.
fn split_of(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let mut words = lower.split(|c: char| !c.is_ascii_alphabetic());
    words.find_map(|word| WORDS.iter().find(|(_, known)| known.contains(&word)).map(|(split, _)| *split))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        dir
    }

    fn found(names: &[&str]) -> Result<Vec<(&'static str, Vec<String>)>, Error> {
        let dir = folder(names);
        let splits = splits(dir.path())?;
        let name = |path: &PathBuf| path.strip_prefix(dir.path()).unwrap().display().to_string();
        Ok(splits.iter().map(|(split, files)| (*split, files.files.iter().map(name).collect())).collect())
    }

    #[test]
    fn files_go_to_the_splits_of_their_names() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let hub = [
            "README.md",
            "data/train-00001-of-00002.parquet",
            "data/train-00000-of-00002.parquet",
            "data/val-0.parquet",
        ];
        assert_eq!(
            found(&hub).unwrap(),
            [
                ("train", texts(&["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"])),
                ("validation", texts(&["data/val-0.parquet"])),
            ]
        );
        let seed = ["train.json", "validation.json", "test.json", "dataset_dict.txt", ".train.json", "labels.json"];
        assert_eq!(found(&seed).unwrap().len(), 3);
        assert_eq!(found(&["train/a.csv", "train/b.csv", "dev/a.csv"]).unwrap().len(), 2);
        assert_eq!(found(&["all.csv", "labels.txt"]).unwrap(), [("", texts(&["all.csv"]))]);
        assert_eq!(found(&["train", "test"]).unwrap().len(), 2);
    }

    #[test]
    fn the_exact_name_of_a_split_goes_before_others() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let digests = ["train-00000-of-00002-a09b7.parquet", "train-00001-of-00002-7c11d.parquet"];
        assert_eq!(found(&digests).unwrap(), [("train", texts(&digests))]);
        let names = ["train.json", "train_info.json", "dev-0.csv", "dev-1.csv"];
        assert_eq!(
            found(&names).unwrap(),
            [("train", texts(&["train.json"])), ("validation", texts(&["dev-0.csv", "dev-1.csv"]))]
        );
        let dir = folder(&names);
        assert_eq!(splits(dir.path()).unwrap()["train"].aside, ["train_info"]);
        // MNLI, in both layouts.
        let hub = [
            "data/train-00000-of-00001.parquet",
            "data/validation_matched-00000-of-00001.parquet",
            "data/validation_mismatched-00000-of-00001.parquet",
        ];
        let refused = found(&hub).unwrap_err().to_string();
        let expected = "which one is validation? Found data/validation_matched, data/validation_mismatched; give each";
        assert!(refused.contains(expected), "{refused}");
        let dir =
            folder(&["dataset_dict.json", "train/state.json", "validation_a/state.json", "validation_b/state.json"]);
        let write = |name: &str, content: &str| std::fs::write(dir.path().join(name), content).unwrap();
        write("dataset_dict.json", r#"{"splits": ["train", "validation_a", "validation_b"]}"#);
        for name in ["train", "validation_a", "validation_b"] {
            write(&format!("{name}/state.json"), r#"{"_data_files": [{"filename": "a.arrow"}]}"#);
        }
        let refused = splits(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("which one is validation? Found validation_a, validation_b; give each"), "{refused}");
        assert!(splits(&dir.path().join("validation_b")).unwrap().contains_key(""));
        write("dataset_dict.json", r#"{"splits": ["train_clean", "train"]}"#);
        assert_eq!(splits(dir.path()).unwrap()["train"].aside, ["train_clean"]);
    }

    #[test]
    fn unclear_folders_are_refused() {
        for names in [
            &["a.csv", "b.csv"][..],
            &["README.md"],
            &["train.csv", "train.json"],
            &["a/train.csv", "b/train.csv"],
            &["train_a.csv", "train_b.csv"],
        ] {
            assert!(matches!(found(names), Err(Error::Format { .. })), "{names:?}");
        }
    }

    #[test]
    fn saved_data_sets_name_their_files() {
        let dir = folder(&["dataset_dict.json", "train/state.json", "train/dataset_info.json", "extra/state.json"]);
        let write = |name: &str, content: &str| std::fs::write(dir.path().join(name), content).unwrap();
        write("dataset_dict.json", r#"{"splits": ["train", "extra"]}"#);
        write("train/state.json", r#"{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}"#);
        write("train/dataset_info.json", r#"{"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}"#);
        let all = splits(dir.path()).unwrap();
        assert_eq!(all.keys().copied().collect::<Vec<_>>(), ["train"]);
        assert_eq!(all["train"].files, [dir.path().join("train/data-00000-of-00001.arrow")]);
        assert_eq!(all["train"].features.classes["label"], ["a", "b"]);
        assert_eq!(splits(&dir.path().join("train")).unwrap()[""], all["train"]);
        write("train/state.json", "{}");
        assert!(matches!(splits(dir.path()), Err(Error::Format { .. })));
    }
}
