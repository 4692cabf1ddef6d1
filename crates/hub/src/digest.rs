//! The content that an `ETag` of the Hub stands for: SHA-256 for large files, git's blob id for the others.

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// What a file is compared with while it is written.
pub(crate) enum Hasher {
    /// Large files (LFS, Xet): the digest of the content.
    Sha256(Sha256),
    /// Files in git: SHA-1 of `blob {size}\0` and the content. Some mirrors give the SHA-1 of the content alone.
    Sha1 {
        /// With git's head.
        blob: Sha1,
        /// Without.
        plain: Sha1,
    },
    /// A mirror's own tag: only the size can be compared.
    None,
}

impl Hasher {
    /// The hasher for a file of that tag and size in bytes.
    pub(crate) fn new(etag: &str, size: u64) -> Self {
        let hexadecimal = etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        match etag.len() {
            64 if hexadecimal => Self::Sha256(Sha256::new()),
            40 if hexadecimal => {
                Self::Sha1 { blob: Sha1::new_with_prefix(format!("blob {size}\0")), plain: Sha1::new() }
            }
            _ => Self::None,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha1 { blob, plain } => [blob, plain].into_iter().for_each(|hash| hash.update(bytes)),
            Self::None => {}
        }
    }

    /// Whether what was hashed is what the tag stands for; the error names both.
    pub(crate) fn check(self, etag: &str) -> Result<(), String> {
        let (name, found) = match self {
            Self::Sha256(hash) => ("SHA-256", hex::encode(hash.finalize())),
            Self::Sha1 { plain, .. } if hex::encode(plain.clone().finalize()).eq_ignore_ascii_case(etag) => {
                return Ok(());
            }
            Self::Sha1 { blob, .. } => ("git blob id", hex::encode(blob.finalize())),
            Self::None => return Ok(()),
        };
        match found.eq_ignore_ascii_case(etag) {
            true => Ok(()),
            false => Err(format!("its {name} is {found}, the Hub says {etag}")),
        }
    }
}

/// A tag as a file name: without the mark of a weak one and without quotes, as `huggingface_hub` does; none when it would not be
/// safe as one.
pub(crate) fn normal_etag(header: &str) -> Option<&str> {
    let tag = header.trim();
    let tag = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '=');
    (!tag.is_empty() && tag.len() <= 200 && !tag.starts_with('.') && tag.chars().all(safe)).then_some(tag)
}

/// The tag that the Hub gives a file: for tests' servers.
pub(crate) fn etag_of(content: &[u8], large: bool) -> String {
    match large {
        true => hex::encode(Sha256::digest(content)),
        false => {
            hex::encode(Sha1::new_with_prefix(format!("blob {}\0", content.len())).chain_update(content).finalize())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_git_and_sha256sum() {
        // `printf 'hello\n' | git hash-object --stdin` and `| sha256sum`.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(etag_of(b"hello\n", false), git);
        assert_eq!(etag_of(b"hello\n", true), sha256);
        for etag in [git, sha256] {
            let mut hasher = Hasher::new(etag, 6);
            hasher.update(b"hel");
            hasher.update(b"lo\n");
            hasher.check(etag).unwrap();
            let mut hasher = Hasher::new(etag, 6);
            hasher.update(b"hellO\n");
            assert!(hasher.check(etag).unwrap_err().contains(etag));
        }
        // `sha1sum` of it, as a mirror may say.
        let mut hasher = Hasher::new("f572d396fae9206628714fb2ce00f72e94f2258f", 6);
        hasher.update(b"hello\n");
        hasher.check("f572d396fae9206628714fb2ce00f72e94f2258f").unwrap();
        Hasher::new("a-mirrors-tag", 6).check("a-mirrors-tag").unwrap();
    }

    #[test]
    fn tags_become_names_only_when_they_are_safe() {
        assert_eq!(normal_etag("\"abc\""), Some("abc"));
        assert_eq!(normal_etag("W/\"abc-1\""), Some("abc-1"));
        for unsafe_tag in ["", "\"\"", "\"../x\"", "a/b", ".hidden", "a b", "a\u{e9}"] {
            assert_eq!(normal_etag(unsafe_tag), None, "{unsafe_tag}");
        }
    }
}
