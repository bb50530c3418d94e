//! RST for a segment that belongs to no flow, or for a SYN that was refused (RFC 9293 section 3.10.7.1).

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::classify::Segment;
use super::link::Link;
use super::packet;
use crate::wire;

/// The reset that answers `segment`, whose frame is `offending`, built in `buffer`. `None` for a
/// segment that is a reset itself.
pub(crate) fn reset_for(
    frame: Vec<u8>,
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
    let (source, destination) = (segment.key.remote.ip(), segment.key.guest.ip());
    let ip = packet::header(source, destination, IpProtocol::Tcp, reset.buffer_len())?;
    packet::build(frame, link, &ip, |payload| {
        let mut segment = TcpPacket::new_unchecked(payload);
        let caps = ChecksumCapabilities::default();
        reset.emit(&mut segment, &ip.src_addr(), &ip.dst_addr(), &caps);
    })
}

#[cfg(test)]
mod tests;
