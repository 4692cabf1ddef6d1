//! Logs that parse, traces that reach a collector and hold together over gRPC, metrics in Prometheus' form.
use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tonic::{Request, Response, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tracing::Instrument as _;
use tracing_subscriber::fmt::MakeWriter;

use super::{TraceInterceptor, build, current_traceparent, render_metrics, set_parent};
use crate::{
    config::{Config, Loader, LogFormat},
    server::{Server, ServerOptions},
};

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A collector that keeps every span with the name of its service.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let name = attributes.iter().find(|attribute| attribute.key == "service.name");
            let name = format!("{:?}", name.and_then(|attribute| attribute.value.clone()));
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| (name.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
async fn a_trace_goes_through_client_server_and_worker_to_the_collector() {
    let collector = Collector::default();
    // The collector must not trace itself: it is started before the subscriber is set.
    let collecting = Server::builder(ServerOptions::default())
        .service(TraceServiceServer::new(collector.clone()))
        .start()
        .await
        .unwrap();
    let served = Server::builder(ServerOptions::default()).start().await.unwrap();
    let config = Loader::new().set("telemetry.otlp_endpoint", collecting.url()).load().unwrap();
    let (subscriber, guard) = build(&config, "under-test", std::io::sink, false).unwrap();
    let subscriber = tracing::subscriber::set_default(subscriber);
    let traceparent = async {
        let channel = Channel::from_shared(served.url()).unwrap().connect().await.unwrap();
        let mut client = HealthClient::with_interceptor(channel, TraceInterceptor);
        client.check(HealthCheckRequest::default()).await.unwrap();
        current_traceparent().unwrap()
    }
    .instrument(tracing::info_span!("caller"))
    .await;
    let worker = tracing::info_span!("worker");
    set_parent(&worker, &traceparent);
    drop(worker);
    guard.shutdown().await;
    drop(subscriber);

    let spans = collector.0.lock().unwrap();
    let find = |name: &str| {
        let mut found = spans.iter().filter(|(_, span)| span.name == name);
        let (service, span) = found.next().unwrap_or_else(|| panic!("no span {name} in {spans:?}"));
        assert!(service.contains("under-test"), "{service}");
        span
    };
    let (caller, worker, call) = (find("caller"), find("worker"), find("/grpc.health.v1.Health/Check"));
    for child in [worker, call] {
        assert_eq!((&child.trace_id, &child.parent_span_id), (&caller.trace_id, &caller.span_id), "{}", child.name);
    }
    assert_eq!(call.kind, opentelemetry_proto::tonic::trace::v1::span::SpanKind::Server as i32);
    assert_eq!(traceparent, format!("00-{}-{}-01", hex::encode(&caller.trace_id), hex::encode(&caller.span_id)));
}

#[tokio::test]
async fn a_collector_that_is_not_there_holds_nothing_up() {
    // A port that was free a moment ago.
    let address = crate::server::Listener::bind("127.0.0.1:0").await.unwrap().local_addr();
    let config = Loader::new().set("telemetry.otlp_endpoint", format!("http://{address}")).load().unwrap();
    let (subscriber, guard) = build(&config, "under-test", std::io::sink, false).unwrap();
    tracing::subscriber::with_default(subscriber, || tracing::info_span!("lost").in_scope(|| ()));
    tokio::time::timeout(std::time::Duration::from_secs(30), guard.shutdown()).await.unwrap();
}

#[test]
fn without_a_trace_there_is_nothing_to_send() {
    assert_eq!(current_traceparent(), None);
    let span = tracing::info_span!("plain");
    set_parent(&span, "not a traceparent");
    let mut request = Request::new(());
    super::inject(request.metadata_mut());
    assert!(request.metadata().get("traceparent").is_none());
}

#[test]
fn logs_follow_level_and_format() {
    let log = |level: &str, format: LogFormat| {
        let lines = Lines::default();
        let mut config = Config::default();
        (config.log.level, config.log.format) = (Some(level.into()), format);
        let (subscriber, _guard) = build(&config, "x", lines.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("quiet");
            tracing::info_span!("job", id = 7).in_scope(|| tracing::warn!(trials = 3, "loud"));
        });
        lines.text()
    };
    let text = log("info", LogFormat::Text);
    assert!(
        text.contains("loud") && text.contains("trials=3") && text.contains("job{id=7}") && !text.contains("quiet"),
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&log("info", LogFormat::Json)).unwrap();
    assert_eq!((&json["message"], &json["trials"], &json["level"]), (&"loud".into(), &3.into(), &"WARN".into()));
    assert_eq!(json["span"]["id"], 7);
    assert_eq!(log("error", LogFormat::Text), "");
    assert!(log("warn,runtime_core::telemetry=debug", LogFormat::Text).contains("quiet"));
    let config =
        Config { log: crate::config::Log { level: Some("a=b=c".into()), ..Default::default() }, ..Config::default() };
    assert!(build(&config, "x", std::io::sink, false).err().unwrap().to_string().contains("`a=b=c`"));
}

#[test]
fn panics_are_logged_with_their_place() {
    let lines = Lines::default();
    let (subscriber, _guard) = build(&Config::default(), "x", lines.clone(), false).unwrap();
    let before = std::panic::take_hook();
    super::hook_panics();
    tracing::subscriber::with_default(subscriber, || {
        std::panic::catch_unwind(|| panic!("trial {} is lost", 5)).unwrap_err();
    });
    std::panic::set_hook(before);
    let text = lines.text();
    assert!(text.contains("panicked: trial 5 is lost") && text.contains("telemetry/tests.rs"), "{text}");
}

#[test]
fn histograms_of_seconds_have_buckets() {
    let render = render_metrics();
    metrics::histogram!("some_wait_seconds", "queue" => "x").record(0.02);
    let text = render();
    assert!(text.contains("some_wait_seconds_bucket{queue=\"x\",le=\"0.03\"} 1"), "{text}");
    assert!(text.contains("quintet_build_info{version=\""), "{text}");
}
