//! Copies on a real disk: made when needed, verified, listed, thinned out, and restored without a trace of what was there.
use std::{fs, path::Path};

use super::{BackupPolicy, Error, Outcome, Snapshots, check_database, parse_time};
use crate::{
    artifacts::{self, ArtifactStore},
    config::Loader,
    db::{Db, Migration, Tx},
    server::Drain,
};

struct Place {
    folder: tempfile::TempDir,
    policy: BackupPolicy,
}

impl Place {
    fn new(keep: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let policy = BackupPolicy::new(folder.path().join("backups").to_str().unwrap(), keep).unwrap();
        Self { folder, policy }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> std::path::PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    async fn ids(&self, prefix: &str) -> Vec<String> {
        self.policy.list(prefix).await.unwrap().iter().map(super::BackupEntry::id).collect()
    }
}

fn made(outcome: Outcome) -> super::BackupEntry {
    match outcome {
        Outcome::Made(entry) => entry,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_copy_is_made_when_it_is_needed() {
    let place = Place::new(0);
    let file = place.write("out/model.bin", "one");
    let (name, folder) = ("outputs/1/model", place.path("out"));
    let backup = async |path: &Path| place.policy.immediate_backup_if_needed(name, path).await;
    assert_eq!(BackupPolicy::disabled().immediate_backup_if_needed(name, &file).await.unwrap(), Outcome::Disabled);
    assert_eq!(backup(&place.path("nothing")).await.unwrap(), Outcome::Missing);
    let first = made(backup(&folder).await.unwrap());
    assert_eq!((first.name.as_str(), first.artifact.file_count), (name, 1));
    assert_eq!(backup(&folder).await.unwrap(), Outcome::Unchanged(first.clone()));
    place.write("out/deep/more", "two");
    let second = made(backup(&folder).await.unwrap());
    assert!(second.time > first.time);
    assert_eq!(place.ids("").await, [first.id(), second.id()]);
    assert_eq!(backup(&place.path("backups/outputs")).await.unwrap(), Outcome::AlreadyThere);
    let error = backup(place.folder.path()).await.unwrap_err();
    assert!(matches!(error, Error::Inside { .. }), "{error}");
}

#[tokio::test]
async fn artifacts_are_copied_from_their_store() {
    let place = Place::new(0);
    let store = ArtifactStore::open(place.path("artifacts").to_str().unwrap()).unwrap();
    place.write("in/a", "1");
    let folder = store.publish(&place.path("in"), "jobs/1/out").await.unwrap();
    let file = store.publish(&place.path("in/a"), "jobs/1/file").await.unwrap();
    for artifact in [&folder, &file] {
        let copy = made(place.policy.backup_artifact("x", &store, &artifact.uri).await.unwrap());
        assert_eq!(copy.artifact.digest, artifact.digest, "the copy is the same artifact");
        let again = place.policy.backup_artifact("x", &store, &artifact.uri).await.unwrap();
        assert_eq!(again, Outcome::Unchanged(copy.clone()));
        let inside = place.policy.backup_artifact("x", &store, &copy.artifact.uri).await.unwrap();
        assert_eq!(inside, Outcome::AlreadyThere);
    }
    let missing = store.uri("jobs/2").unwrap();
    assert_eq!(place.policy.backup_artifact("x", &store, &missing).await.unwrap(), Outcome::Missing);
}

#[tokio::test]
async fn only_so_many_copies_are_kept() {
    let place = Place::new(2);
    let mut ids = Vec::new();
    for content in ["1", "2", "3", "4"] {
        let file = place.write("f", content);
        ids.push(made(place.policy.immediate_backup_if_needed("kept", &file).await.unwrap()).id());
    }
    assert_eq!(place.ids("kept").await, ids[2..]);
}

#[tokio::test]
async fn restoring_asks_before_it_replaces_and_verifies_before_it_does() {
    let place = Place::new(0);
    let folder = place.path("out");
    place.write("out/a", "old");
    let old = made(place.policy.immediate_backup_if_needed("out", &folder).await.unwrap());
    place.write("out/a", "new");
    let new = made(place.policy.immediate_backup_if_needed("out", &folder).await.unwrap());
    place.write("out/b", "not in any copy");

    assert!(matches!(place.policy.restore("out", &folder, false).await, Err(Error::Exists { .. })));
    assert!(matches!(place.policy.restore("nothing", &folder, true).await, Err(Error::NotFound { .. })));
    assert_eq!(place.policy.restore("out", &place.path("fresh/place"), false).await.unwrap(), new);
    assert_eq!(fs::read_to_string(place.path("fresh/place/a")).unwrap(), "new");
    assert_eq!(place.policy.restore(&old.id(), &folder, true).await.unwrap(), old);
    assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "old");
    assert!(!folder.join("b").exists());

    // A damaged copy replaces nothing.
    let stored = walkdir::WalkDir::new(place.path("backups").join(new.id())).into_iter().map(Result::unwrap);
    let stored = stored.filter(|item| item.file_name() == "a").map(walkdir::DirEntry::into_path).next().unwrap();
    fs::write(stored, "NEW").unwrap();
    let error = place.policy.restore("out", &folder, true).await.unwrap_err();
    assert!(matches!(error, Error::Artifact(artifacts::Error::Corrupt { .. })), "{error}");
    assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "old");
    // Nothing temporary stays anywhere.
    let hidden = walkdir::WalkDir::new(place.folder.path()).into_iter().map(Result::unwrap);
    assert_eq!(hidden.filter(|item| item.file_name().to_string_lossy().starts_with(".restore")).count(), 0);
}

const TABLE: &[Migration] = &[Migration {
    name: "1",
    sqlite: "CREATE TABLE trial (number INTEGER PRIMARY KEY)",
    postgres: "CREATE TABLE trial (number BIGINT PRIMARY KEY)",
}];

fn open(path: &Path) -> Db {
    Db::open(&format!("sqlite://{}", path.display()), TABLE).unwrap()
}

async fn add_trial(db: &Db, number: i64) {
    let insert = move |tx: &mut dyn Tx| tx.execute("INSERT INTO trial(number) VALUES ($1)", &[number.into()]);
    db.write::<u64, crate::db::Error, _>(insert).await.unwrap();
}

async fn trials(db: &Db) -> i64 {
    let count = |tx: &mut dyn Tx| tx.query("SELECT COUNT(*) FROM trial", &[])?[0].int(0);
    db.read::<i64, crate::db::Error, _>(count).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_study_is_copied_after_each_trial_and_restored_over_a_newer_one() {
    let place = Place::new(0);
    let path = place.path("study.db");
    let db = open(&path);
    let drain = Drain::new();
    let (snapshots, task) = Snapshots::new(place.policy.clone(), "databases/hpo", db.clone(), drain.clone());
    let task = tokio::spawn(task);
    for number in 0..5 {
        add_trial(&db, number).await;
        snapshots.changed();
    }
    snapshots.flush().await.unwrap();
    let copied = place.policy.find("databases/hpo").await.unwrap();
    // These are in the write-ahead log only when the copy is put back: it must go, or it would be replayed into the copy.
    for number in 5..8 {
        add_trial(&db, number).await;
    }
    drain.begin();
    task.await.unwrap();
    // What a server that was killed leaves: the database with its log.
    let killed = place.path("killed.db");
    fs::copy(&path, &killed).unwrap();
    assert!(fs::copy(place.path("study.db-wal"), place.path("killed.db-wal")).unwrap() > 0);

    let error = place.policy.restore("databases/hpo", &killed, false).await.unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    assert_eq!(place.policy.restore(&copied.id(), &killed, true).await.unwrap(), copied);
    assert!(!place.path("killed.db-wal").exists());
    check_database(&killed).unwrap();
    assert_eq!((trials(&open(&killed)).await, trials(&db).await), (5, 8));
    let path = place.path("no.db");
    fs::write(&path, "no database at all, but long enough to look like one to somebody in a hurry").unwrap();
    assert!(check_database(&path).is_err());
}

/// A database whose second copy is damaged in the backup, and whose file then breaks.
async fn broken(place: &Place) -> (std::path::PathBuf, String, Vec<super::BackupEntry>, Vec<u8>) {
    let path = place.path("hpo.db");
    let mut copies = Vec::new();
    let db = open(&place.path("before.db"));
    for number in 0..2 {
        add_trial(&db, number).await;
        copies.push(made(place.policy.backup_database("databases/hpo", &db).await.unwrap()));
    }
    add_trial(&db, 2).await;
    // A file that nobody has open, for certain.
    db.snapshot(&path).await.unwrap();
    let mut stored = walkdir::WalkDir::new(place.path("backups").join(copies[1].id())).into_iter().map(Result::unwrap);
    let stored = stored.find(|item| item.file_name() == "database.db").unwrap();
    fs::write(stored.path(), "cut").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0xA5);
    fs::write(&path, &bytes).unwrap();
    (path.clone(), format!("sqlite://{}", path.display()), copies, bytes)
}

#[tokio::test]
async fn a_damaged_database_is_kept_aside_and_restored_from_its_newest_sound_copy() {
    let place = Place::new(0);
    let (path, url, copies, bytes) = broken(&place).await;
    fs::write(place.path("hpo.db-wal"), "what its program left").unwrap();
    let recovery = place.policy.recover("databases/hpo", &url).await.unwrap().expect("the damage is seen");
    assert_eq!((&recovery.entry, &recovery.damage.path), (&copies[0], &path), "not the one that is damaged itself");
    let beside = |suffix: &str| std::path::PathBuf::from(format!("{}{suffix}", recovery.kept.display()));
    assert_eq!(fs::read(&recovery.kept).unwrap(), bytes);
    assert_eq!(fs::read(beside("-wal")).unwrap(), b"what its program left");
    assert!(recovery.kept.display().to_string().starts_with(&format!("{}.corrupt-20", path.display())));
    assert!(!place.path("hpo.db-wal").exists());
    assert_eq!(trials(&open(&path)).await, 1);
    let told = recovery.to_string();
    for part in [
        "hpo.db was damaged (",
        &copies[0].id(),
        " old: what was written after 20",
        " UTC is lost",
        &recovery.kept.display().to_string(),
    ] {
        assert!(told.contains(part), "{told}: {part}");
    }
    assert_eq!(place.policy.recover("databases/hpo", &url).await.unwrap(), None, "it is sound now");
}

#[tokio::test]
async fn without_a_sound_copy_a_damaged_database_stays_as_it_is() {
    let place = Place::new(0);
    let (path, url, ..) = broken(&place).await;
    let bytes = fs::read(&path).unwrap();
    for (policy, name, why) in [
        (BackupPolicy::disabled(), "databases/hpo", "backup is off"),
        (place.policy.clone(), "databases/other", "there is no sound backup of `databases/other`"),
    ] {
        let error = policy.recover(name, &url).await.unwrap_err();
        assert!(
            matches!(&error, Error::Beyond { path: of, why: told, .. } if *of == path && told.contains(why)),
            "{error}"
        );
        let told = error.to_string();
        assert!(told.contains("hpo.db: the database is damaged (") && told.contains("Move the file away"), "{told}");
        assert_eq!(error.reason(), crate::status::ErrorReason::DataCorrupt);
    }
    assert_eq!(fs::read(&path).unwrap(), bytes);
    let names: Vec<_> = fs::read_dir(place.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains("corrupt")), "{names:?}");
}

#[tokio::test]
async fn copies_can_be_read_when_backup_is_off() {
    let place = Place::new(0);
    let file = place.write("f", "x");
    made(place.policy.immediate_backup_if_needed("n", &file).await.unwrap());
    let location = place.path("backups").display().to_string();
    let config = Loader::new().set("backup.location", location).load().unwrap();
    let policy = BackupPolicy::from_config(&config).unwrap();
    assert!(!policy.is_enabled());
    assert_eq!(policy.list("").await.unwrap().len(), 1);
    assert!(matches!(BackupPolicy::disabled().list("").await, Err(Error::NoLocation)));
}

#[test]
fn times_read_back() {
    let time = jiff::Timestamp::from_microsecond(1_796_000_000_000_042).unwrap();
    let text = time.strftime(super::TIME).to_string();
    assert_eq!(parse_time(&text), Some(time), "{text}");
    for bad in ["", "Z", "checkpoint", "20261123T160000Z", "20261123T160000aaaaaaZ", "20269923T160000000000Z"] {
        assert_eq!(parse_time(bad), None, "{bad}");
    }
}
