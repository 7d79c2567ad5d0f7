//! Requests that a page of another site makes a browser send: which are refused, and which pages
//! may read replies.
//!
//! A browser sends a form to any address, including a loopback one, and names the page's site in
//! `Origin` and `Sec-Fetch-Site`. By DNS rebinding a page can also make its own name resolve to
//! this host; `Host` is then that name. Programs that are not browsers send neither `Origin` nor
//! `Sec-Fetch-Site`, and pass.

use super::http::{self, Reply};
use crate::error::{Error, Result};
use crate::policy::settings::Access;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderName, HeaderValue, ORIGIN, VARY,
};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, StatusCode};
use std::net::{IpAddr, SocketAddr};

/// The header in which a browser says how the requesting page's site relates to this host.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Headers of replies that a page may read, besides those that it always may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, x-hostler-generation, retry-after, inference-header-content-length, location, \
     idempotent-replayed, preference-applied",
);

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, DELETE");

/// Headers that a page may send if its preflight does not name any.
const HEADERS: HeaderValue = HeaderValue::from_static("content-type, x-request-id");

/// Seconds for which a browser remembers a preflight.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Characters of a header that an error shows.
const SHOWN_CHARS_MAX: usize = 80;

/// How much harm a page of another site can do through a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sensitivity {
    /// Health, metrics and predictions: open to everyone.
    Open,
    /// Reads what is served.
    Reads,
    /// Changes what is served, or reads and changes jobs that others have submitted.
    Controls,
}

/// The cross-site rules of one listener.
pub struct CrossSite {
    /// Allowed origins, in the form in which browsers send them.
    origins: Vec<String>,
    /// Names that `Host` may have, besides `localhost` and addresses. `None` allows any.
    hosts: Option<Vec<String>>,
}

impl CrossSite {
    /// Returns the rules of the public listener at these addresses.
    pub fn public(access: &Access, addresses: &[SocketAddr]) -> Self {
        CrossSite { origins: access.origins.clone(), hosts: hosts(access, addresses) }
    }

    /// Returns the rules of the admin listener, which no page of another origin may use.
    pub fn admin(access: &Access, addresses: &[SocketAddr]) -> Self {
        CrossSite { origins: Vec::new(), hosts: hosts(access, addresses) }
    }

    /// Whether pages of some other origin may read replies.
    pub(super) fn has_origins(&self) -> bool {
        !self.origins.is_empty()
    }

    /// Refuses a request that a page of another site must not make.
    pub(super) fn check(&self, head: &Parts, sensitivity: Sensitivity) -> Result<()> {
        if sensitivity == Sensitivity::Open {
            return Ok(());
        }
        self.check_host(head)?;
        if sensitivity == Sensitivity::Controls {
            self.check_site(head)?;
        }
        Ok(())
    }

    /// Refuses a request whose target or `Host` header is not a name of this host.
    fn check_host(&self, head: &Parts) -> Result<()> {
        let Some(allowed) = &self.hosts else { return Ok(()) };
        let target = head.uri.authority().map(|authority| authority.as_str().as_bytes());
        let named = head.headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
        for name in target.into_iter().chain(named) {
            let host = std::str::from_utf8(name).ok().and_then(host_of);
            if !host.is_some_and(|host| is_own(&host, allowed)) {
                return Err(Error::forbidden(format!(
                    "the request is for the host \"{}\", which is not localhost, an IP address or one of [server] \
                     allowed_hosts",
                    shown(name)
                ))
                .field("host"));
            }
        }
        Ok(())
    }

    fn check_site(&self, head: &Parts) -> Result<()> {
        let mut is_known = false;
        for origin in head.headers.get_all(ORIGIN) {
            let is_allowed = self.allows(origin);
            if !is_allowed && !is_same(origin, head) {
                return Err(Error::forbidden(format!(
                    "a page of the origin \"{}\" may not send this request: it is not this host's own and not one of \
                     [server] allowed_origins",
                    shown(origin.as_bytes())
                ))
                .field("origin"));
            }
            is_known |= is_allowed;
        }
        for site in head.headers.get_all(SEC_FETCH_SITE) {
            // `none` means that a person made the request, by the address bar or a bookmark.
            if !is_known && !matches!(site.as_bytes(), b"same-origin" | b"none") {
                return Err(Error::forbidden(format!(
                    "a page of another site may not send this request: Sec-Fetch-Site is \"{}\"",
                    shown(site.as_bytes())
                ))
                .field("sec-fetch-site"));
            }
        }
        Ok(())
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }

    /// Returns the request's origin if pages of that origin may read the reply.
    pub(super) fn reader(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN).filter(|_| self.has_origins())?;
        self.allows(origin).then(|| origin.clone())
    }
}

/// Returns the reply to a preflight, by which a browser asks whether a page may send a request.
/// `None` for any other request.
pub(super) fn preflight(head: &Parts) -> Option<Reply> {
    if head.method != Method::OPTIONS || !head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let mut reply = http::empty(StatusCode::NO_CONTENT);
    let wanted = head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let headers = reply.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.unwrap_or(HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    Some(reply)
}

/// Allows pages of this origin to read a reply. Credentials are never allowed: only the page of the
/// admin listener has cookies.
pub(super) fn allow_reading(reply: &mut Reply, origin: HeaderValue) {
    let headers = reply.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.append(VARY, HeaderValue::from_static("origin"));
}

/// Returns the names to check `Host` against. Without a list in the manifest, names are checked on
/// loopback addresses only: only this machine can connect there, so a foreign name is certainly an
/// attack.
fn hosts(access: &Access, addresses: &[SocketAddr]) -> Option<Vec<String>> {
    match &access.hosts {
        Some(hosts) if hosts.iter().any(|host| host == "*") => None,
        Some(hosts) => Some(hosts.clone()),
        None => {
            let is_loopback = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
            addresses.iter().all(is_loopback).then(Vec::new)
        }
    }
}

/// Returns the host of `host`, `host:port` or `[address]:port`, in lower case and without a
/// trailing dot. `None` if the text does not have that form, and an empty text if it names no host.
fn host_of(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some(String::new());
    }
    if text.contains('@') {
        return None;
    }
    let authority: Authority = text.parse().ok()?;
    let host = authority.host();
    Some(host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase())
}

fn is_own(host: &str, allowed: &[String]) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // Rebinding needs a name. A request without one can only come from an old client.
    host.is_empty()
        || host == "localhost"
        || address.parse::<IpAddr>().is_ok()
        || allowed.iter().any(|allowed| allowed == host)
}

/// Whether an origin is that of the host as the request names it. Behind a proxy the scheme of the
/// request is not known here, so a port that is left out is the default of the origin's scheme.
fn is_same(origin: &HeaderValue, head: &Parts) -> bool {
    let same = || {
        let (scheme, authority) = origin.to_str().ok()?.split_once("://")?;
        let default = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let endpoint = |authority: &str| {
            let port = authority.parse::<Authority>().ok()?.port_u16().unwrap_or(default);
            Some((host_of(authority)?, port))
        };
        let mut names = head.headers.get_all(HOST).iter();
        let named = match head.uri.authority() {
            Some(target) => target.as_str(),
            None => names.next()?.to_str().ok()?,
        };
        (!named.is_empty()).then_some(())?;
        Some(endpoint(authority)? == endpoint(named)?)
    };
    same().unwrap_or(false)
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_from_what_only_looks_like_them() {
        let allowed = ["models.example.org".to_owned()];
        for (text, expected) in [
            ("localhost", true),
            ("LocalHost:8000", true),
            ("localhost.:8000", true),
            ("127.0.0.1:8000", true),
            ("10.0.0.7", true),
            ("[::1]:8000", true),
            ("models.example.org", true),
            ("Models.Example.org.:80", true),
            ("", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("notlocalhost", false),
            ("localhost@evil.example", false),
            ("evil.example@localhost", false),
            ("localhost:8000:9000", false),
            ("127.0.0.1.evil.example", false),
            ("sub.models.example.org", false),
            ("localhost/", false),
            ("local host", false),
            ("::1", false),
        ] {
            let own = host_of(text).is_some_and(|host| is_own(&host, &allowed));
            assert_eq!(own, expected, "{text:?}");
        }
    }

    #[test]
    fn an_origin_is_the_same_with_its_host_and_port() {
        for (origin, host, expected) in [
            ("http://localhost:8000", "localhost:8000", true),
            ("http://LOCALHOST:8000", "localhost.:8000", true),
            ("http://localhost", "localhost:80", true),
            ("https://models.example.org", "models.example.org", true),
            ("https://models.example.org", "models.example.org:443", true),
            ("http://[::1]:8000", "[::1]:8000", true),
            ("http://localhost:3000", "localhost:8000", false),
            ("http://127.0.0.1:8000", "localhost:8000", false),
            ("http://evil.example", "localhost:8000", false),
            ("null", "localhost:8000", false),
            ("null", "null", false),
            ("", "", false),
            ("file://", "localhost", false),
            ("chrome-extension://abc", "abc", false),
            ("http://localhost:8000@evil.example", "localhost:8000", false),
        ] {
            let (head, ()) = hyper::Request::builder().header(HOST, host).body(()).unwrap().into_parts();
            let origin = HeaderValue::from_static(origin);
            assert_eq!(is_same(&origin, &head), expected, "{origin:?} {host}");
        }
    }
}
