//! One file into the cache: under a lock, from where an earlier download ended, compared with its tag, and then named.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    sync::Arc,
};

use reqwest::{Response, StatusCode, header::CONTENT_RANGE};

use crate::{
    Error, Repo,
    cache::{Cache, Lock, make_parent, rename},
    client::{Client, Metadata, Trouble},
    digest::Hasher,
};

/// How often a server that does not continue a file may begin it anew.
const RESTARTS: u32 = 3;
/// Bytes that are hashed at a time of what is there already.
const BUFFER: usize = 1 << 20;

/// Brings the content of a file under its tag's name; `done` hears how many bytes are there.
pub(crate) async fn bring(
    client: &Client,
    cache: &Cache,
    repo: &Repo,
    file: &str,
    metadata: &Metadata,
    done: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), Error> {
    let blob = cache.blob(&metadata.etag);
    if is_whole(&blob, metadata.size) {
        done(metadata.size);
        return Ok(());
    }
    make_parent(&blob)?;
    // Work that goes on in a thread when this is dropped holds the lock too: nobody else touches the file before it is done.
    let lock = Arc::new(cache.lock(&metadata.etag).await?);
    if is_whole(&blob, metadata.size) {
        done(metadata.size);
        return Ok(());
    }
    let incomplete = cache.incomplete(&metadata.etag);
    let mut problem = String::new();
    // What was there may be damaged, and a bad copy may have been given once; what comes damaged again stays so.
    for _ in 0..2 {
        let mut download = Download::open(&incomplete, metadata, lock.clone()).await?;
        done(download.position);
        match download.run(client, repo, file, metadata, done).await? {
            Ok(()) => return finish(download.file, &incomplete, &blob, lock).await,
            Err(damage) => {
                tracing::warn!(file, %repo, damage, "a downloaded file is damaged and is removed");
                fs::remove_file(&incomplete).map_err(|error| Error::io(&incomplete, error))?;
                problem = damage;
            }
        }
    }
    Err(Error::Corrupt { repo: repo.to_string(), file: file.to_owned(), problem })
}

fn is_whole(blob: &Path, size: u64) -> bool {
    fs::metadata(blob).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}

/// Syncs a file and gives it its name.
async fn finish(file: File, from: &Path, to: &Path, lock: Arc<Lock>) -> Result<(), Error> {
    let (from, to) = (from.to_owned(), to.to_owned());
    blocking(lock, move || {
        file.sync_all().map_err(|error| Error::io(&from, error))?;
        rename(&from, &to)?;
        let folder = to.parent().unwrap_or(&to);
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| Error::io(folder, error))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    lock: Arc<Lock>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(lock);
        done
    });
    done.await.unwrap_or_else(|error| {
        Err(Error::Io { path: Path::new("cache").to_owned(), source: std::io::Error::other(error.to_string()) })
    })
}

/// A file that is being written.
struct Download {
    path: std::path::PathBuf,
    file: File,
    hasher: Hasher,
    /// Bytes that are written and hashed.
    position: u64,
}

impl Download {
    /// Opens what an earlier download left, and hashes it.
    async fn open(path: &Path, metadata: &Metadata, lock: Arc<Lock>) -> Result<Self, Error> {
        let (path, hasher, size) = (path.to_owned(), Hasher::new(&metadata.etag, metadata.size), metadata.size);
        blocking(lock, move || {
            let fail = |error| Error::io(&path, error);
            let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
            let mut file = file.map_err(fail)?;
            if file.metadata().map_err(fail)?.len() > size {
                file.set_len(0).map_err(fail)?;
            }
            let (mut hasher, mut position, mut buffer) = (hasher, 0, vec![0; BUFFER]);
            loop {
                match file.read(&mut buffer).map_err(fail)? {
                    0 => break,
                    read => {
                        hasher.update(buffer.get(..read).unwrap_or_default());
                        position += read as u64;
                    }
                }
            }
            Ok(Self { path, file, hasher, position })
        })
        .await
    }

    /// Writes what is missing. The inner error says how the content differs from what was announced.
    async fn run(
        &mut self,
        client: &Client,
        repo: &Repo,
        file: &str,
        metadata: &Metadata,
        done: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Result<(), String>, Error> {
        let mut tries = client.tries();
        let mut restarts = 0;
        while self.position < metadata.size {
            let mut response = match client.content(repo, file, self.position).await? {
                Ok(response) => response,
                Err(trouble) => {
                    tries.after(trouble).await?;
                    continue;
                }
            };
            if self.position > 0 && !continues(&response, self.position) {
                restarts += 1;
                if restarts > RESTARTS {
                    let trouble = Trouble::short(&response, self.position, metadata.size);
                    return Ok(Err(format!("{trouble}, and the server does not continue it")));
                }
                self.restart(metadata)?;
                if response.status() != StatusCode::OK {
                    continue;
                }
            }
            let trouble = loop {
                match client.piece(&mut response).await {
                    Err(trouble) => break trouble,
                    Ok(None) => break Trouble::short(&response, self.position, metadata.size),
                    Ok(Some(piece)) => {
                        self.position += piece.len() as u64;
                        if self.position > metadata.size {
                            return Ok(Err(format!("it is longer than the {} bytes announced", metadata.size)));
                        }
                        self.file.write_all(&piece).map_err(|error| Error::io(&self.path, error))?;
                        self.hasher.update(&piece);
                        tries.reset();
                        done(self.position);
                    }
                }
            };
            if self.position < metadata.size {
                tries.after(trouble).await?;
            }
        }
        Ok(std::mem::replace(&mut self.hasher, Hasher::None).check(&metadata.etag))
    }

    fn restart(&mut self, metadata: &Metadata) -> Result<(), Error> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|error| Error::io(&self.path, error))?;
        self.hasher = Hasher::new(&metadata.etag, metadata.size);
        self.position = 0;
        Ok(())
    }
}

/// Whether an answer is the rest of a file from a byte on.
fn continues(response: &Response, from: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.trim().starts_with(&format!("bytes {from}-")))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_lock_outlives_the_download_that_was_given_up() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path(), &"org/name".parse().unwrap());
        let lock = Arc::new(cache.lock("tag").await.unwrap());
        let (begun, begins) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let mut work = Box::pin(blocking(lock, move || {
            begun.send(()).unwrap();
            goes_on.recv().unwrap();
            Ok(())
        }));
        assert!(futures::poll!(&mut work).is_pending());
        begins.recv().unwrap();
        drop(work);
        let mut second = Box::pin(cache.lock("tag"));
        assert!(futures::poll!(&mut second).is_pending(), "the file is still worked on");
        go_on.send(()).unwrap();
        second.await.unwrap();
    }
}
