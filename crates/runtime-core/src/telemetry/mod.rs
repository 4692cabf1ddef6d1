//! Logs, traces and metrics of a process: `tracing` to standard error and over OTLP, `metrics` for Prometheus.
//!
//! Trace context is W3C's: [`TraceInterceptor`] sends it with each call, the server adopts it, and a worker finds it in
//! [`TRACEPARENT`]. Nothing here may take a program down: an exporter that cannot reach its collector is only logged.

mod metrics;
mod propagate;
#[cfg(test)]
mod tests;

use std::{
    io,
    io::IsTerminal as _,
    sync::atomic::{AtomicBool, Ordering},
};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt::MakeWriter, layer::SubscriberExt as _};

pub use self::metrics::render as render_metrics;
pub use propagate::{
    TRACEPARENT, TraceInterceptor, current_traceparent, inject, set_parent, set_parent_from_environment,
    set_remote_parent,
};

use crate::config::{Config, LogFormat};

/// Variables by which OpenTelemetry's own conventions name the collector.
const OTLP_VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// Libraries that an exporter itself runs on: traced, each export would make the next one.
const EXPORTER: [&str; 5] = ["h2", "hyper", "tonic", "tower", "opentelemetry"];

/// Traces of this process go somewhere.
static EXPORTS: AtomicBool = AtomicBool::new(false);

/// Whether spans are worth their fields: an exporter was set up.
pub(crate) fn exports() -> bool {
    EXPORTS.load(Ordering::Relaxed)
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log level is not understood.
    #[error("log level `{level}`: {reason}")]
    Level {
        /// As it was configured.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The OTLP exporter cannot be made.
    #[error("otlp endpoint: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The exporter sends from tokio tasks.
    #[error("otlp export needs a tokio runtime")]
    NoRuntime,
    /// A program sets up telemetry once.
    #[error("telemetry is set up already")]
    AlreadySet,
}

/// Keeps telemetry alive; dropping it sends what is left.
#[derive(Debug, Default)]
#[must_use = "dropping the guard ends the export of traces"]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
}

impl Guard {
    /// Sends what is left, at most for the exporter's own time limit.
    pub async fn shutdown(mut self) {
        if let Some(provider) = self.provider.take() {
            // It waits for the exporter, which needs this runtime's threads.
            let _ = tokio::task::spawn_blocking(move || end(&provider)).await;
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            end(&provider);
        }
    }
}

fn end(provider: &SdkTracerProvider) {
    if let Err(error) = provider.shutdown() {
        tracing::warn!(%error, "some traces were not sent");
    }
}

/// Sets up logs, traces, metrics and the panic hook for the whole process. `service` is the name in traces unless
/// `OTEL_SERVICE_NAME` is set. Call it inside a tokio runtime.
///
/// # Errors
/// [`Error::Level`], [`Error::Exporter`] for an endpoint that is no URL, [`Error::AlreadySet`].
pub fn init(config: &Config, service: &str) -> Result<Guard, Error> {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (subscriber, guard) = build(config, service, io::stderr, colours)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::AlreadySet)?;
    hook_panics();
    metrics::install();
    Ok(guard)
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn build<W>(
    config: &Config,
    service: &str,
    writer: W,
    colours: bool,
) -> Result<(impl Subscriber + Send + Sync, Guard), Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    let filter = filter(config)?;
    let log: BoxedLayer = match config.log.format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let mut layers = vec![log];
    let mut guard = Guard::default();
    if let Some(provider) = provider(config, service)? {
        let quiet =
            EXPORTER.iter().fold(EnvFilter::new("info"), |filter, library| match format!("{library}=off").parse() {
                Ok(directive) => filter.add_directive(directive),
                Err(_) => filter,
            });
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("quintet")).with_filter(quiet);
        layers.push(layer.boxed());
        EXPORTS.store(true, Ordering::Relaxed);
        guard.provider = Some(provider);
    }
    Ok((tracing_subscriber::registry().with(layers), guard))
}

fn filter(config: &Config) -> Result<EnvFilter, Error> {
    let level = config.log.level.clone().or_else(|| std::env::var("RUST_LOG").ok().filter(|level| !level.is_empty()));
    let level = level.unwrap_or_else(|| "info".into());
    EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(&level)
        .map_err(|error| Error::Level { level, reason: error.to_string() })
}

fn provider(config: &Config, service: &str) -> Result<Option<SdkTracerProvider>, Error> {
    let conventional = OTLP_VARIABLES.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if config.telemetry.otlp_endpoint.is_none() && !conventional {
        return Ok(None);
    }
    tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
    let mut exporter = SpanExporter::builder().with_tonic();
    if let Some(endpoint) = &config.telemetry.otlp_endpoint {
        exporter = exporter.with_endpoint(endpoint);
    }
    let name =
        std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| service.to_owned());
    let resource = Resource::builder().with_service_name(name).build();
    Ok(Some(SdkTracerProvider::builder().with_batch_exporter(exporter.build()?).with_resource(resource).build()))
}

/// Logs panics where everything else is logged; with the place, and with a backtrace when `RUST_BACKTRACE` asks for one.
fn hook_panics() {
    std::panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("a value that is no text");
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => Some(backtrace.to_string()),
            _ => None,
        };
        tracing::error!(target: "panic", location, thread = thread.name(), backtrace, "panicked: {message}");
    }));
}
