//! The real `huggingface_hub`: a client of the same server, and a user of the same cache. Skipped, with a word, where the Python
//! environment of the comparisons (`cargo xtask setup --peers`) is not there.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use common::{ID, add, files_below, hub, repo, server, settings, weights};
use quintet_hub::{
    Hub, Settings,
    testing::{Access, Fault, STRANGER, TOKEN, TestHub},
};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A command of the script; none where there is no `huggingface_hub`.
fn python(server: &TestHub, cache: &Path, token: &str, arguments: &[&str]) -> Option<Command> {
    let python = root().join(".runtime/peers/bin/python");
    if !python.exists() {
        eprintln!("skipped: {} is not there; `cargo xtask setup --peers` brings it", python.display());
        return None;
    }
    let mut command = Command::new(python);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HF_") || name.starts_with("HUGGING")) {
        command.env_remove(name);
    }
    command.arg(root().join("tests/peers/hub_client.py")).args(arguments);
    command.env("HF_ENDPOINT", server.url()).env("HF_HUB_CACHE", cache).env("HF_HOME", cache.join("home"));
    command.env("HF_HUB_DISABLE_PROGRESS_BARS", "1").env("HF_HUB_DISABLE_TELEMETRY", "1");
    if !token.is_empty() {
        command.env("HF_TOKEN", token);
    }
    Some(command)
}

async fn told(mut command: Command) -> Value {
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_python_downloaded_is_used() {
    let (server, commit) = server().await;
    let cache = tempfile::tempdir().unwrap();
    let Some(command) = python(&server, cache.path(), "", &["snapshot", ID]) else { return };
    let python = told(command).await;
    assert_eq!(python["files"]["model.safetensors"], weights(1).len());
    server.seen();
    let snapshot = hub(&server, cache.path()).snapshot(&repo(ID), &|_| panic!("it is there")).await.unwrap();
    assert_eq!(snapshot.path.display().to_string(), python["path"].as_str().unwrap());
    assert_eq!(server.seen().len(), 1, "only the commit is asked for");
    let offline = Hub::new(Settings { offline: true, ..settings(&server, cache.path()) }).unwrap();
    assert_eq!(offline.snapshot(&repo(ID), &|_| ()).await.unwrap().pinned.revision(), commit);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_downloaded_here_is_used_by_python() {
    let (server, commit) = server().await;
    let cache = tempfile::tempdir().unwrap();
    let Some(scan) = python(&server, cache.path(), "", &["scan", "-"]) else { return };
    server.name(ID, "refs/pr/7", &commit);
    let hub = hub(&server, cache.path());
    let snapshot = hub.snapshot(&repo(ID), &|_| ()).await.unwrap();
    hub.snapshot(&repo(&format!("{ID}@refs/pr/7")), &|_| ()).await.unwrap();
    let cached = told(scan).await;
    assert_eq!(cached["warnings"], Value::Array(Vec::new()));
    assert_eq!(cached["repos"][ID]["refs"]["main"], commit);
    assert_eq!(cached["repos"][ID]["refs"]["refs/pr/7"], commit);
    assert_eq!(cached["repos"][ID]["files"].as_array().unwrap().len(), snapshot.files.len());
    server.seen();
    let mut offline = python(&server, cache.path(), "", &["snapshot", ID]).unwrap();
    offline.env("HF_HUB_OFFLINE", "1");
    let python_found = told(offline).await;
    assert_eq!(python_found["path"].as_str().unwrap(), snapshot.path.display().to_string());
    // With a network it asks for the commit, and for the files that are not needed here.
    let online = told(python(&server, cache.path(), "", &["snapshot", ID]).unwrap()).await;
    assert_eq!(online["path"], python_found["path"]);
    assert!(server.seen().iter().all(|seen| !seen.cdn && seen.method == "GET"), "no file is downloaded again");
}

#[tokio::test(flavor = "multi_thread")]
async fn python_goes_on_with_a_download_that_was_begun_here() {
    let (server, _) = server().await;
    let cache = tempfile::tempdir().unwrap();
    let Some(command) = python(&server, cache.path(), "", &["snapshot", ID]) else { return };
    for fault in [Fault::Cut(50_000), Fault::Cut(0), Fault::Cut(0)] {
        server.fail("GET", &large_etag(), fault);
    }
    hub(&server, cache.path()).snapshot(&repo(ID), &|_| ()).await.unwrap_err();
    assert!(server.all_failed());
    server.seen();
    let found = told(command).await;
    assert_eq!(found["files"]["model.safetensors"], weights(1).len());
    let seen = server.seen();
    assert!(seen.iter().any(|seen| seen.range.as_deref() == Some("bytes=50000-")), "{seen:?}");
    let path = Path::new(found["path"].as_str().unwrap()).join("model.safetensors");
    assert_eq!(std::fs::read(path).unwrap(), weights(1));
}

fn large_etag() -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(weights(1)))
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_of_python_are_respected() {
    let (server, _) = server().await;
    let cache = tempfile::tempdir().unwrap();
    let lock = cache.path().join(format!(".locks/models--org--tiny/{}.lock", large_etag()));
    let Some(mut command) = python(&server, cache.path(), "", &["hold", &lock.display().to_string()]) else { return };
    let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("true"), "{line}");
    let hub = hub(&server, cache.path());
    let wanted = repo(ID);
    let mut download = Box::pin(hub.snapshot(&wanted, &|_| ()));
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut download).await.is_err(), "it waits");
    assert!(!server.seen().iter().any(|seen| seen.cdn && seen.method == "GET"));
    drop(holder.stdin.take());
    let snapshot = download.await.unwrap();
    assert_eq!(std::fs::read(snapshot.path.join("model.safetensors")).unwrap(), weights(1));
    assert!(holder.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_at_once_do_not_harm_each_other() {
    let (server, _) = server().await;
    let cache = tempfile::tempdir().unwrap();
    let Some(first) = python(&server, cache.path(), "", &["snapshot", ID]) else { return };
    let second = python(&server, cache.path(), "", &["snapshot", ID]).unwrap();
    let ours = (0..4).map(|_| {
        let hub = hub(&server, cache.path());
        async move { hub.snapshot(&repo(ID), &|_| ()).await.unwrap() }
    });
    let (first, second, ours) = tokio::join!(told(first), told(second), futures::future::join_all(ours));
    for path in [first["path"].as_str().unwrap(), second["path"].as_str().unwrap()]
        .iter()
        .map(Path::new)
        .chain(ours.iter().map(|one| one.path.as_path()))
    {
        assert_eq!(std::fs::read(path.join("model.safetensors")).unwrap(), weights(1));
    }
    assert!(!files_below(cache.path()).iter().any(|file| file.ends_with("incomplete") || file.ends_with("tmp")));
}

/// The server of these tests is a Hub to Python: what it refuses becomes the error that Python has for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_of_these_tests_speaks_the_protocol() {
    let (server, _) = server().await;
    let cache = tempfile::tempdir().unwrap();
    for (access, token, target, revision, error) in [
        (Access::Public, "", ID, "main", Value::Null),
        (Access::Public, "", "org/other", "main", "RepositoryNotFoundError".into()),
        (Access::Public, "", ID, "v9", "RevisionNotFoundError".into()),
        (Access::Private, "", ID, "main", "RepositoryNotFoundError".into()),
        (Access::Private, STRANGER, ID, "main", "RepositoryNotFoundError".into()),
        (Access::Gated, STRANGER, ID, "main", "GatedRepoError".into()),
        (Access::Gated, TOKEN, ID, "main", Value::Null),
    ] {
        server.access(ID, access);
        add(&server, 9);
        let folder = cache.path().join(format!("{access:?}{token}{revision}"));
        let Some(command) = python(&server, &folder, token, &["refused", target, revision]) else { return };
        assert_eq!(told(command).await["error"], error, "{access:?} {token} {target} {revision}");
    }
    let lacking = python(&server, cache.path(), TOKEN, &["lacking", ID, "main"]).unwrap();
    assert_eq!(told(lacking).await["error"], "EntryNotFoundError");
}
