//! `[server.tls]` as written.

use serde::Deserialize;
use std::path::PathBuf;

/// `[server.tls]`: certificate and key of all listeners. A listener may have keys of its own, which
/// override those of all.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ServerTls {
    /// The certificate and those that have issued it, in PEM, the server's own first.
    pub certificate: Option<PathBuf>,
    /// The private key in PEM.
    pub key: Option<PathBuf>,
    /// Certificates in PEM of the authorities that issue the clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// `required` or `optional`.
    pub client_certificates: Option<String>,
    pub http: ListenerTls,
    pub grpc: ListenerTls,
    pub admin: ListenerTls,
}

/// `[server.tls.http]`, `[server.tls.grpc]` or `[server.tls.admin]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerTls {
    /// `false`: this listener has no TLS.
    pub enabled: Option<bool>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
    pub client_certificates: Option<String>,
}
