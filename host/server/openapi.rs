//! The OpenAPI document of the plain interface and of administration, which both listeners serve.

use super::http::Reply;
use super::static_file::StaticFile;
use hyper::HeaderMap;
use std::sync::LazyLock;

pub(super) const PATH: &str = "/openapi.json";

static DOCUMENT: LazyLock<StaticFile> =
    LazyLock::new(|| StaticFile::new("application/json", include_bytes!("openapi.json")));

pub(super) fn reply(headers: &HeaderMap) -> Reply {
    DOCUMENT.reply(headers)
}
