//! Restrictions on the addresses of remote servers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that connections may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressPolicy {
    /// All addresses: the user named the server as a member of their own cluster.
    Any,
    /// Private networks and this machine too, but no link-local address and no cloud metadata
    /// service: the latter give the machine's own credentials to any client on it.
    Private,
    /// The public internet only: the server connects on behalf of a user who may not reach the
    /// networks that it reaches.
    #[default]
    Public,
}

/// The reason why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// The address is link-local or belongs to a metadata service.
    Metadata,
    /// The address is not on the public internet.
    NotPublic,
}

impl AddressPolicy {
    /// The reason for refusing an address; `None` for an allowed one.
    pub(crate) fn refusal(self, address: IpAddr) -> Option<Unfit> {
        match self {
            Self::Any => None,
            Self::Private | Self::Public if is_metadata(address) => Some(Unfit::Metadata),
            Self::Public if !is_public(address) => Some(Unfit::NotPublic),
            Self::Private | Self::Public => None,
        }
    }
}

/// Whether an address is link-local, or belongs to a cloud service that gives a machine its
/// secrets, in any notation.
fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_metadata_v4(address),
        IpAddr::V6(address) => is_metadata_v6(address) || embedded_v4s(address).any(is_metadata_v4),
    }
}

fn is_metadata_v4(address: Ipv4Addr) -> bool {
    // 169.254.169.254 and its neighbours serve nearly all clouds.
    address.is_link_local()
        || [
            Ipv4Addr::new(100, 100, 100, 200), // Alibaba
            Ipv4Addr::new(168, 63, 129, 16),   // Azure
            Ipv4Addr::new(192, 0, 0, 192),     // Oracle
        ]
        .contains(&address)
}

fn is_metadata_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    match segments {
        // fe80::/10.
        [first, ..] if first & 0xffc0 == 0xfe80 => true,
        // Amazon's services for one machine: metadata (::254), credentials of containers (::23) and
        // others.
        [0xfd00, 0x0ec2, ..] => true,
        // Scaleway, Akamai and Oracle.
        [0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x0042]
        | [0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 0x0001]
        | [0xfd00, 0x00c1, 0, 0, 0, 0, 0xa9fe, 0xa9fe] => true,
        // Google.
        [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254] => true,
        _ => false,
    }
}

/// Whether an address is on the public internet: outside IANA's registries of special-purpose
/// addresses.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_broadcast()
        || address.is_multicast()
        || (a == 100 && (64..128).contains(&b)) // carrier-grade NAT
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19)) // benchmarks
        || a >= 240;
    !special
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

/// The IPv4 address embedded in an IPv6 address: a packet to the IPv6 address reaches it.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        // IPv4-mapped, and the deprecated IPv4-compatible form.
        [0, 0, 0, 0, 0, 0xffff, high, low] => Some(v4(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(v4(high, low)),
        // NAT64 (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// All IPv4 addresses that a packet to an IPv6 address may reach, where a network translates or
/// tunnels it. This includes forms that are never on the public internet but may be used in a
/// private network.
fn embedded_v4s(address: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let mut found: Vec<Ipv4Addr> = embedded_v4(address).into_iter().collect();
    match address.segments() {
        // Stateless translation (RFC 7915).
        [0, 0, 0, 0, 0xffff, 0, high, low] => found.push(v4(high, low)),
        // A network's own NAT64 (RFC 8215), with each prefix length within 64:ff9b:1::/48. Bits 64
        // to 71 are not part of the address (RFC 6052 section 2.2).
        [0x64, 0xff9b, 1, d, e, f, high, low] => {
            let [_, d_low] = d.to_be_bytes();
            let [_, e_low] = e.to_be_bytes();
            let [f_high, f_low] = f.to_be_bytes();
            let [g_high, _] = high.to_be_bytes();
            let [d_high, _] = d.to_be_bytes();
            found.extend([
                v4(high, low),
                Ipv4Addr::new(d_high, d_low, e_low, f_high),
                Ipv4Addr::new(d_low, e_low, f_high, f_low),
                Ipv4Addr::new(e_low, f_high, f_low, g_high),
            ]);
        }
        // Teredo holds the client's address with all bits inverted (RFC 4380 section 4).
        [0x2001, 0, .., high, low] => found.push(v4(!high, !low)),
        _ => {}
    }
    // ISATAP below any prefix (RFC 5214 section 6.1).
    if let [_, _, _, _, 0 | 0x200, 0x5efe, high, low] = address.segments() {
        found.push(v4(high, low));
    }
    found.into_iter()
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    // Global unicast is exactly 2000::/3.
    let global = first & 0xe000 == 0x2000;
    // 2001::/23 is for protocols (Teredo among them), 2001:db8::/32 and 3fff::/20 for
    // documentation.
    let protocols = first == 0x2001 && second < 0x200;
    let documentation =
        (first == 0x2001 && second == 0xdb8) || (first == 0x3fff && second < 0x1000);
    global && !protocols && !documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        for text in [
            "1.1.1.1",
            "93.184.216.34",
            "2606:4700:4700::1111",
            "::ffff:8.8.8.8",
        ] {
            let address = text.parse().unwrap();
            assert!(is_public(address), "{text}");
            assert_eq!(AddressPolicy::Public.refusal(address), None, "{text}");
        }
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.5",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fec0::1",
            "ff02::1",
        ] {
            let address = text.parse().unwrap();
            let refusal = AddressPolicy::Public.refusal(address);
            assert_eq!(refusal, Some(Unfit::NotPublic), "{text}");
            for policy in [AddressPolicy::Private, AddressPolicy::Any] {
                assert_eq!(policy.refusal(address), None, "{text}");
            }
        }
    }

    /// Where private addresses were allowed, as in `henge dev`, a mirror read the credentials of
    /// the node's machine.
    #[test]
    fn metadata_is_refused_in_every_spelling() {
        for text in [
            "169.254.169.254",
            "169.254.0.1",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fe80::1",
            "fe80::a9fe:a9fe",
            "febf::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd00:42::42",
            "fd00:a9fe:a9fe::1",
            "fd00:c1::a9fe:a9fe",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::ffff:100.100.100.200",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            // The same behind prefixes of 48, 56 and 64 bits.
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:a9:fe:a9fe::",
            "64:ff9b:1:0:a9:fea9:fe00::",
            "2002:a9fe:a9fe::1",
            "2001:0:1::5601:5601",
            "2001:db8::5efe:169.254.169.254",
            "fd12::200:5efe:169.254.169.254",
        ] {
            let address = text.parse().unwrap();
            for policy in [AddressPolicy::Private, AddressPolicy::Public] {
                assert_eq!(policy.refusal(address), Some(Unfit::Metadata), "{text}");
            }
            assert_eq!(AddressPolicy::Any.refusal(address), None, "{text}");
        }
        // Neighbouring addresses.
        for text in [
            "169.253.255.255",
            "169.255.0.0",
            "100.100.100.201",
            "fec0::1",
            "fd00:ec3::254",
            "fd20:ce::255",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
        ] {
            let refusal = AddressPolicy::Private.refusal(text.parse().unwrap());
            assert_eq!(refusal, None, "{text}");
        }
    }
}
