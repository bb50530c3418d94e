//! The guest's frames.

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

use super::{REMOTE_V4, REMOTE_V6, Rig};
use crate::gateway::device::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};

impl Rig {
    /// A frame of the guest around a segment.
    pub(super) fn frame(&self, segment: &[u8]) -> Vec<u8> {
        let guest = self.config.guest_mac;
        let ethertype = if self.ipv6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
        let mut frame = [&self.config.gateway_mac[..], &guest[..], &ethertype[..]].concat();
        if self.ipv6 {
            let mut header = [0; 40];
            let mut ip = Ipv6Packet::new_unchecked(&mut header[..]);
            ip.set_version(6);
            ip.set_payload_len(u16::try_from(segment.len()).unwrap_or(u16::MAX));
            ip.set_hop_limit(64);
            ip.set_next_header(IpProtocol::Tcp);
            ip.set_src_addr(self.config.guest_ipv6);
            ip.set_dst_addr(REMOTE_V6);
            frame.extend_from_slice(&header);
        } else {
            let mut header = [0; 20];
            let mut ip = Ipv4Packet::new_unchecked(&mut header[..]);
            ip.set_version(4);
            ip.set_header_len(20);
            ip.set_total_len(u16::try_from(20 + segment.len()).unwrap_or(u16::MAX));
            ip.set_hop_limit(64);
            ip.set_next_header(IpProtocol::Tcp);
            ip.set_src_addr(self.config.guest_ipv4);
            ip.set_dst_addr(REMOTE_V4);
            ip.fill_checksum();
            frame.extend_from_slice(&header);
        }
        frame.extend_from_slice(segment);
        frame
    }
}
