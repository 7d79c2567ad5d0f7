//! Signatures of Standard Webhooks: HMAC-SHA256 over the id, the time and the body.

use crate::policy::WebhookSecret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Returns the value of the header `webhook-signature`: a signature for each secret. `seconds` is
/// the value of `webhook-timestamp`.
pub(super) fn sign(secrets: &[WebhookSecret], id: &str, seconds: u64, body: &[u8]) -> String {
    let signed = |secret: &WebhookSecret| {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(secret.key()).expect("invariant: HMAC takes keys of any length");
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    secrets.iter().map(signed).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let secret = WebhookSecret::parse(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(std::slice::from_ref(&secret), id, 1_614_265_330, body), signature);
        let other = WebhookSecret::parse(b"whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
        let both = sign(&[secret, other], id, 1_614_265_330, body);
        assert!(both.starts_with(signature) && both.split(' ').count() == 2, "{both}");
    }
}
