//! The cache of `huggingface_hub`: `models--org--name/{blobs,refs,snapshots}` and `.locks`.
//!
//! A blob is named by its tag and appears under that name whole; a snapshot is a folder of relative links to blobs, one a commit; a
//! ref holds the commit of a branch or tag. A lock is `flock` on `.locks/models--org--name/{etag}.lock`, as the Python package
//! `filelock` takes it.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{Error, Repo, repo::is_commit};

/// How often a lock that another process holds is asked for.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// How often a wait for a lock is told.
const LOCK_TOLD: Duration = Duration::from_secs(10);

/// The part of the cache that belongs to one repository.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

/// A lock; letting go of it frees it, and so does the end of the process.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Cache {
    pub(crate) fn new(root: &Path, repo: &Repo) -> Self {
        let name = format!("models--{}", repo.id().replace('/', "--"));
        Self { folder: root.join(&name), locks: root.join(".locks").join(name) }
    }

    /// The folder of a commit's files.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Where a blob is written until it is whole.
    pub(crate) fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The commit of a branch or tag when it was last asked for.
    pub(crate) fn read_ref(&self, revision: &str) -> Option<String> {
        let text = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    pub(crate) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), Error> {
        if is_commit(revision) || self.read_ref(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        make_parent(&path)?;
        let temporary = beside(&path);
        fs::write(&temporary, commit).map_err(|error| Error::io(&temporary, error))?;
        rename(&temporary, &path)
    }

    /// Lets a file of a commit point to its blob.
    pub(crate) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), Error> {
        let pointer = self.snapshot(commit).join(file);
        make_parent(&pointer)?;
        let up = "../".repeat(2 + file.matches('/').count());
        let temporary = beside(&pointer);
        match std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), &temporary) {
            Ok(()) => {}
            // A file system without symbolic links: the file itself, as Python does.
            Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => {
                fs::copy(self.blob(etag), &temporary).map_err(|error| Error::io(&temporary, error))?;
            }
            Err(error) => return Err(Error::io(&temporary, error)),
        }
        rename(&temporary, &pointer)
    }

    /// Waits until no other process or thread works on a blob.
    pub(crate) async fn lock(&self, etag: &str) -> Result<Lock, Error> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let mut told = Instant::now();
        loop {
            let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
            let file = file.map_err(|error| Error::io(&path, error))?;
            match file.try_lock() {
                // Somebody may have removed the file between its opening and the lock: then the lock excludes nobody.
                Ok(()) if same_file(&file, &path) => return Ok(Lock { _file: file }),
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(Error::io(&path, error)),
            }
            if told.elapsed() > LOCK_TOLD {
                tracing::info!(lock = %path.display(), "another process downloads the same file; waiting for it");
                told = Instant::now();
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    let of = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(open), Ok(there)) if of(&open) == of(&there))
}

pub(crate) fn make_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|error| Error::io(parent, error))
}

/// A name beside a file that nobody else writes.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.tmp", rand::random::<u64>()));
    path.with_file_name(name)
}

/// Gives a file its name, or removes it.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|error| {
        // What is left is only a temporary file.
        let _ = fs::remove_file(from);
        Error::io(to, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "12040accade4e8a0f71eabdb258fecc2e7e948be";

    fn cache(root: &Path) -> Cache {
        Cache::new(root, &"org/name".parse().unwrap())
    }

    #[test]
    fn links_are_relative_and_refs_are_plain() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path());
        make_parent(&cache.blob("tag")).unwrap();
        fs::write(cache.blob("tag"), "content").unwrap();
        for file in ["config.json", "onnx/deep/model.json"] {
            cache.link(COMMIT, file, "tag").unwrap();
            cache.link(COMMIT, file, "tag").unwrap();
            assert_eq!(fs::read_to_string(cache.snapshot(COMMIT).join(file)).unwrap(), "content");
        }
        let target = fs::read_link(cache.snapshot(COMMIT).join("config.json")).unwrap();
        assert_eq!(target, Path::new("../../blobs/tag"));
        cache.write_ref("refs/pr/7", COMMIT).unwrap();
        cache.write_ref(COMMIT, COMMIT).unwrap();
        let folder = root.path().join("models--org--name");
        assert_eq!(fs::read_to_string(folder.join("refs/refs/pr/7")).unwrap(), COMMIT);
        assert_eq!((cache.read_ref("refs/pr/7").as_deref(), cache.read_ref("main")), (Some(COMMIT), None));
        assert_eq!(fs::read_dir(folder.join("refs")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_lock_excludes_others_until_it_is_let_go() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path());
        let held = cache.lock("tag").await.unwrap();
        let mut second = Box::pin(cache.lock("tag"));
        assert!(futures::poll!(&mut second).is_pending());
        drop(held);
        let held = second.await.unwrap();
        // A lock file that was removed is no lock: the next one takes a new file.
        fs::remove_file(root.path().join(".locks/models--org--name/tag.lock")).unwrap();
        let _other = cache.lock("tag").await.unwrap();
        drop(held);
    }
}
