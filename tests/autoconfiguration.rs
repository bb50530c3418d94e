//! A guest that configures itself, over the stream and over the queues: what it hears, and what it
//! hears when the gateway goes.

#![cfg(all(feature = "runtime", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support_guest;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use framegate::{Runtime, StopReason};
use smoltcp::wire::{Icmpv6Packet, IpProtocol};

use support_guest::raw::{arp_request, ip_frame};
use support_guest::wire::{Wire, start, start_with_queues};
use support_guest::{GATEWAY_MAC, GATEWAY_V4, GUEST_MAC, GUEST_V4, PATIENCE, check};

const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x53, 0x4dff, 0xfe00, 2);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A DHCP message with rapid commit and the broadcast flag, as libkrun's client sends it.
fn discover() -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0x80, 0];
    message.resize(28, 0);
    message.extend_from_slice(&GUEST_MAC);
    message.resize(236, 0);
    message.extend_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 80, 0, 255]);
    let length = (8 + message.len()) as u16;
    let datagram = [&[0, 68, 0, 67][..], &length.to_be_bytes(), &[0, 0], &message].concat();
    let (from, to) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    ip_frame(from.into(), to.into(), IpProtocol::Udp, &datagram)
}

fn router_solicitation() -> Vec<u8> {
    let mut message = [&[133, 0, 0, 0, 0, 0, 0, 0, 1, 1][..], &GUEST_MAC].concat();
    let mut packet = Icmpv6Packet::new_unchecked(&mut message[..]);
    packet.fill_checksum(&LINK_LOCAL, &ALL_ROUTERS);
    let (from, to) = (IpAddr::V6(LINK_LOCAL), IpAddr::V6(ALL_ROUTERS));
    let mut frame = ip_frame(from, to, IpProtocol::Icmpv6, &message);
    frame[14 + 7] = 255;
    frame
}

fn receive(wire: &Wire) -> Vec<u8> {
    let frame = wire.receive(PATIENCE).expect("an answer");
    check::frame(&frame, 1500);
    frame
}

/// The destination of a router advertisement, and how long its router is a default router.
#[track_caller]
fn advertised(frame: &[u8]) -> (Ipv6Addr, u16) {
    assert_eq!((frame[14 + 6], frame[54]), (58, 134), "a router advertisement");
    let to: [u8; 16] = frame[14 + 24..14 + 40].try_into().unwrap();
    (to.into(), u16::from_be_bytes([frame[60], frame[61]]))
}

#[test]
fn a_lease_comes_with_the_first_answer() {
    for (runtime, wire) in [start(Runtime::builder()), start_with_queues(Runtime::builder())] {
        wire.send(&discover());
        let answer = receive(&wire);
        assert_eq!(answer[..12], [&[0xff; 6], &GATEWAY_MAC[..]].concat());
        assert_eq!(answer[26..34], [&GATEWAY_V4.octets()[..], &[255; 4]].concat());
        assert_eq!(answer[42 + 16..42 + 20], GUEST_V4.octets());
        assert_eq!(answer[42 + 240..42 + 243], [53, 1, 5], "an acknowledgement");
        assert_eq!(runtime.stats().dhcp_replies, 1);
    }
}

#[test]
fn the_last_advertisement_withdraws_the_router() {
    let (runtime, wire) = start(Runtime::builder());
    wire.send(&router_solicitation());
    let (to, _) = advertised(&receive(&wire));
    assert_eq!(to, LINK_LOCAL);
    let stats = runtime.stats_reader();
    assert!(matches!(runtime.shutdown(), StopReason::Requested));
    assert_eq!(advertised(&receive(&wire)), (ALL_NODES, 0));
    assert_eq!(stats.read().router_advertisements, 2);
    assert!(wire.is_hung_up(PATIENCE));
}

#[test]
fn a_guest_that_asks_for_nothing_hears_nothing() {
    let (runtime, wire) = start(Runtime::builder());
    wire.send(&arp_request());
    assert_eq!(receive(&wire)[12..14], [8, 6]);
    runtime.shutdown();
    assert_eq!(wire.receive(PATIENCE), None, "and nothing at the end");
}
