//! Resolving and downloading against a server that speaks the Hub's paths.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    sync::{Arc, Mutex},
};

use common::{ID, add, files_below, hub, repo, server, settings, weights, with_token};
use quintet_hub::{
    Error, Hub, Origin, Settings,
    testing::{Access, STRANGER, TOKEN},
};

#[tokio::test]
async fn a_name_becomes_a_folder_with_what_is_needed() {
    let (server, commit) = server().await;
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    let told = Mutex::new(Vec::new());
    let snapshot = hub.snapshot(&repo(ID), &|progress| told.lock().unwrap().push(progress)).await.unwrap();
    assert_eq!((snapshot.pinned.revision(), snapshot.origin), (commit.as_str(), Origin::Hub));
    assert_eq!(snapshot.files, ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]);
    assert_eq!(fs::read(snapshot.path.join("model.safetensors")).unwrap(), weights(1));
    assert_eq!(fs::read(snapshot.path.join("vocab.txt")).unwrap(), b"");
    assert!(!snapshot.path.join("README.md").exists() && !snapshot.path.join("pytorch_model.bin").exists());
    let told = told.into_inner().unwrap();
    let total = (weights(1).len() + common::CONFIG.len() + common::TOKENIZER.len()) as u64;
    assert!(told.iter().all(|progress| progress.total == total && progress.done <= total), "{told:?}");
    assert_eq!(told.last().unwrap().done, total);
    // Nothing but blobs, the ref and locks.
    let blobs = format!("models--org--tiny/blobs/{}", hex_sha256(&weights(1)));
    let found = files_below(cache.path());
    assert!(found.contains(&blobs) && !found.iter().any(|file| file.contains("incomplete") || file.ends_with("tmp")));
    server.seen();

    // The second time the commit is asked for, and nothing else.
    let again = hub.snapshot(&repo(ID), &|_| panic!("nothing is downloaded")).await.unwrap();
    assert_eq!(again.path, snapshot.path);
    let asked: Vec<String> = server.seen().into_iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
    assert_eq!(asked, [format!("GET /api/models/{ID}/revision/main")]);

    // A commit needs no network at all.
    let pinned = hub.snapshot(&snapshot.pinned, &|_| ()).await.unwrap();
    assert_eq!((pinned.path, pinned.origin), (snapshot.path, Origin::Cache));
    assert!(server.seen().is_empty());
}

fn hex_sha256(content: &[u8]) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(content))
}

#[tokio::test]
async fn branches_tags_and_commits_are_told_apart_and_move() {
    let (server, first) = server().await;
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    server.name(ID, "v1", &first);
    server.name(ID, "refs/pr/7", &first);
    assert_eq!(hub.resolve(&repo(ID)).await.unwrap().pinned.revision(), first);
    let second = add(&server, 2);
    for (name, commit) in [
        (ID.to_owned(), &second),
        (format!("{ID}@v1"), &first),
        (format!("hf://{ID}@refs%2Fpr%2F7"), &first),
        (format!("{ID}@{second}"), &second),
    ] {
        let snapshot = hub.snapshot(&repo(&name), &|_| ()).await.unwrap();
        assert_eq!(snapshot.pinned.revision(), commit, "{name}");
        let seed = if *commit == first { 1 } else { 2 };
        assert_eq!(fs::read(snapshot.path.join("model.safetensors")).unwrap(), weights(seed), "{name}");
    }
    assert!(server.seen().iter().any(|seen| seen.path.ends_with("/revision/refs%2Fpr%2F7")));
    // The configuration is the same in both commits, and kept once.
    let blobs = fs::read_dir(cache.path().join("models--org--tiny/blobs")).unwrap().count();
    assert_eq!(blobs, 5);
}

#[tokio::test]
async fn shards_are_found_by_their_index() {
    let (server, _) = server().await;
    let cache = tempfile::tempdir().unwrap();
    let (one, two) = (weights(3), weights(4));
    let index = br#"{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}"#;
    let files: [(&str, &[u8]); 6] = [
        ("config.json", common::CONFIG),
        ("tokenizer.json", common::TOKENIZER),
        ("model.safetensors.index.json", index),
        ("m-1.safetensors", &one),
        ("m-2.safetensors", &two),
        ("m-3.safetensors", &two),
    ];
    server.commit("sharded", &files);
    let hub = hub(&server, cache.path());
    let snapshot = hub.snapshot(&repo("sharded"), &|_| ()).await.unwrap();
    assert_eq!(snapshot.files[3..], ["m-1.safetensors", "m-2.safetensors"]);
    assert_eq!(fs::read(snapshot.path.join("m-2.safetensors")).unwrap(), two);
    assert!(!snapshot.path.join("m-3.safetensors").exists());
    assert_eq!(hub.cached(&repo("sharded")).unwrap().files, snapshot.files);
    server.commit("sharded", &files[..4]);
    let error = hub.snapshot(&repo("sharded"), &|_| ()).await.unwrap_err();
    assert!(error.to_string().contains("lacks the shard m-2.safetensors"), "{error}");
}

#[tokio::test]
async fn offline_only_the_cache_is_asked() {
    let (server, commit) = server().await;
    let cache = tempfile::tempdir().unwrap();
    let offline = || Hub::new(Settings { offline: true, ..settings(&server, cache.path()) }).unwrap();
    let error = offline().snapshot(&repo(ID), &|_| ()).await.unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }), "{error}");
    assert!(error.to_string().contains("quintet hub download org/tiny@main"), "{error}");
    hub(&server, cache.path()).snapshot(&repo(ID), &|_| ()).await.unwrap();
    server.seen();
    let snapshot = offline().snapshot(&repo(ID), &|_| ()).await.unwrap();
    assert_eq!((snapshot.pinned.revision(), snapshot.origin), (commit.as_str(), Origin::Cache));
    assert_eq!(offline().resolve(&repo(ID)).await.unwrap().pinned.revision(), commit);
    // A snapshot whose blob is gone is not whole.
    fs::remove_file(fs::canonicalize(snapshot.path.join("tokenizer.json")).unwrap()).unwrap();
    let error = offline().snapshot(&repo(ID), &|_| ()).await.unwrap_err();
    assert!(error.to_string().contains("has no tokenizer.json"), "{error}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_hub_that_cannot_be_reached_leaves_the_cache() {
    let (server, commit) = server().await;
    let cache = tempfile::tempdir().unwrap();
    hub(&server, cache.path()).snapshot(&repo(ID), &|_| ()).await.unwrap();
    let mut gone = settings(&server, cache.path());
    drop(server);
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    gone.endpoint = format!("http://{nowhere}").parse().unwrap();
    let hub = Hub::new(gone).unwrap();
    let snapshot = hub.snapshot(&repo(ID), &|_| ()).await.unwrap();
    assert_eq!(snapshot.pinned.revision(), commit);
    let Origin::Stale(reason) = snapshot.origin else { panic!("{:?}", snapshot.origin) };
    assert!(reason.contains(&nowhere.to_string()) && reason.contains("3 tries"), "{reason}");
    let error = hub.resolve(&repo("org/other")).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }) && error.is_transient(), "{error}");
}

#[tokio::test]
async fn the_token_opens_what_is_private_and_stays_with_the_hub() {
    let (server, _) = server().await;
    let cache = tempfile::tempdir().unwrap();
    server.access(ID, Access::Private);
    let snapshot = with_token(&server, cache.path(), TOKEN).snapshot(&repo(ID), &|_| ()).await.unwrap();
    assert!(snapshot.path.join("model.safetensors").is_file());
    let seen = server.seen();
    let (cdn, own): (Vec<_>, Vec<_>) = seen.iter().partition(|seen| seen.cdn);
    assert!(!cdn.is_empty() && cdn.iter().all(|seen| !seen.with_token), "{cdn:?}");
    assert!(own.iter().all(|seen| seen.with_token), "{own:?}");
    for (access, token, part) in [
        (Access::Private, "", "set HF_TOKEN when it is private"),
        (Access::Private, STRANGER, "belongs to somebody with access"),
        (Access::Private, "hf_unknown", "make a new one"),
        (Access::Gated, "", "ask for it on"),
        (Access::Gated, STRANGER, "when it was granted"),
    ] {
        server.access(ID, access);
        let cache = tempfile::tempdir().unwrap();
        let error = with_token(&server, cache.path(), token).snapshot(&repo(ID), &|_| ()).await.unwrap_err();
        assert!(error.to_string().contains(part) && !error.is_transient(), "{access:?} {token}: {error}");
        assert!(!error.to_string().contains("hf_u") && !error.to_string().contains("hf_of"), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_by_its_name() {
    let (server, _) = server().await;
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    server.commit("only-bin", &[("config.json", b"{}"), ("pytorch_model.bin", b"x"), ("tokenizer.json", b"{}")]);
    for (name, part) in [
        ("org/other", "has no model `org/other`"),
        ("org/tiny@v9", "`org/tiny` has no revision `v9`"),
        ("only-bin", "only pytorch_model.bin"),
    ] {
        for error in
            [hub.resolve(&repo(name)).await.unwrap_err(), hub.snapshot(&repo(name), &|_| ()).await.unwrap_err()]
        {
            assert!(error.to_string().contains(part) && !error.is_transient(), "{name}: {error}");
        }
    }
    assert!(files_below(cache.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_download_each_file_once() {
    let (server, _) = server().await;
    let cache = tempfile::tempdir().unwrap();
    let hubs: Vec<Arc<Hub>> = (0..8).map(|_| Arc::new(hub(&server, cache.path()))).collect();
    let all = hubs.iter().map(|hub| {
        let hub = hub.clone();
        tokio::spawn(async move { hub.snapshot(&repo(ID), &|_| ()).await })
    });
    for one in futures::future::join_all(all).await {
        let path = one.unwrap().unwrap().path;
        assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights(1));
    }
    let contents = server.seen().into_iter().filter(|seen| seen.cdn && seen.method == "GET").count();
    assert_eq!(contents, 1);
}
