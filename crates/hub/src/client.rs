//! Requests to a Hub: redirects followed here, so that the token never reaches another host, and failures that may pass repeated.

use std::time::{Duration, SystemTime};

use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, LOCATION, RANGE},
    redirect::Policy,
};
use serde::Deserialize;
use url::Url;

use crate::{
    Error, Patience, Repo, Settings,
    digest::normal_etag,
    refusal::{Asked, refused},
    retry::{Next, asked_pause, is_transient},
};

/// Redirects of one request, as many as `requests` and browsers follow at least.
const REDIRECTS: usize = 10;
/// Largest description of a repository that is read, in bytes: some hundred thousand files.
const LARGEST_INFO: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What the Hub knows of a repository at a revision.
#[derive(Debug, Deserialize)]
pub(crate) struct Info {
    /// The commit.
    pub(crate) sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Info {
    /// Paths of the files.
    pub(crate) fn files(&self) -> Vec<String> {
        self.siblings.iter().map(|sibling| sibling.rfilename.clone()).collect()
    }
}

/// What the Hub knows of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) etag: String,
    /// In bytes.
    pub(crate) size: u64,
}

/// A client of one Hub.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    pub(crate) settings: Settings,
}

/// A request as it is repeated.
#[derive(Debug, Clone)]
struct Request {
    method: Method,
    url: Url,
    /// First byte that is wanted.
    from: u64,
    timeout: Duration,
}

/// A failure that may pass.
#[derive(Debug)]
pub(crate) struct Trouble {
    host: String,
    problem: String,
    asked: Option<Duration>,
    limited: bool,
}

/// Failures in a row.
#[derive(Debug)]
pub(crate) struct Tries<'a> {
    client: &'a Client,
    failed: u32,
}

impl Tries<'_> {
    /// Something came through: the next failure is the first one again.
    pub(crate) fn reset(&mut self) {
        self.failed = 0;
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The trouble as an error when it was the last try.
    pub(crate) async fn after(&mut self, trouble: Trouble) -> Result<(), Error> {
        self.failed += 1;
        let patience: Patience = self.client.settings.patience;
        match patience.next(self.failed, trouble.asked, rand::random()) {
            Next::Again(pause) => {
                let (host, problem) = (&trouble.host, &trouble.problem);
                tracing::info!(host, problem, seconds = pause.as_secs_f64(), "the Hub is asked again after a pause");
                tokio::time::sleep(pause).await;
                Ok(())
            }
            Next::GiveUp if trouble.limited => Err(Error::RateLimited {
                endpoint: self.client.settings.shown_endpoint().to_owned(),
                wait: trouble.asked,
                with_token: self.client.settings.token.is_some(),
            }),
            Next::GiveUp => {
                let times = if self.failed > 1 { format!(" ({} tries)", self.failed) } else { String::new() };
                Err(Error::Unavailable { host: trouble.host, problem: format!("{}{times}", trouble.problem) })
            }
        }
    }
}

/// Headers of a file's description, gathered over the redirects to where the content is.
#[derive(Debug, Default)]
struct Gathered {
    commit: Option<String>,
    linked_etag: Option<String>,
    linked_size: Option<u64>,
}

impl Gathered {
    fn take(&mut self, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        self.commit = self.commit.take().or_else(|| text("x-repo-commit"));
        self.linked_etag = self.linked_etag.take().or_else(|| text("x-linked-etag"));
        self.linked_size = self.linked_size.or_else(|| text("x-linked-size")?.parse().ok());
    }

    fn is_enough(&self) -> bool {
        self.commit.is_some() && self.linked_etag.is_some() && self.linked_size.is_some()
    }
}

impl Client {
    /// A client with these settings.
    pub(crate) fn new(settings: Settings) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("quintet/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::settings("the HTTP client", format!("cannot be made: {}", causes(&error))))?;
        Ok(Self { http, settings })
    }

    /// Failures in a row, none so far.
    pub(crate) fn tries(&self) -> Tries<'_> {
        Tries { client: self, failed: 0 }
    }

    /// Commit and files of a repository at its revision: `/api/models/{id}/revision/{revision}`.
    pub(crate) async fn info(&self, repo: &Repo) -> Result<Info, Error> {
        let parts = ["api", "models"].into_iter().chain(repo.id().split('/')).chain(["revision", repo.revision()]);
        let url = self.url(parts)?;
        let request = Request { method: Method::GET, url, from: 0, timeout: self.settings.answer_timeout };
        let mut tries = self.tries();
        loop {
            let trouble = match self.once(&request, None).await? {
                Err(trouble) => trouble,
                Ok(response) if !response.status().is_success() => {
                    return Err(self.refused(repo, Asked::Repository, &response));
                }
                Ok(response) => match self.body(response).await? {
                    Err(trouble) => trouble,
                    Ok(body) => {
                        let problem = |error: serde_json::Error| self.protocol(&request.url, error.to_string());
                        return serde_json::from_slice(&body).map_err(problem);
                    }
                },
            };
            tries.after(trouble).await?;
        }
    }

    /// Tag and size of a file: a HEAD of `/{id}/resolve/{commit}/{file}`.
    pub(crate) async fn metadata(&self, repo: &Repo, file: &str) -> Result<Metadata, Error> {
        let url = self.file_url(repo, file)?;
        let request = Request { method: Method::HEAD, url, from: 0, timeout: self.settings.answer_timeout };
        let mut tries = self.tries();
        loop {
            let mut gathered = Gathered::default();
            let response = match self.once(&request, Some(&mut gathered)).await? {
                Err(trouble) => {
                    tries.after(trouble).await?;
                    continue;
                }
                Ok(response) => response,
            };
            if !(response.status().is_success() || gathered.is_enough()) {
                return Err(self.refused(repo, Asked::File(file), &response));
            }
            let lacking = |what: &str| self.protocol(&request.url, format!("it gives no {what}"));
            let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
            let commit = gathered.commit.ok_or_else(|| lacking("X-Repo-Commit"))?;
            if commit != repo.revision() {
                let problem = format!("commit {commit} was answered for {}", repo.revision());
                return Err(self.protocol(&request.url, problem));
            }
            let etag = gathered.linked_etag.as_deref().or_else(|| text("etag")).and_then(normal_etag);
            let size = gathered.linked_size.or_else(|| text("content-length")?.parse().ok());
            return Ok(Metadata {
                etag: etag.ok_or_else(|| lacking("ETag that can be used"))?.to_owned(),
                size: size.ok_or_else(|| lacking("size"))?,
            });
        }
    }

    /// Asks for a file's content from a byte on, once; 200 (all of it), 206 or 416 come back.
    pub(crate) async fn content(&self, repo: &Repo, file: &str, from: u64) -> Result<Result<Response, Trouble>, Error> {
        let url = self.file_url(repo, file)?;
        let request = Request { method: Method::GET, url, from, timeout: self.settings.read_timeout };
        let answer = self.once(&request, None).await?;
        if let Ok(response) = &answer
            && !matches!(
                response.status(),
                StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
            )
        {
            return Err(self.refused(repo, Asked::File(file), response));
        }
        Ok(answer)
    }

    /// The next piece of a body; none at its end.
    pub(crate) async fn piece(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, Trouble> {
        let limit = self.settings.read_timeout;
        let host = host(response.url());
        match tokio::time::timeout(limit, response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(Trouble::of(host, format!("the connection broke: {}", causes(&error)))),
            Err(_) => Err(Trouble::of(host, format!("nothing came for {} s", limit.as_secs_f64()))),
        }
    }

    async fn body(&self, mut response: Response) -> Result<Result<Vec<u8>, Trouble>, Error> {
        let mut body = Vec::new();
        loop {
            match self.piece(&mut response).await {
                Err(trouble) => return Ok(Err(trouble)),
                Ok(None) => return Ok(Ok(body)),
                Ok(Some(piece)) if body.len() + piece.len() > LARGEST_INFO => {
                    return Err(self.protocol(response.url(), format!("more than {LARGEST_INFO} bytes")));
                }
                Ok(Some(piece)) => body.extend_from_slice(&piece),
            }
        }
    }

    /// One request with its redirects. With `gathered` it ends at the redirect that leads to the content.
    async fn once(
        &self,
        request: &Request,
        mut gathered: Option<&mut Gathered>,
    ) -> Result<Result<Response, Trouble>, Error> {
        let mut url = request.url.clone();
        let mut trusted = true;
        for _ in 0..=REDIRECTS {
            // Once the way has left the Hub's host the token stays behind, also when it comes back.
            trusted = trusted && url.origin() == self.settings.endpoint.origin();
            // The size and the tag are those of the content as it is.
            let mut builder =
                self.http.request(request.method.clone(), url.clone()).header(ACCEPT_ENCODING, "identity");
            if let Some(token) = self.settings.token.as_ref().filter(|_| trusted).and_then(|token| token.header()) {
                builder = builder.header(AUTHORIZATION, token);
            }
            if request.from > 0 {
                builder = builder.header(RANGE, format!("bytes={}-", request.from));
            }
            let limit = request.timeout + CONNECT_TIMEOUT;
            let response = match tokio::time::timeout(limit, builder.send()).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return Ok(Err(Trouble::of(host(&url), causes(&error)))),
                Err(_) => {
                    let problem = format!("no answer for {} s", limit.as_secs_f64());
                    return Ok(Err(Trouble::of(host(&url), problem)));
                }
            };
            if let Some(gathered) = gathered.as_deref_mut() {
                gathered.take(response.headers());
            }
            let status = response.status();
            if is_transient(status) {
                let asked = asked_pause(response.headers(), SystemTime::now());
                let limited = status == StatusCode::TOO_MANY_REQUESTS;
                let problem = format!("status {status}");
                return Ok(Err(Trouble { host: host(&url), problem, asked, limited }));
            }
            if !is_redirect(status) || gathered.as_deref().is_some_and(Gathered::is_enough) {
                return Ok(Ok(response));
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let next = next.ok_or_else(|| self.protocol(&url, "a redirect without an address"))?;
            if !matches!(next.scheme(), "http" | "https") || (url.scheme() == "https" && next.scheme() != "https") {
                return Err(self.protocol(&url, format!("a redirect from {} to {}", url.scheme(), next.scheme())));
            }
            url = next;
        }
        Err(self.protocol(&request.url, format!("more than {REDIRECTS} redirects")))
    }

    fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Result<Url, Error> {
        let mut url = self.settings.endpoint.clone();
        match url.path_segments_mut() {
            // A slash inside a part becomes %2F.
            Ok(mut path) => drop(path.pop_if_empty().extend(parts)),
            Err(()) => return Err(Error::settings("HF_ENDPOINT", "is no address that has paths")),
        }
        Ok(url)
    }

    fn file_url(&self, repo: &Repo, file: &str) -> Result<Url, Error> {
        self.url(repo.id().split('/').chain(["resolve", repo.revision()]).chain(file.split('/')))
    }

    fn refused(&self, repo: &Repo, asked: Asked<'_>, response: &Response) -> Error {
        let with_token = self.settings.token.is_some();
        refused(self.settings.shown_endpoint(), repo, asked, response.status(), response.headers(), with_token)
    }

    fn protocol(&self, url: &Url, problem: impl Into<String>) -> Error {
        let mut url = url.clone();
        url.set_query(None);
        Error::Protocol { url: url.into(), problem: problem.into() }
    }
}

impl Trouble {
    fn of(host: String, problem: String) -> Self {
        Self { host, problem, asked: None, limited: false }
    }

    /// A body that ended before its announced size.
    pub(crate) fn short(response: &Response, found: u64, expected: u64) -> Self {
        Self::of(host(response.url()), format!("the file ended after {found} of {expected} bytes"))
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problem)
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Scheme, host and port: what may be told of an address whose query may hold a signature.
fn host(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// An error of the HTTP client with its causes, without the address, whose query may hold a signature.
fn causes(error: &reqwest::Error) -> String {
    let mut texts = Vec::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    match texts.is_empty() {
        true => "the request failed".to_owned(),
        false => texts.join(": "),
    }
}
