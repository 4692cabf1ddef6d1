//! The listener, its accept loop and the life of one connection: handshake, HTTP/1.1 or HTTP/2, age, drain, deadline.
use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::Request;
use hyper::{
    body::Incoming,
    rt::{Read, Write},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::TcpConnectInfo;

use super::{App, Error, peer::Peer};

/// Connections that the system keeps for us while we are busy.
const BACKLOG: u32 = 1024;
/// A client that has not finished its handshake or its request head by then is dropped.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const HEADER_LIMIT: Duration = Duration::from_secs(30);
/// A peer that answers no ping this long after it was sent is gone.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(20);
/// Many workers, watchers and log streams share one client connection.
const STREAMS_PER_CONNECTION: u32 = 4096;

/// A bound socket: its address is known before anything that needs the address is built.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `HOST:PORT`; port 0 picks a free port.
    ///
    /// # Errors
    /// [`Error::AddressInUse`], [`Error::Address`] for text that is no address, [`Error::Bind`] for the rest.
    pub async fn bind(listen: &str) -> Result<Self, Error> {
        let unusable = |reason: String| Error::Address { address: listen.to_owned(), reason };
        let addresses = lookup_host(listen).await.map_err(|error| unusable(error.to_string()))?;
        let mut failure = unusable("the host has no address".into());
        for address in addresses {
            match Self::bind_one(address) {
                Ok(listener) => return Ok(listener),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    return Err(Error::AddressInUse { address: listen.to_owned() });
                }
                Err(source) => failure = Error::Bind { address: listen.to_owned(), source },
            }
        }
        Err(failure)
    }

    fn bind_one(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart need not wait for the old connections' last packets.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// The three stages of a shutdown that connections follow.
#[derive(Debug, Clone, Default)]
pub(super) struct Stages {
    /// Accept nothing more; let each connection finish what it has.
    pub(super) stop: CancellationToken,
    /// End streams that wait for more.
    pub(super) cut: CancellationToken,
    /// Drop what is left.
    pub(super) kill: CancellationToken,
}

/// What every connection needs.
#[derive(Clone)]
pub(super) struct Acceptor {
    pub(super) app: Arc<App>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) max_age: Option<Duration>,
    pub(super) max_age_grace: Duration,
    pub(super) stages: Stages,
    pub(super) tracker: TaskTracker,
}

impl Acceptor {
    /// Accepts until the stop stage, then closes the listener.
    pub(super) async fn run(self, listener: Listener) {
        loop {
            let accepted = tokio::select! {
                () = self.stages.stop.cancelled() => return,
                accepted = listener.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let connection = self.clone();
                    self.tracker.spawn(async move { connection.serve(stream, peer).await });
                }
                Err(error) => {
                    // Such as too many open files: the listener stays good, but an eager loop would eat a core.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "no TCP_NODELAY");
        }
        let info = TcpConnectInfo { local_addr: stream.local_addr().ok(), remote_addr: Some(peer) };
        let Some(tls) = self.tls.clone() else {
            return self.http(TokioIo::new(stream), info).await;
        };
        match tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.http(TokioIo::new(stream), info).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        }
    }

    async fn http<I: Read + Write + Unpin + Send + 'static>(self, io: I, info: TcpConnectInfo) {
        let app = self.app;
        let (peer, connection) = Peer::new();
        let requests = peer.requests();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(info.clone());
            request.extensions_mut().insert(connection.clone());
            let (app, open) = (app.clone(), requests.begin());
            async move {
                let answer = app.answer(request).await;
                Ok::<_, Infallible>(open.until_sent(answer))
            }
        });
        let builder = protocol();
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut age = pin!(after(self.max_age.map(jitter)));
        let (mut asked, mut aged) = (false, false);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(error = %error, "connection ended early");
                    }
                    if !asked && !aged {
                        peer.has_gone();
                    }
                    return;
                }
                () = self.stages.kill.cancelled() => return,
                () = self.stages.stop.cancelled(), if !asked => {
                    asked = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = age.as_mut() => {
                    if aged {
                        tracing::debug!("connection closed after its age and grace");
                        return;
                    }
                    aged = true;
                    connection.as_mut().graceful_shutdown();
                    age.set(after(Some(self.max_age_grace)));
                }
            }
        }
    }
}

/// HTTP/1.1 and HTTP/2 on one port: told apart by ALPN or, in plain text, by the HTTP/2 preface.
fn protocol() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_LIMIT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    builder
}

async fn after(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// Up to a tenth more, so that connections made together do not all come back together.
fn jitter(age: Duration) -> Duration {
    age.mul_f64(1.0 + rand::random::<f64>() / 10.0)
}
