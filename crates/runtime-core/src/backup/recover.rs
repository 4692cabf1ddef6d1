//! A damaged database at start-up: kept aside, and its newest sound copy put in its place.
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};

use super::{
    BackupEntry, BackupPolicy, Error, TIME, check_database,
    restore::{SQLITE_COMPANIONS, io_error, with_suffix},
    temporary_folder,
};
use crate::db::{self, Damage};

/// A database that was damaged and is sound again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// What was damaged, and how.
    pub damage: Damage,
    /// Where the damaged file lies now; its -wal and -shm lie beside it.
    pub kept: PathBuf,
    /// The copy in its place.
    pub entry: BackupEntry,
    /// How old the copy was.
    pub age: SignedDuration,
}

/// What a person has to know: both files, the age of the copy, and what is lost.
impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} was damaged ({}) and is restored from its backup {}, which is {:#} old: what was written after {} is lost. The damaged \
             file is kept as {}",
            self.damage.path.display(),
            self.damage.problem,
            self.entry.id(),
            SignedDuration::from_secs(self.age.as_secs()),
            self.entry.time.strftime("%Y-%m-%d %H:%M:%S UTC"),
            self.kept.display()
        )
    }
}

impl BackupPolicy {
    /// Looks at the database behind `url` before it is opened, and replaces a damaged one by the newest sound copy of `name`; `None`
    /// when nothing was wrong. The damaged file stays beside it as `FILE.corrupt-TIME`. Nobody may have the database open meanwhile.
    ///
    /// # Errors
    /// [`Error::Beyond`] when it is damaged and there is no sound copy, or backup is off; then nothing is changed. A file that cannot
    /// be read, or is locked.
    pub async fn recover(&self, name: &str, url: &str) -> Result<Option<Recovery>, Error> {
        let asked = url.to_owned();
        let found = tokio::task::spawn_blocking(move || db::damage(&asked)).await;
        let found = found.unwrap_or_else(|error| Err(db::Error::Statement(error.to_string())))?;
        let Some(damage) = found else { return Ok(None) };
        let beyond = |why: String| Error::Beyond { path: damage.path.clone(), problem: damage.problem.clone(), why };
        if !self.is_enabled() {
            return Err(beyond("backup is off (backup.enabled)".into()));
        }
        let entry = self.newest_sound(name).await.map_err(|why| beyond(why.to_string()))?;
        let Some(entry) = entry else {
            return Err(beyond(format!("there is no sound backup of `{name}`")));
        };
        let now = Timestamp::now();
        let kept = with_suffix(&damage.path, &format!(".corrupt-{}", now.strftime(TIME)));
        keep(&damage.path, &kept)?;
        // In one step, so that a start which is cut off here finds the damaged file or the sound one, and never none.
        let entry = self.restore(&entry.id(), &damage.path, true).await?;
        let age = now.duration_since(entry.time);
        Ok(Some(Recovery { damage, kept, entry, age }))
    }

    /// The newest copy of that name which arrives whole and which SQLite finds nothing wrong with.
    async fn newest_sound(&self, name: &str) -> Result<Option<BackupEntry>, Error> {
        let location = self.location.as_ref().ok_or(Error::NoLocation)?;
        let entries = self.list(name).await?;
        for entry in entries.into_iter().rev().filter(|entry| entry.name == name) {
            let folder = temporary_folder()?;
            let file = folder.path().join("database.db");
            let problem = match location.fetch(&entry.artifact.uri, &file).await {
                Ok(_) => tokio::task::spawn_blocking(move || check_database(&file)).await,
                Err(error) => Ok(Err(error.to_string())),
            };
            match problem {
                Ok(Ok(())) => return Ok(Some(entry)),
                Ok(Err(problem)) => tracing::error!(copy = entry.id(), problem, "a backup is damaged itself"),
                Err(error) => return Err(Error::Last(error.to_string())),
            }
        }
        Ok(None)
    }
}

/// Gives the damaged file and what lies beside it second names.
fn keep(path: &Path, kept: &Path) -> Result<(), Error> {
    second_name(path, kept).map_err(|source| io_error(kept, source))?;
    for suffix in SQLITE_COMPANIONS {
        let (beside, kept) = (with_suffix(path, suffix), with_suffix(kept, suffix));
        match second_name(&beside, &kept) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(&kept, error)),
            _ => {}
        }
    }
    Ok(())
}

fn second_name(path: &Path, name: &Path) -> io::Result<()> {
    match fs::hard_link(path, name) {
        // File systems without links get a copy.
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {
            fs::copy(path, name)?;
            fs::File::open(name)?.sync_all()
        }
        other => other,
    }
}
