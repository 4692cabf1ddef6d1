//! Safe paths: what may name an artifact and a file inside one.
use object_store::path::Path as ObjectPath;

use super::Error;

/// Longest key or path, in bytes; S3 allows 1024 with the prefix.
const LONGEST: usize = 800;
/// First character of the folder that holds an artifact's content; keys must not use it.
pub(super) const CONTENT: char = '@';

/// A relative path of plain parts: not empty, no `.`, `..`, `\`, control characters, nor a `/` at either end.
pub(super) fn check_relative(path: &str) -> Result<(), Error> {
    let fail = |reason| Err(Error::Key { path: path.to_owned(), reason });
    if path.is_empty() {
        return fail("is empty");
    }
    if path.len() > LONGEST {
        return fail("has more than 800 bytes");
    }
    if path.starts_with('/') {
        return fail("must be relative");
    }
    for part in path.split('/') {
        match part {
            "" => return fail("has an empty part"),
            "." | ".." => return fail("must not contain `.` or `..`"),
            _ if part.contains('\\') => return fail("must not contain a backslash"),
            _ if part.chars().any(char::is_control) => return fail("must not contain control characters"),
            _ => {}
        }
    }
    Ok(())
}

/// A key of an artifact: a relative path in which no part begins with `@` or is `manifest.json`.
pub(super) fn check_key(key: &str) -> Result<(), Error> {
    check_relative(key)?;
    let reserved = |part: &str| part.starts_with(CONTENT) || part == super::MANIFEST;
    match key.split('/').any(reserved) {
        true => Err(Error::Key {
            path: key.to_owned(),
            reason: "must not use `manifest.json` or a part that begins with `@`",
        }),
        false => Ok(()),
    }
}

/// The object path of checked parts; characters that stores dislike are percent-encoded.
pub(super) fn object(prefix: &ObjectPath, paths: &[&str]) -> ObjectPath {
    prefix.parts().chain(paths.iter().flat_map(|path| path.split('/')).map(Into::into)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_paths_are_refused() {
        for good in ["a", "a/b.c", "jobs/0f/1/checkpoint", "with space/ü", "..a/b..", "a#b%"] {
            check_key(good).unwrap();
        }
        for bad in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\\b", "a\nb", "\0"] {
            assert!(check_relative(bad).is_err(), "{bad:?}");
        }
        for bad in ["@a", "a/@b", "manifest.json", "a/manifest.json/b"] {
            assert!(check_key(bad).is_err() && check_relative(bad).is_ok(), "{bad:?}");
        }
        assert!(check_relative(&"x".repeat(801)).is_err());
    }

    #[test]
    fn objects_stay_below_the_prefix() {
        let prefix = ObjectPath::from("store/x");
        assert_eq!(object(&prefix, &["a/b", "c d"]).as_ref(), "store/x/a/b/c d");
        assert_eq!(object(&prefix, &["a#b"]).as_ref(), "store/x/a%23b");
    }
}
