//! From the path of an artifact URI to the key in the store, refusing everything that could lead elsewhere.
//!
//! The path after `mlflow-artifacts:/` is the key in the artifact store, with one rule for the prefix: a path below `jobs/` is the key
//! itself, since the outputs of jobs lie there; every other path lies below `mlflow/`. So the artifacts of a run of the experiment 3 are at
//! `mlflow/3/<run id>/artifacts/`, those of a job at `jobs/<uid>/`, and both list and download through the same client calls.
//!
//! Keys must not use the names by which the store marks published outputs (`manifest.json`, `@...`), which clients may well give to
//! their files: such a name, and one that begins with `=`, is kept with a `=` before it.

use percent_encoding::percent_decode_str;

use crate::error::Error;

/// Below this prefix, paths are the store's own keys.
const JOBS: &str = "jobs";
/// Below this prefix lies what MLflow clients store.
const MLFLOW: &str = "mlflow";
/// Longest name of a file or folder in bytes as it is stored: file systems allow 255, and a temporary name is some bytes longer.
const MAX_NAME: usize = 240;
/// Longest path in bytes; a key has at most 800.
const MAX_PATH: usize = 700;
/// Layers of percent-encoding that are looked through.
const MAX_LAYERS: usize = 8;

/// Why a path, taken as it is, could lead elsewhere.
fn unsafe_form(path: &str) -> Option<&'static str> {
    let bytes = path.as_bytes();
    if path.contains('\\') {
        return Some("holds a backslash");
    }
    if path.chars().any(char::is_control) {
        return Some("holds a control character");
    }
    if path.starts_with('/') {
        return Some("is absolute");
    }
    if bytes.first().is_some_and(u8::is_ascii_alphabetic) && bytes.get(1) == Some(&b':') {
        return Some("names a drive");
    }
    if bytes.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"file:")) {
        return Some("is a file URL");
    }
    path.split('/').any(|part| part == "..").then_some("holds `..`")
}

/// Checks a path that has been percent-decoded once, as the HTTP server does; further layers are decoded for the check alone.
pub(crate) fn check(path: &str) -> Result<(), Error> {
    let refuse =
        |reason: &str| Err(Error::invalid("path", format!("`{path}` {reason}; a plain relative path is expected")));
    if path.len() > MAX_PATH {
        return Err(Error::invalid("path", format!("has {} bytes; at most {MAX_PATH} are allowed", path.len())));
    }
    let mut form = path.to_owned();
    for _ in 0..MAX_LAYERS {
        if let Some(reason) = unsafe_form(&form) {
            return refuse(reason);
        }
        let decoded = percent_decode_str(&form).decode_utf8_lossy().into_owned();
        if decoded == form {
            return Ok(());
        }
        form = decoded;
    }
    refuse("is percent-encoded too often")
}

/// A name as it is kept.
fn kept(name: &str) -> String {
    let reserved = name == "manifest.json" || name.starts_with(['@', '=']);
    if reserved { format!("={name}") } else { name.to_owned() }
}

/// Undoes [`kept`] for every name of a path.
pub(super) fn shown(path: &str) -> String {
    path.split('/').map(|name| name.strip_prefix('=').unwrap_or(name)).collect::<Vec<_>>().join("/")
}

/// The key of a file or folder; the empty path is the root of what MLflow clients store.
///
/// # Errors
/// The path is absolute, holds `..` in any encoding, an empty part, or a name that is too long.
pub(super) fn key(path: &str) -> Result<String, Error> {
    check(path)?;
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(MLFLOW.to_owned());
    }
    let mut names = Vec::new();
    for name in path.split('/') {
        if matches!(name, "" | ".") {
            return Err(Error::invalid("path", format!("`{path}` holds an empty part or `.`")));
        }
        // Everything but plain ASCII is kept percent-encoded.
        let length: usize =
            name.bytes().map(|b| if b.is_ascii_alphanumeric() || b"-_. ".contains(&b) { 1 } else { 3 }).sum();
        if length > MAX_NAME {
            let reason = format!("`{path}` holds a name of {length} bytes as stored; at most {MAX_NAME} are allowed");
            return Err(Error::invalid("path", reason));
        }
        names.push(kept(name));
    }
    let key = names.join("/");
    Ok(if below_jobs(&key) { key } else { format!("{MLFLOW}/{key}") })
}

/// [`key`] of a path that has to name a file.
pub(super) fn file_key(path: &str) -> Result<String, Error> {
    if path.is_empty() || path.ends_with('/') {
        return Err(Error::invalid("path", format!("`{path}` names no file")));
    }
    key(path)
}

/// Whether a key belongs to a job.
pub(super) fn below_jobs(key: &str) -> bool {
    key.strip_prefix(JOBS).is_some_and(|rest| rest.starts_with('/'))
}

/// The path within the proxied store that an artifact URI names, or `None` when its files lie elsewhere.
pub(crate) fn of_uri(uri: &str) -> Option<&str> {
    let rest = uri.strip_prefix("mlflow-artifacts:")?;
    // Either `mlflow-artifacts:/path`, or with an empty authority `mlflow-artifacts:///path`.
    let path = match rest.strip_prefix("//") {
        Some(with_authority) => with_authority.strip_prefix('/')?,
        None => rest.strip_prefix('/')?,
    };
    Some(path.trim_matches('/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_prefix_rule() {
        assert_eq!(key("3/abc/artifacts/a b/ü+%.txt").unwrap(), "mlflow/3/abc/artifacts/a b/ü+%.txt");
        assert_eq!(key("jobs/ab/model/config.json/").unwrap(), "jobs/ab/model/config.json");
        assert_eq!(key("jobs").unwrap(), "mlflow/jobs");
        assert_eq!(key("jobs2/x").unwrap(), "mlflow/jobs2/x");
        assert_eq!(key("").unwrap(), "mlflow");
        assert_eq!(key("a/..b/c..").unwrap(), "mlflow/a/..b/c..");
        assert_eq!(key("a/@b/=c/manifest.json").unwrap(), "mlflow/a/=@b/==c/=manifest.json");
        assert_eq!(shown("a/=@b/==c/=manifest.json"), "a/@b/=c/manifest.json");
        assert_eq!(of_uri("mlflow-artifacts:/3/x/artifacts"), Some("3/x/artifacts"));
        assert_eq!(of_uri("mlflow-artifacts:///jobs/x/"), Some("jobs/x"));
        assert_eq!(of_uri("mlflow-artifacts://host/x"), None);
        assert_eq!(of_uri("s3://bucket/x"), None);
    }

    #[test]
    fn ways_out_are_refused() {
        for bad in [
            "..",
            "../x",
            "a/../b",
            "a/..",
            "/etc/passwd",
            "//x",
            "a//b",
            "./a",
            "a/./b",
            "a\\..\\b",
            "C:/x",
            "c:x",
            "file:/x",
            "FILE:///x",
            "%2e%2e/x",
            "a/%2e%2e/b",
            "a/%252e%252e/b",
            "%2Fetc",
            "a%5c..",
            "a/%2e%2e%2fb",
            "a\0b",
            "a\nb",
            "a%00b",
            "jobs/../mlflow/x",
            "jobs/%2e%2e/x",
        ] {
            let result = key(bad);
            assert!(matches!(result, Err(Error::Invalid { .. })), "{bad:?} gave {result:?}");
        }
        assert!(key(&"x".repeat(241)).is_err());
        assert!(key(&"ü".repeat(60)).is_err());
        assert!(key(&"x/".repeat(500)).is_err());
        assert!(key(&format!("%{}2e%2e", "25".repeat(20))).is_err());
        assert!(file_key("a/").is_err() && file_key("").is_err());
    }

    proptest! {
        #[test]
        fn keys_stay_below_their_prefix(path in "([a-c.%/\\\\:@=]|%2e|%2f|%25|jobs/|\\.\\.){0,12}") {
            if let Ok(key) = key(&path) {
                prop_assert!(key == "mlflow" || key.starts_with("mlflow/") || key.starts_with("jobs/"), "{}", key);
                prop_assert!(key.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.starts_with('@')), "{}", key);
                if let Some(rest) = key.strip_prefix("mlflow/") {
                    prop_assert_eq!(shown(rest), path.strip_suffix('/').unwrap_or(&path));
                }
            }
        }
    }
}
