//! The real programs in a folder of their own: a server that can be killed and started again, and commands beside it.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::Signal;
use quintet_proto::v1::{Job, ListJobsRequest};
use runtime_core::client::{Connection, JobClient, connect};

/// A program that has not come so far by then hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server in a process of its own; it dies with the thread that started it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// `http://HOST:PORT`.
    pub url: String,
}

impl Process {
    /// Starts a server that writes its address to `ready_file`, and waits until it has; its standard error goes to `log`.
    ///
    /// # Errors
    /// It ended early, with the end of its log, or was not ready in time.
    pub fn start(command: &mut Command, ready_file: &Path, log: &Path) -> anyhow::Result<Self> {
        let log_file =
            File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
        if ready_file.exists() {
            fs::remove_file(ready_file)?;
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file);
        // SAFETY: prctl is async-signal-safe, and nothing else runs between fork and exec.
        unsafe {
            command.pre_exec(|| {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                Ok(())
            });
        }
        let program = command.get_program().display().to_string();
        let mut child = command.spawn().with_context(|| format!("{program}; `cargo build --workspace` builds it"))?;
        let start = Instant::now();
        loop {
            if let Ok(address) = fs::read_to_string(ready_file) {
                return Ok(Self { child, url: format!("http://{}", address.trim()) });
            }
            if let Some(status) = child.try_wait()? {
                bail!("{program} ended with {status}: {}", tail(log));
            }
            if start.elapsed() > PATIENCE {
                child.kill()?;
                child.wait()?;
                bail!("{program} was not ready after {PATIENCE:?}: {}", tail(log));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its process id.
    pub fn id(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// Kills it as a crash or a power cut would, and waits until it is gone.
    ///
    /// # Errors
    /// The system's.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    /// It did not end well, or not in time.
    pub fn terminate(mut self) -> anyhow::Result<()> {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.id()), Signal::SIGTERM)?;
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the server ended with {status}");
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "the server did not end within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already when it was killed in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a file.
pub fn tail(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// A data folder with `quintet serve` on it.
#[derive(Debug)]
pub struct Sandbox {
    folder: tempfile::TempDir,
    server: Option<Process>,
    /// Further arguments and variables of the server.
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    listen: String,
}

impl Sandbox {
    /// A folder without a server.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("quintet-").tempdir()?;
        let (server, arguments, variables) = (None, Vec::new(), Vec::new());
        Ok(Self { folder, server, arguments, variables, listen: "127.0.0.1:0".into() })
    }

    /// Gives the server an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Gives the server arguments.
    #[must_use]
    pub fn args<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// Gives the server a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Starts the server; again on the port that it had, so that clients find it.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn start(&mut self) -> anyhow::Result<()> {
        let ready = self.folder.path().join("ready");
        let mut command = quintet()?;
        command.arg("serve").arg("--data-dir").arg(self.data_dir()).args(["--listen", &self.listen]);
        command.arg("--ready-file").arg(&ready).args(&self.arguments).envs(self.variables.iter().cloned());
        let server = Process::start(&mut command, &ready, &self.log())?;
        self.listen = server.url.trim_start_matches("http://").to_owned();
        self.server = Some(server);
        Ok(())
    }

    /// The running server.
    ///
    /// # Errors
    /// There is none.
    pub fn server(&self) -> anyhow::Result<&Process> {
        self.server.as_ref().context("the server does not run")
    }

    /// Kills the server.
    ///
    /// # Errors
    /// There is none, or the system's.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.server.take().context("the server does not run")?.kill()
    }

    /// Ends the server in good order.
    ///
    /// # Errors
    /// As [`Process::terminate`].
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        self.server.take().context("the server does not run")?.terminate()
    }

    /// The address of the server.
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// A connection to the server.
    ///
    /// # Errors
    /// The server was never started.
    pub fn connection(&self) -> anyhow::Result<Connection> {
        Ok(connect(&self.url(), None)?)
    }

    /// A client of its jobs that outlasts a restart.
    ///
    /// # Errors
    /// The server was never started.
    pub fn jobs(&self) -> anyhow::Result<JobClient> {
        Ok(JobClient::new(self.connection()?, PATIENCE))
    }

    /// The children of a job, oldest first.
    ///
    /// # Errors
    /// The server's status.
    pub async fn children(&self, parent: &str) -> anyhow::Result<Vec<Job>> {
        let request = ListJobsRequest { parent: parent.into(), page_size: 1000, ..ListJobsRequest::default() };
        let mut jobs = self.jobs()?.raw().list_jobs(request).await?.into_inner().jobs;
        jobs.reverse();
        Ok(jobs)
    }

    /// The folder; the server's data lies in a folder in it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the server keeps everything.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The SQLite database of a service.
    pub fn database(&self, name: &str) -> String {
        format!("sqlite://{}", self.data_dir().join(format!("{name}.db")).display())
    }

    /// What the server logs.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// Writes a file into the folder.
    ///
    /// # Errors
    /// The system's.
    pub fn file(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Runs `quintet` with arguments in the folder and waits for its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn quintet(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(quintet()?.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null()).output()?)
    }
}

/// `quintet` as it was built, without the settings of the user's environment.
///
/// # Errors
/// It was not built.
pub fn quintet() -> anyhow::Result<Command> {
    let mut command = Command::new(program("quintet")?);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QUINTET_")) {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1");
    Ok(command)
}

/// A program of the workspace: it lies beside the folder of the tests.
///
/// # Errors
/// It was not built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let path = test.parent().and_then(Path::parent).unwrap_or(Path::new("")).join(name);
    ensure!(path.is_file(), "{} is missing: `cargo build --workspace` builds it", path.display());
    Ok(path)
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("")).to_owned()
}

/// The Python of `cargo xtask setup`, with the packages that tests need.
///
/// # Errors
/// Set-up was not done.
pub fn python() -> anyhow::Result<PathBuf> {
    let path = root().join(".runtime/venv/bin/python");
    ensure!(path.exists(), "{} is missing: `cargo xtask setup` brings it", path.display());
    Ok(path)
}
