//! What `/metrics` tells of gRPC calls: how many of each method ended with which code, and how long they took.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use metrics::{Counter, Histogram, counter, histogram};
use tonic::Code;
use tracing::Span;

const HANDLED: &str = "grpc_server_handled_total";
const SECONDS: &str = "grpc_server_handling_seconds";

/// The methods that were called, by path: to find their metrics by labels takes as long as a small call.
#[derive(Debug, Default)]
pub(crate) struct Meters(RwLock<HashMap<String, Arc<Method>>>);

/// A method, or what somebody took for one.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) service: String,
    pub(super) method: String,
    span: OnceLock<Span>,
    metrics: OnceLock<Metrics>,
}

struct Metrics {
    seconds: Histogram,
    ok: Counter,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Meters {
    /// The method of a path `/package.Service/Method`.
    pub(super) fn method(&self, path: &str) -> Arc<Method> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        known.unwrap_or_else(|| Arc::new(Method::new(path)))
    }

    /// Counts a call.
    pub(super) fn count(&self, method: &Arc<Method>, code: Code, time: Duration) {
        if code == Code::Unimplemented {
            // A path that nobody serves must not become a label: anyone could make as many as they like.
            histogram!(SECONDS, "grpc_service" => "unknown", "grpc_method" => "unknown").record(time.as_secs_f64());
            counter!(HANDLED, "grpc_service" => "unknown", "grpc_method" => "unknown", "grpc_code" => name(code))
                .increment(1);
            return;
        }
        let known = method.metrics.get().is_some();
        let metrics = method.metrics.get_or_init(|| method.metrics());
        metrics.seconds.record(time.as_secs_f64());
        match code {
            Code::Ok => metrics.ok.increment(1),
            _ => method.handled(code).increment(1),
        }
        if !known {
            let mut methods = self.0.write().unwrap_or_else(PoisonError::into_inner);
            methods.insert(method.path(), method.clone());
        }
    }
}

impl Method {
    fn new(path: &str) -> Self {
        let mut parts = path.trim_start_matches('/').splitn(2, '/').map(str::to_owned);
        let (service, method) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        Self { service, method, span: OnceLock::new(), metrics: OnceLock::new() }
    }

    /// What stands in the log beside all that a call of the method writes. The calls share it: to make one takes as long as a small
    /// call.
    pub(super) fn span(&self) -> Span {
        let new = || tracing::info_span!(parent: None, "rpc", rpc.service = self.service, rpc.method = self.method);
        self.span.get_or_init(new).clone()
    }

    fn path(&self) -> String {
        format!("/{}/{}", self.service, self.method)
    }

    fn metrics(&self) -> Metrics {
        let (service, method) = (self.service.clone(), self.method.clone());
        let seconds = histogram!(SECONDS, "grpc_service" => service, "grpc_method" => method);
        Metrics { seconds, ok: self.handled(Code::Ok) }
    }

    fn handled(&self, code: Code) -> Counter {
        let (service, method) = (self.service.clone(), self.method.clone());
        counter!(HANDLED, "grpc_service" => service, "grpc_method" => method, "grpc_code" => name(code))
    }
}

/// The code's name in gRPC's own spelling of metrics.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_and_put_together() {
        let method = Method::new("/quintet.v1.JobService/GetJob");
        assert_eq!((&*method.service, &*method.method), ("quintet.v1.JobService", "GetJob"));
        assert_eq!(method.path(), "/quintet.v1.JobService/GetJob");
        let none = Method::new("");
        assert_eq!((&*none.service, &*none.method), ("", ""));
    }

    #[test]
    fn only_served_methods_are_kept() {
        let meters = Meters::default();
        let [served, other] = ["/s/m", "/s/other"].map(|path| meters.method(path));
        meters.count(&served, Code::NotFound, Duration::ZERO);
        meters.count(&other, Code::Unimplemented, Duration::ZERO);
        assert!(Arc::ptr_eq(&meters.method("/s/m"), &served));
        assert!(!Arc::ptr_eq(&meters.method("/s/other"), &other));
    }
}
