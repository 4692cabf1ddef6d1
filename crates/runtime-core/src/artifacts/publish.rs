//! Publishing: hash, upload, then commit by a manifest that is written only if there is none.
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectStoreExt as _, PutMode, PutPayload, path::Path as ObjectPath};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

use super::{
    ArtifactStore, CONCURRENCY, Entry, Error, MANIFEST, Manifest, PublishedArtifact, key,
    local::{self, Links, Local},
    upload::{PART, Parts},
};

impl ArtifactStore {
    /// Publishes a local file or folder under a key. Publishing the same content again is a no-op that gives the same answer.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the key holds other content, [`Error::Unsuitable`] for an empty folder, a link that leads out, a
    /// special file or one that changes meanwhile, [`Error::StorageFull`], [`Error::Store`]. After an error nothing is committed, and
    /// what was uploaded is removed as far as the store allows.
    pub async fn publish(&self, path: &Path, key: &str) -> Result<PublishedArtifact, Error> {
        let uri = self.uri(key)?;
        let root = path.to_owned();
        let local = tokio::task::spawn_blocking(move || local::read(&root, Links::Inside))
            .await
            .map_err(|error| local::unsuitable(path, error.to_string()))??;
        let artifact = PublishedArtifact::new(uri.clone(), &local.manifest);
        // Asked first, so that a repetition costs no upload; the commit below decides all the same.
        match self.read_manifest(&uri).await {
            Ok(stored) => return same(artifact, &stored),
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let content = self.content(key, &artifact.digest);
        let uploaded = self.upload(&local, &content).await;
        let committed = match uploaded {
            Ok(()) => self.commit(&uri, key, &local.manifest).await,
            Err(error) => Err(error),
        };
        // What is stored decides, also after an error: the answer to our commit may have been lost, and our upload may have failed
        // because a publisher of the same content lost to another one and removed it.
        let stored = match committed {
            Ok(None) => return Ok(artifact),
            Ok(Some(stored)) => stored,
            Err(error) => match self.read_manifest(&uri).await {
                Ok(stored) => stored,
                Err(Error::NotFound { .. }) => {
                    self.remove(&content).await;
                    return Err(error);
                }
                Err(_) => return Err(error),
            },
        };
        // With the same content it is the same artifact in the same place.
        if stored != local.manifest {
            self.remove(&content).await;
        }
        same(artifact, &stored)
    }

    /// Uploads all files; after the first failure no other one is begun, and those under way have ended when it returns, so that
    /// nothing appears after what was uploaded has been removed.
    async fn upload(&self, local: &Local, content: &ObjectPath) -> Result<(), Error> {
        let stop = AtomicBool::new(false);
        let files = local.manifest.files.iter().zip(&local.paths);
        let uploads = files.map(|(entry, path)| {
            let target = key::object(content, &[&entry.path]);
            let stop = &stop;
            async move {
                let outcome = self.upload_file(path, entry, target, stop).await;
                if outcome.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                outcome
            }
        });
        // Collected first: a stream of borrowing futures would not be `Send`.
        let uploads: Vec<_> = uploads.collect();
        let outcomes: Vec<_> = futures::stream::iter(uploads).buffer_unordered(CONCURRENCY).collect().await;
        outcomes.into_iter().collect()
    }

    /// Uploads one file; gives up without an error once another file has failed.
    async fn upload_file(
        &self,
        path: &Path,
        entry: &Entry,
        target: ObjectPath,
        stop: &AtomicBool,
    ) -> Result<(), Error> {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let fail = |source| Error::store(format!("uploading {}", path.display()), source);
        let mut reader = Reader::open(path.to_owned()).await?;
        if entry.size <= PART as u64 {
            let bytes = reader.part().await?.unwrap_or_default();
            // One byte more than the manifest says is found by a second read.
            let rest = reader.part().await?;
            reader.check(entry, rest.is_none())?;
            self.store.put(&target, bytes.into()).await.map_err(fail)?;
            return Ok(());
        }
        let mut parts = Parts::begin(&*self.store, &target).await.map_err(fail)?;
        let outcome = async {
            while let Some(bytes) = reader.part().await? {
                if stop.load(Ordering::Relaxed) {
                    return Ok(false);
                }
                parts.push(bytes.into()).await.map_err(fail)?;
            }
            reader.check(entry, true).map(|()| true)
        };
        match outcome.await {
            Ok(true) => parts.finish().await.map_err(fail),
            Ok(false) => {
                parts.abort().await;
                Ok(())
            }
            Err(error) => {
                parts.abort().await;
                Err(error)
            }
        }
    }

    /// Writes the manifest if there is none; otherwise gives the one that is there.
    async fn commit(&self, uri: &str, key: &str, manifest: &Manifest) -> Result<Option<Manifest>, Error> {
        let path = key::object(&self.prefix, &[key, MANIFEST]);
        let payload = PutPayload::from(manifest.to_json());
        match object_store::ObjectStore::put_opts(&*self.store, &path, payload, PutMode::Create.into()).await {
            Ok(_) => Ok(None),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(Some(self.read_manifest(uri).await?))
            }
            Err(source) => Err(Error::store(format!("committing {uri}"), source)),
        }
    }

    /// Removes what a failed publication left; what cannot be removed is only in the way of the disk's space.
    async fn remove(&self, content: &ObjectPath) {
        use object_store::ObjectStore as _;
        let found = self.store.list(Some(content)).map_ok(|meta| meta.location).boxed();
        let removed: Result<Vec<_>, _> = self.store.delete_stream(found).try_collect().await;
        if let Err(error) = removed {
            tracing::warn!(%error, %content, "cannot remove what a failed publication left");
        }
    }
}

fn same(artifact: PublishedArtifact, stored: &Manifest) -> Result<PublishedArtifact, Error> {
    let digest = stored.digest();
    match digest == artifact.digest {
        true => Ok(artifact),
        false => Err(Error::Conflict { uri: artifact.uri, stored: digest, offered: artifact.digest }),
    }
}

/// Reads a file in parts and hashes what it gives, so that what is stored is what the manifest says.
struct Reader {
    path: PathBuf,
    file: tokio::fs::File,
    hasher: Sha256,
    size: u64,
}

impl Reader {
    async fn open(path: PathBuf) -> Result<Self, Error> {
        let mut file = tokio::fs::File::open(&path).await.map_err(|source| Error::io(&path, source))?;
        file.set_max_buf_size(PART);
        Ok(Self { path, file, hasher: Sha256::new(), size: 0 })
    }

    /// The next part, full unless it is the last; `None` at the end.
    async fn part(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let mut bytes = Vec::new();
        let mut part = (&mut self.file).take(PART as u64);
        part.read_to_end(&mut bytes).await.map_err(|source| Error::io(&self.path, source))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.hasher.update(&bytes);
        self.size += bytes.len() as u64;
        Ok(Some(bytes))
    }

    fn check(&mut self, entry: &Entry, ended: bool) -> Result<(), Error> {
        let sha256 = hex::encode(std::mem::take(&mut self.hasher).finalize());
        if ended && self.size == entry.size && sha256 == entry.sha256 {
            return Ok(());
        }
        Err(local::unsuitable(&self.path, "changed while it was published"))
    }
}
