//! Names that the gateway answers for itself, and no upstream ever hears of.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use domain::base::Name;
use domain::base::iana::{Class, Rtype};

use super::message::{Own, Question};

/// Everything under this name is the gateway's own.
pub(crate) const ZONE: &str = "framegate.internal";
/// The host, where the guest may reach its loopback through the gateway's address.
pub(crate) const HOST: &str = "host.framegate.internal";

/// What the gateway says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// It is none of the gateway's names.
    Elsewhere,
    /// The records of that name and type; there may be none.
    Found(Vec<Own>),
    /// There is no such name.
    NoName,
}

/// The gateway's own records.
#[derive(Debug, Default)]
pub(crate) struct Records {
    addresses: HashMap<String, Vec<IpAddr>>,
    /// The names of addresses, by the name in `in-addr.arpa` or `ip6.arpa`.
    names: HashMap<String, Name<Vec<u8>>>,
}

impl Records {
    /// Those that were given, and the host's at `host`.
    pub(crate) fn new(given: &[(String, IpAddr)], host: Option<(Ipv4Addr, Ipv6Addr)>) -> Self {
        let mut records = Self::default();
        for (name, address) in given {
            records.add(name, *address);
        }
        if let Some((v4, v6)) = host {
            records.add(HOST, v4.into());
            records.add(HOST, v6.into());
            if let Ok(name) = Name::from_str(HOST) {
                for address in [v4.into(), v6.into()] {
                    records.names.insert(reverse(address), name.clone());
                }
            }
        }
        records
    }

    fn add(&mut self, name: &str, address: IpAddr) {
        let addresses = self.addresses.entry(canonical(name)).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }

    pub(crate) fn look_up(&self, question: &Question) -> Lookup {
        let Question { name, qtype, qclass } = question;
        let is_ours = *qclass == Class::IN || *qclass == Class::ANY;
        let wants = |rtype| is_ours && (*qtype == rtype || *qtype == Rtype::ANY);
        if let Some(addresses) = self.addresses.get(name) {
            let found = addresses.iter().filter(|address| match address {
                IpAddr::V4(_) => wants(Rtype::A),
                IpAddr::V6(_) => wants(Rtype::AAAA),
            });
            return Lookup::Found(found.copied().map(Own::Address).collect());
        }
        if let Some(target) = self.names.get(name) {
            let found = wants(Rtype::PTR).then(|| Own::Name(target.clone()));
            return Lookup::Found(found.into_iter().collect());
        }
        if name == ZONE {
            return Lookup::Found(Vec::new());
        }
        let is_in_zone = name.strip_suffix(ZONE).is_some_and(|labels| labels.ends_with('.'));
        if is_in_zone { Lookup::NoName } else { Lookup::Elsewhere }
    }
}

/// Whether this is the name of a host (RFC 1123 section 2.1), underscores allowed.
pub(crate) fn is_host_name(name: &str) -> bool {
    let name = canonical(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The name that PTR records of an address have (RFC 1035 section 3.5, RFC 3596 section 2.5).
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles =
                address.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            let labels: String = nibbles.map(|nibble| format!("{nibble:x}.")).collect();
            labels + "ip6.arpa"
        }
    }
}

#[cfg(test)]
mod tests;
