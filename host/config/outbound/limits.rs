//! The limits of one plugin's HTTP calls.

use super::allowed::Allowed;
use std::time::Duration;

/// Which HTTP servers one plugin may call, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutboundLimits {
    pub allow: Vec<Allowed>,
    /// From the call to the last byte of the answer.
    pub timeout: Duration,
    /// Of a request, and of an answer.
    pub body_bytes: usize,
    /// HTTP calls during one call into the plugin.
    pub calls: u32,
    /// Concurrent HTTP calls, over all instances.
    pub in_flight: usize,
}

impl Default for OutboundLimits {
    fn default() -> Self {
        OutboundLimits {
            allow: Vec::new(),
            timeout: Duration::from_secs(1),
            body_bytes: 1 << 20,
            calls: 16,
            in_flight: 256,
        }
    }
}
