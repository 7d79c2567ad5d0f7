//! Checks `[plugins.<name>.http]`: the servers that a plugin may call. Webhooks have the same
//! `allow_hosts`.

use super::bounds::CALLS_MAX;
use super::http_plan::HttpPlan;
use super::planner::Planner;
use crate::config::outbound::{Allowed, OutboundLimits};
use crate::input_file::FileKind;
use crate::policy::manifest::{self, Spanned};

/// The host and the guest both hold a body in memory.
const BODY_KB_MAX: usize = 1 << 20;

impl Planner<'_> {
    pub(super) fn http(&mut self, plugin: &str, table: &Spanned<manifest::Http>) -> Option<HttpPlan> {
        let what = format!("{plugin}: http");
        let table = table.get_ref();
        let allow = self.allowed(&format!("{what}:"), &table.allow_hosts);
        let ca = table.ca_file.as_ref();
        let ca = ca.and_then(|path| self.file(&format!("{what}: ca_file"), path, FileKind::Tls));
        let default = OutboundLimits::default();
        let of = format!("{what}: ");
        let body_kb = table.max_body_kb.as_ref();
        let limits = OutboundLimits {
            allow,
            timeout: self.ms(&of, "timeout_ms", table.timeout_ms.as_ref()).unwrap_or(default.timeout),
            body_bytes: self.number(&of, "max_body_kb", body_kb, default.body_bytes >> 10, 1..=BODY_KB_MAX)
                << 10,
            calls: self.number(&of, "max_calls", table.max_calls.as_ref(), default.calls, 1..=1_000_000),
            in_flight: self.number(
                &of,
                "max_in_flight",
                table.max_in_flight.as_ref(),
                default.in_flight,
                1..=CALLS_MAX,
            ),
        };
        Some(HttpPlan { limits, ca })
    }

    /// Parses `allow_hosts`. Messages begin with `what`.
    pub(super) fn allowed(&mut self, what: &str, written: &[Spanned<String>]) -> Vec<Allowed> {
        let mut allow = Vec::new();
        for entry in written {
            match Allowed::parse(entry.get_ref()) {
                Ok(allowed) => allow.push(allowed),
                Err(why) => {
                    let message = format!("{what} \"{}\" {why}", entry.get_ref());
                    let hint = "write \"features.internal:8080\", \"*.example.org\" or \"http://10.0.0.7\"";
                    self.hinted(entry.span(), message, hint);
                }
            }
        }
        allow
    }
}
