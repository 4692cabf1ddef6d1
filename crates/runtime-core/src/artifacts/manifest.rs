//! What an artifact consists of: paths, sizes and SHA-256 of its files. Writing the manifest commits the artifact.
use serde::{Deserialize, Serialize};

use super::{Error, key};
use crate::hashing;

/// Name of the manifest object below an artifact's key.
pub const MANIFEST: &str = "manifest.json";

/// Whether a single file or a folder was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One file, kept under its own name.
    File,
    /// A folder with all files below it.
    Folder,
}

/// One file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Path below the artifact, with `/` between its parts.
    pub path: String,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    /// Length in bytes.
    pub size: u64,
}

/// The files of an artifact, in order of their paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Form of this document; 1.
    pub version: u32,
    /// What was published.
    pub kind: Kind,
    /// Its files.
    pub files: Vec<Entry>,
}

impl Manifest {
    /// A manifest of these files, put in order.
    pub fn new(kind: Kind, mut files: Vec<Entry>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self { version: 1, kind, files }
    }

    /// The canonical JSON text, which is what is stored.
    pub fn to_json(&self) -> String {
        // A struct of text and numbers always has a JSON form.
        hashing::canonical_json(&serde_json::to_value(self).unwrap_or_default())
    }

    /// SHA-256 of the canonical JSON, in hexadecimal: the digest of the artifact.
    pub fn digest(&self) -> String {
        hashing::sha256_hex(self.to_json())
    }

    /// Sum of the files' sizes, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Reads a stored manifest and checks every rule that publishing keeps, since the store may have been written by others.
    pub(super) fn parse(uri: &str, text: &[u8]) -> Result<Self, Error> {
        let corrupt = |problem: String| Error::Corrupt { uri: uri.to_owned(), path: MANIFEST.into(), problem };
        let manifest: Self = serde_json::from_slice(text).map_err(|error| corrupt(error.to_string()))?;
        if manifest.version != 1 {
            return Err(corrupt(format!("version {} is not known; 1 is", manifest.version)));
        }
        if manifest.files.is_empty() || (manifest.kind == Kind::File && manifest.files.len() != 1) {
            return Err(corrupt(format!("{} files in a {:?}", manifest.files.len(), manifest.kind)));
        }
        for file in &manifest.files {
            key::check_relative(&file.path).map_err(|error| corrupt(error.to_string()))?;
            if file.sha256.len() != 64 || !file.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            {
                return Err(corrupt(format!("`{}` is not a SHA-256", file.sha256)));
            }
        }
        if let Some(pair) = manifest.files.windows(2).find(|pair| pair[0].path >= pair[1].path) {
            return Err(corrupt(format!("`{}` is out of order or twice", pair[1].path)));
        }
        Ok(manifest)
    }
}
