//! The state that the handlers of the public HTTP listener share.

use super::cross_site::CrossSite;
use super::transfers::Transfers;
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::policy::Reloader;
use crate::router::Router;
use crate::shutdown::Readiness;
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
}
