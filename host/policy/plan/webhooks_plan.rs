//! Webhooks of jobs: which receivers they may call, and how.

use crate::config::outbound::OutboundLimits;
use crate::policy::files::File;
use crate::policy::webhook_secret::WebhookSecret;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhooksPlan {
    pub limits: OutboundLimits,
    /// One or two. Each signs every delivery.
    pub secrets: Vec<WebhookSecret>,
    /// The files that the secrets were read from.
    pub secret_files: Vec<File>,
    /// How long after the end of its job a delivery is attempted.
    pub max_age: Duration,
    pub ca: Option<File>,
}

impl WebhooksPlan {
    /// Returns keys and values as they are in the manifest, and digests of the secrets.
    pub fn described(&self) -> Vec<(String, String)> {
        let WebhooksPlan { limits, secrets, secret_files: _, max_age, ca } = self;
        // The host sends small bodies, and drops those of answers.
        let OutboundLimits { allow, timeout, body_bytes: _, calls: _, in_flight } = limits;
        let hosts: Vec<String> = allow.iter().map(ToString::to_string).collect();
        let digests: Vec<String> = secrets.iter().map(WebhookSecret::digest).collect();
        let mut entries = vec![
            ("allow_hosts", hosts.join(" ")),
            ("secrets", digests.join(" ")),
            ("timeout_ms", timeout.as_millis().to_string()),
            ("max_age_s", max_age.as_secs().to_string()),
            ("max_in_flight", in_flight.to_string()),
        ];
        entries.extend(ca.as_ref().map(|file| ("ca_file", file.sha256.clone())));
        entries.into_iter().map(|(key, value)| (format!("webhooks.{key}"), value)).collect()
    }

    /// Returns the files that it was made of.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.secret_files.iter().chain(&self.ca)
    }
}
