//! The certificate and key that a listener uses now, and the thread that reads them again.

use super::files::{self, ServerTls, TlsFiles};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::policy::tls_settings::ListenerTls;
use crate::timestamp;
use arc_swap::ArcSwap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio_rustls::rustls::ServerConfig;

/// How often the files are read.
const READ_EVERY: Duration = Duration::from_millis(500);

/// How long files may not fit together before that is reported: certificate and key are two files,
/// and are not replaced at the same moment.
const QUIET: Duration = Duration::from_secs(3);

/// Certificate, key and client authorities of a listener.
pub struct Certificates {
    listener: &'static str,
    settings: ListenerTls,
    alpn: &'static [&'static [u8]],
    metrics: Arc<Metrics>,
    current: ArcSwap<ServerConfig>,
}

impl Certificates {
    /// Reads the files of a listener, which speaks the protocols `alpn`.
    ///
    /// # Errors
    /// `invalid_input` with the file and what is wrong with it.
    pub fn load(
        listener: &'static str,
        settings: ListenerTls,
        alpn: &'static [&'static [u8]],
        metrics: &Arc<Metrics>,
    ) -> Result<(Arc<Self>, [u8; 32])> {
        let (loaded, digest) = files::load(listener, &settings, alpn)?;
        let current = ArcSwap::new(Arc::clone(&loaded.config));
        let metrics = Arc::clone(metrics);
        let certificates = Certificates { listener, settings, alpn, metrics, current };
        certificates.note(&loaded);
        // There from the start, so that an alert sees the first one as an increase.
        for outcome in ["applied", "rejected"] {
            certificates.metrics.tls.reloads.with_label_values(&[listener, outcome]);
        }
        Ok((Arc::new(certificates), digest))
    }

    /// Returns the configuration for a new connection.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn listener(&self) -> &'static str {
        self.listener
    }

    fn note(&self, loaded: &ServerTls) {
        let (listener, now) = (self.listener, SystemTime::now());
        let (subject, not_after) = (&loaded.subject, timestamp::format(loaded.not_after));
        let seconds = loaded.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let expiry = &self.metrics.tls.expiry;
        expiry.with_label_values(&[listener]).set(i64::try_from(seconds).unwrap_or(i64::MAX));
        if loaded.not_after <= now {
            tracing::warn!(listener, subject, not_after, "certificate has expired");
        } else if loaded.not_before > now {
            let not_before = timestamp::format(loaded.not_before);
            tracing::warn!(listener, subject, not_before, "certificate is not valid yet");
        } else {
            tracing::info!(listener, subject, not_after, "certificate loaded");
        }
    }

    fn count(&self, outcome: &str) {
        self.metrics.tls.reloads.with_label_values(&[self.listener, outcome]).inc();
    }
}

/// What the watching thread knows of the files of a listener.
struct Watched {
    certificates: Weak<Certificates>,
    /// Of the contents in use.
    live: [u8; 32],
    /// Of the contents at the last read.
    seen: Option<[u8; 32]>,
    /// Why contents cannot be used, since when, and whether that was reported.
    faulty: Option<(String, Instant, bool)>,
}

/// Starts the thread that reads the files of listeners again when they change. It ends with them.
pub fn watch(listeners: &[(Arc<Certificates>, [u8; 32])]) -> Result<()> {
    let watched = listeners.iter().map(|(certificates, live)| {
        let certificates = Arc::downgrade(certificates);
        Watched { certificates, live: *live, seen: None, faulty: None }
    });
    let mut watched: Vec<Watched> = watched.collect();
    if watched.is_empty() {
        return Ok(());
    }
    let read = move || {
        while !watched.is_empty() {
            std::thread::sleep(READ_EVERY);
            watched.retain_mut(Watched::read);
        }
    };
    let thread = std::thread::Builder::new().name("certificates".into()).spawn(read);
    thread.map(drop).map_err(|error| {
        Error::unavailable(format!("cannot start the thread that reads certificates again: {error}"))
    })
}

impl Watched {
    /// Reads the files once. Returns false when the listener has ended.
    fn read(&mut self) -> bool {
        let Some(certificates) = self.certificates.upgrade() else { return false };
        let files = match TlsFiles::read(&certificates.settings) {
            Ok(files) => files,
            Err(error) => {
                self.reject(&certificates, &error);
                return true;
            }
        };
        let digest = files.digest();
        if digest == self.live {
            self.faulty = None;
            return true;
        }
        // A file that is being written can be valid without its end.
        if self.seen.replace(digest) != Some(digest) {
            return true;
        }
        let loaded =
            files.load(certificates.alpn).and_then(|loaded| loaded.check_validity().map(|()| loaded));
        match loaded {
            Ok(loaded) => {
                certificates.current.store(Arc::clone(&loaded.config));
                (self.live, self.faulty) = (digest, None);
                certificates.count("applied");
                certificates.note(&loaded);
            }
            Err(error) => self.reject(&certificates, &error),
        }
        true
    }

    /// Reports contents that cannot be used, once, if they stay so for the same reason.
    fn reject(&mut self, certificates: &Certificates, error: &Error) {
        let why = error.message();
        let (_, since, is_reported) = match &mut self.faulty {
            Some(faulty) if faulty.0 == why => faulty,
            faulty => faulty.insert((why.to_owned(), Instant::now(), false)),
        };
        if !*is_reported && since.elapsed() >= QUIET {
            *is_reported = true;
            certificates.count("rejected");
            let listener = certificates.listener;
            tracing::warn!(listener, %error, "certificate rejected; the one before stays in use");
        }
    }
}
