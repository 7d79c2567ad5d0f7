//! A secret that signs webhooks, in the form of Standard Webhooks: `whsec_` and 24 to 64 bytes in
//! base64.

use super::files::hex_digest;
use super::secret::{DIGITS, HIDDEN};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::ops::RangeInclusive;

/// What a secret begins with.
const PREFIX: &str = "whsec_";

/// Shorter keys can be guessed; HMAC-SHA256 takes no advantage of longer ones.
const KEY_BYTES: RangeInclusive<usize> = 24..=64;

#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Box<[u8]>);

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl WebhookSecret {
    /// Parses the content of a file or a variable, which may end with a line break. The error says
    /// what is wrong and not what the secret is.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "is not text")?.trim();
        if text.is_empty() {
            return Err("is empty".into());
        }
        let key = text.strip_prefix(PREFIX).ok_or("does not begin with whsec_")?;
        let key = STANDARD.decode(key).map_err(|_| "is not base64 after whsec_")?;
        if !KEY_BYTES.contains(&key.len()) {
            let (least, most) = (KEY_BYTES.start(), KEY_BYTES.end());
            return Err(format!("has {} bytes; it must have {least} to {most}", key.len()));
        }
        Ok(WebhookSecret(key.into()))
    }

    pub fn key(&self) -> &[u8] {
        &self.0
    }

    /// Returns a digest that tells secrets apart. They are random, so it gives nothing away.
    pub(super) fn digest(&self) -> String {
        let text = [b"webhook secret ".as_slice(), &self.0].concat();
        format!("digest:{}", &hex_digest(&text)[..DIGITS])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_parsed_and_never_shown() {
        let text = format!("{PREFIX}{}\n", STANDARD.encode([7; 24]));
        let secret = WebhookSecret::parse(text.as_bytes()).unwrap();
        assert_eq!(secret.key(), [7; 24]);
        assert_eq!(format!("{secret:?}"), HIDDEN);
        let other = WebhookSecret::parse(format!("{PREFIX}{}", STANDARD.encode([8; 64])).as_bytes()).unwrap();
        assert_ne!(secret.digest(), other.digest());
        for (wrong, why) in [
            (String::new(), "is empty"),
            ("\n".into(), "is empty"),
            (STANDARD.encode([7; 24]), "does not begin with whsec_"),
            (format!("{PREFIX}!!!"), "is not base64"),
            (format!("{PREFIX}{}", STANDARD.encode([7; 23])), "has 23 bytes"),
            (format!("{PREFIX}{}", STANDARD.encode([7; 65])), "has 65 bytes"),
        ] {
            let said = WebhookSecret::parse(wrong.as_bytes()).unwrap_err();
            assert!(said.contains(why), "{wrong}: {said}");
        }
        assert!(WebhookSecret::parse(b"\xff").is_err());
    }
}
