use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Repr,
};

use super::*;
use crate::gateway::testing::*;

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8).collect()
}

fn about(buffer: Vec<u8>, frame: &[u8], why: Unreachable) -> Option<Vec<u8>> {
    let packet = frame.get(ETHERNET..)?;
    error(buffer, &link(), None, packet, IcmpError::Unreachable(why))
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
            let frame = about(vec![0xdd; 40], &packet, why).unwrap();
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
            let frame = about(vec![0xdd; 4000], &packet, why).unwrap();
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
            assert_eq!(quote.len(), (packet.len() - 14).min(1232));
        }
    }
}

#[test]
fn a_message_of_zeroes_in_the_unused_field() {
    let frame = about(vec![0xff; 700], &offending(GATEWAY, 0), Unreachable::Host);
    assert_eq!(frame.unwrap()[38..42], [0; 4]);
    let frame = about(vec![0xff; 700], &offending(GATEWAY_V6, 0), Unreachable::Host);
    assert_eq!(frame.unwrap()[58..62], [0; 4]);
}

#[test]
fn what_is_no_ip_packet_has_no_message() {
    let packet = offending(GATEWAY, 0);
    for len in 0..=14 {
        assert_eq!(about(vec![], &packet[..len], Unreachable::Host), None);
    }
    let mut other = packet;
    other[14] = 0x50;
    assert_eq!(about(vec![], &other, Unreachable::Host), None);
}

#[test]
fn every_error_has_its_type_code_and_field() {
    let packet = offending([203, 0, 114, 9], 0);
    let packet_v6 = offending("2001:db9::9".parse::<Ipv6Addr>().unwrap(), 0);
    let relayed = IcmpError::Relayed { kind: 11, code: 1, rest: 0x0102_0304 };
    for (what, v4, v6) in [
        (IcmpError::Unreachable(Unreachable::Network), (3, 0, 0), (1, 0, 0)),
        (IcmpError::Unreachable(Unreachable::Host), (3, 1, 0), (1, 3, 0)),
        (IcmpError::Unreachable(Unreachable::Protocol), (3, 2, 0), (4, 1, 6)),
        (IcmpError::Unreachable(Unreachable::Port), (3, 3, 0), (1, 4, 0)),
        (IcmpError::Unreachable(Unreachable::Prohibited), (3, 13, 0), (1, 1, 0)),
        (IcmpError::TooBig { mtu: 1400 }, (3, 4, 1400), (2, 0, 1400)),
        (IcmpError::TooBig { mtu: 70_000 }, (3, 4, 65_535), (2, 0, 70_000)),
        // RFC 8201 section 4: one that says less is discarded.
        (IcmpError::TooBig { mtu: 576 }, (3, 4, 576), (2, 0, 1280)),
        (IcmpError::HopLimit, (11, 0, 0), (3, 0, 0)),
        (IcmpError::Reassembly, (11, 1, 0), (3, 1, 0)),
        (relayed, (11, 1, 0x0102_0304), (11, 1, 0x0102_0304)),
    ] {
        for (packet, ip, (kind, code, rest)) in [(&packet, 20, v4), (&packet_v6, 40, v6)] {
            let frame = error(vec![0xff; 900], &link(), None, &packet[14..], what).unwrap();
            let message = &frame[14 + ip..];
            assert_eq!(message[..2], [kind, code], "{what:?}");
            assert_eq!(message[4..8], u32::to_be_bytes(rest), "{what:?}");
            assert_eq!(message[8..], packet[14..]);
        }
    }
}

#[test]
fn the_source_is_the_router_that_said_so() {
    let packet = offending([203, 0, 114, 9], 0);
    let source = |from: [u8; 4]| {
        let from = Some(from.into());
        let frame = error(vec![], &link(), from, &packet[14..], IcmpError::HopLimit).unwrap();
        <[u8; 4]>::try_from(&frame[26..30]).unwrap()
    };
    assert_eq!(source([198, 51, 100, 1]), [198, 51, 100, 1]);
    for nobody in [[127, 0, 0, 1], [0; 4], [224, 0, 0, 1], [255; 4]] {
        assert_eq!(source(nobody), GATEWAY.octets());
    }
    let packet = offending("2001:db9::9".parse::<Ipv6Addr>().unwrap(), 0);
    let source = |from: Option<&str>| {
        let from = from.map(|from| from.parse().unwrap());
        let frame = error(vec![], &link(), from, &packet[14..], IcmpError::HopLimit).unwrap();
        Ipv6Addr::from(<[u8; 16]>::try_from(&frame[22..38]).unwrap())
    };
    assert_eq!(source(Some("2001:db9::1")), "2001:db9::1".parse::<Ipv6Addr>().unwrap());
    for nobody in [None, Some("::1"), Some("::"), Some("ff02::1"), Some("10.0.0.1")] {
        assert_eq!(source(nobody), GATEWAY_V6);
    }
}

/// What RFC 1122 section 3.2.2 and RFC 4443 section 2.4 (e) forbid.
#[test]
fn rfc_1122_3_2_2_no_error_about_errors_groups_and_later_fragments() {
    let what = IcmpError::Unreachable(Unreachable::Host);
    let about = |packet: &[u8]| error(vec![], &link(), None, packet, what).is_some();
    let changed = |frame: &[u8], at: usize, to: &[u8]| {
        let mut packet = frame[14..].to_vec();
        packet[at..at + to.len()].copy_from_slice(to);
        packet
    };
    let v4 = offending([203, 0, 114, 9], 0);
    assert!(about(&v4[14..]));
    for to in [[224, 0, 0, 1], [255; 4], [240, 0, 0, 1], [0; 4], [127, 0, 0, 1]] {
        assert!(!about(&changed(&v4, 16, &to)), "to {to:?}");
        assert!(!about(&changed(&v4, 12, &to)), "from {to:?}");
    }
    assert!(about(&changed(&v4, 6, &[0x20, 0])), "a first fragment");
    assert!(!about(&changed(&v4, 6, &[0x20, 1])) && !about(&changed(&v4, 6, &[0, 1])));
    let echo_v4 = echo([203, 0, 114, 9], b"data");
    for kind in 0..=255 {
        let is_query = matches!(kind, 0 | 8 | 9 | 10 | 13..=18);
        assert_eq!(about(&changed(&echo_v4, 20, &[kind])), is_query, "type {kind}");
    }
    let to: Ipv6Addr = "2001:db9::9".parse().unwrap();
    let v6 = offending(to, 0);
    assert!(about(&v6[14..]));
    for to in ["ff02::1", "::", "::1"] {
        let to = to.parse::<Ipv6Addr>().unwrap().octets();
        assert!(!about(&changed(&v6, 24, &to)) && !about(&changed(&v6, 8, &to)));
    }
    let echo_v6 = echo(to, b"data");
    for kind in 0..=255 {
        let is_query = kind >= 128 && kind != 137;
        assert_eq!(about(&changed(&echo_v6, 40, &[kind])), is_query, "type {kind}");
    }
    for (offset, next, allowed) in [(0u16, 17, true), (8, 17, false), (0, 58, false)] {
        let [high, low] = (offset | 1).to_be_bytes();
        let body = [next, 0, high, low, 0, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0];
        let frame = ipv6_packet(GUEST_V6, to, IpProtocol::Ipv6Frag, 64, &body);
        assert_eq!(about(&frame[14..]), allowed, "offset {offset}, protocol {next}");
    }
    let short = ipv6_packet(GUEST_V6, to, IpProtocol::Ipv6Frag, 64, &[17, 0, 0]);
    assert!(!about(&short[14..]));
}

#[test]
fn an_error_about_an_error_is_never_sent_however_deep() {
    let what = IcmpError::Unreachable(Unreachable::Host);
    let mut packet = echo([203, 0, 114, 9], b"data")[14..].to_vec();
    let mut errors = 0;
    for _ in 0..50 {
        let Some(frame) = error(vec![], &link(), None, &packet, what) else { break };
        // As if the guest had sent it.
        packet = frame[14..].to_vec();
        packet[12..16].copy_from_slice(&GUEST.octets());
        packet[16..20].copy_from_slice(&[203, 0, 114, 9]);
        errors += 1;
    }
    assert_eq!(errors, 1);
}

#[test]
fn padding_is_not_quoted() {
    let packet = offending([203, 0, 114, 9], 0);
    let padded = [&packet[..], &[0x55; 30]].concat();
    let plain = about(vec![], &packet, Unreachable::Host);
    assert_eq!(about(vec![], &padded, Unreachable::Host), plain);
}

/// RFC 5508 REQ-4: the guest finds its socket by the addresses and ports that it sent.
#[test]
fn rfc_5508_req_4_a_quote_has_the_addresses_of_the_guest() {
    use smoltcp::wire::{Ipv6Packet, UdpPacket};
    let server: std::net::SocketAddr = "203.0.114.9:53".parse().unwrap();
    let source = (GUEST, 4000).into();
    let quote = Quote::Udp { source, destination: server, data: b"question" };
    let packet = quote.packet().unwrap();
    let frame = error(vec![], &link(), None, &packet, IcmpError::HopLimit).unwrap();
    let ip = Ipv4Packet::new_checked(&frame[42..]).unwrap();
    assert!(ip.verify_checksum());
    assert_eq!((ip.src_addr(), ip.dst_addr()), (GUEST, [203, 0, 114, 9].into()));
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert_eq!((udp.src_port(), udp.dst_port(), udp.payload()), (4000, 53, &b"question"[..]));
    assert!(udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));

    let server: Ipv6Addr = "2001:db9::9".parse().unwrap();
    let quote = Quote::Echo {
        source: GUEST_V6.into(),
        destination: server.into(),
        identifier: 0xbeef,
        sequence: 3,
        data: &[7; 2000],
    };
    let packet = quote.packet().unwrap();
    let frame = error(vec![], &link(), None, &packet, IcmpError::HopLimit).unwrap();
    assert!(frame.len() <= 14 + 1280);
    let ip = Ipv6Packet::new_checked(&frame[62..]).unwrap();
    assert_eq!((ip.src_addr(), ip.dst_addr()), (GUEST_V6, server));
    let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
    assert!(icmp.verify_checksum(&GUEST_V6, &server));
    assert_eq!((icmp.echo_ident(), icmp.echo_seq_no()), (0xbeef, 3));
    let mixed = Quote::Udp { source, destination: (server, 53).into(), data: b"" };
    assert_eq!(mixed.packet(), None);
}
