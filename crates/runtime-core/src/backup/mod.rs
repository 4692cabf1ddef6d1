//! Second copies of what must not be lost: one policy for outputs of every kind of job and for databases.
//!
//! A backup location is an artifact store of its own, best on another disk. A copy of `name` is the artifact `name/<time>`, so it is published
//! whole or not at all, and it is read back and compared before it counts. Databases are copied as consistent snapshots ([`Snapshots`]), after
//! each trial, coalesced.

mod error;
mod outputs;
mod recover;
mod restore;
mod snapshots;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use url::Url;

pub use error::Error;
pub use outputs::OutputBackup;
pub use recover::Recovery;
pub use snapshots::Snapshots;

use crate::{
    artifacts::{self, ArtifactStore, Kind, PublishedArtifact, digest_path},
    config::Config,
    db::Db,
};

/// The form of a copy's time in its key; in this form the order of the text is the order of time.
const TIME: &str = "%Y%m%dT%H%M%S%6fZ";
/// Two copies of one name within the same microsecond: the later one takes the next.
const ATTEMPTS: i64 = 16;

/// One copy in the backup location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupEntry {
    /// What was copied, such as `outputs/0f.../checkpoint` or `databases/hpo`.
    pub name: String,
    /// When.
    pub time: Timestamp,
    /// The copy itself, with its digest, size and number of files.
    pub artifact: PublishedArtifact,
}

impl BackupEntry {
    /// `<name>/<time>`: names exactly this copy.
    pub fn id(&self) -> String {
        format!("{}/{}", self.name, self.time.strftime(TIME))
    }
}

/// What became of a wish for a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A copy was made and verified.
    Made(BackupEntry),
    /// The newest copy has the same content already.
    Unchanged(BackupEntry),
    /// Backup is off.
    Disabled,
    /// There is nothing to copy.
    Missing,
    /// It lies in the backup location already.
    AlreadyThere,
}

/// Whether, where to and how many copies are made: the same for all kinds of job. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BackupPolicy {
    enabled: bool,
    location: Option<ArtifactStore>,
    keep: usize,
}

impl BackupPolicy {
    /// Makes no copies.
    pub fn disabled() -> Self {
        Self { enabled: false, location: None, keep: 0 }
    }

    /// Copies to a path or URL; `keep` copies of a name stay, 0 means all.
    ///
    /// # Errors
    /// When the location cannot be opened.
    pub fn new(location: &str, keep: usize) -> Result<Self, Error> {
        Ok(Self { enabled: true, location: Some(ArtifactStore::open(location)?), keep })
    }

    /// The policy of the configuration. A location is opened even when backup is off, so that copies can be listed and restored.
    ///
    /// # Errors
    /// When the location cannot be opened.
    pub fn from_config(config: &Config) -> Result<Self, Error> {
        let backup = &config.backup;
        let location = backup.location.as_ref().map(|url| ArtifactStore::open(url.expose())).transpose()?;
        Ok(Self { enabled: backup.enabled, location, keep: usize::try_from(backup.keep).unwrap_or(usize::MAX) })
    }

    /// Whether copies are made.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Copies a local file or folder at once: when backup is on, it exists, does not lie in the backup location already, and differs from
    /// the newest copy of that name.
    ///
    /// # Errors
    /// [`Error::Inside`] when the backup location lies inside the folder, else what reading and publishing give.
    pub async fn immediate_backup_if_needed(&self, name: &str, path: &Path) -> Result<Outcome, Error> {
        let Some(location) = self.active()? else { return Ok(Outcome::Disabled) };
        let Ok(real) = path.canonicalize() else { return Ok(Outcome::Missing) };
        if let Some(root) = local_root(location) {
            if real.starts_with(&root) {
                return Ok(Outcome::AlreadyThere);
            }
            if root.starts_with(&real) {
                return Err(Error::Inside { path: path.to_owned(), location: root });
            }
        }
        self.copy(location, name, &real).await
    }

    /// Copies an artifact of another store at once, under the same conditions.
    ///
    /// # Errors
    /// What fetching and publishing give.
    pub async fn backup_artifact(&self, name: &str, store: &ArtifactStore, uri: &str) -> Result<Outcome, Error> {
        let Some(location) = self.active()? else { return Ok(Outcome::Disabled) };
        if location.owns(uri) {
            return Ok(Outcome::AlreadyThere);
        }
        let manifest = match store.read_manifest(uri).await {
            Err(artifacts::Error::NotFound { .. }) => return Ok(Outcome::Missing),
            manifest => manifest?,
        };
        if let Some(newest) = self.newest(location, name).await?
            && newest.artifact.digest == manifest.digest()
        {
            return Ok(Outcome::Unchanged(newest));
        }
        let folder = temporary_folder()?;
        let fetched = match manifest.kind {
            Kind::Folder => folder.path().join("content"),
            Kind::File => folder.path().join(&manifest.files[0].path),
        };
        store.fetch(uri, &fetched).await?;
        self.copy(location, name, &fetched).await
    }

    /// Copies a database as a consistent snapshot, checked by the database's own means. [`Snapshots`] does this after each change.
    ///
    /// # Errors
    /// On PostgreSQL, which has its own tools; when the snapshot is damaged; else what publishing gives.
    pub async fn backup_database(&self, name: &str, db: &Db) -> Result<Outcome, Error> {
        let Some(location) = self.active()? else { return Ok(Outcome::Disabled) };
        let folder = temporary_folder()?;
        let file = folder.path().join("database.db");
        db.snapshot(&file).await?;
        let checked = file.clone();
        let verdict = tokio::task::spawn_blocking(move || check_database(&checked)).await;
        let verdict = verdict.unwrap_or_else(|error| Err(error.to_string()));
        verdict.map_err(|problem| Error::Damaged { name: name.to_owned(), problem })?;
        self.copy(location, name, &file).await
    }

    /// The copies whose names are `prefix` or below it, oldest first within a name; all for an empty prefix.
    ///
    /// # Errors
    /// [`Error::NoLocation`] when none is configured, else what the store gives.
    pub async fn list(&self, prefix: &str) -> Result<Vec<BackupEntry>, Error> {
        let location = self.location.as_ref().ok_or(Error::NoLocation)?;
        entries(location, prefix).await
    }

    /// The copy that `name` means: exactly that one for `<name>/<time>`, the newest for a name alone.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub async fn find(&self, name: &str) -> Result<BackupEntry, Error> {
        let location = self.location.as_ref().ok_or(Error::NoLocation)?;
        let name = name.trim_end_matches('/');
        let entries = entries(location, name).await?;
        let found = entries.into_iter().rfind(|entry| entry.name == name || entry.id() == name);
        found.ok_or_else(|| Error::NotFound { name: name.to_owned() })
    }

    fn active(&self) -> Result<Option<&ArtifactStore>, Error> {
        match (self.enabled, &self.location) {
            (false, _) => Ok(None),
            (true, Some(location)) => Ok(Some(location)),
            (true, None) => Err(Error::NoLocation),
        }
    }

    async fn newest(&self, location: &ArtifactStore, name: &str) -> Result<Option<BackupEntry>, Error> {
        let entries = entries(location, name).await?;
        Ok(entries.into_iter().rfind(|entry| entry.name == name))
    }

    async fn copy(&self, location: &ArtifactStore, name: &str, path: &Path) -> Result<Outcome, Error> {
        let newest = self.newest(location, name).await?;
        if let Some(newest) = &newest {
            let path = path.to_owned();
            let digest = tokio::task::spawn_blocking(move || digest_path(&path)).await;
            if digest.is_ok_and(|digest| digest.is_ok_and(|digest| digest == newest.artifact.digest)) {
                return Ok(Outcome::Unchanged(newest.clone()));
            }
        }
        // Never before the newest one, even when the clock was set back.
        let now = Timestamp::now().as_microsecond();
        let first = newest.map_or(now, |newest| now.max(newest.time.as_microsecond() + 1));
        for later in 0..ATTEMPTS {
            let time = Timestamp::from_microsecond(first + later).map_err(|error| Error::Time(error.to_string()))?;
            let key = format!("{name}/{}", time.strftime(TIME));
            match location.publish(path, &key).await {
                Err(artifacts::Error::Conflict { .. }) if later + 1 < ATTEMPTS => {}
                published => {
                    let artifact = published?;
                    location.verify(&artifact.uri).await?;
                    self.prune(location, name).await?;
                    return Ok(Outcome::Made(BackupEntry { name: name.to_owned(), time, artifact }));
                }
            }
        }
        Err(Error::Time("too many copies at the same moment".into()))
    }

    /// Deletes the oldest copies of a name beyond those that are kept.
    async fn prune(&self, location: &ArtifactStore, name: &str) -> Result<(), Error> {
        if self.keep == 0 {
            return Ok(());
        }
        let entries: Vec<_> = entries(location, name).await?.into_iter().filter(|entry| entry.name == name).collect();
        for old in entries.iter().take(entries.len().saturating_sub(self.keep)) {
            location.delete(&old.artifact.uri).await?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made(entry) => write!(f, "backed up as {}", entry.id()),
            Self::Unchanged(entry) => write!(f, "unchanged since {}", entry.id()),
            Self::Disabled => f.write_str("backup is off"),
            Self::Missing => f.write_str("there is nothing to back up"),
            Self::AlreadyThere => f.write_str("lies in the backup location already"),
        }
    }
}

async fn entries(location: &ArtifactStore, prefix: &str) -> Result<Vec<BackupEntry>, Error> {
    let mut entries = Vec::new();
    for artifact in location.list(prefix).await? {
        // Whatever else lies in the location is not ours.
        let Some((name, stamp)) = location.key_of(&artifact.uri)?.rsplit_once('/') else { continue };
        if let Some(time) = parse_time(stamp) {
            entries.push(BackupEntry { name: name.to_owned(), time, artifact });
        }
    }
    entries.sort_by(|a, b| (&a.name, a.time).cmp(&(&b.name, b.time)));
    Ok(entries)
}

fn parse_time(stamp: &str) -> Option<Timestamp> {
    let (whole, micros) = stamp.strip_suffix('Z')?.split_at_checked(15)?;
    let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S", whole).ok()?;
    if micros.len() != 6 || !micros.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?.as_microsecond();
    Timestamp::from_microsecond(seconds + micros.parse::<i64>().ok()?).ok()
}

/// The folder of a local store.
fn local_root(location: &ArtifactStore) -> Option<PathBuf> {
    let url = Url::parse(location.url()).ok().filter(|url| url.scheme() == "file")?;
    url.to_file_path().ok()?.canonicalize().ok()
}

fn temporary_folder() -> Result<tempfile::TempDir, Error> {
    tempfile::Builder::new().prefix("quintet-backup-").tempdir().map_err(Error::Temporary)
}

/// SQLite's own check of a database file.
fn check_database(path: &Path) -> Result<(), String> {
    let check = || -> rusqlite::Result<String> {
        let connection = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
    };
    match check() {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(problem) => Err(problem),
        Err(error) => Err(error.to_string()),
    }
}
