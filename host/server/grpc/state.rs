//! The state that the calls of the gRPC listener share.

use crate::policy::Reloader;
use crate::router::Router;
use crate::server::transfers::Transfers;
use crate::shutdown::Readiness;
use std::sync::Arc;
use tokio::sync::watch;

/// Everything that the gRPC listener serves.
pub struct Grpc {
    pub router: Arc<Router>,
    pub readiness: Arc<Readiness>,
    pub reloader: Arc<Reloader>,
    pub transfers: Arc<Transfers>,
    /// Set when the listener stops, for calls that would never end by themselves.
    pub stop: watch::Receiver<bool>,
}

impl Grpc {
    /// Whether the host takes requests and everything that it serves can run now.
    pub(super) fn is_ready(&self) -> bool {
        self.readiness.refusal().is_none() && self.router.policy().content.unready().is_none()
    }
}
