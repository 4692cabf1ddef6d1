//! From a refused request to its error: status, `X-Error-Code` and `X-Error-Message`, as `hf_raise_for_status` of
//! `huggingface_hub` reads them.

use reqwest::{StatusCode, header::HeaderMap};

use crate::{Error, Repo};

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked<'a> {
    /// The repository at its revision.
    Repository,
    /// A file of it.
    File(&'a str),
}

/// Longest part of a server's own words that is repeated.
const LONGEST_MESSAGE: usize = 300;

/// The error of an answer that is no success.
pub(crate) fn refused(
    endpoint: &str,
    repo: &Repo,
    asked: Asked<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    with_token: bool,
) -> Error {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (code, message) = (text("x-error-code"), text("x-error-message"));
    let (endpoint, id) = (endpoint.to_owned(), repo.id().to_owned());
    let not_found = |endpoint, id| Error::RepositoryNotFound { endpoint, id, status: status.as_u16(), with_token };
    match (status.as_u16(), code, asked) {
        (_, "GatedRepo", _) => Error::Gated { endpoint, id, with_token },
        (_, "RevisionNotFound", _) => Error::RevisionNotFound { id, revision: repo.revision().to_owned() },
        (_, "EntryNotFound", Asked::File(file)) => {
            Error::FileNotFound { repo: repo.to_string(), file: file.to_owned() }
        }
        (_, "RepoNotFound", _) => not_found(endpoint, id),
        // The Hub says so of a token that it does not know; without these words it hides what may not be seen.
        (401, _, _) if message.contains("Invalid credentials") || message.contains("Invalid username or password") => {
            match with_token {
                true => Error::TokenRefused { endpoint },
                false => not_found(endpoint, id),
            }
        }
        (401, _, _) => not_found(endpoint, id),
        (403, _, _) => {
            let shown: String = message.chars().filter(|c| !c.is_control()).take(LONGEST_MESSAGE).collect();
            let message = if shown.is_empty() { shown } else { format!(": {shown}") };
            Error::Forbidden { endpoint, id, message }
        }
        (404, _, Asked::File(file)) => Error::FileNotFound { repo: repo.to_string(), file: file.to_owned() },
        (404, _, Asked::Repository) => not_found(endpoint, id),
        (code, _, _) => Error::Protocol { url: endpoint, problem: format!("status {code} for `{repo}`") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        let repo: Repo = "org/name@v1".parse().unwrap();
        let told = |status: u16, code: &str, message: &str, asked, with_token| {
            let headers = [("x-error-code", code), ("x-error-message", message)];
            let headers = headers.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            let status = StatusCode::from_u16(status).unwrap();
            refused("https://hub", &repo, asked, status, &headers.collect(), with_token).to_string()
        };
        let (repository, file) = (Asked::Repository, Asked::File("config.json"));
        for (status, code, message, asked, with_token, part) in [
            (401, "RepoNotFound", "Repository not found", repository, false, "set HF_TOKEN when it is private"),
            (404, "RepoNotFound", "", repository, true, "belongs to somebody with access"),
            (401, "", "Invalid credentials in Authorization header", repository, true, "make a new one"),
            (401, "", "Invalid username or password.", repository, false, "check the spelling"),
            (401, "GatedRepo", "", file, false, "ask for it on https://hub/org/name"),
            (403, "GatedRepo", "", file, true, "when it was granted"),
            (403, "", "no scope", file, true, "status 403: no scope)"),
            (404, "RevisionNotFound", "", repository, false, "no revision `v1`"),
            (404, "EntryNotFound", "", file, false, "no file `config.json`"),
            (404, "", "", file, false, "no file `config.json`"),
            (404, "", "", repository, false, "status 404"),
            (418, "", "", repository, false, "status 418"),
        ] {
            let told = told(status, code, message, asked, with_token);
            assert!(told.contains(part), "{status} {code}: {told}");
        }
    }
}
