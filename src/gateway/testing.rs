//! What the unit tests of the gateway share: a link, the frames of an honest guest, and the gateway's
//! answer to one frame.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::iface::{Config as InterfaceConfig, Interface};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, NdiscRepr, TcpPacket, TcpSeqNumber,
};

use super::device::{Capabilities, Outlet};
use super::egress::Egress;
use super::flows::Turn;
use super::link::Link;
use super::network::Network;
use crate::config::{Builder, Dns};
use crate::metrics::{Counters, DropReason};
use crate::queues::NetworkFrameQueues;

pub(crate) const GUEST_MAC: [u8; 6] = [0x02, 0x53, 0x4d, 0, 0, 2];
pub(crate) const GATEWAY_MAC: [u8; 6] = [0x02, 0x53, 0x4d, 0, 0, 1];
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(100, 96, 0, 2);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(100, 96, 0, 1);
pub(crate) const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0x4d00, 0, 0, 0, 0, 0, 2);
pub(crate) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0x4d00, 0, 0, 0, 0, 0, 1);
/// Of the MAC address 02:53:4d:00:00:01.
pub(crate) const LINK_LOCAL: Ipv6Addr =
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0x0053, 0x4dff, 0xfe00, 0x0001);

/// The default link, without host loopback, whose consumer cuts.
pub(crate) fn link() -> Link {
    link_of(Builder::default(), true)
}

pub(crate) fn link_of(builder: Builder, cuts: bool) -> Link {
    Link::new(&builder.into_config_for_tests(), cuts)
}

/// What the gateway does with one frame: its replies, and the reason if it refused it.
pub(crate) fn answer(link: &Link, frame: &[u8]) -> (Vec<Vec<u8>>, Option<DropReason>) {
    answer_with(Builder::default(), link, frame)
}

/// As [`answer`], of a gateway that was configured in its own way.
pub(crate) fn answer_with(
    builder: Builder,
    link: &Link,
    frame: &[u8],
) -> (Vec<Vec<u8>>, Option<DropReason>) {
    let queues = NetworkFrameQueues::try_shared(64).unwrap();
    let counters = Counters::default();
    let poll = mio::Poll::new().unwrap();
    // No upstream: nothing may leave this process.
    let gateway = builder.dns(Dns::Servers(Vec::new())).into_config_for_tests();
    let config = InterfaceConfig::new(HardwareAddress::Ip);
    let interface = Interface::new(config, &mut Capabilities, Instant::ZERO);
    let mut network = Network::new(&gateway, interface);
    let mut outlet = Outlet::new(&queues, &counters);
    let mut egress = Egress::default();
    let mut turn = Turn {
        link,
        outlet: &mut outlet,
        registry: poll.registry(),
        counters: &counters,
        egress: &mut egress,
        now: Instant::ZERO,
    };
    network.handle(frame.to_vec(), &mut turn);
    drop(outlet);
    let mut replies = Vec::new();
    let mut drain = queues.drain_to_guest();
    while let Some(reply) = drain.pop() {
        replies.push(reply);
    }
    let stats = counters.snapshot();
    let mut drops = stats.drops();
    let reason = drops.next().map(|(reason, n)| {
        assert_eq!(n, 1, "a frame is counted once");
        reason
    });
    assert!(drops.next().is_none(), "a frame has one reason");
    (replies, reason)
}

/// The one reply to a frame that is not refused.
#[track_caller]
pub(crate) fn reply(link: &Link, frame: &[u8]) -> Vec<u8> {
    let (mut replies, reason) = answer(link, frame);
    assert_eq!(reason, None);
    assert_eq!(replies.len(), 1);
    replies.pop().unwrap()
}

/// The reason for a frame that gets no reply.
#[track_caller]
pub(crate) fn silence(link: &Link, frame: &[u8]) -> DropReason {
    let (replies, reason) = answer(link, frame);
    assert_eq!(replies, Vec::<Vec<u8>>::new());
    reason.unwrap()
}

/// A frame that is neither answered nor refused.
#[track_caller]
pub(crate) fn accepted(link: &Link, frame: &[u8]) {
    assert_eq!(answer(link, frame), (vec![], None));
}

fn ethernet(to: [u8; 6], ethertype: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [&to[..], &GUEST_MAC, &ethertype, packet].concat()
}

/// A segment: addresses by `to`, and by what the guest has of that family.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledges: u32,
    /// A multiple of four bytes.
    pub(crate) ip_options: Vec<u8>,
    /// A multiple of four bytes.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Tcp {
    pub(crate) fn to(address: impl Into<IpAddr>, flags: u8) -> Self {
        let address = address.into();
        let guest = if address.is_ipv4() { IpAddr::V4(GUEST) } else { IpAddr::V6(GUEST_V6) };
        Self {
            from: SocketAddr::new(guest, 40_000),
            to: SocketAddr::new(address, 80),
            flags,
            sequence: 1000,
            acknowledges: 5000,
            ip_options: vec![],
            options: vec![],
            payload: vec![],
        }
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut bytes = vec![0; header];
        bytes[20..].copy_from_slice(&self.options);
        bytes.extend_from_slice(&self.payload);
        let mut tcp = TcpPacket::new_unchecked(&mut bytes[..]);
        tcp.set_src_port(self.from.port());
        tcp.set_dst_port(self.to.port());
        tcp.set_seq_number(TcpSeqNumber(self.sequence as i32));
        tcp.set_ack_number(TcpSeqNumber(self.acknowledges as i32));
        tcp.set_header_len(header as u8);
        tcp.set_window_len(0xffff);
        bytes[13] = self.flags;
        let mut tcp = TcpPacket::new_unchecked(&mut bytes[..]);
        tcp.fill_checksum(&self.from.ip().into(), &self.to.ip().into());
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let ip = ipv4_header(from, to, IpProtocol::Tcp, &self.ip_options, bytes.len());
                ethernet(GATEWAY_MAC, [8, 0], &[ip, bytes].concat())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                ipv6_packet(from, to, IpProtocol::Tcp, 64, &bytes)
            }
            _ => panic!("two families"),
        }
    }
}

fn ipv4_header(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: IpProtocol,
    options: &[u8],
    body: usize,
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut bytes = vec![0; header];
    bytes[20..].copy_from_slice(options);
    let mut ip = Ipv4Packet::new_unchecked(&mut bytes[..]);
    ip.set_version(4);
    ip.set_header_len(header as u8);
    ip.set_total_len((header + body) as u16);
    ip.set_ident(0x1234);
    ip.set_dont_frag(true);
    ip.set_hop_limit(64);
    ip.set_next_header(protocol);
    ip.set_src_addr(from);
    ip.set_dst_addr(to);
    ip.fill_checksum();
    bytes
}

/// An IPv6 packet of the guest to the gateway's MAC address.
pub(crate) fn ipv6_packet(
    from: Ipv6Addr,
    to: Ipv6Addr,
    protocol: IpProtocol,
    hop_limit: u8,
    body: &[u8],
) -> Vec<u8> {
    let repr = Ipv6Repr {
        src_addr: from,
        dst_addr: to,
        next_header: protocol,
        payload_len: body.len(),
        hop_limit,
    };
    let mut bytes = vec![0; 40];
    repr.emit(&mut Ipv6Packet::new_unchecked(&mut bytes[..]));
    ethernet(GATEWAY_MAC, [0x86, 0xdd], &[&bytes, body].concat())
}

/// An ARP packet of the guest.
pub(crate) fn arp_packet(operation: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend_from_slice(&operation.to_be_bytes());
    packet.extend_from_slice(&GUEST_MAC);
    packet.extend_from_slice(&sender.octets());
    packet.extend_from_slice(&[0; 6]);
    packet.extend_from_slice(&target.octets());
    ethernet([0xff; 6], [8, 6], &packet)
}

/// An echo request of the guest.
pub(crate) fn echo(to: impl Into<IpAddr>, data: &[u8]) -> Vec<u8> {
    let caps = ChecksumCapabilities::default();
    match to.into() {
        IpAddr::V4(to) => {
            let icmp = Icmpv4Repr::EchoRequest { ident: 0xbeef, seq_no: 7, data };
            let ip = Ipv4Repr {
                src_addr: GUEST,
                dst_addr: to,
                next_header: IpProtocol::Icmp,
                payload_len: icmp.buffer_len(),
                hop_limit: 3,
            };
            let mut bytes = vec![0; 20 + icmp.buffer_len()];
            let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
            ip.emit(&mut packet, &caps);
            icmp.emit(&mut Icmpv4Packet::new_unchecked(packet.payload_mut()), &caps);
            ethernet(GATEWAY_MAC, [8, 0], &bytes)
        }
        IpAddr::V6(to) => {
            icmpv6(GUEST_V6, to, 3, &Icmpv6Repr::EchoRequest { ident: 0xbeef, seq_no: 7, data })
        }
    }
}

/// An ICMPv6 message of the guest.
pub(crate) fn icmpv6(
    from: Ipv6Addr,
    to: Ipv6Addr,
    hop_limit: u8,
    icmp: &Icmpv6Repr<'_>,
) -> Vec<u8> {
    let mut bytes = vec![0; icmp.buffer_len()];
    icmp.emit(
        &from,
        &to,
        &mut Icmpv6Packet::new_unchecked(&mut bytes[..]),
        &ChecksumCapabilities::default(),
    );
    ipv6_packet(from, to, IpProtocol::Icmpv6, hop_limit, &bytes)
}

/// Who has `target`? Asked from `from`; with the guest's link-layer address if `names_itself`.
pub(crate) fn solicitation(from: Ipv6Addr, target: Ipv6Addr, names_itself: bool) -> Vec<u8> {
    let low = u128::from(target) as u32 & 0x00ff_ffff;
    let group = Ipv6Addr::from(0xff02_0000_0000_0000_0000_0001_ff00_0000_u128 | u128::from(low));
    let lladdr = names_itself.then(|| EthernetAddress(GUEST_MAC).into());
    icmpv6(
        from,
        group,
        255,
        &Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: target, lladdr }),
    )
}

/// A UDP datagram of the guest from port 68 to a DHCP server, with a checksum of zero.
pub(crate) fn dhcp(to_mac: [u8; 6], from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len();
    let mut datagram = vec![0, 68, 0, 67];
    datagram.extend_from_slice(&(length as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    let ip = ipv4_header(from, to, IpProtocol::Udp, &[], length);
    ethernet(to_mac, [8, 0], &[ip, datagram].concat())
}

/// A DHCP message of the guest; `options` come with their end.
pub(crate) fn dhcp_message(ciaddr: Ipv4Addr, options: &[u8]) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0];
    message.extend_from_slice(&ciaddr.octets());
    message.extend_from_slice(&[0; 12]);
    message.extend_from_slice(&GUEST_MAC);
    message.resize(236, 0);
    message.extend_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    message.extend_from_slice(options);
    message
}

fn dhcp_discover() -> Vec<u8> {
    dhcp_message(Ipv4Addr::UNSPECIFIED, &[53, 1, 1, 61, 3, 1, 2, 3, 57, 2, 2, 64, 80, 0, 255])
}

/// Is there a router? Asked from `from`; with the guest's link-layer address if `names_itself`.
pub(crate) fn router_solicitation(from: Ipv6Addr, names_itself: bool) -> Vec<u8> {
    let lladdr = names_itself.then(|| EthernetAddress(GUEST_MAC).into());
    let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    icmpv6(from, to, 255, &Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr }))
}

/// One frame of every kind that the gateway accepts.
pub(crate) fn valid_frames() -> Vec<(&'static str, Vec<u8>)> {
    let remote: Ipv4Addr = [93, 184, 216, 34].into();
    let remote_v6: Ipv6Addr = "2001:db9::1".parse().unwrap();
    let syn_options = vec![2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
    vec![
        ("ARP", arp_packet(1, GUEST, GATEWAY)),
        ("ARP probe", arp_packet(1, Ipv4Addr::UNSPECIFIED, GATEWAY)),
        ("echo", echo(GATEWAY, b"abcdefgh")),
        ("echo over IPv6", echo(GATEWAY_V6, b"abcdefgh")),
        ("solicitation", solicitation(GUEST_V6, GATEWAY_V6, true)),
        ("duplicate address detection", solicitation(Ipv6Addr::UNSPECIFIED, GATEWAY_V6, false)),
        ("router solicitation", router_solicitation(GUEST_V6, true)),
        ("router solicitation without address", router_solicitation(Ipv6Addr::UNSPECIFIED, false)),
        ("DHCP", dhcp([0xff; 6], Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &dhcp_discover())),
        ("SYN", Tcp { options: syn_options.clone(), ..Tcp::to(remote, 2) }.frame()),
        ("SYN over IPv6", Tcp { options: syn_options, ..Tcp::to(remote_v6, 2) }.frame()),
        ("data", Tcp { payload: vec![7; 100], ..Tcp::to(remote, 0x18) }.frame()),
        (
            "data behind IP options",
            Tcp { ip_options: vec![1; 8], payload: vec![7; 10], ..Tcp::to(remote, 0x18) }.frame(),
        ),
        ("data over IPv6", Tcp { payload: vec![7; 100], ..Tcp::to(remote_v6, 0x18) }.frame()),
        ("FIN", Tcp::to(remote, 0x11).frame()),
        ("RST", Tcp::to(remote_v6, 4).frame()),
    ]
}
