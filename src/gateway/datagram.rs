//! A UDP datagram of the guest: what the gateway must know of it before it carries it on.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use smoltcp::wire::UdpPacket;

use crate::metrics::DropReason;

/// The headers of a datagram, and where its payload lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DatagramHead {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    /// The payload's place in the frame.
    pub(crate) payload: Range<usize>,
    /// The TTL, or hop limit, with which it came.
    pub(crate) hop_limit: u8,
    /// Nobody may fragment it. Always so for IPv6.
    pub(crate) dont_fragment: bool,
}

impl DatagramHead {
    /// Parses the datagram that lies at `at` in the frame and fills its IP packet to `end`. The checksum
    /// is not looked at: from the guest over a local socket it proves nothing, and with offload it is
    /// partial.
    pub(crate) fn parse(
        frame: &[u8],
        at: usize,
        end: usize,
        addresses: (IpAddr, IpAddr),
        hop_limit: u8,
        dont_fragment: bool,
    ) -> Result<Self, DropReason> {
        const HEADER: usize = 8;
        let packet = frame.get(at..end).ok_or(DropReason::Malformed)?;
        // A length field below 8 or beyond the packet. Bytes after it are nobody's.
        let udp = UdpPacket::new_checked(packet).map_err(|_| DropReason::Malformed)?;
        if udp.src_port() == 0 || udp.dst_port() == 0 {
            return Err(DropReason::UdpPort);
        }
        let (source, destination) = addresses;
        Ok(Self {
            source: SocketAddr::new(source, udp.src_port()),
            destination: SocketAddr::new(destination, udp.dst_port()),
            payload: at + HEADER..at + usize::from(udp.len()),
            hop_limit,
            dont_fragment,
        })
    }
}
