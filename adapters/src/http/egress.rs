//! Which addresses may be called: the guard against requests forged towards our own network.
//!
//! An upstream's host is configuration, but what its name resolves to is somebody else's choice,
//! and may change between a check and its use. So addresses are looked at where they are used:
//! every resolved one in the resolver, literal ones (which never reach a resolver) before each
//! request. Special-purpose ranges are those of IANA (RFC 6890 and its registries), and what
//! cloud platforms serve to their guests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::EgressConfig;

/// Decides which addresses may be called.
#[derive(Debug, Clone)]
pub struct Guard {
    allow: Vec<IpNet>,
}

/// An address that may not be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {kind}, and not listed in egress.allow")]
pub struct RefusedAddress {
    /// The address.
    pub address: IpAddr,
    /// What it is: `a loopback address`.
    pub kind: &'static str,
}

impl Guard {
    /// A guard that lets public addresses through, and what the configuration lists.
    #[must_use]
    pub fn new(config: &EgressConfig) -> Self {
        Self { allow: config.allow.clone() }
    }

    /// Whether `address` may be called.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        self.check(address).is_ok()
    }

    /// Whether `address` may be called, and if not, why.
    ///
    /// # Errors
    /// When it is of a special range and not listed, or carries an IPv4 address that is.
    pub fn check(&self, address: IpAddr) -> Result<(), RefusedAddress> {
        // `::ffff:10.0.0.1` is 10.0.0.1 to the operating system, so it is to us.
        let address = address.to_canonical();
        if self.allow.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        let refused = |kind| Err(RefusedAddress { address, kind });
        let v6 = match address {
            IpAddr::V4(v4) => return special_v4(v4).map_or(Ok(()), refused),
            IpAddr::V6(v6) => v6,
        };
        let carried = carried_v4(v6);
        if carried.is_empty() {
            return special_v6(v6).map_or(Ok(()), refused);
        }
        carried.into_iter().try_for_each(|v4| self.check(v4.into()))
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    SPECIAL_V4.iter().find(|(net, _)| net.contains(&address)).map(|(_, kind)| *kind)
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    SPECIAL_V6.iter().find(|(net, _)| net.contains(&address)).map(|(_, kind)| *kind).or_else(|| {
        // Only this block is handed out for global unicast (RFC 4291 §2.4).
        (!v6(0x2000, 0, 0, 3).contains(&address)).then_some("a reserved address")
    })
}

/// The IPv4 addresses that packets to `address` really go to.
fn carried_v4(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let [a, b, c, d, _, _, g, h] = address.segments();
    let joined = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b) {
        // 6to4 (RFC 3056): the site's gateway.
        (0x2002, _) => vec![joined(b, c)],
        // Teredo (RFC 4380 §4): the server, and the client with its bits flipped.
        (0x2001, 0) => vec![joined(c, d), joined(!g, !h)],
        // NAT64 (RFC 6052): what an IPv6-only network makes of a public IPv4 address.
        (0x64, 0xff9b) if address.segments()[2..6] == [0; 4] => vec![joined(g, h)],
        _ => Vec::new(),
    }
}

const fn v4(a: u8, b: u8, c: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), length)
}

const fn v6(a: u16, b: u16, c: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), length)
}

/// IANA IPv4 Special-Purpose Address Registry, multicast, reserved; and Azure's host channel.
const SPECIAL_V4: [(Ipv4Net, &str); 16] = [
    (v4(0, 0, 0, 8), "an unspecified address"),
    (v4(10, 0, 0, 8), "a private address"),
    (v4(100, 64, 0, 10), "a carrier's internal address"),
    (v4(127, 0, 0, 8), "a loopback address"),
    (v4(169, 254, 0, 16), "a link-local or metadata address"),
    (v4(172, 16, 0, 12), "a private address"),
    (v4(192, 0, 0, 24), "a protocol assignment"),
    (v4(192, 0, 2, 24), "a documentation address"),
    (v4(192, 88, 99, 24), "a 6to4 relay address"),
    (v4(192, 168, 0, 16), "a private address"),
    (v4(198, 18, 0, 15), "a benchmarking address"),
    (v4(198, 51, 100, 24), "a documentation address"),
    (v4(203, 0, 113, 24), "a documentation address"),
    (v4(224, 0, 0, 4), "a multicast address"),
    (v4(240, 0, 0, 4), "a reserved or broadcast address"),
    // Other clouds' metadata services lie in ranges above; Azure's is a public address.
    (Ipv4Net::new_assert(Ipv4Addr::new(168, 63, 129, 16), 32), "a metadata address"),
];

/// IANA IPv6 Special-Purpose Address Registry, as far as it lies in global unicast space or
/// deserves a name of its own.
const SPECIAL_V6: [(Ipv6Net, &str); 14] = [
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), "a loopback address"),
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), "an unspecified address"),
    (v6(0, 0, 0, 96), "an IPv4-compatible address"),
    (v6(0x64, 0xff9b, 1, 48), "a private translation address"),
    (v6(0x100, 0, 0, 64), "a discard address"),
    (v6(0x2001, 0, 0, 23), "a protocol assignment"),
    (v6(0x2001, 0xdb8, 0, 32), "a documentation address"),
    (v6(0x3fff, 0, 0, 20), "a documentation address"),
    (v6(0x5f00, 0, 0, 16), "a segment routing address"),
    (v6(0xfd00, 0xec2, 0, 32), "a private or metadata address"),
    (v6(0xfc00, 0, 0, 7), "a private address"),
    (v6(0xfe80, 0, 0, 10), "a link-local address"),
    (v6(0xfec0, 0, 0, 10), "a site-local address"),
    (v6(0xff00, 0, 0, 8), "a multicast address"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow: &[&str]) -> Guard {
        Guard::new(&EgressConfig { allow: allow.iter().map(|net| net.parse().unwrap()).collect() })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn s1_addresses_of_special_ranges_are_refused() {
        let refused = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.9",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::7f00:1",
            "::10.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.1.2.3",
            "64:ff9b::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2002:c0a8:101::1",
            // Teredo: a private server; a client that is 192.168.1.1 with its bits flipped.
            "2001:0:a00:1::",
            "2001:0:808:808:0:0:3f57:fefe",
            "fc00::1",
            "fd00:ec2::254",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
            "::ffff:0:127.0.0.1",
        ];
        for address in refused {
            assert!(!guard(&[]).allows(ip(address)), "{address}");
        }
    }

    #[test]
    fn s1_public_addresses_pass_however_they_are_carried() {
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2001:200::1",
        ];
        for address in public {
            assert!(guard(&[]).allows(ip(address)), "{address}");
        }
    }

    #[test]
    fn s1_a_listed_network_passes_also_where_ipv6_carries_it() {
        let guard = guard(&["10.1.0.0/16", "fd00:1::/32"]);
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd00:1::9"] {
            assert!(guard.allows(ip(address)), "{address}");
        }
        for address in ["10.2.0.1", "::ffff:10.2.0.1", "fd00:2::9", "127.0.0.1"] {
            assert!(!guard.allows(ip(address)), "{address}");
        }
    }

    #[test]
    fn s1_every_spelling_of_a_literal_host_comes_out_as_its_address() {
        let spellings = [
            "http://127.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://0x7f000001/",
            "http://127.0.0.1./",
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
            "http://%31%32%37.0.0.1/",
            "http://①②⑦.0.0.1/",
        ];
        for text in spellings {
            let url = url::Url::parse(text).unwrap();
            let address: IpAddr = match url.host().unwrap() {
                url::Host::Ipv4(v4) => v4.into(),
                url::Host::Ipv6(v6) => v6.into(),
                url::Host::Domain(name) => panic!("{text} is the name {name}"),
            };
            assert!(!guard(&[]).allows(address), "{text}");
        }
    }

    #[test]
    fn the_refusal_says_what_the_address_is_and_what_to_do() {
        let refused = guard(&[]).check(ip("::ffff:169.254.169.254")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "169.254.169.254 is a link-local or metadata address, and not listed in egress.allow"
        );
    }
}
