//! Which files to measure, and what to call them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::Error;

/// A file to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelFile {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Files as they are, folders as their `*.onnx` in the order of their names.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Vec<ModelFile>, Error> {
    if paths.is_empty() {
        return Err(Error::Argument {
            field: "models",
            problem: "none given; at least one ONNX file or folder".to_owned(),
        });
    }
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(folder(path)?);
        } else if path.is_file() {
            files.push(path.clone());
        } else {
            return Err(Error::Model { problem: format!("{}: no such file or folder", path.display()) });
        }
    }
    let mut unique: Vec<PathBuf> = Vec::new();
    for file in files {
        if !unique.contains(&file) {
            unique.push(file);
        }
    }
    let names = names(&unique);
    Ok(unique.into_iter().zip(names).map(|(path, name)| ModelFile { name, path }).collect())
}

fn folder(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = || format!("listing {}", path.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(Error::io(list()))? {
        let file = entry.map_err(Error::io(list()))?.path();
        if file.extension().is_some_and(|extension| extension == "onnx") && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(Error::Model { problem: format!("{}: no *.onnx file in this folder", path.display()) });
    }
    files.sort();
    Ok(files)
}

/// File names without extension, with as many folders before them as tell them apart.
fn names(paths: &[PathBuf]) -> Vec<String> {
    let parts: Vec<Vec<String>> = paths
        .iter()
        .map(|path| path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect())
        .collect();
    let longest = parts.iter().map(Vec::len).max().unwrap_or(1);
    let mut names = Vec::new();
    for count in 1..=longest.max(1) {
        names = parts.iter().map(|parts| parts[parts.len().saturating_sub(count)..].join("/")).collect();
        let mut sorted = names.clone();
        sorted.sort();
        sorted.dedup();
        if sorted.len() == names.len() {
            break;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_short_as_possible() {
        let short = names(&["/a/model.onnx".into(), "/a/model_int8.onnx".into()]);
        assert_eq!(short, ["model", "model_int8"]);
        assert_eq!(names(&["/a/model.onnx".into(), "/b/model.onnx".into()]), ["a/model", "b/model"]);
    }

    #[test]
    fn folders_give_their_models_and_nothing_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let missing = find(&[folder.path().join("none.onnx")]).unwrap_err().to_string();
        assert!(missing.ends_with("none.onnx: no such file or folder"), "{missing}");
        assert!(find(&[folder.path().to_path_buf()]).unwrap_err().to_string().contains("no *.onnx file"));
        for name in ["b.onnx", "a.onnx", "config.json"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let found = find(&[folder.path().to_path_buf(), folder.path().join("a.onnx")]).unwrap();
        assert_eq!(found.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(find(&[]).is_err());
    }
}
