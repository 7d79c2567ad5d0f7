//! A file that is part of the binary.

use super::http::{self, Reply};
use hyper::header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS};
use hyper::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// A file that is part of the binary. Clients may keep it, and ask whether it has changed.
pub(super) struct StaticFile {
    content_type: HeaderValue,
    content: &'static [u8],
    tag: HeaderValue,
}

impl StaticFile {
    pub fn new(content_type: &'static str, content: &'static [u8]) -> Self {
        let mut tag = String::from('"');
        for byte in &Sha256::digest(content)[..16] {
            let _ = write!(tag, "{byte:02x}");
        }
        tag.push('"');
        StaticFile {
            content_type: HeaderValue::from_static(content_type),
            content,
            tag: HeaderValue::try_from(tag).expect("invariant: hex digits in quotes"),
        }
    }

    /// Returns the file, or 304 if the client has it.
    pub fn reply(&self, headers: &HeaderMap) -> Reply {
        let known = headers.get_all(IF_NONE_MATCH).iter();
        let mut known = known.filter_map(|tags| tags.to_str().ok()).flat_map(|tags| tags.split(','));
        let is_known = known.any(|tag| tag.trim().trim_start_matches("W/").as_bytes() == self.tag.as_bytes());
        let mut reply = match is_known {
            true => http::empty(StatusCode::NOT_MODIFIED),
            false => http::reply(StatusCode::OK, self.content_type.clone(), self.content),
        };
        let headers = reply.headers_mut();
        headers.insert(ETAG, self.tag.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        reply
    }
}
