//! The server that every service and `quintet serve` run in: one port for gRPC, HTTP, health, reflection and metrics.
//!
//! ```no_run
//! # async fn f() -> Result<(), runtime_core::server::Error> {
//! use runtime_core::server::{Server, ServerOptions};
//! let handle = Server::builder(ServerOptions::default()).start().await?;
//! runtime_core::server::signals::install(handle.drain()).map_err(runtime_core::server::Error::Signals)?;
//! handle.wait().await
//! # }
//! ```
//!
//! gRPC is told apart by the content type `application/grpc`; everything else goes to the HTTP routes. Shutdown, in order:
//! health turns NOT_SERVING and the ready file goes; [`Drain`] begins, background tasks finish; nothing more is accepted; unary
//! calls finish; streams end with UNAVAILABLE; at the deadline the rest is cut off.

mod auth;
mod connection;
mod drain;
mod error;
mod grpc;
mod http;
mod meters;
mod options;
mod peer;
mod ready;
mod run;
mod services;
pub mod signals;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    collections::BTreeSet,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
};

use ::http::{Request, Response};
use axum::{Router, body::Body};
use http_body_util::Either;
use hyper::body::Incoming;
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic_health::{ServingStatus, server::HealthReporter};

pub use self::http::RenderMetrics;
pub use connection::Listener;
pub use drain::Drain;
pub use error::Error;
pub use options::{ServerOptions, TlsOptions};
pub use peer::{Lost, PeerConnection};
pub use services::GrpcService;

use crate::status::ErrorReason;
use auth::Auth;
use connection::{Acceptor, Stages};
use services::Services;

/// The result of a background task.
pub type TaskResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;
type Task = Pin<Box<dyn Future<Output = TaskResult> + Send>>;

/// Sets the message limits of the options on a generated gRPC server and lets it take compressed requests:
/// `limited!(JobServiceServer::new(service), options)`.
#[macro_export]
macro_rules! limited {
    ($service:expr, $options:expr) => {
        $service
            .max_decoding_message_size($options.message_bytes)
            .accept_compressed(::tonic::codec::CompressionEncoding::Gzip)
    };
}

/// A server under construction.
pub struct Server {
    options: ServerOptions,
    drain: Drain,
    listener: Option<Listener>,
    grpc: Services,
    http: Router,
    metrics: Option<RenderMetrics>,
    tasks: Vec<(String, Task)>,
}

impl Server {
    /// Starts with no service but health and reflection.
    pub fn builder(options: ServerOptions) -> Self {
        Self {
            options,
            drain: Drain::new(),
            listener: None,
            grpc: Services::default(),
            http: Router::new(),
            metrics: None,
            tasks: Vec::new(),
        }
    }

    /// The options as given, for [`limited!`].
    pub fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// The drain of this server, for services that are built before it starts.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// Uses a drain that exists already instead.
    #[must_use]
    pub fn with_drain(mut self, drain: Drain) -> Self {
        self.drain = drain;
        self
    }

    /// Serves on a socket that was bound before, instead of binding `options.listen`.
    #[must_use]
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Adds a gRPC service; its health is told under its own name.
    #[must_use]
    pub fn service(mut self, service: impl GrpcService) -> Self {
        self.grpc.add(service);
        self
    }

    /// Adds HTTP routes. Two routers must not claim the same path, nor have a fallback.
    #[must_use]
    pub fn http(mut self, routes: Router) -> Self {
        self.http = self.http.merge(routes);
        self
    }

    /// What `/metrics` answers; 404 without it.
    #[must_use]
    pub fn metrics(mut self, render: RenderMetrics) -> Self {
        self.metrics = Some(render);
        self
    }

    /// Runs a background task beside the services. It leaves when the [`Drain`] begins; until then calls are still answered.
    /// When it fails, the server shuts down and [`ServerHandle::wait`] gives the error.
    #[must_use]
    pub fn task(mut self, name: impl Into<String>, task: impl Future<Output = TaskResult> + Send + 'static) -> Self {
        self.tasks.push((name.into(), Box::pin(task)));
        self
    }

    /// Binds (unless a listener was given), serves, asks itself for `/healthz`, writes the ready file, and returns.
    ///
    /// # Errors
    /// See [`Error`]; nothing keeps running after one.
    pub async fn start(self) -> Result<ServerHandle, Error> {
        let options = self.options;
        if let Some(path) = &options.ready_file {
            ready::remove(path)?;
        }
        let tls = options.tls.as_ref().map(tls::acceptor).transpose()?;
        let listener = match self.listener {
            Some(listener) => listener,
            None => Listener::bind(&options.listen).await?,
        };
        let address = listener.local_addr();
        let scheme = if tls.is_some() { "https" } else { "http" };

        let (health, health_service) = tonic_health::server::health_reporter();
        let mut grpc = self.grpc;
        let names = grpc.names().collect();
        grpc.add(health_service);
        grpc.add(reflection().build_v1()?);
        grpc.add(reflection().build_v1alpha()?);
        let serving = Arc::new(AtomicBool::new(true));
        let shared = http::Shared { serving: serving.clone(), metrics: self.metrics };
        let stages = Stages::default();
        let app = App {
            auth: Auth::new(&options.tokens),
            grpc,
            http: http::router(self.http, shared, options.message_bytes),
            upload_bytes: options.upload_bytes,
            meters: Arc::default(),
            cut: stages.cut.clone(),
        };
        let acceptor = Acceptor {
            app: Arc::new(app),
            tls,
            max_age: options.max_connection_age,
            max_age_grace: options.max_connection_age_grace,
            stages: stages.clone(),
            tracker: TaskTracker::new(),
        };
        let health = Health { reporter: health, names, serving };
        health.set(ServingStatus::Serving).await;

        let running = run::Running::new(options.clone(), self.drain.clone(), health, acceptor.clone());
        let accepting = tokio::spawn(acceptor.run(listener));
        let (ended, result) = oneshot::channel();
        let plain = scheme == "http";
        let checked = match ready::probe(address, plain).await {
            Ok(()) => options.ready_file.as_deref().map_or(Ok(()), |path| ready::write(path, address)),
            failed => failed,
        };
        if let Err(error) = checked {
            stages.stop.cancel();
            stages.kill.cancel();
            return Err(error);
        }
        tracing::info!(%address, scheme, "serving");
        let supervisor = tokio::spawn(async move {
            // The receiver is gone when nobody waits for the end.
            let _ = ended.send(running.run(self.tasks, accepting).await);
        });
        Ok(ServerHandle { address, scheme, drain: self.drain, result, supervisor })
    }
}

/// Reflection of this system's contract and of health, in a builder for either version.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(quintet_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Everything behind the port.
pub(crate) struct App {
    auth: Auth,
    grpc: Services,
    http: Router,
    upload_bytes: u64,
    meters: Arc<meters::Meters>,
    cut: CancellationToken,
}

/// The body of an answer: that of a gRPC call, or another.
type Answer = Either<grpc::CallBody, Body>;

impl App {
    async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        let is_grpc = grpc::is_grpc(request.headers());
        let other = match self.auth.check(request.uri().path(), request.headers()) {
            Ok(()) if is_grpc => {
                let answer = grpc::call(&self.grpc, request, self.meters.clone(), self.cut.clone());
                return answer.await.map(Either::Left);
            }
            Ok(()) => http::call(self.http.clone(), request.map(Body::new), self.upload_bytes).await,
            Err(message) if is_grpc => grpc::refuse(ErrorReason::Unauthenticated, message),
            Err(message) => http::unauthorized(message),
        };
        other.map(Either::Right)
    }
}

/// Health, as gRPC and `/healthz` tell it.
pub(crate) struct Health {
    reporter: HealthReporter,
    names: BTreeSet<&'static str>,
    serving: Arc<AtomicBool>,
}

impl Health {
    async fn set(&self, status: ServingStatus) {
        self.serving.store(status == ServingStatus::Serving, std::sync::atomic::Ordering::Relaxed);
        for name in self.names.iter().copied().chain([""]) {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

/// A server that runs. Dropping the handle leaves it running.
#[derive(Debug)]
pub struct ServerHandle {
    address: SocketAddr,
    scheme: &'static str,
    drain: Drain,
    result: oneshot::Receiver<Result<(), Error>>,
    supervisor: JoinHandle<()>,
}

impl ServerHandle {
    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The address for a client on this machine, `http://HOST:PORT` or `https://`.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, ready::local(self.address))
    }

    /// The drain; [`Drain::begin`] starts the shutdown.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// Waits until the server has shut down, for whatever reason it began to.
    ///
    /// # Errors
    /// [`Error::Task`] when a background task failed.
    pub async fn wait(self) -> Result<(), Error> {
        let lost = || Error::Task { task: "server".into(), reason: "the supervising task panicked".into() };
        let result = self.result.await.map_err(|_| lost())?;
        self.supervisor.await.map_err(|_| lost())?;
        result
    }

    /// Begins to drain and waits for the end.
    ///
    /// # Errors
    /// As [`ServerHandle::wait`].
    pub async fn shutdown(self) -> Result<(), Error> {
        self.drain.begin();
        self.wait().await
    }
}
