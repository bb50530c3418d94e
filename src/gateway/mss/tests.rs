use proptest::prelude::*;

use super::*;
use crate::config::{Builder, Offload};
use crate::gateway::testing::*;

const SYN: u8 = 2;

/// A TCP header with these options, which must be a multiple of four bytes.
fn header(flags: u8, options: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[12] = (((20 + options.len()) / 4) << 4) as u8;
    segment[13] = flags;
    segment.extend_from_slice(options);
    segment
}

#[track_caller]
fn clamped(options: &[u8], most: u16) -> Vec<u8> {
    let mut segment = header(SYN, options);
    clamp_mss(&mut segment, most);
    segment.split_off(20)
}

#[test]
fn the_option_is_lowered_and_never_raised() {
    assert_eq!(clamped(&[2, 4, 0xff, 0xff], 1460), [2, 4, 0x05, 0xb4]);
    assert_eq!(clamped(&[2, 4, 0x05, 0xb4], 1460), [2, 4, 0x05, 0xb4]);
    assert_eq!(clamped(&[2, 4, 0x02, 0x00], 1460), [2, 4, 0x02, 0x00]);
    assert_eq!(clamped(&[2, 4, 0, 0], 1460), [2, 4, 0, 0]);
    assert_eq!(
        clamped(&[1, 3, 3, 7, 4, 2, 2, 4, 0xff, 0xff, 0, 0], 1220),
        [1, 3, 3, 7, 4, 2, 2, 4, 0x04, 0xc4, 0, 0]
    );
}

#[test]
fn every_occurrence_is_lowered() {
    // smoltcp takes the last.
    let two = clamped(&[2, 4, 0x05, 0xb4, 2, 4, 0xff, 0xff], 1460);
    assert_eq!(two, [2, 4, 0x05, 0xb4, 2, 4, 0x05, 0xb4]);
}

#[test]
fn segments_without_syn_are_left_alone() {
    for flags in [0x10, 0x11, 0x04, 0x18] {
        let mut segment = header(flags, &[2, 4, 0xff, 0xff]);
        let before = segment.clone();
        clamp_mss(&mut segment, 1460);
        assert_eq!(segment, before);
    }
}

#[test]
fn hostile_options_end_the_walk() {
    for options in [
        [0, 2, 4, 0xff],
        [2, 0, 0xff, 0xff],
        [2, 1, 0xff, 0xff],
        [2, 3, 0xff, 0xff],
        [2, 255, 0xff, 0xff],
        [1, 1, 2, 4],
        [1, 1, 1, 2],
        [8, 255, 0, 0],
        [8, 0, 2, 4],
        [8, 1, 2, 4],
    ] {
        assert_eq!(clamped(&options, 100), options);
    }
}

#[test]
fn a_header_that_lies_is_no_danger() {
    for offset in 0..=15u8 {
        for len in 0..=30 {
            let mut segment = vec![2; len];
            if let Some(byte) = segment.get_mut(12) {
                *byte = offset << 4;
            }
            clamp_mss(&mut segment, 1);
            assert_eq!(segment.len(), len);
        }
    }
}

/// What smoltcp is told, and what counts as one segment.
fn told(link: &Link, v6: bool, options: &[u8]) -> (Option<u16>, usize) {
    let to: std::net::IpAddr = if v6 { "2001:db9::1" } else { "93.184.216.34" }.parse().unwrap();
    let mut frame = Tcp { options: options.to_vec(), ..Tcp::to(to, SYN) }.frame();
    let mss = tell_mss(&mut frame, link);
    let at = frame.len() - options.len();
    let option =
        options.starts_with(&[2, 4]).then(|| u16::from_be_bytes([frame[at + 2], frame[at + 3]]));
    (option, mss)
}

#[test]
fn where_nobody_cuts_the_guest_s_mss_is_its_own() {
    let link = link_of(Builder::default(), false);
    assert_eq!(told(&link, false, &[2, 4, 0x05, 0xb4]), (Some(1460), 1460));
    assert_eq!(told(&link, false, &[2, 4, 0xff, 0xff]), (Some(1460), 1460));
    assert_eq!(told(&link, false, &[2, 4, 0x02, 0x00]), (Some(512), 512));
    assert_eq!(told(&link, true, &[2, 4, 0xff, 0xff]), (Some(1440), 1440));
    assert_eq!(told(&link, false, &[1, 1, 1, 1]), (None, 536));
    assert_eq!(told(&link, false, &[]), (None, 536));
}

#[test]
fn where_the_writer_cuts_a_super_segment_is_whole_segments() {
    let link = link();
    assert_eq!(told(&link, false, &[2, 4, 0x05, 0xb4]), (Some(44 * 1460), 1460));
    assert_eq!(told(&link, false, &[2, 4, 0xff, 0xff]), (Some(44 * 1460), 1460));
    assert_eq!(told(&link, true, &[2, 4, 0x05, 0xa0]), (Some(45 * 1440), 1440));
    // One that asks for less than its MTU allows gets that, cut by nobody.
    assert_eq!(told(&link, false, &[2, 4, 0x05, 0xb3]), (Some(1459), 1459));
    assert_eq!(told(&link, false, &[]), (None, 536));
    let jumbo = link_of(Builder::default().mtu(65_520).offload(Offload::Jumbo), true);
    assert_eq!(told(&jumbo, false, &[2, 4, 0xff, 0xff]), (Some(65_480), 65_480));
    assert_eq!(told(&jumbo, true, &[2, 4, 0xff, 0xff]), (Some(65_460), 65_460));
}

proptest! {
    #[test]
    fn any_bytes_keep_their_length_and_all_but_mss_values(
        bytes in prop::collection::vec(any::<u8>(), 0..70),
        most: u16,
    ) {
        let mut segment = bytes.clone();
        clamp_mss(&mut segment, most);
        prop_assert_eq!(segment.len(), bytes.len());
        prop_assert_eq!(segment.iter().take(20).collect::<Vec<_>>(), bytes.iter().take(20).collect::<Vec<_>>());
    }

    /// Whatever the guest's options are, smoltcp takes no more from them than it may send.
    #[test]
    fn smoltcp_is_never_told_more_than_the_link_holds(
        pieces in prop::collection::vec(prop::sample::select(vec![
            vec![2u8, 4, 0xff, 0xff], vec![2, 4, 5, 0xb4], vec![2, 4, 0, 9], vec![1, 1, 1, 1], vec![4, 2, 1, 1],
            vec![3, 3, 14, 1], vec![0, 0, 0, 0], vec![254, 4, 2, 4],
        ]), 0..10),
    ) {
        use smoltcp::phy::ChecksumCapabilities;
        use smoltcp::wire::{TcpPacket, TcpRepr};
        let link = link_of(Builder::default(), false);
        let to: std::net::IpAddr = "93.184.216.34".parse().unwrap();
        let mut frame = Tcp { options: pieces.concat(), ..Tcp::to(to, SYN) }.frame();
        tell_mss(&mut frame, &link);
        let tcp = TcpPacket::new_checked(&frame[34..]).unwrap();
        let caps = ChecksumCapabilities::ignored();
        let from: std::net::IpAddr = GUEST.into();
        let repr = TcpRepr::parse(&tcp, &from.into(), &to.into(), &caps).unwrap();
        prop_assert!(repr.max_seg_size.unwrap_or(536) <= 1460);
    }
}

#[test]
fn a_slow_link_has_no_super_segments() {
    let mut link = link();
    let told = |link: &Link| {
        let mut frame = Tcp { options: vec![2, 4, 5, 0xb4], ..Tcp::to([1, 2, 3, 4], 2) }.frame();
        assert_eq!(tell_mss(&mut frame, link), 1460);
        u16::from_be_bytes([frame[56], frame[57]])
    };
    assert_eq!(told(&link), 44 * 1460);
    for (span, wanted) in [(0, 1460), (1500, 1460), (5000, 3 * 1460), (1 << 20, 44 * 1460)] {
        link.super_segment = span;
        assert_eq!(told(&link), wanted, "{span} bytes between refills");
    }
}
