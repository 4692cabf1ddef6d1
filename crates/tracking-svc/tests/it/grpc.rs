//! `TrackingService` over a socket, with the details of its errors.

use quintet_proto::v1::{self as proto, tracking_service_client::TrackingServiceClient};
use runtime_core::status::{self, ErrorReason};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, transport::Channel};

use super::{Service, serve};

async fn client(service: &Service) -> TrackingServiceClient<Channel> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(service.tracking.grpc_service());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    TrackingServiceClient::connect(format!("http://{address}")).await.unwrap()
}

fn point(key: &str, value: f64, step: i64) -> proto::MetricPoint {
    proto::MetricPoint { key: key.into(), value, step, timestamp: 1000 + step }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_run_is_made_followed_and_found() {
    let service = serve(1 << 20).await;
    let mut client = client(&service).await;
    let name = || proto::EnsureExperimentRequest { name: "sweeps".into() };
    let experiment = client.ensure_experiment(name()).await.unwrap().into_inner();
    assert_eq!(client.ensure_experiment(name()).await.unwrap().into_inner(), experiment);
    let create = proto::CreateRunRequest {
        run_id: "c".repeat(32),
        experiment_id: experiment.experiment_id.clone(),
        run_name: "trial 1".into(),
        tags: [("quintet.run_key".to_owned(), "key".to_owned())].into(),
        artifact_uri: format!("mlflow-artifacts:/jobs/{}", "c".repeat(32)),
        ..Default::default()
    };
    let run = client.create_run(create.clone()).await.unwrap().into_inner();
    assert_eq!(client.create_run(create.clone()).await.unwrap().into_inner(), run);
    assert_eq!((run.run_name.as_str(), run.status()), ("trial 1", proto::RunStatus::RunRunning));
    assert!(run.start_time > 1_600_000_000_000, "{}", run.start_time);
    let log = |metrics, params: &[(&str, &str)]| proto::LogBatchRequest {
        run_id: run.run_id.clone(),
        metrics,
        params: params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        tags: Default::default(),
    };
    client.log_batch(log(vec![point("f1", 0.1, 0), point("loss", 3.0, 0)], &[("lr", "0.1")])).await.unwrap();
    let read = |after| proto::ReadMetricsRequest { run_id: run.run_id.clone(), key: "f1".into(), after };
    let first = client.read_metrics(read(0)).await.unwrap().into_inner();
    assert_eq!(first.metrics, [point("f1", 0.1, 0)]);
    client.log_batch(log(vec![point("f1", 0.2, 1)], &[])).await.unwrap();
    let second = client.read_metrics(read(first.position)).await.unwrap().into_inner();
    assert_eq!(second.metrics, [point("f1", 0.2, 1)]);
    assert_eq!(client.read_metrics(read(second.position)).await.unwrap().into_inner().metrics, []);
    let update = proto::UpdateRunRequest {
        run_id: run.run_id.clone(),
        status: proto::RunStatus::RunFinished.into(),
        end_time: Some(run.start_time + 5),
        run_name: String::new(),
    };
    let updated = client.update_run(update).await.unwrap().into_inner();
    assert_eq!((updated.status(), updated.end_time), (proto::RunStatus::RunFinished, Some(run.start_time + 5)));
    assert_eq!((updated.params["lr"].as_str(), updated.metrics.len()), ("0.1", 2));
    let find = |key: &str| proto::FindRunRequest { run_key: key.into(), experiment_id: String::new() };
    assert_eq!(client.find_run(find("key")).await.unwrap().into_inner(), updated);
    let search = proto::SearchRunsRequest {
        experiment_ids: vec![experiment.experiment_id.clone()],
        filter: "metrics.f1 > 0.15 AND params.lr = '0.1'".into(),
        ..Default::default()
    };
    assert_eq!(client.search_runs(search.clone()).await.unwrap().into_inner().runs, [updated]);

    // Refusals say what is wrong in their details.
    let missing = client.find_run(find("none")).await.unwrap_err();
    assert_eq!((missing.code(), status::reason_of(&missing)), (Code::NotFound, Some(ErrorReason::ResourceNotFound)));
    let changed = client.log_batch(log(vec![], &[("lr", "0.2")])).await.unwrap_err();
    assert_eq!(changed.code(), Code::InvalidArgument);
    assert_eq!(status::violations_of(&changed)[0].0, "params");
    let search = proto::SearchRunsRequest { filter: "nonsense".into(), ..search };
    assert_eq!(status::violations_of(&client.search_runs(search).await.unwrap_err())[0].0, "filter");
    let moved = proto::CreateRunRequest { experiment_id: "0".into(), ..create };
    assert_eq!(client.create_run(moved).await.unwrap_err().code(), Code::AlreadyExists);
    for request in [proto::GetRunRequest::default(), proto::GetRunRequest { run_id: "404".into() }] {
        let expected = if request.run_id.is_empty() { Code::InvalidArgument } else { Code::NotFound };
        assert_eq!(client.get_run(request).await.unwrap_err().code(), expected);
    }
}
