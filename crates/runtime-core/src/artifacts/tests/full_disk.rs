//! A disk that fills up while an artifact is published or fetched: a clear error, and nothing half-written.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{fill, folder, noise, read};
use crate::{
    artifacts::{ArtifactStore, Error, Kind},
    status::ErrorReason,
};

/// Set, in the process that runs with a limit on the size of its files, to the folder with `room` and `inputs`.
const LIMITED: &str = "QUINTET_TEST_FULL_DISK";

/// Two folders, of which one goes in single puts and one in parts; both hold a file that does not fit into 4 MiB.
fn inputs(root: &Path) {
    fill(
        root,
        &[("small/a", b"fits"), ("small/b", &noise(6 << 20)), ("large/a", b"fits"), ("large/b", &noise(20 << 20))],
    );
}

async fn fills_up(room: &Path, inputs: &Path) {
    let store = ArtifactStore::open(room.join("store").to_str().unwrap()).unwrap();
    let (small, large) = (inputs.join("small"), inputs.join("large"));
    for input in [&small, &large] {
        let error = store.publish(input, "k").await.unwrap_err();
        assert_eq!(error.reason(), ErrorReason::StorageFull, "{error:?}");
        assert!(error.to_string().contains("no space left"), "{error}");
        assert_eq!(read(&room.join("store")), [], "nothing stays");
        assert!(matches!(store.read_manifest(&store.uri("k").unwrap()).await, Err(Error::NotFound { .. })));
    }
    let fits = folder(&[("a", b"fits")]);
    store.publish(fits.path(), "k").await.unwrap();

    // Fetching: the store is elsewhere, the disk that fills up is ours.
    let memory = ArtifactStore::open("memory:///").unwrap();
    let published = memory.publish(&small, "k").await.unwrap();
    let error = memory.fetch(&published.uri, &room.join("out")).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::StorageFull, "{error:?}");
    assert!(error.to_string().contains(&room.display().to_string()), "{error}");
    assert!(!room.join("out").exists());
    assert!(read(room).iter().all(|(path, _)| path.starts_with("store/")), "{:?}", read(room));
    assert_eq!(memory.verify(&published.uri).await.unwrap().kind, Kind::Folder);
}

#[tokio::test]
async fn a_limit_on_file_sizes() {
    if let Some(root) = std::env::var_os(LIMITED) {
        let root = PathBuf::from(root);
        return fills_up(&root.join("room"), &root.join("inputs")).await;
    }
    // The limit holds for a whole process, so this test runs again in one of its own; the inputs are too large to be made there.
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("room")).unwrap();
    inputs(&root.path().join("inputs"));
    let output = Command::new("sh")
        // Blocks of 512 bytes: 4 MiB. Ignoring the signal turns it into an error of the write.
        .args(["-c", "trap '' XFSZ; ulimit -f 8192; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "artifacts::tests::full_disk::a_limit_on_file_sizes", "--nocapture"])
        .env(LIMITED, root.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// A real full disk, where the system lets us make one.
#[tokio::test]
async fn a_small_file_system() {
    let (room, input) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(disk) = Disk::mount(room.path()) else {
        eprintln!("file systems can be mounted by root only; `a_limit_on_file_sizes` covers the same code");
        return;
    };
    inputs(input.path());
    fills_up(&disk.0, input.path()).await;
}

/// A file system of 4 MiB; unmounted when this is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path) -> Option<Self> {
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(path).output().ok()?;
        output.status.success().then(|| Self(path.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: an upload's file handle may close a moment later.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
