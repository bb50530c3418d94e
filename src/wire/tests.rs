use proptest::prelude::*;
use smoltcp::wire::{Ipv4Packet, TcpPacket};

use super::checksum::{fold, pseudo_header, sum};
use super::*;

/// RFC 1071, 4.1, one word at a time.
fn naive(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[test]
fn the_sum_of_the_rfc_s_example() {
    // RFC 1071, 3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2.
    assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
}

#[test]
fn no_carry_is_lost_in_the_largest_frame() {
    for len in [65_535, 65_536, 65_550] {
        let bytes = vec![0xff; len];
        assert_eq!(fold(sum(&bytes)), naive(&bytes));
    }
}

fn pad(bytes: &[u8], to: usize) -> Vec<u8> {
    let mut frame = bytes.to_vec();
    frame.resize(to, 0);
    frame
}

/// An IPv4 TCP frame with `ip_options` and `tcp_options` bytes of options.
fn ipv4(ip_options: usize, tcp_options: usize, payload: usize) -> Vec<u8> {
    let ip_header = 20 + ip_options;
    let total = ip_header + 20 + tcp_options + payload;
    let mut frame = vec![0; 14 + total];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x40 | (ip_header / 4) as u8;
    frame[16..18].copy_from_slice(&(total as u16).to_be_bytes());
    frame[23] = 6;
    frame[14 + ip_header + 12] = (((20 + tcp_options) / 4) << 4) as u8;
    frame
}

#[test]
fn a_layout_has_options_and_no_padding() {
    let layout = tcp_layout(&pad(&ipv4(8, 12, 5), 100)).unwrap();
    assert_eq!(layout, TcpLayout { ipv6: false, ip: 14, tcp: 42, payload: 74, end: 79 });
    let bare = tcp_layout(&ipv4(0, 0, 0)).unwrap();
    assert_eq!((bare.payload, bare.end), (54, 54));
}

#[test]
fn lengths_that_disagree_have_no_layout() {
    let good = ipv4(0, 0, 10);
    for len in 0..good.len() {
        assert_eq!(tcp_layout(&good[..len]), None, "cut at {len}");
    }
    let with = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        tcp_layout(&frame)
    };
    assert!(with(20, 0x40).is_some(), "don't fragment");
    assert_eq!(with(20, 0x20), None, "more fragments");
    assert_eq!(with(21, 1), None, "an offset");
    assert_eq!(with(23, 17), None, "UDP");
    assert_eq!(with(14, 0x44), None, "a header of 16 bytes");
    assert_eq!(with(14, 0x65), None, "version 6 in an IPv4 frame");
    assert_eq!(with(17, 39), None, "a packet shorter than its headers");
    assert_eq!(with(17, 51), None, "a packet longer than its frame");
    assert_eq!(with(46, 0x40), None, "a TCP header of 16 bytes");
    assert_eq!(with(46, 0xf0), None, "a TCP header longer than its packet");
    assert_eq!(with(12, 0x81), None, "another EtherType");
}

proptest! {
    #[test]
    fn sums_agree_with_the_oracle(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        // 0 and 0xffff are the same number in one's complement.
        prop_assert_eq!(fold(sum(&bytes)) % 0xffff, naive(&bytes) % 0xffff);
    }

    #[test]
    fn pieces_of_even_length_add_up(
        bytes in prop::collection::vec(any::<u8>(), 0..700),
        at in 0usize..350,
    ) {
        let (a, b) = bytes.split_at((at * 2).min(bytes.len() & !1));
        prop_assert_eq!(fold(sum(a) + sum(b)) % 0xffff, naive(&bytes) % 0xffff);
    }

    #[test]
    fn pseudo_headers_add_up(addresses: [u8; 32], protocol: u8, len in 0usize..70_000) {
        let (source, destination) = addresses.split_at(16);
        let mut bytes = addresses.to_vec();
        bytes.extend_from_slice(&(len as u32).to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, protocol]);
        let ours = fold(pseudo_header(source, destination, protocol, len));
        prop_assert_eq!(ours % 0xffff, naive(&bytes) % 0xffff);
    }

    #[test]
    fn a_filled_checksum_is_right(
        payload in prop::collection::vec(any::<u8>(), 0..200),
        padding in 0usize..9,
        addresses: [u8; 8],
    ) {
        let mut frame = ipv4(4, 8, payload.len());
        frame[26..34].copy_from_slice(&addresses);
        let mut layout = tcp_layout(&frame).unwrap();
        frame[layout.payload..].copy_from_slice(&payload);
        frame.resize(frame.len() + padding, 0xee);
        let end = layout.end;
        layout.set_end(&mut frame, end);
        fill_tcp_checksum(&mut frame, &layout);
        let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        prop_assert!(ip.verify_checksum());
        let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
        prop_assert!(tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
    }

    #[test]
    fn arbitrary_bytes_have_a_sound_layout_or_none(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        version in prop::sample::select(vec![[8u8, 0, 0x45], [8, 0, 0x4f], [0x86, 0xdd, 0x60]]),
        lengths: (u8, u8),
    ) {
        if let Some(start) = bytes.get_mut(12..24) {
            start[..3].copy_from_slice(&version);
            start[4..8].copy_from_slice(&[0, lengths.0, 0, lengths.1]);
            start[8] = 6;
            start[11] = 6;
        }
        if let Some(layout) = tcp_layout(&bytes) {
            prop_assert!(layout.ip == 14 && layout.tcp >= 34);
            prop_assert!(layout.payload >= layout.tcp + 20 && layout.payload <= layout.end);
            prop_assert!(layout.end <= bytes.len());
        }
    }
}
