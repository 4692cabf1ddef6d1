//! Encoders by their names on the Hub, as a user gives them: on the command line, in a pipeline, to a job.
#![allow(clippy::unwrap_used)] // the helpers of the tests are tests too

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use quintet_hub::testing::{LARGE, TestHub};
use serde_json::Value;
use tokio_rustls::rustls;

async fn server() -> (TestHub, String) {
    let server = TestHub::start().await.unwrap();
    let weights = vec![7; LARGE * 3];
    let files: [(&str, &[u8]); 3] =
        [("config.json", b"{}"), ("model.safetensors", &weights), ("tokenizer.json", b"{\"version\": \"1.0\"}")];
    let commit = server.commit("org/tiny", &files);
    server.commit("org/old", &[("config.json", b"{}"), ("pytorch_model.bin", b"x")]);
    (server, commit)
}

fn command(folder: &Path, endpoint: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["QUINTET_", "HF_", "HUGGING", "TRANSFORMERS_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).stdin(Stdio::null()).args(args);
    command.env("HF_ENDPOINT", endpoint).env("HF_HOME", folder.join("hf")).env("HF_TOKEN", "hf_opensEverything");
    command
}

async fn quintet(folder: &Path, endpoint: &str, args: &[&str]) -> Output {
    let mut command = command(folder, endpoint, args);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[track_caller]
fn told(output: &Output, code: i32) -> (String, String) {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    assert!(!out.contains("hf_opens") && !err.contains("hf_opens"), "the token is printed: {out}{err}");
    (out, err)
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_brought_and_found_on_the_command_line() {
    let (server, commit) = server().await;
    let folder = tempfile::tempdir().unwrap();
    let (folder, url) = (folder.path(), server.url());
    let (_, error) = told(&quintet(folder, &url, &["hub", "path", "org/tiny"]).await, 2);
    assert!(error.contains("quintet hub download org/tiny@main"), "{error}");
    let (path, error) = told(&quintet(folder, &url, &["hub", "download", "org/tiny"]).await, 0);
    let expected = folder.join("hf/hub/models--org--tiny/snapshots").join(&commit);
    assert_eq!(Path::new(path.trim()), expected);
    assert!(error.contains(&commit), "{error}");
    let (found, _) = told(&quintet(folder, "http://127.0.0.1:9", &["hub", "path", "org/tiny"]).await, 0);
    assert_eq!(found, path);
    for (args, code, part) in [
        (&["hub", "download", "a/b/c"][..], 2, "is no name of a model"),
        (&["hub", "download", "org/none"], 2, "has no model `org/none`"),
        (&["hub", "download", "org/tiny", "--revision", "v9"], 2, "no revision `v9`"),
        (&["hub", "download", "org/tiny@main", "--revision", "v9"], 2, "has a revision already"),
        (&["hub", "download", "org/old"], 2, "only pytorch_model.bin"),
    ] {
        let (_, error) = told(&quintet(folder, &url, args).await, code);
        assert!(error.contains(part), "{args:?}: {error}");
    }
}

const PIPELINE: &str = "
name: hub
params: {model: hf://org/tiny}
stages:
  use:
    command:
      command: cp ${{inputs.encoder}}/model.safetensors ${{outputs.copy}}/
      inputs: {encoder: {uri: '${{params.model}}'}}
      outputs: [copy]
";

#[tokio::test(flavor = "multi_thread")]
async fn a_job_gets_the_commit_that_its_revision_was_at() {
    let (server, commit) = server().await;
    let folder = tempfile::tempdir().unwrap();
    let (folder, url) = (folder.path(), server.url());
    std::fs::write(folder.join("p.yaml"), PIPELINE).unwrap();
    told(&quintet(folder, &url, &["run", "p.yaml", "--json", "r.json"]).await, 0);
    let result: Value = serde_json::from_slice(&std::fs::read(folder.join("r.json")).unwrap()).unwrap();
    let copy = Path::new(result["stages"][0]["outputs"]["copy"]["path"].as_str().unwrap());
    assert_eq!(std::fs::read(copy.join("model.safetensors")).unwrap(), vec![7; LARGE * 3]);
    let job = result["stages"][0]["job"].as_str().unwrap();
    let (text, _) = told(&quintet(folder, &url, &["jobs", "get", job, "-o", "json"]).await, 0);
    let job: Value = serde_json::from_str(&text).unwrap();
    let pinned = format!("hf://org/tiny@{commit}");
    assert_eq!(job["spec"]["command"]["inputs"]["encoder"]["uri"], pinned);
    assert_eq!(job["outputs"]["report"]["inputs"]["spec.command.inputs.encoder"], pinned, "{job}");
    // The same again is reused; a revision that has moved is not.
    let again = async || {
        told(&quintet(folder, &url, &["run", "p.yaml", "--json", "r.json"]).await, 0);
        let result: Value = serde_json::from_slice(&std::fs::read(folder.join("r.json")).unwrap()).unwrap();
        result["stages"][0]["reused"].as_bool().unwrap()
    };
    assert!(again().await);
    server.commit("org/tiny", &[("config.json", b"{ }"), ("model.safetensors", b"new"), ("tokenizer.json", b"{}")]);
    assert!(!again().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backbone_that_cannot_be_used_is_told_with_its_line_before_any_work() {
    let (server, _) = server().await;
    let folder = tempfile::tempdir().unwrap();
    let (folder, url) = (folder.path(), server.url());
    std::fs::write(folder.join("train.conll"), "anna B-per\nlives O\n\n").unwrap();
    std::fs::create_dir_all(folder.join("local/encoder")).unwrap();
    std::fs::write(folder.join("local/encoder/config.json"), "{}").unwrap();
    let check = async |backbone: &str| {
        let text = format!(
            "name: t\nstages:\n  train:\n    train:\n      backbone: {backbone}\n      data: {{train: train.conll}}\n"
        );
        std::fs::write(folder.join("t.yaml"), text).unwrap();
        quintet(folder, &url, &["run", "t.yaml", "--check"]).await
    };
    for good in ["org/tiny", "org/tiny@main", "hf://org/tiny", "local/encoder", "./local/encoder"] {
        told(&check(good).await, 0);
    }
    for (bad, part) in [
        ("org/none", "has no model `org/none`"),
        ("org/tiny@v9", "no revision `v9`"),
        ("org/old", "only pytorch_model.bin"),
        ("a/b/c", "more than one `/`"),
        ("./not/there", "not/there"),
    ] {
        let (_, error) = told(&check(bad).await, 2);
        assert!(error.contains(part) && error.contains("t.yaml:5:17: stages.train.train.backbone"), "{bad}: {error}");
    }
}

/// A port that speaks TLS with a certificate of its own, and hands what comes to the server.
async fn tls_before(server: &TestHub, folder: &Path) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = server.url().trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                // A client that does not trust the certificate goes away.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = tokio::net::TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    format!("https://localhost:{port}")
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_and_encryption_is_not_given_up() {
    let (server, _) = server().await;
    server.commit("org/small", &[("config.json", b"{}"), ("model.safetensors", b"x"), ("tokenizer.json", b"{}")]);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let url = tls_before(&server, folder).await;
    let (_, error) = told(&quintet(folder, &url, &["hub", "download", "org/small"]).await, 3);
    assert!(error.contains("certificate") && error.contains(&url), "{error}");
    assert!(server.seen().is_empty(), "nothing was asked of a host that is not who it says");
    let trusting = async |model: &str| {
        let mut command = command(folder, &url, &["hub", "download", model]);
        command.env("SSL_CERT_FILE", folder.join("ca.pem"));
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    told(&trusting("org/small").await, 0);
    // The large file of this one lies on a host without encryption.
    let (_, error) = told(&trusting("org/tiny").await, 1);
    assert!(error.contains("from https to http"), "{error}");
    assert!(server.seen().iter().all(|seen| !seen.cdn));
}
