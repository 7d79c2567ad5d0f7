//! Checks `[server.traces]`.

use super::diagnostic::Diagnostic;
use super::manifest;
use crate::config::{TraceProtocol, TraceSettings};
use crate::outbound::parse_url;
use std::path::Path;

/// Returns the settings of traces; `None` if there are to be none. Relative paths are relative to
/// `folder`.
pub(super) fn from_manifest(
    server: &manifest::Server,
    folder: &Path,
) -> Result<Option<TraceSettings>, Diagnostic> {
    let Some(traces) = &server.traces else { return Ok(None) };
    let fault = |text: String, hint: &str| Err(Diagnostic::new(format!("[server] traces {text}")).hint(hint));
    const ENDPOINT: &str = "write the address of a collector, such as endpoint = \"http://localhost:4317\"";
    let Some(endpoint) = &traces.endpoint else {
        return fault("has no endpoint, so spans cannot be sent".into(), ENDPOINT);
    };
    let protocol = match traces.protocol.as_deref() {
        None | Some("grpc") => TraceProtocol::Grpc,
        Some("http") => TraceProtocol::Http,
        Some(other) => {
            return fault(format!("protocol = \"{other}\" is not known"), "write \"grpc\" or \"http\"");
        }
    };
    if endpoint.contains(['?', '#', '@']) {
        // Not shown: it may have a key.
        return fault(
            "endpoint has a query, a fragment or a user".into(),
            "leave it out; keys of the collector belong into headers_file",
        );
    }
    let (path, has_tls) = match parse_url(endpoint) {
        Ok((origin, path)) => (path.path().to_owned(), origin.tls),
        Err(error) => return fault(format!("endpoint: {}", error.message()), ENDPOINT),
    };
    if protocol == TraceProtocol::Grpc && path != "/" {
        return fault(
            format!("endpoint \"{endpoint}\" has a path, which OTLP over gRPC does not have"),
            "leave the path out, or write protocol = \"http\"",
        );
    }
    if traces.ca.is_some() && !has_tls {
        return fault(
            "ca is set, but the endpoint has no TLS".into(),
            "write an endpoint that begins with https://",
        );
    }
    let sample = traces.sample.unwrap_or(1.0);
    if !(0.0..=1.0).contains(&sample) {
        return fault(format!("sample = {sample} is not a share"), "write a number from 0 to 1");
    }
    let service_name = traces.service_name.clone().unwrap_or_else(|| "hostler".into());
    if service_name.is_empty() || service_name.len() > 255 {
        return fault("service_name is empty or too long".into(), "write a name of at most 255 bytes");
    }
    let endpoint = match (protocol, &*path) {
        // As collectors have it.
        (TraceProtocol::Http, "/") => format!("{}/v1/traces", endpoint.trim_end_matches('/')),
        _ => endpoint.clone(),
    };
    Ok(Some(TraceSettings {
        endpoint,
        protocol,
        sample,
        follow_parent: traces.follow_parent.unwrap_or(true),
        service_name,
        ca: traces.ca.as_ref().map(|path| folder.join(path)),
        headers: traces.headers_file.as_ref().map(|path| folder.join(path)),
    }))
}
