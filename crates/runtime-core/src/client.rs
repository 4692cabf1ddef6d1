//! Typed clients of a server: connect once, submit, watch through reconnects, wait.

use std::{str::FromStr as _, time::Duration};

use quintet_proto::v1::{
    CancelJobRequest, CreateJobRequest, GetJobRequest, Job, JobEvent, LogChunk, StreamLogsRequest, WatchJobRequest,
    job_event::Event, job_service_client::JobServiceClient,
};
use tonic::{
    Code, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use crate::{config::Secret, jobs::model::is_terminal};

/// A connection with the caller's token and trace context on every call.
pub type Connection = InterceptedService<Channel, Credentials>;

/// Messages that a client takes: histories and reports can be long.
pub const MAX_MESSAGE: usize = 256 << 20;

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is no URL.
    #[error("server address {0:?} is not of the form http://HOST:PORT or https://HOST:PORT")]
    Address(String),
    /// The token holds characters that a header cannot.
    #[error("the token holds characters that a header cannot carry")]
    Token,
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(tonic::transport::Error),
}

/// Adds `authorization` and the W3C trace context to every call.
#[derive(Clone)]
pub struct Credentials(Option<MetadataValue<Ascii>>);

impl Interceptor for Credentials {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        crate::telemetry::inject(request.metadata_mut());
        Ok(request)
    }
}

/// Prepares a connection that is made with the first call and again when it was lost.
///
/// # Errors
/// A malformed address or token.
pub fn connect(address: &str, token: Option<&Secret>) -> Result<Connection, Error> {
    let address = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let mut endpoint = Endpoint::from_str(&address).map_err(|_| Error::Address(address.clone()))?;
    if address.starts_with("https://") {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_enabled_roots()).map_err(Error::Tls)?;
    }
    let channel = endpoint
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .connect_lazy();
    let token = token
        .map(|token| MetadataValue::try_from(format!("Bearer {}", token.expose())).map_err(|_| Error::Token))
        .transpose()?;
    Ok(InterceptedService::new(channel, Credentials(token)))
}

/// Whether repeating the call later may help: UNAVAILABLE (AIP-194), or the connection broke before the answer came.
pub fn is_transient(status: &Status) -> bool {
    // What a server said has no source; a lost connection is UNKNOWN with the transport's error.
    let broke = || std::error::Error::source(status).is_some_and(|source| source.is::<tonic::transport::Error>());
    status.code() == Code::Unavailable || (status.code() == Code::Unknown && broke())
}

/// Pauses between repetitions: 50 ms, doubled up to 2 s.
#[derive(Debug, Default)]
pub struct Backoff(u32);

impl Backoff {
    /// Waits, longer each time.
    pub async fn pause(&mut self) {
        let pause = Duration::from_millis(50u64 << self.0.min(5)).min(Duration::from_secs(2));
        self.0 += 1;
        tokio::time::sleep(pause).await;
    }

    /// Starts anew after a success.
    pub fn reset(&mut self) {
        self.0 = 0;
    }

    /// Repetitions since the last success.
    pub fn count(&self) -> u32 {
        self.0
    }
}

/// A client of `JobService` that repeats calls the server could not answer.
#[derive(Debug, Clone)]
pub struct JobClient {
    inner: JobServiceClient<Connection>,
    patience: Duration,
}

impl JobClient {
    /// A client on a connection; it gives up on an unreachable server after `patience`.
    pub fn new(connection: Connection, patience: Duration) -> Self {
        let inner = JobServiceClient::new(connection)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Self { inner, patience }
    }

    // Not `AsyncFnMut`: the compiler cannot prove the futures of async closures `Send`, which spawned tasks need.
    async fn repeat<T, F, R>(&self, mut call: F) -> Result<T, Status>
    where
        F: FnMut(JobServiceClient<Connection>) -> R,
        R: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let start = tokio::time::Instant::now();
        let mut backoff = Backoff::default();
        loop {
            match call(self.inner.clone()).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if is_transient(&status) && start.elapsed() < self.patience => backoff.pause().await,
                Err(status) => return Err(status),
            }
        }
    }

    /// Creates a job. The request must carry a `request_id`, so that repeating it is safe.
    ///
    /// # Errors
    /// The server's status.
    pub async fn create(&self, request: CreateJobRequest) -> Result<Job, Status> {
        debug_assert!(!request.request_id.is_empty(), "a request that may be repeated needs an id");
        self.repeat(|mut client| {
            let request = request.clone();
            // A job's specification is large: on the heap, not in every caller's future.
            Box::pin(async move { client.create_job(request).await })
        })
        .await
    }

    /// Reads a job.
    ///
    /// # Errors
    /// The server's status.
    pub async fn get(&self, name: &str) -> Result<Job, Status> {
        self.repeat(|mut client| {
            let request = GetJobRequest { name: name.into() };
            async move { client.get_job(request).await }
        })
        .await
    }

    /// Cancels or prunes a job.
    ///
    /// # Errors
    /// The server's status.
    pub async fn cancel(&self, name: &str, prune: bool, reason: &str) -> Result<Job, Status> {
        let request = CancelJobRequest { name: name.into(), prune, reason: reason.into() };
        self.repeat(|mut client| {
            let request = request.clone();
            async move { client.cancel_job(request).await }
        })
        .await
    }

    /// Hands every event of a job after a revision to `on_event`, through lost connections, until the job has ended.
    ///
    /// `on_lost` hears each failed attempt to connect, with the count since the last success. Events with the revision of
    /// a transition come once each; progress may be repeated.
    ///
    /// # Errors
    /// The server's status when it is not transient, or when it stayed unreachable for the client's patience.
    pub async fn watch(
        &self,
        name: &str,
        mut after_revision: i64,
        mut on_event: impl FnMut(&JobEvent),
        mut on_lost: impl FnMut(u32),
    ) -> Result<Job, Status> {
        let mut backoff = Backoff::default();
        let mut lost_since = None;
        loop {
            let request = WatchJobRequest { name: name.into(), after_revision };
            let lost = match self.inner.clone().watch_job(request).await {
                Err(status) => status,
                Ok(stream) => {
                    let mut stream = stream.into_inner();
                    loop {
                        match stream.message().await {
                            Err(status) => break status,
                            // The end of the stream without a terminal event: the server closed it in good order.
                            Ok(None) => {
                                let job = self.get(name).await?;
                                if is_terminal(job.state()) {
                                    return Ok(job);
                                }
                                break Status::unavailable("the stream ended");
                            }
                            Ok(Some(event)) => {
                                backoff.reset();
                                lost_since = None;
                                after_revision = after_revision.max(event.revision);
                                on_event(&event);
                                if let Some(Event::Transition(job)) = event.event
                                    && is_terminal(job.state())
                                {
                                    return Ok(job);
                                }
                            }
                        }
                    }
                }
            };
            let since = *lost_since.get_or_insert_with(tokio::time::Instant::now);
            // A connection that breaks in the middle of a stream is told as CANCELLED, INTERNAL or UNKNOWN.
            let broken = matches!(lost.code(), Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal);
            if !broken || since.elapsed() >= self.patience {
                return Err(lost);
            }
            backoff.pause().await;
            on_lost(backoff.count());
        }
    }

    /// Creates a job and watches it to its end.
    ///
    /// # Errors
    /// As [`JobClient::create`] and [`JobClient::watch`].
    pub async fn submit_and_wait(
        &self,
        request: CreateJobRequest,
        on_event: impl FnMut(&JobEvent),
    ) -> Result<Job, Status> {
        let job = Box::pin(self.create(request)).await?;
        if is_terminal(job.state()) {
            return Ok(job);
        }
        self.watch(&job.name, 0, on_event, |_| {}).await
    }

    /// Opens a stream of a job's log.
    ///
    /// # Errors
    /// The server's status.
    pub async fn logs(&self, request: StreamLogsRequest) -> Result<tonic::Streaming<LogChunk>, Status> {
        self.repeat(|mut client| {
            let request = request.clone();
            async move { client.stream_logs(request).await }
        })
        .await
    }

    /// The generated client, for calls that have no wrapper here.
    pub fn raw(&self) -> JobServiceClient<Connection> {
        self.inner.clone()
    }
}
