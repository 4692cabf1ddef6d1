//! What goes wrong on the machine or with a command as a whole: each ends with its exit status and a message that names the place.
// Helpers of tests fail by panicking, like the tests; each test has a stack of its own for its future.
#![allow(clippy::unwrap_used, clippy::large_futures)]

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid},
};
use quintet_proto::v1::{
    CommandSpec, CreateJobRequest, ErrorClass, Job, JobSpec, JobState, RetryPolicy, job_event::Event, job_spec::Kind,
};
use quintet_tests::{
    history::History,
    sandbox::{Sandbox, program},
};
use runtime_core::{artifacts::ArtifactStore, jobs::model::proto_duration};

#[track_caller]
fn told(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{}{text}", String::from_utf8_lossy(&output.stdout));
    text
}

fn command(text: &str, outputs: &[&str]) -> Job {
    let outputs = outputs.iter().map(|name| (*name).to_owned()).collect();
    let command = CommandSpec { command: text.into(), outputs, ..CommandSpec::default() };
    let spec = Some(JobSpec { kind: Some(Kind::Command(command)) });
    // Repeated at once, so that a test need not wait.
    let retry = RetryPolicy { initial_backoff: Some(proto_duration(1)), ..RetryPolicy::default() };
    Job { spec, retry: Some(retry), ..Job::default() }
}

fn request(job: Job, id: &str) -> CreateJobRequest {
    CreateJobRequest { job: Some(job), request_id: id.into(), ..CreateJobRequest::default() }
}

#[test]
fn a_port_in_use_is_named() {
    let sandbox = Sandbox::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = sandbox.quintet(&["serve", "--data-dir", "d", "--listen", &address]).unwrap();
    let text = told(&output, 1);
    assert!(text.contains(&address) && text.contains("in use"), "{text}");
    let wrong = told(&sandbox.quintet(&["serve", "--data-dir", "d", "--listen", "nowhere"]).unwrap(), 78);
    assert!(wrong.contains("nowhere"), "{wrong}");
}

#[test]
fn a_data_folder_has_one_server() {
    let mut sandbox = Sandbox::new().unwrap();
    sandbox.start().unwrap();
    let data = sandbox.data_dir();
    let second = sandbox.quintet(&["serve", "--listen", "127.0.0.1:0", "--data-dir", &data.display().to_string()]);
    let text = told(&second.unwrap(), 1);
    assert!(text.contains("owned by another running server") && text.contains("data"), "{text}");
}

#[test]
fn unknown_keys_of_the_configuration_are_named_with_their_origin() {
    let sandbox = Sandbox::new().unwrap();
    sandbox.file("c.toml", "[limits]\nmessages = \"1MiB\"\n").unwrap();
    let text = told(&sandbox.quintet(&["serve", "--config", "c.toml"]).unwrap(), 78);
    assert!(text.contains("c.toml") && text.contains("limits") && text.contains("messages"), "{text}");
    assert!(!sandbox.folder().join("quintet-data").exists(), "nothing was begun");
}

const TRAIN: &str = "
name: train
stages:
  train:
    train:
      checkpoint: CHECKPOINT
      data: {train: train.conll}
";

#[test]
fn a_checkpoint_that_is_missing_or_broken_is_named() {
    let sandbox = Sandbox::new().unwrap();
    sandbox.file("train.conll", "anna B-per\nlives O\n\n").unwrap();
    sandbox.file("p.yaml", &TRAIN.replace("CHECKPOINT", "nowhere/model")).unwrap();
    let text = told(&sandbox.quintet(&["run", "p.yaml", "--data-dir", "d"]).unwrap(), 2);
    assert!(text.contains("p.yaml:6:19: stages.train.train.checkpoint") && text.contains("nowhere/model"), "{text}");

    if let Err(missing) = program("train-worker") {
        eprintln!("a broken checkpoint is not tried: {missing}");
        return;
    }
    let broken = sandbox.folder().join("broken");
    let words = vec!["anna".to_owned()];
    quintet_nlp::testing::TinyCheckpoint { words, ..Default::default() }.write(&broken).unwrap();
    let weights = fs::read(broken.join("model.safetensors")).unwrap();
    fs::write(broken.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    sandbox.file("p.yaml", &TRAIN.replace("CHECKPOINT", "broken")).unwrap();
    let output = sandbox.quintet(&["run", "p.yaml", "--data-dir", "d", "--json", "r.json"]).unwrap();
    let text = told(&output, 1);
    assert!(text.contains("stage `train`") && text.contains("model.safetensors"), "{text}");
    let document: serde_json::Value =
        serde_json::from_slice(&fs::read(sandbox.folder().join("r.json")).unwrap()).unwrap();
    assert_eq!(document["stages"][0]["state"], "FAILED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_costs_an_attempt_and_a_job_that_kills_its_workers_says_so() {
    let mut sandbox = Sandbox::new().unwrap();
    sandbox.start().unwrap();
    let jobs = sandbox.jobs().unwrap();
    // The program kills its own worker, as running out of memory would; the first time alone, or each time.
    let once = sandbox.folder().join("once");
    let text = format!("test -e {0} && exit 0; touch {0}; kill -9 $PPID; sleep 60", once.display());
    let ended = jobs.submit_and_wait(request(command(&text, &[]), "once"), |_| {}).await.unwrap();
    assert_eq!((ended.state(), counted(&ended)), (JobState::Succeeded, 1), "{ended:?}");
    assert!(ended.attempt_errors.iter().any(|error| error.message.contains("SIGKILL")), "{:?}", ended.attempt_errors);
    let always =
        jobs.submit_and_wait(request(command("kill -9 $PPID; sleep 60", &[]), "always"), |_| {}).await.unwrap();
    let error = always.error.as_ref().unwrap();
    let found = (always.state(), counted(&always), error.reason.as_str());
    assert_eq!(found, (JobState::Failed, 2, "OUT_OF_MEMORY"), "before the third and last attempt: {always:?}");
    assert!(error.message.contains("SIGKILL"), "{error:?}");
    History::check(&sandbox.database("jobs")).await.unwrap().all_ended().unwrap();
}

/// Failed attempts before the last one that count: one that was given back before it began does not.
fn counted(job: &Job) -> usize {
    job.attempt_errors.iter().filter(|error| error.class() != ErrorClass::Preemption).count()
}

/// A small file system; none when only root may mount.
struct Small {
    folder: tempfile::TempDir,
}

impl Small {
    fn new(size: &str) -> Option<Self> {
        if !Uid::effective().is_root() {
            eprintln!("SKIPPED: a full disk takes a small file system, which only root may mount");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { folder }),
            other => {
                eprintln!("SKIPPED: a full disk takes a small file system, and mounting it failed: {other:?}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // The folder itself goes next.
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_while_publishing_fails_the_job_and_leaves_nothing_half_written() {
    let Some(small) = Small::new("4m") else { return };
    let store = small.path().join("artifacts").display().to_string();
    let mut sandbox = Sandbox::new().unwrap().arg("--set").arg(format!("artifacts.url={store}"));
    sandbox.start().unwrap();
    let jobs = sandbox.jobs().unwrap();
    let fits = command("head -c 1000000 /dev/zero > ${{outputs.model}}/a", &["model"]);
    let fits = jobs.submit_and_wait(request(fits, "fits"), |_| {}).await.unwrap();
    assert_eq!(fits.state(), JobState::Succeeded, "{:?}", fits.error);
    let large = command("for n in 1 2 3 4 5 6; do head -c 1000000 /dev/zero > ${{outputs.model}}/$n; done", &["model"]);
    let large = jobs.submit_and_wait(request(large, "large"), |_| {}).await.unwrap();
    let error = large.error.as_ref().unwrap();
    assert_eq!((large.state(), error.reason.as_str()), (JobState::Failed, "STORAGE_FULL"), "{error:?}");
    assert!(error.message.contains("model") && error.message.contains("space"), "{error:?}");
    // Only the first is there, and there is room for others.
    let store = ArtifactStore::open(&store).unwrap();
    let listed = store.list("").await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    store.verify(&fits.outputs.unwrap().artifacts["model"].uri).await.unwrap();
    let again = command("head -c 900000 /dev/zero > ${{outputs.model}}/b", &["model"]);
    let again = jobs.submit_and_wait(request(again, "again"), |_| {}).await.unwrap();
    assert_eq!(again.state(), JobState::Succeeded, "{:?}", again.error);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_job_store_refuses_what_cannot_be_stored_and_goes_on_when_there_is_room() {
    let Some(small) = Small::new("6m") else { return };
    let url = format!("sqlite://{}", small.path().join("jobs.db").display());
    // One service alone: a database by URL is shared by all.
    let mut sandbox = Sandbox::new().unwrap().arg("--set").arg(format!("database.url={url}")).args([
        "--set",
        "worker.enabled=false",
        "--services",
        "train",
    ]);
    sandbox.start().unwrap();
    let mut client = sandbox.jobs().unwrap().raw();
    let filler = small.path().join("filler");
    let mut accepted = Vec::new();
    accepted.push(client.create_job(request(command("true", &[]), "first")).await.unwrap().into_inner());
    fill(&filler);
    let refused = loop {
        let number = accepted.len();
        let job = command(&format!("echo {number} {}", "x".repeat(20_000)), &[]);
        match client.create_job(request(job, &format!("n{number}"))).await {
            Ok(job) => accepted.push(job.into_inner()),
            Err(status) => break status,
        }
        assert!(number < 1000, "the disk does not fill up");
    };
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("no space left"), "{refused:?}");
    fs::remove_file(&filler).unwrap();
    let after = client.create_job(request(command("echo after", &[]), "after")).await.unwrap().into_inner();
    accepted.push(after);
    sandbox.terminate().unwrap();
    let history = History::check(&url).await.unwrap();
    let names: Vec<&String> = history.jobs.keys().collect();
    assert_eq!(names.len(), accepted.len());
    assert!(accepted.iter().all(|job| history.jobs[&job.name] == *job));
}

/// Takes all the room that there is.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_asked_to_end_gives_its_attempts_back_and_the_next_one_finishes_them() {
    let mut sandbox = Sandbox::new().unwrap();
    sandbox.start().unwrap();
    let go = sandbox.folder().join("go");
    let text = format!("until test -e {}; do sleep 0.05; done", go.display());
    let made = sandbox.jobs().unwrap().create(request(command(&text, &[]), "waits")).await.unwrap();
    let (client, name) = (sandbox.jobs().unwrap(), made.name.clone());
    let (begun, is_begun) = tokio::sync::oneshot::channel();
    let watching = tokio::spawn(async move {
        let mut begun = Some(begun);
        let on_event = move |event: &quintet_proto::v1::JobEvent| {
            let running = matches!(&event.event, Some(Event::Transition(job)) if job.state() == JobState::Running);
            if running && let Some(begun) = begun.take() {
                let _ = begun.send(());
            }
        };
        client.watch(&name, 0, on_event, |_| {}).await
    });
    is_begun.await.unwrap();
    let server = sandbox.server().unwrap().id();
    assert!(kill(Pid::from_raw(server), None).is_ok());
    tokio::task::block_in_place(|| sandbox.terminate()).unwrap();
    assert_eq!(kill(Pid::from_raw(server), Signal::SIGKILL).unwrap_err(), nix::Error::ESRCH);
    fs::write(&go, "").unwrap();
    tokio::task::block_in_place(|| sandbox.start()).unwrap();
    let ended = watching.await.unwrap().unwrap();
    assert_eq!((ended.state(), counted(&ended)), (JobState::Succeeded, 0), "{ended:?}");
    assert!(!ended.attempt_errors.is_empty(), "the first attempt was given back");
}
