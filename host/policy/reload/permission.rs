//! Whether clients may load and unload models.

use std::time::Duration;

/// What the manifest said at start.
#[derive(Clone, Copy)]
pub(super) struct Permission {
    pub allowed: bool,
    /// How long an unload waits for requests that still run.
    pub drain: Duration,
}
