//! What answers the HTTP requests of one listener.

use super::grpc::GrpcCalls;
use super::http::{Reply, RequestBody};
use hyper::Request;

/// Answers requests of one listener.
pub trait Service: Send + Sync + 'static {
    /// Called once per request, on the task of its connection. Dropping the future cancels the
    /// request.
    fn answer(&self, request: Request<RequestBody>) -> impl Future<Output = Reply> + Send;

    /// Returns what answers gRPC calls on the same listener, if anything does.
    fn grpc(&self) -> Option<&GrpcCalls> {
        None
    }
}
