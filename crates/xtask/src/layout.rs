//! Where everything lies: the folders under `.runtime/`, and which runtimes the user brings along.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The paths of one checkout. Names under `.runtime/` are stable: build scripts, tests and services rely on them.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    libtorch: Source,
    onnxruntime: Source,
}

/// Who provides a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Set-up does, at this path.
    Ours(PathBuf),
    /// The user does, by an environment variable.
    Users(PathBuf),
}

impl Source {
    /// `value` is what the environment says. Cargo's `[env]` table sets it to `ours` when the user has not.
    fn choose(value: Option<OsString>, ours: PathBuf) -> Source {
        match value {
            Some(value) if !value.is_empty() && Path::new(&value) != ours => Source::Users(PathBuf::from(value)),
            _ => Source::Ours(ours),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Source::Ours(path) | Source::Users(path) => path,
        }
    }
}

impl Layout {
    /// The layout of the checkout that this program was built in.
    pub(crate) fn find() -> Result<Layout> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.ancestors().nth(2).context("crates/xtask lies in no workspace")?;
        let root = root.canonicalize().with_context(|| {
            format!("{} is gone: the checkout was moved; run `cargo clean -p xtask` and try again", root.display())
        })?;
        Ok(Layout::new(root, |name| std::env::var_os(name)))
    }

    pub(crate) fn new(root: PathBuf, env: impl Fn(&str) -> Option<OsString>) -> Layout {
        let runtime = root.join(".runtime");
        let libtorch = Source::choose(env("LIBTORCH"), runtime.join("libtorch"));
        let onnxruntime = Source::choose(env("ORT_DYLIB_PATH"), runtime.join("onnxruntime/libonnxruntime.so"));
        Layout { root, libtorch, onnxruntime }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.root.join(".runtime")
    }

    /// Folder with `include/` and `lib/`.
    pub(crate) fn libtorch(&self) -> &Source {
        &self.libtorch
    }

    /// The shared library itself.
    pub(crate) fn onnxruntime(&self) -> &Source {
        &self.onnxruntime
    }

    /// Tells a program where the runtimes are, as Cargo's `[env]` table does for those that it starts.
    pub(crate) fn environment(&self, command: &mut Command) {
        command.env("LIBTORCH", self.libtorch.path());
        command.env("ORT_DYLIB_PATH", self.onnxruntime.path());
    }

    /// Python environment for pip and for the tests.
    pub(crate) fn venv(&self) -> PathBuf {
        self.runtime().join("venv")
    }

    /// Python environment with PyTorch and transformers.
    pub(crate) fn peers(&self) -> PathBuf {
        self.runtime().join("peers")
    }

    pub(crate) fn encoder(&self) -> PathBuf {
        self.runtime().join("models/all-MiniLM-L6-v2")
    }

    pub(crate) fn addresses(&self) -> PathBuf {
        self.runtime().join("data/usaddress")
    }

    pub(crate) fn postgres(&self) -> PathBuf {
        self.runtime().join("postgres")
    }

    /// Unfinished work; whatever lies here may be deleted.
    pub(crate) fn partial(&self) -> PathBuf {
        self.runtime().join("partial")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(libtorch: Option<&str>) -> Layout {
        let value = libtorch.map(OsString::from);
        Layout::new(PathBuf::from("/w"), move |name| if name == "LIBTORCH" { value.clone() } else { None })
    }

    #[test]
    fn what_cargo_sets_is_ours_and_anything_else_is_the_users() {
        let ours = Source::Ours(PathBuf::from("/w/.runtime/libtorch"));
        assert_eq!(layout(None).libtorch(), &ours);
        assert_eq!(layout(Some("")).libtorch(), &ours);
        assert_eq!(layout(Some("/w/.runtime/libtorch")).libtorch(), &ours);
        assert_eq!(layout(Some("/w/.runtime/libtorch/")).libtorch(), &ours);
        assert_eq!(layout(Some("/opt/libtorch")).libtorch(), &Source::Users(PathBuf::from("/opt/libtorch")));
        let onnxruntime = layout(Some("/opt/libtorch")).onnxruntime().clone();
        assert_eq!(onnxruntime, Source::Ours(PathBuf::from("/w/.runtime/onnxruntime/libonnxruntime.so")));
    }
}
