//! What options take that no other type has a syntax for.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use framegate::{Dns, MacAddress};

/// An address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cidr<A> {
    pub(super) address: A,
    pub(super) prefix: u8,
}

impl<A: FromStr> FromStr for Cidr<A> {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let most = 8 * u8::try_from(size_of::<A>()).unwrap_or(u8::MAX);
        let parts = text.split_once('/');
        let (address, prefix) =
            parts.ok_or("an address and a prefix length, as in 100.96.0.2/30")?;
        let address = address.parse().map_err(|_| "not an address of this family")?;
        match prefix.parse() {
            Ok(prefix) if prefix <= most => Ok(Self { address, prefix }),
            _ => Err("not a prefix length"),
        }
    }
}

/// A number, in thousands with `k`, millions with `M`, or thousands of millions with `G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Amount(pub(super) u64);

impl FromStr for Amount {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match text.get(digits.len()..) {
            Some("") => 1,
            Some("k" | "K") => 1_000,
            Some("M") => 1_000_000,
            Some("G") => 1_000_000_000,
            _ => return Err("a number, or one with k, M or G, as in 20M"),
        };
        // parse would take a sign.
        let number = digits.bytes().all(|c| c.is_ascii_digit()).then(|| digits.parse::<u64>());
        match number {
            Some(Ok(number)) => number.checked_mul(factor).map(Self).ok_or("too large a number"),
            _ => Err("a number, or one with k, M or G, as in 20M"),
        }
    }
}

/// What `--dns` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DnsName {
    Server(SocketAddr),
    Other(Dns),
}

impl FromStr for DnsName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "host" => return Ok(Self::Other(Dns::Host)),
            "off" => return Ok(Self::Other(Dns::Off)),
            _ => {}
        }
        let server = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| (ip, 53).into()));
        server.map(Self::Server).map_err(|_| "an address, with a port or without, `host` or `off`")
    }
}

/// What `--dns-record` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DnsRecord {
    pub(super) name: String,
    pub(super) address: IpAddr,
}

impl FromStr for DnsRecord {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, address) =
            text.split_once('=').ok_or("a name and an address, as in db=10.0.0.1")?;
        let address = address.parse().map_err(|_| "not an IP address")?;
        Ok(Self { name: name.to_owned(), address })
    }
}

/// An Ethernet address in the usual notation, with colons or hyphens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mac(pub(super) MacAddress);

impl FromStr for Mac {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octet = |pair: &str| match pair.len() {
            // from_str_radix would take a sign.
            2 if pair.bytes().all(|c| c.is_ascii_hexdigit()) => u8::from_str_radix(pair, 16).ok(),
            _ => None,
        };
        let separator = if text.contains(':') { ':' } else { '-' };
        let octets: Option<Vec<u8>> = text.split(separator).map(octet).collect();
        octets
            .and_then(|octets| octets.try_into().ok())
            .map(Self)
            .ok_or("six hexadecimal pairs, as in 02:53:4d:00:00:02")
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn cidr_is_an_address_and_a_prefix() {
        let expected = Cidr { address: Ipv4Addr::new(10, 1, 2, 3), prefix: 24 };
        assert_eq!("10.1.2.3/24".parse(), Ok(expected));
        let expected = Cidr { address: Ipv6Addr::LOCALHOST, prefix: 128 };
        assert_eq!("::1/128".parse(), Ok(expected));
        for wrong in ["10.1.2.3", "10.1.2.3/33", "10.1.2.3/", "/24", "::1/64", "10.1.2/24", ""] {
            assert!(wrong.parse::<Cidr<Ipv4Addr>>().is_err(), "{wrong}");
        }
        for wrong in ["::1/129", "10.1.2.3/24", "::1/-1"] {
            assert!(wrong.parse::<Cidr<Ipv6Addr>>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn mac_is_six_pairs() {
        let expected = Mac([2, 0x53, 0x4d, 0, 0, 0xfe]);
        for right in ["02:53:4d:00:00:fe", "02-53-4D-00-00-FE"] {
            assert_eq!(right.parse(), Ok(expected));
        }
        for wrong in [
            "",
            "02:53:4d:00:00",
            "02:53:4d:00:00:02:03",
            "2:53:4d:0:0:2",
            "+2:53:4d:00:00:02",
            "02:53-4d:00:00:02",
            "02:53:4d:00:00:é",
        ] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn amounts_in_every_form() {
        for (right, number) in
            [("0", 0), ("17", 17), ("3k", 3_000), ("4M", 4_000_000), ("1G", 1_000_000_000)]
        {
            assert_eq!(right.parse(), Ok(Amount(number)));
        }
        for wrong in ["", "k", "-1", "+1", "1.5M", "1MB", "1 M", "99999999999G", "é"] {
            assert!(wrong.parse::<Amount>().is_err(), "{wrong}");
        }
    }
}
