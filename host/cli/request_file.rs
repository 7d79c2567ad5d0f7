//! The request of a command: a file with the body of `POST /predict`, or the body of
//! `POST /predict/{model}` with its content type.

use crate::error::{Error, Result};
use crate::input_file::{self, FileKind, FileLimits, Progress};
use crate::policy::CaseRequest;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

pub(super) struct Request {
    pub model: String,
    pub version: Option<String>,
    pub content: CaseRequest,
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

impl Request {
    /// Reads a request as for `POST /predict`; `-` is standard input.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read(path)?;
        // Some editors begin a text with a byte order mark.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        let fields: Fields = serde_json::from_slice(text)
            .map_err(|error| Error::invalid(format!("{} is not a request: {error}", path.display())))?;
        let version = fields.version.map(|version| match version {
            Version::Text(text) => text,
            Version::Number(number) => number.to_string(),
        });
        Ok(Request {
            model: fields.model,
            version,
            content: CaseRequest::Data(fields.data),
            parameters: fields.parameters.unwrap_or_default(),
            timeout: fields.timeout_ms.map(|ms| Duration::from_millis(ms.get())),
        })
    }

    /// Reads the body of a request as for `POST /predict/{model}`; `-` is standard input. `model`
    /// is a name, or a name and a version with a colon between them.
    pub fn read_body(path: &Path, content_type: &str, model: &str) -> Result<Self> {
        let data = read(path)?;
        let (name, version) =
            model.split_once(':').map_or((model, None), |(name, version)| (name, Some(version.to_owned())));
        Ok(Request {
            model: name.to_owned(),
            version,
            content: CaseRequest::Body { content_type: content_type.to_owned(), data: data.into() },
            parameters: Map::new(),
            timeout: None,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let limit = FileLimits::default().of(FileKind::Request);
    let content = if path == Path::new("-") {
        input_file::read_stream(std::io::stdin().lock(), limit)
    } else {
        input_file::read(path, limit, &Progress::default())
    };
    content.map_err(|error| error.context(format!("cannot read {}", path.display())))
}
