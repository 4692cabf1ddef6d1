//! The process' Prometheus recorder: installed once, read through `/metrics`.
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::server::RenderMetrics;

/// Upper bounds of the buckets of every histogram of seconds: from a tenth of a millisecond to ten minutes.
const SECONDS: [f64; 16] =
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// How often samples are folded into buckets; between scrapes they would pile up.
const UPKEEP: Duration = Duration::from_secs(5);

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder, the first time; a recorder of somebody else's stays.
pub(super) fn install() {
    let _ = handle();
}

/// What `/metrics` of a server answers: `Server::metrics(render_metrics())`. Installs the recorder when it is not there yet.
pub fn render() -> RenderMetrics {
    install();
    Arc::new(|| handle().map(PrometheusHandle::render).unwrap_or_default())
}

fn handle() -> Option<&'static PrometheusHandle> {
    HANDLE.get_or_init(start).as_ref()
}

fn start() -> Option<PrometheusHandle> {
    let seconds = Matcher::Suffix("_seconds".into());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(seconds, &SECONDS);
    match builder.and_then(PrometheusBuilder::install_recorder) {
        Ok(handle) => {
            metrics::gauge!("quintet_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            let upkeep = handle.clone();
            // A thread of its own, because metrics work without an async runtime too.
            let spawned = std::thread::Builder::new().name("metrics-upkeep".into()).spawn(move || {
                loop {
                    std::thread::sleep(UPKEEP);
                    upkeep.run_upkeep();
                }
            });
            if let Err(error) = spawned {
                tracing::warn!(%error, "no thread for the upkeep of metrics; they are folded when they are read");
            }
            Some(handle)
        }
        Err(error) => {
            tracing::warn!(%error, "no metrics");
            None
        }
    }
}
