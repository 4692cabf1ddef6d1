//! Links, special files, and the memory for digests.
use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{find, folder};
use crate::artifacts::{ArtifactStore, Error, digest_path};

fn store(root: &Path) -> ArtifactStore {
    ArtifactStore::open(root.to_str().unwrap()).unwrap()
}

#[tokio::test]
async fn links_inside_are_followed_and_those_that_lead_out_are_refused() {
    let (root, outside) = (tempfile::tempdir().unwrap(), folder(&[("secret", b"s")]));
    let store = store(root.path());
    let input = folder(&[("blobs/x", b"content")]);
    symlink("blobs/x", input.path().join("model")).unwrap();
    let published = store.publish(input.path(), "inside").await.unwrap();
    assert_eq!(published.file_count, 2);

    symlink(outside.path().join("secret"), input.path().join("leak")).unwrap();
    let error = store.publish(input.path(), "leak").await.unwrap_err();
    assert!(error.to_string().contains("leak: is a link that leads out"), "{error}");
    digest_path(input.path()).unwrap();
    fs::remove_file(input.path().join("leak")).unwrap();

    symlink(outside.path(), input.path().join("folder")).unwrap();
    assert!(matches!(store.publish(input.path(), "leak").await, Err(Error::Unsuitable { .. })));
    fs::remove_file(input.path().join("folder")).unwrap();

    symlink(".", input.path().join("circle")).unwrap();
    let error = digest_path(input.path()).unwrap_err();
    assert!(error.to_string().contains("circle"), "{error}");
    fs::remove_file(input.path().join("circle")).unwrap();

    nix::unistd::mkfifo(&input.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = store.publish(input.path(), "pipe").await.unwrap_err();
    assert!(error.to_string().contains("pipe: is neither a file nor a folder"), "{error}");
}

#[test]
fn a_digest_is_remembered_until_the_file_changes() {
    let input = folder(&[("a", b"1234")]);
    let path = input.path().join("a");
    let file = fs::File::options().write(true).open(&path).unwrap();
    let then = SystemTime::now() - Duration::from_secs(100);
    file.set_modified(then).unwrap();
    let first = digest_path(&path).unwrap();
    assert_eq!(digest_path(&path).unwrap(), first);
    // The same size and the same time of modification: the time of change still tells.
    fs::write(&path, "5678").unwrap();
    file.set_modified(then).unwrap();
    assert_ne!(digest_path(&path).unwrap(), first);
    fs::write(&path, "1234").unwrap();
    assert_eq!(digest_path(&path).unwrap(), first);
}

#[tokio::test]
async fn a_local_artifact_is_plain_files_with_a_manifest_of_canonical_json() {
    let (root, input) = (tempfile::tempdir().unwrap(), folder(&[("b", b"2"), ("a", b"")]));
    let published = store(root.path()).publish(input.path(), "x").await.unwrap();
    let text = fs::read_to_string(root.path().join("x/manifest.json")).unwrap();
    let expected = "{\"files\":[{\"path\":\"a\",\"sha256\":\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\"size\":0},\
                    {\"path\":\"b\",\"sha256\":\"d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35\",\"size\":1}],\
                    \"kind\":\"folder\",\"version\":1}";
    assert_eq!(text, expected);
    assert_eq!(published.digest, crate::hashing::sha256_hex(expected));
    assert_eq!(fs::read(find(root.path(), "b")).unwrap(), b"2");
}

#[test]
fn locations_that_make_no_sense_are_named() {
    for (url, problem) in [
        ("", "is empty"),
        ("ftp://host/x", "scheme `ftp` is not one of"),
        ("file://host/x", "is not a local path"),
        ("s3://user:pw@bucket/x", "must not hold credentials"),
        ("s3://bucket/x?no_such_option=1", "option `no_such_option` is not known"),
    ] {
        let error = ArtifactStore::open(url).unwrap_err().to_string();
        assert!(error.contains(problem), "{url}: {error}");
        assert!(!error.contains("no_such_option=1"), "a query may hold secrets: {error}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = ArtifactStore::open(file.path().to_str().unwrap()).unwrap_err();
    assert!(error.to_string().contains(file.path().to_str().unwrap()), "{error}");
}
