//! The calls of the gRPC listener: dispatches each by its path to `infer`, `stream` or one of
//! tonic's services.

use super::body::Body;
use super::endpoint::{GrpcEndpoint, REFLECTION};
use super::guarded::GuardedBody;
use super::health::Health;
use super::state::Grpc;
use super::timeout::timeout;
use super::{infer, status, stream};
use crate::access::Verb;
use crate::error::{Error, Result};
use crate::proto;
use crate::proto::inference::grpc_inference_service_server::{
    GrpcInferenceServiceServer, SERVICE_NAME as INFERENCE,
};
use crate::server::connections::in_use;
use crate::server::http;
use crate::server::http2::call::Call;
use crate::server::http2::call_body::CallBody;
use crate::server::http2::connection::Calls;
use crate::shutdown::Readiness;
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Request, Response, StatusCode};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service;
use tonic_health::pb::health_server::{HealthServer, SERVICE_NAME as HEALTH};

/// Answers the calls of the gRPC listener.
pub struct GrpcCalls {
    grpc: Arc<Grpc>,
    /// tonic's services by name, the most frequently called one first.
    services: [(&'static str, ServiceFn); 4],
}

type ReplyFuture = Pin<Box<dyn Future<Output = Response<tonic::body::Body>> + Send>>;
type ServiceFn = Box<dyn Fn(Request<GuardedBody>) -> ReplyFuture + Send + Sync>;

/// The media type of all calls. What may follow is the format of the messages.
const GRPC: &[u8] = b"application/grpc";

/// The most bytes of a request for reflection, which is a name.
const SMALL_MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Whether these are the headers of a gRPC call.
pub(in crate::server) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let is_kind = content_type.get(..GRPC.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(GRPC));
    // `application/grpc-web` is another protocol.
    is_kind && content_type.get(GRPC.len()).is_none_or(|next| b"+; \t".contains(next))
}

impl GrpcCalls {
    /// Must be called in the runtime that serves the connections.
    pub fn new(grpc: &Arc<Grpc>) -> Result<Self> {
        let message_bytes_max = grpc.transfers.limits().max_body_bytes;
        let inference = GrpcInferenceServiceServer::from_arc(Arc::clone(grpc))
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate)
            .max_decoding_message_size(message_bytes_max)
            // The size of a response is not the client's fault.
            .max_encoding_message_size(usize::MAX);
        let health = HealthServer::new(Health::new(grpc));
        let undescribed =
            |error| Error::failed(format!("cannot build the reflection service of gRPC: {error}"));
        let (v1, v1alpha) = (described().build_v1(), described().build_v1alpha());
        let services = [
            (INFERENCE, served(inference)),
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
        Ok(GrpcCalls { grpc: Arc::clone(grpc), services })
    }
}

impl Calls for GrpcCalls {
    type Content = Body;

    /// No gRPC client reads a date.
    const DATED: bool = false;

    async fn answer(
        &self,
        mut request: Request<CallBody>,
        call: &Arc<Call>,
        probes_only: Option<usize>,
    ) -> Response<Body> {
        let endpoint = GrpcEndpoint::parse(request.uri().path());
        if let Some(connections_max) = probes_only.filter(|_| !endpoint.is_probe()) {
            return status::refusal(&Error::overloaded(in_use(connections_max)));
        }
        if !self.grpc.has_begun() && !endpoint.is_served_early() {
            return status::refusal(&Error::unavailable(Readiness::STARTING));
        }
        if !is_grpc(request.headers()) {
            let mut response = Response::new(Body::default());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        let verb = GrpcEndpoint::verb(request.uri().path());
        if let (true, Some(verb)) = (self.grpc.callers.must_admit(), verb) {
            let (mut parts, body) = request.into_parts();
            let (headers, extensions) = (&parts.headers, &mut parts.extensions);
            if let Err(error) = self.grpc.callers.admit(verb, headers, extensions, call.connection()) {
                return infer::refused(&self.grpc, headers, &error);
            }
            request = Request::from_parts(parts, body);
        }
        if verb == Some(Verb::Load) {
            let requester = self.grpc.requester(request.extensions());
            let (headers, auditor) = (request.headers(), &self.grpc.auditor);
            let id = Some(http::request_id(headers));
            let actor = auditor.actor(&requester, call.connection(), headers, id);
            request.extensions_mut().insert(actor);
        }
        let endpoint = GrpcEndpoint::parse(request.uri().path());
        let name = match endpoint {
            GrpcEndpoint::ModelInfer => return infer::unary(&self.grpc, request).await,
            GrpcEndpoint::Malformed => return status::refusal(&unknown(request.uri().path())),
            GrpcEndpoint::ModelStreamInfer => None,
            GrpcEndpoint::Service { name, .. } => Some(name),
        };
        // `infer` reads the timeout itself, because it accounts for every error.
        let timeout = match timeout(request.headers()) {
            Ok(timeout) => timeout,
            Err(error) => return status::refusal(&error),
        };
        let Some(name) = name else { return stream::answer(&self.grpc, request, timeout, call) };
        match self.services.iter().find(|(service, _)| *service == name) {
            Some((service, serve)) => {
                let is_single = !service.starts_with(REFLECTION);
                let request = request.map(|body| GuardedBody::new(body, &self.grpc.transfers, is_single));
                status::corrected(serve(request).await, self.grpc.transfers.limits().max_body_bytes)
            }
            None => status::refusal(&unknown(request.uri().path())),
        }
    }
}

/// Returns a builder of reflection for all services.
fn described() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn served<S>(service: S) -> ServiceFn
where
    S: Service<Request<GuardedBody>, Response = Response<tonic::body::Body>, Error = Infallible>,
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

/// Returns the error for a path that names no method.
fn unknown(path: &str) -> Error {
    let path: String = path.chars().take(200).collect();
    Error::unsupported(format!("no method {path}; reflection lists those that there are"))
}
