//! Artifacts as MLflow clients see them: loose files that they put, and the published outputs of jobs, by the same paths.

pub(crate) mod path;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, future::BoxFuture};
use runtime_core::artifacts::{ArtifactStore, ByteStream, Error as StoreError, Listing};
use serde::Serialize;

use crate::error::Error;

/// A file or folder in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileInfo {
    /// Its name, or its path from the root that was asked for.
    pub path: String,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// Bytes; absent for folders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size: Option<u64>,
}

/// Why the body of an upload was not taken to its end.
#[derive(Clone, Debug, thiserror::Error)]
enum BodyError {
    #[error("the body is larger than the limit")]
    TooLarge,
    #[error("{0}")]
    Closed(String),
}

/// A file in the published output of a job.
struct Published {
    uri: String,
    /// The path inside the output; empty for its root.
    inner: String,
}

/// A handle on the artifact store; clones share it.
#[derive(Clone, Debug)]
pub struct Artifacts {
    store: ArtifactStore,
    limit: u64,
}

fn as_folder(error: StoreError) -> Result<Listing, Error> {
    match error {
        StoreError::NotFound { .. } => Ok(Listing::default()),
        error => Err(error.into()),
    }
}

impl Artifacts {
    /// Serves the store; `limit` is the size in bytes that one file may have.
    pub fn new(store: ArtifactStore, limit: u64) -> Self {
        Self { store, limit }
    }

    /// The published output that a key leads into, if any.
    async fn published(&self, key: &str) -> Result<Option<Published>, Error> {
        if !path::below_jobs(key) {
            return Ok(None);
        }
        // Outputs lie below `jobs/<uid>/`.
        for (end, _) in key.match_indices('/').skip(2).chain([(key.len(), "")]) {
            let (folder, inner) = (&key[..end], key[end..].trim_start_matches('/'));
            let uri = self.store.uri(folder)?;
            match self.store.read_manifest(&uri).await {
                Ok(_) => return Ok(Some(Published { uri, inner: path::shown(inner) })),
                Err(StoreError::NotFound { .. }) => {}
                // Below a loose file there is no manifest, which a file system calls an error.
                Err(_) if self.is_file(folder).await => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Stores a body under a path; readers see the whole of it or nothing.
    ///
    /// # Errors
    /// A bad path, a body over the limit or one that ends early; a path that belongs to a published output of a job.
    pub async fn put<S, E>(&self, path: &str, body: S) -> Result<(), Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: StdError + Send,
    {
        let key = path::file_key(path)?;
        if self.published(&key).await?.is_some() {
            return Err(Error::Published(path.to_owned()));
        }
        let (mut size, limit) = (0u64, self.limit);
        let body = body.map(move |chunk| {
            let chunk = chunk.map_err(|error| BodyError::Closed(error.to_string()))?;
            size += chunk.len() as u64;
            if size > limit { Err(BodyError::TooLarge) } else { Ok(chunk) }
        });
        match self.store.write_object(&key, body).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(error, path, &key).await),
        }
    }

    /// A failure to store that comes from the body or the path is the caller's to mend.
    async fn explain(&self, error: StoreError, path: &str, key: &str) -> Error {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
        while let Some(found) = cause {
            match found.downcast_ref::<BodyError>() {
                Some(BodyError::TooLarge) => {
                    return Error::TooLarge { what: format!("artifact `{path}`"), limit: self.limit };
                }
                Some(BodyError::Closed(reason)) => return Error::Body(reason.clone()),
                None => cause = found.source(),
            }
        }
        if self.has_children(key).await {
            return Error::invalid("path", format!("`{path}` is a folder"));
        }
        for (end, _) in key.match_indices('/') {
            if self.is_file(&key[..end]).await {
                let file = path::shown(&key[..end]);
                return Error::invalid("path", format!("`{path}` lies below `{file}`, which is a file"));
            }
        }
        error.into()
    }

    async fn has_children(&self, key: &str) -> bool {
        let listing = self.store.list_objects(key).await.unwrap_or_default();
        !listing.folders.is_empty() || !listing.files.is_empty()
    }

    async fn is_file(&self, key: &str) -> bool {
        self.store.read_object(key).await.is_ok()
    }

    /// Opens a file for reading: its size in bytes and its content.
    ///
    /// # Errors
    /// A bad path; there is no such file; it is a folder.
    pub async fn get(&self, path: &str) -> Result<(u64, ByteStream), Error> {
        let key = path::file_key(path)?;
        let found = match self.published(&key).await? {
            Some(output) => self.store.read_file(&output.uri, &output.inner).await,
            None => self.store.read_object(&key).await,
        };
        match found {
            Ok(file) => Ok(file),
            Err(_) if !self.list(path).await.unwrap_or_default().is_empty() => {
                Err(Error::invalid("path", format!("`{path}` is a folder")))
            }
            Err(StoreError::NotFound { .. } | StoreError::NoSuchFile { .. }) => Err(Error::not_found("artifact", path)),
            Err(error) => Err(error.into()),
        }
    }

    /// What lies directly in a folder, sorted by name; empty for a file and for what does not exist.
    ///
    /// # Errors
    /// A bad path.
    pub async fn list(&self, path: &str) -> Result<Vec<FileInfo>, Error> {
        let key = path::key(path)?;
        let (listing, plain) = match self.published(&key).await? {
            Some(output) => (self.store.list_files(&output.uri, &output.inner).await?, true),
            None => match self.store.list_objects(&key).await {
                Ok(listing) => (listing, false),
                // The path of a file is no folder, which some stores call an error.
                Err(_) if self.is_file(&key).await => return Ok(Vec::new()),
                Err(error) => (as_folder(error)?, false),
            },
        };
        // Loose files are shown by the names that their clients gave them.
        let name = |name: String| if plain { name } else { path::shown(&name) };
        let folders = listing.folders.into_iter();
        let mut files: Vec<FileInfo> =
            folders.map(|folder| FileInfo { path: name(folder), is_dir: true, file_size: None }).collect();
        files.extend(listing.files.into_iter().filter(|file| !file.path.is_empty()).map(|file| FileInfo {
            path: name(file.path),
            is_dir: false,
            file_size: Some(file.size),
        }));
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// Removes a file, or a folder with all that it holds; what does not exist is removed already.
    ///
    /// # Errors
    /// A bad path; a path that belongs to, or holds, a published output of a job.
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        let trimmed = path.trim_end_matches('/');
        if trimmed.is_empty() {
            return Err(Error::invalid("path", "is empty"));
        }
        let key = path::key(trimmed)?;
        if self.published(&key).await?.is_some() {
            return Err(Error::Published(trimmed.to_owned()));
        }
        let mut files = vec![key.clone()];
        self.collect(&key, trimmed, &mut files).await?;
        for file in files {
            match self.store.delete_object(&file).await {
                // The folder itself, on a file system.
                Err(_) if file == key && !self.is_file(&key).await => {}
                deleted => deleted?,
            }
        }
        Ok(())
    }

    /// Adds the keys of all loose files below a folder; an output among them is an error.
    fn collect<'a>(
        &'a self,
        folder: &'a str,
        asked: &'a str,
        files: &'a mut Vec<String>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let listing = match self.store.list_objects(folder).await {
                Ok(listing) => listing,
                Err(_) if self.is_file(folder).await => return Ok(()),
                Err(error) => as_folder(error)?,
            };
            for name in listing.folders {
                if name.starts_with('@') {
                    return Err(Error::Published(asked.to_owned()));
                }
                self.collect(&format!("{folder}/{name}"), asked, files).await?;
            }
            files.extend(listing.files.into_iter().map(|file| format!("{folder}/{}", file.path)));
            Ok(())
        })
    }
}
