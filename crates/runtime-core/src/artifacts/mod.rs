//! The artifact store: files and folders published whole, verified when read, on a local disk or in a cloud by URL.
//!
//! An artifact of key `K` is `K/manifest.json` (paths, sizes, SHA-256; canonical JSON) and its files below `K/@<digest>/`. The files are
//! written first; the manifest is written last and only if there is none: that one conditional put is the commit. Two publishers
//! of one key cannot mix, because other content has another digest and so another folder. Nothing half-written is ever an artifact.
//!
//! Symbolic links: publishing follows one that stays inside the folder and refuses one that leads out of it; [`digest_path`], which
//! reads an input where it lies, follows all.

mod error;
mod fetch;
mod key;
mod local;
mod manifest;
mod objects;
mod open;
mod publish;
#[cfg(test)]
mod tests;
mod upload;

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, future::ready};
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path as ObjectPath};

pub use error::Error;
pub use local::digest_path;
pub use manifest::{Entry, Kind, MANIFEST, Manifest};
pub use objects::{ByteStream, Listing, ObjectInfo};

/// Files that are up- or downloaded at a time.
const CONCURRENCY: usize = 4;
/// Largest manifest that is read, in bytes: some 500,000 files.
const MANIFEST_LIMIT: u64 = 128 << 20;

/// An artifact that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedArtifact {
    /// Where it is.
    pub uri: String,
    /// SHA-256 of its manifest, in hexadecimal.
    pub digest: String,
    /// Sum of its files' sizes, in bytes.
    pub size_bytes: u64,
    /// How many files it has.
    pub file_count: usize,
}

impl PublishedArtifact {
    fn new(uri: String, manifest: &Manifest) -> Self {
        let (size_bytes, file_count) = (manifest.size_bytes(), manifest.files.len());
        Self { uri, digest: manifest.digest(), size_bytes, file_count }
    }
}

impl From<PublishedArtifact> for quintet_proto::v1::Artifact {
    fn from(artifact: PublishedArtifact) -> Self {
        Self {
            uri: artifact.uri,
            digest: artifact.digest,
            size_bytes: artifact.size_bytes.try_into().unwrap_or(i64::MAX),
            file_count: artifact.file_count.try_into().unwrap_or(i32::MAX),
        }
    }
}

/// A store of artifacts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ArtifactStore {
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    url: String,
}

impl ArtifactStore {
    /// Opens a store by URL: a plain path or `file:///path` (made when missing), `s3://bucket/prefix`, `gs://bucket/prefix`,
    /// `az://container/prefix`, or `memory:///` for tests. Cloud options come from the usual environment variables (`AWS_*`,
    /// `GOOGLE_*`, `AZURE_*`) and from the URL's query (`?endpoint=http://127.0.0.1:5000`).
    ///
    /// # Errors
    /// [`Error::Url`] names what is wrong with the URL; a local folder that cannot be made is [`Error::Io`].
    pub fn open(url: &str) -> Result<Self, Error> {
        Self::open_with(url, &BTreeMap::new())
    }

    /// As [`ArtifactStore::open`], with options (`endpoint`, `region`, ...) that win over the others.
    ///
    /// # Errors
    /// As [`ArtifactStore::open`]; an option that is not known is [`Error::Url`].
    pub fn open_with(url: &str, options: &BTreeMap<String, String>) -> Result<Self, Error> {
        let open::Opened { store, prefix, url } = open::open(url, options)?;
        Ok(Self { store, prefix, url })
    }

    /// A store over an object store that exists already; `url` is what its artifacts' URIs begin with.
    pub fn with_store(store: Arc<dyn ObjectStore>, url: impl Into<String>) -> Self {
        let url: String = url.into();
        Self { store, prefix: ObjectPath::default(), url: url.trim_end_matches('/').to_owned() }
    }

    /// Where the store begins, without options and without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URI of the artifact of a key.
    ///
    /// # Errors
    /// [`Error::Key`] when the key is not safe.
    pub fn uri(&self, key: &str) -> Result<String, Error> {
        key::check_key(key)?;
        Ok(format!("{}/{key}", self.url))
    }

    /// The key of an artifact of this store.
    ///
    /// # Errors
    /// [`Error::Url`] when the URI belongs to another store, [`Error::Key`] when its key is not safe.
    pub fn key_of<'a>(&self, uri: &'a str) -> Result<&'a str, Error> {
        let key = uri.strip_prefix(self.url.as_str()).and_then(|rest| rest.strip_prefix('/'));
        let key = key.ok_or_else(|| Error::Url { url: uri.into(), reason: format!("is not below {}", self.url) })?;
        let key = key.trim_end_matches('/');
        key::check_key(key)?;
        Ok(key)
    }

    /// Whether the text is the URI of something in this store.
    pub fn owns(&self, uri: &str) -> bool {
        self.key_of(uri).is_ok()
    }

    /// Reads the manifest of an artifact.
    ///
    /// # Errors
    /// [`Error::NotFound`] when nothing was committed there, [`Error::Corrupt`] when the manifest breaks a rule.
    pub async fn read_manifest(&self, uri: &str) -> Result<Manifest, Error> {
        let path = key::object(&self.prefix, &[self.key_of(uri)?, MANIFEST]);
        let fail = |source| match source {
            object_store::Error::NotFound { .. } => Error::NotFound { uri: uri.to_owned() },
            source => Error::store(format!("reading the manifest of {uri}"), source),
        };
        let result = self.store.get(&path).await.map_err(fail)?;
        if result.meta.size > MANIFEST_LIMIT {
            let problem = format!("{} bytes are more than the {MANIFEST_LIMIT} that are read", result.meta.size);
            return Err(Error::Corrupt { uri: uri.to_owned(), path: MANIFEST.into(), problem });
        }
        Manifest::parse(uri, &result.bytes().await.map_err(fail)?)
    }

    /// What is known of an artifact without reading its files.
    ///
    /// # Errors
    /// As [`ArtifactStore::read_manifest`].
    pub async fn describe(&self, uri: &str) -> Result<PublishedArtifact, Error> {
        let key = self.key_of(uri)?;
        Ok(PublishedArtifact::new(self.uri(key)?, &self.read_manifest(uri).await?))
    }

    /// The artifacts whose keys are `prefix` or below it, in order of their keys; all for an empty prefix.
    ///
    /// # Errors
    /// [`Error::Key`] for an unsafe prefix, [`Error::Store`] when the store fails.
    pub async fn list(&self, prefix: &str) -> Result<Vec<PublishedArtifact>, Error> {
        let below = match prefix.trim_end_matches('/') {
            "" => self.prefix.clone(),
            prefix => {
                key::check_key(prefix)?;
                key::object(&self.prefix, &[prefix])
            }
        };
        let suffix = format!("/{MANIFEST}");
        let content = format!("/{}", key::CONTENT);
        let fail = |source| Error::store(format!("listing {}", self.url), source);
        let mut keys: Vec<String> = self
            .store
            .list(Some(&below))
            .map_err(fail)
            .try_filter_map(|meta| {
                let below_root = meta.location.prefix_match(&self.prefix).map(|parts| {
                    let parts: Vec<_> = parts.collect();
                    parts.iter().map(|part| decode(part.as_ref())).collect::<Vec<_>>().join("/")
                });
                let key = below_root.and_then(|path| path.strip_suffix(&suffix).map(str::to_owned));
                ready(Ok(key.filter(|key| !format!("/{key}").contains(&content))))
            })
            .try_collect()
            .await?;
        keys.sort();
        let describe = |key: String| async move { self.describe(&format!("{}/{key}", self.url)).await };
        futures::stream::iter(keys).map(describe).buffered(CONCURRENCY).try_collect().await
    }

    /// Deletes an artifact: its manifest first, so that it is never seen incomplete.
    ///
    /// # Errors
    /// [`Error::Store`] when the store fails; that there is none is fine.
    pub async fn delete(&self, uri: &str) -> Result<(), Error> {
        let key = self.key_of(uri)?;
        let fail = |source| Error::store(format!("deleting {uri}"), source);
        match self.store.delete(&key::object(&self.prefix, &[key, MANIFEST])).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(source) => return Err(fail(source)),
        }
        let root = key::object(&self.prefix, &[key]);
        let content = self.store.list(Some(&root)).map_ok(|meta| meta.location);
        // Other artifacts may have keys below this one.
        let own = content.try_filter(move |path| {
            let first =
                path.prefix_match(&root).and_then(|mut parts| parts.next().map(|part| part.as_ref().to_owned()));
            ready(first.is_some_and(|part| part.starts_with(key::CONTENT)))
        });
        self.store.delete_stream(own.boxed()).try_for_each(|_| ready(Ok(()))).await.map_err(fail)
    }

    /// Where the files of an artifact are.
    fn content(&self, key: &str, digest: &str) -> ObjectPath {
        let folder = format!("{}{}", key::CONTENT, &digest[..16.min(digest.len())]);
        key::object(&self.prefix, &[key, &folder])
    }
}

/// Undoes the percent-encoding of object paths.
fn decode(path: &str) -> String {
    percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned()
}
