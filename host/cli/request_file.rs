//! A request in a file, as the body of `POST /predict`.

use crate::error::{Error, Result};
use crate::input_file::{self, FileKind, FileLimits, Progress};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

pub(super) struct RequestFile {
    pub model: String,
    pub version: Option<String>,
    pub data: Box<RawValue>,
    pub parameters: Map<String, Value>,
    pub timeout: Option<Duration>,
}

/// The fields of POST /predict.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    model: String,
    version: Option<Version>,
    data: Box<RawValue>,
    parameters: Option<Map<String, Value>>,
    timeout_ms: Option<NonZeroU64>,
}

#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "version must be a string or a whole number")]
enum Version {
    Text(String),
    Number(u64),
}

impl RequestFile {
    /// Reads a request; `-` is standard input.
    pub fn read(path: &Path) -> Result<Self> {
        let limit = FileLimits::default().of(FileKind::Request);
        let text = if path == Path::new("-") {
            input_file::read_stream(std::io::stdin().lock(), limit)
        } else {
            input_file::read(path, limit, &Progress::default())
        };
        let text = text.map_err(|error| error.context(format!("cannot read {}", path.display())))?;
        // Some editors begin a text with a byte order mark.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        let fields: Fields = serde_json::from_slice(text)
            .map_err(|error| Error::invalid(format!("{} is not a request: {error}", path.display())))?;
        let version = fields.version.map(|version| match version {
            Version::Text(text) => text,
            Version::Number(number) => number.to_string(),
        });
        Ok(RequestFile {
            model: fields.model,
            version,
            data: fields.data,
            parameters: fields.parameters.unwrap_or_default(),
            timeout: fields.timeout_ms.map(|ms| Duration::from_millis(ms.get())),
        })
    }
}
