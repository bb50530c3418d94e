//! Cut on the way out: a TCP frame that is longer than the guest's MTU becomes segments that fit.
//!
//! The gateway hands over one large segment with its TCP checksum unset. Each piece gets fresh
//! headers in a scratch buffer; the payload stays where it lies, and the vectored send collects the
//! two. What a NIC with TSO does to the header is done here: sequence number, lengths, IPv4
//! identification and checksums for every piece; FIN and PSH on the last alone, CWR on the first.

use std::ops::Range;

use super::framing;
use crate::wire::{TcpLayout, be16, be32, checksum, flag, put16, put32, tcp_layout};

#[cfg(test)]
mod tests;

/// One frame for the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Length prefix and headers, in the scratch buffer.
    pub(crate) head: Range<usize>,
    /// The payload, in the frame that was cut.
    pub(crate) payload: Range<usize>,
}

/// Cuts `frame` into segments whose frames have `max_frame` bytes at the most. Their headers are
/// appended to `heads`.
///
/// `None`, with nothing emitted: this is no TCP segment with a payload, or one that cannot be cut
/// because its flags (SYN, RST, URG) belong to one place in the stream.
pub(crate) fn cut(
    frame: &[u8],
    max_frame: usize,
    heads: &mut Vec<u8>,
    mut emit: impl FnMut(Segment),
) -> Option<()> {
    let layout = tcp_layout(frame)?;
    let header = frame.get(..layout.payload)?;
    let payload = frame.get(layout.payload..layout.end).filter(|payload| !payload.is_empty())?;
    let room = max_frame.checked_sub(header.len()).filter(|room| *room > 0)?;
    let flags = *frame.get(layout.tcp + 13)?;
    if flags & (flag::SYN | flag::RST | flag::URG) != 0 {
        return None;
    }
    let sequence = be32(frame, layout.tcp + 4)?;
    let identification = be16(frame, layout.ip + 4)?;

    let mut offset = 0;
    for (index, piece) in payload.chunks(room).enumerate() {
        let start = heads.len();
        heads.extend_from_slice(&framing::prefix(header.len() + piece.len()));
        let at = heads.len();
        heads.extend_from_slice(header);

        let head = heads.get_mut(at..)?;
        if !layout.ipv6 {
            put16(head, layout.ip + 4, identification.wrapping_add(index as u16));
        }
        put32(head, layout.tcp + 4, sequence.wrapping_add(offset as u32));
        let mut cleared = 0;
        if offset > 0 {
            cleared |= flag::CWR;
        }
        if offset + piece.len() < payload.len() {
            cleared |= flag::FIN | flag::PSH;
        }
        if let Some(field) = head.get_mut(layout.tcp + 13) {
            *field = flags & !cleared;
        }
        fill_checksums(head, layout, piece);

        let from = layout.payload + offset;
        emit(Segment { head: start..heads.len(), payload: from..from + piece.len() });
        offset += piece.len();
    }
    Some(())
}

/// The lengths and checksums of a segment whose payload lies elsewhere.
fn fill_checksums(head: &mut [u8], mut layout: TcpLayout, payload: &[u8]) {
    layout.set_end(head, layout.payload + payload.len());
    put16(head, layout.tcp + 16, 0);
    let tcp = head.get(layout.tcp..).unwrap_or_default();
    let sum = layout.pseudo_header(head, tcp.len() + payload.len())
        + checksum::sum(tcp)
        + checksum::sum(payload);
    put16(head, layout.tcp + 16, !checksum::fold(sum));
}
