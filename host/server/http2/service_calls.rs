//! The calls of HTTP/2 on a listener whose requests a `Service` answers: gRPC is answered as on the
//! gRPC listener, everything else by the service.

use super::call::Call;
use super::call_body::CallBody;
use super::connection::Calls;
use super::counted_body::Content;
use crate::server::grpc::{GrpcBody, is_grpc};
use crate::server::http::{ReplyContent, RequestBody};
use crate::server::probes;
use crate::server::service::Service;
use bytes::Bytes;
use http_body_util::Either;
use hyper::body::Body;
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::{Method, Request, Response};
use std::sync::Arc;

pub(in crate::server) struct ServiceCalls<S>(pub Arc<S>);

impl<S: Service> Calls for ServiceCalls<S> {
    type Content = Either<GrpcBody, ReplyContent>;

    const DATED: bool = true;

    async fn answer(
        &self,
        request: Request<CallBody>,
        call: &Arc<Call>,
        probes_only: Option<usize>,
    ) -> Response<Self::Content> {
        let service = &*self.0;
        if let Some(grpc) = service.grpc().filter(|_| is_grpc(request.headers())) {
            // Boxed, so that calls of the other kind are not as large as these.
            return Box::pin(grpc.answer(request, call, probes_only)).await.map(Either::Left);
        }
        let is_head = request.method() == Method::HEAD;
        let request = request.map(RequestBody::of_call);
        let mut reply = match probes_only {
            None => service.answer(request).await,
            Some(max) => Box::pin(probes::answer(service, request, max)).await,
        };
        if is_head {
            // hyper removes the content of such replies from HTTP/1.1 only.
            let content = std::mem::take(reply.body_mut());
            if let Some(length) = content.size_hint().exact() {
                reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
        reply.map(Either::Right)
    }
}

impl Content for Either<GrpcBody, ReplyContent> {
    fn data_bytes(&self) -> usize {
        match self {
            Either::Left(body) => body.data_bytes(),
            Either::Right(ReplyContent::Whole(data)) => Bytes::len(data),
            Either::Right(_) => 0,
        }
    }
}
