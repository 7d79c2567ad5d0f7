//! Checks `[jobs.webhooks]`.

use super::planner::Planner;
use super::webhooks_plan::WebhooksPlan;
use crate::config::outbound::OutboundLimits;
use crate::input_file::FileKind;
use crate::policy::files::File;
use crate::policy::manifest::{self, Spanned};
use crate::policy::secret::has_webhook_secret;
use crate::policy::webhook_secret::WebhookSecret;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

const WHAT: &str = "[jobs.webhooks]";

/// A receiver should note the delivery and answer, and not work on it first.
const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT_MS_MAX: u64 = 60_000;

/// A day, which covers a night without an operator.
const MAX_AGE_S: u64 = 86_400;
const MAX_AGE_S_MAX: u64 = 30 * 86_400;

/// Bytes of a body that is sent. It has five short texts.
const BODY_BYTES: usize = 64 << 10;

const HOW_TO_MAKE: &str = "write secrets = [{ file = \"webhooks.secret\" }], and make the file with\n\
                           echo whsec_$(openssl rand -base64 32) > webhooks.secret";

impl Planner<'_> {
    pub(super) fn webhooks(&mut self, jobs: &manifest::Jobs) -> Option<WebhooksPlan> {
        let written = jobs.webhooks.as_ref()?;
        let (span, table) = (written.span(), written.get_ref());
        let allow = self.allowed(WHAT, &table.allow_hosts);
        if table.allow_hosts.is_empty() {
            let hint = "write allow_hosts = [\"hooks.example.org\"], or remove the table";
            self.hinted(span.clone(), format!("{WHAT} has no allow_hosts, so no webhook is allowed"), hint);
        }
        let (secrets, secret_files) = self.secrets(span, &table.secrets);
        let ca = table.ca_file.as_ref();
        let ca = ca.and_then(|path| self.file(&format!("{WHAT} ca_file"), path, FileKind::Tls));
        let of = format!("{WHAT} ");
        let timeout_ms = table.timeout_ms.as_ref();
        let timeout_ms =
            self.number(&of, "timeout_ms", timeout_ms, TIMEOUT.as_millis() as u64, 1..=TIMEOUT_MS_MAX);
        let limits = OutboundLimits {
            allow,
            timeout: Duration::from_millis(timeout_ms),
            body_bytes: BODY_BYTES,
            // Receivers that do not answer have slots of their own, so there are at least two.
            in_flight: self.number(&of, "max_in_flight", table.max_in_flight.as_ref(), 32, 2..=1024),
            ..OutboundLimits::default()
        };
        let max_age = table.max_age_s.as_ref();
        let max_age =
            Duration::from_secs(self.number(&of, "max_age_s", max_age, MAX_AGE_S, 1..=MAX_AGE_S_MAX));
        Some(WebhooksPlan { limits, secrets, secret_files, max_age, ca })
    }

    fn secrets(
        &mut self,
        table: Range<usize>,
        written: &[Spanned<manifest::SecretSource>],
    ) -> (Vec<WebhookSecret>, Vec<File>) {
        if !(1..=2).contains(&written.len()) {
            let count = written.len();
            let message = format!("{WHAT} has {count} secrets; it needs one, or two while they are rotated");
            self.hinted(table, message, HOW_TO_MAKE);
        }
        let (mut secrets, mut files) = (Vec::new(), Vec::new());
        for source in written {
            let Some((what, content)) = self.secret(source, &mut files) else { continue };
            match WebhookSecret::parse(&content) {
                Ok(secret) => secrets.push(secret),
                Err(why) => {
                    let message = format!("{WHAT} secrets: the secret in {what} {why}");
                    self.hinted(source.span(), message, HOW_TO_MAKE);
                }
            }
        }
        (secrets, files)
    }

    /// Returns where a secret is, in words, and what is there.
    fn secret(
        &mut self,
        source: &Spanned<manifest::SecretSource>,
        files: &mut Vec<File>,
    ) -> Option<(String, Vec<u8>)> {
        let span = source.span();
        match source.get_ref() {
            manifest::SecretSource { env: Some(name), file: None } => self.secret_in_env(span, name),
            manifest::SecretSource { env: None, file: Some(path) } => self.secret_in_file(span, path, files),
            _ => {
                let message = format!("{WHAT} secrets: an entry names either env or file");
                self.hinted(span, message, "write { file = \"webhooks.secret\" } or { env = \"NAME\" }");
                None
            }
        }
    }

    fn secret_in_env(&mut self, span: Range<usize>, name: &str) -> Option<(String, Vec<u8>)> {
        let is_name =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name || has_webhook_secret(name) {
            // The name is not shown: it may be the secret.
            let message = format!("{WHAT} secrets: env is not the name of an environment variable");
            self.hinted(span, message, "write { env = \"NAME\" }, and set NAME to the secret");
            return None;
        }
        let Some(value) = std::env::var_os(name) else {
            let message = format!("{WHAT} secrets: the environment variable {name} is not set");
            self.hinted(span, message, format!("set {name} for the host, or name a file: {HOW_TO_MAKE}"));
            return None;
        };
        Some((format!("the environment variable {name}"), value.into_encoded_bytes()))
    }

    fn secret_in_file(
        &mut self,
        span: Range<usize>,
        path: &Path,
        files: &mut Vec<File>,
    ) -> Option<(String, Vec<u8>)> {
        if has_webhook_secret(&path.to_string_lossy()) {
            let message = format!("{WHAT} secrets: file is a secret and not the path of a file");
            self.hinted(span, message, HOW_TO_MAKE);
            return None;
        }
        let spanned = Spanned::new(span, path.to_owned());
        let file = self.file(&format!("{WHAT} secrets"), &spanned, FileKind::Secret)?;
        match self.files.read(&file) {
            Ok(content) => {
                let shown = file.path.display().to_string();
                files.push(file);
                Some((shown, content.to_vec()))
            }
            Err(error) => {
                self.unreadable(&format!("{WHAT} secrets"), &spanned, &error);
                None
            }
        }
    }
}
