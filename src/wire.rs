//! Where the headers of a TCP frame lie, and the fields that the bridge changes in them.

pub(crate) mod checksum;

#[cfg(test)]
mod tests;

/// The length of an Ethernet header without a VLAN tag.
pub(crate) const ETHERNET: usize = 14;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const IPV6_HEADER: usize = 40;
const TCP: u8 = 6;
const TCP_HEADER: usize = 20;

/// The flags in the fourteenth byte of a TCP header.
pub(crate) mod flag {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const PSH: u8 = 0x08;
    pub(crate) const ACK: u8 = 0x10;
    pub(crate) const URG: u8 = 0x20;
    pub(crate) const CWR: u8 = 0x80;
}

/// Offsets in an Ethernet frame that holds a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpLayout {
    pub(crate) ipv6: bool,
    /// Where the IP header begins.
    pub(crate) ip: usize,
    /// Where the TCP header begins.
    pub(crate) tcp: usize,
    /// Where the payload begins; `end` if there is none.
    pub(crate) payload: usize,
    /// Where the IP packet ends. What follows is Ethernet padding.
    pub(crate) end: usize,
}

/// The layout of a frame that holds a whole TCP segment: IPv4, options allowed, or IPv6 without
/// extension headers; not a fragment; with lengths that agree with each other and with the frame's.
/// `None` says nothing about other frames but that they are none of these.
pub(crate) fn tcp_layout(frame: &[u8]) -> Option<TcpLayout> {
    let ip = ETHERNET;
    let first = *frame.get(ip)?;
    let (ipv6, tcp, end) = match be16(frame, 12)? {
        ETHERTYPE_IPV4 if first >> 4 == 4 => {
            let header = usize::from(first & 0x0f) * 4;
            let total = usize::from(be16(frame, ip + 2)?);
            // More fragments, or an offset.
            let fragment = be16(frame, ip + 6)? & 0x3fff != 0;
            if header < 20 || fragment || *frame.get(ip + 9)? != TCP {
                return None;
            }
            (false, ip + header, ip + total)
        }
        ETHERTYPE_IPV6 if first >> 4 == 6 => {
            if *frame.get(ip + 6)? != TCP {
                return None;
            }
            let tcp = ip + IPV6_HEADER;
            (true, tcp, tcp + usize::from(be16(frame, ip + 4)?))
        }
        _ => return None,
    };
    if end > frame.len() || end < tcp + TCP_HEADER {
        return None;
    }
    let header = usize::from(*frame.get(tcp + 12)? >> 4) * 4;
    let payload = tcp + header;
    (header >= TCP_HEADER && payload <= end).then_some(TcpLayout { ipv6, ip, tcp, payload, end })
}

impl TcpLayout {
    /// Source and destination address, one after the other: 8 bytes, or 32.
    pub(crate) fn addresses<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        let from = self.ip + if self.ipv6 { 8 } else { 12 };
        let len = if self.ipv6 { 32 } else { 8 };
        frame.get(from..from + len).unwrap_or_default()
    }

    /// Writes the IP header's length for a packet that ends at `end`, and the header checksum.
    pub(crate) fn set_end(&mut self, frame: &mut [u8], end: usize) {
        self.end = end;
        if self.ipv6 {
            put16(frame, self.ip + 4, length16(end - self.ip - IPV6_HEADER));
            return;
        }
        put16(frame, self.ip + 2, length16(end - self.ip));
        put16(frame, self.ip + 10, 0);
        let header = frame.get(self.ip..self.tcp).unwrap_or_default();
        let sum = checksum::sum(header);
        put16(frame, self.ip + 10, !checksum::fold(sum));
    }

    /// The partial sum of the TCP pseudo-header for a segment of `len` bytes, header included.
    pub(crate) fn pseudo_header(&self, frame: &[u8], len: usize) -> u64 {
        let addresses = self.addresses(frame);
        let (source, destination) = addresses.split_at(addresses.len() / 2);
        checksum::pseudo_header(source, destination, TCP, len)
    }
}

/// Writes the full TCP checksum of a frame.
pub(crate) fn fill_tcp_checksum(frame: &mut [u8], layout: &TcpLayout) {
    put16(frame, layout.tcp + 16, 0);
    let segment = frame.get(layout.tcp..layout.end).unwrap_or_default();
    let sum = layout.pseudo_header(frame, segment.len()) + checksum::sum(segment);
    put16(frame, layout.tcp + 16, !checksum::fold(sum));
}

/// Goes through the options of a TCP segment (RFC 9293 section 3.1): kind and value of each that is whole. Ends
/// at the first that is not.
#[cfg(feature = "runtime")]
pub(crate) fn for_each_option(segment: &mut [u8], mut each: impl FnMut(u8, &mut [u8])) {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    let end = segment.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4).min(segment.len());
    let mut at = 20;
    while at < end {
        let length = match segment.get(at..end) {
            Some([NO_OPERATION, ..]) => 1,
            Some([kind, length, ..]) if *kind != END && *length >= 2 => usize::from(*length),
            _ => return,
        };
        if let Some([kind, _, value @ ..]) = segment.get_mut(at..(at + length).min(end))
            && value.len() + 2 == length
        {
            each(*kind, value);
        }
        at += length;
    }
}

/// A length that a 16-bit field holds. A caller's frame is never longer than 65,550 bytes, and its
/// IP packet never longer than 65,535; this saturates rather than wraps should that not hold.
fn length16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|field| u16::from_be_bytes(*field))
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|field| u32::from_be_bytes(*field))
}

/// Writes a field that the caller knows to lie within `bytes`.
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = value.to_be_bytes();
    }
}

/// As [`put16`].
pub(crate) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = value.to_be_bytes();
    }
}
