//! The guest finds out who it is: DHCP, a router advertisement, ARP, and whether the gateway is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp;
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress,
    Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Cidr, NdiscRepr,
};

use super::super::guest::packets::{self, Packet, echo};
use super::super::guest::raw::eui64;
use super::super::guest::{Fault, Guest, Next};
use super::{Lab, Mac, Short, at};

/// The options that every guest wants (RFC 2132): mask, router, resolver, MTU, lease time, server, and
/// when to renew and to rebind.
const OPTIONS: [u8; 8] = [1, 3, 6, 26, 51, 54, 58, 59];
const MTU: u8 = 26;

/// A lease: discover, offer, request, acknowledgement.
pub(super) fn dhcp(lab: &mut Lab) -> Result<String, Fault> {
    let guest = &mut lab.guest;
    let began = Instant::now();
    let offer = converse(guest, DhcpMessageType::Discover, None)?;
    let lease = converse(guest, DhcpMessageType::Request, Some((offer.address, offer.server)))?;
    let took = began.elapsed();
    if (offer.kind, lease.kind) != (DhcpMessageType::Offer, DhcpMessageType::Ack) {
        return Err(format!("the server answered {:?} and {:?}", offer.kind, lease.kind).into());
    }
    if let Some(missing) = OPTIONS.into_iter().find(|option| !lease.options.contains(option)) {
        return Err(format!("the lease is without option {missing}").into());
    }
    if lease.resolver != Some(lease.router) {
        return Err(format!("the resolver is {:?}, not the gateway", lease.resolver).into());
    }
    guest.set_ipv4(lease.address, lease.router)?;
    Ok(format!(
        "{} for {} h, MTU {}, {} options, {}",
        lease.address,
        lease.seconds / 3600,
        lease.mtu,
        OPTIONS.len(),
        Short(took)
    ))
}

struct Answer {
    kind: DhcpMessageType,
    address: Ipv4Cidr,
    router: Ipv4Addr,
    resolver: Option<Ipv4Addr>,
    server: Ipv4Addr,
    seconds: u32,
    mtu: u16,
    options: Vec<u8>,
}

fn converse(
    guest: &mut Guest,
    message_type: DhcpMessageType,
    offer: Option<(Ipv4Cidr, Ipv4Addr)>,
) -> Result<Answer, Fault> {
    const XID: u32 = 0x6672_616d;
    let question = DhcpRepr {
        message_type,
        transaction_id: XID,
        secs: 0,
        client_hardware_address: EthernetAddress(guest.mac()),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: offer.map(|(address, _)| address.address()),
        client_identifier: Some(EthernetAddress(guest.mac())),
        server_identifier: offer.map(|(_, server)| server),
        parameter_request_list: Some(&OPTIONS),
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut bytes = vec![0; question.buffer_len()];
    question.emit(&mut DhcpPacket::new_unchecked(&mut bytes))?;
    let from = (Ipv4Addr::UNSPECIFIED, DHCP_CLIENT_PORT).into();
    let to = (Ipv4Addr::BROADCAST, DHCP_SERVER_PORT).into();
    guest.send(&packets::udp(from, to, &bytes)?)?;
    let (_, answer) = guest.datagram(DHCP_CLIENT_PORT)?;
    let packet = DhcpPacket::new_checked(answer.as_slice())?;
    let repr = DhcpRepr::parse(&packet)?;
    if repr.transaction_id != XID {
        return Err("the server answered somebody else".into());
    }
    let mtu = packet.options().find(|option| option.kind == MTU).map(|option| option.data);
    let prefix = repr.subnet_mask.ok_or("no subnet mask")?.to_bits().count_ones();
    Ok(Answer {
        kind: repr.message_type,
        address: Ipv4Cidr::new(repr.your_ip, u8::try_from(prefix)?),
        router: repr.router.ok_or("no router")?,
        resolver: repr.dns_servers.and_then(|servers| servers.first().copied()),
        server: repr.server_identifier.ok_or("no server identifier")?,
        seconds: repr.lease_duration.ok_or("no lease time")?,
        mtu: u16::from_be_bytes(mtu.ok_or("no MTU")?.try_into()?),
        options: packet.options().map(|option| option.kind).collect(),
    })
}

/// The prefix of the link, of which the guest makes its own address, the resolver and the MTU.
pub(super) fn router(lab: &mut Lab) -> Result<String, Fault> {
    const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    let guest = &mut lab.guest;
    let mac = guest.mac();
    let from = eui64(LINK_LOCAL, mac);
    let question =
        Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: Some(EthernetAddress(mac).into()) });
    let mut bytes = vec![0; question.buffer_len()];
    question.emit(
        &from,
        &ALL_ROUTERS,
        &mut Icmpv6Packet::new_unchecked(bytes.as_mut_slice()),
        &ChecksumCapabilities::default(),
    );
    let began = Instant::now();
    // A hop limit of 255 says that it comes from this link (RFC 4861 section 6.1.1).
    guest.send(&packets::ip_with_hop_limit(
        from.into(),
        ALL_ROUTERS.into(),
        IpProtocol::Icmpv6,
        255,
        &bytes,
    )?)?;
    let heard = guest.packets(|packet| Ok(Advertisement::parse(packet)))?;
    let took = began.elapsed();
    let address = eui64(heard.prefix, mac);
    guest.set_ipv6(address, heard.prefix_len, heard.resolver)?;
    let route = if heard.is_default_route { "routed" } else { "not routed" };
    Ok(format!(
        "{}/{}, resolver, MTU {}, {route}, {}",
        heard.prefix,
        heard.prefix_len,
        heard.mtu,
        Short(took)
    ))
}

struct Advertisement {
    prefix: Ipv6Addr,
    prefix_len: u8,
    mtu: u32,
    resolver: Ipv6Addr,
    is_default_route: bool,
}

impl Advertisement {
    fn parse(packet: &Packet) -> Option<Self> {
        /// Type, code, checksum, hop limit, flags and three times before the options.
        const OPTIONS: usize = 16;
        const RDNSS: u8 = 25;
        let (IpAddr::V6(from), IpAddr::V6(to)) = (packet.from, packet.to) else { return None };
        if packet.protocol != IpProtocol::Icmpv6 {
            return None;
        }
        let message = Icmpv6Packet::new_checked(packet.payload.as_slice()).ok()?;
        let parsed =
            Icmpv6Repr::parse(&from, &to, &message, &ChecksumCapabilities::default()).ok()?;
        let Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
            router_lifetime, mtu, prefix_info, ..
        }) = parsed
        else {
            return None;
        };
        let prefix = prefix_info?;
        let mut options = packet.payload.get(OPTIONS..)?;
        let mut resolver = None;
        while let [kind, units, ..] = options {
            let (option, rest) = options.split_at_checked(8 * usize::from(*units).max(1))?;
            if *kind == RDNSS {
                resolver = <[u8; 16]>::try_from(option.get(8..24)?).ok();
            }
            options = rest;
        }
        Some(Self {
            prefix: prefix.prefix,
            prefix_len: prefix.prefix_len,
            mtu: mtu?,
            resolver: resolver?.into(),
            is_default_route: router_lifetime.total_millis() > 0,
        })
    }
}

/// The gateway has a MAC address, and says so.
pub(super) fn arp(lab: &mut Lab) -> Result<String, Fault> {
    let began = Instant::now();
    let mac = lab.guest.ask_for_gateway()?;
    Ok(format!("gateway is {} after {}", Mac(mac), Short(began.elapsed())))
}

/// The gateway answers echo requests, and with their payload.
pub(super) fn ping(lab: &mut Lab, family: IpAddr) -> Result<String, Fault> {
    const REQUESTS: u16 = 5;
    const IDENT: u16 = 0x6667;
    let guest = &mut lab.guest;
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4 << 10]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(icmp::Endpoint::Ident(IDENT))?;
    let socket = guest.add(socket);
    let (us, gateway) = (guest.address(family), guest.gateway(family));
    let mut times = Vec::new();
    for number in 0..REQUESTS {
        let payload: Vec<u8> = (0..56).map(|i| i + number as u8).collect();
        let request = echo(us, gateway, true, IDENT, number, &payload)?;
        let reply = echo(gateway, us, false, IDENT, number, &payload)?;
        let began = Instant::now();
        let mut sent = false;
        guest.until(socket, |socket: &mut icmp::Socket<'_>| {
            if !sent {
                socket.send_slice(&request, gateway.into())?;
                sent = true;
            }
            match socket.recv() {
                Ok((message, from)) if message == reply && from == gateway.into() => {
                    Ok(Next::Done(()))
                }
                Ok((message, from)) => Err(format!("{from} replied {message:02x?}").into()),
                Err(_) => Ok(Next::Wait),
            }
        })?;
        times.push(began.elapsed());
    }
    guest.remove(socket);
    times.sort_unstable();
    Ok(format!("{REQUESTS} of {REQUESTS} echoed, median {}", Short(at(&times, 50))))
}
