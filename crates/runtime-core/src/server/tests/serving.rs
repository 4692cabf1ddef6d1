//! One port for everything: gRPC, HTTP, reflection, tokens, limits, TLS, and errors at the start.
use std::time::Duration;

use http::StatusCode;
use prost::Message as _;
use quintet_proto::v1::{GetJobRequest, job_service_client::JobServiceClient};
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::{
    v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    },
    v1alpha,
};

use super::{Gated, channel, client, job, server, soon, start};
use crate::{
    server::{Error, Listener, Server, ServerOptions, TlsOptions},
    status::{self, ErrorReason},
};

#[tokio::test]
async fn grpc_and_http_share_the_port() {
    let (handle, _) = start(ServerOptions::default()).await;
    client(&handle).await.get_checkpoint_from_training_job(job("x")).await.unwrap();
    let mut health = HealthClient::new(channel(handle.local_addr()).await);
    for service in ["", "quintet.v1.ConversionService"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    for http in [reqwest::Client::builder().http1_only(), reqwest::Client::builder().http2_prior_knowledge()] {
        let http = http.build().unwrap();
        let answer = http.get(format!("{}/healthz", handle.url())).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), r#"{"status":"SERVING"}"#);
        let answer = http.post(format!("{}/echo", handle.url())).body("hello").send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "hello");
        let answer = http.get(format!("{}/nowhere", handle.url())).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        assert!(answer.text().await.unwrap().contains("GET /nowhere is not served here"));
    }
    handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unimplemented() {
    let (handle, _) = start(ServerOptions::default()).await;
    let mut other = JobServiceClient::new(channel(handle.local_addr()).await);
    let refused = other.get_job(GetJobRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), status::reason_of(&refused)), (Code::Unimplemented, Some(ErrorReason::Unsupported)));
    assert!(refused.message().contains("/quintet.v1.JobService/GetJob is not served here"), "{refused}");
    let http = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for path in ["quintet.v1.ConversionService/Nothing", "quintet.v1.ConversionService", ""] {
        let call = http.post(format!("{}/{path}", handle.url())).header("content-type", "application/grpc");
        assert_eq!(call.send().await.unwrap().headers()["grpc-status"], "12", "{path}");
    }
    handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn reflection_lists_every_service_in_both_versions() {
    let (handle, _) = start(ServerOptions::default()).await;
    let channel = channel(handle.local_addr()).await;
    let ask = |message| {
        futures::stream::iter([ServerReflectionRequest { host: String::new(), message_request: Some(message) }])
    };
    let mut client = ServerReflectionClient::new(channel.clone());
    let mut answers =
        client.server_reflection_info(ask(MessageRequest::ListServices(String::new()))).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("not a list");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["quintet.v1.JobService", "quintet.v1.WorkerService", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
    }
    let symbol = MessageRequest::FileContainingSymbol("quintet.v1.Job".into());
    let mut answers = client.server_reflection_info(ask(symbol)).await.unwrap().into_inner();
    assert!(matches!(
        answers.message().await.unwrap().unwrap().message_response,
        Some(MessageResponse::FileDescriptorResponse(_))
    ));
    let mut old = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let message = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let mut answers = old.server_reflection_info(futures::stream::iter([request])).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
}

#[tokio::test]
async fn tokens_are_asked_for_everywhere_but_at_health() {
    let options = ServerOptions { tokens: vec!["right".into()], ..ServerOptions::default() };
    let (handle, _) = start(options).await;
    let mut calls = client(&handle).await;
    for header in [None, Some("Bearer wrong")] {
        let mut request = Request::new(job("x"));
        if let Some(value) = header {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        let status = calls.get_checkpoint_from_training_job(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(status::reason_of(&status), Some(ErrorReason::Unauthenticated));
    }
    let mut request = Request::new(job("x"));
    request.metadata_mut().insert("authorization", "Bearer right".parse().unwrap());
    calls.get_checkpoint_from_training_job(request).await.unwrap();

    let http = reqwest::Client::new();
    let url = |path: &str| format!("{}{path}", handle.url());
    let answer = http.get(url("/metrics")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(answer.headers().contains_key("www-authenticate"));
    let answer = http.post(url("/echo")).basic_auth("mlflow", Some("right")).body("x").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(http.get(url("/healthz")).send().await.unwrap().status(), StatusCode::OK);
    let mut health = HealthClient::new(channel(handle.local_addr()).await);
    health.check(HealthCheckRequest::default()).await.unwrap();
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let options = ServerOptions { message_bytes: 1000, upload_bytes: 5000, ..ServerOptions::default() };
    let (handle, _) = start(options).await;
    let status = client(&handle).await.get_checkpoint_from_training_job(job(&"x".repeat(1001))).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let http = reqwest::Client::new();
    let post = |path: &str, body: reqwest::Body| http.post(format!("{}{path}", handle.url())).body(body).send();
    assert_eq!(post("/echo", vec![0; 1000].into()).await.unwrap().status(), StatusCode::OK);
    assert_eq!(post("/echo", vec![0; 1001].into()).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(post("/upload", vec![0; 5000].into()).await.unwrap().text().await.unwrap(), "5000");
    assert_eq!(post("/upload", vec![0; 5001].into()).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    // Without a length in the head the body is stopped while it is read.
    let chunks = futures::stream::iter((0..6).map(|_| Ok::<_, std::io::Error>(vec![0; 1000])));
    let answer = post("/upload", reqwest::Body::wrap_stream(chunks)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn deadlines_and_panics_end_one_call_only() {
    let (handle, _) = start(ServerOptions::default()).await;
    let mut calls = client(&handle).await;
    // By hand, because a tonic client would answer for the server when its own timer ends.
    let message = job("wait").encode_to_vec();
    let body = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message.as_slice()].concat();
    let http = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let path = "quintet.v1.ConversionService/GetCheckpointFromTrainingJob";
    let request = http.post(format!("{}/{path}", handle.url())).body(body);
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let answer = soon(request.header("grpc-timeout", "50m").send()).await.unwrap();
    let status = tonic::Status::from_header_map(answer.headers()).unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status::reason_of(&status), Some(ErrorReason::DeadlineExceeded), "{status:?}");
    let status = calls.get_checkpoint_from_training_job(job("panic")).await.unwrap_err();
    assert_eq!(status::reason_of(&status), Some(ErrorReason::Internal), "{status:?}");
    calls.get_checkpoint_from_training_job(job("x")).await.unwrap();
}

#[tokio::test]
async fn metrics_tell_calls_by_service_and_code() {
    let service = Gated::new();
    let handle =
        server(ServerOptions::default(), &service).metrics(crate::telemetry::render_metrics()).start().await.unwrap();
    client(&handle).await.get_checkpoint_from_training_job(job("x")).await.unwrap();
    let answer = reqwest::get(format!("{}/metrics", handle.url())).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text().await.unwrap();
    assert!(text.contains("grpc_service=\"quintet.v1.ConversionService\""), "{text}");
    assert!(text.contains("grpc_code=\"OK\""), "{text}");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let first = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = first.local_addr().to_string();
    let error = Server::builder(ServerOptions { listen: address.clone(), ..ServerOptions::default() })
        .start()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::AddressInUse { .. }), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
    assert_eq!(error.exit_code(), 69);
    for wrong in ["no-port", "127.0.0.1:99999", "", "127.0.0.1:"] {
        let error = Listener::bind(wrong).await.unwrap_err();
        assert!(matches!(error, Error::Address { .. }), "{wrong}: {error}");
        assert_eq!(error.exit_code(), 78);
    }
}

#[tokio::test]
async fn tls_speaks_http1_and_http2_and_can_ask_for_client_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, &ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap();
    std::fs::write(file("cert.pem"), cert.pem()).unwrap();
    std::fs::write(file("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(file("ca.pem"), ca_cert.pem()).unwrap();

    let tls = TlsOptions { cert: file("cert.pem"), key: file("key.pem"), client_ca: None };
    let (handle, _) = start(ServerOptions { tls: Some(tls.clone()), ..ServerOptions::default() }).await;
    assert!(handle.url().starts_with("https://127.0.0.1:"));
    for (http, version) in [
        (reqwest::Client::builder().http1_only(), http::Version::HTTP_11),
        (reqwest::Client::builder(), http::Version::HTTP_2),
    ] {
        let root = reqwest::Certificate::from_pem(ca_cert.pem().as_bytes()).unwrap();
        let http = http.tls_certs_only([root]).build().unwrap();
        let answer = http.get(format!("{}/healthz", handle.url())).send().await.unwrap();
        assert_eq!((answer.status(), answer.version()), (StatusCode::OK, version));
    }
    let trust =
        tonic::transport::ClientTlsConfig::new().ca_certificate(tonic::transport::Certificate::from_pem(ca_cert.pem()));
    let endpoint = |url: String| tonic::transport::Endpoint::from_shared(url).unwrap();
    let secure = endpoint(handle.url()).tls_config(trust.clone()).unwrap().connect().await.unwrap();
    HealthClient::new(secure).check(HealthCheckRequest::default()).await.unwrap();

    let strict = TlsOptions { client_ca: Some(file("ca.pem")), ..tls.clone() };
    let (strict, _) = start(ServerOptions { tls: Some(strict), ..ServerOptions::default() }).await;
    let nobody = endpoint(strict.url()).tls_config(trust.clone()).unwrap().connect_lazy();
    HealthClient::new(nobody).check(HealthCheckRequest::default()).await.unwrap_err();
    let identity = tonic::transport::Identity::from_pem(cert.pem(), key.serialize_pem());
    let known = endpoint(strict.url()).tls_config(trust.identity(identity)).unwrap().connect().await.unwrap();
    HealthClient::new(known).check(HealthCheckRequest::default()).await.unwrap();

    for (broken, named) in [
        (TlsOptions { cert: file("missing.pem"), ..tls.clone() }, "missing.pem"),
        (TlsOptions { cert: file("key.pem"), ..tls.clone() }, "key.pem: holds no certificate"),
        (TlsOptions { key: file("cert.pem"), ..tls }, "cert.pem"),
    ] {
        let error =
            Server::builder(ServerOptions { tls: Some(broken), ..ServerOptions::default() }).start().await.unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[tokio::test]
async fn old_connections_are_asked_to_go_and_then_closed() {
    let options = ServerOptions {
        max_connection_age: Some(Duration::from_millis(20)),
        max_connection_age_grace: Duration::from_millis(50),
        ..ServerOptions::default()
    };
    let (handle, service) = start(options).await;
    let mut calls = client(&handle).await;
    // A call that outlives age and grace is cut off.
    let status = soon(calls.get_checkpoint_from_training_job(job("wait"))).await.unwrap_err();
    assert_ne!(status.code(), Code::Ok);
    service.entered().await;
    // The client connects again by itself.
    soon(calls.get_checkpoint_from_training_job(job("x"))).await.unwrap();
}
