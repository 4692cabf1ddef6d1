//! One contract for every kind of store, and what only the local one can show.
mod contract;
mod full_disk;
mod local;
mod moto;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A folder with some files; a path ending in `/` makes a folder.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), files);
    root
}

fn fill(root: &Path, files: &[(&str, &[u8])]) {
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// The files below a folder with their content, in order.
fn read(root: &Path) -> Vec<(String, Vec<u8>)> {
    let files = walkdir::WalkDir::new(root).sort_by_file_name().into_iter().map(Result::unwrap);
    files
        .filter(|item| item.file_type().is_file())
        .map(|item| (item.path().strip_prefix(root).unwrap().display().to_string(), fs::read(item.path()).unwrap()))
        .collect()
}

/// The only file below `root` whose path ends so.
fn find(root: &Path, end: &str) -> PathBuf {
    let mut found = walkdir::WalkDir::new(root)
        .into_iter()
        .map(|item| item.unwrap().into_path())
        .filter(|path| path.ends_with(end));
    let path = found.next().unwrap();
    assert!(found.next().is_none());
    path
}

/// Bytes without a pattern that a compressor or a mixed-up part could hide behind.
fn noise(length: usize) -> Vec<u8> {
    use rand::{RngExt as _, SeedableRng as _};
    let mut rng = rand::rngs::SmallRng::seed_from_u64(length as u64);
    let mut bytes = vec![0; length];
    rng.fill(&mut bytes[..]);
    bytes
}
