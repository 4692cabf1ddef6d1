//! From a URL to an object store: local folder, S3, Google Cloud Storage, Azure, or memory for tests.
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    local::LocalFileSystem,
    memory::InMemory,
    path::Path as ObjectPath,
};
use url::Url;

use super::Error;

/// A request that failed is repeated for this long, then it is the caller's to decide.
const RETRY_LIMIT: Duration = Duration::from_secs(60);
const RETRIES: usize = 8;
/// One request, at most: a part of an upload is 8 MiB.
const REQUEST_LIMIT: &str = "120s";

/// A store and where it begins.
pub(super) struct Opened {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) prefix: ObjectPath,
    /// Without a slash at its end, without options.
    pub(super) url: String,
}

/// Opens `url`: a path, `file://`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or `memory:///`.
/// Options come from the usual environment variables (`AWS_*`, `GOOGLE_*`, `AZURE_*`), then from the URL's query
/// (`s3://b/p?endpoint=http://127.0.0.1:5000&region=us-east-1`), then from `options`; later ones win.
pub(super) fn open(url: &str, options: &BTreeMap<String, String>) -> Result<Opened, Error> {
    let fail = |reason: String| Error::Url { url: without_query(url).to_owned(), reason };
    // What has no scheme is a path; so is a relative path that happens to contain a colon.
    let Ok(mut parsed) = Url::parse(url) else {
        return local(Path::new(url), url);
    };
    let mut all: BTreeMap<String, String> =
        parsed.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
    all.extend(options.iter().map(|(key, value)| (key.clone(), value.clone())));
    parsed.set_query(None);
    // In `abfss://container@account...` the part before the @ is the container.
    if parsed.password().is_some() || (!parsed.username().is_empty() && !parsed.scheme().starts_with("abfs")) {
        return Err(fail("must not hold credentials; give them in the environment".into()));
    }
    let prefix = || ObjectPath::from_url_path(parsed.path()).map_err(|error| fail(error.to_string()));
    let url = parsed.as_str().trim_end_matches('/').to_owned();
    let invalid = |error: object_store::Error| fail(error.to_string());
    let store: Arc<dyn ObjectStore> = match parsed.scheme() {
        "file" => {
            let path =
                parsed.to_file_path().map_err(|()| fail("is not a local path; write file:///absolute/path".into()))?;
            return local(&path, url.as_str());
        }
        "memory" => return Ok(Opened { store: Arc::new(InMemory::new()), prefix: prefix()?, url }),
        "s3" | "s3a" => {
            let mut builder = AmazonS3Builder::from_env()
                .with_url(parsed.as_str())
                .with_conditional_put(S3ConditionalPut::ETagMatch)
                .with_retry(retry())
                .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST_LIMIT);
            for (key, value) in &all {
                builder = builder.with_config(option::<AmazonS3ConfigKey>(key).map_err(&fail)?, value);
            }
            let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
            // An endpoint of plain text was asked for in so many words.
            let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
            if plain {
                builder = builder.with_allow_http(true);
            }
            Arc::new(builder.build().map_err(invalid)?)
        }
        "gs" => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_url(parsed.as_str()).with_retry(retry());
            for (key, value) in &all {
                builder = builder.with_config(option::<GoogleConfigKey>(key).map_err(&fail)?, value);
            }
            Arc::new(builder.build().map_err(invalid)?)
        }
        "az" | "azure" | "abfs" | "abfss" => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_url(parsed.as_str()).with_retry(retry());
            for (key, value) in &all {
                builder = builder.with_config(option::<AzureConfigKey>(key).map_err(&fail)?, value);
            }
            Arc::new(builder.build().map_err(invalid)?)
        }
        other => return Err(fail(format!("scheme `{other}` is not one of file, s3, gs, az"))),
    };
    Ok(Opened { store, prefix: prefix()?, url })
}

fn local(path: &Path, given: &str) -> Result<Opened, Error> {
    let fail = |reason: String| Error::Url { url: given.to_owned(), reason };
    if path.as_os_str().is_empty() {
        return Err(fail("is empty".into()));
    }
    std::fs::create_dir_all(path).map_err(|source| Error::io(path, source))?;
    let path = std::fs::canonicalize(path).map_err(|source| Error::io(path, source))?;
    let url = Url::from_file_path(&path).map_err(|()| fail("is not an absolute path".into()))?;
    let store = LocalFileSystem::new_with_prefix(&path)
        .map_err(|error| fail(error.to_string()))?
        .with_fsync(true)
        .with_automatic_cleanup(true);
    let url = url.as_str().trim_end_matches('/').to_owned();
    Ok(Opened { store: Arc::new(store), prefix: ObjectPath::default(), url })
}

fn option<K: std::str::FromStr<Err = object_store::Error>>(key: &str) -> Result<K, String> {
    key.to_ascii_lowercase().parse().map_err(|_| format!("option `{key}` is not known"))
}

fn retry() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: RETRY_LIMIT }
}

/// Options may hold secrets, so they are never told.
fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}
