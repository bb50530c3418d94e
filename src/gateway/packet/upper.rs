//! What follows the IP header in UDP and in ICMP echo: eight bytes of header, and the data.

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::IpProtocol;

use crate::wire::{checksum, put16};

/// The header of UDP, and that of an ICMP echo message.
pub(crate) const UPPER_HEADER: usize = 8;

/// Whether an echo message asks or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    Request,
    Reply,
}

/// A datagram or an echo message with a full checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upper<'p> {
    pub(crate) protocol: IpProtocol,
    header: [u8; UPPER_HEADER],
    data: &'p [u8],
}

impl<'p> Upper<'p> {
    /// A datagram. `None` if its length field does not hold so many bytes.
    pub(crate) fn udp(source: SocketAddr, destination: SocketAddr, data: &'p [u8]) -> Option<Self> {
        let length = u16::try_from(UPPER_HEADER + data.len()).ok()?;
        let mut header = [0; UPPER_HEADER];
        put16(&mut header, 0, source.port());
        put16(&mut header, 2, destination.port());
        put16(&mut header, 4, length);
        let mut upper = Self { protocol: IpProtocol::Udp, header, data };
        // Zero would say that there is none (RFC 768), which IPv6 forbids (RFC 8200 section 8.1).
        let checksum = match upper.checksum(source.ip(), destination.ip()) {
            0 => 0xffff,
            checksum => checksum,
        };
        put16(&mut upper.header, 6, checksum);
        Some(upper)
    }

    /// An ICMP or ICMPv6 message.
    pub(crate) fn echo(
        kind: Echo,
        source: IpAddr,
        destination: IpAddr,
        identifier: u16,
        sequence: u16,
        data: &'p [u8],
    ) -> Self {
        let (protocol, kind) = match (source, kind) {
            (IpAddr::V4(_), Echo::Request) => (IpProtocol::Icmp, 8),
            (IpAddr::V4(_), Echo::Reply) => (IpProtocol::Icmp, 0),
            (IpAddr::V6(_), Echo::Request) => (IpProtocol::Icmpv6, 128),
            (IpAddr::V6(_), Echo::Reply) => (IpProtocol::Icmpv6, 129),
        };
        let mut header = [kind, 0, 0, 0, 0, 0, 0, 0];
        put16(&mut header, 4, identifier);
        put16(&mut header, 6, sequence);
        let mut upper = Self { protocol, header, data };
        let checksum = upper.checksum(source, destination);
        put16(&mut upper.header, 2, checksum);
        upper
    }

    /// The length with the header, in bytes.
    pub(crate) fn len(&self) -> usize {
        UPPER_HEADER + self.data.len()
    }

    /// The checksum, while its field is zero. ICMP's has no pseudo-header (RFC 792).
    fn checksum(&self, source: IpAddr, destination: IpAddr) -> u16 {
        let protocol = self.protocol.into();
        let pseudo = match (source, destination) {
            _ if self.protocol == IpProtocol::Icmp => 0,
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                checksum::pseudo_header(&from.octets(), &to.octets(), protocol, self.len())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                checksum::pseudo_header(&from.octets(), &to.octets(), protocol, self.len())
            }
            _ => 0,
        };
        !checksum::fold(pseudo + checksum::sum(&self.header) + checksum::sum(self.data))
    }

    /// Writes the bytes from `offset` on, as many as `to` has room for.
    pub(crate) fn copy(&self, offset: usize, to: &mut [u8]) {
        let header = self.header.get(offset..).unwrap_or_default();
        let data = self.data.get(offset.saturating_sub(UPPER_HEADER)..).unwrap_or_default();
        let (start, rest) = to.split_at_mut(header.len().min(to.len()));
        for (to, from) in start.iter_mut().zip(header) {
            *to = *from;
        }
        let len = rest.len().min(data.len());
        if let (Some(to), Some(from)) = (rest.get_mut(..len), data.get(..len)) {
            to.copy_from_slice(from);
        }
    }
}
