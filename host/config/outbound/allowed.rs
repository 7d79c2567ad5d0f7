//! Entries of `allow_hosts`.

use super::origin::{Host, Origin};
use std::fmt;

/// An entry of `allow_hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Allowed {
    Only(Origin),
    /// Every name below that of the origin.
    Subdomains(Origin),
}

impl Allowed {
    /// Parses `[http://|https://]host[:port]`. A host `*.example.org` matches every name below that
    /// one. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (tls, rest) = match text.split_once("://") {
            None => (true, text),
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return Err("has a scheme that is neither http nor https"),
        };
        if rest.contains(['/', '?', '#', '@', ' ']) {
            return Err("is more than a host and a port");
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                let port = port.parse().ok().filter(|port| *port > 0);
                (host, Some(port.ok_or("has a port that is not between 1 and 65535")?))
            }
            _ => (rest, None),
        };
        let below = host.strip_prefix("*.");
        let wildcard = "has a '*' in another place than at the beginning, before a dot";
        let host = Host::parse(below.unwrap_or(host)).ok_or(if rest.contains('*') {
            wildcard
        } else {
            "is not a host"
        })?;
        let origin = Origin::new(tls, host, port);
        Ok(match (below, &origin.host) {
            (None, _) => Allowed::Only(origin),
            (Some(_), Host::Name(_)) => Allowed::Subdomains(origin),
            (Some(_), Host::Ip(_)) => return Err("has a '*' before an address"),
        })
    }

    pub fn allows(&self, requested: &Origin) -> bool {
        match self {
            Allowed::Only(origin) => origin == requested,
            Allowed::Subdomains(origin) => match (&origin.host, &requested.host) {
                (Host::Name(parent), Host::Name(name)) => {
                    let below = name.strip_suffix(parent.as_str()).is_some_and(|rest| rest.ends_with('.'));
                    below && (origin.tls, origin.port) == (requested.tls, requested.port)
                }
                _ => false,
            },
        }
    }

    pub fn origin(&self) -> &Origin {
        match self {
            Allowed::Only(origin) | Allowed::Subdomains(origin) => origin,
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Allowed::Only(origin) => origin.fmt(f),
            Allowed::Subdomains(Origin { tls, host, port }) => {
                let host = Host::Name(format!("*.{host}"));
                Origin { tls: *tls, host, port: *port }.fmt(f)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        match Allowed::parse(url) {
            Ok(Allowed::Only(origin)) => origin,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn an_entry_allows_its_scheme_host_and_port_and_nothing_else() {
        for (entry, shown, allowed, refused) in [
            (
                "Features.Internal:8080",
                "https://features.internal:8080",
                &["features.internal.:8080", "https://FEATURES.internal:8080"][..],
                &["features.internal", "http://features.internal:8080", "x.features.internal:8080"][..],
            ),
            ("example.org", "https://example.org", &["example.org:443"], &["http://example.org", "10.0.0.1"]),
            (
                "*.example.org",
                "https://*.example.org",
                &["a.example.org", "a.b.example.org:443"],
                &["example.org", "badexample.org", "a.example.org:8443", "a.example.org.evil.net"],
            ),
            (
                "http://127.0.0.1:9000",
                "http://127.0.0.1:9000",
                &["http://127.0.0.1:9000"],
                &["http://127.1:9000", "http://[::ffff:127.0.0.1]:9000", "http://localhost:9000"],
            ),
            ("[::1]:8443", "https://[::1]:8443", &["[0:0::1]:8443"], &["[::1]", "[::2]:8443"]),
        ] {
            let parsed = Allowed::parse(entry).unwrap();
            assert_eq!(parsed.to_string(), shown);
            assert!(allowed.iter().all(|url| parsed.allows(&origin(url))), "{entry}: {allowed:?}");
            assert!(!refused.iter().any(|url| parsed.allows(&origin(url))), "{entry}: {refused:?}");
        }
    }

    #[test]
    fn what_is_no_entry_says_why() {
        for (entry, why) in [
            ("", "not a host"),
            ("*", "'*' in another place"),
            ("a.*.org", "'*' in another place"),
            ("*.10.0.0.1", "before an address"),
            ("ftp://example.org", "neither http nor https"),
            ("example.org/path", "more than a host"),
            ("me@example.org", "more than a host"),
            ("example.org:0", "has a port"),
            ("example.org:http", "has a port"),
            ("[::1", "not a host"),
            ("a..b", "not a host"),
            ("bücher.example", "not a host"),
        ] {
            let said = Allowed::parse(entry).unwrap_err();
            assert!(said.contains(why), "{entry}: {said}");
        }
    }
}
