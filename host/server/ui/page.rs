//! The files of the page, and the headers that keep everything else out of it.

use crate::error::Error;
use crate::server::http::{self, Reply};
use crate::server::static_file::StaticFile;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, LOCATION, REFERRER_POLICY};
use hyper::{HeaderMap, StatusCode};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Scripts, styles and data come from this listener alone, text never becomes markup, and no other
/// page may show this one in a frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
);

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

include!(concat!(env!("OUT_DIR"), "/page.rs"));

static FILES: LazyLock<BTreeMap<&str, StaticFile>> = LazyLock::new(|| {
    let file = |(name, content): &(&'static str, &'static [u8])| {
        (*name, StaticFile::new(content_type(name), content))
    };
    CONTENTS.iter().map(file).collect()
});

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml; charset=utf-8",
        // Browsers run nothing of this type.
        _ => "application/octet-stream",
    }
}

/// Returns a file of the page. `path` is the path after `/ui`.
pub(super) fn reply(path: &str, headers: &HeaderMap) -> Reply {
    let name = match path {
        "" => return redirect(),
        "/" => "index.html",
        path => &path[1..],
    };
    let Some(file) = FILES.get(name) else {
        let name: String = name.chars().take(200).collect();
        return http::error_reply(&Error::not_found(format!("the page has no file \"{name}\"")), "");
    };
    let mut reply = file.reply(headers);
    let headers = reply.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    reply
}

/// Leads from `/ui` to `/ui/`, by which the relative addresses of the page begin. The target is
/// relative too, for a proxy that adds a prefix.
fn redirect() -> Reply {
    let mut reply = http::empty(StatusCode::PERMANENT_REDIRECT);
    reply.headers_mut().insert(LOCATION, HeaderValue::from_static("ui/"));
    reply
}
