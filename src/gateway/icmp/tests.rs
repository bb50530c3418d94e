use smoltcp::wire::{Icmpv4Repr, Icmpv6Repr};

use super::*;
use crate::config::Builder;
use crate::gateway::testing::*;
use crate::metrics::DropReason;

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8).collect()
}

#[test]
fn the_echo_reply_is_the_request_turned_round() {
    for len in [0, 1, 2, 55, 56, 1472] {
        let request = echo(GATEWAY, &data(len));
        let reply = reply(&link(), &request);
        let mut wanted = request.clone();
        wanted[..6].copy_from_slice(&GUEST_MAC);
        wanted[6..12].copy_from_slice(&GATEWAY_MAC);
        wanted[22] = 64; // TTL
        wanted[26..30].copy_from_slice(&GATEWAY.octets());
        wanted[30..34].copy_from_slice(&GUEST.octets());
        wanted[34] = 0; // echo reply
        wanted[24..26].copy_from_slice(&reply[24..26]);
        wanted[36..38].copy_from_slice(&reply[36..38]);
        assert_eq!(reply, wanted, "{len} bytes");
        let ip = Ipv4Packet::new_checked(&reply[14..]).unwrap();
        assert!(ip.verify_checksum());
        assert!(Icmpv4Packet::new_checked(ip.payload()).unwrap().verify_checksum());
    }
}

#[test]
fn the_echo_reply_over_ipv6_is_the_request_turned_round() {
    for gateway in [GATEWAY_V6, LINK_LOCAL] {
        for len in [0, 1, 56, 1452] {
            let request = echo(gateway, &data(len));
            let reply = reply(&link(), &request);
            let mut wanted = request.clone();
            wanted[..6].copy_from_slice(&GUEST_MAC);
            wanted[6..12].copy_from_slice(&GATEWAY_MAC);
            wanted[21] = 64; // hop limit
            wanted[22..38].copy_from_slice(&gateway.octets());
            wanted[38..54].copy_from_slice(&GUEST_V6.octets());
            wanted[54] = 129; // echo reply
            wanted[56..58].copy_from_slice(&reply[56..58]);
            assert_eq!(reply, wanted, "{len} bytes");
            let ip = Ipv6Packet::new_checked(&reply[14..]).unwrap();
            let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
            assert!(icmp.verify_checksum(&gateway, &GUEST_V6));
        }
    }
}

#[test]
fn padding_comes_back_in_no_reply() {
    for gateway in [std::net::IpAddr::from(GATEWAY), GATEWAY_V6.into()] {
        let request = echo(gateway, b"abc");
        let mut padded = request.clone();
        padded.resize(request.len() + 30, 0x55);
        assert_eq!(reply(&link(), &padded), reply(&link(), &request));
    }
}

#[test]
fn a_request_with_a_bad_checksum_is_refused() {
    let mut frame = echo(GATEWAY, b"abc");
    frame[36] ^= 1;
    assert_eq!(silence(&link(), &frame), DropReason::Icmp);
    let mut frame = echo(GATEWAY_V6, b"abc");
    frame[56] ^= 1;
    silence(&link(), &frame);
}

#[test]
fn a_request_that_would_not_fit_on_the_way_back_is_refused() {
    let link = link_of(Builder::default().mtu(1280), true);
    reply(&link, &echo(GATEWAY, &data(1252)));
    assert_eq!(silence(&link, &echo(GATEWAY, &data(1253))), DropReason::Icmp);
    reply(&link, &echo(GATEWAY_V6, &data(1232)));
    assert_eq!(silence(&link, &echo(GATEWAY_V6, &data(1233))), DropReason::Icmp);
    assert_eq!(silence(&link, &echo(GATEWAY, &data(65_000))), DropReason::Icmp);
}

#[test]
fn other_messages_to_the_gateway_are_refused() {
    for (kind, code) in [(0, 0), (3, 1), (5, 0), (11, 0), (13, 0), (17, 0), (8, 1), (255, 255)] {
        let mut frame = echo(GATEWAY, &data(56));
        frame[34] = kind;
        frame[35] = code;
        Icmpv4Packet::new_unchecked(&mut frame[34..]).fill_checksum();
        assert_eq!(silence(&link(), &frame), DropReason::Icmp, "type {kind} code {code}");
    }
    for (kind, code) in [(129, 0), (1, 0), (2, 0), (137, 0), (130, 0), (143, 0), (128, 1)] {
        let mut frame = echo(GATEWAY_V6, &data(56));
        frame[54] = kind;
        frame[55] = code;
        Icmpv6Packet::new_unchecked(&mut frame[54..]).fill_checksum(&GUEST_V6, &GATEWAY_V6);
        let reason = silence(&link(), &frame);
        assert!(
            matches!(reason, DropReason::Icmp | DropReason::Ndp | DropReason::Malformed),
            "type {kind} code {code}: {reason:?}"
        );
    }
}

#[test]
fn an_echo_to_a_group_or_from_nobody_is_refused() {
    let message = Icmpv6Repr::EchoRequest { ident: 1, seq_no: 1, data: b"x" };
    let all: Ipv6Addr = "ff02::1".parse().unwrap();
    assert_eq!(silence(&link(), &icmpv6(GUEST_V6, all, 64, &message)), DropReason::Icmp);
    let frame = icmpv6(Ipv6Addr::UNSPECIFIED, GATEWAY_V6, 64, &message);
    assert_eq!(silence(&link(), &frame), DropReason::Icmp);
}

fn offending(to: impl Into<std::net::IpAddr>, payload: usize) -> Vec<u8> {
    let options = vec![2, 4, 5, 0xb4];
    Tcp { options, payload: data(payload), ..Tcp::to(to, 2) }.frame()
}

#[test]
fn unreachable_messages_quote_the_offending_packet_exactly() {
    let remote: Ipv4Addr = [203, 0, 114, 9].into();
    for (why, wanted) in [
        (Unreachable::Network, Icmpv4DstUnreachable::NetUnreachable),
        (Unreachable::Host, Icmpv4DstUnreachable::HostUnreachable),
        (Unreachable::Prohibited, Icmpv4DstUnreachable::CommProhibited),
    ] {
        for payload in [0, 1, 100, 1400] {
            let packet = offending(remote, payload);
            let frame = unreachable(vec![0xdd; 40], &link(), &packet, why).unwrap();
            assert_eq!(frame[..14], [&GUEST_MAC[..], &GATEWAY_MAC, &[8, 0]].concat());
            assert!(frame.len() <= 14 + 576);
            let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
            assert!(ip.verify_checksum());
            assert_eq!(usize::from(ip.total_len()), frame.len() - 14);
            assert_eq!((ip.src_addr(), ip.dst_addr()), (GATEWAY, GUEST));
            let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
            let caps = ChecksumCapabilities::default();
            assert!(icmp.verify_checksum());
            assert_eq!(icmp.msg_type(), Icmpv4Message::DstUnreachable);
            assert_eq!(icmp.msg_code(), u8::from(wanted));
            // smoltcp refuses a quote that is shorter than the packet it quotes.
            if packet.len() - 14 <= 548 {
                let Icmpv4Repr::DstUnreachable { reason, header, data } =
                    Icmpv4Repr::parse(&icmp, &caps).unwrap()
                else {
                    panic!("another message")
                };
                assert_eq!(reason, wanted);
                assert_eq!((header.src_addr, header.dst_addr), (GUEST, remote));
                assert!(data.len() >= 8, "ports and sequence number");
            }
            let quote = &ip.payload()[8..];
            assert_eq!(quote, &packet[14..14 + quote.len()], "the quote differs");
            assert_eq!(quote.len(), (packet.len() - 14).min(548));
        }
    }
}

#[test]
fn unreachable_messages_over_ipv6_quote_the_offending_packet_exactly() {
    let remote: Ipv6Addr = "2001:db9::9".parse().unwrap();
    for (why, wanted) in [
        (Unreachable::Network, Icmpv6DstUnreachable::NoRoute),
        (Unreachable::Host, Icmpv6DstUnreachable::AddrUnreachable),
        (Unreachable::Prohibited, Icmpv6DstUnreachable::AdminProhibit),
    ] {
        for payload in [0, 1, 100, 1400] {
            let packet = offending(remote, payload);
            let frame = unreachable(vec![0xdd; 4000], &link(), &packet, why).unwrap();
            assert_eq!(frame[..14], [&GUEST_MAC[..], &GATEWAY_MAC, &[0x86, 0xdd]].concat());
            assert!(frame.len() <= 14 + 1280);
            let ip = Ipv6Packet::new_checked(&frame[14..]).unwrap();
            assert_eq!(ip.total_len(), frame.len() - 14);
            assert_eq!((ip.src_addr(), ip.dst_addr()), (GATEWAY_V6, GUEST_V6));
            let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
            let caps = ChecksumCapabilities::default();
            let Icmpv6Repr::DstUnreachable { reason, header, .. } =
                Icmpv6Repr::parse(&ip.src_addr(), &ip.dst_addr(), &icmp, &caps).unwrap()
            else {
                panic!("another message")
            };
            assert_eq!(reason, wanted);
            assert_eq!((header.src_addr, header.dst_addr), (GUEST_V6, remote));
            let quote = &ip.payload()[8..];
            assert_eq!(quote, &packet[14..14 + quote.len()], "the quote differs");
            assert_eq!(quote.len(), (packet.len() - 14).min(548));
        }
    }
}

#[test]
fn a_message_of_zeroes_in_the_unused_field() {
    let frame = unreachable(vec![0xff; 700], &link(), &offending(GATEWAY, 0), Unreachable::Host);
    assert_eq!(frame.unwrap()[38..42], [0; 4]);
    let frame = unreachable(vec![0xff; 700], &link(), &offending(GATEWAY_V6, 0), Unreachable::Host);
    assert_eq!(frame.unwrap()[58..62], [0; 4]);
}

#[test]
fn what_is_no_ip_packet_has_no_message() {
    let packet = offending(GATEWAY, 0);
    for len in 0..=14 {
        assert_eq!(unreachable(vec![], &link(), &packet[..len], Unreachable::Host), None);
    }
    let mut other = packet;
    other[14] = 0x50;
    assert_eq!(unreachable(vec![], &link(), &other, Unreachable::Host), None);
}
