//! API keys: 256 random bits, of which files have only a digest.

use super::source::{self, Expiry, is_name};
use crate::error::{Error, Result};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// The prefix of every key, by which secret scanners find keys that leaked.
pub const KEY_PREFIX: &str = "hostler_";

const KEY_BYTES: usize = 32;

/// The most digests of a name: two while its key is replaced.
const DIGESTS_MAX: usize = 2;

/// The SHA-256 of a key.
pub(super) type KeyDigest = [u8; 32];

/// A new key.
pub struct ApiKey(String);

impl ApiKey {
    /// Makes a key of the system's random bits.
    pub fn generate() -> Result<Self> {
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::unavailable(format!("the system gives no random bits: {error}")))?;
        Ok(ApiKey(format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// Returns the key, which its user keeps.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// Returns the entry of a keys file that accepts this key.
    ///
    /// # Errors
    /// `invalid_input` if a key cannot have this name.
    pub fn entry(&self, name: &str) -> Result<String> {
        if !is_name(name) {
            return Err(bad_name(name));
        }
        let digest = hex(&digest(self.0.as_bytes()));
        // Quoted, because a dot would begin a table within the table.
        Ok(format!("[keys.\"{name}\"]\nsha256 = \"{digest}\"\n"))
    }

    /// Returns the names in a file of keys.
    pub fn names(path: &Path) -> Result<Vec<String>> {
        let keys = Keys::parse(&source::read(path)?)?;
        Ok(keys.0.values().filter_map(|key| Some(key.name.strip_prefix("key:")?.to_owned())).collect())
    }
}

/// Returns the digest of a key as it is presented.
pub(super) fn digest(key: &[u8]) -> KeyDigest {
    Sha256::digest(key).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The keys that are accepted.
#[derive(Default)]
pub(super) struct Keys(HashMap<KeyDigest, KeyEntry>);

pub(super) struct KeyEntry {
    /// `key:NAME`
    pub name: Arc<str>,
    pub expires: Option<SystemTime>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    #[serde(default)]
    keys: BTreeMap<String, KeyTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    sha256: OneOrMore,
    expires: Option<Expiry>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Keys {
    /// Parses a file of keys.
    pub fn parse(text: &str) -> Result<Self> {
        let file: KeysFile = source::parse(text)?;
        let mut keys = HashMap::new();
        for (name, KeyTable { sha256, expires }) in file.keys {
            if !is_name(&name) {
                return Err(bad_name(&name));
            }
            let digests = match sha256 {
                OneOrMore::One(digest) => vec![digest],
                OneOrMore::More(digests) => digests,
            };
            if digests.is_empty() || digests.len() > DIGESTS_MAX {
                return Err(Error::invalid(format!(
                    "[keys.{name}] has {} digests; write one, or two while the key is replaced",
                    digests.len()
                )));
            }
            let expires = expires.map(|Expiry(time)| time);
            let shown: Arc<str> = format!("key:{name}").into();
            for digest in digests {
                let parsed = parse_digest(&digest).ok_or_else(|| {
                    Error::invalid(format!(
                        "[keys.{name}] sha256 is not 64 hexadecimal digits; `hostler key new {name}` prints a key and its \
                         entry"
                    ))
                })?;
                let entry = KeyEntry { name: Arc::clone(&shown), expires };
                if keys.insert(parsed, entry).is_some() {
                    return Err(Error::invalid(format!(
                        "[keys.{name}] has a sha256 that another key has as well; make a key of its own for each name"
                    )));
                }
            }
        }
        Ok(Keys(keys))
    }

    pub fn get(&self, digest: &KeyDigest) -> Option<&KeyEntry> {
        self.0.get(digest)
    }
}

fn bad_name(name: &str) -> Error {
    let name: String = name.chars().take(80).collect();
    Error::invalid(format!(
        "\"{name}\" is not a valid name of a key; use 1 to 64 letters, digits, or . _ @ -"
    ))
}

fn parse_digest(text: &str) -> Option<KeyDigest> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut digest = KeyDigest::default();
    for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_accepted_by_its_entry_and_by_no_other() {
        let (key, other) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
        assert_eq!(key.secret().len(), KEY_PREFIX.len() + 43);
        assert_ne!(key.secret(), other.secret());
        let keys = Keys::parse(&key.entry("ci").unwrap()).unwrap();
        assert_eq!(&*keys.get(&digest(key.secret().as_bytes())).unwrap().name, "key:ci");
        assert!(keys.get(&digest(other.secret().as_bytes())).is_none());
        assert!(!key.entry("ci").unwrap().contains(key.secret()));
    }

    #[test]
    fn faults_of_a_file_are_named() {
        let key = ApiKey::generate().unwrap();
        for (text, part) in [
            ("[keys.ci]\n".to_owned(), "sha256"),
            ("[keys.ci]\nsha256 = \"12\"".to_owned(), "64 hexadecimal digits"),
            ("[keys.\"c i\"]\nsha256 = \"12\"".to_owned(), "is not a valid name of a key"),
            ("[keys.ci]\nsha256 = \"12\"\nexpires = \"soon\"".to_owned(), "expires"),
            (key.entry("ci").unwrap() + &key.entry("other").unwrap(), "another key"),
            (format!("[keys.ci]\nsha256 = [{}]", ["\"00\""; 3].join(",")), "3 digests"),
            ("[keyz.ci]".to_owned(), "keyz"),
        ] {
            let error = Keys::parse(&text).err().unwrap_or_else(|| panic!("{text}"));
            assert!(error.message().contains(part), "{text}: {error}");
        }
    }
}
