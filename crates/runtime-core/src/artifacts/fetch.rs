//! Fetching and verifying: every byte is hashed, and a folder appears whole under its name or not at all.
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectStoreExt as _, path::Path as ObjectPath};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::{ArtifactStore, CONCURRENCY, Entry, Error, Kind, Manifest, key};

impl ArtifactStore {
    /// Downloads an artifact to `dest`, which must not exist (an empty folder may): a folder artifact becomes that folder, a file
    /// artifact that file. The content is verified and synced under a temporary name beside it, then renamed.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotFound`], [`Error::Corrupt`] naming the file, [`Error::StorageFull`], [`Error::Io`], [`Error::Store`].
    pub async fn fetch(&self, uri: &str, dest: &Path) -> Result<Manifest, Error> {
        if taken(dest) {
            return Err(Error::Exists { path: dest.to_owned() });
        }
        let manifest = self.read_manifest(uri).await?;
        let staged = self.stage(uri, &manifest, parent(dest)).await?;
        let from = match manifest.kind {
            Kind::Folder => staged.path().to_owned(),
            Kind::File => staged.path().join(&manifest.files[0].path),
        };
        // An empty folder gives way to a rename; anything else makes it fail.
        fs::rename(&from, dest).map_err(|source| match taken(dest) {
            true => Error::Exists { path: dest.to_owned() },
            false => Error::io(dest, source),
        })?;
        sync_folder(parent(dest))?;
        Ok(manifest)
    }

    /// The artifact in a cache folder, downloaded when it is not there yet: `<cache>/<digest>` for a folder, `<cache>/<digest>/<name>` for
    /// a file. Artifacts never change, so what is there was verified when it came.
    ///
    /// # Errors
    /// As [`ArtifactStore::fetch`], except [`Error::Exists`].
    pub async fn fetch_cached(&self, uri: &str, cache: &Path) -> Result<PathBuf, Error> {
        let manifest = self.read_manifest(uri).await?;
        let dest = cache.join(manifest.digest());
        if !taken(&dest) {
            let staged = self.stage(uri, &manifest, cache).await?;
            match fs::rename(staged.path(), &dest) {
                Ok(()) => sync_folder(cache)?,
                // Somebody else fetched the same content meanwhile.
                Err(_) if taken(&dest) => {}
                Err(source) => return Err(Error::io(&dest, source)),
            }
        }
        Ok(match manifest.kind {
            Kind::Folder => dest,
            Kind::File => dest.join(&manifest.files[0].path),
        })
    }

    /// Reads every file of an artifact and compares it with the manifest.
    ///
    /// # Errors
    /// [`Error::Corrupt`] names the first file that differs and how.
    pub async fn verify(&self, uri: &str) -> Result<Manifest, Error> {
        let manifest = self.read_manifest(uri).await?;
        let content = self.content(self.key_of(uri)?, &manifest.digest());
        let checks: Vec<_> = manifest.files.iter().map(|entry| self.copy(uri, entry, &content, None)).collect();
        futures::stream::iter(checks).buffer_unordered(CONCURRENCY).try_collect::<()>().await?;
        Ok(manifest)
    }

    /// Downloads all files into a fresh folder below `parent`, verified and synced; it goes away when it is dropped.
    async fn stage(&self, uri: &str, manifest: &Manifest, parent: &Path) -> Result<tempfile::TempDir, Error> {
        fs::create_dir_all(parent).map_err(|source| Error::io(parent, source))?;
        let staged = tempfile::Builder::new()
            .prefix(".fetch-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir_in(parent)
            .map_err(|source| Error::io(parent, source))?;
        let content = self.content(self.key_of(uri)?, &manifest.digest());
        let copies = manifest.files.iter().map(|entry| {
            let target = staged.path().join(&entry.path);
            self.copy(uri, entry, &content, Some(target))
        });
        let copies: Vec<_> = copies.collect();
        futures::stream::iter(copies).buffer_unordered(CONCURRENCY).try_collect::<()>().await?;
        sync_tree(staged.path())?;
        Ok(staged)
    }

    /// Reads one file of an artifact, writes it to `target` when there is one, and compares size and digest.
    async fn copy(&self, uri: &str, entry: &Entry, content: &ObjectPath, target: Option<PathBuf>) -> Result<(), Error> {
        let corrupt = |problem: String| Error::Corrupt { uri: uri.to_owned(), path: entry.path.clone(), problem };
        let fail = |source| match source {
            object_store::Error::NotFound { .. } => corrupt("is missing".into()),
            source => Error::store(format!("reading `{}` of {uri}", entry.path), source),
        };
        let result = self.store.get(&key::object(content, &[&entry.path])).await.map_err(fail)?;
        if result.meta.size != entry.size {
            return Err(corrupt(format!("has {} bytes instead of {}", result.meta.size, entry.size)));
        }
        let mut file = match &target {
            None => None,
            Some(path) => {
                fs::create_dir_all(parent(path)).map_err(|source| Error::io(path, source))?;
                // Made here and now: a task that still made files after a failure would race with their removal.
                let file = fs::File::create_new(path).map_err(|source| Error::io(path, source))?;
                Some(tokio::fs::File::from_std(file))
            }
        };
        let on_disk = |source| Error::io(target.as_deref().unwrap_or(Path::new("")), source);
        let (mut hasher, mut size) = (Sha256::new(), 0u64);
        let mut stream = result.into_stream();
        while let Some(bytes) = stream.try_next().await.map_err(fail)? {
            hasher.update(&bytes);
            size += bytes.len() as u64;
            if let Some(file) = &mut file {
                file.write_all(&bytes).await.map_err(on_disk)?;
            }
        }
        let sha256 = hex::encode(hasher.finalize());
        if size != entry.size || sha256 != entry.sha256 {
            return Err(corrupt(format!("has SHA-256 {sha256} instead of {}", entry.sha256)));
        }
        if let Some(mut file) = file {
            file.flush().await.map_err(on_disk)?;
            file.sync_all().await.map_err(on_disk)?;
        }
        Ok(())
    }
}

/// The folder that a path is in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether something is there that must not be replaced.
fn taken(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Err(_) => false,
        Ok(metadata) if metadata.is_dir() => fs::read_dir(path).map_or(true, |mut items| items.next().is_some()),
        Ok(_) => true,
    }
}

fn sync_tree(root: &Path) -> Result<(), Error> {
    for item in walkdir::WalkDir::new(root).into_iter().filter_map(Result::ok).filter(|item| item.file_type().is_dir())
    {
        sync_folder(item.path())?;
    }
    Ok(())
}

/// Makes the names in a folder durable.
fn sync_folder(path: &Path) -> Result<(), Error> {
    fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(|source: io::Error| Error::io(path, source))
}
