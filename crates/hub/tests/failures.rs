//! What goes wrong on the way: refusals, broken and stalled connections, damaged contents.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    time::{Duration, Instant},
};

use common::{ID, files_below, hub, repo, server, settings, weights, with_token};
use quintet_hub::{
    Error, Hub, Settings,
    testing::{Fault, TOKEN},
};

const WEIGHTS: &str = "model.safetensors";

fn status(code: u16) -> Fault {
    Fault::Status(code, None)
}

#[tokio::test]
async fn failures_that_pass_are_repeated_on_every_kind_of_request() {
    let (server, commit) = server().await;
    let cache = tempfile::tempdir().unwrap();
    for code in [500, 503] {
        server.fail("GET", "/api/models", status(code));
        server.fail("HEAD", "config.json", status(code));
        server.fail("GET", "tokenizer.json", status(code));
    }
    server.fail("GET", "/api/models", Fault::Cut(10));
    let patient = Settings {
        patience: quintet_hub::Patience { tries: 4, ..settings(&server, cache.path()).patience },
        ..settings(&server, cache.path())
    };
    let snapshot = Hub::new(patient).unwrap().snapshot(&repo(ID), &|_| ()).await.unwrap();
    assert_eq!(snapshot.pinned.revision(), commit);
    assert!(server.all_failed());
}

#[tokio::test]
async fn a_server_that_keeps_failing_is_given_up() {
    let (server, _) = server().await;
    let cache = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        server.fail("GET", "/api/models", status(502));
    }
    let error = hub(&server, cache.path()).resolve(&repo(ID)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }) && error.is_transient(), "{error}");
    assert!(error.to_string().contains("502") && error.to_string().contains("3 tries"), "{error}");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn too_many_requests_wait_as_long_as_asked() {
    let (server, _) = server().await;
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    server.fail("GET", "/api/models", Fault::Status(429, Some("1".into())));
    let start = Instant::now();
    hub.resolve(&repo(ID)).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    // Longer than the bound: told at once.
    server.fail("GET", "/api/models", Fault::Status(429, Some("3600".into())));
    let start = Instant::now();
    let error = hub.resolve(&repo(ID)).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(error.to_string().contains("3600 s") && error.to_string().contains("set HF_TOKEN"), "{error}");
    assert!(matches!(error, Error::RateLimited { .. }) && error.is_transient());
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_ended() {
    let (server, _) = server().await;
    let cache = tempfile::tempdir().unwrap();
    server.fail("GET", "/", Fault::Cut(0));
    let hub = hub(&server, cache.path());
    // The fault above goes to the description; these to the content on the CDN.
    hub.resolve(&repo(ID)).await.unwrap();
    let etag = large_etag();
    server.fail("GET", &etag, Fault::Cut(5000));
    server.fail("GET", &etag, Fault::Cut(70_000));
    let snapshot = hub.snapshot(&repo(ID), &|_| ()).await.unwrap();
    assert_eq!(fs::read(snapshot.path.join(WEIGHTS)).unwrap(), weights(1));
    let ranges: Vec<_> =
        server.seen().into_iter().filter(|seen| seen.cdn && seen.method == "GET").map(|seen| seen.range).collect();
    assert_eq!(ranges, [None, Some("bytes=5000-".to_owned()), Some("bytes=75000-".to_owned())]);
}

fn large_etag() -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(weights(1)))
}

#[tokio::test]
async fn another_process_goes_on_with_what_one_left() {
    let (server, _) = server().await;
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    for _ in 0..3 {
        server.fail("GET", &large_etag(), Fault::Cut(0));
    }
    let error = hub.snapshot(&repo(ID), &|_| ()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    let incomplete = cache.path().join(format!("models--org--tiny/blobs/{}.incomplete", large_etag()));
    fs::write(&incomplete, &weights(1)[..100_000]).unwrap();
    server.seen();
    let snapshot = hub.snapshot(&repo(ID), &|_| ()).await.unwrap();
    assert_eq!(fs::read(snapshot.path.join(WEIGHTS)).unwrap(), weights(1));
    let seen = server.seen();
    let content: Vec<_> = seen.iter().filter(|seen| seen.cdn && seen.method == "GET").collect();
    assert_eq!(content.len(), 1);
    assert_eq!(content[0].range.as_deref(), Some("bytes=100000-"));
    assert!(!incomplete.exists());
}

#[tokio::test]
async fn what_was_left_damaged_is_begun_anew() {
    let (server, _) = server().await;
    let full = weights(1).len();
    // Garbage of part of the size, of the whole size, and longer; and a server that does not continue.
    for (left, fault) in [(1000, None), (full, None), (full + 5, None), (1000, Some(Fault::IgnoreRange))] {
        let cache = tempfile::tempdir().unwrap();
        let incomplete = cache.path().join(format!("models--org--tiny/blobs/{}.incomplete", large_etag()));
        fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
        fs::write(&incomplete, vec![7; left]).unwrap();
        if let Some(fault) = fault {
            server.fail("GET", &large_etag(), fault);
        }
        let snapshot = hub(&server, cache.path()).snapshot(&repo(ID), &|_| ()).await.unwrap();
        assert_eq!(fs::read(snapshot.path.join(WEIGHTS)).unwrap(), weights(1), "{left}");
        assert!(server.all_failed());
    }
}

#[tokio::test]
async fn a_stalled_connection_is_left_and_made_again() {
    let (server, _) = server().await;
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    server.fail("GET", &large_etag(), Fault::Stall(2000));
    let snapshot = hub.snapshot(&repo(ID), &|_| ()).await.unwrap();
    assert_eq!(fs::read(snapshot.path.join(WEIGHTS)).unwrap(), weights(1));
    assert!(server.seen().iter().any(|seen| seen.range.as_deref() == Some("bytes=2000-")));
    for _ in 0..3 {
        server.fail("GET", "/api/models", Fault::Stall(3));
    }
    let error = hub.resolve(&repo("org/other")).await.unwrap_err();
    assert!(error.to_string().contains("has no model"), "a refusal has no content to stall: {error}");
    let error = hub.resolve(&repo(ID)).await;
    // Two of the three are left; the last try succeeds.
    assert!(error.is_ok(), "{error:?}");
    let start = Instant::now();
    let other = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        server.fail("GET", "/api/models", Fault::Stall(3));
    }
    let error = self::hub(&server, other.path()).resolve(&repo(ID)).await.unwrap_err();
    assert!(error.to_string().contains("nothing came for 0.4 s (3 tries)"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn damaged_contents_never_get_their_name() {
    let (server, _) = server().await;
    for (path, what) in
        [(large_etag(), "SHA-256"), ("resolve/".to_owned() + &commit_of(&server).await + "/config.json", "git blob id")]
    {
        let cache = tempfile::tempdir().unwrap();
        let hub = hub(&server, cache.path());
        // A bad copy given once is only a detour.
        server.fail("GET", &path, Fault::Garble);
        let snapshot = hub.snapshot(&repo(ID), &|_| ()).await.unwrap();
        assert_eq!(fs::read(snapshot.path.join(WEIGHTS)).unwrap(), weights(1));
        let cache = tempfile::tempdir().unwrap();
        let hub = self::hub(&server, cache.path());
        server.fail("GET", &path, Fault::Garble);
        server.fail("GET", &path, Fault::Garble);
        let error = hub.snapshot(&repo(ID), &|_| ()).await.unwrap_err();
        assert!(matches!(&error, Error::Corrupt { .. }) && error.to_string().contains(what), "{error}");
        assert!(hub.cached(&repo(ID)).is_err(), "a snapshot that is not whole is none");
        let snapshot = hub.snapshot(&repo(ID), &|_| ()).await.unwrap();
        assert_eq!(fs::read(snapshot.path.join(WEIGHTS)).unwrap(), weights(1));
        assert!(!files_below(cache.path()).iter().any(|file| file.contains("incomplete")));
    }
}

/// A download that is given up in the middle of anything, and begun again at once, harms nothing.
#[tokio::test(flavor = "multi_thread")]
async fn downloads_may_be_dropped_at_any_moment() {
    let (server, _) = server().await;
    // After so many requests, and so many polls more.
    for (requests, polls) in (0..10).flat_map(|requests| [0, 5, 50].map(|polls| (requests, polls))) {
        let cache = tempfile::tempdir().unwrap();
        let hub = hub(&server, cache.path());
        let wanted = repo(ID);
        let mut given_up = Box::pin(hub.snapshot(&wanted, &|_| ()));
        let (mut seen, mut left, mut ready) = (0, polls, false);
        server.seen();
        while !ready && (seen < requests || left > 0) {
            left -= usize::from(seen >= requests && left > 0);
            ready = futures::poll!(&mut given_up).is_ready();
            tokio::task::yield_now().await;
            seen += server.seen().len();
        }
        drop(given_up);
        let snapshot = hub.snapshot(&wanted, &|_| ()).await.unwrap();
        assert_eq!(fs::read(snapshot.path.join(WEIGHTS)).unwrap(), weights(1));
        assert!(!files_below(cache.path()).iter().any(|file| file.contains("incomplete")));
    }
}

async fn commit_of(server: &quintet_hub::testing::TestHub) -> String {
    let cache = tempfile::tempdir().unwrap();
    hub(server, cache.path()).resolve(&repo(ID)).await.unwrap().pinned.revision().to_owned()
}

#[tokio::test]
async fn redirects_are_bounded_and_carry_no_token_away() {
    let (server, _) = server().await;
    let (elsewhere, _) = common::server().await;
    let cache = tempfile::tempdir().unwrap();
    let hub = with_token(&server, cache.path(), TOKEN);
    // To another host and back: the token does not come back either.
    server.fail("GET", "/api/models", Fault::Redirect(format!("{}/hop", elsewhere.url())));
    elsewhere.fail("GET", "/hop", Fault::Redirect(format!("{}/api/models/{ID}/revision/main", server.url())));
    hub.resolve(&repo(ID)).await.unwrap();
    let told: Vec<bool> = server.seen().into_iter().chain(elsewhere.seen()).map(|seen| seen.with_token).collect();
    assert_eq!(told, [true, false, false]);
    // A renamed repository: on the same host the token stays.
    server.fail("GET", "/api/models/old", Fault::Redirect(format!("/api/models/{ID}/revision/main")));
    hub.resolve(&repo("old")).await.unwrap();
    assert!(server.seen().iter().all(|seen| seen.with_token));
    for _ in 0..12 {
        server.fail("GET", "/api/models", Fault::Redirect(format!("/api/models/{ID}/revision/main")));
    }
    let error = hub.resolve(&repo(ID)).await.unwrap_err();
    assert!(matches!(&error, Error::Protocol { .. }) && error.to_string().contains("redirects"), "{error}");
    while !server.all_failed() {
        let _ = hub.resolve(&repo(ID)).await;
    }
    server.fail("GET", "/api/models", Fault::Redirect("ftp://x/".into()));
    let error = hub.resolve(&repo(ID)).await.unwrap_err();
    assert!(error.to_string().contains("from http to ftp"), "{error}");
}

#[tokio::test]
async fn a_page_of_a_proxy_is_no_hub() {
    let (server, commit) = server().await;
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    server.fail("GET", "/api/models", Fault::Garble);
    let error = hub.resolve(&repo(ID)).await.unwrap_err();
    assert!(matches!(&error, Error::Protocol { .. }) && error.to_string().contains("check HF_ENDPOINT"), "{error}");
    server.fail("HEAD", "config.json", status(204));
    let error = hub.snapshot(&repo(&format!("{ID}@{commit}")), &|_| ()).await.unwrap_err();
    assert!(error.to_string().contains("no X-Repo-Commit"), "{error}");
    assert!(!error.is_transient());
}
