//! Values that must not be seen in logs, dumps and debug output.
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use url::Url;

/// What stands in for a secret wherever it would be printed.
pub const MASK: &str = "***";

/// A password, token or key. `Debug`, `Display` and `Serialize` give `***`; [`Secret::expose`] gives the value.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself: for sending it, never for printing it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// A URL, or a path, that may hold a password or options. Printed, it has `***` instead of the password and of every value in its
/// query; [`SecretUrl::expose`] gives all of it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The whole text: for connecting, never for printing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(mut url) = Url::parse(&self.0) else {
            return f.write_str(&self.0);
        };
        if url.password().is_some() {
            // Fails only for URLs that cannot have a password.
            let _ = url.set_password(Some(MASK));
        }
        let keys: Vec<String> = url.query_pairs().map(|(key, _)| format!("{key}={MASK}")).collect();
        if !keys.is_empty() {
            url.set_query(Some(&keys.join("&")));
        }
        f.write_str(url.as_str())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_printed() {
        let secret = Secret::new("hush");
        assert_eq!(format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap()), "*** *** \"***\"");
        for (given, printed) in [
            ("postgresql://me:hush@host/db", "postgresql://me:***@host/db"),
            ("s3://bucket/p?secret_access_key=hush&region=x", "s3://bucket/p?secret_access_key=***&region=***"),
            ("sqlite:///data/jobs.db", "sqlite:///data/jobs.db"),
            ("relative/path", "relative/path"),
        ] {
            let url = SecretUrl::new(given);
            assert_eq!(
                (url.to_string().as_str(), format!("{url:?}").as_str(), url.expose()),
                (printed, printed, given)
            );
        }
    }
}
