//! Merge on the way in: a TCP segment that only continues the one before it in its flow is appended
//! to that frame, so that the queue, the flow lookup and smoltcp see one frame where there were
//! forty.
//!
//! # The rules
//!
//! A frame is *plain* if it is TCP with a payload and the flags ACK or ACK and PSH alone, over IPv4
//! without options, with a right header checksum and unfragmented, or over IPv6 without extension
//! headers. A plain frame is appended to the last frame of its flow if that is plain and open, and
//! the two differ in nothing but lengths, IPv4 identification, checksums, sequence number (which
//! must be the next) and PSH. PSH is carried over and closes the frame, as the kernel's GRO does.
//!
//! * *Order within a flow is kept.* A frame that cannot be appended closes its flow's open frame.
//! * *Frames of different flows may change places*: an appended payload moves up to the place of
//!   the frame that it continues. Nothing depends on the order between flows.
//! * *Nothing is held back.* The open frames end with the batch; there is no timer.
//!
//! The merged frame's TCP checksum is that of its first segment and so is wrong. The gateway does
//! not verify the guest's L4 checksums: with checksum offload they are partial from the start.

use std::collections::VecDeque;
use std::ops::Range;

use super::framing::MAX_FRAME;
use crate::queues::NetworkFrameQueues;
use crate::wire::{TcpLayout, be16, be32, checksum, flag, tcp_layout};

#[cfg(test)]
mod tests;

/// How many flows of one batch can have an open frame.
const FLOWS: usize = 8;

/// A batch ends at this many frames, or at this much buffer capacity: what the reader holds in its
/// hands is bounded whatever the guest sends.
const MAX_FRAMES: usize = 256;
const MAX_BYTES: usize = 1 << 20;

/// The largest IPv4 total length, and the largest IPv6 payload length.
const MAX_IP: usize = 65_535;

/// Collects one batch of frames.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    frames: VecDeque<Vec<u8>>,
    open: Vec<Open>,
    capacity: usize,
    merged: u64,
}

/// A plain frame of the batch that may still grow.
#[derive(Debug)]
struct Open {
    flow: Flow,
    /// Its index in the batch.
    at: usize,
    layout: TcpLayout,
    next_sequence: u32,
    grown: bool,
}

/// Addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    ipv6: bool,
    ports: u32,
    addresses: [u8; 32],
}

impl Merger {
    /// Adds a frame to the batch.
    pub(crate) fn push(&mut self, frame: &[u8], queues: &NetworkFrameQueues) {
        let segment =
            tcp_layout(frame).and_then(|layout| Some((Flow::of(frame, &layout)?, layout)));
        let Some((flow, layout)) = segment else {
            self.add(frame, queues);
            return;
        };
        let plain = is_plain(frame, &layout);
        if let Some(slot) = self.open.iter().position(|open| open.flow == flow) {
            if plain && self.append(slot, frame, &layout, queues) {
                return;
            }
            self.close(slot);
        }
        let at = self.add(frame, queues);
        if plain && !has_push(frame, &layout) {
            self.open(flow, at, layout, frame);
        }
    }

    /// Whether the batch should end here.
    pub(crate) fn is_full(&self) -> bool {
        self.frames.len() >= MAX_FRAMES || self.capacity >= MAX_BYTES
    }

    /// Ends the batch. Its frames, in order, are the caller's to take.
    pub(crate) fn finish(&mut self) -> &mut VecDeque<Vec<u8>> {
        while !self.open.is_empty() {
            self.close(self.open.len() - 1);
        }
        self.capacity = 0;
        &mut self.frames
    }

    /// How many frames were appended to others since the last call.
    pub(crate) fn take_merged(&mut self) -> u64 {
        std::mem::take(&mut self.merged)
    }

    fn add(&mut self, frame: &[u8], queues: &NetworkFrameQueues) -> usize {
        let mut buffer = queues.buffer(frame.len());
        buffer.extend_from_slice(frame);
        self.capacity += buffer.capacity();
        self.frames.push_back(buffer);
        self.frames.len() - 1
    }

    fn open(&mut self, flow: Flow, at: usize, layout: TcpLayout, frame: &[u8]) {
        if self.open.len() == FLOWS {
            self.close(0);
        }
        let sequence = be32(frame, layout.tcp + 4).unwrap_or_default();
        let payload = (layout.end - layout.payload) as u32;
        let next_sequence = sequence.wrapping_add(payload);
        self.open.push(Open { flow, at, layout, next_sequence, grown: false });
    }

    /// Appends the payload of a plain frame to the open frame of its flow, if it continues it.
    fn append(
        &mut self,
        slot: usize,
        frame: &[u8],
        layout: &TcpLayout,
        queues: &NetworkFrameQueues,
    ) -> bool {
        let Some(open) = self.open.get_mut(slot) else { return false };
        let Some(target) = self.frames.get_mut(open.at) else { return false };
        let Some(payload) = frame.get(layout.payload..layout.end) else { return false };
        let end = open.layout.end + payload.len();
        let ip_length = end - if layout.ipv6 { layout.tcp } else { layout.ip };
        if end > MAX_FRAME
            || ip_length > MAX_IP
            || be32(frame, layout.tcp + 4) != Some(open.next_sequence)
            || !same_headers(target, &open.layout, frame, layout)
        {
            return false;
        }
        // Ethernet padding, on the first append.
        target.truncate(open.layout.end);
        if target.capacity() < end {
            let mut larger = queues.buffer(MAX_FRAME);
            larger.extend_from_slice(target);
            self.capacity = self.capacity + larger.capacity() - target.capacity();
            queues.recycle(std::mem::replace(target, larger));
        }
        target.extend_from_slice(payload);
        open.grown = true;
        open.layout.end = end;
        open.next_sequence = open.next_sequence.wrapping_add(payload.len() as u32);
        self.merged += 1;
        if has_push(frame, layout) {
            if let Some(flags) = target.get_mut(layout.tcp + 13) {
                *flags |= flag::PSH;
            }
            self.close(slot);
        }
        true
    }

    /// Writes the IP header of a frame that will not grow any more. The order of the slots is that
    /// of their opening, so that the first is the one to give up for a new flow.
    fn close(&mut self, slot: usize) {
        let mut open = self.open.remove(slot);
        if open.grown
            && let Some(frame) = self.frames.get_mut(open.at)
        {
            let end = open.layout.end;
            open.layout.set_end(frame, end);
        }
    }
}

impl Flow {
    fn of(frame: &[u8], layout: &TcpLayout) -> Option<Self> {
        let mut addresses = [0; 32];
        for (to, from) in addresses.iter_mut().zip(layout.addresses(frame)) {
            *to = *from;
        }
        Some(Self { ipv6: layout.ipv6, ports: be32(frame, layout.tcp)?, addresses })
    }
}

fn is_plain(frame: &[u8], layout: &TcpLayout) -> bool {
    let TcpLayout { ipv6, ip, tcp, payload, end } = *layout;
    let right_ip = ipv6 || is_plain_ipv4(frame.get(ip..tcp).unwrap_or_default());
    // The low half of the byte before the flags is reserved, but for AccECN's AE.
    let reserved = frame.get(tcp + 12).is_none_or(|byte| byte & 0x0f != 0);
    let flags = frame.get(tcp + 13).map(|flags| flags & !flag::PSH);
    payload < end && flags == Some(flag::ACK) && !reserved && right_ip
}

/// No options, nothing set beside "don't fragment", and a right checksum: a merged header is given
/// a right one, which must not make a good packet of two bad ones.
fn is_plain_ipv4(header: &[u8]) -> bool {
    header.len() == 20
        && be16(header, 6).is_some_and(|fragment| fragment & 0xbfff == 0)
        && checksum::fold(checksum::sum(header)) == 0xffff
}

fn has_push(frame: &[u8], layout: &TcpLayout) -> bool {
    frame.get(layout.tcp + 13).is_some_and(|flags| flags & flag::PSH != 0)
}

/// Whether two plain frames of one flow differ in no header field that a merge would lose.
fn same_headers(a: &[u8], a_layout: &TcpLayout, b: &[u8], b_layout: &TcpLayout) -> bool {
    let TcpLayout { ipv6, tcp, payload, .. } = *b_layout;
    let same = |range: Range<usize>| a.get(range.clone()) == b.get(range);
    // Ethernet; IP up to the length; IP from the fragment field, or the next header, up to the
    // checksum, or the addresses.
    let ip = if ipv6 { same(0..18) && same(20..22) } else { same(0..16) && same(20..24) };
    let acknowledgement_and_offset = tcp + 8..tcp + 13;
    let window = tcp + 14..tcp + 16;
    let options = tcp + 20..payload;
    ip && a_layout.payload == payload
        && same(acknowledgement_and_offset)
        && same(window)
        && same(options)
}
