//! A real server on a real socket, spoken to by real clients.
mod serving;
mod shutdown;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Bytes, routing::post};
use quintet_proto::v1::{
    GetCheckpointFromTrainingJobRequest, GetCheckpointFromTrainingJobResponse,
    conversion_service_client::ConversionServiceClient,
    conversion_service_server::{ConversionService, ConversionServiceServer},
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, transport::Channel};

use super::{Server, ServerHandle, ServerOptions};

/// A service with one unary call: `wait` answers after a permit of the gate, `panic` panics, the rest is echoed.
#[derive(Clone)]
struct Gated {
    gate: Arc<Semaphore>,
    entered: Arc<Semaphore>,
}

impl Gated {
    fn new() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), entered: Arc::new(Semaphore::new(0)) }
    }

    /// Resolves once a `wait` call is inside the handler.
    async fn entered(&self) {
        self.entered.acquire().await.unwrap().forget();
    }

    fn open(&self) {
        self.gate.add_permits(1);
    }
}

#[tonic::async_trait]
impl ConversionService for Gated {
    async fn get_checkpoint_from_training_job(
        &self,
        request: Request<GetCheckpointFromTrainingJobRequest>,
    ) -> Result<Response<GetCheckpointFromTrainingJobResponse>, Status> {
        assert!(request.remote_addr().is_some(), "the peer's address is known to services");
        let job = request.into_inner().job;
        match job.as_str() {
            "wait" => {
                self.entered.add_permits(1);
                self.gate.acquire().await.map_err(|_| Status::internal("closed"))?.forget();
            }
            "panic" => panic!("on purpose"),
            _ => {}
        }
        Ok(Response::new(GetCheckpointFromTrainingJobResponse::default()))
    }
}

async fn echo(body: Bytes) -> Bytes {
    body
}

/// Reads a stream without keeping it.
async fn upload(body: axum::body::Body) -> Result<String, http::StatusCode> {
    use http_body_util::BodyExt as _;
    let bytes = body.collect().await.map_err(|_| http::StatusCode::PAYLOAD_TOO_LARGE)?.to_bytes();
    Ok(bytes.len().to_string())
}

fn server(options: ServerOptions, service: &Gated) -> Server {
    let conversion = crate::limited!(ConversionServiceServer::new(service.clone()), options);
    let routes = Router::new().route("/echo", post(echo)).route("/upload", post(upload));
    Server::builder(options).service(conversion).http(routes)
}

async fn start(options: ServerOptions) -> (ServerHandle, Gated) {
    let service = Gated::new();
    (server(options, &service).start().await.unwrap(), service)
}

async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

async fn client(handle: &ServerHandle) -> ConversionServiceClient<Channel> {
    ConversionServiceClient::new(channel(handle.local_addr()).await)
}

fn job(name: &str) -> GetCheckpointFromTrainingJobRequest {
    GetCheckpointFromTrainingJobRequest { job: name.into() }
}

/// Fails the test instead of hanging it.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("within 20 s")
}
