//! The REST API as bytes: what is refused, how, and what a hostile path comes to.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Service, serve};

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// Sends raw bytes, so that nothing tidies the path up on its way.
async fn send(service: &Service, request: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(service.address).await.unwrap();
    socket.write_all(request).await.unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: bytes[end + 4..].to_vec() }
}

async fn call(service: &Service, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{kind}\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    send(service, &request).await
}

async fn get(service: &Service, path: &str) -> Answer {
    call(service, "GET", path, "", b"").await
}

async fn post(service: &Service, path: &str, body: &Value) -> Answer {
    let kind = "Content-Type: application/json; charset=utf-8\r\n";
    call(service, "POST", &format!("/api/2.0/mlflow/{path}"), kind, body.to_string().as_bytes()).await
}

fn refused(answer: &Answer, status: u16, code: &str) {
    let body = answer.json();
    assert_eq!((answer.status, body["error_code"].as_str()), (status, Some(code)), "{body}");
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_prefixes_answer_and_what_is_missing_says_so() {
    let service = serve(1 << 20).await;
    for path in ["/api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/server-info"] {
        assert_eq!(get(&service, path).await.json()["store_type"], "SqlStore");
    }
    assert_eq!(get(&service, "/version").await.body, tracking_svc::MLFLOW_VERSION.as_bytes());
    assert_eq!(get(&service, "/health").await.body, b"OK");
    for prefix in ["/api", "/ajax-api"] {
        let answer = get(&service, &format!("{prefix}/2.0/mlflow/experiments/get?experiment_id=0")).await;
        assert_eq!((answer.status, answer.json()["experiment"]["experiment_id"].clone()), (200, json!("0")));
    }
    for path in [
        "/api/2.0/mlflow/no-such",
        "/api/2.0/no-such",
        "/api/3.0/mlflow/traces/x",
        "/ajax-api/2.0/mlflow/gateway-proxy",
        "/api/9",
    ] {
        let answer = get(&service, path).await;
        refused(&answer, 404, "ENDPOINT_NOT_FOUND");
        assert!(answer.json()["message"].as_str().is_some_and(|message| message.contains(path)), "{path}");
    }
    refused(&get(&service, "/api/2.0/mlflow/runs/create").await, 405, "ENDPOINT_NOT_FOUND");
    refused(&get(&service, "/api/2.0/mlflow-artifacts/presigned/x").await, 501, "NOT_IMPLEMENTED");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_read_as_mlflow_reads_them() {
    let service = serve(1 << 20).await;
    let run =
        post(&service, "runs/create", &json!({"experimentId": "0", "start_time": "5", "unknown": 1})).await.json();
    let info = &run["run"]["info"];
    let id = info["run_id"].as_str().unwrap().to_owned();
    assert_eq!((info["start_time"].clone(), info["status"].clone()), (json!(5), json!("RUNNING")));
    assert_eq!(info["artifact_uri"], format!("mlflow-artifacts:/0/{id}/artifacts"));
    assert_eq!((&info["run_uuid"], info.get("end_time")), (&json!(id), None));
    for metric in [
        json!({"run_id": id, "key": "m", "value": "1.5", "timestamp": "7", "step": "2"}),
        json!({"runUuid": id, "key": "m", "value": "NaN", "timestamp": 8}),
        json!(json!({"run_uuid": id, "key": "m", "value": 2, "timestamp": 8, "step": 3.0}).to_string()),
    ] {
        let answer = post(&service, "runs/log-metric", &metric).await;
        assert_eq!((answer.status, answer.json()), (200, json!({})), "{metric}");
    }
    let history = get(&service, &format!("/api/2.0/mlflow/metrics/get-history?run_id={id}&metric_key=m")).await.json();
    assert_eq!(
        history["metrics"],
        json!([
            {"key": "m", "value": 1.5, "timestamp": 7, "step": 2},
            {"key": "m", "value": "NaN", "timestamp": 8, "step": 0},
            {"key": "m", "value": 2.0, "timestamp": 8, "step": 3}
        ])
    );
    let good = json!({"run_id": id, "key": "m", "value": 1, "timestamp": 7});
    for (field, value) in [
        ("run_id", Value::Null),
        ("run_id", json!(5)),
        ("key", json!("a//b")),
        ("key", json!("")),
        ("value", json!("x")),
        ("value", Value::Null),
        ("timestamp", json!(-1)),
        ("timestamp", json!("soon")),
        ("step", json!(1.5)),
        ("step", json!(9_223_372_036_854_775_808u64)),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        refused(&post(&service, "runs/log-metric", &bad).await, 400, "INVALID_PARAMETER_VALUE");
    }
    refused(
        &post(&service, "runs/log-metric", &json!({"run_id": id, "runId": id})).await,
        400,
        "INVALID_PARAMETER_VALUE",
    );
    refused(
        &post(&service, "runs/update", &json!({"run_id": id, "status": "DONE"})).await,
        400,
        "INVALID_PARAMETER_VALUE",
    );
    refused(&post(&service, "experiments/search", &json!({})).await, 400, "INVALID_PARAMETER_VALUE");
    refused(&post(&service, "experiments/create", &json!({"name": "a\0b"})).await, 400, "INVALID_PARAMETER_VALUE");
    let path = "/api/2.0/mlflow/runs/create";
    for (kind, body) in
        [("", "{}"), ("Content-Type: text/plain\r\n", "{}"), ("Content-Type: application/json\r\n", "{")]
    {
        refused(&call(&service, "POST", path, kind, body.as_bytes()).await, 400, "INVALID_PARAMETER_VALUE");
    }
    refused(&get(&service, "/api/2.0/mlflow/runs/get?run_id=404").await, 404, "RESOURCE_DOES_NOT_EXIST");
    let found =
        post(&service, "runs/search", &json!({"experiment_ids": ["0", "nonsense"], "filter": "metrics.m = 2"})).await;
    assert_eq!(found.json()["runs"][0]["data"]["metrics"][0]["value"], json!(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_travel_whole_and_hostile_paths_lead_nowhere() {
    let service = serve(1 << 20).await;
    let base = "/api/2.0/mlflow-artifacts/artifacts";
    let put = |path: &str| format!("{base}/{path}");
    assert_eq!(call(&service, "PUT", &put("0/r/artifacts/a%20b%2B%C3%BC.html"), "", b"<p>").await.status, 200);
    let file = get(&service, &put("0/r/artifacts/a%20b%2B%C3%BC.html")).await;
    assert_eq!((file.status, file.body.as_slice()), (200, &b"<p>"[..]));
    for expected in [
        "content-type: text/html",
        "x-content-type-options: nosniff",
        "content-disposition: attachment; filename*=utf-8''a%20b%2b%c3%bc.html",
        "content-length: 3",
    ] {
        assert!(file.head.contains(expected), "{expected} in {}", file.head);
    }
    let listed = get(&service, &format!("{base}?path=0/r/artifacts")).await.json();
    assert_eq!(listed, json!({"files": [{"path": "a b+ü.html", "is_dir": false, "file_size": 3}]}));
    assert_eq!(get(&service, &format!("{base}?path=0/r/artifacts/a%20b%2B%C3%BC.html")).await.json(), json!({}));
    refused(&get(&service, &put("0/r/none")).await, 404, "RESOURCE_DOES_NOT_EXIST");
    refused(&get(&service, &put("0/r")).await, 400, "INVALID_PARAMETER_VALUE");
    refused(&call(&service, "PUT", &put("0/r/"), "", b"x").await, 400, "INVALID_PARAMETER_VALUE");
    refused(&call(&service, "PUT", &put("0/r"), "", b"x").await, 400, "INVALID_PARAMETER_VALUE");
    refused(&call(&service, "PUT", &put("0/big"), "", &vec![0; (1 << 20) + 1]).await, 413, "INVALID_PARAMETER_VALUE");
    for path in [
        "../tracking.db",
        "..%2Ftracking.db",
        "%2e%2e/tracking.db",
        "%252e%252e/tracking.db",
        "0/..%5c..%5ctracking.db",
        "%2Fetc/passwd",
        "0/%252e%252e%252f%252e%252e/tracking.db",
        "jobs/..%2f..%2ftracking.db",
        "C:%5Cx",
        "file:%2F%2F%2Fetc%2Fpasswd",
        "0/a%00b",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            refused(&call(&service, method, &put(path), "", b"x").await, 400, "INVALID_PARAMETER_VALUE");
        }
        refused(&get(&service, &format!("{base}?path={path}")).await, 400, "INVALID_PARAMETER_VALUE");
    }
    // A body that ends early leaves nothing.
    let mut socket = TcpStream::connect(service.address).await.unwrap();
    let head = format!("PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this", put("0/short"));
    socket.write_all(head.as_bytes()).await.unwrap();
    drop(socket);
    refused(&get(&service, &put("0/short")).await, 404, "RESOURCE_DOES_NOT_EXIST");
    assert_eq!(call(&service, "DELETE", &put("0/r"), "", b"").await.json(), json!({}));
    assert_eq!(get(&service, &format!("{base}?path=0")).await.json(), json!({}));

    let run = post(&service, "runs/create", &json!({"experiment_id": "0"})).await.json();
    let id = run["run"]["info"]["run_id"].as_str().unwrap().to_owned();
    call(&service, "PUT", &put(&format!("0/{id}/artifacts/d/x.txt")), "", b"x").await;
    let list = |rest: &str| format!("/ajax-api/2.0/mlflow/artifacts/list?run_uuid={id}{rest}");
    assert_eq!(
        get(&service, &list("&path=d")).await.json(),
        json!({"root_uri": format!("mlflow-artifacts:/0/{id}/artifacts"), "files": [{"path": "d/x.txt", "is_dir": false, "file_size": 1}]})
    );
    refused(&get(&service, &list("&path=../../x")).await, 400, "INVALID_PARAMETER_VALUE");
}
