//! An S3 server for tests: moto, as the set-up installs it.
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A server on a free port; it ends when this is dropped.
pub(super) struct Moto {
    child: Child,
    endpoint: String,
}

impl Moto {
    /// Starts it and waits until it says where it listens.
    pub(super) fn start() -> Self {
        let program = program();
        let mut child = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}: `cargo xtask setup` brings moto", program.display()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let endpoint = lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| line.split_once("Running on ").map(|(_, url)| url.trim().to_owned()))
            .expect("moto says where it runs");
        // It writes a line a request and would stop when nobody reads them.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, endpoint }
    }

    /// Makes a bucket.
    pub(super) async fn create_bucket(&self, name: &str) {
        let made = reqwest::Client::new().put(format!("{}/{name}", self.endpoint)).send().await.unwrap();
        assert!(made.status().is_success(), "{made:?}");
    }

    /// The URL of a store on this server.
    pub(super) fn url(&self, store: &str) -> String {
        format!("{store}?endpoint={}&region=us-east-1&access_key_id=key&secret_access_key=secret", self.endpoint)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> PathBuf {
    match std::env::var_os("QUINTET_TEST_MOTO") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.runtime/venv/bin/moto_server"),
    }
}
