//! A reply on the wire.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, EthernetAddress, EthernetFrame, IpProtocol, Ipv4Packet,
    Ipv4Repr, UdpPacket, UdpRepr,
};

use super::DhcpReply;
use crate::gateway::device::{ETHERTYPE_IPV4, write_header};
use crate::gateway::link::Link;
use crate::wire::ETHERNET;

const HOP_LIMIT: u8 = 64;
const UDP: UdpRepr = UdpRepr { src_port: DHCP_SERVER_PORT, dst_port: DHCP_CLIENT_PORT };

/// The frame that carries a reply, built in `frame`. It fits every MTU.
pub(crate) fn frame(mut frame: Vec<u8>, link: &Link, reply: &DhcpReply) -> Vec<u8> {
    let caps = ChecksumCapabilities::default();
    let ip = Ipv4Repr {
        src_addr: link.gateway_ipv4,
        dst_addr: reply.destination,
        next_header: IpProtocol::Udp,
        payload_len: UDP.header_len() + reply.payload.len(),
        hop_limit: HOP_LIMIT,
    };
    frame.clear();
    frame.resize(ETHERNET + ip.buffer_len() + ip.payload_len, 0);
    let (header, packet) = frame.split_at_mut(ETHERNET);
    write_header(header, link, ETHERTYPE_IPV4);
    let mut packet = Ipv4Packet::new_unchecked(packet);
    ip.emit(&mut packet, &caps);
    UDP.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &ip.src_addr.into(),
        &ip.dst_addr.into(),
        reply.payload.len(),
        |payload| payload.copy_from_slice(&reply.payload),
        &caps,
    );
    if reply.destination.is_broadcast() {
        EthernetFrame::new_unchecked(&mut frame[..]).set_dst_addr(EthernetAddress::BROADCAST);
    }
    frame
}
