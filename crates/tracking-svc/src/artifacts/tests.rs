//! The artifact store on a real folder.

use std::{convert::Infallible, io};

use futures::stream;

use super::*;

fn open(limit: u64) -> (tempfile::TempDir, ArtifactStore, Artifacts) {
    let folder = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(&folder.path().display().to_string()).unwrap();
    (folder, store.clone(), Artifacts::new(store, limit))
}

fn body(parts: &[&[u8]]) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + use<> {
    stream::iter(parts.iter().map(|part| Ok(Bytes::copy_from_slice(part))).collect::<Vec<_>>())
}

async fn content(artifacts: &Artifacts, path: &str) -> Vec<u8> {
    let (size, mut content) = artifacts.get(path).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = content.next().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(bytes.len() as u64, size);
    bytes
}

fn names(files: Vec<FileInfo>) -> Vec<(String, Option<u64>)> {
    files.into_iter().map(|f| (f.path, f.file_size)).collect()
}

#[tokio::test]
async fn stores_lists_reads_and_removes() {
    let (folder, _, artifacts) = open(1 << 30);
    artifacts.put("1/r/artifacts/a.txt", body(&[b"ab", b"c"])).await.unwrap();
    artifacts.put("1/r/artifacts/sub/ü #1%20.bin", body(&[])).await.unwrap();
    artifacts.put("1/r/artifacts/sub/@types/manifest.json", body(&[b"{}"])).await.unwrap();
    // More than one part.
    let large: Vec<u8> = (0..(17 << 20) + 77).map(|i| (i % 251) as u8).collect();
    let pieces: Vec<&[u8]> = large.chunks(1_000_000).collect();
    artifacts.put("1/r/artifacts/large", body(&pieces)).await.unwrap();
    assert_eq!(content(&artifacts, "1/r/artifacts/a.txt").await, b"abc");
    assert_eq!(content(&artifacts, "1/r/artifacts/sub/ü #1%20.bin").await, b"");
    assert!(content(&artifacts, "1/r/artifacts/large").await == large);
    assert!(folder.path().join("mlflow/1/r/artifacts/a.txt").is_file());
    assert_eq!(
        names(artifacts.list("1/r/artifacts").await.unwrap()),
        [("a.txt".into(), Some(3)), ("large".into(), Some(large.len() as u64)), ("sub".into(), None)]
    );
    assert_eq!(
        names(artifacts.list("1/r/artifacts/sub/").await.unwrap()),
        [("@types".into(), None), ("ü #1%20.bin".into(), Some(0))]
    );
    assert_eq!(names(artifacts.list("1/r/artifacts/sub/@types").await.unwrap()), [("manifest.json".into(), Some(2))]);
    assert_eq!(content(&artifacts, "1/r/artifacts/sub/@types/manifest.json").await, b"{}");
    assert_eq!(artifacts.list("1/r/artifacts/a.txt").await.unwrap(), []);
    assert_eq!(artifacts.list("1/none").await.unwrap(), []);
    artifacts.put("1/r/artifacts/a.txt", body(&[b"new"])).await.unwrap();
    assert_eq!(content(&artifacts, "1/r/artifacts/a.txt").await, b"new");
    artifacts.delete("1/r/artifacts/a.txt").await.unwrap();
    artifacts.delete("1/r/artifacts/a.txt").await.unwrap();
    artifacts.delete("1/r").await.unwrap();
    assert!(matches!(artifacts.get("1/r/artifacts/large").await, Err(Error::NotFound { .. })));
    assert_eq!(walk(folder.path()), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn nothing_stays_of_an_upload_that_fails() {
    let (folder, _, artifacts) = open(24 << 20);
    let chunk = vec![7u8; 1 << 20];
    let closed = || Err::<Bytes, _>(io::Error::other("closed"));
    let broken = stream::iter((0..12).map(|i| if i < 11 { Ok(Bytes::from(chunk.clone())) } else { closed() }));
    assert!(matches!(artifacts.put("1/broken", broken).await, Err(Error::Body(_))));
    let endless = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from(chunk.clone())));
    assert!(matches!(artifacts.put("1/endless", endless).await, Err(Error::TooLarge { .. })));
    assert!(matches!(artifacts.put("1/short", stream::iter([closed()])).await, Err(Error::Body(_))));
    assert_eq!(walk(folder.path()), Vec::<std::path::PathBuf>::new());
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn files_and_folders_are_not_mixed_up() {
    let (_folder, _, artifacts) = open(1 << 20);
    artifacts.put("1/a/b", body(&[b"x"])).await.unwrap();
    for result in [
        artifacts.get("1/a").await.err(),
        artifacts.get("1/a/").await.err(),
        artifacts.get("1/../1/a/b").await.err(),
        artifacts.put("1/a", body(&[b"x"])).await.err(),
        artifacts.put("1/a/", body(&[b"x"])).await.err(),
        artifacts.put("1/a/b/c", body(&[b"x"])).await.err(),
        artifacts.delete("").await.err(),
        artifacts.delete("..").await.err(),
    ] {
        assert!(matches!(result, Some(Error::Invalid { .. })), "{result:?}");
    }
    assert!(matches!(artifacts.get("1/none").await, Err(Error::NotFound { .. })));
    assert_eq!(content(&artifacts, "1/a/b").await, b"x");
}

#[tokio::test]
async fn outputs_of_jobs_are_read_by_their_own_paths_and_do_not_change() {
    let (_folder, store, artifacts) = open(1 << 20);
    let output = tempfile::tempdir().unwrap();
    std::fs::create_dir(output.path().join("deep")).unwrap();
    std::fs::write(output.path().join("config.json"), "{}").unwrap();
    std::fs::write(output.path().join("deep/a.bin"), "abc").unwrap();
    store.publish(output.path(), "jobs/j1/checkpoint").await.unwrap();
    artifacts.put("jobs/j1/notes.txt", body(&[b"x"])).await.unwrap();
    assert_eq!(
        names(artifacts.list("jobs/j1").await.unwrap()),
        [("checkpoint".into(), None), ("notes.txt".into(), Some(1))]
    );
    assert_eq!(
        names(artifacts.list("jobs/j1/checkpoint").await.unwrap()),
        [("config.json".into(), Some(2)), ("deep".into(), None)]
    );
    assert_eq!(names(artifacts.list("jobs/j1/checkpoint/deep").await.unwrap()), [("a.bin".into(), Some(3))]);
    assert_eq!(artifacts.list("jobs/j1/checkpoint/config.json").await.unwrap(), []);
    assert_eq!(content(&artifacts, "jobs/j1/checkpoint/deep/a.bin").await, b"abc");
    assert!(matches!(artifacts.get("jobs/j1/checkpoint/deep").await, Err(Error::Invalid { .. })));
    assert!(matches!(artifacts.get("jobs/j1/checkpoint/none").await, Err(Error::NotFound { .. })));
    for path in ["jobs/j1/checkpoint/config.json", "jobs/j1/checkpoint/new/b"] {
        assert!(matches!(artifacts.put(path, body(&[b"x"])).await, Err(Error::Published(_))), "{path}");
    }
    for path in ["jobs/j1", "jobs/j1/checkpoint", "jobs/j1/checkpoint/config.json"] {
        assert!(matches!(artifacts.delete(path).await, Err(Error::Published(_))), "{path}");
    }
    // A client's own manifest is a file like any other and forges no output.
    artifacts.put("jobs/j2/out/manifest.json", body(&[b"forged"])).await.unwrap();
    assert_eq!(names(artifacts.list("jobs/j2/out").await.unwrap()), [("manifest.json".into(), Some(6))]);
    artifacts.delete("jobs/j2").await.unwrap();
    artifacts.delete("jobs/j1/notes.txt").await.unwrap();
    assert!(artifacts.get("jobs/j1/notes.txt").await.is_err());
    store.fetch(&store.uri("jobs/j1/checkpoint").unwrap(), &output.path().join("copy")).await.unwrap();
}
