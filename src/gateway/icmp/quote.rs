//! What an ICMP error quotes of a packet that is gone: the headers as the guest sent them, put together
//! again from what the host says of the error (RFC 5508 REQ-4: the guest sees its own addresses).

use std::net::{IpAddr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;

use crate::gateway::packet::{self, Echo, Upper};
use crate::wire::be16;

/// More of a payload is not quoted.
const DATA: usize = 512;

/// A packet of the guest. The identification, the options and the hop limit that it had on the wire are
/// not known any more; nothing finds its flow by them. Its checksum is right for what is quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quote<'p> {
    /// A datagram, from the guest's endpoint to the destination that the guest named. `data` is what the
    /// host gave back of the payload.
    Udp { source: SocketAddr, destination: SocketAddr, data: &'p [u8] },
    /// An echo request.
    Echo { source: IpAddr, destination: IpAddr, identifier: u16, sequence: u16, data: &'p [u8] },
}

impl Quote<'_> {
    /// The IP packet. `None` if the addresses are not of one family.
    pub(crate) fn packet(&self) -> Option<Vec<u8>> {
        let (source, destination, upper) = match *self {
            Self::Udp { source, destination, data } => {
                let upper = Upper::udp(source, destination, start(data))?;
                (source.ip(), destination.ip(), upper)
            }
            Self::Echo { source, destination, identifier, sequence, data } => {
                let data = start(data);
                let kind = Echo::Request;
                let upper = Upper::echo(kind, source, destination, identifier, sequence, data);
                (source, destination, upper)
            }
        };
        let ip = packet::header(source, destination, upper.protocol, upper.len())?;
        let mut bytes = vec![0; ip.buffer_len()];
        ip.emit(&mut bytes[..], &ChecksumCapabilities::default());
        upper.copy(0, bytes.get_mut(ip.header_len()..)?);
        Some(bytes)
    }
}

fn start(data: &[u8]) -> &[u8] {
    data.get(..DATA).unwrap_or(data)
}

/// Source and destination of the datagram that an ICMP error quotes.
pub(crate) fn quoted_datagram(message: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    const ICMP_HEADER: usize = 8;
    const UDP: u8 = 17;
    let packet = message.get(ICMP_HEADER..)?;
    let first = *packet.first()?;
    // The quote may end within the payload, so no length is looked at.
    let (source, destination, protocol, at): (IpAddr, IpAddr, _, _) = match first >> 4 {
        4 => {
            let address = |at| packet.get(at..)?.first_chunk::<4>().copied().map(IpAddr::from);
            (address(12)?, address(16)?, *packet.get(9)?, usize::from(first & 0x0f) * 4)
        }
        6 => {
            let address = |at| packet.get(at..)?.first_chunk::<16>().copied().map(IpAddr::from);
            (address(8)?, address(24)?, *packet.get(6)?, 40)
        }
        _ => return None,
    };
    let ports = (be16(packet, at)?, be16(packet, at + 2)?);
    (protocol == UDP)
        .then(|| (SocketAddr::new(source, ports.0), SocketAddr::new(destination, ports.1)))
}
