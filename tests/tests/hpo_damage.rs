//! A study file that is damaged: kept aside and restored where there is a backup, left alone where there is none, told in either case.
#![allow(clippy::unwrap_used)] // Helpers of tests panic like the tests themselves.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hpo_svc::{
    storage::{Attributes, NewTrial, Store},
    study::Direction,
};
use jiff::Timestamp;
use quintet_proto::{
    optuna::{CreateNewStudyRequest, storage_service_client::StorageServiceClient},
    v1::{
        CreateStudyRequest, FloatDomain, GetStudyRequest, Objective, Parameter, StudySpec, SuggestTrialsRequest,
        TellTrialRequest, hpo_service_client::HpoServiceClient, parameter::Domain,
    },
};
use quintet_tests::sandbox::{PATIENCE, Sandbox};
use tonic::Code;

/// A server on a folder with a backup, or without.
fn sandbox(backup: bool) -> Sandbox {
    let sandbox = Sandbox::new().unwrap().args(["--services", "hpo"]);
    let location = format!("backup.location=file://{}", sandbox.folder().join("backup").display());
    match backup {
        true => sandbox.args(["--set", "backup.enabled=true", "--set", &location]),
        false => sandbox,
    }
}

/// Tells `count` trials of a study.
async fn tell(sandbox: &Sandbox, count: i32) {
    let mut client = HpoServiceClient::new(sandbox.connection().unwrap());
    let domain = Some(Domain::Float(FloatDomain { low: 0.0, high: 1.0, log: false, step: None }));
    let spec = StudySpec {
        search_space: vec![Parameter { name: "x".into(), domain, condition: None }],
        objectives: vec![Objective { metric: "loss".into(), direction: 1 }],
        ..StudySpec::default()
    };
    let request = CreateStudyRequest { study_name: "s".into(), spec: Some(spec) };
    client.create_study(request).await.unwrap();
    let request = SuggestTrialsRequest { study: "studies/s".into(), client_id: "c".into(), count };
    for trial in client.suggest_trials(request).await.unwrap().into_inner().trials {
        let told = TellTrialRequest { name: trial.name, values: vec![0.5], ..TellTrialRequest::default() };
        client.tell_trial(told).await.unwrap();
    }
}

async fn trials(sandbox: &Sandbox) -> Result<i32, tonic::Status> {
    let mut client = HpoServiceClient::new(sandbox.connection().unwrap());
    Ok(client.get_study(GetStudyRequest { name: "studies/s".into() }).await?.into_inner().trial_count)
}

/// Ends the server, and puts what its log still holds into the study file, so that damage to the file is damage.
async fn end(sandbox: &mut Sandbox) {
    sandbox.terminate().unwrap();
    let aside = tempfile::tempdir().unwrap();
    let beside = |path: &Path, suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    let (file, copy) = (file(sandbox), aside.path().join("hpo.db"));
    for suffix in ["", "-wal"] {
        if beside(&file, suffix).exists() {
            fs::rename(beside(&file, suffix), beside(&copy, suffix)).unwrap();
        }
    }
    if beside(&file, "-shm").exists() {
        fs::remove_file(beside(&file, "-shm")).unwrap();
    }
    let store = Store::open(&format!("sqlite://{}", copy.display())).unwrap();
    store.snapshot(&file).await.unwrap();
}

/// The study file.
fn file(sandbox: &Sandbox) -> PathBuf {
    sandbox.data_dir().join("hpo.db")
}

/// Overwrites the middle of a file with zeroes.
fn zero_the_middle(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let (page, pages) = (4096, bytes.len() / 4096);
    assert!(pages > 4);
    // All but the first page and the last: whichever tree is in between is broken.
    bytes[page..(pages - 1) * page].fill(0);
    fs::write(path, bytes).unwrap();
}

fn kept(sandbox: &Sandbox) -> Vec<PathBuf> {
    let all = fs::read_dir(sandbox.data_dir()).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.display().to_string().contains("hpo.db.corrupt-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_study_file_is_restored_at_the_start_and_told() {
    let mut sandbox = sandbox(true);
    sandbox.start().unwrap();
    tell(&sandbox, 6).await;
    // What clients tell is copied some seconds later.
    let copies = sandbox.folder().join("backup/databases/hpo");
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_dir(&copies).is_ok_and(|mut copies| copies.next().is_some()) {
        assert!(Instant::now() < deadline, "no copy in {}", copies.display());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    end(&mut sandbox).await;
    zero_the_middle(&file(&sandbox));
    let damaged = fs::read(file(&sandbox)).unwrap();
    sandbox.start().unwrap();
    assert_eq!(trials(&sandbox).await.unwrap(), 6);
    let kept = kept(&sandbox);
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(fs::read(&kept[0]).unwrap(), damaged);
    let log = fs::read_to_string(sandbox.log()).unwrap();
    let line = log.lines().find(|line| line.contains("ERROR") && line.contains("was damaged")).unwrap();
    for part in
        ["hpo.db was damaged (", "restored from its backup databases/hpo/20", "is lost", &kept[0].display().to_string()]
    {
        assert!(line.contains(part), "{line}: {part}");
    }
    // And it goes on.
    tell(&sandbox, 1).await;
    assert_eq!(trials(&sandbox).await.unwrap(), 7);
    // With ids that no client can know from what is lost.
    let mut client = StorageServiceClient::new(sandbox.connection().unwrap());
    let request = CreateNewStudyRequest { directions: vec![0], study_name: "later".into() };
    assert!(client.create_new_study(request).await.unwrap().into_inner().study_id > 1_000_000);
    sandbox.terminate().unwrap();
    assert_eq!(log.matches("was damaged").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_backup_nothing_starts_and_nothing_is_changed() {
    let mut sandbox = sandbox(false);
    sandbox.start().unwrap();
    tell(&sandbox, 2).await;
    end(&mut sandbox).await;
    let sound = fs::read(file(&sandbox)).unwrap();
    for (bytes, problem) in [(&b"SQL"[..], "file is not a database"), (&sound[..sound.len() / 2], "")] {
        fs::write(file(&sandbox), bytes).unwrap();
        let error = sandbox.start().unwrap_err().to_string();
        assert!(error.contains("exit status: 1") && error.contains("hpo.db: the database is damaged ("), "{error}");
        assert!(
            error.contains(problem) && error.contains("backup is off") && error.contains("Move the file away"),
            "{error}"
        );
        assert_eq!(fs::read(file(&sandbox)).unwrap(), bytes);
        let data = sandbox.data_dir().display().to_string();
        sandbox.file("p.yaml", "name: p\nstages:\n  c:\n    command: {command: 'true'}\n").unwrap();
        let run = sandbox.quintet(&["run", "p.yaml", "--data-dir", &data]).unwrap();
        let told = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(1), "{told}");
        assert!(told.contains("the database is damaged (") && !told.contains("--server"), "{told}");
    }
    assert!(kept(&sandbox).is_empty());
    // An empty file is a fresh database.
    fs::write(file(&sandbox), b"").unwrap();
    sandbox.start().unwrap();
    assert_eq!(trials(&sandbox).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_comes_while_it_is_served_is_data_loss() {
    let mut sandbox = sandbox(false);
    fs::create_dir_all(sandbox.data_dir()).unwrap();
    {
        // More than what a reader keeps in memory.
        let store = Store::open(&sandbox.database("hpo")).unwrap();
        let study =
            store.create_study("s", &[Direction::Minimize], Attributes::new(), Attributes::new()).await.unwrap();
        let text = format!("\"{}\"", "x".repeat(3000));
        for number in 0..50 {
            let user_attrs = Attributes::from([(format!("k{number}"), text.clone())]);
            let new = NewTrial { user_attrs, ..NewTrial::default() };
            store.create_trial(study.id, new, Timestamp::now()).await.unwrap();
        }
    }
    sandbox.start().unwrap();
    zero_the_middle(&file(&sandbox));
    let status = trials(&sandbox).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status:?}");
    assert!(
        status.message().contains("the database is damaged") && status.message().contains("restart the server"),
        "{status:?}"
    );
    sandbox.kill().unwrap();
}
