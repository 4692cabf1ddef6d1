//! What a server can be told: address, keys, tokens, limits and the times of its shutdown.
use std::{path::PathBuf, time::Duration};

use crate::config::Secret;

/// Options of a [`super::Server`]. The default listens on a free port of the loopback address, without TLS and tokens.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// `HOST:PORT`; port 0 picks a free one.
    pub listen: String,
    /// Gets the address, `HOST:PORT` and a line feed, once everything answers.
    pub ready_file: Option<PathBuf>,
    /// Serve TLS instead of plain text.
    pub tls: Option<TlsOptions>,
    /// Tokens that a caller may show; when empty, nobody is asked.
    pub tokens: Vec<Secret>,
    /// Largest gRPC message and largest buffered HTTP body (JSON), in bytes.
    pub message_bytes: usize,
    /// Largest streamed HTTP body (an uploaded artifact), in bytes.
    pub upload_bytes: u64,
    /// A connection this old is asked to go away, so that clients spread over new replicas. `None` keeps them.
    pub max_connection_age: Option<Duration>,
    /// How long calls in flight may go on after that.
    pub max_connection_age_grace: Duration,
    /// Pause between NOT_SERVING and the end of accepting, for load balancers to take notice.
    pub drain_delay: Duration,
    /// How long streams may end by themselves before they are ended with UNAVAILABLE.
    pub stream_grace: Duration,
    /// Everything that is left this long after the shutdown began is cut off.
    pub shutdown_deadline: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:0".into(),
            ready_file: None,
            tls: None,
            tokens: Vec::new(),
            message_bytes: 16 << 20,
            upload_bytes: 64 << 30,
            max_connection_age: None,
            max_connection_age_grace: Duration::from_secs(60),
            drain_delay: Duration::ZERO,
            stream_grace: Duration::from_millis(500),
            shutdown_deadline: Duration::from_secs(25),
        }
    }
}

/// PEM files of a TLS server.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// Certificate chain, the server's own first.
    pub cert: PathBuf,
    /// Private key of the first certificate.
    pub key: PathBuf,
    /// When set, a client must show a certificate that one of these authorities signed.
    pub client_ca: Option<PathBuf>,
}
