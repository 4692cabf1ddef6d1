//! Studies as files: a document, a table, or a database that Optuna opens.

use std::path::Path;

use hpo_svc::{
    storage::Store,
    study::{Study, Trial},
    sweep::ATTR_METRICS,
    view::export::{csv, read_json, to_json},
};
use quintet_proto::v1::StudyPiece;
use runtime_core::db::Db;

use super::{Client, whole};
use crate::failure::Failure;

/// Bytes of a piece on its way to the server.
const PIECE: usize = 256 << 10;

/// What a file holds, by its name.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Json,
    Csv,
    Database,
}

fn kind(file: &Path) -> Result<Kind, Failure> {
    let extension = file.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("json") => Ok(Kind::Json),
        Some("csv") => Ok(Kind::Csv),
        Some("db" | "sqlite" | "sqlite3") => Ok(Kind::Database),
        _ => Err(Failure::usage(format!(
            "{}: the name must end with .json, .csv, or .db for a database that Optuna opens",
            file.display()
        ))),
    }
}

/// Whether the file can be written to.
///
/// # Errors
/// Usage.
pub(super) fn check_target(file: &Path) -> Result<(), Failure> {
    if kind(file)? == Kind::Database && file.exists() {
        return Err(Failure::usage(format!("{}: exists; a study is exported into a new database", file.display())));
    }
    Ok(())
}

/// Writes a study into a file, whole or not at all.
///
/// # Errors
/// The server's, or a file that cannot be written.
pub(super) async fn export(mut client: Client, study: &str, file: &Path) -> Result<(), Failure> {
    let (study, trials) = whole(&mut client, study).await?;
    let folder = folder_of(file)?;
    let fail = |error: std::io::Error| Failure::failed(format!("{}: {error}", file.display()));
    // The error itself names a draft that nobody knows.
    let refused = |error: std::io::Error| Failure::failed(format!("{}: {}", folder.display(), error.kind()));
    let draft = tempfile::Builder::new().prefix(".export-").tempdir_in(folder).map_err(refused)?;
    let path = draft.path().join("study");
    match kind(file)? {
        Kind::Json => std::fs::write(&path, to_json(&study, &trials).to_string()).map_err(fail)?,
        Kind::Csv => {
            let names = study.system_attrs.get(ATTR_METRICS).and_then(|json| serde_json::from_str(json).ok());
            let names: Vec<String> = names.unwrap_or_default();
            std::fs::write(&path, csv(&trials, &study.directions, &names)).map_err(fail)?;
        }
        Kind::Database => {
            let store = open(&draft.path().join("filled")).await?;
            store.import(study, trials).await.map_err(|error| database(file, &error))?;
            // A copy is one file alone.
            store.snapshot(&path).await.map_err(|error| database(file, &error))?;
        }
    }
    std::fs::rename(&path, file).map_err(fail)
}

/// The folder that a file is to lie in, made where there is none.
///
/// # Errors
/// It cannot be made.
pub(super) fn folder_of(file: &Path) -> Result<&Path, Failure> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fail = |error: std::io::Error| Failure::failed(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map(|()| folder).map_err(fail)
}

fn database(file: &Path, error: &hpo_svc::storage::Error) -> Failure {
    Failure::failed(format!("{}: {error}", file.display()))
}

async fn open(file: &Path) -> Result<Store, Failure> {
    let absolute =
        std::path::absolute(file).map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
    let url = format!("sqlite://{}", absolute.display());
    let opened = tokio::task::spawn_blocking(move || Store::open(&url)).await;
    let opened = opened.map_err(|error| Failure::failed(error.to_string()))?;
    opened.map_err(|error| database(file, &error))
}

/// Creates a study on the server from a file; `study` chooses one of a database, `name` renames it.
///
/// # Errors
/// A file that holds no study, or the server's.
pub(super) async fn import(
    mut client: Client,
    file: &Path,
    study: Option<&str>,
    name: Option<&str>,
) -> Result<(), Failure> {
    let (mut found, trials) = match kind(file)? {
        Kind::Json => of_document(file)?,
        Kind::Database => of_database(file, study).await?,
        Kind::Csv => return Err(Failure::usage("a table does not hold all of a study; import a .json or a .db file")),
    };
    if let Some(name) = name {
        name.clone_into(&mut found.name);
    }
    let text = to_json(&found, &trials).to_string().into_bytes();
    let pieces: Vec<StudyPiece> = text.chunks(PIECE).map(|piece| StudyPiece { data: piece.to_vec() }).collect();
    let made = client.import_study(tokio_stream::iter(pieces)).await?.into_inner();
    eprintln!("study `{}` has {} trials", found.name, made.trial_count);
    Ok(())
}

fn of_document(file: &Path) -> Result<(Study, Vec<Trial>), Failure> {
    let fail = |error: String| Failure::usage(format!("{}: {error}", file.display()));
    let text = std::fs::read(file).map_err(|error| fail(error.to_string()))?;
    let document = serde_json::from_slice(&text).map_err(|error| fail(error.to_string()))?;
    read_json(&document).map_err(|error| fail(error.to_string()))
}

/// Reads a copy, so that the file stays as it is, whoever else writes to it meanwhile.
async fn of_database(file: &Path, study: Option<&str>) -> Result<(Study, Vec<Trial>), Failure> {
    let fail = |error: std::io::Error| Failure::usage(format!("{}: {error}", file.display()));
    std::fs::metadata(file).map_err(fail)?;
    let draft = tempfile::tempdir().map_err(fail)?;
    let copy = draft.path().join("study.db");
    let wrong = |error: hpo_svc::storage::Error| database(file, &error);
    let (from, to) = (file.to_owned(), copy.clone());
    let copied = tokio::task::spawn_blocking(move || Db::copy_of_file(&from, &to)).await;
    copied.map_err(|error| fail(std::io::Error::other(error)))?.map_err(|error| wrong(error.into()))?;
    let store = open(&copy).await?;
    store.check_revision().await.map_err(wrong)?;
    let studies = store.studies(i64::MIN, usize::MAX).await.map_err(wrong)?;
    let names: Vec<&str> = studies.iter().map(|study| study.name.as_str()).collect();
    let all = names.join(", ");
    let found = match (study, &studies[..]) {
        (Some(name), _) => studies.iter().find(|study| study.name == name),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let found = found
        .ok_or_else(|| Failure::usage(format!("{}: name one of its studies with --study: {all}", file.display())))?;
    let trials = store.trials(found.id).await.map_err(wrong)?;
    Ok((found.clone(), trials.iter().map(|trial| Trial::clone(trial)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_for_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/folder/study.json");
        assert!(folder_of(&file).unwrap().is_dir());
        assert_eq!(folder_of(Path::new("study.json")).unwrap(), Path::new("."));
        std::fs::write(&file, "").unwrap();
        let refused = folder_of(&file.join("study.json")).unwrap_err();
        assert!(refused.message.starts_with(&file.display().to_string()), "{refused:?}");
    }
}
