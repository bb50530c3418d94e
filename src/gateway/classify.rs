//! A guest frame, parsed once: what it asks of the gateway, or the reason why it goes no further.
//!
//! Total over any bytes: no input panics, and none allocates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol,
    Ipv4Packet, Ipv6Packet, TcpOption, TcpPacket,
};

use super::datagram::DatagramHead;
use super::link::Link;
use super::ping::IcmpHead;
use super::policy;
use super::reassembly::Fragment;
use crate::metrics::DropReason;
use crate::wire::ETHERNET;

/// The port of a DHCP server (RFC 2131 section 4.1).
const DHCP_SERVER: u16 = 67;

/// A flow, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlowKey {
    pub(crate) guest: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// What a frame asks of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Who has the gateway's IPv4 address? The asker's addresses.
    Arp { mac: EthernetAddress, address: Ipv4Addr },
    /// An ICMPv6 message for the gateway or one of its groups; `packet` is where the IP packet ends.
    Icmpv6 { source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8, end: usize },
    /// An ICMPv4 message for the gateway, in a header without options.
    Icmpv4 { end: usize },
    /// A TCP segment.
    Tcp(Segment),
    /// An ICMP or ICMPv6 message for somebody beyond the gateway.
    Icmp(IcmpHead),
    /// A fragment of a packet that may go further once it is whole.
    Fragment(Fragment),
    /// A UDP datagram to carry on.
    Udp(DatagramHead),
    /// A datagram for the DHCP server, from any source: the guest may have no address yet, or that of
    /// another network. The server decides.
    Dhcp(DatagramHead),
}

/// What the gateway must know of a TCP segment before smoltcp has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) key: FlowKey,
    /// SYN without ACK: the guest opens a connection.
    pub(crate) opens: bool,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    /// Whether the guest asks to hand the data to its reader now.
    pub(crate) psh: bool,
    pub(crate) sequence: u32,
    pub(crate) payload: usize,
    /// Where the IP packet ends in the frame; padding follows.
    pub(crate) end: usize,
}

/// Parses one frame.
pub(crate) fn classify(frame: &[u8], link: &Link) -> Result<Verdict, DropReason> {
    let ethernet = EthernetFrame::new_checked(frame).map_err(|_| DropReason::Malformed)?;
    if ethernet.src_addr() != link.guest_mac {
        return Err(DropReason::SourceMac);
    }
    let to = ethernet.dst_addr();
    if to != link.gateway_mac && !to.is_multicast() && !to.is_broadcast() {
        return Err(DropReason::DestinationMac);
    }
    match ethernet.ethertype() {
        EthernetProtocol::Arp => arp(ethernet.payload(), link),
        EthernetProtocol::Ipv4 => ipv4(frame, ethernet.payload(), to, link),
        EthernetProtocol::Ipv6 => ipv6(frame, ethernet.payload(), to, link),
        EthernetProtocol::Unknown(_) => Err(DropReason::EtherType),
    }
}

/// Answers for the gateway's address alone. A probe for the guest's own address (RFC 5227) gets no
/// answer, or the guest would give its address up.
fn arp(packet: &[u8], link: &Link) -> Result<Verdict, DropReason> {
    let packet = ArpPacket::new_checked(packet).map_err(|_| DropReason::Malformed)?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).map_err(|_| DropReason::Malformed)?
    else {
        return Err(DropReason::Arp);
    };
    let from_guest = source_hardware_addr == link.guest_mac
        && (source_protocol_addr == link.guest_ipv4 || source_protocol_addr.is_unspecified());
    if operation != ArpOperation::Request
        || target_protocol_addr != link.gateway_ipv4
        || !from_guest
    {
        return Err(DropReason::Arp);
    }
    Ok(Verdict::Arp { mac: source_hardware_addr, address: source_protocol_addr })
}

fn ipv4(
    frame: &[u8],
    packet: &[u8],
    to: EthernetAddress,
    link: &Link,
) -> Result<Verdict, DropReason> {
    let ip = Ipv4Packet::new_checked(packet).map_err(|_| DropReason::Malformed)?;
    // RFC 1122 section 3.2.1.2. Offload leaves this checksum whole, unlike that of TCP.
    if ip.version() != 4 || !ip.verify_checksum() {
        return Err(DropReason::Malformed);
    }
    let (source, destination) = (ip.src_addr(), ip.dst_addr());
    let end = ETHERNET + usize::from(ip.total_len());
    let is_fragment = ip.more_frags() || ip.frag_offset() != 0;
    let datagram = || {
        DatagramHead::parse(
            frame,
            ETHERNET + usize::from(ip.header_len()),
            end,
            (source.into(), destination.into()),
            ip.hop_limit(),
            ip.dont_frag(),
        )
    };
    if ip.next_header() == IpProtocol::Udp
        && !is_fragment
        && (destination.is_broadcast()
            || destination == link.gateway_ipv4
                && (source.is_unspecified() || source == link.guest_ipv4))
        && let Ok(head) = datagram()
        && head.destination.port() == DHCP_SERVER
    {
        return Ok(Verdict::Dhcp(head));
    }
    if source != link.guest_ipv4 {
        return Err(DropReason::SourceAddress);
    }
    // A unicast destination in a group's frame, or the reverse, is nobody's honest traffic
    // (RFC 1122 section 3.3.6).
    if to != link.gateway_mac || !policy::is_forwardable_v4(destination, link) {
        return Err(DropReason::DestinationAddress);
    }
    if is_fragment {
        return Fragment::parse(frame).map(Verdict::Fragment);
    }
    match ip.next_header() {
        IpProtocol::Tcp => {
            let (source, destination) = (IpAddr::V4(source), IpAddr::V4(destination));
            tcp(ip.payload(), source, destination, end).map(Verdict::Tcp)
        }
        IpProtocol::Icmp if destination == link.gateway_ipv4 && ip.header_len() == 20 => {
            Ok(Verdict::Icmpv4 { end })
        }
        IpProtocol::Icmp => Ok(Verdict::Icmp(IcmpHead {
            source: source.into(),
            destination: destination.into(),
            message: ETHERNET + usize::from(ip.header_len())..end,
            hop_limit: ip.hop_limit(),
            dont_fragment: ip.dont_frag(),
        })),
        IpProtocol::Udp => datagram().map(Verdict::Udp),
        _ => Err(DropReason::Protocol),
    }
}

fn ipv6(
    frame: &[u8],
    packet: &[u8],
    to: EthernetAddress,
    link: &Link,
) -> Result<Verdict, DropReason> {
    let ip = Ipv6Packet::new_checked(packet).map_err(|_| DropReason::Malformed)?;
    if ip.version() != 6 {
        return Err(DropReason::Malformed);
    }
    let (source, destination) = (ip.src_addr(), ip.dst_addr());
    let end = ETHERNET + ip.total_len();
    if frame_is_short(packet, ip.total_len()) {
        return Err(DropReason::Malformed);
    }
    match ip.next_header() {
        IpProtocol::Icmpv6 if link.is_gateway_v6(destination) || destination.is_multicast() => {
            if !link.is_guest_v6(source) && !source.is_unspecified() {
                return Err(DropReason::SourceAddress);
            }
            Ok(Verdict::Icmpv6 { source, destination, hop_limit: ip.hop_limit(), end })
        }
        IpProtocol::Tcp | IpProtocol::Udp | IpProtocol::Icmpv6 | IpProtocol::Ipv6Frag => {
            // A router forwards nothing from a link-local source (RFC 4291 section 2.5.6).
            let forwarded = !link.is_gateway_v6(destination);
            if !link.is_guest_v6(source) || (forwarded && source.is_unicast_link_local()) {
                return Err(DropReason::SourceAddress);
            }
            if to != link.gateway_mac || !policy::is_forwardable_v6(destination, link) {
                return Err(DropReason::DestinationAddress);
            }
            let (source, destination) = (IpAddr::V6(source), IpAddr::V6(destination));
            let (at, hop_limit) = (ETHERNET + ip.header_len(), ip.hop_limit());
            match ip.next_header() {
                IpProtocol::Ipv6Frag => Fragment::parse(frame).map(Verdict::Fragment),
                IpProtocol::Icmpv6 => Ok(Verdict::Icmp(IcmpHead {
                    source,
                    destination,
                    message: at..end,
                    hop_limit,
                    dont_fragment: true,
                })),
                IpProtocol::Udp => {
                    let addresses = (source, destination);
                    DatagramHead::parse(frame, at, end, addresses, hop_limit, true)
                        .map(Verdict::Udp)
                }
                _ => tcp(ip.payload(), source, destination, end).map(Verdict::Tcp),
            }
        }
        IpProtocol::HopByHop
        | IpProtocol::Ipv6Route
        | IpProtocol::Ipv6Opts
        | IpProtocol::Ipv6NoNxt => Err(DropReason::ExtensionHeader),
        _ => Err(DropReason::Protocol),
    }
}

fn frame_is_short(packet: &[u8], total: usize) -> bool {
    packet.len() < total
}

fn tcp(
    packet: &[u8],
    source: IpAddr,
    destination: IpAddr,
    end: usize,
) -> Result<Segment, DropReason> {
    let tcp = TcpPacket::new_checked(packet).map_err(|_| DropReason::Malformed)?;
    if tcp.src_port() == 0 || tcp.dst_port() == 0 {
        return Err(DropReason::TcpFlags);
    }
    let (syn, ack, fin, rst) = (tcp.syn(), tcp.ack(), tcp.fin(), tcp.rst());
    // A SYN that also ends or resets, and a segment with no flag at all (RFC 9293 section 3.10.7.4:
    // everything but a SYN or an RST carries an ACK).
    if (syn && (fin || rst)) || !(syn || ack || rst) {
        return Err(DropReason::TcpFlags);
    }
    let header = usize::from(tcp.header_len());
    check_options(tcp.options())?;
    Ok(Segment {
        key: FlowKey {
            guest: SocketAddr::new(source, tcp.src_port()),
            remote: SocketAddr::new(destination, tcp.dst_port()),
        },
        opens: syn && !ack,
        syn,
        fin,
        rst,
        psh: tcp.psh(),
        sequence: tcp.seq_number().0 as u32,
        payload: packet.len().saturating_sub(header),
        end,
    })
}

fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    while !options.is_empty() {
        match TcpOption::parse(options) {
            Ok((_, TcpOption::EndOfList)) => return Ok(()),
            Ok((rest, _)) => options = rest,
            Err(_) => return Err(DropReason::Malformed),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
