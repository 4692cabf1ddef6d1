//! What every store must do: memory, local files and S3 run the same suite.
use std::{fs, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectStoreExt as _, memory::InMemory};

use super::{fill, folder, moto::Moto, noise, read};
use crate::artifacts::{ArtifactStore, Error, Kind, digest_path, key};

#[tokio::test]
async fn memory() {
    suite(ArtifactStore::with_store(Arc::new(InMemory::new()), "memory:///store/")).await;
    suite(ArtifactStore::open("memory:///below/a/prefix").unwrap()).await;
}

#[tokio::test]
async fn local_files() {
    let root = tempfile::tempdir().unwrap();
    suite(ArtifactStore::open(root.path().join("made for it").to_str().unwrap()).unwrap()).await;
    suite(ArtifactStore::open(&format!("file://{}/by/url", root.path().display())).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3() {
    let moto = Moto::start();
    moto.create_bucket("artifacts").await;
    suite(ArtifactStore::open(&moto.url("s3://artifacts/some/prefix")).unwrap()).await;
    suite(ArtifactStore::open(&moto.url("s3://artifacts")).unwrap()).await;
    let error = ArtifactStore::open(&moto.url("s3://no-such-bucket")).unwrap().describe_none().await;
    assert!(!error.to_string().contains("secret"), "{error}");
}

impl ArtifactStore {
    async fn describe_none(&self) -> Error {
        let input = folder(&[("a", b"1")]);
        self.publish(input.path(), "k").await.unwrap_err()
    }
}

async fn suite(store: ArtifactStore) {
    round_trip(&store).await;
    single_file(&store).await;
    idempotence_and_conflict(&store).await;
    races(&store).await;
    damage(&store).await;
    listing(&store).await;
    loose_objects(&store).await;
    bad_names(&store).await;
}

async fn round_trip(store: &ArtifactStore) {
    // One file in several parts, the last one not full; an empty one; names that stores encode.
    let large = noise((17 << 20) + 5);
    let files: &[(&str, &[u8])] = &[
        ("a/deep/e.bin", b""),
        ("config.json", b"{}"),
        ("manifest.json", b"not ours"),
        ("model.bin", &large),
        ("ü #1%.txt", b"x"),
    ];
    let input = folder(files);
    let published = store.publish(input.path(), "jobs/1/model").await.unwrap();
    assert_eq!(published.uri, format!("{}/jobs/1/model", store.url()));
    assert_eq!((published.file_count, published.size_bytes), (5, large.len() as u64 + 11));
    assert_eq!(published.digest, digest_path(input.path()).unwrap());
    assert_eq!(store.describe(&published.uri).await.unwrap(), published);

    let manifest = store.verify(&published.uri).await.unwrap();
    assert_eq!((manifest.kind, manifest.digest()), (Kind::Folder, published.digest.clone()));
    let out = tempfile::tempdir().unwrap();
    let dest = out.path().join("new/model");
    fs::create_dir_all(dest.parent().unwrap()).unwrap();
    store.fetch(&published.uri, &dest).await.unwrap();
    assert_eq!(read(&dest), read(input.path()));
    assert_eq!(digest_path(&dest).unwrap(), published.digest);
    assert!(matches!(store.fetch(&published.uri, &dest).await, Err(Error::Exists { .. })));
    assert_eq!(fs::read_dir(dest.parent().unwrap()).unwrap().count(), 1, "nothing temporary stays");

    let cache = out.path().join("cache");
    let first = store.fetch_cached(&published.uri, &cache).await.unwrap();
    assert_eq!(first, cache.join(&published.digest));
    assert_eq!(read(&first), read(input.path()));
    // A second call reads only the manifest: a mark in the cached folder stays.
    fs::write(first.join("mark"), "").unwrap();
    assert!(store.fetch_cached(&published.uri, &cache).await.unwrap().join("mark").exists());

    let (size, stream) = store.read_file(&published.uri, "ü #1%.txt").await.unwrap();
    let bytes: Vec<_> = stream.try_collect().await.unwrap();
    assert_eq!((size, bytes.concat()), (1, b"x".to_vec()));
    assert!(matches!(store.read_file(&published.uri, "../config.json").await, Err(Error::NoSuchFile { .. })));
    let top = store.list_files(&published.uri, "").await.unwrap();
    assert_eq!((top.folders, top.files.len()), (vec!["a".to_owned()], 4));
    let deep = store.list_files(&published.uri, "a/deep").await.unwrap();
    assert_eq!(deep.files[0].path, "e.bin");
}

async fn single_file(store: &ArtifactStore) {
    let input = folder(&[("report.json", b"{\"f1\":1}")]);
    let path = input.path().join("report.json");
    let published = store.publish(&path, "report").await.unwrap();
    assert_eq!(published.digest, digest_path(&path).unwrap());
    assert_ne!(published.digest, digest_path(input.path()).unwrap(), "a file is not a folder with a file");
    let out = tempfile::tempdir().unwrap();
    let dest = out.path().join("renamed.json");
    assert_eq!(store.fetch(&published.uri, &dest).await.unwrap().kind, Kind::File);
    assert_eq!(fs::read(&dest).unwrap(), b"{\"f1\":1}");
    let cached = store.fetch_cached(&published.uri, out.path()).await.unwrap();
    assert_eq!(cached, out.path().join(&published.digest).join("report.json"));
}

async fn idempotence_and_conflict(store: &ArtifactStore) {
    let input = folder(&[("a", b"1"), ("b", b"2")]);
    let first = store.publish(input.path(), "same").await.unwrap();
    assert_eq!(store.publish(input.path(), "same").await.unwrap(), first);
    fs::write(input.path().join("b"), "3").unwrap();
    let error = store.publish(input.path(), "same").await.unwrap_err();
    let Error::Conflict { stored, offered, .. } = &error else { panic!("{error}") };
    assert_eq!((stored, offered), (&first.digest, &digest_path(input.path()).unwrap()));
    store.verify(&first.uri).await.unwrap();
    store.delete(&first.uri).await.unwrap();
    store.delete(&first.uri).await.unwrap();
    assert!(matches!(store.read_manifest(&first.uri).await, Err(Error::NotFound { .. })));
    assert_eq!(store.publish(input.path(), "same").await.unwrap().digest, digest_path(input.path()).unwrap());
}

/// However many publish different content under one key at once, one wins, and what it published is whole.
async fn races(store: &ArtifactStore) {
    for round in 0..3 {
        let inputs: Vec<_> = (0..8u8).map(|i| folder(&[("x", &[i / 2]), ("y", b"all")])).collect();
        let key = format!("race/{round}");
        let results: Vec<_> = futures::stream::iter(&inputs)
            .map(|input| store.publish(input.path(), &key))
            .buffer_unordered(8)
            .collect()
            .await;
        let won: Vec<_> = results.iter().flatten().collect();
        assert_eq!(won.len(), 2, "both publishers of the content that won, and nobody else: {results:?}");
        assert_eq!(won[0], won[1]);
        assert!(results.iter().all(|r| matches!(r, Ok(_) | Err(Error::Conflict { .. }))), "{results:?}");
        assert_eq!(store.verify(&won[0].uri).await.unwrap().digest(), won[0].digest);
    }
}

async fn damage(store: &ArtifactStore) {
    let input = folder(&[("a", b"1234"), ("b", b"5678")]);
    let published = store.publish(input.path(), "damaged").await.unwrap();
    let content = store.content("damaged", &published.digest);
    let out = tempfile::tempdir().unwrap();
    for (change, problem) in [(&b"5679"[..], "SHA-256"), (b"56789", "5 bytes instead of 4")] {
        store.store.put(&key::object(&content, &["b"]), change.to_vec().into()).await.unwrap();
        for result in [store.verify(&published.uri).await, store.fetch(&published.uri, &out.path().join("x")).await] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("file `b`") && error.contains(problem), "{error}");
        }
    }
    store.store.delete(&key::object(&content, &["b"])).await.unwrap();
    let error = store.verify(&published.uri).await.unwrap_err().to_string();
    assert!(error.contains("file `b`: is missing"), "{error}");
    let manifest = key::object(&store.prefix, &["damaged", "manifest.json"]);
    for (text, problem) in [
        ("{", "EOF"),
        (r#"{"files":[],"kind":"folder","version":1}"#, "0 files"),
        (r#"{"files":[],"kind":"folder","version":2}"#, "version 2"),
        (r#"{"files":[{"path":"../x","sha256":"","size":0}],"kind":"folder","version":1}"#, "must not contain"),
        (r#"{"files":[{"path":"x","sha256":"00","size":0}],"kind":"folder","version":1}"#, "not a SHA-256"),
    ] {
        store.store.put(&manifest, text.into()).await.unwrap();
        let error = store.fetch(&published.uri, &out.path().join("x")).await.unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "nothing half-fetched stays");
    store.delete(&published.uri).await.unwrap();
}

async fn listing(store: &ArtifactStore) {
    let input = folder(&[("manifest.json", b"inner"), ("sub/manifest.json", b"inner")]);
    for key in ["list/b", "list/b/below", "list/ü x", "listed"] {
        store.publish(input.path(), key).await.unwrap();
    }
    let keys = async |prefix: &str| -> Vec<String> {
        let found = store.list(prefix).await.unwrap();
        found.iter().map(|artifact| store.key_of(&artifact.uri).unwrap().to_owned()).collect()
    };
    assert_eq!(keys("list").await, ["list/b", "list/b/below", "list/ü x"]);
    assert_eq!(keys("list/b/").await, ["list/b", "list/b/below"]);
    assert!(keys("").await.contains(&"listed".to_owned()));
    // Deleting one leaves the one below it whole.
    store.delete(&store.uri("list/b").unwrap()).await.unwrap();
    assert_eq!(keys("list").await, ["list/b/below", "list/ü x"]);
    store.verify(&store.uri("list/b/below").unwrap()).await.unwrap();
}

async fn loose_objects(store: &ArtifactStore) {
    let chunks = |size: usize, count: usize| {
        let bytes = noise(size * count);
        let parts: Vec<_> =
            bytes.chunks(size.max(1)).map(|c| Ok::<_, std::io::Error>(bytes::Bytes::copy_from_slice(c))).collect();
        (bytes, futures::stream::iter(parts))
    };
    for (size, count) in [(0, 0), (1000, 3), (1 << 20, 8), (3 << 20, 6)] {
        let (bytes, stream) = chunks(size, count);
        assert_eq!(store.write_object("runs/1/artifacts/x.bin", stream).await.unwrap(), bytes.len() as u64);
        let (length, stream) = store.read_object("runs/1/artifacts/x.bin").await.unwrap();
        assert_eq!(length, bytes.len() as u64);
        assert!(stream.try_collect::<Vec<_>>().await.unwrap().concat() == bytes);
    }
    // A client that goes away in the middle leaves the old object as it was.
    let (_, stream) = chunks(1 << 20, 20);
    let broken = stream.chain(futures::stream::iter([Err(std::io::Error::other("gone"))]));
    assert!(store.write_object("runs/1/artifacts/x.bin", broken).await.unwrap_err().to_string().contains("gone"));
    assert_eq!(store.read_object("runs/1/artifacts/x.bin").await.unwrap().0, 18 << 20);
    store
        .write_object("runs/1/artifacts/sub dir/y", futures::stream::iter([Ok::<_, std::io::Error>("y".into())]))
        .await
        .unwrap();
    let listing = store.list_objects("runs/1/artifacts").await.unwrap();
    assert_eq!(listing.folders, ["sub dir"]);
    assert_eq!((listing.files[0].path.as_str(), listing.files[0].size), ("x.bin", 18 << 20));
    store.delete_object("runs/1/artifacts/x.bin").await.unwrap();
    store.delete_object("runs/1/artifacts/x.bin").await.unwrap();
    assert!(matches!(store.read_object("runs/1/artifacts/x.bin").await, Err(Error::NotFound { .. })));
}

async fn bad_names(store: &ArtifactStore) {
    let input = folder(&[("a", b"1")]);
    for key in ["", "../up", "/abs", "a//b", "a/./b", "@x", "manifest.json"] {
        assert!(matches!(store.publish(input.path(), key).await, Err(Error::Key { .. })), "{key}");
    }
    for uri in ["s3://elsewhere/x", "x", &format!("{}x/y", store.url()), store.url()] {
        assert!(matches!(store.read_manifest(uri).await, Err(Error::Url { .. })), "{uri}");
    }
    let empty = tempfile::tempdir().unwrap();
    fs::create_dir(empty.path().join("only a folder")).unwrap();
    assert!(matches!(store.publish(empty.path(), "k").await, Err(Error::Unsuitable { .. })));
    let error = store.publish(&empty.path().join("missing"), "k").await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    fill(empty.path(), &[("back\\slash", b"1")]);
    assert!(matches!(store.publish(empty.path(), "k").await, Err(Error::Key { .. })));
    assert!(matches!(store.read_manifest(&store.uri("k").unwrap()).await, Err(Error::NotFound { .. })));
}
