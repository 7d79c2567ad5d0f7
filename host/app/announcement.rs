//! The announcement of a host that serves, on stdout.

use super::listening::Addresses;
use crate::input_file::{self, FileKind, Limit, Progress};
use crate::output::{self, Form};
use crate::policy::Policy;
use crate::policy::tls_settings::{ListenerTls, TlsSettings};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// How the addresses of the HTTP listeners begin in the commands that are shown: with the
/// certificate to trust, if they have TLS.
pub(super) struct Schemes {
    http: String,
    admin: String,
    /// Without the certificate, for a browser.
    page: &'static str,
}

impl Schemes {
    pub fn of(tls: &TlsSettings) -> Self {
        let scheme = |tls: &Option<ListenerTls>| match tls {
            None => "http://".to_owned(),
            Some(tls) => format!("--cacert {} https://", tls.certificate.display()),
        };
        let page = if tls.admin.is_some() { "https://" } else { "http://" };
        Schemes { http: scheme(&tls.http), admin: scheme(&tls.admin), page }
    }
}

/// Prints the announcement: the first line is for programs, the rest for people.
pub(super) fn announce(
    policy: &Policy,
    manifest: &Path,
    addresses: &Addresses,
    schemes: &Schemes,
    took: Duration,
) {
    output::stdout().write(announcement(policy, manifest, addresses, schemes, took).as_bytes(), Form::Lines);
}

fn announcement(
    policy: &Policy,
    manifest: &Path,
    addresses: &Addresses,
    schemes: &Schemes,
    took: Duration,
) -> String {
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        writeln!(text, "{}", output::one_line(&line.to_string())).expect("invariant: writing to memory");
    };
    line(format_args!("listening{addresses}"));
    let http = format!("{}{}", schemes.http, addresses.http[0]);
    let admin = format!("{}{}", schemes.admin, addresses.admin[0]);
    let (version, ms) = (env!("CARGO_PKG_VERSION"), took.as_millis());
    line(format_args!("hostler {version} serves {} ({ms} ms)", manifest.display()));
    for route in policy.content.models().flat_map(|(_, model)| model.versions.values()) {
        let transformer = match &route.transformer {
            Some(transformer) => format!(", transformer {}", transformer.name()),
            None => String::new(),
        };
        line(format_args!("  {} on {}{transformer}", route.name, route.executor.name()));
    }
    let folder = manifest.parent().unwrap_or(Path::new("."));
    let here = std::env::current_dir().unwrap_or_default();
    let shown = folder.strip_prefix(&here).unwrap_or(folder).join("request.json");
    let limit = Limit::bytes(FileKind::Request, 1 << 20);
    match input_file::read(&folder.join("request.json"), limit, &Progress::default()) {
        Ok(request) if asks_for_stream(policy, &request) => {
            line(format_args!("try: curl -sN {http}/predict/stream -d @{}", shown.display()));
        }
        Ok(_) => line(format_args!("try: curl -s {http}/predict -d @{}", shown.display())),
        Err(_) => line(format_args!("try: curl -s {http}/models")),
    }
    line(format_args!("policy: curl -s {admin}/admin/policy"));
    line(format_args!("page: {}{}/ui/", schemes.page, addresses.admin[0]));
    text
}

/// Returns true if the model of this request is a streaming model.
fn asks_for_stream(policy: &Policy, request: &[u8]) -> bool {
    let Ok(request) = serde_json::from_slice::<serde_json::Value>(request) else { return false };
    let request = policy.content.models().find(|(name, _)| request["model"] == ***name);
    let mut versions = request.into_iter().flat_map(|(_, model)| model.versions.values());
    versions.any(|route| route.callable.metadata().streaming)
}
