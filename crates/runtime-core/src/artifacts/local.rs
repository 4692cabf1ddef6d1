//! Local files and folders: which belong to an artifact, and their digests, remembered by path, size and time.
use std::{
    collections::HashMap,
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use walkdir::WalkDir;

use super::{Entry, Error, Kind, Manifest, key};
use crate::hashing;

/// A file that changed this recently may change again within the same tick of its clock, so its digest is not remembered.
const SETTLED: Duration = Duration::from_secs(2);

/// What to do with a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// Follow it anywhere: reading an input where it lies (a Hugging Face cache is made of links).
    Follow,
    /// Follow it inside the folder, refuse one that leads out: publishing must not leak what lies elsewhere.
    Inside,
}

/// A file or folder on this machine, with its manifest.
#[derive(Debug, Clone)]
pub(super) struct Local {
    pub(super) manifest: Manifest,
    /// The file of each entry, in the same order.
    pub(super) paths: Vec<PathBuf>,
}

/// The digest of a local file or folder, the same as that of the artifact that publishing it makes. Blocks; digests of files
/// that have not changed since are remembered for the life of the process.
///
/// # Errors
/// When it does not exist, is empty, or holds something that is neither file nor folder.
pub fn digest_path(path: &Path) -> Result<String, Error> {
    Ok(read(path, Links::Follow)?.manifest.digest())
}

/// Lists and hashes a file or folder. Blocks.
pub(super) fn read(root: &Path, links: Links) -> Result<Local, Error> {
    let metadata = fs::metadata(root).map_err(|source| Error::io(root, source))?;
    if metadata.is_file() {
        let name = root.file_name().ok_or_else(|| unsuitable(root, "has no name"))?;
        let entry = entry(root, name.to_str().ok_or_else(|| unsuitable(root, "its name is not UTF-8"))?)?;
        return Ok(Local { manifest: Manifest::new(Kind::File, vec![entry]), paths: vec![root.to_owned()] });
    }
    if !metadata.is_dir() {
        return Err(unsuitable(root, "is neither a file nor a folder"));
    }
    let real_root = fs::canonicalize(root).map_err(|source| Error::io(root, source))?;
    let mut found = Vec::new();
    for item in WalkDir::new(root).follow_links(true) {
        let item = item.map_err(|error| walk_error(root, error))?;
        let path = item.path();
        if links == Links::Inside && item.path_is_symlink() && item.depth() > 0 {
            let target = fs::canonicalize(path).map_err(|source| Error::io(path, source))?;
            if !target.starts_with(&real_root) {
                return Err(unsuitable(
                    path,
                    format!("is a link that leads out of the folder, to {}", target.display()),
                ));
            }
        }
        if item.file_type().is_dir() {
            continue;
        }
        if !item.file_type().is_file() {
            return Err(unsuitable(path, "is neither a file nor a folder"));
        }
        let relative = path.strip_prefix(root).unwrap_or(path);
        let relative = relative.to_str().ok_or_else(|| unsuitable(path, "its name is not UTF-8"))?;
        found.push((entry(path, relative)?, path.to_owned()));
    }
    if found.is_empty() {
        return Err(unsuitable(root, "the folder holds no file"));
    }
    found.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    let (entries, paths) = found.into_iter().unzip();
    Ok(Local { manifest: Manifest::new(Kind::Folder, entries), paths })
}

fn entry(path: &Path, relative: &str) -> Result<Entry, Error> {
    key::check_relative(relative)?;
    let (sha256, size) = digest_file(path)?;
    Ok(Entry { path: relative.to_owned(), sha256, size })
}

/// What tells that a file is the same one with the same content.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

static KNOWN: LazyLock<Mutex<HashMap<PathBuf, (Stamp, String)>>> = LazyLock::new(Mutex::default);

/// SHA-256 and size of a file, remembered while the file stays as it is.
fn digest_file(path: &Path) -> Result<(String, u64), Error> {
    let fail = |source| Error::io(path, source);
    let file = fs::File::open(path).map_err(fail)?;
    let before = file.metadata().map_err(fail)?;
    let stamp = Stamp::of(&before);
    {
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, sha256)) = known.get(path).filter(|(known, _)| *known == stamp) {
            return Ok((sha256.clone(), stamp.size));
        }
    }
    let (sha256, size) = hashing::sha256_reader(&file).map_err(fail)?;
    let after = Stamp::of(&file.metadata().map_err(fail)?);
    if after != stamp || size != stamp.size {
        return Err(unsuitable(path, "changed while it was read"));
    }
    let settled = before
        .modified()
        .ok()
        .and_then(|modified| SystemTime::now().duration_since(modified).ok())
        .is_some_and(|age| age > SETTLED);
    if settled {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(path.to_owned(), (stamp, sha256.clone()));
    }
    Ok((sha256, size))
}

pub(super) fn unsuitable(path: &Path, reason: impl Into<String>) -> Error {
    Error::Unsuitable { path: path.to_owned(), reason: reason.into() }
}

fn walk_error(root: &Path, error: walkdir::Error) -> Error {
    let path = error.path().unwrap_or(root).to_owned();
    match error.loop_ancestor() {
        Some(ancestor) => unsuitable(&path, format!("is a link in a circle, to {}", ancestor.display())),
        None => {
            let text = error.to_string();
            let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other(text));
            Error::io(&path, source)
        }
    }
}
