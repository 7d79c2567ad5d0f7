//! The address of a listener as an operator writes it: an IP address or a name, and a port.

use crate::error::{Error, Result};
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// An address to listen on. A name stands for all addresses that it resolves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    text: String,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Address(SocketAddr),
    Name(String, u16),
}

impl ListenAddress {
    pub fn port(&self) -> u16 {
        match &self.target {
            Target::Address(address) => address.port(),
            Target::Name(_, port) => *port,
        }
    }

    /// Whether only this machine can be reached there.
    pub fn is_loopback(&self) -> bool {
        match &self.target {
            Target::Address(address) => address.ip().is_loopback(),
            Target::Name(name, _) => name == "localhost",
        }
    }

    /// Returns the address or the name, without the port.
    pub fn host(&self) -> String {
        match &self.target {
            Target::Address(address) => address.ip().to_string(),
            Target::Name(name, _) => name.clone(),
        }
    }

    /// Returns the addresses, those of IPv4 first.
    ///
    /// # Errors
    /// `unavailable` if it is a name that does not resolve.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>> {
        let (name, port) = match &self.target {
            Target::Address(address) => return Ok(vec![*address]),
            Target::Name(name, port) => (name.as_str(), *port),
        };
        let failed = |why: String| {
            Error::unavailable(format!(
                "the name \"{name}\" does not resolve to an address: {why}; write an IP address, or a name that this \
                 machine knows"
            ))
        };
        let found = (name, port).to_socket_addrs();
        let mut addresses: Vec<SocketAddr> = found.map_err(|error| failed(error.to_string()))?.collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        addresses.dedup();
        if addresses.is_empty() { Err(failed("it has none".to_owned())) } else { Ok(addresses) }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    /// Checks the form. Whether a name resolves is known only when it is used.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        const HINT: &str =
            "write an IP address or a name, and a port, such as 127.0.0.1:8000, [::1]:8000 or localhost:8000";
        let parsed = || {
            if let Ok(address) = text.parse::<SocketAddr>() {
                return Some(Target::Address(address));
            }
            let (host, port) = text.rsplit_once(':')?;
            let is_name = !host.is_empty() && host.len() <= 253 && host.split('.').all(is_label);
            // A name of digits alone is an address with a mistake.
            let is_number = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
            (is_name && !is_number && is_port).then_some(())?;
            Some(Target::Name(host.to_owned(), port.parse().ok()?))
        };
        let target = parsed().ok_or(HINT)?;
        Ok(ListenAddress { text: text.to_owned(), target })
    }
}

fn is_label(label: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !label.is_empty() && label.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_with_a_port_are_told_from_everything_else() {
        for text in ["127.0.0.1:8000", "[::1]:0", "localhost:8000", "models.example.org:1", "my_host:65535"] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "",
            "localhost",
            ":8000",
            "*:8000",
            "127.0.0.1",
            "127.0.0:8000",
            "1.2.3.4.5:80",
            "::1:8000",
            "a:b",
            "a:+1",
            "localhost:",
            "localhost:65536",
            "localhost:-1",
            "http://localhost:8000",
            "a b:1",
            "a..b:1",
        ] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_resolves_to_itself_and_a_name_to_all_that_it_has() {
        let resolved = |text: &str| text.parse::<ListenAddress>().unwrap().resolve();
        assert_eq!(resolved("[::1]:80").unwrap(), ["[::1]:80".parse().unwrap()]);
        let local = resolved("localhost:80").unwrap();
        assert!(local.iter().all(|address| address.ip().is_loopback() && address.port() == 80), "{local:?}");
        let error = resolved("no-such-name.invalid:80").unwrap_err();
        assert!(error.message().contains("no-such-name.invalid"), "{error}");
    }
}
