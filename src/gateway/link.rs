//! The two ends of the link: who the guest is, who the gateway is, and how large a frame may be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::EthernetAddress;

use super::dns::Reach;
use super::icmp::ErrorLimit;
use super::packet::Identification;
use crate::config::Config;

/// The addresses and sizes of one link.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) guest_mac: EthernetAddress,
    pub(crate) gateway_mac: EthernetAddress,
    pub(crate) guest_ipv4: Ipv4Addr,
    pub(crate) gateway_ipv4: Ipv4Addr,
    pub(crate) ipv4_prefix: u8,
    /// Where published ports lead; the guest may have others.
    pub(crate) guest_ipv6: Ipv6Addr,
    pub(crate) gateway_ipv6: Ipv6Addr,
    /// The gateway's link-local address, by EUI-64 of its MAC address (RFC 4291 appendix A).
    pub(crate) gateway_link_local: Ipv6Addr,
    ipv6_prefix: u128,
    ipv6_mask: u128,
    /// The guest's MTU, in bytes.
    pub(crate) mtu: u16,
    /// Whether the consumer of `host_to_guest` cuts super-segments; the bridge's writer does.
    pub(crate) cuts: bool,
    /// How much a super-segment of a new flow may hold, in bytes: more would be a burst on a slow link.
    pub(crate) super_segment: usize,
    pub(crate) host_loopback: bool,
    dns: Reach,
    pub(crate) identification: Identification,
    pub(crate) icmp_errors: ErrorLimit,
}

impl Link {
    pub(crate) fn new(config: &Config, cuts: bool) -> Self {
        let ipv6_mask = u128::MAX.checked_shl(128 - u32::from(config.ipv6_prefix)).unwrap_or(0);
        Self {
            guest_mac: EthernetAddress(config.guest_mac),
            gateway_mac: EthernetAddress(config.gateway_mac),
            guest_ipv4: config.guest_ipv4,
            gateway_ipv4: config.gateway_ipv4,
            ipv4_prefix: config.ipv4_prefix,
            guest_ipv6: config.guest_ipv6,
            gateway_ipv6: config.gateway_ipv6,
            gateway_link_local: link_local(config.gateway_mac),
            ipv6_prefix: u128::from(config.gateway_ipv6) & ipv6_mask,
            ipv6_mask,
            mtu: config.mtu,
            cuts,
            super_segment: usize::MAX,
            host_loopback: config.host_loopback,
            dns: Reach::of(config),
            identification: Identification::default(),
            icmp_errors: ErrorLimit::default(),
        }
    }

    /// Whether the guest may use this address: any of its prefix but the gateway's, since SLAAC and
    /// privacy extensions choose within it, and any link-local one.
    pub(crate) fn is_guest_v6(&self, address: Ipv6Addr) -> bool {
        !self.is_gateway_v6(address) && (self.in_prefix(address) || address.is_unicast_link_local())
    }

    pub(crate) fn is_gateway_v6(&self, address: Ipv6Addr) -> bool {
        address == self.gateway_ipv6 || address == self.gateway_link_local
    }

    /// Whether the DNS forwarder answers at this address and port.
    pub(crate) fn serves_dns(&self, destination: SocketAddr) -> bool {
        let is_gateway = match destination.ip() {
            IpAddr::V4(address) => address == self.gateway_ipv4,
            IpAddr::V6(address) => self.is_gateway_v6(address),
        };
        self.dns.serves(destination, is_gateway)
    }

    pub(crate) fn in_prefix(&self, address: Ipv6Addr) -> bool {
        u128::from(address) & self.ipv6_mask == self.ipv6_prefix
    }

    /// The guest's IPv6 prefix, and its length.
    pub(crate) fn prefix_v6(&self) -> (Ipv6Addr, u8) {
        (Ipv6Addr::from(self.ipv6_prefix), self.ipv6_mask.count_ones() as u8)
    }

    /// Whether the address lies in the guest's IPv4 subnet, as its network and broadcast address do.
    pub(crate) fn in_subnet(&self, address: Ipv4Addr) -> bool {
        let host_bits = u32::MAX.checked_shr(u32::from(self.ipv4_prefix)).unwrap_or(0);
        (u32::from(address) ^ u32::from(self.gateway_ipv4)) & !host_bits == 0
    }

    /// The largest TCP payload of a segment without options that the guest's MTU allows.
    pub(crate) fn mss(&self, ipv6: bool) -> u16 {
        self.mtu - if ipv6 { 60 } else { 40 }
    }
}

fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
}
