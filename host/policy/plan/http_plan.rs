//! Outbound HTTP of a plugin: its limits, and the certificates that it trusts.

use crate::config::outbound::OutboundLimits;
use crate::policy::files::File;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpPlan {
    pub limits: OutboundLimits,
    pub ca: Option<File>,
}

impl HttpPlan {
    /// Returns keys and values as they are in the manifest.
    pub fn described(&self) -> Vec<(String, String)> {
        let HttpPlan { limits, ca } = self;
        let OutboundLimits { allow, timeout, body_bytes, calls, in_flight } = limits;
        let hosts: Vec<String> = allow.iter().map(ToString::to_string).collect();
        let mut entries = vec![
            ("allow_hosts", hosts.join(" ")),
            ("timeout_ms", timeout.as_millis().to_string()),
            ("max_body_kb", (body_bytes >> 10).to_string()),
            ("max_calls", calls.to_string()),
            ("max_in_flight", in_flight.to_string()),
        ];
        entries.extend(ca.as_ref().map(|file| ("ca_file", file.sha256.clone())));
        entries.into_iter().map(|(key, value)| (format!("http.{key}"), value)).collect()
    }
}
