use smoltcp::wire::{Ipv4Packet, TcpPacket};

use super::*;
use crate::gateway::testing::*;
use crate::pool::LARGE;
use crate::rate::RateLimit;

/// Sends one packet through the device and takes what the guest would get.
fn sent(link: &Link, packet: &[u8]) -> Vec<u8> {
    let queues = NetworkFrameQueues::try_shared(4).unwrap();
    let counters = Counters::default();
    let mut outlet = Outlet::new(&queues, &counters);
    let mut device = LinkDevice::for_egress(link, &mut outlet, 0);
    let token = device.transmit(Instant::ZERO).unwrap();
    token.consume(packet.len(), |bytes| bytes.copy_from_slice(packet));
    assert!(!device.is_exhausted());
    drop(outlet);
    queues.drain_to_guest().pop().unwrap()
}

#[test]
fn a_packet_gets_its_header_its_mss_and_its_checksum() {
    let to: std::net::IpAddr = "93.184.216.34".parse().unwrap();
    let mut tcp = Tcp { options: vec![2, 4, 0xff, 0xd7], ..Tcp::to(to, 0x12) }.frame();
    tcp[14 + 20 + 16..14 + 20 + 18].copy_from_slice(&[0xab, 0xcd]); // smoltcp leaves it open
    let frame = sent(&link(), &tcp[14..]);
    assert_eq!(frame[..14], [&GUEST_MAC[..], &GATEWAY_MAC, &[8, 0]].concat());
    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    let packet = TcpPacket::new_checked(ip.payload()).unwrap();
    assert!(packet.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
    assert_eq!(packet.options(), [2, 4, 0x05, 0xb4]);
    let v6 = Tcp::to(GATEWAY_V6, 0x10).frame();
    assert_eq!(sent(&link(), &v6[14..])[12..14], [0x86, 0xdd]);
}

#[test]
fn without_room_there_is_no_token_and_the_flow_waits() {
    // Room for one frame of any size, and no more.
    let queues = NetworkFrameQueues::with_bounds(16, LARGE + 100).unwrap();
    let counters = Counters::default();
    let mut outlet = Outlet::new(&queues, &counters);
    assert!(outlet.has_room());
    outlet.reply(Vec::with_capacity(2048));
    assert!(!outlet.has_room());
    let link = link();
    let mut device = LinkDevice::for_egress(&link, &mut outlet, 0);
    assert!(device.transmit(Instant::ZERO).is_none());
    assert!(device.is_exhausted());
    drop(outlet);
    assert!(queues.drain_to_guest().pop().is_some());
    let mut outlet = Outlet::new(&queues, &counters);
    let mut device = LinkDevice::for_egress(&link, &mut outlet, 0);
    assert!(device.transmit(Instant::ZERO).is_some());
}

#[test]
fn a_reply_without_room_is_counted() {
    let queues = NetworkFrameQueues::try_shared(2).unwrap();
    let counters = Counters::default();
    let mut outlet = Outlet::new(&queues, &counters);
    for _ in 0..5 {
        outlet.reply(vec![0; 60]);
    }
    assert_eq!(counters.snapshot().dropped(DropReason::ReplyNoRoom), 3);
}

#[test]
fn a_packet_is_received_once() {
    let queues = NetworkFrameQueues::try_shared(2).unwrap();
    let counters = Counters::default();
    let mut outlet = Outlet::new(&queues, &counters);
    let link = link();
    let mut device = LinkDevice::for_ingress(&link, &mut outlet, b"packet", 0);
    let (received, _) = device.receive(Instant::ZERO).unwrap();
    assert_eq!(received.consume(<[u8]>::to_vec), b"packet");
    assert!(device.receive(Instant::ZERO).is_none());
}

/// An outlet with an empty bucket of 5 frames, which never fills.
fn spent(queues: &NetworkFrameQueues, work: impl FnOnce(&mut Outlet<'_>)) -> Counters {
    let limit = RateLimit { burst_packets: 5, ..RateLimit::packets(0) };
    let mut limiter = Limiter::new(limit, 1514, Instant::ZERO);
    let counters = Counters::default();
    let mut outlet = Outlet { limiter: Some(&mut limiter), ..Outlet::new(queues, &counters) };
    for _ in 0..5 {
        assert!(outlet.has_room());
        assert!(outlet.admits_datagram() && outlet.send(vec![0; 60]));
    }
    work(&mut outlet);
    drop(outlet);
    counters
}

#[test]
fn without_tokens_flows_wait_and_datagrams_are_dropped() {
    let queues = NetworkFrameQueues::try_shared(64).unwrap();
    let counters = spent(&queues, |outlet| {
        assert!(!outlet.has_room());
        assert!(!outlet.admits_datagram());
        let link = link();
        let mut device = LinkDevice::for_egress(&link, outlet, 0);
        assert!(device.transmit(Instant::ZERO).is_none());
        assert!(device.is_exhausted());
    });
    assert_eq!(counters.snapshot().dropped(DropReason::RateLimit), 1);
    assert_eq!(queues.host_to_guest.len(), 5);
}

#[test]
fn replies_have_credit_and_leave_flows_waiting() {
    let queues = NetworkFrameQueues::try_shared(64).unwrap();
    let counters = spent(&queues, |outlet| {
        for n in 0..7 {
            assert_eq!(outlet.reply(vec![0; 60]), n < 5);
        }
        assert!(!outlet.has_room());
    });
    assert_eq!(counters.snapshot().dropped(DropReason::RateLimit), 2);
    assert_eq!(queues.host_to_guest.len(), 10);
}

#[test]
fn a_reply_without_room_costs_no_tokens() {
    let queues = NetworkFrameQueues::try_shared(1).unwrap();
    let counters = Counters::default();
    let limit = RateLimit { burst_packets: 2, ..RateLimit::packets(0) };
    let mut limiter = Limiter::new(limit, 1514, Instant::ZERO);
    let mut outlet = Outlet { limiter: Some(&mut limiter), ..Outlet::new(&queues, &counters) };
    assert!(outlet.reply(vec![0; 60]));
    assert!(!outlet.reply(vec![0; 60]));
    drop(outlet);
    assert!(limiter.has_tokens());
    assert_eq!(counters.snapshot().dropped(DropReason::ReplyNoRoom), 1);
}
