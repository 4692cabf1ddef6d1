//! pip in virtual environments of ours: the user's own index, proxy and cache settings hold, and every file is checked
//! against the hashes in our requirement files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::progress::Progress;

/// Wheels are taken for this Python and these platforms, whatever runs here: we unpack libraries, we do not import them.
const TARGET: &str = "3.11";
/// From the newest glibc that our pins ask for down to the oldest there is: pip takes only tags that are listed.
fn platforms() -> impl Iterator<Item = String> {
    let modern = (5..=28).rev().map(|minor| format!("manylinux_2_{minor}_x86_64"));
    modern.chain(["manylinux2014_x86_64", "manylinux2010_x86_64"].map(str::to_owned))
}

/// A virtual environment.
pub(crate) struct Venv {
    folder: PathBuf,
}

/// What kind of file a requirement names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Wheels,
    Source,
}

impl Venv {
    pub(crate) fn at(folder: PathBuf) -> Venv {
        Venv { folder }
    }

    pub(crate) fn python(&self) -> PathBuf {
        self.folder.join("bin/python")
    }

    /// Makes the environment anew, with pip in it.
    pub(crate) fn create(&self) -> Result<()> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove {}", self.folder.display()))?;
        }
        process::quiet(Command::new("python3").args(["-m", "venv"]).arg(&self.folder))
    }

    /// Installs all that a locked requirement file names. Only `built` is built from source, with what is installed.
    /// `scratch` takes pip's temporary files, which may be large, and is shown as what has arrived.
    pub(crate) fn install(
        &self,
        requirements: &Path,
        built: &[&str],
        scratch: &Path,
        progress: &Progress,
    ) -> Result<()> {
        progress.busy("installing Python packages");
        let mut command = self.pip("install", scratch)?;
        command.args(["--no-deps", "--require-hashes", "--no-build-isolation", "--only-binary=:all:"]);
        for package in built {
            command.args(["--no-binary", package]);
        }
        command.arg("--requirement").arg(requirements);
        let done = self.watch(command, scratch, |_| {});
        remove(scratch)?;
        done
    }

    /// Fetches what a requirement file names into `to`; files that are there and have the right hash are kept.
    pub(crate) fn download(
        &self,
        requirements: &Path,
        kind: Kind,
        to: &Path,
        size: u64,
        progress: &Progress,
    ) -> Result<Vec<PathBuf>> {
        progress.bytes("fetching", size);
        let scratch = to.join("tmp");
        let mut command = self.pip("download", &scratch)?;
        command.args(["--no-deps", "--require-hashes"]);
        match kind {
            Kind::Wheels => {
                command.args(["--only-binary=:all:", "--implementation=cp", "--python-version", TARGET]);
                command.args(platforms().map(|platform| format!("--platform={platform}")));
            }
            // In isolation pip would first fetch what builds the package, only to read its metadata.
            Kind::Source => {
                command.args(["--no-binary=:all:", "--no-build-isolation"]);
            }
        }
        command.arg("--dest").arg(to).arg("--requirement").arg(requirements);
        let done = self.watch(command, to, |bytes| progress.at(bytes.min(size)));
        remove(&scratch)?;
        done?;
        let mut files = Vec::new();
        for entry in fs::read_dir(to).with_context(|| format!("cannot read {}", to.display()))? {
            files.push(entry.with_context(|| format!("cannot read {}", to.display()))?.path());
        }
        files.sort();
        Ok(files)
    }

    fn pip(&self, verb: &str, scratch: &Path) -> Result<Command> {
        // What an interrupted run left there is of no use.
        remove(scratch)?;
        fs::create_dir_all(scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
        let mut command = Command::new(self.python());
        command.args(["-m", "pip", verb, "--disable-pip-version-check", "--no-input", "--progress-bar=off"]);
        // Not /tmp, which is small and in memory on many machines.
        command.env("TMPDIR", scratch);
        Ok(command)
    }

    /// Runs pip and reports ten times a second how many bytes lie below `folder`.
    fn watch(&self, mut command: Command, folder: &Path, report: impl Fn(u64)) -> Result<()> {
        let log = folder.with_extension("log");
        let sink = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = sink.try_clone().context("cannot share a file")?;
        command.stdin(Stdio::null()).stdout(sink).stderr(errors);
        let child = command.spawn().with_context(|| format!("cannot start {}", process::shown(&command)))?;
        let mut child = KillOnDrop(child);
        let status = loop {
            if let Some(status) = child.0.try_wait().context("cannot wait for pip")? {
                break status;
            }
            report(size_of(folder));
            std::thread::sleep(Duration::from_millis(100));
        };
        if !status.success() {
            let said = fs::read(&log).unwrap_or_default();
            bail!("{} ended with {status}\n{}", process::shown(&command), process::tail(&said, &[]));
        }
        remove(&log)
    }
}

/// pip does not outlive us when we fail.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // It has ended already unless waiting failed.
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Bytes of all files below a folder; files that vanish meanwhile count as nothing.
pub(crate) fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size_of(&entry.path()),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |metadata| metadata.len()),
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

/// Removes a file or folder if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let gone = if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match gone {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_add_up_over_folders_and_removal_is_idempotent() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("x"), [0; 10]).unwrap();
        fs::write(folder.path().join("y"), [0; 5]).unwrap();
        assert_eq!(size_of(folder.path()), 15);
        for path in [folder.path().join("a"), folder.path().join("y"), folder.path().join("y")] {
            remove(&path).unwrap();
            assert!(!path.exists());
        }
        assert_eq!(size_of(&inner), 0);
    }
}
