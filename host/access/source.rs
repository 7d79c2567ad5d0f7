//! How the files of access rules and of keys are read.

use crate::error::{Error, Result};
use crate::input_file::{self, FileKind, FileLimits, Progress};
use crate::timestamp;
use serde::Deserialize;
use std::path::Path;
use std::time::SystemTime;

/// A time at which a key ends.
#[derive(Deserialize)]
#[serde(try_from = "toml::Value")]
pub(super) struct Expiry(pub SystemTime);

impl TryFrom<toml::Value> for Expiry {
    type Error = String;

    fn try_from(value: toml::Value) -> std::result::Result<Self, String> {
        let text = match &value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Datetime(time) => time.to_string(),
            other => other.to_string(),
        };
        timestamp::parse(&text).map(Expiry).ok_or_else(|| {
            format!(
                "expires = {text} is not a valid time; write a day or a time in UTC, such as \"2027-01-31T12:00:00Z\""
            )
        })
    }
}

/// Whether this is a name of a key.
pub(super) fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(is_part)
}

/// Parses TOML. The error has the line and not its content, which may be a secret in the wrong
/// place.
pub(super) fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
        Error::invalid(format!("line {line}: {}", error.message()))
    })
}

pub(super) fn read(path: &Path) -> Result<String> {
    let limit = FileLimits::default().of(FileKind::Access);
    let bytes = input_file::read(path, limit, &Progress::default())
        .map_err(|error| error.context(format!("cannot read {}", path.display())))?;
    String::from_utf8(bytes).map_err(|_| Error::invalid(format!("{} is not UTF-8", path.display())))
}
