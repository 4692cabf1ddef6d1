//! Settings from the variables that `huggingface_hub` reads, with its defaults, so that one set-up serves both.

use std::{fmt, path::PathBuf, time::Duration};

use reqwest::header::HeaderValue;
use url::Url;

use crate::{Error, Patience};

/// Where models are when `HF_ENDPOINT` says nothing else.
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// Time limit of `huggingface_hub` for a connection that gives nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// An access token; it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token without the white space around it; none when nothing is left.
    ///
    /// # Errors
    /// The token holds characters that no header carries.
    pub fn new(text: &str) -> Result<Option<Self>, &'static str> {
        let text = text.trim();
        if text.bytes().any(|byte| !(0x21..=0x7e).contains(&byte)) {
            return Err("holds white space or characters that no header carries");
        }
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// How to reach the Hub, and where its files are kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `HF_ENDPOINT`; without a slash at its end.
    pub endpoint: Url,
    /// `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `$HF_HOME/hub`; `HF_HOME` is `~/.cache/huggingface` by default.
    pub cache: PathBuf,
    /// `HF_TOKEN`, else `HUGGING_FACE_HUB_TOKEN`, else the file `HF_TOKEN_PATH` (`$HF_HOME/token`); none with
    /// `HF_HUB_DISABLE_IMPLICIT_TOKEN`.
    pub token: Option<Token>,
    /// `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`: only the cache is asked.
    pub offline: bool,
    /// `HF_HUB_ETAG_TIMEOUT`: for an answer without content.
    pub answer_timeout: Duration,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: between two pieces of a file.
    pub read_timeout: Duration,
    /// Repetitions after failures that may pass.
    pub patience: Patience,
}

impl Settings {
    /// The settings of this process' environment.
    ///
    /// # Errors
    /// [`Error::Settings`] names the variable; a token file that cannot be read is [`Error::Io`].
    pub fn from_env() -> Result<Self, Error> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// The settings of variables that are looked up by name.
    ///
    /// # Errors
    /// As [`Settings::from_env`].
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let lookup = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let given = |name: &str, parent: &str, child: &str| match lookup(name) {
            Some(path) => Ok(PathBuf::from(expand(&path, &lookup))),
            None => match lookup(parent) {
                Some(parent) => Ok(PathBuf::from(expand(&parent, &lookup)).join(child)),
                None => Err(Error::settings(parent, "is not set, so there is no place for the cache; set HF_HOME")),
            },
        };
        let home = match lookup("XDG_CACHE_HOME") {
            Some(_) => given("HF_HOME", "XDG_CACHE_HOME", "huggingface")?,
            None => given("HF_HOME", "HOME", ".cache/huggingface")?,
        };
        let cache = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"].into_iter().find_map(&lookup);
        let cache = cache.map_or_else(|| home.join("hub"), |path| PathBuf::from(expand(&path, &lookup)));
        let seconds = |name: &str| match lookup(name) {
            None => Ok(DEFAULT_TIMEOUT),
            Some(text) => match text.trim().parse::<u32>() {
                Ok(value) if value > 0 => Ok(Duration::from_secs(value.into())),
                _ => Err(Error::settings(name, format!("{text:?} is no number of seconds of 1 or more"))),
            },
        };
        let token_path =
            lookup("HF_TOKEN_PATH").map_or_else(|| home.join("token"), |path| PathBuf::from(expand(&path, &lookup)));
        Ok(Self {
            endpoint: endpoint(&lookup("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()))?,
            cache,
            token: if is_true(lookup("HF_HUB_DISABLE_IMPLICIT_TOKEN")) { None } else { token(&lookup, token_path)? },
            offline: is_true(lookup("HF_HUB_OFFLINE").or_else(|| lookup("TRANSFORMERS_OFFLINE"))),
            answer_timeout: seconds("HF_HUB_ETAG_TIMEOUT")?,
            read_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT")?,
            patience: Patience::default(),
        })
    }

    /// The endpoint for people, as it is written in addresses.
    pub(crate) fn shown_endpoint(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }
}

fn is_true(value: Option<String>) -> bool {
    value.is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str()))
}

fn endpoint(text: &str) -> Result<Url, Error> {
    let fail = |problem: &str| Error::settings("HF_ENDPOINT", format!("is no address of a Hub: {problem}"));
    let mut url = Url::parse(text.trim().trim_end_matches('/')).map_err(|error| fail(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(fail("http://HOST or https://HOST is expected"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(fail("it must not hold credentials; set HF_TOKEN"));
    }
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

fn token(lookup: &impl Fn(&str) -> Option<String>, path: PathBuf) -> Result<Option<Token>, Error> {
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(text) = lookup(name) {
            return Token::new(&text).map_err(|problem| Error::settings(name, problem));
        }
    }
    match std::fs::read_to_string(&path) {
        Ok(text) => Token::new(&text)
            .map_err(|problem| Error::settings("HF_TOKEN_PATH", format!("the file {} {problem}", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path, source }),
    }
}

/// `~` at the beginning, `$NAME` and `${NAME}`, as Python's `expanduser` and `expandvars`; an unknown name stays.
fn expand(path: &str, lookup: &impl Fn(&str) -> Option<String>) -> String {
    let mut rest = path;
    let mut out = String::new();
    if let Some(below) = rest.strip_prefix('~').filter(|below| below.is_empty() || below.starts_with('/'))
        && let Some(home) = lookup("HOME")
    {
        out.push_str(&home);
        rest = below;
    }
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let braced = after.strip_prefix('{').and_then(|text| text.split_once('}'));
        let (name, tail) = braced.unwrap_or_else(|| {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            after.split_at(after.find(|c| !word(c)).unwrap_or(after.len()))
        });
        match lookup(name).filter(|_| !name.is_empty()) {
            Some(value) => out.push_str(&value),
            None => out.push_str(&rest[before.len()..rest.len() - tail.len()]),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Settings, Error> {
        let map: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::from_lookup(|name| map.get(name).cloned())
    }

    #[test]
    fn defaults_are_those_of_huggingface_hub() {
        let settings = of(&[("HOME", "/h")]).unwrap();
        assert_eq!(settings.shown_endpoint(), "https://huggingface.co");
        assert_eq!(settings.cache, Path::new("/h/.cache/huggingface/hub"));
        assert!(settings.token.is_none() && !settings.offline);
        assert_eq!((settings.answer_timeout, settings.read_timeout), (DEFAULT_TIMEOUT, DEFAULT_TIMEOUT));
    }

    #[test]
    fn places_of_the_cache() {
        let cache = |pairs: &[(&str, &str)]| of(pairs).unwrap().cache.display().to_string();
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~/hf")]), "/h/hf/hub");
        assert_eq!(cache(&[("HF_HOME", "/a"), ("HF_HUB_CACHE", "$HF_HOME/c")]), "/a/c");
        assert_eq!(cache(&[("HF_HOME", "/a"), ("HUGGINGFACE_HUB_CACHE", "/old")]), "/old");
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "/m/${NOT}/$/x")]), "/m/${NOT}/$/x/hub");
        assert!(of(&[]).unwrap_err().to_string().contains("set HF_HOME"));
    }

    #[test]
    fn tokens_are_cleaned_and_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().display().to_string();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let token = |pairs: &[(&str, &str)]| {
            of(&[pairs, &[("HF_HOME", home.as_str())]].concat()).unwrap().token.map(|token| token.0)
        };
        assert_eq!(token(&[]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_TOKEN", " hf_env\n")]).as_deref(), Some("hf_env"));
        assert_eq!(token(&[("HUGGING_FACE_HUB_TOKEN", "hf_old")]).as_deref(), Some("hf_old"));
        assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        let settings = of(&[("HOME", "/h"), ("HF_TOKEN", "hf_secret")]).unwrap();
        assert!(!format!("{settings:?}").contains("hf_secret"));
        let error = of(&[("HOME", "/h"), ("HF_TOKEN", "hf_se cret")]).unwrap_err().to_string();
        assert!(error.contains("HF_TOKEN") && !error.contains("cret"), "{error}");
    }

    #[test]
    fn wrong_settings_name_their_variable() {
        for (name, value, part) in [
            ("HF_ENDPOINT", "hub.example", "HF_ENDPOINT"),
            ("HF_ENDPOINT", "ftp://hub.example", "http://HOST"),
            ("HF_ENDPOINT", "https://me:pw@hub.example", "HF_TOKEN"),
            ("HF_HUB_ETAG_TIMEOUT", "soon", "HF_HUB_ETAG_TIMEOUT"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "0", "HF_HUB_DOWNLOAD_TIMEOUT"),
        ] {
            let error = of(&[("HOME", "/h"), (name, value)]).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("pw@"), "{error}");
        }
        assert!(of(&[("HOME", "/h"), ("TRANSFORMERS_OFFLINE", "yes")]).unwrap().offline);
        assert!(!of(&[("HOME", "/h"), ("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        let mirror = of(&[("HOME", "/h"), ("HF_ENDPOINT", "https://mirror.example/hf/")]).unwrap();
        assert_eq!(mirror.shown_endpoint(), "https://mirror.example/hf");
    }
}
