//! RST for a segment that belongs to no flow, or for a SYN that was refused (RFC 9293 section 3.10.7.1).

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpProtocol, IpRepr, Ipv4Repr, Ipv6Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::classify::Segment;
use super::device::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, write_header};
use super::link::Link;
use crate::wire::{self, ETHERNET};

/// The reset that answers `segment`, whose frame is `offending`, built in `buffer`. `None` for a
/// segment that is a reset itself.
pub(crate) fn reset_for(
    mut frame: Vec<u8>,
    link: &Link,
    offending: &[u8],
    segment: &Segment,
) -> Option<Vec<u8>> {
    if segment.rst {
        return None;
    }
    let layout = wire::tcp_layout(offending)?;
    let tcp = TcpPacket::new_checked(offending.get(layout.tcp..layout.end)?).ok()?;
    let acknowledged = tcp.ack().then(|| tcp.ack_number());
    let length = segment.payload + usize::from(tcp.syn()) + usize::from(tcp.fin());
    let reset = TcpRepr {
        src_port: segment.key.remote.port(),
        dst_port: segment.key.guest.port(),
        control: TcpControl::Rst,
        seq_number: acknowledged.unwrap_or(TcpSeqNumber(0)),
        ack_number: acknowledged.is_none().then(|| tcp.seq_number() + length),
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = match (segment.key.remote.ip(), segment.key.guest.ip()) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => IpRepr::Ipv4(Ipv4Repr {
            src_addr,
            dst_addr,
            next_header: IpProtocol::Tcp,
            payload_len: reset.buffer_len(),
            hop_limit: 64,
        }),
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => IpRepr::Ipv6(Ipv6Repr {
            src_addr,
            dst_addr,
            next_header: IpProtocol::Tcp,
            payload_len: reset.buffer_len(),
            hop_limit: 64,
        }),
        _ => return None,
    };
    frame.clear();
    frame.resize(ETHERNET + ip.header_len() + reset.buffer_len(), 0);
    let (header, packet) = frame.split_at_mut_checked(ETHERNET)?;
    write_header(header, link, if layout.ipv6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 });
    let caps = ChecksumCapabilities::default();
    ip.emit(&mut *packet, &caps);
    reset.emit(
        &mut TcpPacket::new_unchecked(packet.get_mut(ip.header_len()..)?),
        &ip.src_addr(),
        &ip.dst_addr(),
        &caps,
    );
    Some(frame)
}

#[cfg(test)]
mod tests;
