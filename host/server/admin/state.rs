//! The state that the handlers of the admin listener share.

use crate::plugin::Engine;
use crate::server::callers::Callers;
use crate::server::cross_site::CrossSite;
use crate::server::state::Public;
use crate::server::ui::Sessions;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::Semaphore;

/// Everything that the admin listener serves.
pub struct Admin {
    /// What the public listener serves, which the page offers to operators as well.
    pub public: Arc<Public>,
    pub engine: Arc<Engine>,
    pub cross_site: CrossSite,
    pub callers: Callers,
    /// Operators who have signed in on the page.
    pub sessions: Sessions,
    pub started: SystemTime,
    /// Limits the requests that wait for the next line of a plugin's log.
    pub log_waits: Semaphore,
}

/// The most requests that wait for the next line of a plugin's log. The listener has 64
/// connections.
pub const LOG_WAITS_MAX: usize = 24;
