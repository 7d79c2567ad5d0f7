//! An inference request and its response, as HTTP and gRPC decode and encode them.

use crate::policy::Route;
use crate::predict::{Parameters, Tensor};
use std::sync::Arc;

pub(in crate::server) struct InferRequest {
    /// Repeated in the response.
    pub id: Option<String>,
    /// All parameters that were sent, including the protocol's own.
    pub parameters: Parameters,
    pub inputs: Vec<Tensor>,
    /// The requested outputs; empty for all.
    pub outputs: Vec<RequestedOutput>,
}

pub(in crate::server) struct RequestedOutput {
    pub name: String,
    pub parameters: Parameters,
}

pub(in crate::server) struct InferResponse {
    pub route: Arc<Route>,
    pub id: Option<String>,
    pub parameters: Parameters,
    pub outputs: Vec<Tensor>,
}
