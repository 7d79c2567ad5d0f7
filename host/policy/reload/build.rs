//! An attempt to build a policy, and how far it is.

use super::refused::Written;
use super::request::Request;
use crate::policy::content::PolicyContent;
use crate::policy::files::{Files, Signature};
use crate::policy::load::Phases;
use crate::policy::overlay::Overlay;
use crate::policy::record::Record;
use std::sync::Arc;
use std::time::Instant;

/// An attempt in progress.
pub(super) struct Build {
    /// Distinguishes its steps from those of abandoned attempts.
    pub id: u64,
    pub request: Request,
    /// Stopping their `progress` stops the reads, and everything else that the attempt does.
    pub files: Arc<Files>,
    pub record: Record,
    pub started: Instant,
    pub phases: Phases,
    /// The overlay of the live policy when the attempt began.
    pub base: Overlay,
    pub seen: Signature,
    /// What the files say, once they are read.
    pub written: Option<Written>,
    /// Models that were unloaded since the attempt began.
    pub unloaded: Vec<String>,
    /// Set if a rollback came later, so that the result must not go live; says why.
    pub overruled: Option<String>,
    /// What an earlier try of the same request built.
    pub built: Option<Arc<PolicyContent>>,
}

impl Build {
    /// Stops everything that the attempt still does.
    pub fn stop(&self) {
        self.files.progress.stop.cancel();
    }
}
