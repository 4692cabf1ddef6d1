//! The end of a server: what is in flight finishes or is told, what hangs is cut, and the ready file follows.
use std::time::Duration;

use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{Gated, channel, client, job, server, soon, start};
use crate::{
    server::{Error, ServerOptions},
    status::{self, ErrorReason},
};

#[tokio::test]
async fn a_unary_call_finishes_and_a_stream_is_told() {
    let (handle, service) =
        start(ServerOptions { stream_grace: Duration::from_millis(10), ..ServerOptions::default() }).await;
    let mut watch = HealthClient::new(channel(handle.local_addr()).await)
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let mut calls = client(&handle).await;
    let call = tokio::spawn(async move { calls.get_checkpoint_from_training_job(job("wait")).await });
    service.entered().await;

    let (address, drain) = (handle.local_addr(), handle.drain());
    let end = tokio::spawn(handle.shutdown());
    drain.begun().await;
    assert_eq!(soon(watch.message()).await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let status = soon(watch.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(status::reason_of(&status), Some(ErrorReason::ShuttingDown));
    // The stream has ended, so nothing is accepted any more, and the call still runs.
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    assert!(!call.is_finished() && !end.is_finished());
    service.open();
    soon(call).await.unwrap().unwrap();
    soon(end).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_hangs_is_cut_at_the_deadline() {
    let (handle, service) =
        start(ServerOptions { shutdown_deadline: Duration::from_millis(200), ..ServerOptions::default() }).await;
    let mut calls = client(&handle).await;
    let call = tokio::spawn(async move { calls.get_checkpoint_from_training_job(job("wait")).await });
    service.entered().await;
    // A client that never says a word holds nothing up either.
    let _silent = tokio::net::TcpStream::connect(handle.local_addr()).await.unwrap();
    soon(handle.shutdown()).await.unwrap();
    assert!(soon(call).await.unwrap().is_err());
}

#[tokio::test]
async fn the_ready_file_holds_the_address_while_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/for/it/ready");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "left by a server that was killed").unwrap();
    let options =
        ServerOptions { listen: "0.0.0.0:0".into(), ready_file: Some(path.clone()), ..ServerOptions::default() };
    let (handle, _) = start(options).await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, format!("127.0.0.1:{}\n", handle.local_addr().port()));
    client(&handle).await.get_checkpoint_from_training_job(job("x")).await.unwrap();
    handle.shutdown().await.unwrap();
    assert!(!path.exists());

    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let options = ServerOptions { ready_file: Some(blocked.join("ready")), ..ServerOptions::default() };
    let error = server(options, &Gated::new()).start().await.unwrap_err();
    assert!(matches!(error, Error::ReadyFile { .. }), "{error:?}");
    assert_eq!(error.exit_code(), 74);
}

#[tokio::test]
async fn tasks_are_drained_while_calls_are_still_answered() {
    let service = Gated::new();
    let builder = server(ServerOptions::default(), &service);
    let drain = builder.drain();
    let (told, address) = tokio::sync::oneshot::channel::<std::net::SocketAddr>();
    let (report, reported) = tokio::sync::oneshot::channel();
    let handle = builder
        .task("reporter", async move {
            let address = address.await?;
            drain.begun().await;
            // A worker that reports what it has while the server drains.
            let mut client = super::ConversionServiceClient::new(channel(address).await);
            report
                .send(client.get_checkpoint_from_training_job(job("x")).await.is_ok())
                .map_err(|_| "nobody listens")?;
            Ok(())
        })
        .start()
        .await
        .unwrap();
    told.send(handle.local_addr()).unwrap();
    soon(handle.shutdown()).await.unwrap();
    assert!(reported.await.unwrap());
}

#[tokio::test]
async fn a_task_that_fails_ends_the_server_with_its_error() {
    let handle = server(ServerOptions::default(), &Gated::new())
        .task("reaper", async { Err("the store is gone".into()) })
        .start()
        .await
        .unwrap();
    let error = soon(handle.wait()).await.unwrap_err();
    assert_eq!(error.to_string(), "reaper: the store is gone");
    assert_eq!(error.exit_code(), 70);
}
