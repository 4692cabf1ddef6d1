//! A piece of `.runtime/`: made beside its place, stamped last, then moved there, so that what is there is whole.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::layout::Layout;
use crate::pip::remove;
use crate::progress::Progress;

/// Name of the stamp inside a piece; it holds the piece's fingerprint.
const STAMP: &str = ".complete";

/// One folder, made from one recipe.
pub(crate) struct Piece {
    title: String,
    target: PathBuf,
    fingerprint: String,
    partial: PathBuf,
}

/// Where a piece is being made.
pub(crate) struct Staging {
    /// Downloads; kept when a later step fails, so that they need not come again.
    pub(crate) downloads: PathBuf,
    /// Becomes the piece.
    pub(crate) content: PathBuf,
    /// The locked requirements, as a file for pip.
    pub(crate) requirements: PathBuf,
}

impl Piece {
    /// `requirements` are the pins that it is made of; `recipe` changes whenever it is made differently.
    pub(crate) fn new(layout: &Layout, title: &str, target: PathBuf, requirements: &str, recipe: &str) -> Piece {
        let name = target.file_name().unwrap_or(target.as_os_str()).to_string_lossy().replace('.', "-");
        let partial = layout.partial().join(name);
        Piece { title: title.to_owned(), target, fingerprint: fingerprint(&[requirements, recipe]), partial }
    }

    pub(crate) fn is_ready(&self) -> bool {
        has_stamp(&self.target.join(STAMP), &self.fingerprint)
    }

    /// Makes the piece with `fill`, unless it is there. What stood in its place is replaced once the new one is whole.
    pub(crate) fn make(&self, requirements: &str, fill: impl FnOnce(&Staging, &Progress) -> Result<()>) -> Result<()> {
        if self.is_ready() {
            return Ok(());
        }
        let progress = Progress::start(&self.title);
        let failed = || format!("cannot set up {} in {}", self.title, self.target.display());
        self.fill(requirements, fill, &progress).with_context(failed)?;
        progress.done();
        Ok(())
    }

    fn fill(
        &self,
        requirements: &str,
        fill: impl FnOnce(&Staging, &Progress) -> Result<()>,
        progress: &Progress,
    ) -> Result<()> {
        let staging = Staging {
            // Downloads for another recipe are of no use.
            downloads: self.partial.join(format!("downloads-{}", &self.fingerprint[..12])),
            content: self.partial.join("content"),
            requirements: self.partial.join("requirements.txt"),
        };
        remove(&staging.content)?;
        create(&staging.downloads)?;
        create(&staging.content)?;
        fs::write(&staging.requirements, requirements).context("cannot write the requirements")?;
        fill(&staging, progress)?;
        write_stamp(&staging.content.join(STAMP), &self.fingerprint)?;
        replace(&staging.content, &self.target, &self.partial.join("old"))?;
        remove(&self.partial)
    }
}

/// Moves `new` to `target`; what is there moves to `old` first and is then removed.
fn replace(new: &Path, target: &Path, old: &Path) -> Result<()> {
    let stuck = || format!("cannot replace {}", target.display());
    remove(old)?;
    if let Some(folder) = target.parent() {
        create(folder)?;
    }
    if target.symlink_metadata().is_ok() {
        fs::rename(target, old).with_context(stuck)?;
    }
    fs::rename(new, target).with_context(stuck)?;
    remove(old)
}

/// Points the symbolic link `link` to `target`, a path relative to it, whatever stood there before.
pub(crate) fn relink(link: &Path, target: &Path, partial: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|current| current == target) {
        return Ok(());
    }
    create(partial)?;
    let new = partial.join("link");
    remove(&new)?;
    std::os::unix::fs::symlink(target, &new).with_context(|| format!("cannot create {}", new.display()))?;
    replace(&new, link, &partial.join("old-link"))
}

pub(crate) fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// SHA-256 over texts of which none can be taken for another.
pub(crate) fn fingerprint(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hex::encode(hash.finalize())
}

pub(crate) fn has_stamp(stamp: &Path, fingerprint: &str) -> bool {
    fs::read_to_string(stamp).is_ok_and(|text| text.trim_end() == fingerprint)
}

pub(crate) fn write_stamp(stamp: &Path, fingerprint: &str) -> Result<()> {
    fs::write(stamp, format!("{fingerprint}\n")).with_context(|| format!("cannot write {}", stamp.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(root: &Path) -> Layout {
        Layout::new(root.to_owned(), |_| None)
    }

    fn piece(root: &Path, recipe: &str) -> Piece {
        Piece::new(&layout(root), "test", root.join(".runtime/a-1.0"), "x==1", recipe)
    }

    #[test]
    fn a_piece_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let piece = piece(folder.path(), "1");
        let failed = piece.make("x==1", |staging, _| {
            fs::write(staging.downloads.join("big"), "fetched").unwrap();
            fs::write(staging.content.join("half"), "half").unwrap();
            anyhow::bail!("power cut");
        });
        assert!(format!("{:#}", failed.unwrap_err()).ends_with("a-1.0: power cut"));
        assert!(!piece.is_ready() && !folder.path().join(".runtime/a-1.0").exists());

        piece
            .make("x==1", |staging, _| {
                assert_eq!(fs::read_to_string(staging.downloads.join("big")).unwrap(), "fetched");
                assert_eq!(fs::read_to_string(&staging.requirements).unwrap(), "x==1");
                assert!(!staging.content.join("half").exists(), "content begins empty");
                fs::write(staging.content.join("file"), "whole").unwrap();
                Ok(())
            })
            .unwrap();
        assert!(piece.is_ready());
        assert!(!layout(folder.path()).partial().join("a-1-0").exists());
        piece.make("x==1", |_, _| panic!("it is there already")).unwrap();
    }

    #[test]
    fn another_recipe_replaces_the_piece_and_a_missing_stamp_makes_it_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".runtime/a-1.0/file");
        for (recipe, text) in [("1", "first"), ("2", "second")] {
            let piece = piece(folder.path(), recipe);
            assert!(!piece.is_ready());
            let fill = |staging: &Staging, _: &Progress| Ok(fs::write(staging.content.join("file"), text)?);
            piece.make("x==1", fill).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        fs::remove_file(folder.path().join(".runtime/a-1.0").join(STAMP)).unwrap();
        assert!(!piece(folder.path(), "2").is_ready());
    }

    #[test]
    fn a_link_replaces_whatever_stood_there() {
        let folder = tempfile::tempdir().unwrap();
        let (link, partial) = (folder.path().join("lib"), folder.path().join("partial"));
        fs::create_dir(&link).unwrap();
        fs::write(link.join("old"), "").unwrap();
        for target in ["lib-1", "lib-2", "lib-2"] {
            relink(&link, Path::new(target), &partial).unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(target));
        }
        assert_ne!(fingerprint(&["ab", "c"]), fingerprint(&["a", "bc"]));
    }
}
