use proptest::prelude::*;

use super::super::check::{cut_checked, merge};
use super::super::testing::{Tcp, opaque, pattern};
use super::*;

#[test]
fn a_super_frame_is_cut_to_the_mtu() {
    for (ipv6, mss) in [(false, 1460), (true, 1440)] {
        for len in [1, mss, mss + 1, 10 * mss, 65_000] {
            let frame = Tcp { ipv6, ..Tcp::data(0, len) }.frame();
            let segments = cut_checked(&frame, 1514).unwrap();
            assert_eq!(segments.len(), len.div_ceil(mss));
        }
    }
}

#[test]
fn the_flags_of_the_ends_are_on_the_ends_alone() {
    let flags = flag::ACK | flag::FIN | flag::PSH | flag::CWR | 0x40;
    let frame = Tcp { flags, ..Tcp::data(0, 3000) }.frame();
    let of = |segment: &Vec<u8>| segment[47];
    let segments = cut_checked(&frame, 1514).unwrap();
    let found: Vec<u8> = segments.iter().map(of).collect();
    let (ece, ack) = (0x40, flag::ACK);
    assert_eq!(found, [ack | ece | flag::CWR, ack | ece, ack | ece | flag::FIN | flag::PSH]);
}

#[test]
fn options_are_in_every_segment_and_count() {
    let options = vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
    let frame = Tcp { options, ..Tcp::data(0, 14_480) }.frame();
    let segments = cut_checked(&frame, 1514).unwrap();
    assert_eq!(segments.len(), 10);
    assert!(segments.iter().all(|segment| segment.len() == 1514));
}

#[test]
fn numbers_wrap() {
    let frame = Tcp {
        sequence: u32::MAX - 1000,
        identification: u16::MAX,
        payload: pattern(0, 5000),
        ..Tcp::default()
    };
    assert_eq!(cut_checked(&frame.frame(), 1514).unwrap().len(), 4);
}

#[test]
fn what_has_one_place_in_the_stream_is_not_cut() {
    for flags in [flag::SYN, flag::RST | flag::ACK, flag::URG | flag::ACK] {
        assert_eq!(cut_checked(&Tcp { flags, ..Tcp::data(0, 3000) }.frame(), 1514), None);
    }
    assert_eq!(cut_checked(&opaque(3000, 1), 1514), None);
    assert_eq!(cut_checked(&Tcp { padding: 3000, ..Tcp::data(0, 0) }.frame(), 1514), None);
    assert_eq!(cut_checked(&Tcp::data(0, 3000).frame(), 54), None);
}

#[test]
fn cut_and_merged_again_is_the_same_frame() {
    for ipv6 in [false, true] {
        let frame = Tcp { ipv6, ..Tcp::data(77, 60_000) }.frame();
        let merged = merge(&cut_checked(&frame, 1514).unwrap());
        let layout = tcp_layout(&frame).unwrap();
        let mut again = merged[0].clone();
        crate::wire::fill_tcp_checksum(&mut again, &layout);
        assert_eq!((merged.len(), again), (1, frame));
    }
}

proptest! {
    #[test]
    fn any_segment_is_cut_right(
        ipv6: bool,
        len in 1usize..65_000,
        words in 0usize..=10,
        sequence: u32,
        identification: u16,
        flags: u8,
        max_frame in 115usize..3000,
        padding in 0usize..4,
    ) {
        let frame = Tcp {
            ipv6,
            sequence,
            identification,
            flags,
            padding,
            options: vec![1; words * 4],
            payload: pattern(0, len),
            ..Tcp::default()
        };
        let barred = flags & (flag::SYN | flag::RST | flag::URG) != 0;
        prop_assert_eq!(cut_checked(&frame.frame(), max_frame).is_none(), barred);
    }
}
