//! What an IPv6 address may stand for: the ways in which one carries an IPv4 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address, as one of the things that it may mean: by itself, and as the IPv4 address in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meaning {
    pub(crate) address: IpAddr,
    pub(crate) embedded: Option<Ipv4Addr>,
}

/// Everything that the address may mean; there is one at least. A rule matches a meaning if it matches the
/// address or the embedded one, and a destination is allowed only if each of its meanings is.
///
/// | form | meanings |
/// |---|---|
/// | IPv4-mapped and -compatible (RFC 4291 section 2.5.5), IPv4-translated (RFC 2765) | the IPv4 address |
/// | NAT64, `64:ff9b::/96` (RFC 6052) | the IPv4 address |
/// | NAT64, `64:ff9b:1::/48` (RFC 8215) | the four places that the prefix's length can give: 48, 56, 64, 96 |
/// | 6to4, `2002::/16` (RFC 3056) | the IPv4 address |
/// | Teredo, `2001::/32` (RFC 4380) | the client, which is written inverted, and the server |
/// | ISATAP, `…:[02]00:5efe:a.b.c.d` (RFC 5214) | the IPv4 address, and the IPv6 address alone: the form proves nothing about the prefix |
pub(crate) fn meanings(address: IpAddr) -> impl Iterator<Item = Meaning> {
    let (by_itself, embedded) = match address {
        IpAddr::V4(_) => (true, [None; 4]),
        IpAddr::V6(address) => {
            let embedded = embedded_v4(address);
            (embedded == [None; 4] || is_isatap(address), embedded)
        }
    };
    let alone = by_itself.then_some(Meaning { address, embedded: None });
    let others = embedded.into_iter().flatten();
    alone
        .into_iter()
        .chain(others.map(move |embedded| Meaning { address, embedded: Some(embedded) }))
}

/// Mapped and compatible addresses, which a socket would take for IPv4; and the unspecified and loopback
/// addresses among them.
pub(crate) fn is_v4_in_v6(address: Ipv6Addr) -> bool {
    let upper = u128::from(address) >> 32;
    upper == 0xffff || upper == 0
}

fn is_isatap(address: Ipv6Addr) -> bool {
    // The universal bit of the interface identifier says whether the IPv4 address is a global one.
    matches!(address.segments(), [_, _, _, _, 0 | 0x200, 0x5efe, _, _])
}

/// The IPv4 addresses that this address may stand for.
pub(crate) fn embedded_v4(address: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    // The ninth octet, between `h` and `j`, is zero in every form of RFC 6052.
    let [.., e, f, g, h, _, j, k, l, m, n, o, p] = address.octets();
    let last = Some(Ipv4Addr::new(m, n, o, p));
    match address.segments() {
        _ if is_v4_in_v6(address) => [last, None, None, None],
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => [last, None, None, None],
        [0x64, 0xff9b, 1, ..] => [
            last,
            Some(Ipv4Addr::new(g, h, j, k)),
            Some(Ipv4Addr::new(h, j, k, l)),
            Some(Ipv4Addr::new(j, k, l, m)),
        ],
        [0x2002, high, low, ..] => {
            let bits = u32::from(high) << 16 | u32::from(low);
            [Some(Ipv4Addr::from(bits)), None, None, None]
        }
        [0x2001, 0, ..] => {
            [Some(Ipv4Addr::new(!m, !n, !o, !p)), Some(Ipv4Addr::new(e, f, g, h)), None, None]
        }
        _ if is_isatap(address) => [last, None, None, None],
        _ => [None; 4],
    }
}
