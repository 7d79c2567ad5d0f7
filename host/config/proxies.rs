//! Proxies whose word about their clients is taken.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A network: an address and the number of its bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const HINT: &str =
            "write an address, or an address and the number of its bits that count, such as 10.0.0.0/8";
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| HINT)?;
        if address != address.to_canonical() {
            return Err("write an address of IPv4 as such, such as 10.0.0.0/8");
        }
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| HINT))?;
        if bits <= most { Ok(Network { address, bits }) } else { Err(HINT) }
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        let shared = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        shared >= u32::from(self.bits)
    }
}

/// The proxies that are trusted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proxies(pub Vec<Network>);

impl Proxies {
    /// Whether this is the address of a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }

    /// Returns the address of the client behind a connection from `peer`: the last one in
    /// `X-Forwarded-For` that is not of a trusted proxy. What stands before it was written by the
    /// client.
    pub fn client(&self, peer: IpAddr, forwarded: &[impl AsRef<str>]) -> IpAddr {
        let mut client = peer.to_canonical();
        let mut hops = forwarded.iter().flat_map(|line| line.as_ref().split(',')).rev();
        while self.trusts(client) {
            let Some(hop) = hops.next() else { break };
            let hop = hop.trim();
            let with_port = || hop.parse::<SocketAddr>().map(|address| address.ip());
            let Ok(address) = hop.parse::<IpAddr>().or_else(|_| with_port()) else { break };
            client = address.to_canonical();
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_name_their_clients() {
        let proxies = Proxies(["10.0.0.0/8", "fd00::1"].map(|text| text.parse().unwrap()).to_vec());
        for (peer, forwarded, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.7, 10.9.9.9"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("fd00::1", &["2001:db8::1"], "2001:db8::1"),
            ("fd00::2", &["2001:db8::1"], "fd00::2"),
            ("10.0.0.1", &["unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7:1234"], "198.51.100.7"),
        ] {
            let client = proxies.client(peer.parse().unwrap(), forwarded);
            assert_eq!(client.to_string(), expected, "{peer} {forwarded:?}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "a/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
