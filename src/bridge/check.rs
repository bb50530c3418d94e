//! What must hold of merge and cut whatever the frames are, for the tests and the fuzzers.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use smoltcp::wire::{Ipv4Packet, Ipv6Packet, TcpPacket};

use super::cut::cut;
use super::framing::{Decoder, MAX_FRAME, prefix};
use super::merge::next_merged;
use crate::error::FramingViolation;
use crate::wire::{TcpLayout, be16, be32, flag, tcp_layout};

/// A frame as the oracle sees it: bytes at a place in a stream, or one that must stay as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Data { headers: Vec<u8>, sequence: u32, push: bool, payload: Vec<u8> },
    Whole(Vec<u8>),
}

fn item(frame: &[u8], layout: &TcpLayout) -> Item {
    let TcpLayout { ipv6, ip, tcp, payload, end } = *layout;
    let flags = frame[tcp + 13];
    let right_ip = ipv6
        || (tcp - ip == 20
            && frame[ip + 6] & !0x40 == 0
            && frame[ip + 7] == 0
            && Ipv4Packet::new_unchecked(&frame[ip..tcp]).verify_checksum());
    if !right_ip || payload == end || flags & !flag::PSH != flag::ACK || frame[tcp + 12] & 15 != 0 {
        return Item::Whole(frame.to_vec());
    }
    Item::Data {
        headers: fixed_headers(frame, layout),
        sequence: be32(frame, tcp + 4).unwrap(),
        push: flags & flag::PSH != 0,
        payload: frame[payload..end].to_vec(),
    }
}

/// The headers without the fields that differ between the segments of one stream.
fn fixed_headers(frame: &[u8], layout: &TcpLayout) -> Vec<u8> {
    let TcpLayout { ipv6, ip, tcp, payload, .. } = *layout;
    let mut headers = frame[..payload].to_vec();
    if ipv6 {
        headers[ip + 4..ip + 6].fill(0);
    } else {
        headers[ip + 2..ip + 6].fill(0);
        headers[ip + 10..ip + 12].fill(0);
    }
    headers[tcp + 4..tcp + 8].fill(0);
    headers[tcp + 13] = 0;
    headers[tcp + 16..tcp + 20].fill(0);
    headers
}

/// The frames of each flow with everything joined that may be joined, without any bound: the same
/// before and after a merge. Frames that are not TCP are one flow of their own.
fn streams(frames: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Vec<Item>> {
    let mut streams = BTreeMap::<_, Vec<Item>>::new();
    for frame in frames {
        let layout = tcp_layout(frame);
        let flow = layout
            .map(|layout| [layout.addresses(frame), &frame[layout.tcp..layout.tcp + 4]].concat());
        let next = layout.map_or(Item::Whole(frame.clone()), |layout| item(frame, &layout));
        let items = streams.entry(flow.unwrap_or_default()).or_default();
        if let Item::Data { headers: b_headers, sequence: b_at, push: b_push, payload: b } = &next
            && let Some(Item::Data { headers, sequence, push, payload }) = items.last_mut()
            && !*push
            && headers == b_headers
            && sequence.wrapping_add(payload.len() as u32) == *b_at
        {
            payload.extend_from_slice(b);
            *push = *b_push;
        } else {
            items.push(next);
        }
    }
    streams
}

/// Merges frames as the receive half does.
pub(crate) fn merge(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let bytes: Vec<u8> =
        frames.iter().flat_map(|frame| [&prefix(frame.len())[..], frame].concat()).collect();
    let mut stream = &bytes[..];
    let mut decoder = Decoder::new();
    let mut out = Vec::new();
    let (mut count, mut len) = (0, 0);
    loop {
        while let Some(merged) = next_merged(&mut decoder).expect("these are frames") {
            count += merged.count;
            len += merged.bytes;
            out.push(decoder.bytes()[merged.frame].to_vec());
        }
        if stream.is_empty() {
            break;
        }
        let space = decoder.space();
        let n = space.len().min(stream.len());
        space[..n].copy_from_slice(&stream[..n]);
        decoder.filled(n);
        stream = &stream[n..];
    }
    assert_eq!(count, frames.len() as u64);
    assert_eq!(len, frames.iter().map(|frame| frame.len() as u64).sum::<u64>());
    out
}

/// A merge kept every byte, their order within each flow, and the places of PSH; and what it made
/// are frames.
pub(crate) fn assert_merged(before: &[Vec<u8>], after: &[Vec<u8>]) {
    assert_eq!(streams(before), streams(after));
    for frame in after {
        assert!(frame.len() <= MAX_FRAME);
        if before.contains(frame) {
            continue;
        }
        let layout = tcp_layout(frame).expect("a merged frame is TCP");
        assert_eq!(layout.end, frame.len());
        if !layout.ipv6 {
            assert!(Ipv4Packet::new_checked(&frame[14..]).unwrap().verify_checksum());
        }
    }
}

/// Whether the checksums of a TCP frame without padding are right, in smoltcp's view.
pub(crate) fn has_right_checksums(frame: &[u8]) -> bool {
    let ip = &frame[14..];
    let (payload, source, destination) = if ip[0] >> 4 == 4 {
        let ip = Ipv4Packet::new_checked(ip).unwrap();
        if !ip.verify_checksum() {
            return false;
        }
        let (source, destination) = (ip.src_addr(), ip.dst_addr());
        (&frame[14 + usize::from(ip.header_len())..], source.into(), destination.into())
    } else {
        let ip = Ipv6Packet::new_checked(ip).unwrap();
        (&frame[54..], ip.src_addr().into(), ip.dst_addr().into())
    };
    TcpPacket::new_checked(payload).unwrap().verify_checksum(&source, &destination)
}

/// Cuts a frame, checks that the segments are what a NIC would have made of it, and returns them.
/// `None` if the frame can't be cut.
pub(crate) fn cut_checked(frame: &[u8], max_frame: usize) -> Option<Vec<Vec<u8>>> {
    let mut heads = b"before".to_vec();
    let mut pieces = Vec::new();
    let done = cut(frame, max_frame, &mut heads, |segment| pieces.push(segment));
    assert!(heads.starts_with(b"before"));
    if done.is_none() {
        assert!(pieces.is_empty() && heads == b"before");
        return None;
    }
    let segments: Vec<Vec<u8>> = pieces
        .into_iter()
        .map(|piece| {
            let head = &heads[piece.head];
            let segment = [&head[4..], &frame[piece.payload]].concat();
            assert_eq!(head[..4], prefix(segment.len()));
            segment
        })
        .collect();

    let whole = tcp_layout(frame).unwrap();
    let mut sequence = be32(frame, whole.tcp + 4).unwrap();
    let mut bytes = Vec::new();
    for (i, segment) in segments.iter().enumerate() {
        let (first, last) = (i == 0, i + 1 == segments.len());
        let layout = tcp_layout(segment).expect("a segment is a frame");
        assert_eq!((layout.end, layout.payload), (segment.len(), whole.payload));
        assert!(segment.len() == max_frame || (last && segment.len() < max_frame));
        assert!(has_right_checksums(segment));
        assert_eq!(fixed_headers(segment, &layout), fixed_headers(frame, &whole));
        assert_eq!(be32(segment, layout.tcp + 4), Some(sequence));
        if !layout.ipv6 {
            let identification = be16(frame, 18).unwrap().wrapping_add(i as u16);
            assert_eq!(be16(segment, 18), Some(identification));
        }
        let mut flags = frame[whole.tcp + 13];
        flags &= if first { 0xff } else { !flag::CWR };
        flags &= if last { 0xff } else { !(flag::FIN | flag::PSH) };
        assert_eq!(segment[layout.tcp + 13], flags);
        let payload = &segment[layout.payload..];
        sequence = sequence.wrapping_add(payload.len() as u32);
        bytes.extend_from_slice(payload);
    }
    assert_eq!(bytes, frame[whole.payload..whole.end]);
    Some(segments)
}

/// The frames of a stream that is there as a whole, and the length that ends it: what a decoder must find.
pub(crate) fn parse(mut stream: &[u8]) -> (Vec<Vec<u8>>, Option<FramingViolation>) {
    let mut frames = Vec::new();
    while let Some((prefix, rest)) = stream.split_first_chunk() {
        let len = u32::from_be_bytes(*prefix);
        match len {
            ..14 => return (frames, Some(FramingViolation::TooShort { len })),
            65_551.. => return (frames, Some(FramingViolation::TooLong { len })),
            _ if rest.len() < len as usize => break,
            _ => {}
        }
        let (frame, rest) = rest.split_at(len as usize);
        frames.push(frame.to_vec());
        stream = rest;
    }
    (frames, None)
}

/// Decodes a stream that arrives in pieces of these sizes, over and over, 0 meaning all there is.
pub(crate) fn decode(
    mut stream: &[u8],
    sizes: &[usize],
) -> (Vec<Vec<u8>>, Option<FramingViolation>) {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    let mut sizes = sizes.iter().copied().cycle();
    loop {
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(violation) => {
                    let sticky = decoder.next_frame().expect_err("a violation is for ever");
                    assert_eq!(sticky, violation);
                    return (frames, Some(violation));
                }
            }
        }
        let space = decoder.space();
        assert!(space.len() > MAX_FRAME, "there is room for any frame");
        let size = sizes.next().filter(|size| *size > 0).unwrap_or(usize::MAX);
        let n = size.min(space.len()).min(stream.len());
        if n == 0 {
            return (frames, None);
        }
        space[..n].copy_from_slice(&stream[..n]);
        decoder.filled(n);
        stream = &stream[n..];
    }
}

/// Turns a frame into a plain TCP one of one of a few flows, with the bytes of its headers deciding
/// where it deviates: arbitrary bytes hardly ever are one.
fn dress_up(frame: &mut [u8], sequences: &mut [u32; 4]) {
    const HEADER: usize = 54;
    if frame.len() < HEADER {
        return;
    }
    let wish: [u8; 4] = [frame[0], frame[1], frame[2], frame[3]];
    let flow = usize::from(wish[0] & 3);
    let len = frame.len().min(1500 + usize::from(wish[1]) * 256) - HEADER;
    let tcp = flag::ACK | if wish[2] < 32 { wish[3] } else { 0 };
    let skip = u32::from(wish[2] >= 250);
    let mut header = [0; HEADER];
    header[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    header[22..24].copy_from_slice(&[64, 6]);
    header[34] = flow as u8;
    header[38..42].copy_from_slice(&sequences[flow].wrapping_add(skip).to_be_bytes());
    header[46..48].copy_from_slice(&[0x50, tcp]);
    frame[..HEADER].copy_from_slice(&header);
    let mut layout = TcpLayout { ipv6: false, ip: 14, tcp: 34, payload: HEADER, end: 0 };
    layout.set_end(frame, HEADER + len);
    sequences[flow] = sequences[flow].wrapping_add(skip + len as u32);
}

/// See [`fuzz_framing`](super::framing::fuzz_framing).
pub(crate) fn fuzz(data: &[u8]) {
    let Some((&[control, count, limit], rest)) = data.split_first_chunk() else { return };
    let (sizes, stream) = rest.split_at(usize::from(count & 15).min(rest.len()));
    let sizes: Vec<usize> = sizes.iter().map(|size| usize::from(*size) * 7).collect();
    let (mut frames, violation) = decode(stream, &sizes);
    let (whole, same_violation) = parse(stream);
    assert_eq!((&frames, violation), (&whole, same_violation));
    if control & 1 != 0 {
        let mut sequences = [u32::MAX - 3000, 0, 0, 0];
        frames.iter_mut().for_each(|frame| dress_up(frame, &mut sequences));
    }
    let merged = merge(&frames);
    assert_merged(&frames, &merged);
    let max_frame = 55 + usize::from(limit) * 6;
    for frame in &merged {
        cut_checked(frame, max_frame);
    }
}
