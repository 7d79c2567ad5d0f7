//! JSON web tokens (JWT), signed by keys of a JWKS file.

use super::ring_provider;
use crate::error::{Error, Result};
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The most seconds by which clocks may differ.
const LEEWAY_S_MAX: u64 = 300;

/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// The most groups of a token that count.
const GROUPS_MAX: usize = 100;

/// `[tokens]` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokensTable {
    pub jwks: PathBuf,
    pub algorithms: Vec<String>,
    pub issuer: String,
    pub audience: String,
    #[serde(default = "default_leeway")]
    pub leeway_s: u64,
    /// The claim with the name of the user.
    #[serde(default = "default_subject")]
    pub subject: String,
    /// The claim with a list of groups.
    #[serde(default = "default_groups")]
    pub groups: String,
}

fn default_leeway() -> u64 {
    30
}

fn default_subject() -> String {
    "sub".into()
}

fn default_groups() -> String {
    "groups".into()
}

/// Checks tokens.
pub(super) struct Tokens {
    keys: Vec<TokenKey>,
    issuer: String,
    audience: String,
    leeway: Duration,
    subject: String,
    groups: String,
}

/// A key of the JWKS file, with the one algorithm that it may be used with.
struct TokenKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// What a valid token says.
pub(super) struct Claims {
    /// `user:NAME`, then `group:NAME`.
    pub names: Vec<Arc<str>>,
    pub expires: SystemTime,
}

impl Tokens {
    /// `jwks` is the content of the JWKS file.
    pub fn new(table: &TokensTable, jwks: &str) -> Result<Self> {
        ring_provider::install();
        let algorithms = table.algorithms.iter().map(|name| algorithm(name)).collect::<Result<Vec<_>>>()?;
        if algorithms.is_empty() {
            return Err(Error::invalid("algorithms is empty; name those of the issuer, such as [\"ES256\"]"));
        }
        for (key, value) in [("issuer", &table.issuer), ("audience", &table.audience)] {
            if value.is_empty() {
                return Err(Error::invalid(format!("{key} is empty; write the value that tokens have")));
            }
        }
        if table.leeway_s > LEEWAY_S_MAX {
            return Err(Error::invalid(format!("leeway_s must be at most {LEEWAY_S_MAX}")));
        }
        let set: JwkSet = serde_json::from_str(jwks)
            .map_err(|error| Error::invalid(format!("the file is not a JSON web key set: {error}")))?;
        let mut keys = Vec::new();
        for jwk in &set.keys {
            let is_signing = !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption));
            for algorithm in algorithms.iter().filter(|algorithm| is_signing && fits(jwk, **algorithm)) {
                let id = jwk.common.key_id.as_deref().unwrap_or("without kid");
                let unusable = |why: &str| Error::invalid(format!("the key {id} cannot be used: {why}"));
                let key = DecodingKey::from_jwk(jwk).map_err(|error| unusable(&error.to_string()))?;
                ring_provider::check_key(*algorithm, &key).map_err(unusable)?;
                keys.push(TokenKey { id: jwk.common.key_id.clone(), algorithm: *algorithm, key });
            }
        }
        if keys.is_empty() {
            return Err(Error::invalid(format!(
                "the file has no key for {}; it has {} keys",
                table.algorithms.join(" or "),
                set.keys.len()
            )));
        }
        Ok(Tokens {
            keys,
            issuer: table.issuer.clone(),
            audience: table.audience.clone(),
            leeway: Duration::from_secs(table.leeway_s),
            subject: table.subject.clone(),
            groups: table.groups.clone(),
        })
    }

    /// Checks a token.
    ///
    /// # Errors
    /// The reason, which names no part of the token.
    pub fn check(&self, token: &str) -> Result<Claims, &'static str> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("it is longer than 16 KiB");
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| "its header cannot be read")?;
        let of_algorithm = self.keys.iter().filter(|key| key.algorithm == header.alg);
        let mut keys = of_algorithm.filter(|key| header.kid.is_none() || key.id == header.kid);
        let key = match (keys.next(), keys.next()) {
            (Some(key), None) => key,
            (Some(_), Some(_)) => return Err("several keys fit its header; its kid must name one"),
            (None, _) => return Err("no key of the set fits the kid and alg of its header"),
        };
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = self.leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &validation);
        let claims = decoded.map_err(|error| refused(error.kind()))?.claims;
        // The library takes a list of issuers as well.
        if !matches!(claims.get("iss"), Some(Value::String(_))) {
            return Err("its iss is not a text");
        }
        let subject = match claims.get(&self.subject) {
            Some(Value::String(subject)) if is_shown(subject) => subject,
            _ => return Err("it has no subject, or one with control characters or over 200 characters"),
        };
        let groups = claims.get(&self.groups).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if groups.len() > GROUPS_MAX {
            return Err("it has more than 100 groups");
        }
        let groups = groups.iter().filter_map(Value::as_str).filter(|group| is_shown(group));
        let groups = groups.map(|group| format!("group:{group}").into());
        let names = std::iter::once(format!("user:{subject}").into()).chain(groups).collect();
        let expires = claims.get("exp").and_then(Value::as_f64).ok_or("its exp is not a number")?;
        let expires =
            Duration::try_from_secs_f64(expires).map_err(|_| "its exp is not a valid time")? + self.leeway;
        Ok(Claims { names, expires: UNIX_EPOCH.checked_add(expires).ok_or("its exp is not a valid time")? })
    }
}

/// Whether a name can stand in logs as it is.
fn is_shown(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= 200 && !name.chars().any(char::is_control)
}

fn refused(error: &jsonwebtoken::errors::ErrorKind) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match error {
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidIssuer => "it is of another issuer",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::MissingRequiredClaim(_) => "it lacks exp, iss or aud",
        ErrorKind::InvalidSignature => "its signature is not that of the key",
        _ => "it cannot be read",
    }
}

fn algorithm(name: &str) -> Result<Algorithm> {
    let known = Algorithm::from_str(name).ok().filter(|algorithm| ring_provider::is_supported(*algorithm));
    known.ok_or_else(|| {
        Error::invalid(format!(
            "the algorithm \"{name}\" is not accepted; write RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or \
             EdDSA. Those with a shared secret (HS256) are not, because everyone who can check such a token can also make one"
        ))
    })
}

/// Whether a key is one for this algorithm. Its own `alg`, if it has one, decides.
fn fits(jwk: &Jwk, algorithm: Algorithm) -> bool {
    use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve};
    let own: Option<Algorithm> =
        jwk.common.key_algorithm.as_ref().and_then(|own: &KeyAlgorithm| own.to_string().parse().ok());
    if jwk.common.key_algorithm.is_some() && own != Some(algorithm) {
        return false;
    }
    match (&jwk.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), _) => {
            use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
            matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512)
        }
        (AlgorithmParameters::EllipticCurve(key), Algorithm::ES256) => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(key), Algorithm::ES384) => key.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(key), Algorithm::EdDSA) => key.curve == EllipticCurve::Ed25519,
        _ => false,
    }
}
