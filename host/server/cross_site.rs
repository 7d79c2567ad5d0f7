//! Requests that a page of another site makes a browser send: which are refused, and which may read their answers.
//!
//! A browser sends a form to any address, a loopback one included, and says in `Origin` and `Sec-Fetch-Site` whose page
//! asked. By DNS rebinding a page can also make its own name point here; then `Host` is that name. Programs that are
//! not browsers send none of the first two and pass.

use super::http::{self, Reply};
use super::oip;
use crate::error::{Error, Result};
use crate::policy::settings::Access;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderName, HeaderValue, ORIGIN, VARY,
};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Request, StatusCode};
use std::net::{IpAddr, SocketAddr};

/// Where a browser says how the page that asks is related to the host that is asked.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Headers of answers that a page may read, besides those that it always may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, x-hostler-generation, retry-after, inference-header-content-length",
);

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, DELETE");

/// Headers that a page may send where it does not ask for particular ones.
const HEADERS: HeaderValue = HeaderValue::from_static("content-type, x-request-id");

/// Seconds for which a browser remembers a preflight.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// How much of a header an error shows.
const SHOWN_CHARS_MAX: usize = 80;

/// How much harm a page of another site can do through a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sensitivity {
    /// Health, metrics and predictions: anybody may ask.
    Open,
    /// Reads what is served.
    Reads,
    /// Changes what is served, or reads and changes what others have submitted.
    Controls,
}

/// The rules of one listener.
pub struct CrossSite {
    /// In the form in which browsers send them.
    origins: Vec<String>,
    /// Names that `Host` may have, besides `localhost` and addresses. None: any.
    hosts: Option<Vec<String>>,
}

impl CrossSite {
    /// The rules of the public listener at this address.
    pub fn public(access: &Access, address: SocketAddr) -> Self {
        CrossSite { origins: access.origins.clone(), hosts: hosts(access, address) }
    }

    /// Those of the admin listener, which no page of another origin may use.
    pub fn admin(access: &Access, address: SocketAddr) -> Self {
        CrossSite { origins: Vec::new(), hosts: hosts(access, address) }
    }

    /// Whether pages of some other origin may read answers.
    pub(super) fn has_origins(&self) -> bool {
        !self.origins.is_empty()
    }

    /// Refuses what a page of another site has no business with.
    pub(super) fn check<B>(&self, request: &Request<B>, sensitivity: Sensitivity) -> Result<()> {
        if sensitivity == Sensitivity::Open {
            return Ok(());
        }
        self.check_host(request)?;
        if sensitivity == Sensitivity::Controls {
            self.check_site(request)?;
        }
        Ok(())
    }

    /// Every name under which the host is asked must be one of its own.
    fn check_host<B>(&self, request: &Request<B>) -> Result<()> {
        let Some(allowed) = &self.hosts else { return Ok(()) };
        let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let named = request.headers().get_all(HOST).iter().map(HeaderValue::as_bytes);
        for name in target.into_iter().chain(named) {
            let host = std::str::from_utf8(name).ok().and_then(host_of);
            if !host.is_some_and(|host| is_own(&host, allowed)) {
                return Err(Error::forbidden(format!(
                    "the host is asked under the name \"{}\", which is not localhost, an address or one of [server] \
                     allowed_hosts",
                    shown(name)
                ))
                .field("host"));
            }
        }
        Ok(())
    }

    fn check_site<B>(&self, request: &Request<B>) -> Result<()> {
        let headers = request.headers();
        let mut is_known = false;
        for origin in headers.get_all(ORIGIN) {
            if !self.allows(origin) && !is_same(origin, request) {
                return Err(Error::forbidden(format!(
                    "a page of the origin \"{}\" may not ask for this: it is not this host's own and not one of \
                     [server] allowed_origins",
                    shown(origin.as_bytes())
                ))
                .field("origin"));
            }
            is_known |= self.allows(origin);
        }
        for site in headers.get_all(SEC_FETCH_SITE) {
            // `none` is what a person asked for, by the address bar or a bookmark.
            if !is_known && !matches!(site.as_bytes(), b"same-origin" | b"none") {
                return Err(Error::forbidden(format!(
                    "a page of another site may not ask for this: Sec-Fetch-Site is \"{}\"",
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

    /// The request's origin, where its page may read the answer.
    pub(super) fn reader(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN).filter(|_| self.has_origins())?;
        self.allows(origin).then(|| origin.clone())
    }
}

/// The answer to a browser that asks whether a page of this origin may send a request. None for any other request.
pub(super) fn preflight<B>(request: &Request<B>) -> Option<Reply> {
    if request.method() != Method::OPTIONS || !request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let mut reply = Reply::default();
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let wanted = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let headers = reply.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.unwrap_or(HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    Some(reply)
}

/// Lets the page of this origin read an answer. Never with credentials: the host knows none.
pub(super) fn let_read(reply: &mut Reply, origin: HeaderValue) {
    let headers = reply.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.append(VARY, HeaderValue::from_static("origin"));
}

/// The refusal in the form of the interface that was asked.
pub(super) fn refusal(error: &Error, path: &str) -> Reply {
    match oip::is_path(path) {
        true => oip::error_reply(error),
        false => http::error_reply(error, ""),
    }
}

/// Without a list, names are checked where only this machine can ask: there a foreign name is a trick for certain.
fn hosts(access: &Access, address: SocketAddr) -> Option<Vec<String>> {
    match &access.hosts {
        Some(hosts) if hosts.iter().any(|host| host == "*") => None,
        Some(hosts) => Some(hosts.clone()),
        None => address.ip().to_canonical().is_loopback().then(Vec::new),
    }
}

/// The host of `host`, `host:port` or `[address]:port`, in lower case and without a dot at its end. None for what is
/// not of that form. Empty where no host is named.
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
    // A name is what rebinding needs. Without one, a request can come from an old client only.
    host.is_empty()
        || host == "localhost"
        || address.parse::<IpAddr>().is_ok()
        || allowed.iter().any(|allowed| allowed == host)
}

/// Whether an origin is that of the host as the request names it. Behind a proxy its scheme is not known here, so that
/// a port that is left out is the one of the origin's scheme.
fn is_same<B>(origin: &HeaderValue, request: &Request<B>) -> bool {
    let same = || {
        let (scheme, authority) = origin.to_str().ok()?.split_once("://")?;
        let default = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let place = |authority: &str| {
            let port = authority.parse::<Authority>().ok()?.port_u16().unwrap_or(default);
            Some((host_of(authority)?, port))
        };
        let mut names = request.headers().get_all(HOST).iter();
        let named = match request.uri().authority() {
            Some(target) => target.as_str(),
            None => names.next()?.to_str().ok()?,
        };
        (!named.is_empty()).then_some(())?;
        Some(place(authority)? == place(named)?)
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
            let request = Request::builder().header(HOST, host).body(()).unwrap();
            let origin = HeaderValue::from_static(origin);
            assert_eq!(is_same(&origin, &request), expected, "{origin:?} {host}");
        }
    }
}
