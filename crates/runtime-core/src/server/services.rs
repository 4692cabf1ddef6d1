//! The gRPC services of a server, found by the name in a call's path.

use std::{collections::HashMap, convert::Infallible};

use http::{Request, Response};
use tonic::{body::Body, server::NamedService};
use tower::{Service, ServiceExt as _, util::BoxCloneSyncService};

use crate::status::{self, ErrorReason};

/// What a generated gRPC server is.
pub trait GrpcService:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> GrpcService for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Services by name. A router of paths with wildcards, as tonic has one, takes a call several times as long.
#[derive(Default)]
pub(super) struct Services(HashMap<&'static str, BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>>);

impl Services {
    /// Adds a service; a second one of a name takes the place of the first.
    pub(super) fn add<S: GrpcService>(&mut self, service: S) {
        self.0.insert(S::NAME, BoxCloneSyncService::new(service));
    }

    /// What was added.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// Answers a call of a service.
    pub(super) async fn call(&self, service: &str, request: Request<Body>) -> Response<Body> {
        let Some(found) = self.0.get(service) else {
            let problem = format!("{} is not served here", request.uri().path());
            return status::Error::new(ErrorReason::Unsupported, problem).into_status().into_http();
        };
        match found.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
