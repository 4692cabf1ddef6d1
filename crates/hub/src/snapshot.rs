//! From the name of a repository to a folder with its checkpoint.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{StreamExt as _, TryStreamExt as _};

use crate::{
    Error, Repo, Settings,
    cache::Cache,
    client::{Client, Info, Metadata},
    download,
    repo::is_commit,
    select::{INDEX, needed, shards},
};

/// Files that are asked for or brought at a time.
const CONCURRENCY: usize = 4;

/// A Hub with its cache. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hub(Arc<Client>);

/// Where an answer comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The Hub was asked.
    Hub,
    /// The revision is a commit that is whole in the cache, or only the cache may be asked.
    Cache,
    /// The Hub could not be asked, for this reason: what the cache knows of a branch or tag may be old.
    Stale(String),
}

/// The commit of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The repository at that commit.
    pub pinned: Repo,
    /// Where it is known from.
    pub origin: Origin,
}

/// A checkpoint's files in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder.
    pub path: PathBuf,
    /// As it was asked for.
    pub asked: Repo,
    /// The repository at the commit whose files these are.
    pub pinned: Repo,
    /// Their names, those that training needs first.
    pub files: Vec<String>,
    /// Where the commit is known from.
    pub origin: Origin,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are there, those of earlier downloads included.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

impl Hub {
    /// The Hub of this process' environment.
    ///
    /// # Errors
    /// As [`Settings::from_env`].
    pub fn from_env() -> Result<Self, Error> {
        Self::new(Settings::from_env()?)
    }

    /// The Hub of these settings.
    ///
    /// # Errors
    /// [`Error::Settings`] when the system gives no HTTP client.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        Client::new(settings).map(|client| Self(Arc::new(client)))
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Finds the commit of a repository's revision, and checks that the repository holds what training needs.
    ///
    /// A commit that is whole in the cache needs no network. When the Hub cannot be reached, what the cache knows is the answer.
    ///
    /// # Errors
    /// Those of [`Error`] but the disk's.
    pub async fn resolve(&self, repo: &Repo) -> Result<Resolved, Error> {
        match self.look(repo).await? {
            Found::There(snapshot) => Ok(Resolved { pinned: snapshot.pinned, origin: snapshot.origin }),
            Found::Listed(pinned, _, _) => Ok(Resolved { pinned, origin: Origin::Hub }),
        }
    }

    /// Brings the files that training needs into the cache, as far as they are not there; `progress` hears of every piece.
    ///
    /// A file appears whole and compared with its tag or not at all, and an interrupted one is continued, also one that Python
    /// began. Several processes may do the same at once.
    ///
    /// # Errors
    /// Those of [`Error`].
    pub async fn snapshot(&self, repo: &Repo, progress: &(dyn Fn(Progress) + Send + Sync)) -> Result<Snapshot, Error> {
        let (pinned, info, first) = match self.look(repo).await? {
            Found::There(snapshot) => return Ok(snapshot),
            Found::Listed(pinned, info, first) => (pinned, info, first),
        };
        let cache = self.cache(repo);
        let path = cache.snapshot(pinned.revision());
        let mut files: Vec<String> = first.into_iter().map(str::to_owned).collect();
        if files.iter().any(|file| file == INDEX) {
            let index = self.describe(&cache, &pinned, &[INDEX.to_owned()]).await?;
            self.bring(&cache, &pinned, &index, &|_| {}).await?;
            files.extend(read_shards(&path, &pinned, &info.files())?);
        }
        let missing = self.describe(&cache, &pinned, &files).await?;
        self.bring(&cache, &pinned, &missing, progress).await?;
        cache.write_ref(repo.revision(), pinned.revision())?;
        Ok(Snapshot { path, asked: repo.clone(), pinned, files, origin: Origin::Hub })
    }

    /// What the cache has of a repository at its revision, without the network.
    ///
    /// # Errors
    /// [`Error::NotCached`] says what is missing, [`Error::Unusable`] that it is not what training needs.
    pub fn cached(&self, repo: &Repo) -> Result<Snapshot, Error> {
        let cache = self.cache(repo);
        let missing = |problem: String| Error::NotCached {
            repo: repo.to_string(),
            cache: self.settings().cache.clone(),
            problem,
        };
        let commit = match repo.is_pinned() {
            true => repo.revision().to_owned(),
            false => {
                cache.read_ref(repo.revision()).ok_or_else(|| missing("the revision was never asked for".into()))?
            }
        };
        let path = cache.snapshot(&commit);
        let names = fs::read_dir(&path).map_err(|_| missing(format!("there is no snapshot of {commit}")))?;
        // A link to a blob that is gone is no file.
        let whole = names.filter_map(Result::ok).filter(|entry| fs::metadata(entry.path()).is_ok());
        let names: Vec<String> = whole.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let chosen = needed(&names, repo.id()).map_err(&missing)?;
        let mut files: Vec<String> = chosen.into_iter().map(str::to_owned).collect();
        let pinned = repo.at(&commit)?;
        if files.iter().any(|file| file == INDEX) {
            files.extend(read_shards(&path, &pinned, &names).map_err(|error| missing(error.to_string()))?);
        }
        Ok(Snapshot { path, asked: repo.clone(), pinned, files, origin: Origin::Cache })
    }

    fn cache(&self, repo: &Repo) -> Cache {
        Cache::new(&self.settings().cache, repo)
    }

    async fn look(&self, repo: &Repo) -> Result<Found, Error> {
        let cached = self.cached(repo);
        if self.settings().offline || (repo.is_pinned() && cached.is_ok()) {
            return cached.map(Found::There);
        }
        match self.0.info(repo).await {
            Ok(info) if !is_commit(&info.sha) => Err(Error::Protocol {
                url: self.settings().shown_endpoint().to_owned(),
                problem: format!("`{repo}` has no commit in its answer"),
            }),
            Ok(info) => {
                let pinned = repo.at(&info.sha)?;
                let unusable = |problem| Error::Unusable { repo: repo.to_string(), problem };
                let first = needed(&info.files(), repo.id()).map_err(unusable)?;
                Ok(Found::Listed(pinned, info, first))
            }
            Err(error) if error.is_unreachable() => match cached {
                Ok(snapshot) => {
                    tracing::warn!(%repo, commit = snapshot.pinned.revision(), %error, "the cache is used as it is");
                    Ok(Found::There(Snapshot { origin: Origin::Stale(error.to_string()), ..snapshot }))
                }
                Err(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Tags and sizes of the files that the snapshot does not have.
    async fn describe(&self, cache: &Cache, pinned: &Repo, files: &[String]) -> Result<Vec<(String, Metadata)>, Error> {
        let folder = cache.snapshot(pinned.revision());
        let missing = files.iter().filter(|file| fs::metadata(folder.join(file)).is_err()).cloned();
        let asked = missing.map(|file| async move {
            let metadata = self.0.metadata(pinned, &file).await?;
            Ok::<_, Error>((file, metadata))
        });
        let asked: Vec<_> = asked.collect();
        futures::stream::iter(asked).buffered(CONCURRENCY).try_collect().await
    }

    async fn bring(
        &self,
        cache: &Cache,
        pinned: &Repo,
        files: &[(String, Metadata)],
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Error> {
        let total = files.iter().map(|(_, metadata)| metadata.size).sum();
        let parts: Vec<AtomicU64> = files.iter().map(|_| AtomicU64::new(0)).collect();
        let parts = &parts;
        let brought = files.iter().enumerate().map(|(index, (file, metadata))| async move {
            let done = |bytes: u64| {
                if let Some(part) = parts.get(index) {
                    part.store(bytes, Ordering::Relaxed);
                }
                progress(Progress { done: parts.iter().map(|part| part.load(Ordering::Relaxed)).sum(), total });
            };
            download::bring(&self.0, cache, pinned, file, metadata, &done).await?;
            cache.link(pinned.revision(), file, &metadata.etag)
        });
        let brought: Vec<_> = brought.collect();
        futures::stream::iter(brought).buffer_unordered(CONCURRENCY).try_collect().await
    }
}

enum Found {
    /// In the cache, whole.
    There(Snapshot),
    /// On the Hub: the commit, its files, and those to bring first.
    Listed(Repo, Info, Vec<&'static str>),
}

/// The shards of the index in a folder; each must be among `files`.
fn read_shards(folder: &Path, pinned: &Repo, files: &[String]) -> Result<Vec<String>, Error> {
    let path = folder.join(INDEX);
    let index = fs::read(&path).map_err(|error| Error::io(&path, error))?;
    let unusable = |problem| Error::Unusable { repo: pinned.to_string(), problem };
    let names = shards(&index).map_err(unusable)?;
    match names.iter().find(|name| !files.contains(name)) {
        Some(name) => Err(unusable(format!("lacks the shard {name} that {INDEX} names"))),
        None => Ok(names),
    }
}
