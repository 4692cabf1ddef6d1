//! The unmodified mlflow client, as a Python script, against the REST API.

use std::path::Path;

use tracking_svc::NewRun;

use super::serve;

#[tokio::test(flavor = "multi_thread")]
async fn an_unmodified_mlflow_client_logs_and_reads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join(".runtime/venv/bin/python");
    let usable = std::process::Command::new(&python).args(["-c", "import mlflow"]).output();
    if !usable.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {} has no mlflow; `cargo xtask setup` brings it", python.display());
        return;
    }
    let service = serve(1 << 30).await;
    // A job's run, and an output that the job has published.
    let run_id = "0123456789abcdef0123456789abcdef";
    let run = NewRun {
        run_id: Some(run_id.into()),
        artifact_uri: Some(format!("mlflow-artifacts:/jobs/{run_id}")),
        start_time: 1,
        followed: true,
        ..NewRun::default()
    };
    service.tracking.store().create_run(run).await.unwrap();
    let output = tempfile::tempdir().unwrap();
    std::fs::write(output.path().join("config.json"), "{}").unwrap();
    service.artifacts.publish(output.path(), &format!("jobs/{run_id}/checkpoint")).await.unwrap();

    let script = root.join("tests/peers/mlflow_client.py");
    let uri = format!("http://{}", service.address);
    let output = tokio::process::Command::new(python)
        .arg(script)
        .args([&uri, run_id])
        .env("PYTHONWARNINGS", "ignore")
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.trim_end().ends_with("ok"), "{text}\n{errors}");

    // What the client logged is there for the server's own reader.
    let tail = service.tracking.store().read_metrics(run_id.into(), Some("f1".into()), 0).await.unwrap();
    assert_eq!(tail.metrics.iter().map(|metric| metric.value).collect::<Vec<_>>(), [0.0, 0.1, 0.2]);
}
