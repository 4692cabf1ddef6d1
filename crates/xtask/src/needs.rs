//! What the machine itself must bring, and which Debian or Ubuntu package brings it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// Oldest Python for which our requirement files hold pins.
const PYTHON: (u32, u32) = (3, 10);

/// Checks all at once, so that one `apt install` is enough.
pub(crate) fn check() -> Result<()> {
    let python = probe("python3", &["-c", "import sys; print(*sys.version_info[:2])"]);
    let venv = probe("python3", &["-c", "import venv, ensurepip, ssl"]);
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| OsString::from("c++"));
    let compiler = probe(&compiler.to_string_lossy(), &["--version"]);
    let missing = missing(python.as_deref(), venv.is_some(), compiler.is_some());
    if missing.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = missing.iter().map(|need| format!("  {}: {}", need.package, need.what)).collect();
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    bail!(
        "this machine lacks\n{}\nOn Debian and Ubuntu: sudo apt-get install {}",
        lines.join("\n"),
        packages.join(" ")
    );
}

#[derive(Debug, PartialEq, Eq)]
struct Need {
    package: &'static str,
    what: String,
}

/// `python` is "major minor" as Python prints it, or nothing when it does not run.
fn missing(python: Option<&str>, venv: bool, compiler: bool) -> Vec<Need> {
    let need = |package, what: &str| Need { package, what: what.to_owned() };
    let mut missing = Vec::new();
    let version = python.and_then(|text| {
        let mut numbers = text.split_whitespace().map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    match version {
        None => {
            missing.push(need("python3", "Python, which fetches the packages"));
            missing.push(need("python3-venv", "virtual environments and pip for it"));
        }
        Some(version) if version < PYTHON => {
            let (major, minor) = version;
            let what = format!("Python {}.{} or later; python3 is {major}.{minor}", PYTHON.0, PYTHON.1);
            missing.push(Need { package: "python3", what });
        }
        Some(_) if !venv => missing.push(need("python3-venv", "virtual environments and pip for Python")),
        Some(_) => {}
    }
    if !compiler {
        missing.push(need("g++", "a C++ compiler; or set CXX to one"));
    }
    missing
}

/// What `program` prints, or nothing when it is not there or fails.
fn probe(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Our pinned wheels are for this kind of machine alone.
pub(crate) fn wheels_fit() -> bool {
    cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))
}

/// The newest PostgreSQL server of the machine: the folder of its programs.
pub(crate) fn postgres() -> Option<PathBuf> {
    postgres_in(Path::new("/usr/lib/postgresql"))
        .or_else(|| std::env::split_paths(&std::env::var_os("PATH")?).find(|folder| has_server(folder)))
}

fn postgres_in(versions: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(versions).ok()?.flatten().map(|entry| entry.path().join("bin"));
    let version = |bin: &PathBuf| -> Option<u32> { bin.parent()?.file_name()?.to_str()?.parse().ok() };
    folders.filter(|folder| has_server(folder)).max_by_key(|folder| version(folder))
}

fn has_server(folder: &Path) -> bool {
    folder.join("postgres").is_file() && folder.join("initdb").is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(python: Option<&str>, venv: bool, compiler: bool) -> Vec<&'static str> {
        missing(python, venv, compiler).iter().map(|need| need.package).collect()
    }

    #[test]
    fn what_is_missing_is_named_by_package() {
        assert!(packages(Some("3 11"), true, true).is_empty());
        assert_eq!(packages(None, false, true), ["python3", "python3-venv"]);
        assert_eq!(packages(Some("3 12"), false, false), ["python3-venv", "g++"]);
        let old = missing(Some("3 9"), true, true);
        assert_eq!(old[0].what, "Python 3.10 or later; python3 is 3.9");
    }

    #[test]
    fn the_newest_whole_server_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(postgres_in(folder.path()), None);
        for (version, programs) in
            [("9", &["postgres", "initdb"][..]), ("16", &["postgres", "initdb"]), ("17", &["initdb"])]
        {
            let bin = folder.path().join(version).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            for program in programs {
                std::fs::write(bin.join(program), "").unwrap();
            }
        }
        assert_eq!(postgres_in(folder.path()), Some(folder.path().join("16/bin")));
    }
}
