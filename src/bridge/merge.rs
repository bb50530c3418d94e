//! Merge on the way in: TCP segments that only continue the one before them are appended to that
//! frame, so that the queue, the flow lookup and smoltcp see one frame where there were forty.
//!
//! It is done in the receive buffer: a payload moves down to the end of the one before it, over the
//! prefix and the headers between the two, which say nothing new.
//!
//! # The rules
//!
//! A frame is *plain* if it is TCP with a payload and the flags ACK or ACK and PSH alone, over IPv4
//! without options, with a right header checksum and unfragmented, or over IPv6 without extension
//! headers. A plain frame is appended to the plain frame before it if the two differ in nothing but
//! lengths, IPv4 identification, checksums, sequence number (which must be the next) and PSH. PSH is
//! carried over and ends the merged frame, as it does in the kernel's GRO.
//!
//! * *Order is kept*, between flows too: only neighbours merge. A guest that cuts its own super-segments
//!   sends the pieces one after the other, however many flows it has.
//! * *Nothing is held back.* A merged frame ends with what was received; there is no timer.
//!
//! The merged frame's TCP checksum is that of its first segment and so is wrong. The gateway does
//! not verify the guest's L4 checksums: with checksum offload they are partial from the start.

use std::ops::Range;

use super::framing::{Decoder, MAX_FRAME};
use crate::error::FramingViolation;
use crate::wire::{ETHERNET, TcpLayout, be16, be32, checksum, flag, tcp_layout};

#[cfg(test)]
mod tests;

/// The largest IPv4 total length, and the largest IPv6 payload length.
const MAX_IP: usize = 65_535;

/// Room for the longest headers there are, Ethernet, IPv6, and TCP with all options, and so many bytes that
/// they are compared without a loop.
const HEAD: usize = 128;
const _: () = assert!(HEAD >= ETHERNET + 40 + 60);

/// The first bytes of a frame, and zeros after its end.
type Head = [u8; HEAD];

/// One or more frames of the stream as one frame.
#[derive(Debug)]
pub(crate) struct Merged {
    /// Where it lies in the receive buffer.
    pub(crate) frame: Range<usize>,
    /// How many frames it was on the wire, and how many bytes these had.
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// Takes the next frame, with those after it that continue it. `None` if there is no whole one.
///
/// # Errors
/// The violation, once every frame before it was taken.
pub(crate) fn next_merged(decoder: &mut Decoder) -> Result<Option<Merged>, FramingViolation> {
    let Some(first) = decoder.peek()? else { return Ok(None) };
    decoder.take(&first);
    let mut count = 1;
    let mut bytes = first.len() as u64;
    let mut whole = first.clone();
    if let Some(mut run) = Run::open(decoder.bytes().get(first).unwrap_or_default()) {
        // A violation after this frame is for the next call to report.
        while let Ok(Some(next)) = decoder.peek()
            && let Some(payload) =
                run.continued_by(decoder.bytes().get(next.clone()).unwrap_or_default())
        {
            decoder.take(&next);
            count += 1;
            bytes += next.len() as u64;
            let from = next.start + payload.start..next.start + payload.end;
            decoder.bytes().copy_within(from, whole.start + run.end);
            run.end += payload.len();
            if run.has_push {
                break;
            }
        }
        if count > 1 {
            whole.end = whole.start + run.end;
            run.close(decoder.bytes().get_mut(whole.clone()).unwrap_or_default());
        }
    }
    Ok(Some(Merged { frame: whole, count, bytes }))
}

/// A plain frame that may still grow.
#[derive(Debug)]
struct Run {
    layout: TcpLayout,
    /// Where its payload ends now.
    end: usize,
    next_sequence: u32,
    has_push: bool,
    /// The headers of the first frame, and which of their bits those of the next must have too.
    head: Head,
    mask: Head,
    /// The partial sum of the IPv4 header's fixed words.
    fixed_sum: u64,
}

impl Run {
    /// `None` if nothing can be appended to this frame.
    fn open(frame: &[u8]) -> Option<Self> {
        let layout = tcp_layout(frame)?;
        if !is_plain(frame, &layout) {
            return None;
        }
        let TcpLayout { ipv6, ip, tcp, payload, end } = layout;
        let mut mask = [0; HEAD];
        mask.get_mut(..payload)?.fill(0xff);
        let differs =
            if ipv6 { [ip + 4..ip + 6, 0..0] } else { [ip + 2..ip + 6, ip + 10..ip + 12] };
        for range in differs.into_iter().chain([tcp + 4..tcp + 8, tcp + 16..tcp + 18]) {
            mask.get_mut(range)?.fill(0);
        }
        *mask.get_mut(tcp + 13)? &= !flag::PSH;
        let head = padded(frame);
        let next_sequence = be32(frame, tcp + 4)?.wrapping_add((end - payload) as u32);
        let fixed_sum = checksum::sum(frame.get(ip..ip + 20)?) - own_sum(&head);
        Some(Self { layout, end, next_sequence, has_push: false, head, mask, fixed_sum })
    }

    /// Where the payload lies in a frame that continues this one; the frame is to be appended.
    fn continued_by(&mut self, frame: &[u8]) -> Option<Range<usize>> {
        match frame.first_chunk() {
            Some(head) => self.continued(head, frame.len()),
            None => self.continued(&padded(frame), frame.len()),
        }
    }

    fn continued(&mut self, head: &Head, len: usize) -> Option<Range<usize>> {
        let TcpLayout { ipv6, ip, tcp, payload, .. } = self.layout;
        // What the length in the IP header does not count.
        let before = if ipv6 { ip + 40 } else { ip };
        let end = before + usize::from(be16(head, if ipv6 { ip + 4 } else { ip + 2 })?);
        let grown = self.end + end.checked_sub(payload).filter(|len| *len > 0)?;
        if end > len
            || grown > MAX_FRAME
            || grown - before > MAX_IP
            || be32(head, tcp + 4)? != self.next_sequence
            || !self.has_same(head)
            || !(ipv6 || self.has_right_checksum(head))
        {
            return None;
        }
        self.next_sequence = self.next_sequence.wrapping_add((end - payload) as u32);
        self.has_push = head.get(tcp + 13)? & flag::PSH != 0;
        Some(payload..end)
    }

    /// Whether these headers differ from the first ones in nothing that a merge would lose.
    fn has_same(&self, head: &Head) -> bool {
        let words =
            self.head.as_chunks().0.iter().zip(head.as_chunks().0).zip(self.mask.as_chunks().0);
        let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
        words.map(|((a, b), mask)| (word(a) ^ word(b)) & word(mask)).fold(0, |all, it| all | it)
            == 0
    }

    /// Whether the IPv4 header checksum is right, given that the other words are those of the first header.
    /// A merged header is given a right one, which must not make a good packet of two bad ones.
    fn has_right_checksum(&self, head: &Head) -> bool {
        checksum::fold(self.fixed_sum + own_sum(head)) == 0xffff
    }

    /// Writes what has changed into the headers of the merged frame.
    fn close(&mut self, frame: &mut [u8]) {
        let end = self.end;
        self.layout.set_end(frame, end);
        if self.has_push
            && let Some(flags) = frame.get_mut(self.layout.tcp + 13)
        {
            *flags |= flag::PSH;
        }
    }
}

/// The partial sum of what the segments of a flow have for themselves in the IPv4 header: length,
/// identification and checksum.
fn own_sum(head: &Head) -> u64 {
    const IP: usize = ETHERNET;
    let own = [
        [head[IP + 2], head[IP + 3]],
        [head[IP + 4], head[IP + 5]],
        [head[IP + 10], head[IP + 11]],
    ];
    own.into_iter().map(|word| u64::from(u16::from_ne_bytes(word))).sum()
}

fn padded(frame: &[u8]) -> Head {
    let mut head = [0; HEAD];
    for (to, from) in head.iter_mut().zip(frame) {
        *to = *from;
    }
    head
}

/// Whether something may be appended to a TCP frame.
fn is_plain(frame: &[u8], layout: &TcpLayout) -> bool {
    let TcpLayout { ipv6, ip, tcp, payload, end } = *layout;
    // The low half of the byte before the flags is reserved, but for AccECN's AE.
    let reserved = frame.get(tcp + 12).is_none_or(|byte| byte & 0x0f != 0);
    payload < end
        && frame.get(tcp + 13) == Some(&flag::ACK)
        && !reserved
        && (ipv6 || is_plain_ipv4(frame.get(ip..tcp).unwrap_or_default()))
}

/// No options, nothing set beside "don't fragment", and a right checksum.
fn is_plain_ipv4(header: &[u8]) -> bool {
    header.len() == 20
        && be16(header, 6).is_some_and(|fragment| fragment & 0xbfff == 0)
        && checksum::fold(checksum::sum(header)) == 0xffff
}
