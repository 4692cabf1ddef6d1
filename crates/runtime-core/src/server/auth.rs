//! Who may call: a token in `Authorization`, as `Bearer` or as the password of `Basic` (what MLflow clients send).
//!
//! Health is open, for probes have no token; everything else, `/metrics` and reflection included, needs one when tokens are configured.
use base64::Engine as _;
use http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};

use crate::config::Secret;

/// Paths that answer without a token.
const OPEN: [&str; 2] = ["/healthz", "/grpc.health.v1.Health/"];

/// The check of a server's callers.
#[derive(Debug, Clone)]
pub(super) struct Auth {
    /// Digests, so that the comparison takes the same time for every wrong token.
    digests: Vec<[u8; 32]>,
}

impl Auth {
    pub(super) fn new(tokens: &[Secret]) -> Self {
        Self { digests: tokens.iter().map(|token| digest(token.expose().as_bytes())).collect() }
    }

    /// Whether a request to `path` with these headers may go on; otherwise what to tell the caller.
    pub(super) fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), &'static str> {
        if self.digests.is_empty()
            || OPEN.iter().any(|open| path == *open || (open.ends_with('/') && path.starts_with(open)))
        {
            return Ok(());
        }
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Err("the token is missing: send `Authorization: Bearer <token>`");
        };
        let token =
            token(value.as_bytes()).ok_or("the Authorization header is neither `Bearer <token>` nor `Basic`")?;
        let shown = digest(&token);
        let known = self.digests.iter().fold(false, |known, digest| known | equal(digest, &shown));
        if known { Ok(()) } else { Err("the token is not valid") }
    }
}

/// The token of a header value: all of `Bearer`, the password of `Basic`.
fn token(value: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(value).ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Looks at every byte, wherever the first difference is.
fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn bearer_and_basic_pass_and_others_do_not() {
        let auth = Auth::new(&["first".into(), "sec:ond".into()]);
        let basic = |pair: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        for good in ["Bearer first", "bearer first", &basic("anyone:first"), &basic(":sec:ond")] {
            assert_eq!(auth.check("/x", &headers(good)), Ok(()), "{good}");
        }
        for bad in ["Bearer firs", "Bearer ", "first", "Digest first", "Basic !!", &basic("first"), &basic("first:")] {
            assert!(auth.check("/x", &headers(bad)).is_err(), "{bad}");
        }
        assert!(auth.check("/metrics", &HeaderMap::new()).is_err());
        assert_eq!(auth.check("/healthz", &HeaderMap::new()), Ok(()));
        assert_eq!(auth.check("/grpc.health.v1.Health/Check", &HeaderMap::new()), Ok(()));
        assert!(auth.check("/healthz/other", &HeaderMap::new()).is_err());
        assert_eq!(Auth::new(&[]).check("/x", &HeaderMap::new()), Ok(()));
    }
}
