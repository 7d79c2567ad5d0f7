//! A listener's service while the host starts: health checks and metrics are answered, everything
//! else is refused until the models are loaded.

use super::endpoint::Endpoint;
use super::grpc::GrpcCalls;
use super::http::{self, Reply, RequestBody};
use super::oip::endpoint::OipEndpoint;
use super::service::Service;
use crate::error::Error;
use crate::metrics::{ExportedModels, Metrics};
use crate::shutdown::Readiness;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode};
use std::sync::{Arc, OnceLock};

/// A service that is there only when the host has started.
pub struct Starting<S> {
    service: OnceLock<Arc<S>>,
    /// Answers gRPC calls on the same listener. It has a beginning of its own.
    grpc: Option<Arc<GrpcCalls>>,
    /// `None` if not everyone may read them.
    metrics: Option<Arc<Metrics>>,
}

impl<S> Starting<S> {
    pub fn new(metrics: Option<Arc<Metrics>>, grpc: Option<Arc<GrpcCalls>>) -> Arc<Self> {
        Arc::new(Starting { service: OnceLock::new(), grpc, metrics })
    }

    /// From now on, the service answers all requests. Called once.
    pub fn begin(&self, service: Arc<S>) {
        let _ = self.service.set(service);
    }
}

impl<S: Service> Service for Starting<S> {
    async fn answer(&self, request: Request<RequestBody>) -> Reply {
        match self.service.get() {
            Some(service) => service.answer(request).await,
            None => early(&request, self.metrics.as_deref()),
        }
    }

    fn grpc(&self) -> Option<&GrpcCalls> {
        self.grpc.as_deref()
    }
}

fn early(request: &Request<RequestBody>, metrics: Option<&Metrics>) -> Reply {
    let endpoint = Endpoint::parse(request.uri().path());
    let mut reply = match endpoint {
        _ if !http::is_get(request.method()) => refusal(endpoint),
        Endpoint::Health => http::health(),
        Endpoint::Oip(OipEndpoint::Live) => http::empty(StatusCode::OK),
        Endpoint::Metrics if let Some(metrics) = metrics => {
            http::metrics(metrics.render(&ExportedModels::default()))
        }
        Endpoint::Ready => http::not_ready(Readiness::STARTING),
        Endpoint::Oip(OipEndpoint::Ready) => http::empty(StatusCode::SERVICE_UNAVAILABLE),
        endpoint => refusal(endpoint),
    };
    if reply.status() == StatusCode::SERVICE_UNAVAILABLE {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    reply
}

fn refusal(endpoint: Endpoint<'_>) -> Reply {
    endpoint.api().error_reply(&Error::unavailable(Readiness::STARTING))
}
