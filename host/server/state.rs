//! The state that the handlers of the public HTTP listener share.

use super::audit::Auditor;
use super::cross_site::CrossSite;
use super::transfers::Transfers;
use crate::access::{Access, Requester, Verb};
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::policy::Reloader;
use crate::router::{Authority, Router};
use crate::shutdown::Readiness;
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
    /// `None` without access rules.
    pub access: Option<Arc<Access>>,
    pub auditor: Auditor,
}

impl Public {
    /// Whether callers could get in at all: the access rules could be read.
    pub(super) fn is_open(&self) -> bool {
        self.access.as_ref().is_none_or(|access| access.is_open())
    }

    /// Returns on whose behalf a request is made.
    pub(super) fn requester(&self, head: &Parts) -> Requester {
        Requester::of(self.access.as_ref(), &head.extensions)
    }

    /// Returns on whose behalf a request is made that does this.
    pub(super) fn authority(&self, head: &Parts, verb: Verb) -> Authority {
        Authority { requester: self.requester(head), verb }
    }
}
