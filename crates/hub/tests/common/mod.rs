//! A Hub with one model, and settings that point to it with a cache of their own.
// Helpers of tests fail by panicking, like the tests; not every test file needs each of them.
#![allow(clippy::unwrap_used, dead_code)]

use std::{path::Path, time::Duration};

use quintet_hub::{
    Hub, Patience, Repo, Settings, Token,
    testing::{LARGE, TestHub},
};

pub(crate) const ID: &str = "org/tiny";

/// Weights that are large for the server; they differ by their seed.
pub(crate) fn weights(seed: u8) -> Vec<u8> {
    (0..LARGE * 40).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed) ^ (at >> 8) as u8).collect()
}

pub(crate) const CONFIG: &[u8] = br#"{"model_type": "bert"}"#;
pub(crate) const TOKENIZER: &[u8] = br#"{"version": "1.0"}"#;

/// A server with `org/tiny`, which has more files than are needed, and its commit.
pub(crate) async fn server() -> (TestHub, String) {
    let server = TestHub::start().await.unwrap();
    let commit = add(&server, 1);
    (server, commit)
}

pub(crate) fn add(server: &TestHub, seed: u8) -> String {
    let weights = weights(seed);
    let files: [(&str, &[u8]); 6] = [
        ("README.md", b"# Tiny"),
        ("config.json", CONFIG),
        ("model.safetensors", &weights),
        ("pytorch_model.bin", &weights),
        ("tokenizer.json", TOKENIZER),
        ("vocab.txt", b""),
    ];
    server.commit(ID, &files)
}

pub(crate) fn settings(server: &TestHub, cache: &Path) -> Settings {
    let (endpoint, cache) = (server.url(), cache.display().to_string());
    let mut settings = Settings::from_lookup(|name| match name {
        "HF_ENDPOINT" => Some(endpoint.clone()),
        "HF_HUB_CACHE" => Some(cache.clone()),
        "HOME" => Some("/nonexistent".to_owned()),
        _ => None,
    })
    .unwrap();
    settings.patience = Patience {
        tries: 3,
        first_pause: Duration::from_millis(10),
        longest_pause: Duration::from_millis(20),
        longest_wait: Duration::from_secs(5),
    };
    settings.read_timeout = Duration::from_millis(400);
    settings
}

pub(crate) fn hub(server: &TestHub, cache: &Path) -> Hub {
    Hub::new(settings(server, cache)).unwrap()
}

pub(crate) fn with_token(server: &TestHub, cache: &Path, token: &str) -> Hub {
    Hub::new(Settings { token: Token::new(token).unwrap(), ..settings(server, cache) }).unwrap()
}

pub(crate) fn repo(text: &str) -> Repo {
    text.parse().unwrap()
}

/// Every file below a folder that is no link, with its path in the folder.
pub(crate) fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            match kind.is_dir() {
                true => folders.push(entry.path()),
                false if kind.is_file() => {
                    found.push(entry.path().strip_prefix(folder).unwrap().display().to_string());
                }
                false => {}
            }
        }
    }
    found.sort();
    found
}
