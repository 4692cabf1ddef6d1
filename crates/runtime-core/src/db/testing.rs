//! A throwaway PostgreSQL server for tests, so that every contract suite runs against the real thing.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::unistd::{Uid, User, chown};

/// A server of its own in a temporary folder; it ends when this is dropped, or with the thread that started it.
pub struct PostgresServer {
    child: Child,
    folder: tempfile::TempDir,
    databases: AtomicU32,
}

impl PostgresServer {
    /// Starts a server on a socket in a temporary folder.
    ///
    /// # Errors
    /// Says which program is missing, or why the server did not start.
    pub fn start() -> Result<Self, String> {
        let programs =
            programs().ok_or("PostgreSQL is not installed: `cargo xtask setup` or the package postgresql brings it")?;
        let folder = tempfile::Builder::new().prefix("quintet-pg-").tempdir().map_err(|e| e.to_string())?;
        // The server refuses to run as root.
        let owner = if Uid::effective().is_root() {
            let nobody =
                User::from_name("nobody").ok().flatten().ok_or("there is no user `nobody` to run PostgreSQL as")?;
            chown(folder.path(), Some(nobody.uid), Some(nobody.gid)).map_err(|e| e.to_string())?;
            Some(nobody)
        } else {
            None
        };
        let data = folder.path().join("data");
        let command = |name: &str| {
            let mut command = Command::new(programs.join(name));
            command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            if let Some(user) = &owner {
                command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
            }
            command
        };
        let made = command("initdb")
            .args(["--no-sync", "--auth=trust", "--username=quintet", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .output()
            .map_err(|e| format!("initdb: {e}"))?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let log = std::fs::File::create(folder.path().join("log")).map_err(|e| e.to_string())?;
        let mut server = command("postgres");
        server.arg("-D").arg(&data).arg("-k").arg(folder.path()).args(["-c", "listen_addresses="]).stderr(log);
        // SAFETY: prctl is async-signal-safe, and nothing else runs between fork and exec.
        unsafe {
            server.pre_exec(|| {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                Ok(())
            });
        }
        let child = server.spawn().map_err(|e| format!("postgres: {e}"))?;
        let mut server = Self { child, folder, databases: AtomicU32::new(0) };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let url = self.url("postgres");
        loop {
            if std::thread::scope(|s| {
                s.spawn(|| postgres::Client::connect(&url, postgres::NoTls).is_ok()).join().unwrap_or(false)
            }) {
                return Ok(());
            }
            let ended = self.child.try_wait().map_err(|e| e.to_string())?;
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(format!("PostgreSQL did not start: {log}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn url(&self, database: &str) -> String {
        let folder = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgresql://quintet@{folder}/{database}")
    }

    /// The URL of a new, empty database.
    ///
    /// # Errors
    /// The server's message.
    pub fn database(&self) -> Result<String, String> {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let url = self.url("postgres");
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let mut client = postgres::Client::connect(&url, postgres::NoTls).map_err(|e| e.to_string())?;
                    client.batch_execute(&format!("CREATE DATABASE {name}")).map_err(|e| e.to_string())
                })
                .join()
                .map_err(|_| "the connecting thread panicked".to_owned())?
        })?;
        Ok(self.url(&name))
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // The folder goes with it, so there is nothing to shut down in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder with `initdb` and `postgres`: the machine's newest, else the one that set-up brought.
fn programs() -> Option<PathBuf> {
    let mut installed: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    installed.sort();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.runtime/postgres/bin");
    installed.into_iter().rev().map(|(_, path)| path).chain([root]).find(|path| path.join("initdb").is_file())
}
