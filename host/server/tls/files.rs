//! Reads certificate, key and client authorities of a listener, and checks that they fit together.

use crate::error::{Error, Result};
use crate::input_file::{self, FileKind, FileLimits, Progress};
use crate::policy::tls_settings::{ClientCertificates, ListenerTls, TlsSettings};
use crate::timestamp;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion, version,
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Versions that are spoken. Earlier ones have known weaknesses.
const VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

/// The files of one listener as they were read.
pub(super) struct TlsFiles<'a> {
    settings: &'a ListenerTls,
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// What a listener serves with.
pub(super) struct ServerTls {
    pub config: Arc<ServerConfig>,
    pub subject: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl ServerTls {
    /// Refuses a certificate that has expired, or is not valid yet.
    pub fn check_validity(&self) -> Result<()> {
        let (subject, now) = (&self.subject, SystemTime::now());
        if self.not_after <= now {
            let time = timestamp::format(self.not_after);
            return Err(Error::invalid(format!(
                "the certificate ({subject}) has expired on {time}; write a new one"
            )));
        }
        if self.not_before > now {
            let time = timestamp::format(self.not_before);
            return Err(Error::invalid(format!(
                "the certificate ({subject}) is valid from {time} on, and not yet"
            )));
        }
        Ok(())
    }
}

/// Checks the files of all listeners.
///
/// # Errors
/// `invalid_input` with the listener, the file and what is wrong with it.
pub fn check(settings: &TlsSettings) -> Result<()> {
    let TlsSettings { http, grpc, admin } = settings;
    for (listener, settings) in [("http", http), ("grpc", grpc), ("admin", admin)] {
        if let Some(settings) = settings {
            let (loaded, _) = load(listener, settings, &[])?;
            loaded
                .check_validity()
                .map_err(|error| error.context(format!("TLS of the {listener} listener")))?;
        }
    }
    Ok(())
}

/// Reads the files of one listener, which speaks the protocols `alpn`. Returns their digest as
/// well.
pub(super) fn load(listener: &str, settings: &ListenerTls, alpn: &[&[u8]]) -> Result<(ServerTls, [u8; 32])> {
    let load = || {
        let files = TlsFiles::read(settings)?;
        Ok((files.load(alpn)?, files.digest()))
    };
    load().map_err(|error: Error| error.context(format!("TLS of the {listener} listener")))
}

impl<'a> TlsFiles<'a> {
    pub fn read(settings: &'a ListenerTls) -> Result<Self> {
        let read = |path: &Path, what: &str| {
            let limit = FileLimits::default().of(FileKind::Tls);
            input_file::read(path, limit, &Progress::default())
                .map_err(|error| error.context(format!("cannot read the {what} {}", path.display())))
        };
        Ok(TlsFiles {
            settings,
            certificate: read(&settings.certificate, "certificate")?,
            key: read(&settings.key, "private key")?,
            client_ca: settings.client_ca.as_ref().map(|path| read(path, "client_ca")).transpose()?,
        })
    }

    /// Returns a digest of the contents, which tells whether something has changed.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [&self.certificate, &self.key].into_iter().chain(&self.client_ca) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// Checks the files, and makes the configuration of them.
    pub fn load(&self, alpn: &[&[u8]]) -> Result<ServerTls> {
        let provider = Arc::new(ring::default_provider());
        let path = self.settings.certificate.display();
        let chain = certificates(&self.certificate, &self.settings.certificate)?;
        let (_, leaf) = X509Certificate::from_der(&chain[0])
            .map_err(|error| Error::invalid(format!("the certificate {path} cannot be read: {error}")))?;
        let subject = leaf.subject().to_string();
        let (not_before, not_after) =
            (time(leaf.validity().not_before.timestamp()), time(leaf.validity().not_after.timestamp()));
        if leaf.is_ca() && chain.len() > 1 {
            return Err(Error::invalid(format!(
                "the first certificate of {path} is that of an authority ({subject}); write the server's own \
                 certificate first, and then those that have issued it"
            )));
        }
        let key = self.certified_key(chain, &provider)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(VERSIONS)
            .map_err(|error| Error::failed(format!("cannot set up TLS: {error}")))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => builder.with_client_cert_verifier(self.client_verifier(pem, provider)?),
        };
        let resolver = tokio_rustls::rustls::sign::SingleCertAndKey::from(key);
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        // All suites are strong. The host's order is what scanners expect.
        config.ignore_client_order = true;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        if self.client_ca.is_some() {
            // A resumed session would not check again whether the client's certificate is valid.
            config.send_tls13_tickets = 0;
            config.session_storage = Arc::new(NoServerSessionStorage {});
        } else {
            // Clients resume sessions without memory of the host's.
            config.ticketer = ring::Ticketer::new()
                .map_err(|error| Error::failed(format!("cannot make keys for TLS tickets: {error}")))?;
        }
        Ok(ServerTls { config: Arc::new(config), subject, not_before, not_after })
    }

    fn certified_key(
        &self,
        chain: Vec<CertificateDer<'static>>,
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey> {
        let (certificate, path) = (self.settings.certificate.display(), self.settings.key.display());
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| {
            let is_encrypted = self.key.windows(9).any(|part| part == b"ENCRYPTED");
            let why = match error {
                _ if is_encrypted => {
                    "it is encrypted; write it without a passphrase, readable by the host alone".into()
                }
                pem::Error::NoItemsFound => {
                    "it has no \"-----BEGIN PRIVATE KEY-----\" (or RSA, or EC PRIVATE KEY)".into()
                }
                error => pem_fault(&error),
            };
            Error::invalid(format!("the private key {path} cannot be used: {why}"))
        })?;
        let key = provider.key_provider.load_private_key(key).map_err(|error| {
            Error::invalid(format!(
                "the private key {path} cannot be used: {error}; keys are RSA of 2048 to 4096 bits, ECDSA P-256 or \
                 P-384, or Ed25519"
            ))
        })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(tokio_rustls::rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
                Ok(certified)
            }
            Err(_) => Err(Error::invalid(format!(
                "the private key {path} is not that of the certificate {certificate}; write both of the same pair"
            ))),
        }
    }

    fn client_verifier(
        &self,
        pem: &[u8],
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn tokio_rustls::rustls::server::danger::ClientCertVerifier>> {
        let path = self.settings.client_ca.as_deref().unwrap_or(Path::new(""));
        let unusable = |error: &dyn std::fmt::Display| {
            Error::invalid(format!("client_ca {} cannot be used: {error}", path.display()))
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem, path)? {
            roots.add(certificate).map_err(|error| unusable(&error))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = match self.settings.client_certificates {
            ClientCertificates::Required => builder,
            ClientCertificates::Optional => builder.allow_unauthenticated(),
        };
        builder.build().map(|verifier| verifier as _).map_err(|error| unusable(&error))
    }
}

/// Returns the certificates of a PEM file, of which there is at least one.
pub fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let path = path.display();
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::invalid(format!("{path} cannot be used: {}", pem_fault(&error))))?;
    if certificates.is_empty() {
        return Err(Error::invalid(format!("{path} has no certificate: no \"-----BEGIN CERTIFICATE-----\"")));
    }
    Ok(certificates)
}

/// Returns what is wrong with a PEM file.
fn pem_fault(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "it breaks off before a line \"-----END …-----\"; write the whole file".to_owned()
        }
        pem::Error::IllegalSectionStart { .. } => "a line \"-----BEGIN …-----\" is malformed".to_owned(),
        pem::Error::Base64Decode(_) => {
            "it is damaged: between BEGIN and END is something else than base64".to_owned()
        }
        other => format!("it is not PEM: {other}"),
    }
}

/// Returns a time of a certificate, which may be before 1970.
fn time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}
