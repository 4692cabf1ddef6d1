//! Files and folders that appear whole or not at all: written under a temporary name beside the target, synced, renamed.
use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::Error;

/// Fills a new folder by `fill` and gives it the name `target`, which must not exist or be an empty folder.
pub fn write_folder<E: From<Error>>(target: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let parent = parent(target);
    fs::create_dir_all(&parent).map_err(|e| Error::io(&parent, e))?;
    let temporary =
        tempfile::Builder::new().prefix(".partial-").tempdir_in(&parent).map_err(|e| Error::io(&parent, e))?;
    fill(temporary.path())?;
    publish(temporary.path(), target)?;
    // Renamed away: nothing is left for the guard to remove.
    let _ = temporary.keep();
    Ok(())
}

fn publish(temporary: &Path, target: &Path) -> Result<(), Error> {
    sync_folder(temporary)?;
    open_to_readers(temporary, 0o755)?;
    fs::rename(temporary, target).map_err(|e| Error::io(target, e))?;
    sync(&parent(target))
}

/// Writes a file that replaces `target` in one step.
pub fn write_file(target: &Path, content: &[u8]) -> Result<(), Error> {
    let parent = parent(target);
    let mut file = tempfile::NamedTempFile::new_in(&parent).map_err(|e| Error::io(&parent, e))?;
    file.write_all(content).map_err(|e| Error::io(target, e))?;
    file.as_file().sync_all().map_err(|e| Error::io(target, e))?;
    open_to_readers(file.path(), 0o644)?;
    file.persist(target).map_err(|e| Error::io(target, e.error))?;
    sync(&parent)
}

/// Copies a file so that it replaces `target` in one step.
pub fn copy_file(source: &Path, target: &Path) -> Result<(), Error> {
    let parent = parent(target);
    let mut from = File::open(source).map_err(|e| Error::io(source, e))?;
    let mut file = tempfile::NamedTempFile::new_in(&parent).map_err(|e| Error::io(&parent, e))?;
    std::io::copy(&mut from, &mut file).map_err(|e| Error::io(target, e))?;
    file.as_file().sync_all().map_err(|e| Error::io(target, e))?;
    open_to_readers(file.path(), 0o644)?;
    file.persist(target).map_err(|e| Error::io(target, e.error))?;
    sync(&parent)
}

/// Reads a file whole.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|e| Error::io(path, e))
}

/// SHA-256 of a file's content in lower-case hexadecimal.
pub fn digest(path: &Path) -> Result<String, Error> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(|e| Error::io(path, e))?;
        if count == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&buffer[..count]);
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn sync_folder(folder: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        sync(&entry.map_err(|e| Error::io(folder, e))?.path())?;
    }
    sync(folder)
}

fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| Error::io(path, e))
}

/// Temporary files are made for the owner alone; what is published may be read by others.
fn open_to_readers(path: &Path, mode: u32) -> Result<(), Error> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| Error::io(path, e))?;
    }
    #[cfg(not(unix))]
    let _ = (path, mode);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_fill_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let result = write_folder(&target, |folder| {
            fs::write(folder.join("half"), b"x").unwrap();
            Err(Error::argument("x", "stop"))
        });
        assert!(result.is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_appears_whole_and_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a/b/out");
        let fill = |folder: &Path| write_file(&folder.join("f"), b"content");
        write_folder(&target, fill).unwrap();
        assert_eq!(read(&target.join("f")).unwrap(), b"content");
        assert_eq!(
            digest(&target.join("f")).unwrap(),
            "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
        );
        assert!(write_folder(&target, fill).is_err());
        assert_eq!(fs::read_dir(dir.path().join("a/b")).unwrap().count(), 1);
    }
}
