//! Which files to measure, and what to call them.

use std::{fs, path::PathBuf};

use crate::Error;

/// Models to measure, on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// An ONNX file, or a folder of which every `*.onnx` is measured.
    pub path: PathBuf,
    /// What the user called it; the report says this.
    pub given: String,
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        let given = path.display().to_string();
        Self { path, given }
    }
}

/// A file to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelFile {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) given: String,
}

/// Files as they are, folders as their `*.onnx` in the order of their names.
pub(crate) fn find(sources: &[Source]) -> Result<Vec<ModelFile>, Error> {
    if sources.is_empty() {
        return Err(Error::Argument {
            field: "models",
            problem: "none given; at least one ONNX file or folder".to_owned(),
        });
    }
    let mut files: Vec<Source> = Vec::new();
    for source in sources {
        let found = if source.path.is_dir() {
            folder(source)?
        } else if source.path.is_file() {
            vec![source.clone()]
        } else {
            return Err(Error::Model { problem: format!("{}: no such file or folder", source.given) });
        };
        for file in found {
            if files.iter().all(|known| known.path != file.path) {
                files.push(file);
            }
        }
    }
    let names = names(&files.iter().map(|file| PathBuf::from(&file.given)).collect::<Vec<_>>());
    let named = files.into_iter().zip(names);
    Ok(named.map(|(Source { path, given }, name)| ModelFile { name, path, given }).collect())
}

fn folder(source: &Source) -> Result<Vec<Source>, Error> {
    let list = || format!("listing {}", source.path.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(&source.path).map_err(Error::io(list()))? {
        let path = entry.map_err(Error::io(list()))?.path();
        if path.extension().is_some_and(|extension| extension == "onnx") && path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            files.push(Source { given: format!("{}/{name}", source.given), path });
        }
    }
    if files.is_empty() {
        return Err(Error::Model { problem: format!("{}: no *.onnx file in this folder", source.given) });
    }
    files.sort_by(|file, other| file.path.cmp(&other.path));
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
        let missing = find(&[folder.path().join("none.onnx").into()]).unwrap_err().to_string();
        assert!(missing.ends_with("none.onnx: no such file or folder"), "{missing}");
        assert!(find(&[folder.path().to_path_buf().into()]).unwrap_err().to_string().contains("no *.onnx file"));
        for name in ["b.onnx", "a.onnx", "config.json"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let job = Source { path: folder.path().to_path_buf(), given: "jobs/1/outputs/model".to_owned() };
        let found = find(&[job, folder.path().join("a.onnx").into()]).unwrap();
        assert_eq!(found.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(found[0].given, "jobs/1/outputs/model/a.onnx");
        assert!(find(&[]).is_err());
    }
}
