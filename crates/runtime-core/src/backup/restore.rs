//! Restoring: verified beside its destination first, then put in place in one step; the old content goes last.
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{BackupEntry, BackupPolicy, Error};
use crate::artifacts::Kind;

/// What SQLite keeps beside a database: with a restored database it would damage it.
pub(super) const SQLITE_COMPANIONS: [&str; 2] = ["-wal", "-shm"];

impl BackupPolicy {
    /// Restores a copy ([`BackupPolicy::find`] says which) to `to`. What is there stays untouched unless `force`, and even then until the
    /// copy is complete and verified. A database must not be in use meanwhile.
    ///
    /// # Errors
    /// [`Error::Exists`] without `force`, [`Error::NotFound`], and what fetching gives.
    pub async fn restore(&self, name: &str, to: &Path, force: bool) -> Result<BackupEntry, Error> {
        let entry = self.find(name).await?;
        let location = self.location.as_ref().ok_or(Error::NoLocation)?;
        let companions: Vec<PathBuf> =
            SQLITE_COMPANIONS.map(|suffix| with_suffix(to, suffix)).into_iter().filter(|path| there(path)).collect();
        if !force && let Some(path) = companions.iter().map(PathBuf::as_path).chain([to]).find(|path| there(path)) {
            return Err(Error::Exists { path: path.to_owned() });
        }
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(|source| io_error(parent, source))?;
        let staging = tempfile::Builder::new()
            .prefix(".restore-")
            .tempdir_in(parent)
            .map_err(|source| io_error(parent, source))?;
        let fetched = staging.path().join("new");
        let manifest = location.fetch(&entry.artifact.uri, &fetched).await?;
        if manifest.kind == Kind::File {
            // Moved, not deleted: should the next step fail, they go back.
            let aside = |index: usize| staging.path().join(format!("companion{index}"));
            for (index, path) in companions.iter().enumerate() {
                fs::rename(path, aside(index)).map_err(|source| io_error(path, source))?;
            }
            if let Err(error) = put(&fetched, to) {
                for (index, path) in companions.iter().enumerate() {
                    // The first error is the one to tell.
                    let _ = fs::rename(aside(index), path);
                }
                return Err(error);
            }
        } else {
            put(&fetched, to)?;
        }
        fs::File::open(parent).and_then(|folder| folder.sync_all()).map_err(|source| io_error(parent, source))?;
        // Dropping the staging folder deletes what was replaced.
        staging.close().map_err(|source| io_error(parent, source))?;
        Ok(entry)
    }
}

/// Puts `new` at `to` in one step; what was there is at `new` afterwards, or gone when a file replaced a file.
fn put(new: &Path, to: &Path) -> Result<(), Error> {
    let replaces_folder = fs::symlink_metadata(to).is_ok_and(|old| old.is_dir()) || (new.is_dir() && there(to));
    let done = match replaces_folder {
        true => exchange(new, to),
        false => fs::rename(new, to),
    };
    done.map_err(|source| io_error(to, source))
}

/// Exchanges two names in one step.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn exchange(new: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    Ok(renameat2(AT_FDCWD, new, AT_FDCWD, to, RenameFlags::RENAME_EXCHANGE)?)
}

/// Where the system has no such step: the old content moves aside first, and back when the second step fails.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn exchange(new: &Path, to: &Path) -> io::Result<()> {
    let aside = with_suffix(new, ".old");
    fs::rename(to, &aside)?;
    fs::rename(new, to).inspect_err(|_| {
        let _ = fs::rename(&aside, to);
    })
}

fn there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(suffix);
    text.into()
}

pub(super) fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}
