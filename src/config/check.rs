//! Whether a configuration contradicts itself.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::{Config, Dns, Limits, MacAddress, Offload};
use crate::error::ConfigError;
use crate::gateway::{self, is_host_name};

/// The first contradiction found.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let most = if config.offload == Offload::Jumbo { 65_520 } else { 1500 };
    if !(1280..=most).contains(&config.mtu) {
        return Err(ConfigError::Mtu(config.mtu));
    }
    let unicast = |mac: MacAddress| mac[0] & 1 == 0 && mac != [0; 6];
    if !unicast(config.guest_mac)
        || !unicast(config.gateway_mac)
        || config.guest_mac == config.gateway_mac
    {
        return Err(ConfigError::Mac);
    }
    check_ipv4(config)?;
    check_ipv6(config)?;
    check_services(config)?;
    config.policy.check().map_err(ConfigError::Policy)?;
    check_dns(config)?;
    if !(60..u64::from(u32::MAX)).contains(&config.dhcp_lease.as_secs()) {
        return Err(ConfigError::Limit("dhcp_lease"));
    }
    check_limits(&config.limits)
}

fn check_ipv4(config: &Config) -> Result<(), ConfigError> {
    let (guest, gateway) = (u32::from(config.guest_ipv4), u32::from(config.gateway_ipv4));
    if !(1..=30).contains(&config.ipv4_prefix) || guest == gateway {
        return Err(ConfigError::Ipv4);
    }
    let host_bits = u32::MAX >> config.ipv4_prefix;
    let is_host = |address: u32| address & host_bits != 0 && address & host_bits != host_bits;
    let usable = |address: Ipv4Addr| {
        !address.is_loopback() && !address.is_multicast() && !address.is_unspecified()
    };
    if guest & !host_bits != gateway & !host_bits
        || ![guest, gateway].into_iter().all(is_host)
        || ![config.guest_ipv4, config.gateway_ipv4].into_iter().all(usable)
    {
        return Err(ConfigError::Ipv4);
    }
    Ok(())
}

fn check_ipv6(config: &Config) -> Result<(), ConfigError> {
    let (guest, gateway) = (u128::from(config.guest_ipv6), u128::from(config.gateway_ipv6));
    if !(1..=126).contains(&config.ipv6_prefix) || guest == gateway {
        return Err(ConfigError::Ipv6);
    }
    let host_bits = u128::MAX >> config.ipv6_prefix;
    let usable = |address: Ipv6Addr| {
        !address.is_loopback()
            && !address.is_multicast()
            && !address.is_unspecified()
            && !address.is_unicast_link_local()
            && address.to_ipv4_mapped().is_none()
    };
    if guest & !host_bits != gateway & !host_bits
        || ![config.guest_ipv6, config.gateway_ipv6].into_iter().all(usable)
    {
        return Err(ConfigError::Ipv6);
    }
    Ok(())
}

fn check_services(config: &Config) -> Result<(), ConfigError> {
    let mut taken = HashSet::new();
    let addresses = config.services.iter().map(|(address, _)| *address);
    let mut wrong = addresses.filter(|address| {
        address.port() == 0 || !gateway::can_serve(config, address.ip()) || !taken.insert(*address)
    });
    match wrong.next() {
        Some(address) => Err(ConfigError::Service(address)),
        None => Ok(()),
    }
}

fn check_dns(config: &Config) -> Result<(), ConfigError> {
    if matches!(&config.dns, Dns::Servers(servers) if servers.is_empty()) {
        return Err(ConfigError::Dns("no server".to_owned()));
    }
    match config.dns_records.iter().find(|(name, _)| !is_host_name(name)) {
        Some((name, _)) => Err(ConfigError::Dns(format!("{name:?} is no host name"))),
        None => Ok(()),
    }
}

fn check_limits(limits: &Limits) -> Result<(), ConfigError> {
    let bounds: [(&'static str, bool); 10] = [
        ("tcp_flows", (1..=1 << 20).contains(&limits.tcp_flows)),
        ("tcp_half_open", (1..=limits.tcp_flows).contains(&limits.tcp_half_open)),
        ("tcp_window", (1 << 16..=4 << 20).contains(&limits.tcp_window)),
        ("tcp_connect", limits.tcp_connect > Duration::ZERO),
        ("relay_threads", (1..=1 << 12).contains(&limits.relay_threads)),
        ("dns_queries", (1..=1 << 16).contains(&limits.dns_queries)),
        ("udp_mappings", (1..=1 << 16).contains(&limits.udp_mappings)),
        ("ping_mappings", (1..=1 << 16).contains(&limits.ping_mappings)),
        ("queue_frames", (1..=1 << 16).contains(&limits.queue_frames)),
        ("queue_bytes", (1 << 17..=1 << 30).contains(&limits.queue_bytes)),
    ];
    match bounds.into_iter().find(|(_, holds)| !holds) {
        Some((name, _)) => Err(ConfigError::Limit(name)),
        None => Ok(()),
    }
}
