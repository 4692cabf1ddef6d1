//! A server that speaks the Hub's paths, for tests: repositories in memory, large files behind a "CDN" on another port, failures to
//! order, and a list of what was asked.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State as Shared},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::digest::etag_of;

/// The token that opens everything.
pub const TOKEN: &str = "hf_opensEverything";
/// A token of somebody without access to what is not public.
pub const STRANGER: &str = "hf_ofAStranger";
/// Files of at least so many bytes are large: tagged by SHA-256 and behind the CDN.
pub const LARGE: usize = 4096;

/// Who may read a repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    #[default]
    Public,
    /// [`TOKEN`]; for others it does not exist.
    Private,
    /// [`TOKEN`]; others may see that it exists.
    Gated,
}

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status, with a `Retry-After`.
    Status(u16, Option<String>),
    /// The connection breaks after so many bytes of the content.
    Cut(usize),
    /// Nothing more comes after so many bytes of the content.
    Stall(usize),
    /// The content differs from what its tag says.
    Garble,
    /// The whole content, whatever range was asked for.
    IgnoreRange,
    /// A redirect to this address.
    Redirect(String),
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Such as `HEAD`.
    pub method: String,
    /// As it was sent, without the query.
    pub path: String,
    /// Whether it came to the CDN.
    pub cdn: bool,
    /// Whether it had a token.
    pub with_token: bool,
    /// The range asked for.
    pub range: Option<String>,
}

#[derive(Debug, Default)]
struct Repository {
    access: Access,
    refs: BTreeMap<String, String>,
    commits: BTreeMap<String, BTreeMap<String, Bytes>>,
}

#[derive(Debug, Default)]
struct State {
    repositories: BTreeMap<String, Repository>,
    /// Method (empty for any), part of the path, and what goes wrong.
    faults: VecDeque<(String, String, Fault)>,
    seen: Vec<Seen>,
    cdn: String,
}

type States = Arc<Mutex<State>>;

/// The server; it ends when this is dropped.
#[derive(Debug)]
pub struct TestHub {
    state: States,
    address: SocketAddr,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

fn lock(state: &States) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TestHub {
    /// Starts a Hub without repositories. Must be called inside a runtime.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn start() -> io::Result<Self> {
        let state = States::default();
        let mut addresses = Vec::new();
        let mut tasks = Vec::new();
        for is_cdn in [false, true] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            addresses.push(listener.local_addr()?);
            let router = Router::new().fallback(answer).with_state((state.clone(), is_cdn));
            tasks.push(tokio::spawn(async move {
                if let Err(error) = axum::serve(listener, router).await {
                    tracing::error!(%error, "the test Hub ended");
                }
            }));
        }
        let [address, cdn] = addresses[..] else { return Err(io::Error::other("two ports were asked for")) };
        // Another host name as well as another port: what is the same host differs between clients.
        lock(&state).cdn = format!("http://localhost:{}", cdn.port());
        Ok(Self { state, address, tasks })
    }

    /// For `HF_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a commit to a repository, which is made when it is not there, and lets `main` point to it.
    pub fn commit(&self, id: &str, files: &[(&str, &[u8])]) -> String {
        let text = files.iter().map(|(name, content)| format!("{name} {}\n", etag_of(content, true)));
        let commit = etag_of(text.collect::<String>().as_bytes(), false);
        let files = files.iter().map(|(name, content)| ((*name).to_owned(), Bytes::copy_from_slice(content)));
        let mut state = lock(&self.state);
        let repository = state.repositories.entry(id.to_owned()).or_default();
        repository.commits.insert(commit.clone(), files.collect());
        repository.refs.insert("main".to_owned(), commit.clone());
        commit
    }

    /// Lets a branch or tag point to a commit.
    pub fn name(&self, id: &str, revision: &str, commit: &str) {
        let mut state = lock(&self.state);
        let repository = state.repositories.entry(id.to_owned()).or_default();
        repository.refs.insert(revision.to_owned(), commit.to_owned());
    }

    /// Says who may read a repository.
    pub fn access(&self, id: &str, access: Access) {
        lock(&self.state).repositories.entry(id.to_owned()).or_default().access = access;
    }

    /// Lets the next request of a method (any, when empty) whose path has this part go wrong; several wait for several requests.
    pub fn fail(&self, method: &str, path: &str, fault: Fault) {
        lock(&self.state).faults.push_back((method.to_owned(), path.to_owned(), fault));
    }

    /// Whether every fault ordered has come about.
    pub fn all_failed(&self) -> bool {
        lock(&self.state).faults.is_empty()
    }

    /// What was asked since the last call.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut lock(&self.state).seen)
    }
}

impl Drop for TestHub {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn answer(Shared((state, is_cdn)): Shared<(States, bool)>, request: Request) -> Response {
    let mut state = lock(&state);
    let headers = request.headers();
    let path = request.uri().path().to_owned();
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let token = text(header::AUTHORIZATION);
    let range = text(header::RANGE);
    let method = request.method().clone();
    state.seen.push(Seen {
        method: method.to_string(),
        path: path.clone(),
        cdn: is_cdn,
        with_token: token.is_some(),
        range: range.clone(),
    });
    let matching = |(wanted, part, _): &(String, String, Fault)| {
        (wanted.is_empty() || wanted == method.as_str()) && path.contains(part.as_str())
    };
    let fault = state.faults.iter().position(matching).and_then(|index| state.faults.remove(index));
    let fault = fault.map(|(_, _, fault)| fault);
    match &fault {
        Some(Fault::Status(status, pause)) => {
            let mut response = plain(*status, "", "ordered by the test");
            if let Some(pause) = pause.as_deref().and_then(|pause| HeaderValue::from_str(pause).ok()) {
                response.headers_mut().insert(header::RETRY_AFTER, pause);
            }
            return response;
        }
        Some(Fault::Redirect(to)) => return redirect(to, HeaderMap::new()),
        _ => {}
    }
    let parts = path.trim_start_matches('/').split('/').map(|part| percent_decode_str(part).decode_utf8_lossy());
    let parts: Vec<String> = parts.map(|part| part.into_owned()).collect();
    let asked = Asked { token: token.as_deref().and_then(|text| text.strip_prefix("Bearer ")), method, range, fault };
    match (is_cdn, parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice()) {
        (true, [etag]) => {
            let all = state.repositories.values().flat_map(|one| one.commits.values()).flat_map(BTreeMap::values);
            match all.into_iter().find(|content| etag_of(content, true) == *etag) {
                Some(content) => asked.content(content, HeaderMap::new()),
                None => plain(404, "", ""),
            }
        }
        (false, ["api", "models", rest @ ..]) => {
            let split = rest.iter().position(|part| *part == "revision");
            let (id, revision) = match split {
                Some(split) => (rest[..split].join("/"), rest[split + 1..].join("/")),
                None => (rest.join("/"), "main".to_owned()),
            };
            match state.find(&id, &revision, asked.token, true) {
                Ok((commit, files)) => asked.info(&id, commit, files),
                Err(refusal) => *refusal,
            }
        }
        (false, rest) => match rest.iter().position(|part| *part == "resolve") {
            Some(split) if split + 2 < rest.len() => {
                let (id, revision, file) = (rest[..split].join("/"), rest[split + 1], rest[split + 2..].join("/"));
                match state.find(&id, revision, asked.token, false) {
                    Ok((commit, files)) => asked.file(commit, files.get(&file), &state.cdn),
                    Err(refusal) => *refusal,
                }
            }
            _ => plain(404, "", ""),
        },
        (true, _) => plain(404, "", ""),
    }
}

type Files = BTreeMap<String, Bytes>;

impl State {
    /// Commit and files of a revision, or the refusal that the Hub gives.
    fn find(
        &self,
        id: &str,
        revision: &str,
        token: Option<&str>,
        description: bool,
    ) -> Result<(&str, &Files), Box<Response>> {
        let refuse = |status, code, message| Err(Box::new(plain(status, code, message)));
        if token.is_some_and(|token| token != TOKEN && token != STRANGER) {
            return refuse(401, "", "Invalid credentials in Authorization header");
        }
        let hidden = if token.is_some() { 404 } else { 401 };
        let Some(repository) = self.repositories.get(id) else {
            return refuse(hidden, "RepoNotFound", "Repository not found");
        };
        match repository.access {
            Access::Private if token != Some(TOKEN) => return refuse(hidden, "RepoNotFound", "Repository not found"),
            Access::Gated if token != Some(TOKEN) && !description => {
                let status = if token.is_some() { 403 } else { 401 };
                return refuse(status, "GatedRepo", "Access to this model is restricted");
            }
            _ => {}
        }
        let commit = repository.refs.get(revision).map_or(revision, String::as_str);
        match repository.commits.get_key_value(commit) {
            Some((commit, files)) => Ok((commit, files)),
            None => refuse(404, "RevisionNotFound", "Invalid rev id"),
        }
    }
}

struct Asked<'a> {
    token: Option<&'a str>,
    method: Method,
    range: Option<String>,
    fault: Option<Fault>,
}

impl Asked<'_> {
    fn info(&self, id: &str, commit: &str, files: &Files) -> Response {
        let siblings: Vec<_> = files.keys().map(|name| json!({"rfilename": name})).collect();
        let body =
            json!({"id": id, "modelId": id, "sha": commit, "siblings": siblings, "private": false, "gated": false});
        self.content(&Bytes::from(body.to_string()), HeaderMap::new())
    }

    fn file(&self, commit: &str, content: Option<&Bytes>, cdn: &str) -> Response {
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        put("x-repo-commit", commit.to_owned());
        let Some(content) = content else {
            let mut response = plain(404, "EntryNotFound", "Entry not found");
            response.headers_mut().extend(headers);
            return response;
        };
        let large = content.len() >= LARGE;
        let etag = etag_of(content, large);
        if !large {
            put("etag", format!("\"{etag}\""));
            return self.content(content, headers);
        }
        put("x-linked-etag", format!("\"{etag}\""));
        put("x-linked-size", content.len().to_string());
        redirect(&format!("{cdn}/{etag}?signature=secret"), headers)
    }

    fn content(&self, content: &Bytes, headers: HeaderMap) -> Response {
        let size = content.len();
        let from = self.range.as_deref().filter(|_| self.fault != Some(Fault::IgnoreRange));
        let from = from.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        let mut response = Response::default();
        *response.headers_mut() = headers;
        if let Some(from) = from {
            let shown =
                if from < size { format!("bytes {from}-{}/{size}", size - 1) } else { format!("bytes */{size}") };
            *response.status_mut() =
                if from < size { StatusCode::PARTIAL_CONTENT } else { StatusCode::RANGE_NOT_SATISFIABLE };
            if let Ok(shown) = HeaderValue::try_from(shown) {
                response.headers_mut().insert(header::CONTENT_RANGE, shown);
            }
            if from >= size {
                return response;
            }
        }
        let mut part = content.slice(from.unwrap_or_default()..);
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(part.len()));
        if self.method == Method::HEAD {
            return response;
        }
        let begin = |length: usize| part.slice(..length.min(part.len()));
        *response.body_mut() = match self.fault {
            Some(Fault::Cut(after)) => {
                // What comes before the break is sent while the body has nothing to give.
                let broken = stream::once(async {
                    tokio::task::yield_now().await;
                    Err(io::Error::other("cut by the test"))
                });
                Body::from_stream(stream::iter([Ok(begin(after))]).chain(broken))
            }
            Some(Fault::Stall(after)) => {
                let first = stream::iter([Ok::<_, Infallible>(begin(after))]);
                Body::from_stream(first.chain(stream::pending()))
            }
            Some(Fault::Garble) => {
                part = part.iter().map(|byte| byte ^ 1).collect();
                Body::from(part)
            }
            _ => Body::from(part),
        };
        response
    }
}

fn redirect(to: &str, headers: HeaderMap) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::FOUND;
    *response.headers_mut() = headers;
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

fn plain(status: u16, code: &'static str, message: &'static str) -> Response {
    let mut response = Response::new(Body::from(json!({"error": message}).to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in [("x-error-code", code), ("x-error-message", message)] {
        if !value.is_empty() {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
    }
    response
}
