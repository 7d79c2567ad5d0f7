//! The state that the handlers of the public HTTP listener share.

use super::audit::Auditor;
use super::callers::Callers;
use super::cross_site::CrossSite;
use super::http::{self, RequestBody};
use super::transfers::Transfers;
use crate::access::{Requester, Verb};
use crate::error::Result;
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::policy::Reloader;
use crate::router::{Authority, RequestScope, Router};
use crate::shutdown::Readiness;
use bytes::Bytes;
use hyper::http::request::Parts;
use std::sync::Arc;

/// Everything that the public listener serves.
pub struct Public {
    pub router: Arc<Router>,
    pub jobs: Arc<Jobs>,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    pub reloader: Arc<Reloader>,
    pub cross_site: CrossSite,
    pub transfers: Arc<Transfers>,
    pub callers: Callers,
    pub auditor: Auditor,
}

impl Public {
    /// Reads the body of a request that the limits of its tenant admit.
    pub(super) async fn read(
        &self,
        scope: &mut RequestScope,
        head: &Parts,
        body: RequestBody,
    ) -> Result<Bytes> {
        scope.admit()?;
        http::read_body(&head.headers, body, 0, &self.transfers, scope.guard()).await
    }

    /// Returns on whose behalf a request is made.
    pub(super) fn requester(&self, head: &Parts) -> Requester {
        self.callers.requester(&head.extensions)
    }

    /// Returns on whose behalf a request is made that does this.
    pub(super) fn authority(&self, head: &Parts, verb: Verb) -> Authority {
        Authority::new(self.requester(head), verb)
    }
}
