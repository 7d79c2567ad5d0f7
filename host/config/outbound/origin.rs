//! The target of an HTTP request.

use std::fmt;
use std::net::IpAddr;

/// The target of a request: all that a connection depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub tls: bool,
    pub host: Host,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Ip(IpAddr),
    /// In lower case, without a dot at the end.
    Name(String),
}

impl Host {
    /// Parses a host as in a URL, with IPv6 in brackets. `None` if it is neither an address nor a
    /// name.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(bracketed) = text.strip_prefix('[') {
            return Some(Host::Ip(IpAddr::V6(bracketed.strip_suffix(']')?.parse().ok()?)));
        }
        if let Ok(ip) = text.parse() {
            return Some(Host::Ip(IpAddr::V4(ip)));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let good = (1..=253).contains(&name.len())
            && name.split('.').all(|label| !label.is_empty())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        good.then_some(Host::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Host::Ip(ip) => write!(f, "{ip}"),
            Host::Name(name) => f.write_str(name),
        }
    }
}

impl Origin {
    fn default_port(tls: bool) -> u16 {
        if tls { 443 } else { 80 }
    }

    /// `port` is `None` for the scheme's default.
    pub fn new(tls: bool, host: Host, port: Option<u16>) -> Self {
        Origin { tls, host, port: port.unwrap_or(Origin::default_port(tls)) }
    }

    /// Returns the value of the header `host`.
    pub fn authority(&self) -> String {
        if self.port == Origin::default_port(self.tls) {
            return self.host.to_string();
        }
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}
