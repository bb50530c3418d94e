use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use smoltcp::time::Instant;
use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, Ipv6Packet, UdpPacket};

use super::*;
use crate::config::{Builder, Offload};
use crate::gateway::reassembly::{Fragment as Piece, Reassembly};
use crate::gateway::testing::*;
use crate::metrics::Counters;
use crate::queues::NetworkFrameQueues;

const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0, 0, 0, 9);

/// What `send` puts into a queue of `frames` frames, and what it counted.
fn sent(
    frames: usize,
    link: &Link,
    send: impl FnOnce(&mut Outlet<'_>, &Link) -> bool,
) -> (Vec<Vec<u8>>, bool, crate::Stats) {
    let queues = NetworkFrameQueues::try_shared(frames).unwrap();
    let counters = Counters::default();
    let mut outlet = Outlet::new(&queues, &counters);
    let went = send(&mut outlet, link);
    drop(outlet);
    let mut drain = queues.drain_to_guest();
    let frames = std::iter::from_fn(|| drain.pop()).collect();
    (frames, went, counters.snapshot())
}

fn endpoints(ipv6: bool) -> (SocketAddr, SocketAddr) {
    if ipv6 {
        ((SERVER_V6, 53).into(), (GUEST_V6, 4000).into())
    } else {
        ((SERVER, 53).into(), (GUEST, 4000).into())
    }
}

/// The one packet in these frames, put together if it must be.
fn whole(frames: &[Vec<u8>], mtu: usize) -> Vec<u8> {
    let mut reassembly = Reassembly::default();
    let mut whole = None;
    for (i, frame) in frames.iter().enumerate() {
        assert!(frame.len() <= mtu + 14, "{} bytes would wedge the guest", frame.len());
        if frames.len() == 1 {
            return frame.clone();
        }
        if frame[12] == 8 {
            let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
            assert!(ip.verify_checksum());
            assert!(!ip.dont_frag());
        }
        let piece = Piece::parse(frame).unwrap();
        whole = reassembly.take(frame, &piece, Instant::ZERO, &Counters::default()).unwrap();
        assert_eq!(whole.is_some(), i + 1 == frames.len(), "in order, and no frame too many");
    }
    whole.unwrap()
}

/// Checks everything about a datagram.
fn check_udp(frame: &[u8], ipv6: bool, payload: &[u8]) {
    let (source, destination) = endpoints(ipv6);
    assert_eq!(frame[..12], [GUEST_MAC, GATEWAY_MAC].concat());
    let udp = if ipv6 {
        assert_eq!(frame[12..14], [0x86, 0xdd]);
        let ip = Ipv6Packet::new_checked(&frame[14..]).unwrap();
        assert_eq!((ip.src_addr(), ip.dst_addr(), ip.hop_limit()), (SERVER_V6, GUEST_V6, 64));
        assert_eq!((ip.next_header(), ip.total_len()), (IpProtocol::Udp, frame.len() - 14));
        ip.payload()
    } else {
        assert_eq!(frame[12..14], [8, 0]);
        let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!((ip.src_addr(), ip.dst_addr(), ip.hop_limit()), (SERVER, GUEST, 64));
        assert_eq!(ip.next_header(), IpProtocol::Udp);
        assert_eq!(usize::from(ip.total_len()), frame.len() - 14);
        ip.payload()
    };
    let udp = UdpPacket::new_checked(udp).unwrap();
    assert_ne!(udp.checksum(), 0, "zero says that there is none");
    assert!(udp.verify_checksum(&source.ip().into(), &destination.ip().into()));
    assert_eq!((udp.src_port(), udp.dst_port()), (53, 4000));
    assert!(udp.payload() == payload, "the payload");
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn datagrams_of_every_size_arrive_whole() {
    for mtu in [1280, 1500] {
        let link = link_of(Builder::default().mtu(mtu), true);
        for ipv6 in [false, true] {
            let most = if ipv6 { 65_527 } else { 65_507 };
            let (source, destination) = endpoints(ipv6);
            let whole_payload = usize::from(mtu) - if ipv6 { 48 } else { 28 };
            for len in [
                0,
                1,
                2,
                7,
                8,
                whole_payload - 1,
                whole_payload,
                whole_payload + 1,
                4096,
                65_000,
                most - 1,
                most,
            ] {
                let payload = pattern(len);
                let (frames, went, stats) = sent(64, &link, |outlet, link| {
                    send_udp(outlet, link, source, destination, &payload)
                });
                assert!(went, "{len} bytes");
                assert_eq!(stats.drops().count(), 0);
                assert_eq!(frames.len() == 1, len <= whole_payload, "{len} bytes");
                check_udp(&whole(&frames, mtu.into()), ipv6, &payload);
            }
        }
    }
}

#[test]
fn a_jumbo_link_takes_the_largest_datagram_in_two_frames() {
    let builder = Builder::default().offload(Offload::Jumbo).mtu(65_520);
    let link = link_of(builder, true);
    for (ipv6, len, count) in [(false, 65_492, 1), (false, 65_507, 2), (true, 65_527, 2)] {
        let (source, destination) = endpoints(ipv6);
        let payload = pattern(len);
        let (frames, ..) =
            sent(8, &link, |outlet, link| send_udp(outlet, link, source, destination, &payload));
        assert_eq!(frames.len(), count);
        check_udp(&whole(&frames, 65_520), ipv6, &payload);
    }
}

#[test]
fn a_datagram_without_room_for_all_of_it_is_dropped_whole_and_counted() {
    let (source, destination) = endpoints(false);
    let payload = pattern(65_507);
    for room in [1, 2, 44] {
        let (frames, went, stats) = sent(room, &link(), |outlet, link| {
            send_udp(outlet, link, source, destination, &payload)
        });
        assert!(!went && frames.is_empty(), "room for {room}");
        assert_eq!(stats.dropped(DropReason::ReplyNoRoom), 1);
    }
    let (frames, went, _) =
        sent(45, &link(), |outlet, link| send_udp(outlet, link, source, destination, &payload));
    assert!(went && frames.len() == 45);
}

#[test]
fn what_no_datagram_holds_is_dropped_and_counted() {
    for (ipv6, len) in [(false, 65_508), (true, 65_528), (false, 70_000), (true, 70_000)] {
        let (source, destination) = endpoints(ipv6);
        let payload = vec![0; len];
        let (frames, went, stats) = sent(100, &link(), |outlet, link| {
            send_udp(outlet, link, source, destination, &payload)
        });
        assert!(!went && frames.is_empty());
        assert_eq!(stats.dropped(DropReason::BadLength), 1);
    }
    let (mixed, _) = endpoints(true);
    let (_, to) = endpoints(false);
    assert!(!sent(8, &link(), |outlet, link| send_udp(outlet, link, mixed, to, b"x")).1);
}

#[test]
fn rfc_768_a_checksum_of_zero_is_sent_as_ones() {
    let (source, destination) = endpoints(false);
    // Two bytes take every value, so one of them makes the sum all ones.
    let zero = (0..=u16::MAX).find(|word| {
        let payload = word.to_be_bytes();
        let (frames, ..) =
            sent(1, &link(), |outlet, link| send_udp(outlet, link, source, destination, &payload));
        check_udp(&frames[0], false, &payload);
        frames[0][40..42] == [0xff, 0xff]
    });
    assert!(zero.is_some());
}

#[test]
fn each_packet_has_an_identification_of_its_own() {
    let link = link();
    let (source, destination) = endpoints(false);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        let (frames, ..) =
            sent(8, &link, |outlet, link| send_udp(outlet, link, source, destination, &[0; 3000]));
        let ids: Vec<_> = frames.iter().map(|frame| [frame[18], frame[19]]).collect();
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
        assert!(seen.insert(ids[0]));
    }
}

#[test]
fn the_reserved_bits_of_fragments_are_zero_in_used_buffers() {
    let (source, destination) = endpoints(true);
    let queues = NetworkFrameQueues::try_shared(64).unwrap();
    for _ in 0..8 {
        queues.recycle(vec![0xff; 4096]);
    }
    let counters = Counters::default();
    let mut outlet = Outlet::new(&queues, &counters);
    assert!(send_udp(&mut outlet, &link(), source, destination, &[0; 5000]));
    drop(outlet);
    let mut drain = queues.drain_to_guest();
    while let Some(frame) = drain.pop() {
        assert_eq!((frame[55], frame[57] & 0b110), (0, 0));
    }
}

#[test]
fn echo_replies_of_every_size_arrive_whole() {
    for len in [0, 1, 56, 1452, 1472, 1473, 8000, 65_507] {
        let data = pattern(len);
        let (frames, went, _) = sent(64, &link(), |outlet, link| {
            send_echo_reply(outlet, link, SERVER.into(), GUEST.into(), 0xbeef, 7, &data)
        });
        assert!(went);
        let frame = whole(&frames, 1500);
        let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
        assert!(ip.verify_checksum() && icmp.verify_checksum());
        assert_eq!((icmp.echo_ident(), icmp.echo_seq_no(), ip.payload()[0]), (0xbeef, 7, 0));
        assert!(icmp.data() == data);
        let (frames, went, _) = sent(64, &link(), |outlet, link| {
            send_echo_reply(outlet, link, SERVER_V6.into(), GUEST_V6.into(), 0xbeef, 7, &data)
        });
        assert!(went);
        let frame = whole(&frames, 1500);
        let ip = Ipv6Packet::new_checked(&frame[14..]).unwrap();
        let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        assert!(icmp.verify_checksum(&SERVER_V6, &GUEST_V6));
        assert_eq!((icmp.echo_ident(), icmp.echo_seq_no(), ip.payload()[0]), (0xbeef, 7, 129));
        assert!(icmp.payload() == data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_datagram_at_any_mtu_arrives_whole(
        mtu in 1280u16..=1500,
        ipv6: bool,
        len in 0usize..=65_507,
        seed: u8,
    ) {
        let link = link_of(Builder::default().mtu(mtu), true);
        let payload: Vec<u8> = pattern(len).iter().map(|byte| byte ^ seed).collect();
        let (source, destination) = endpoints(ipv6);
        let (frames, went, _) = sent(64, &link, |outlet, link| {
            send_udp(outlet, link, source, destination, &payload)
        });
        prop_assert!(went);
        check_udp(&whole(&frames, mtu.into()), ipv6, &payload);
    }
}
