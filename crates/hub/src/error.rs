//! What can go wrong between a name and its files; each message says what to do.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no name of a repository.
    #[error("{given:?} is no name of a model on the Hub: {problem}")]
    Name {
        /// The text.
        given: String,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// A variable of the environment has a value that is not allowed.
    #[error("{variable} {problem}")]
    Settings {
        /// Its name.
        variable: String,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// There is no such repository, or it is private and the token does not open it: the Hub does not tell these apart.
    #[error("{endpoint} has no model `{id}` that {} may read (status {status}); check the spelling, {}",
        if *with_token { "this token" } else { "everybody" },
        if *with_token { "and that the token belongs to somebody with access" }
        else { "and set HF_TOKEN when it is private" })]
    RepositoryNotFound {
        /// The Hub.
        endpoint: String,
        /// The repository.
        id: String,
        /// 401 or 404.
        status: u16,
        /// Whether a token was shown.
        with_token: bool,
    },
    /// The token is not one of the Hub's.
    #[error(
        "{endpoint} does not accept the token (status 401); make a new one in the account's settings and set HF_TOKEN, \
        or unset HF_TOKEN and remove the token file for models that everybody may read"
    )]
    TokenRefused {
        /// The Hub.
        endpoint: String,
    },
    /// The repository's owners give access on request.
    #[error("access to `{id}` is given on request: ask for it on {endpoint}/{id}, {}",
        if *with_token { "as the owner of this token, and try again when it was granted" }
        else { "then set HF_TOKEN to a token of that account" })]
    Gated {
        /// The Hub.
        endpoint: String,
        /// The repository.
        id: String,
        /// Whether a token was shown.
        with_token: bool,
    },
    /// The token does not allow this.
    #[error("{endpoint} forbids reading `{id}` (status 403{message}); the token needs the permission to read it")]
    Forbidden {
        /// The Hub.
        endpoint: String,
        /// The repository.
        id: String,
        /// What the Hub says, after a colon; may be empty.
        message: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("`{id}` has no revision `{revision}`; a branch (`main`), a tag or a whole commit is expected")]
    RevisionNotFound {
        /// The repository.
        id: String,
        /// The revision.
        revision: String,
    },
    /// The repository has no such file.
    #[error("`{repo}` has no file `{file}`")]
    FileNotFound {
        /// Repository and revision.
        repo: String,
        /// The file.
        file: String,
    },
    /// The repository lacks what training needs.
    #[error("`{repo}` {problem}")]
    Unusable {
        /// Repository and revision.
        repo: String,
        /// What is missing, and what to do.
        problem: String,
    },
    /// Too many requests, and the Hub asks for a longer pause than is made.
    #[error("{endpoint} takes no more requests for now (status 429); it asks to wait {}; {}",
        wait.map_or_else(|| "a while".to_owned(), |wait| format!("{} s", wait.as_secs())),
        if *with_token { "try again then" } else { "try again then, or set HF_TOKEN: accounts may ask more often" })]
    RateLimited {
        /// The Hub.
        endpoint: String,
        /// The pause that it asks for.
        wait: Option<Duration>,
        /// Whether a token was shown.
        with_token: bool,
    },
    /// The Hub cannot be reached, fails or gives nothing, also after repetitions.
    #[error(
        "{host}: {problem}; check the network, HF_ENDPOINT and the proxy variables, or set HF_HUB_OFFLINE=1 to use what is in the cache"
    )]
    Unavailable {
        /// The host that was asked.
        host: String,
        /// What happened, and how often.
        problem: String,
    },
    /// The answer is not one of a Hub.
    #[error("{url} does not answer as a Hub does: {problem}; check HF_ENDPOINT and the proxy variables")]
    Protocol {
        /// Without query: signed addresses hold secrets there.
        url: String,
        /// What is missing or wrong.
        problem: String,
    },
    /// A file came with another content than the Hub announced, twice.
    #[error(
        "`{file}` of `{repo}` is damaged: {problem}; try again, and if it stays so, look for a proxy that changes contents"
    )]
    Corrupt {
        /// Repository and revision.
        repo: String,
        /// The file.
        file: String,
        /// Expected and found.
        problem: String,
    },
    /// Offline, and the cache does not have it.
    #[error("`{repo}` is not whole in the cache {}: {problem}; `quintet hub download {repo}` brings it where there is a network, or unset HF_HUB_OFFLINE", cache.display())]
    NotCached {
        /// Repository and revision.
        repo: String,
        /// The cache.
        cache: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// The local disk.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn settings(variable: &str, problem: impl Into<String>) -> Self {
        Self::Settings { variable: variable.to_owned(), problem: problem.into() }
    }

    /// Whether trying again later, without changing anything, may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited { .. } | Self::Unavailable { .. } | Self::Corrupt { .. } | Self::Io { .. } => true,
            Self::Name { .. }
            | Self::Settings { .. }
            | Self::RepositoryNotFound { .. }
            | Self::TokenRefused { .. }
            | Self::Gated { .. }
            | Self::Forbidden { .. }
            | Self::RevisionNotFound { .. }
            | Self::FileNotFound { .. }
            | Self::Unusable { .. }
            | Self::Protocol { .. }
            | Self::NotCached { .. } => false,
        }
    }

    /// Whether the Hub could not be asked at all, so that the cache is the next best answer.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::RateLimited { .. })
    }
}
