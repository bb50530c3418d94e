use proptest::prelude::*;
use smoltcp::wire::Ipv4Packet;

use super::super::check::{assert_merged, cut_checked, has_right_checksums, merge};
use super::super::testing::{Tcp, opaque, pattern};
use super::*;
use crate::wire::fill_tcp_checksum;

/// Merges, checks what must always hold, and returns the frames.
fn merged(segments: &[Tcp]) -> Vec<Vec<u8>> {
    let frames: Vec<_> = segments.iter().map(Tcp::frame).collect();
    let out = merge(&frames);
    assert_merged(&frames, &out);
    out
}

fn payload(frame: &[u8]) -> &[u8] {
    let layout = tcp_layout(frame).unwrap();
    &frame[layout.payload..layout.end]
}

#[test]
fn a_stream_becomes_few_large_frames() {
    for ipv6 in [false, true] {
        let segments: Vec<_> =
            (0..100).map(|i| Tcp { ipv6, ..Tcp::data(i * 1448, 1448) }).collect();
        let out = merged(&segments);
        assert_eq!(out.len(), 3);
        assert!(out[0].len() > MAX_FRAME - 1448 && out[0].len() <= MAX_FRAME);
        let bytes: Vec<u8> = out.iter().flat_map(|frame| payload(frame).to_vec()).collect();
        assert_eq!(bytes, pattern(0, 144_800));
    }
}

#[test]
fn the_largest_merge_fills_the_frame_or_the_ip_length() {
    // A frame of 65,550 bytes holds an IPv4 packet of 65,536, one more than its length can say.
    for (ipv6, most) in [(false, 65_535 - 40), (true, MAX_FRAME - 74)] {
        for (len, frames) in [(most, 1), (most + 1, 2)] {
            let first = Tcp { ipv6, ..Tcp::data(0, 32_000) };
            let second = Tcp { ipv6, ..Tcp::data(32_000, len - 32_000) };
            assert_eq!(merged(&[first, second]).len(), frames, "{len} bytes");
        }
    }
}

#[test]
fn a_merged_frame_is_what_one_super_segment_would_be() {
    let mut out = merged(&[Tcp::data(0, 700), Tcp { identification: 10, ..Tcp::data(700, 900) }]);
    let frame = &mut out[0];
    let layout = tcp_layout(frame).unwrap();
    fill_tcp_checksum(frame, &layout);
    assert!(has_right_checksums(frame));
    assert_eq!(*frame, Tcp::data(0, 1600).frame());
}

#[test]
fn a_lone_frame_stays_as_it_was() {
    let frame = Tcp { padding: 5, ..Tcp::data(0, 1) }.frame();
    let out = merge(std::slice::from_ref(&frame));
    assert_eq!(out[0], frame);
}

#[test]
fn ethernet_padding_is_not_payload() {
    let out = merged(&[
        Tcp { padding: 5, ..Tcp::data(0, 1) },
        Tcp { padding: 3, ..Tcp::data(1, 3) },
        Tcp { padding: 2, ..Tcp::data(4, 4) },
    ]);
    assert_eq!((out.len(), payload(&out[0])), (1, &pattern(0, 8)[..]));
}

#[test]
fn push_is_carried_over_and_ends_the_frame() {
    let push = |start| Tcp { flags: flag::ACK | flag::PSH, ..Tcp::data(start, 100) };
    let out = merged(&[Tcp::data(0, 100), push(100), Tcp::data(200, 100), push(300), push(400)]);
    assert_eq!(out.len(), 3);
    assert!(out.iter().all(|frame| frame[47] == flag::ACK | flag::PSH));
}

#[test]
fn sequence_numbers_wrap() {
    let start = u32::MAX - 99;
    let first = Tcp { sequence: start, payload: pattern(0, 100), ..Tcp::default() };
    assert_eq!(merged(&[first, Tcp::data(0, 10)]).len(), 1);
}

#[test]
fn a_difference_in_any_header_field_keeps_two_frames() {
    let base = Tcp::data(100, 50);
    let variants: Vec<fn(&mut Tcp)> = vec![
        |tcp| tcp.sequence += 1,
        |tcp| tcp.sequence -= 1,
        |tcp| tcp.acknowledgement += 1,
        |tcp| tcp.window += 1,
        |tcp| tcp.hops -= 1,
        |tcp| tcp.port += 1,
        |tcp| tcp.options = vec![1, 1, 1, 1],
        |tcp| tcp.flags |= flag::FIN,
        |tcp| tcp.flags |= flag::SYN,
        |tcp| tcp.flags |= flag::RST,
        |tcp| tcp.flags |= flag::URG,
        |tcp| tcp.flags |= flag::CWR,
        |tcp| tcp.flags |= 0x40,
        |tcp| tcp.flags = 0,
        |tcp| tcp.payload.clear(),
    ];
    for ipv6 in [false, true] {
        let first = Tcp { ipv6, ..Tcp::data(0, 100) };
        assert_eq!(merged(&[first.clone(), Tcp { ipv6, ..base.clone() }]).len(), 1);
        for (i, change) in variants.iter().enumerate() {
            let mut second = Tcp { ipv6, ..base.clone() };
            change(&mut second);
            assert_eq!(merged(&[first.clone(), second]).len(), 2, "variant {i}");
        }
    }
}

#[test]
fn every_byte_of_the_headers_counts_or_is_rewritten() {
    // Ethernet, TOS, DF, TTL, the low half of the offset byte; IPv6 class, label, hop limit.
    let changes = [(false, vec![0, 6, 15, 20, 22, 46]), (true, vec![0, 6, 15, 17, 21, 66])];
    for (ipv6, places) in changes {
        for at in places {
            let mut second = Tcp { ipv6, ..Tcp::data(100, 50) }.frame();
            second[at] ^= if at == 20 { 0x40 } else { 1 };
            if !ipv6 {
                Ipv4Packet::new_unchecked(&mut second[14..]).fill_checksum();
            }
            let frames = [Tcp { ipv6, ..Tcp::data(0, 100) }.frame(), second];
            let out = merge(&frames);
            assert_eq!(out, frames, "byte {at}");
        }
    }
}

#[test]
fn a_wrong_ip_checksum_is_not_made_right() {
    let mut second = Tcp::data(100, 50).frame();
    second[24] ^= 1;
    let frames = [Tcp::data(0, 100).frame(), second, Tcp::data(150, 10).frame()];
    assert_eq!(merge(&frames), frames);
}

#[test]
fn a_frame_that_does_not_merge_ends_the_one_before() {
    // Were the FIN to leave the first frame open, the third would overtake it.
    let fin = Tcp { flags: flag::ACK | flag::FIN, ..Tcp::data(100, 0) };
    let out = merged(&[Tcp::data(0, 100), fin, Tcp::data(100, 100)]);
    assert_eq!(out.len(), 3);
}

#[test]
fn bursts_of_many_flows_each_merge() {
    let flow = |port, start| Tcp { port, ..Tcp::data(start, 100) };
    let bursts = (0..4).flat_map(|burst| (0..20).map(move |port| (port, burst)));
    let segments: Vec<_> = bursts
        .flat_map(|(port, burst)| (0..10).map(move |i| flow(port, (10 * burst + i) * 100)))
        .collect();
    assert_eq!(merged(&segments).len(), 80);
}

#[test]
fn order_is_kept_between_flows() {
    let flow = |port, start| Tcp { port, ..Tcp::data(start, 100) };
    let segments = [flow(1, 0), flow(2, 0), flow(1, 100), flow(2, 100)];
    let frames: Vec<_> = segments.iter().map(Tcp::frame).collect();
    assert_eq!(merge(&frames), frames);
}

#[test]
fn the_same_ports_over_ipv4_and_ipv6_are_two_flows() {
    let six = |start| Tcp { ipv6: true, ..Tcp::data(start, 100) };
    assert_eq!(merged(&[Tcp::data(0, 100), Tcp::data(100, 100), six(200), six(300)]).len(), 2);
}

#[test]
fn headers_of_every_length_are_compared_to_their_last_byte() {
    for words in 0..=10 {
        let options = vec![1; 4 * words];
        let first = Tcp { options: options.clone(), ..Tcp::data(0, 100) };
        let second = Tcp { options, ..Tcp::data(100, 100) };
        assert_eq!(merged(&[first.clone(), second.clone()]).len(), 1);
        for at in 0..4 * words {
            let mut second = second.clone();
            second.options[at] = 0;
            assert_eq!(merged(&[first.clone(), second]).len(), 2, "{words} words, byte {at}");
        }
    }
}

fn segment() -> impl Strategy<Value = (u16, usize, u8, u8, bool)> {
    (0u16..3, 0usize..1500, 0u8..40, any::<u8>(), any::<bool>())
}

proptest! {
    #[test]
    fn any_mix_keeps_every_stream(
        mix in prop::collection::vec(segment(), 0..120),
        ipv6: bool,
        max_frame in 200usize..1600,
    ) {
        let mut next = [0usize; 3];
        let frames: Vec<_> = mix
            .into_iter()
            .map(|(port, len, oddity, detail, padded)| {
                let at = &mut next[usize::from(port)];
                let mut tcp = Tcp { ipv6, port, ..Tcp::data(*at, len) };
                tcp.padding = usize::from(padded) * 3;
                *at += len;
                match oddity {
                    0 => return opaque(60, detail),
                    1 => tcp.flags = detail,
                    2 => tcp.sequence = u32::from(detail),
                    3 => tcp.window = u16::from(detail),
                    4..8 => tcp.flags |= flag::PSH,
                    _ => {}
                }
                tcp.frame()
            })
            .collect();
        let out = merge(&frames);
        assert_merged(&frames, &out);
        // And the way back: cut segments merge into what was cut, but for the bounds.
        for frame in &out {
            if let Some(segments) = cut_checked(frame, max_frame) {
                assert_merged(&segments, &merge(&segments));
            }
        }
    }
}
