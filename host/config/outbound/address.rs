//! Addresses that a name must not resolve to: those of this machine and its link, and those of the
//! metadata services of clouds. Private networks are allowed, because feature stores are there.

use super::limits::OutboundLimits;
use super::origin::{Host, Origin};
use crate::error::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

impl OutboundLimits {
    /// Returns the addresses, of those that a server's name resolves to, that may be connected to.
    /// A name must not resolve to a guarded address unless the manifest names that address.
    pub fn judge(
        &self,
        origin: &Origin,
        found: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>> {
        let named = |ip: IpAddr| {
            let address = Origin { host: Host::Ip(ip), ..origin.clone() };
            let localhost = ip.is_loopback() && origin.host == Host::Name("localhost".into());
            localhost || self.allow.iter().any(|allowed| allowed.allows(&address))
        };
        let (mut good, mut bad) = (Vec::new(), None);
        for address in found {
            match guarded(address.ip()) {
                Some(kind) if !named(address.ip()) => bad = Some((address.ip(), kind)),
                _ => good.push(address),
            }
        }
        match (good.is_empty(), bad) {
            (false, _) => Ok(good),
            (true, None) => Err(Error::unavailable("its name does not resolve to an address")),
            (true, Some((ip, kind))) => {
                let fix = Origin { host: Host::Ip(ip), ..origin.clone() };
                Err(Error::unsupported(format!(
                    "its name resolves to {ip}, {kind}; if that is intended, add \"{fix}\" to allow_hosts"
                )))
            }
        }
    }
}

/// Returns the kind of an address that only a manifest may name; `None` for all others.
fn guarded(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => guarded_v4(ip),
        IpAddr::V6(ip) => guarded_v6(ip),
    }
}

fn guarded_v4(ip: Ipv4Addr) -> Option<&'static str> {
    // Alibaba, Azure, Oracle. The metadata services of other clouds are link-local.
    const METADATA: [[u8; 4]; 3] = [[100, 100, 100, 200], [168, 63, 129, 16], [192, 0, 0, 192]];
    let octets = ip.octets();
    if ip.is_loopback() {
        Some("a loopback address")
    } else if ip.is_link_local() {
        Some("a link-local address")
    } else if octets[0] == 0 || octets[0] >= 224 {
        Some("an unspecified, multicast or reserved address")
    } else {
        METADATA.contains(&octets).then_some("the address of a cloud metadata service")
    }
}

fn guarded_v6(ip: Ipv6Addr) -> Option<&'static str> {
    if ip.is_loopback() {
        return Some("a loopback address");
    }
    let words = ip.segments();
    let last_four = || {
        let [.., a, b] = words;
        let ([a, b], [c, d]) = (a.to_be_bytes(), b.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match words {
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xff00..=0xffff, ..] | [0, 0, 0, 0, 0, 0, 0, 0] => {
            Some("an unspecified, multicast or reserved address")
        }
        // Amazon, Google.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => {
            Some("the address of a cloud metadata service")
        }
        // An IPv4 address in another form: mapped, compatible, translated, 6to4.
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => guarded_v4(last_four()),
        [0x2002, a, b, ..] => {
            let ([a, b], [c, d]) = (a.to_be_bytes(), b.to_be_bytes());
            guarded_v4(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::outbound::Allowed;

    fn judged(host: &str, allow: &[&str], found: &[&str]) -> Result<usize> {
        let allow = allow.iter().map(|entry| Allowed::parse(entry).unwrap()).collect();
        let limits = OutboundLimits { allow, ..OutboundLimits::default() };
        let origin = Origin::new(true, Host::parse(host).unwrap(), None);
        let found = found.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 443));
        limits.judge(&origin, found).map(|good| good.len())
    }

    #[test]
    fn a_name_leads_to_this_machine_only_if_the_manifest_does() {
        let refused = judged("a.example.org", &["*.example.org"], &["127.0.0.1"]).unwrap_err();
        assert!(refused.message().contains("127.0.0.1, a loopback address"), "{refused}");
        assert!(refused.message().contains("add \"https://127.0.0.1\" to allow_hosts"), "{refused}");
        assert!(judged("a.example.org", &["a.example.org"], &["169.254.169.254"]).is_err());
        assert_eq!(judged("a.example.org", &["a.example.org", "127.0.0.1"], &["127.0.0.1"]).unwrap(), 1);
        assert!(judged("a.example.org", &["a.example.org", "127.0.0.1:8443"], &["127.0.0.1"]).is_err());
        assert_eq!(judged("localhost", &["localhost"], &["127.0.0.1", "::1"]).unwrap(), 2);
        assert!(judged("localhost", &["localhost"], &["169.254.0.1"]).is_err());
        // One good address is enough; private networks are good.
        assert_eq!(judged("a.example.org", &["a.example.org"], &["127.0.0.1", "10.0.0.1"]).unwrap(), 1);
        assert!(judged("a.example.org", &["a.example.org"], &[]).is_err());
    }

    #[test]
    fn addresses_of_this_machine_and_of_clouds_are_guarded_in_every_form() {
        for guarded_one in [
            "127.0.0.1",
            "127.200.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::1",
        ] {
            assert!(guarded(guarded_one.parse().unwrap()).is_some(), "{guarded_one}");
        }
        for free in ["10.1.2.3", "192.168.1.1", "172.16.0.1", "8.8.8.8", "fd12::1", "2606:4700::1"] {
            assert_eq!(guarded(free.parse().unwrap()), None, "{free}");
        }
    }
}
