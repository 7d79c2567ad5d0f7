//! The gRPC listener: `inference.GRPCInferenceService`, `grpc.health.v1` and reflection, over HTTP/2.
//!
//! Calls go by their path to `infer`, which frames for itself, or to one of tonic's services. What an
//! inference means is in `oip::infer`, which HTTP shares; TLS is left to what stands before the host.

mod call;
mod connection;
mod contents;
mod control;
mod counted_body;
mod frame;
mod guarded;
mod health;
mod infer;
mod message;
mod metadata;
mod received;
mod service;
mod status;
mod stream;

use super::transfers::Transfers;
use super::{Opened, Protocol, probes};
use crate::error::{Error, Result};
use crate::policy::Reloader;
use crate::proto;
use crate::proto::inference::grpc_inference_service_server::{
    GrpcInferenceServiceServer, SERVICE_NAME as SERVICE,
};
use crate::router::Router;
use crate::shutdown::Readiness;
use call::Call;
use frame::Body;
use guarded::Guarded;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response, StatusCode};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service;
use tonic_health::pb::health_server::{HealthServer, SERVICE_NAME as HEALTH};

/// What the calls work with.
pub struct Grpc {
    pub router: Arc<Router>,
    pub readiness: Arc<Readiness>,
    pub reloader: Arc<Reloader>,
    pub transfers: Arc<Transfers>,
    /// Says when the listener stops, for those calls that would never end by themselves.
    pub stop: watch::Receiver<bool>,
}

impl Grpc {
    /// Whether all that is served can run now.
    fn is_ready(&self) -> bool {
        self.readiness.refusal().is_none() && self.router.policy().content.unready().is_none()
    }
}

/// What the gRPC listener answers calls with.
pub struct GrpcCalls {
    grpc: Arc<Grpc>,
    /// By the service's name; what is called most stands first.
    services: [(&'static str, ServiceFn); 4],
}

/// Calls that ask how the host is, and end.
const PROBES: [&str; 3] = [
    "/grpc.health.v1.Health/Check",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
];

type ReplyFuture = Pin<Box<dyn Future<Output = Response<tonic::body::Body>> + Send>>;
type ServiceFn = Box<dyn Fn(Request<Guarded>) -> ReplyFuture + Send + Sync>;

/// A question of reflection is a name.
const SMALL_MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Prefix of the services whose calls may stay open for as long as their clients like.
const REFLECTION: &str = "grpc.reflection.";

impl GrpcCalls {
    /// Needs the runtime that serves the connections around it.
    pub fn new(grpc: Grpc) -> Result<Self> {
        let grpc = Arc::new(grpc);
        let message_bytes_max = grpc.router.limits().max_body_bytes;
        let inference = GrpcInferenceServiceServer::from_arc(Arc::clone(&grpc))
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate)
            .max_decoding_message_size(message_bytes_max)
            // What a model answers is not the caller's doing.
            .max_encoding_message_size(usize::MAX);
        let health = HealthServer::new(health::Health::new(&grpc));
        let undescribed =
            |error| Error::failed(format!("the gRPC services do not describe themselves: {error}"));
        let (v1, v1alpha) = (described().build_v1(), described().build_v1alpha());
        let services = [
            (SERVICE, served(inference)),
            (HEALTH, served(health)),
            (
                "grpc.reflection.v1.ServerReflection",
                served(v1.map_err(undescribed)?.max_decoding_message_size(SMALL_MESSAGE_BYTES_MAX)),
            ),
            (
                "grpc.reflection.v1alpha.ServerReflection",
                served(v1alpha.map_err(undescribed)?.max_decoding_message_size(SMALL_MESSAGE_BYTES_MAX)),
            ),
        ];
        Ok(GrpcCalls { grpc, services })
    }

    /// The answer where only probes are served, because `connections_max` connections are in use.
    async fn answer_probe(
        &self,
        request: Request<Incoming>,
        call: &Arc<Call>,
        connections_max: usize,
    ) -> Response<Body> {
        match PROBES.contains(&request.uri().path()) {
            true => self.answer(request, call).await,
            false => status::refusal(&Error::overloaded(probes::message(connections_max))),
        }
    }

    async fn answer(&self, request: Request<Incoming>, call: &Arc<Call>) -> Response<Body> {
        let content_type = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        if !content_type.starts_with(b"application/grpc") {
            let mut response = Response::new(Body::default());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        let path = request.uri().path();
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
            return status::refusal(&unknown(path));
        };
        if (service, method) == (SERVICE, "ModelInfer") {
            return infer::unary(&self.grpc, request).await;
        }
        if let Err(error) = infer::timeout(request.headers()) {
            return status::refusal(&error);
        }
        if (service, method) == (SERVICE, "ModelStreamInfer") {
            return stream::answer(&self.grpc, request, call);
        }
        match self.services.iter().find(|(name, _)| *name == service) {
            Some((name, served)) => {
                let is_single = !name.starts_with(REFLECTION);
                let request = request.map(|body| Guarded::new(body, &self.grpc.transfers, is_single));
                status::corrected(served(request).await, self.grpc.router.limits().max_body_bytes)
            }
            None => status::refusal(&unknown(path)),
        }
    }
}

impl Protocol for GrpcCalls {
    async fn connection(self: Arc<Self>, opened: Opened, stop: watch::Receiver<bool>) {
        connection::serve(opened, self, stop).await;
    }

    /// Only where probes have all their connections as well. A client reads a connection that closes as a host that is
    /// not there, and tries again later.
    fn refuse(_stream: &TcpStream, _max_connections: usize) {}
}

fn described() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn served<S>(service: S) -> ServiceFn
where
    S: Service<Request<Guarded>, Response = Response<tonic::body::Body>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
{
    Box::new(move |request| {
        let mut service = service.clone();
        Box::pin(async move {
            let answer = service.call(request).await;
            answer.unwrap_or_else(|never| match never {})
        })
    })
}

fn unknown(path: &str) -> Error {
    let path: String = path.chars().take(200).collect();
    Error::unsupported(format!("no method {path}; reflection lists those that there are"))
}
