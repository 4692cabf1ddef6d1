//! Single files: those inside an artifact, and loose objects beside the artifacts (what tracking clients upload one by one).
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::{ObjectStore as _, ObjectStoreExt as _, path::Path as ObjectPath};

use super::{
    ArtifactStore, Error, decode, key,
    upload::{PART, Parts},
};

/// A file's content as it comes.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// An object of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Relative path below what was asked about.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
}

/// What is directly below a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Names of the folders.
    pub folders: Vec<String>,
    /// The files, by name.
    pub files: Vec<ObjectInfo>,
}

impl ArtifactStore {
    /// Reads one file of an artifact. The bytes are not verified against the manifest; [`ArtifactStore::fetch`] does that.
    ///
    /// # Errors
    /// [`Error::NoSuchFile`] when the manifest has no such path, otherwise as [`ArtifactStore::read_manifest`].
    pub async fn read_file(&self, uri: &str, path: &str) -> Result<(u64, ByteStream), Error> {
        let manifest = self.read_manifest(uri).await?;
        if !manifest.files.iter().any(|entry| entry.path == path) {
            return Err(Error::NoSuchFile { uri: uri.to_owned(), path: path.to_owned() });
        }
        let content = self.content(self.key_of(uri)?, &manifest.digest());
        self.stream(&key::object(&content, &[path]), format!("{uri}/{path}")).await
    }

    /// Reads a loose object.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub async fn read_object(&self, key: &str) -> Result<(u64, ByteStream), Error> {
        let uri = self.uri(key)?;
        self.stream(&key::object(&self.prefix, &[key]), uri).await
    }

    /// Writes a loose object, whole or not at all; one that is there is replaced. Gives its length in bytes.
    ///
    /// # Errors
    /// The stream's own error, [`Error::StorageFull`], [`Error::Store`].
    pub async fn write_object<S, E>(&self, key: &str, content: S) -> Result<u64, Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: std::error::Error + Send + Sync + 'static,
    {
        let uri = self.uri(key)?;
        let target = key::object(&self.prefix, &[key]);
        let fail = |source| Error::store(format!("writing {uri}"), source);
        let broken = |error: E| fail(object_store::Error::Generic { store: "upload", source: Box::new(error) });
        let mut content = std::pin::pin!(content);
        let (mut buffer, mut length, mut parts) = (BytesMut::new(), 0u64, None::<Parts>);
        let outcome = async {
            while let Some(bytes) = content.try_next().await.map_err(broken)? {
                length += bytes.len() as u64;
                buffer.extend_from_slice(&bytes);
                while buffer.len() > PART {
                    if parts.is_none() {
                        parts = Some(Parts::begin(&*self.store, &target).await.map_err(fail)?);
                    }
                    if let Some(parts) = &mut parts {
                        parts.push(buffer.split_to(PART).freeze()).await.map_err(fail)?;
                    }
                }
            }
            Ok(())
        };
        let outcome: Result<(), Error> = outcome.await;
        let rest = buffer.freeze();
        match (outcome, parts) {
            (Ok(()), None) => drop(self.store.put(&target, rest.into()).await.map_err(fail)?),
            (Ok(()), Some(mut parts)) => match parts.push(rest).await {
                Ok(()) => parts.finish().await.map_err(fail)?,
                Err(error) => {
                    parts.abort().await;
                    return Err(fail(error));
                }
            },
            (Err(error), parts) => {
                if let Some(parts) = parts {
                    parts.abort().await;
                }
                return Err(error);
            }
        }
        Ok(length)
    }

    /// Deletes a loose object; that there is none is fine.
    ///
    /// # Errors
    /// [`Error::Store`] when the store fails.
    pub async fn delete_object(&self, key: &str) -> Result<(), Error> {
        let uri = self.uri(key)?;
        match self.store.delete(&key::object(&self.prefix, &[key])).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::store(format!("deleting {uri}"), source)),
        }
    }

    /// What is directly below a key (of loose objects) or, for an artifact's URI and a path inside it, see [`ArtifactStore::list_files`].
    ///
    /// # Errors
    /// [`Error::Key`] for an unsafe key, [`Error::Store`] when the store fails.
    pub async fn list_objects(&self, key: &str) -> Result<Listing, Error> {
        let uri = self.uri(key)?;
        let root = key::object(&self.prefix, &[key]);
        let found = self.store.list_with_delimiter(Some(&root)).await;
        let found = found.map_err(|source| Error::store(format!("listing {uri}"), source))?;
        let name = |path: &ObjectPath| path.filename().map(decode).unwrap_or_default();
        let files = found.objects.iter().map(|meta| ObjectInfo { path: name(&meta.location), size: meta.size });
        Ok(Listing { folders: found.common_prefixes.iter().map(name).collect(), files: files.collect() })
    }

    /// What is directly below `path` inside an artifact; an empty path is its root.
    ///
    /// # Errors
    /// As [`ArtifactStore::read_manifest`].
    pub async fn list_files(&self, uri: &str, path: &str) -> Result<Listing, Error> {
        let manifest = self.read_manifest(uri).await?;
        let below = match path.trim_end_matches('/') {
            "" => String::new(),
            path => format!("{path}/"),
        };
        let mut listing = Listing::default();
        for entry in &manifest.files {
            let Some(rest) = entry.path.strip_prefix(&below) else { continue };
            match rest.split_once('/') {
                None => listing.files.push(ObjectInfo { path: rest.to_owned(), size: entry.size }),
                Some((folder, _)) if listing.folders.last().is_some_and(|last| last == folder) => {}
                Some((folder, _)) => listing.folders.push(folder.to_owned()),
            }
        }
        // Names such as `a` and `a.b` mix when whole paths are sorted.
        listing.folders.sort();
        listing.folders.dedup();
        Ok(listing)
    }

    async fn stream(&self, path: &ObjectPath, uri: String) -> Result<(u64, ByteStream), Error> {
        let result = self.store.get(path).await.map_err(|source| match source {
            object_store::Error::NotFound { .. } => Error::NotFound { uri: uri.clone() },
            source => Error::store(format!("reading {uri}"), source),
        })?;
        let size = result.meta.size;
        let stream = result.into_stream().map_err(move |source| Error::store(format!("reading {uri}"), source));
        Ok((size, stream.boxed()))
    }
}
