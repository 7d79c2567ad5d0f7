//! The state that the calls of the gRPC listener share.

use crate::access::Requester;
use crate::policy::Reloader;
use crate::router::Router;
use crate::server::audit::Auditor;
use crate::server::callers::Callers;
use crate::server::transfers::Transfers;
use crate::shutdown::Readiness;
use hyper::http::Extensions;
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// Everything that the gRPC listener serves.
pub struct Grpc {
    pub readiness: Arc<Readiness>,
    pub transfers: Arc<Transfers>,
    /// Set when the listener stops, for calls that would never end by themselves.
    pub stop: watch::Receiver<bool>,
    pub callers: Callers,
    pub auditor: Auditor,
    /// What exists once the models are loaded.
    serving: OnceLock<(Arc<Router>, Arc<Reloader>)>,
}

impl Grpc {
    pub fn new(
        readiness: Arc<Readiness>,
        transfers: Arc<Transfers>,
        stop: watch::Receiver<bool>,
        callers: Callers,
        auditor: Auditor,
    ) -> Arc<Self> {
        Arc::new(Grpc { readiness, transfers, stop, callers, auditor, serving: OnceLock::new() })
    }

    /// Returns on whose behalf a call is made.
    pub(super) fn requester(&self, extensions: &Extensions) -> Requester {
        self.callers.requester(extensions)
    }

    /// From now on, all calls are served. Called once.
    pub fn begin(&self, router: Arc<Router>, reloader: Arc<Reloader>) {
        let _ = self.serving.set((router, reloader));
    }

    /// Whether all calls are served. Until then, only health checks and reflection are.
    pub(super) fn has_begun(&self) -> bool {
        self.serving.get().is_some()
    }

    pub(super) fn router(&self) -> &Arc<Router> {
        &self.serving().0
    }

    pub(super) fn reloader(&self) -> &Arc<Reloader> {
        &self.serving().1
    }

    fn serving(&self) -> &(Arc<Router>, Arc<Reloader>) {
        self.serving.get().expect("invariant: calls before the start has ended are refused")
    }

    /// Whether the host takes requests and everything that it serves can run now.
    pub(super) fn is_ready(&self) -> bool {
        let is_open = self.callers.is_open();
        is_open
            && self.has_begun()
            && self.readiness.refusal().is_none()
            && self.router().policy().content.unready().is_none()
    }
}
