//! TLS of the listeners: which files, and what is asked of clients.

use super::diagnostic::Diagnostic;
use super::manifest;
use std::path::{Path, PathBuf};

/// TLS of each listener. `None` stands for a listener without TLS.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsSettings {
    pub http: Option<ListenerTls>,
    pub grpc: Option<ListenerTls>,
    pub admin: Option<ListenerTls>,
}

/// TLS of one listener. The files are read again when they change.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Without it, clients are not asked for certificates.
    pub client_ca: Option<PathBuf>,
    pub client_certificates: ClientCertificates,
}

/// Whether a client must have a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    Required,
    Optional,
}

impl TlsSettings {
    /// Checks `[server.tls]`. Relative paths are relative to `folder`.
    pub fn from_manifest(server: &manifest::Server, folder: &Path) -> Result<Self, Diagnostic> {
        let Some(tls) = &server.tls else { return Ok(TlsSettings::default()) };
        Ok(TlsSettings {
            http: listener(tls, &tls.http, "http", folder)?,
            grpc: listener(tls, &tls.grpc, "grpc", folder)?,
            admin: listener(tls, &tls.admin, "admin", folder)?,
        })
    }
}

fn listener(
    all: &manifest::ServerTls,
    own: &manifest::ListenerTls,
    name: &str,
    folder: &Path,
) -> Result<Option<ListenerTls>, Diagnostic> {
    if own.enabled == Some(false) {
        return Ok(None);
    }
    let path = |own: &Option<PathBuf>, all: &Option<PathBuf>| {
        own.as_ref().or(all.as_ref()).map(|path| folder.join(path))
    };
    let fault = |what: &str| {
        Diagnostic::new(format!("[server] tls has no {what} for the {name} listener")).hint(format!(
            "write {what} = \"FILE\" under [server.tls] for all listeners, or under [server.tls.{name}] for this one; \
             enabled = false there leaves it without TLS"
        ))
    };
    let certificate = path(&own.certificate, &all.certificate).ok_or_else(|| fault("certificate"))?;
    let key = path(&own.key, &all.key).ok_or_else(|| fault("key"))?;
    let is_off = own.client_certificates.as_deref() == Some("none");
    let client_ca = path(&own.client_ca, &all.client_ca).filter(|_| !is_off);
    let client_certificates = own.client_certificates.as_ref().or(all.client_certificates.as_ref());
    let client_certificates = match client_certificates.map(String::as_str) {
        _ if is_off => ClientCertificates::Optional,
        Some(_) if client_ca.is_none() => {
            return Err(Diagnostic::new(format!(
                "[server] tls has client_certificates for the {name} listener, and no client_ca"
            ))
            .hint("name the certificates of the authorities that issue the clients' certificates: client_ca = \"FILE\""));
        }
        None | Some("required") => ClientCertificates::Required,
        Some("optional") => ClientCertificates::Optional,
        Some(other) => {
            return Err(Diagnostic::new(format!(
                "[server] tls has client_certificates = \"{other}\", which is not known"
            ))
            .hint("write \"required\", \"optional\" or, for one listener, \"none\""));
        }
    };
    Ok(Some(ListenerTls { certificate, key, client_ca, client_certificates }))
}
